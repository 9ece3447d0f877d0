"""Who may change a cached object: nobody, and what is done about those who do.

Process memory hands out the object it holds. ``isolate="copy"`` hands out private copies instead; and
``isolate="check"``, a switch for development, notices that a held object was changed and says by whom it had
been taken.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from eventperf.cache.entry import DEAD, Entry
from eventperf.cache.errors import ValueMutated

SHARE: Final = "share"
COPY: Final = "copy"

_FIXED: Final = frozenset(
    {str, int, float, bool, bytes, complex, type(None), UUID, date, datetime, time, timedelta, Decimal}
)
_OURS: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_REMEMBERED: Final = 3
_MOST: Final = 100_000


def private(value: Any) -> Any:
    """Return a copy that shares nothing that can change.

    >>> held = {"seats": [1, 2]}
    >>> taken = private(held)
    >>> taken["seats"].append(3)
    >>> held
    {'seats': [1, 2]}
    """
    kind = type(value)
    if kind in _FIXED:
        return value
    if kind is list:  # deepcopy's memo is what makes it slow: plain data needs none unless it is knotted
        return copy.deepcopy(value) if _is_deep(value) else [*value]
    if kind is dict:
        return copy.deepcopy(value) if _is_deep(value.values()) else {**value}
    return copy.deepcopy(value)


def _is_deep(parts: Any) -> bool:
    return any(type(part) not in _FIXED for part in parts)


class Marks:
    """What held objects looked like when they were handed out, and to whom; for ``isolate="check"``."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, bytes, list[str]]] = {}

    def handed_out(
        self, entry: Entry | None, local: str, key: str, value: Any, drop: Callable[[Sequence[str]], None]
    ) -> None:
        """Note that the object under ``local`` is about to be used.

        Args:
            entry: What process memory holds there.
            local: The key in process memory.
            key: The key as callers know it.
            value: The object.
            drop: Forgets local keys.

        Raises:
            ValueMutated: Since the last time somebody changed it. It is dropped: the next call loads anew.
        """
        if entry is None or entry.value is DEAD or entry.value is not value:
            return
        look = _digest(value)
        if look is None:
            return
        at = place()
        seen = self._seen.get(local)
        if seen is None or seen[0] is not entry:
            if len(self._seen) >= _MOST:
                self._seen.clear()
            self._seen[local] = (entry, look, [at])
        elif seen[1] != look:
            del self._seen[local]
            drop([local])
            raise ValueMutated(key, tuple(seen[2]), at)
        elif at not in seen[2]:
            del seen[2][: max(0, len(seen[2]) + 1 - _REMEMBERED)]
            seen[2].append(at)


def _digest(value: Any) -> bytes | None:
    """Return what changes when ``value`` does; ``None`` for objects that pickle cannot look into."""
    if type(value) in _FIXED:
        return None
    try:
        return hashlib.blake2b(pickle.dumps(value, 5), digest_size=16).digest()
    except Exception:  # any object may refuse in its own way; it is then not watched
        return None


def place() -> str:
    """Return file and line of the nearest caller outside this library."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_OURS, "<eventperf")):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown"
