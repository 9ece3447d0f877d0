"""What a server claims in its answers, looked at before anything is kept or made for it.

Where another stands in Redis' place, a head of four bytes may announce gigabytes, and an answer need not end.
"""

from __future__ import annotations

from typing import Final

MOST_TEXT: Final = 512 << 20
"""The longest text: what Redis itself takes (``proto-max-bulk-len``)."""
MOST_BYTES: Final = 1 << 30
"""A whole answer."""
MOST_ITEMS: Final = 4 << 20
_MOST_DEEP: Final = 32
_LINE: Final = 1 << 16

_TEXTS: Final = frozenset(b"$=!")
_LISTS: Final = frozenset(b"*~>%|")
_PAIRED: Final = frozenset(b"%|")
_ASIDE: Final = ord("|")


class Misread(Exception):
    """What came is no answer that can be read: the connection is not to be used again."""


class Answers:
    """Follows the heads of what one connection receives.

    >>> answers = Answers()
    >>> answers.look(b"*2\\r\\n$5\\r\\nhel")
    >>> answers.look(b"lo\\r\\n*4000000000\\r\\n")
    Traceback (most recent call last):
        ...
    eventperf._redis.answers.Misread: an answer of more than 4,194,304 items
    """

    __slots__ = ("_items", "_open", "_part", "_size", "_skip")

    def __init__(self) -> None:
        self._open: list[int] = []  # of each list that has begun, how many are still to come
        self._part = b""
        self._skip = self._size = self._items = 0

    def look(self, data: bytes | bytearray | memoryview) -> None:
        """Look at what has come.

        Raises:
            Misread: It is, or announces, more than any answer has.
        """
        end = len(data)
        if type(data) is bytes and data[:1] == b"$" and not (self._skip or self._open or self._part):
            line = data.find(b"\r\n", 1, 24)  # one text and no more: what a cache is answered mostly
            if line > 0 and line + 4 + _number(data[1:line]) == end:
                return
        if self._skip >= end:
            self._skip -= end
            return
        found = self._part + bytes(data) if self._part else bytes(data)
        at, end, self._part, left = self._skip, len(found), b"", self._open
        while at < end:
            line = found.find(b"\r\n", at)
            if line < 0:
                if end - at > _LINE:
                    raise Misread("a line without its end")
                self._part, at = found[at:], end
                break
            head = found[at]
            if head in _LISTS:
                self._listed(head, _number(found[at + 1 : line]))
                at = line + 2
                continue
            if head in _TEXTS:
                size = _number(found[at + 1 : line])
                if size > MOST_TEXT:
                    raise Misread(f"a text of more than {MOST_TEXT:,} bytes")
                at = line + 4 + size if size >= 0 else line + 2
                self._size += size
            else:
                self._size += line - at
                at = line + 2
            if self._size > MOST_BYTES:
                raise Misread(f"an answer of more than {MOST_BYTES:,} bytes")
            if left:
                left[-1] -= 1
            if not left or not left[-1]:
                self._ended()
        self._skip = at - end

    def _listed(self, head: int, count: int) -> None:
        if head in _PAIRED:
            count *= 2
        self._items += max(1, count)
        if self._items > MOST_ITEMS:
            raise Misread(f"an answer of more than {MOST_ITEMS:,} items")
        if len(self._open) >= _MOST_DEEP:
            raise Misread("lists inside of one another without an end")
        if head == _ASIDE and self._open:
            self._open[-1] += 1  # stands before a value, and is none
        self._open.append(max(0, count))
        if count <= 0:
            self._ended()

    def _ended(self) -> None:
        """Count what has become whole: a list whose last value came, and the lists around it."""
        left = self._open
        while left and not left[-1]:
            left.pop()
            if left:
                left[-1] -= 1
        if not left:
            self._size = self._items = 0


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise Misread("a length that is no number") from None
