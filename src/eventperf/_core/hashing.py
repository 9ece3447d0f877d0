"""Dicts and sets out of bytes from outside: keys can be chosen so that they take the square of their number.

Texts and bytes cannot be, as Python mixes a secret of its process into their hashes. Numbers, UUIDs, tuples
and time spans hash to the same everywhere: some share a hash, and others are chosen to follow one another
through the table (87,000 whole numbers of 87,000 hashes, 480 kB of msgpack: 13 s). To count equal hashes
would miss those, so what is bounded is the CPU time of building, in proportion to the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from time import thread_time
from typing import Any, Final, TypeVar

from .objects import STEPS, behind

FEW: Final = 256
"""So many keys are taken without a look at the clock: at worst they take some five times their share."""
SHORT: Final = 1 << 13
"""Bytes that cannot hold enough keys for more than a few thousandths of a second."""

_PIECE: Final = 256
_LEAST_S: Final = 0.05
_BYTE_S: Final = 3e-7  # a key of msgpack has two bytes and more, and takes 0.1 to 0.5 µs
_NESTED: Final = 16
"""Bytes of large maps, in sizes of the whole: each is looked through again for each that it stands in."""

_LIST_16: Final = 0xDC
_MAP_16: Final = 0xDE
_TEXTS: Final = frozenset({*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB, 0xC4, 0xC5, 0xC6})
_HOPS: Final = tuple(0 if _LIST_16 <= n <= 0xDF else max(0, STEPS[n]) for n in range(256))
_INSIDES: Final = tuple(2 * (n & 15) if n >> 4 == 8 else n & 15 if n >> 4 == 9 else 0 for n in range(256))
_LARGE: Final = re.compile(rb"\xde[\x01-\xff]|\xdf")

_C = TypeVar("_C", dict[Any, Any], set[Any])


class CollidingKeys(ValueError):
    """Keys that take far more time than as many others."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count:,} keys that collide")


def filled(make: type[_C], items: list[Any], size: int, clock: Callable[[], float] = thread_time) -> _C:
    """Return a dict of pairs or a set of ``items``, which came as ``size`` bytes.

    Raises:
        CollidingKeys: It takes far more CPU time than it should, twice: the garbage collector may run once.

    >>> filled(dict, [["a", 1], [2, 3]], 8)
    {'a': 1, 2: 3}
    """
    if len(items) <= FEW:
        return make(items)
    for _ in range(2):
        made, end = make(), clock() + _LEAST_S + size * _BYTE_S
        for at in range(0, len(items), _PIECE):
            made.update(items[at : at + _PIECE])
            if clock() > end:
                break
        else:
            return made
    raise CollidingKeys(len(items))


def check_maps(data: bytes, decode: Callable[[bytes], Any], *, opaque: Container[int] = range(256)) -> None:
    """Refuse msgpack with large maps of colliding keys, before a decoder makes dicts of them.

    Args:
        decode: Reads msgpack.
        opaque: As for :func:`~eventperf._core.objects.check_msgpack`.

    Raises:
        CollidingKeys: There is one, or large maps stand in one another again and again.

    >>> check_maps(b"\\x81\\x01\\x02", bytes)
    """
    if len(data) <= SHORT or not (b"\xde" in data or b"\xdf" in data):
        return
    left = _NESTED * len(data)
    for at in _large_maps(data, opaque):
        keys, end = _keys(data, at)
        left -= end - at
        if len(keys) > FEW:
            pieces = (keys[n : n + FEW] for n in range(0, len(keys), FEW))
            found = [(key, None) for piece in pieces for key in decode(_map_of(piece))]
            filled(dict, found, sum(map(len, keys)))
        if left < 0:
            raise CollidingKeys(len(keys))


def _large_maps(data: bytes, opaque: Container[int]) -> Iterator[int]:
    """Yield where large maps begin, walking from head to head as far as something looks like one."""
    at, hops = 0, _HOPS
    with suppress(IndexError):  # the end, or what is no msgpack
        for found in _LARGE.finditer(data):
            goal = found.start()
            while at < goal:
                hop = hops[data[at]]
                at = at + hop if hop else _over(data, at, opaque)
            if at == goal:
                yield at


def _over(data: bytes, at: int, opaque: Container[int]) -> int:
    """Return where the next head stands behind one whose length follows, or a list of equal heads."""
    head = data[at]
    if head < _LIST_16:
        return behind(data, at, opaque)
    start = at + (5 if head & 1 else 3)
    if head >= _MAP_16:
        return start
    count, hop = int.from_bytes(data[at + 1 : start], "big"), _HOPS[data[start]]
    heads = data[start : start + count * hop : hop] if hop > 1 else b""
    return start + count * hop if len(heads) == count == heads.count(heads[:1]) else start


def _keys(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the keys of the map at ``at`` that are no texts, as they stand there, and where the map ends."""
    out: list[bytes] = []
    start = at + (3 if data[at] == _MAP_16 else 5)
    count, at = int.from_bytes(data[at + 1 : start], "big"), start
    with suppress(IndexError):
        for _ in range(count):
            end = _end(data, at)
            if data[at] not in _TEXTS:
                out.append(data[at:end])
            at = _end(data, end)
    return out, at


def _end(data: bytes, at: int) -> int:
    """Return where the object at ``at`` ends."""
    left, hops, insides = 1, _HOPS, _INSIDES
    while left:
        head = data[at]
        left += insides[head] - 1
        if hop := hops[head]:
            at += hop
        elif head < _LIST_16:
            at = behind(data, at, range(256))
        else:
            start = at + (5 if head & 1 else 3)
            left += int.from_bytes(data[at + 1 : start], "big") * (2 if head >= _MAP_16 else 1)
            at = start
    return at


def _map_of(keys: list[bytes]) -> bytes:
    return b"\xde" + len(keys).to_bytes(2, "big") + b"\xc0".join((*keys, b""))
