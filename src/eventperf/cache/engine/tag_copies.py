"""Versions of tags that this process knows; coherent as process memory is, and bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

MOST: Final = 100_000
_LEAST: Final = 1_000


class TagCopies:
    """Versions by record; the oldest go first when there are too many."""

    def __init__(self, most: int = MOST) -> None:
        self._mu = threading.RLock()
        self._known: OrderedDict[str, str] = OrderedDict()
        self._most = most

    @classmethod
    def beside(cls, memory: object) -> TagCopies:
        """Return one that is bounded as process memory is: by ``max_entries``, where that says so."""
        most = getattr(memory, "max_entries", MOST)
        return cls(min(MOST, max(_LEAST, most)) if isinstance(most, int) else MOST)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, record: str) -> bool:
        return record in self._known

    def get(self, record: str) -> str | None:
        """Return the version of a record, if it is known."""
        return self._known.get(record)

    def items(self) -> list[tuple[str, str]]:
        """Return a snapshot."""
        with self._mu:
            return list(self._known.items())

    def keep(self, record: str, version: str) -> None:
        """Remember a version that was read with a ticket that has not been fenced."""
        with self._mu:
            if len(self._known) >= self._most and record not in self._known:
                self._known.popitem(last=False)
            self._known[record] = version

    def forget(self, records: Iterable[str]) -> None:
        """These tags were invalidated."""
        with self._mu:
            for record in records:
                self._known.pop(record, None)

    def clear(self) -> None:
        """Anything may have been invalidated."""
        with self._mu:
            self._known.clear()
