"""How many objects bytes from outside would become: counted before they are made.

An empty list is one byte of msgpack and some seventy of memory, so a bound of the bytes alone is none. Bytes
that are fewer than the objects allowed need no count; of the others msgpack is walked from head to head, and
of JSON the signs are counted that stand between values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from itertools import repeat
from typing import Any, Final

LEAST: Final = 1 << 20
"""So many objects (80 MB at worst) are allowed however few the bytes that are."""
BYTES_EACH: Final = 8
"""Above that, one object for so many of the bytes that are allowed: what a float takes in msgpack."""

_STRING: Final = re.compile(rb'"[^"]*"?')
_PIECE: Final = 1 << 20
_SOME: Final = 1 << 16


class TooManyObjects(ValueError):
    """Bytes that would become more objects than are allowed."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most:,} objects")


def allowed(most_bytes: int) -> int:
    """Return how many objects may be in ``most_bytes`` bytes.

    >>> allowed(1000), allowed(64 << 20)
    (1048576, 8388608)
    """
    return max(LEAST, most_bytes // BYTES_EACH)


def check_msgpack(data: bytes, most: int, *, opaque: Container[int] = range(256)) -> None:
    """Refuse msgpack that holds more than ``most`` objects.

    Args:
        opaque: Codes of the extensions whose insides are no msgpack that the decoder would read.

    Raises:
        TooManyObjects: It does.

    >>> check_msgpack(b"\\x93\\x01\\x02\\x90", 4)
    >>> check_msgpack(b"\\x93\\x01\\x02\\x90", 3)
    Traceback (most recent call last):
    eventperf._core.objects.TooManyObjects: more than 3 objects
    """
    at, left, steps = 0, most, STEPS
    # Heads only: where these bytes are no msgpack the decoder stops too, and made what came before.
    while len(data) - at > left:
        if not left:
            raise TooManyObjects(most)
        some = min(left, _SOME)
        left -= some
        try:
            for _ in repeat(None, some):
                step = steps[data[at]]
                at = at + step if step > 0 else behind(data, at, opaque)
        except IndexError:  # the end
            return


def behind(data: bytes, at: int, opaque: Container[int]) -> int:
    """Return where the next head stands, in or behind an extension; a length follows the one at ``at``."""
    head = data[at]
    if (step := STEPS[head]) < 0:
        return at + 1 - step + int.from_bytes(data[at + 1 : at + 1 - step], "big")
    if head >= 0xD4:
        size, at = 1 << (head - 0xD4), at + 1
    else:
        digits = 1 << (head - 0xC7)
        size, at = int.from_bytes(data[at + 1 : at + 1 + digits], "big"), at + 1 + digits
    return at + 1 + (size if data[at] in opaque else 0)


def check_json(data: bytes, most: int) -> None:
    """Refuse JSON that holds more than ``most`` objects.

    Raises:
        TooManyObjects: It does.

    >>> check_json(b'[1, "a,b,c", {}]', 5)
    >>> check_json(b'[1, "a,b,c", {}]', 4)
    Traceback (most recent call last):
    eventperf._core.objects.TooManyObjects: more than 4 objects
    """
    if len(data) <= most or _signs(data) < most:
        return
    data, count, is_inside = data.replace(b"\\\\", b"").replace(b'\\"', b""), 0, False
    for at in range(0, len(data), _PIECE):
        piece = b'"' * is_inside + data[at : at + _PIECE]
        is_inside = piece.count(b'"') % 2 == 1
        count += _signs(_STRING.sub(b"", piece))
        if count >= most:
            raise TooManyObjects(most)


def read_json(text: str | bytes, **how: Any) -> Any:
    """Return what JSON from outside says.

    Raises:
        ValueError: It is none, or holds more objects than anything of ours.

    >>> read_json("[1]")
    [1]
    """
    if len(text) > LEAST:
        check_json(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, LEAST)
    return json.loads(text, **how)


def _signs(data: bytes) -> int:
    return sum(data.count(sign) for sign in (b",", b":", b"[", b"{"))


def _steps() -> tuple[int, ...]:
    """Return how far behind each head of msgpack the next stands; below 0: so many bytes
    say how far; 0: look."""
    steps = [1] * 256
    for length in range(32):
        steps[0xA0 + length] = 1 + length
    for head, step in {
        0xC4: -1, 0xC5: -2, 0xC6: -4, 0xD9: -1, 0xDA: -2, 0xDB: -4,  # bytes and text
        0xC7: 0, 0xC8: 0, 0xC9: 0, 0xD4: 0, 0xD5: 0, 0xD6: 0, 0xD7: 0, 0xD8: 0,  # extensions
        0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,  # numbers
        0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,  # lists and dicts: their insides follow
    }.items():  # fmt: skip
        steps[head] = step
    return tuple(steps)


STEPS: Final = _steps()
