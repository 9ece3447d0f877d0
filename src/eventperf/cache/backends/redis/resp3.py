"""A minimal reader of RESP3, the protocol in which Redis 6 and later push invalidations."""

from __future__ import annotations

from typing import Any, Final

INCOMPLETE: Final[Any] = object()


class ReplyError(Exception):
    """An error that the server sent as a reply."""


class Push(list[Any]):
    """Something the server said unasked."""


class Reader:
    """Bytes in, messages out.

    >>> reader = Reader()
    >>> reader.feed(b">2\\r\\n$10\\r\\ninvalidate\\r\\n*1\\r\\n$1\\r\\nk\\r\\n+PONG\\r")
    >>> reader.gets() == [b"invalidate", [b"k"]], reader.gets() is INCOMPLETE
    (True, True)
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Add what came from the socket."""
        self._data += data

    def gets(self) -> Any:
        """Return the next message, or ``INCOMPLETE``."""
        start = self._at
        try:
            message = self._parse()
        except IndexError:
            self._at = start
            return INCOMPLETE
        if self._at > 65536:
            del self._data[: self._at]
            self._at = 0
        return message

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            raise IndexError
        line = bytes(self._data[self._at : end])
        self._at = end + 2
        return line

    def _parse(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind in (b"$", b"=", b"!"):
            return self._blob(kind, int(rest))
        if kind in (b"*", b"~", b">"):
            count = int(rest)
            if count < 0:
                return None
            items = [self._parse() for _ in range(count)]
            return Push(items) if kind == b">" else items
        if kind in (b"%", b"|"):
            pairs = {}
            for _ in range(int(rest)):
                key = self._parse()
                pairs[key if isinstance(key, (bytes, int)) else repr(key)] = self._parse()
            return (
                self._parse() if kind == b"|" else pairs
            )  # attributes stand before the message they are about
        return _simple(kind, rest)

    def _blob(self, kind: bytes, size: int) -> Any:
        if size < 0:
            return None
        end = self._at + size
        if len(self._data) < end + 2:
            raise IndexError
        blob = bytes(self._data[self._at : end])
        self._at = end + 2
        return ReplyError(blob.decode("utf-8", "replace")) if kind == b"!" else blob


def _simple(kind: bytes, rest: bytes) -> Any:
    if kind == b"+":
        return rest
    if kind == b"-":
        return ReplyError(rest.decode("utf-8", "replace"))
    if kind in (b":", b"("):
        return int(rest)
    if kind == b"_":
        return None
    if kind == b"#":
        return rest == b"t"
    if kind == b",":
        return float(rest)
    raise ReplyError(f"not RESP3: {kind!r}")


class Unpackable(Exception):
    """A part of a command that is neither text, bytes nor a number."""


def pack(*parts: str | bytes | int) -> bytes:
    """Return a command as the server reads it.

    Raises:
        Unpackable: A part is of another type.
    """
    out = [b"*%d\r\n" % len(parts)]
    for part in parts:
        kind = type(part)
        if kind is str:
            data = part.encode("utf-8", "surrogatepass")  # type: ignore[union-attr]
        elif isinstance(part, bytes):
            data = part
        elif isinstance(part, (str, int)) and not isinstance(part, bool):
            data = str(part).encode("utf-8", "surrogatepass")
        else:
            raise Unpackable(type(part).__name__)
        out.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(out)
