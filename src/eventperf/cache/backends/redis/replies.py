"""What a server may answer to each of our commands; anything else is no answer of a Redis to what was asked.

A reply that does not fit says that the connection cannot be trusted: answers may have got out of step, or
something that is no Redis stands between. It is told as an outage, never handed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from eventperf._redis.answers import Misread
from eventperf._redis.script import Script, read_script

_names: dict[str, str] = {}


class Misfit(Misread):
    """A reply that does not fit what was asked."""

    def __init__(self, asked: str, reply: object) -> None:
        super().__init__(f"the answer to {asked} does not fit: {_shown(reply)}")


class Garbage(Misfit):
    """Bytes that are no reply at all."""

    def __init__(self, text: object = "") -> None:
        Exception.__init__(self, f"the answer does not fit: {text}")


def _shown(reply: object) -> str:
    return f"{type(reply).__name__}: {reply}"[:120] if isinstance(reply, Exception) else type(reply).__name__


@cache
def script(name: str) -> Script:
    """Return a script's text and its digest."""
    made = read_script(__package__, *([] if name == "incr" else ["common"]), name)
    _names[made.text] = _names[made.sha] = name
    return made


def fit(command: Sequence[Any], reply: Any) -> Any:
    """Return the reply to ``command``, an error of the server as it is.

    Raises:
        Misfit: It is none that this command has.
    """
    if isinstance(reply, Exception):
        return reply
    asked: str = command[0]
    if asked in ("EVALSHA", "EVAL"):
        asked = _names[command[1]]
    fits = _FITS.get(asked)
    if not (_is_row(reply, len(command) - 1) if asked == "MGET" else fits is None or fits(reply)):
        raise Misfit(asked, reply)
    return reply


def good(reply: Any) -> Any:
    """Return a reply that is no error of the server; raise that."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def is_other_type(reply: object) -> bool:
    """Tell whether an answer says that a key holds no bytes but something else."""
    return isinstance(reply, Exception) and str(reply).startswith("WRONGTYPE")


def plain(reply: Any) -> bool:
    """Tell whether a reply is what ``GET`` gives: bytes or nothing."""
    return reply is None or type(reply) is bytes


def scanned(reply: Any) -> tuple[int, list[bytes]]:
    """Return the cursor and the keys of a ``SCAN``.

    Raises:
        Misfit: It is something else.
    """
    try:
        cursor, keys = reply
        if all(type(key) is bytes for key in keys):
            return int(cursor), list(keys)
    except (TypeError, ValueError):
        pass
    raise Misfit("SCAN", reply)


def _is_row(reply: Any, count: int) -> bool:
    return type(reply) is list and len(reply) == count and all(map(plain, reply))


def _is_count(reply: Any) -> bool:
    return type(reply) is int


def _list_of(*parts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def fits(reply: Any) -> bool:
        return (
            type(reply) is list
            and len(reply) == len(parts)
            and all(part(one) for part, one in zip(parts, reply, strict=True))
        )

    return fits


_DIGITS: Final = re.compile(rb"-?[0-9]{1,20}")


def _is_number(reply: Any) -> bool:
    """Tell whether a counter's value came: in digits, or nothing where it was not added to."""
    return type(reply) is int or (type(reply) is bytes and (not reply or bool(_DIGITS.fullmatch(reply))))


_is_note: Final = _list_of(_is_count, lambda note: type(note) is bytes)

_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "GET": plain,
    "SET": lambda reply: reply is True or reply == b"OK",
    "UNLINK": _is_count,
    "PUBLISH": _is_count,
    "acquire": _list_of(lambda state: type(state) is int and 0 <= state <= 3, _is_count, _is_count),
    "add": _list_of(_is_count, _is_number, _is_count),
    "board": lambda reply: type(reply) is list and all(map(_is_note, reply)),
    "incr": _list_of(_is_number, _is_count),
    "put_new": _is_count,
    "release": _is_count,
    "shorten": _is_count,
    "renew": _is_count,
    "store": _is_count,
    "tag": _list_of(lambda version: type(version) is bytes, _is_count, _is_count),
    "time": _is_count,
    "touch": _is_count,
}
