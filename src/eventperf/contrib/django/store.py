"""Process memory for Django's cache in its own manner: a bounded table that is culled by a share."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from eventperf.cache.entry import Entry


class CullingStore:
    """A first tier that Django's ``MAX_ENTRIES`` and ``CULL_FREQUENCY`` can steer.

    What was not used for longest goes first. It has no limit of its own: :meth:`make_room` is called
    before something is added, with the limits of the alias that adds it. Entries carry no tags here.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._table: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def make_room(self, max_entries: int, cull_frequency: int) -> None:
        """Drop one ``cull_frequency``-th of the entries (0: all) if there are ``max_entries`` or more."""
        with self._mu:
            count = len(self._table)
            if count >= max_entries:
                for _ in range(count // cull_frequency if cull_frequency else count):
                    self._table.popitem(last=False)

    def get(self, key: str, /) -> Entry | None:
        """Return the entry, and note that it was used."""
        entry = self._table.get(key)
        if entry is not None:
            with self._mu:
                if key in self._table:
                    self._table.move_to_end(key)
        return entry

    def left(self, key: str, /) -> tuple[Any, float]:
        """Return a value and the rest of its life in seconds, 0 where there is none."""
        entry = self._table.get(key)
        return (None, 0.0) if entry is None else (entry.value, entry.hard - time.monotonic())

    def put(self, entry: Entry, /) -> None:
        """Keep ``entry``."""
        key = entry.key
        if key is not None:
            with self._mu:
                self._table[key] = entry
                self._table.move_to_end(key)

    def pop(self, key: str, /) -> bool:
        """Drop ``key``; tell whether it was there."""
        with self._mu:
            return self._table.pop(key, None) is not None

    def drop(self, keys: Iterable[str], /) -> int:
        """Drop several keys; return how many were there."""
        return sum([self.pop(key) for key in keys])

    def drop_tags(self, tags: Iterable[str], /) -> int:
        """Drop nothing: Django's cache knows no tags."""
        return 0

    def keys(self) -> list[str]:
        """Return a snapshot of the keys."""
        with self._mu:
            return list(self._table)

    def clear(self) -> None:
        """Drop everything."""
        with self._mu:
            self._table.clear()
