"""Process memory: a bounded table with S3-FIFO eviction, a wheel for expiry and an index of tags."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf.cache.entry import DEAD, Alias, Entry, EntryMeta

from .wheel import Wheel

_CHANCES: Final = 8


class MemoryStore:
    """The first tier: entries of one process, bounded by number and, if asked, by bytes.

    Eviction is S3-FIFO: newcomers pass a small queue and stay only if they are read again, so that one
    long scan or export cannot push out what is read often. ``group_ratio`` bounds the share of the store
    that one group of keys (the text before the first colon pair, or ``group(key)``) may take.

    Args:
        max_entries: Most entries kept.
        max_bytes: Most bytes kept, by ``size_of``; unset does not measure.
        size_of: Size of a value in bytes; the default adds up containers one level deep.
        group_ratio: Largest share (0 to 1] of ``max_entries`` for one group; 1 switches quotas off.

    Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

    >>> store = MemoryStore(max_entries=2)
    >>> for n in range(3): store.put(Entry(str(n), n, 1e9, 1e9))
    >>> len(store)
    2
    """

    mu: Any

    def __init__(
        self,
        *,
        max_entries: int = 50_000,
        max_bytes: int | None = None,
        size_of: Any = None,
        group_ratio: float = 1.0,
    ) -> None:
        _positive("max_entries", max_entries)
        if max_bytes is not None:
            _positive("max_bytes", max_bytes)
        is_number = isinstance(group_ratio, (int, float)) and not isinstance(group_ratio, bool)
        if not is_number or not 0 < group_ratio <= 1:
            raise ConfigurationError("group_ratio", group_ratio, "a share above 0 and at most 1")
        if size_of is not None and not callable(size_of):
            raise ConfigurationError("size_of", size_of, "a function of a value that tells its bytes")
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._size_of = size_of or shallow_size
        self._group_max = max(1, int(max_entries * group_ratio)) if group_ratio < 1 else 0
        # The paper takes a tenth for newcomers; a twentieth was better in each of our six traces.
        self._small_max = max(1, max_entries // 20)
        self._reset()

    def _reset(self) -> None:
        self.mu = threading.RLock()
        self.table: dict[str, Entry] = {}
        self.wheel: Wheel = Wheel()
        self._tags: dict[str, set[str]] = {}
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._small_live = 0
        self._ghost: set[int] = set()
        self._ghosts: deque[int] = deque()  # in the order of their going
        self._groups: dict[str, OrderedDict[str, None]] = {}
        self.bytes: int = 0
        self.evictions: int = 0
        self.expirations: int = 0

    def after_fork(self) -> None:
        """Make a forked child independent: nobody sweeps there yet, and a lock may have been held."""
        if self.mu.acquire(blocking=False):
            self.mu = threading.RLock()
            for entry in list(self.table.values()):
                _unalias(entry)
            return
        aliased = list(self.table.values())
        self._reset()  # another thread was in the middle of a change
        for entry in aliased:
            _unalias(entry)

    def __len__(self) -> int:
        return len(self.table)

    def get(self, key: str) -> Entry | None:
        """Return the entry, whatever its age; the caller judges."""
        return self.table.get(key)

    def put(self, entry: Entry) -> None:
        """Keep ``entry``; replaces one of the same key, and evicts others to stay within bounds."""
        with self.mu:
            key = entry.key
            assert key is not None
            old = self.table.get(key)
            if self.max_bytes is not None and not self._weigh(entry, self.max_bytes):
                if old is not None:
                    self._kill(old)
                return
            in_main = old is not None and old.rank < 0
            had_one = old is not None
            while old is not None:  # the destructor of a value may have written anew
                self._kill(old)
                old = self.table.get(key)
            if had_one:
                self._append(entry, main=in_main)
            else:
                ghost = hash(key)
                remembered = ghost in self._ghost
                if remembered:
                    self._ghost.remove(ghost)
                self._append(entry, main=remembered)
            self.table[key] = entry
            meta = entry.meta
            if meta is not None:
                for tag in meta.tags:
                    self._tags.setdefault(tag, set()).add(key)
            if self._group_max:
                self._quota(entry)
            self.wheel.add(entry)
            self._tidy()
            while len(self.table) > self.max_entries or (
                self.max_bytes is not None and self.bytes > self.max_bytes and len(self.table) > 1
            ):
                self._evict_one()

    def _weigh(self, entry: Entry, limit: int) -> bool:
        size = int(self._size_of(entry.value)) + len(entry.key or "")
        if size > limit:
            return False
        if entry.meta is None:
            entry.meta = EntryMeta()
        entry.meta.size = size
        self.bytes += size
        return True

    def _append(self, entry: Entry, *, main: bool) -> None:
        if main:
            entry.rank = -1
            self._main.append(entry)
        else:
            entry.rank = 0
            self._small.append(entry)
            self._small_live += 1

    def _tidy(self) -> None:
        """Throw away what is left of the dead where it is the greater part; they may die before their end."""
        if len(self._small) > 2 * self._small_live + 64:
            self._small = deque(e for e in self._small if e.key is not None)
        if len(self._main) > 2 * len(self.table) + 64:
            self._main = deque(e for e in self._main if e.key is not None)
        self.wheel.compact(self.table.values())

    def _evict_one(self) -> None:
        while True:
            if self._small and (self._small_live > self._small_max or not self._main):
                entry = self._small.popleft()
                if entry.key is None:
                    continue
                if entry.hits > 0:
                    self._small_live -= 1
                    entry.rank = -1
                    entry.hits = 0
                    self._main.append(entry)
                    continue
                self._remember(entry.key)
                self._evicted(entry)
                return
            if not self._main:
                continue
            entry = self._main.popleft()
            if entry.key is None:
                continue
            if entry.hits > 0:
                entry.hits -= 1
                self._main.append(entry)
                continue
            self._evicted(entry)
            return

    def _remember(self, key: str) -> None:
        self._ghost.add(hash(key))
        self._ghosts.append(hash(key))
        if len(self._ghosts) > self.max_entries:
            self._ghost.discard(self._ghosts.popleft())

    def _evicted(self, entry: Entry) -> None:
        self.evictions += 1
        self._kill(entry)

    def _quota(self, entry: Entry) -> None:
        key = entry.key or ""
        group = key.partition(":")[0]
        if entry.meta is None:
            entry.meta = EntryMeta()
        entry.meta.group = group
        line = self._groups.get(group)
        if line is None:
            line = self._groups[group] = OrderedDict()
        line[key] = None
        if len(line) > self._group_max:
            self._evicted(self._first_unused(line, key))

    def _first_unused(self, line: OrderedDict[str, None], newcomer: str) -> Entry:
        """Return who has to go of a group: the oldest, those that were read sent back a few times."""
        for chance in range(_CHANCES, -1, -1):
            key = next(iter(line))
            entry = self.table[key]
            if key == newcomer or (entry.hits > 0 and chance):
                entry.hits = max(0, entry.hits - 1)
                line.move_to_end(key)
            else:
                return entry
        return self.table[next(iter(line))]

    def _kill(self, entry: Entry) -> None:
        key = entry.key
        if key is None:
            return
        entry.key = None  # first: what a signal handler or a destructor does in between finds it dead
        if self.table.get(key) is entry:
            self.table.pop(key, None)
        if entry.rank >= 0:
            self._small_live -= 1
        self.wheel.dead += 1
        meta = entry.meta
        if meta is not None:
            _unalias(entry)
            self.bytes -= meta.size
            if meta.group:
                line = self._groups[meta.group]
                del line[key]
                if not line:
                    del self._groups[meta.group]
            for tag in meta.tags:
                keys = self._tags.get(tag)
                if keys is not None:
                    keys.discard(key)
                    if not keys:
                        del self._tags[tag]
        # Readers that hold the entry without the lock look for DEAD. The value itself goes with this call,
        # when all is in order: its destructor may use the cache.
        value, entry.value = entry.value, DEAD
        entry.meta = None
        del value

    def pop(self, key: str) -> bool:
        """Drop ``key``; tell whether it was there."""
        with self.mu:
            entry = self.table.get(key)
            if entry is None:
                return False
            self._kill(entry)
            self._tidy()
            return True

    def alias(self, entry: Entry, table: dict[Any, Any], at: Any) -> None:
        """Let ``table[at]`` point at ``entry`` for as long as the entry is alive and fresh."""
        with self.mu:
            if entry.key is None or table.get(at) is entry:  # who went around the table comes again
                return
            if entry.meta is None:
                entry.meta = EntryMeta()
            place: Alias = (table, at)
            if entry.meta.aliases is None:
                entry.meta.aliases = [place]
            else:
                entry.meta.aliases.append(place)
            table[at] = entry

    def keys(self) -> list[str]:
        """Return a snapshot of the keys."""
        with self.mu:
            return list(self.table)

    def drop(self, keys: Iterable[str]) -> int:
        """Drop several keys; return how many were there."""
        return sum([self.pop(key) for key in keys])

    def drop_tags(self, tags: Iterable[str]) -> int:
        """Drop every entry that has one of ``tags``."""
        count = 0
        for tag in tags:
            with self.mu:
                doomed = list(self._tags.get(tag, ()))
            count += self.drop(doomed)
        return count

    def tags(self) -> list[str]:
        """Return the tags that entries here have."""
        with self.mu:
            return list(self._tags)

    def clear(self) -> None:
        """Drop everything."""
        with self.mu:
            for entry in list(self.table.values()):
                self._kill(entry)
            self._small.clear()
            self._main.clear()
            self._ghost.clear()
            self._ghosts.clear()

    def entries(self) -> Iterator[Entry]:
        """Iterate over a snapshot of the entries."""
        with self.mu:
            return iter(list(self.table.values()))

    def next_due(self) -> float | None:
        """Return when something is due to expire (monotonic), or ``None``."""
        return self.wheel.next_due()

    def sweep(self, now: float, /) -> float | None:
        """Drop what has expired at ``now``, and take what is about to from the fast tables.

        Returns:
            When to sweep next (monotonic), or ``None`` when nothing is due to expire.
        """
        with self.mu:
            for entry in self.wheel.due(now):
                if entry.key is None:
                    continue
                if now >= entry.hard:
                    self.expirations += 1
                    self._kill(entry)
                else:
                    _unalias(entry)
                    self.wheel.add_end(entry)
            self.wheel.compact(self.table.values())
            return self.wheel.next_due()


def _unalias(entry: Entry) -> None:
    meta = entry.meta
    if meta is None or meta.aliases is None:
        return
    for table, at in meta.aliases:
        if table.get(at) is entry:
            table.pop(at, None)
    meta.aliases = None


def _positive(name: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise ConfigurationError(name, value, "a whole number of 1 or more")


def shallow_size(value: Any) -> int:
    """Estimate the bytes a value takes: itself, and for containers two levels of what they hold."""
    return _size(value, 2)


def _size(value: Any, depth: int) -> int:
    size = sys.getsizeof(value, 64)
    if depth:
        if isinstance(value, dict):
            size += sum(_size(k, depth - 1) + _size(v, depth - 1) for k, v in value.items())
        elif isinstance(value, (list, tuple, set, frozenset)):
            size += sum(_size(item, depth - 1) for item in value)
        elif hasattr(value, "__dict__"):
            size += _size(value.__dict__, depth)
    return size
