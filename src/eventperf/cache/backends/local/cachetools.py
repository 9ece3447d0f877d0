"""Process memory with any eviction policy of cachetools."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from eventperf._core.extras import require
from eventperf.cache.entry import Entry


class CachetoolsStore:
    """A first tier over a cache object of the cachetools library, such as ``LFUCache(10_000)``.

    The object decides what is evicted; lives and tags are kept here. It must not be used elsewhere.

    Args:
        cache: The cachetools object; its ``maxsize`` counts entries unless it has a ``getsizeof`` (which then
            is given the :class:`~eventperf.cache.entry.Entry`).
    """

    def __init__(self, cache: Any) -> None:
        require("cachetools", extra="cache", needed_by="CachetoolsStore")
        self._cache = cache
        self._mu = threading.RLock()
        self._tags: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._cache)

    def get(self, key: str, /) -> Entry | None:
        """Return the entry, whatever its age; the policy notes the use."""
        with self._mu:
            entry: Entry | None = self._cache.get(key)
            return entry

    def put(self, entry: Entry, /) -> None:
        """Keep ``entry``; one too large for the cache is not kept."""
        key = entry.key
        with self._mu:
            self.pop(key or "")
            try:
                self._cache[key] = entry
            except ValueError:
                return
            for tag in entry.meta.tags if entry.meta is not None else ():
                self._tags.setdefault(tag, set()).add(key or "")
            if len(self._tags) > 2 * len(self._cache) + 64:
                self._tags = {
                    t: kept for t, keys in self._tags.items() if (kept := keys & self._cache.keys())
                }

    def pop(self, key: str, /) -> bool:
        """Drop ``key``; tell whether it was there."""
        with self._mu:
            entry: Entry | None = self._cache.pop(key, None)
            if entry is None:
                return False
            for tag in entry.meta.tags if entry.meta is not None else ():
                keys = self._tags.get(tag, set())
                keys.discard(key)
                if not keys:
                    self._tags.pop(tag, None)
            return True

    def drop(self, keys: Iterable[str], /) -> int:
        """Drop several keys; return how many were there."""
        return sum([self.pop(key) for key in keys])

    def drop_tags(self, tags: Iterable[str], /) -> int:
        """Drop every entry that has one of ``tags``."""
        with self._mu:
            doomed = {key for tag in tags for key in self._tags.get(tag, ())}
            return self.drop(doomed)

    def keys(self) -> list[str]:
        """Return a snapshot of the keys."""
        with self._mu:
            return list(self._cache)

    def clear(self) -> None:
        """Drop everything."""
        with self._mu:
            self._cache.clear()
            self._tags.clear()
