"""A dogpile.cache backend: ``make_region().configure("eventperf", arguments={"url": "redis://..."})``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eventperf._core.durations import seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.cache import FOREVER, CacheManager, RedisStore

from ._lock import SharedLock

require("dogpile.cache", extra="dogpile", needed_by="eventperf.contrib.dogpile")
from dogpile.cache import register_backend  # noqa: E402
from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex  # noqa: E402

__all__ = ["EventPerfBackend"]

if TYPE_CHECKING:
    from eventperf.cache import CacheStats


class EventPerfBackend(BytesBackend):
    """dogpile's values in process memory and, with ``url``, in Redis; coherent among processes.

    Arguments:

    * ``url``: ``redis://`` or ``redis+cluster://``; without it process memory alone.
    * ``namespace``: ``"dogpile"``.
    * ``ttl``: life of entries in the store, forever by default; dogpile judges freshness itself.
    * ``distributed_lock``: one creator among all processes; needs ``url``.
    * ``lock_timeout``: seconds after which the lock of a creator that died is given to the next (30).

    As dogpile asks of its backends, other arguments are ignored.

    Raises:
        ConfigurationError: ``distributed_lock`` without ``url``, or a value that cannot work.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        url = arguments.get("url")
        ttl = arguments.get("ttl")
        self._ttl = FOREVER if ttl is None else seconds(ttl, name="ttl", forever=True)
        self._lease_s = seconds(arguments.get("lock_timeout") or 30.0, name="lock_timeout")
        self._namespace = arguments.get("namespace", "dogpile")
        self._store = RedisStore(url) if url else None
        if arguments.get("distributed_lock") and self._store is None:
            raise ConfigurationError("distributed_lock", True, "together with url")
        self._locks = bool(arguments.get("distributed_lock"))
        self._manager = CacheManager(*((self._store,) if self._store else ()), namespace=self._namespace)

    def stats(self) -> CacheStats:
        """Return what the cache did in this process."""
        return self._manager.stats()

    def close(self) -> None:
        """Close the connections."""
        self._manager.close()

    def get_mutex(self, key: str) -> Any:
        """Return a lock among processes if ``distributed_lock`` was asked for, else ``None``."""
        return _Mutex(self._store, f"{self._namespace}:lock:{key}", self._lease_s) if self._locks else None

    def get_serialized(self, key: str) -> Any:
        """Return the bytes, or ``NO_VALUE``."""
        return self._manager.get(key, NO_VALUE)

    def get_serialized_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        """Return the bytes of several keys, in one round trip per node."""
        names = list(keys)
        found = self._manager.get_many(names)
        return [found.get(name, NO_VALUE) for name in names]

    def set_serialized(self, key: str, value: bytes) -> None:
        """Keep bytes."""
        self._manager.set(key, value, ttl=self._ttl)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        """Keep the bytes of several keys, in one round trip per node."""
        if mapping:
            self._manager.set_many(dict(mapping), ttl=self._ttl)

    def delete(self, key: str) -> None:
        """Delete a key."""
        self._manager.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Delete several keys."""
        if names := list(keys):
            self._manager.delete(*names)


class _Mutex(CacheMutex):
    def __init__(self, store: Any, key: str, lease_s: float) -> None:
        self._lock = SharedLock(store, key, lease_s)

    def acquire(self, wait: bool = True) -> bool:
        return self._lock.acquire(wait)

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()


register_backend("eventperf", __name__, "EventPerfBackend")  # type: ignore[no-untyped-call]
