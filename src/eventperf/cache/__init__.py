"""A cache for applications: process memory and Redis as one, for threads, tasks and many processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventperf._core.durations import FOREVER

from .backends.local.memory import MemoryStore
from .commit import invalidate_on_commit
from .decorating.faces import CachedCoroutine, CachedFunction
from .default import cached, configure
from .errors import (
    CacheError,
    CounterOverflow,
    JournalMissing,
    LoadTimeout,
    LockTimeout,
    NotCacheable,
    SerializationError,
    StoreUnavailable,
    UnstableKey,
    ValueMutated,
    ValueTooLarge,
)
from .following import depends, row
from .keys import escape
from .manager import CacheManager
from .options import CacheOptions
from .protocols import AsyncCacheStore, CacheStore, InvalidationBus, LocalStore, Serializer, SupportsLease
from .stats import (
    BreakerChanged,
    CacheProcess,
    CacheStats,
    CoherenceChanged,
    CorruptEntry,
    EntryFacts,
    Invalidated,
    Loaded,
    LoadFailed,
    NotKept,
    StoreTrouble,
)
from .values.serializers import PickleSerializer
from .verbs.lock import AsyncLock, Lock
from .warming import EVENT_PLATFORM, WarmReport, WarmResult

if TYPE_CHECKING:
    from .backends.local.cachetools import CachetoolsStore
    from .backends.redis.store import RedisStore
    from .journal import Journal

__all__ = [
    "EVENT_PLATFORM",
    "FOREVER",
    "AsyncCacheStore",
    "AsyncLock",
    "BreakerChanged",
    "CacheError",
    "CacheManager",
    "CacheOptions",
    "CacheProcess",
    "CacheStats",
    "CacheStore",
    "CachedCoroutine",
    "CachedFunction",
    "CachetoolsStore",
    "CoherenceChanged",
    "CorruptEntry",
    "CounterOverflow",
    "EntryFacts",
    "Invalidated",
    "InvalidationBus",
    "Journal",
    "JournalMissing",
    "LoadFailed",
    "LoadTimeout",
    "Loaded",
    "LocalStore",
    "Lock",
    "LockTimeout",
    "MemoryStore",
    "NotCacheable",
    "NotKept",
    "PickleSerializer",
    "RedisStore",
    "SerializationError",
    "Serializer",
    "StoreTrouble",
    "StoreUnavailable",
    "SupportsLease",
    "UnstableKey",
    "ValueMutated",
    "ValueTooLarge",
    "WarmReport",
    "WarmResult",
    "cached",
    "configure",
    "depends",
    "escape",
    "invalidate_on_commit",
    "row",
]

_LATE = {
    "CachetoolsStore": "backends.local.cachetools",
    "Journal": "journal.reader",
    "RedisStore": "backends.redis.store",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module 'eventperf.cache' has no attribute {name!r}")
