"""What process memory holds per key."""

from __future__ import annotations

from typing import Any, Final

Alias = tuple[dict[Any, Any], Any]

DEAD: Final = object()
"""The value of an entry that was evicted, expired or invalidated."""


class Entry:
    """One value in process memory.

    Attributes:
        key: The local key; ``None`` once the entry is dead (evicted, expired or invalidated).
        value: The stored object itself.
        soft: Monotonic time until which it is fresh.
        hits: Times it was served since the eviction policy last looked, up to three: its evidence. Readers
            count without a lock, so one may be lost under contention.
        rank: The eviction policy's own number.
        meta: ``None`` for plain entries, else an :class:`EntryMeta`.
    """

    # Six slots and the collector's header are 80 bytes; a seventh would take 96.
    __slots__ = ("hits", "key", "meta", "rank", "soft", "value")

    def __init__(self, key: str, value: Any, soft: float, hard: float, meta: EntryMeta | None = None) -> None:
        self.key: str | None = key
        self.value: Any = value
        self.soft: float = soft
        self.hits: int = 0
        self.rank: int = 0
        if hard != soft:
            meta = meta or EntryMeta()
            meta.hard = hard
        self.meta: EntryMeta | None = meta

    @property
    def hard(self) -> float:
        """Monotonic time until which it may be kept."""
        meta = self.meta
        return self.soft if meta is None or meta.hard is None else meta.hard


class EntryMeta:
    """The less common facts of an entry.

    Attributes:
        tags: Tags whose invalidation drops it.
        aliases: Places in the fast tables of cached functions that point at the entry.
        hard: Until when the entry may be kept, where that is longer than it is fresh.
        load_s: How long its load took, in seconds.
        size: Bytes it counts for, where the store is bounded by bytes.
        group: Its group, where groups have quotas.
    """

    __slots__ = ("aliases", "group", "hard", "load_s", "size", "tags")

    def __init__(self, tags: tuple[str, ...] = (), load_s: float = 0.0) -> None:
        self.tags: tuple[str, ...] = tags
        self.aliases: list[Alias] | None = None
        self.hard: float | None = None
        self.load_s: float = load_s
        self.size: int = 0
        self.group: str = ""
