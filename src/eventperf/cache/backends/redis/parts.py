"""Long calls in parts, so that a server at work on many commands is not taken for a silent one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from .patience import weight

Command = tuple[Any, ...]

PART_MAX: Final = 500
PART_BYTES: Final = 1 << 18


def runs(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield keys in parts of bounded number."""
    for start in range(0, len(keys), PART_MAX):
        yield keys[start : start + PART_MAX]


def parts(commands: Sequence[Command]) -> Iterator[tuple[list[Command], int]]:
    """Yield commands in parts of bounded number and bytes, with their bytes."""
    part: list[Command] = []
    size = 0
    for command in commands:
        more = weight(command)
        if part and (len(part) >= PART_MAX or size + more > PART_BYTES):
            yield part, size
            part, size = [], 0
        part.append(command)
        size += more
    if part:
        yield part, size
