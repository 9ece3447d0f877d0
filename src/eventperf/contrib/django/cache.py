"""A Django cache backend: process memory, Redis or a Redis Cluster behind Django's own API.

Values are pickled, as with every backend of Django: choosing this backend is the consent to it. They
are unpickled for each reader, so that nobody sees what another one changes.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from eventperf._core.errors import ConfigurationError
from eventperf.cache import FOREVER, CacheManager, CacheOptions, MemoryStore, RedisStore
from eventperf.cache.checks import INT64
from eventperf.contrib._lock import AsyncSharedLock, LocalLocks, SharedLock

from .habits import DjangoRedisCalls
from .location import server_of
from .store import CullingStore

if TYPE_CHECKING:  # Django ships no types

    class BaseCache:
        """The part of Django's class that is used here."""

        default_timeout: float | None
        _max_entries: int
        _cull_frequency: int

        def __init__(self, params: dict[str, Any]) -> None: ...
        def make_and_validate_key(self, key: str, version: Any = None) -> str: ...
        def get_or_set(self, key: str, default: Any, timeout: Any = ..., version: Any = None) -> Any: ...
        async def aget_or_set(
            self, key: str, default: Any, timeout: Any = ..., version: Any = None
        ) -> Any: ...
else:
    from django.core.cache.backends.base import BaseCache

__all__ = ["EventPerfCache"]

_ABSENT: Final = object()
_LOCK_S: Final = 5.0
_LONG: Final = 10**4000  # longer ones have no digits in Python's default
_MEMORY_ENTRIES: Final = 10_000


class _Shared:
    """What all aliases and threads of one location have in common."""

    def __init__(self, url: str | None, options: Mapping[str, Any]) -> None:
        self.table: CullingStore | None = None
        self.store: RedisStore | None = None
        self.locks = LocalLocks()
        # What this API stores is what its caller says; get_or_set and add must win or lose for everybody.
        plain = CacheOptions(guard_transactions=False)
        if url is not None:
            store: dict[str, Any] = {n: options[n] for n in ("timeout", "max_connections") if n in options}
            self.store = RedisStore(url, **store)
            l1 = MemoryStore(max_entries=options["l1_entries"]) if options["l1_entries"] else None
            self.manager = CacheManager(
                self.store, namespace=options["namespace"], l1=l1, coherence=options["coherence"],
                options=plain, serializer=StoredSerializer(),
            )  # fmt: skip
        else:
            self.table = CullingStore()
            self.manager = CacheManager(l1=self.table, options=plain)


class StoredSerializer:
    """Whole numbers in digits, which a script on the server can add to; the rest is bytes already."""

    name = "j"

    def dumps(self, value: Any, /) -> bytes:
        """Return a number or a pickle as bytes."""
        return b"p" + value if isinstance(value, bytes) else b"i%d" % value

    def loads(self, data: bytes, /) -> Any:
        """Return the number or the pickle."""
        return data[1:] if data[:1] == b"p" else int(data[1:])


_OPTIONS: Final[dict[str, Any]] = {"namespace": "django", "coherence": "tracking", "l1_entries": 50_000}
_KNOWN: Final = frozenset({*_OPTIONS, "timeout", "max_connections", "MAX_ENTRIES", "CULL_FREQUENCY"})
_shared: dict[tuple[Any, ...], _Shared] = {}
_shared_mu = threading.Lock()


class EventPerfCache(DjangoRedisCalls, BaseCache):
    """``LOCATION`` is a URL of Redis or a Redis Cluster (or a list of one), or a name for process memory.

    ``KEY_PREFIX``, ``VERSION``, ``TIMEOUT`` and ``KEY_FUNCTION`` mean what they mean everywhere in Django.
    ``MAX_ENTRIES`` (10,000) and ``CULL_FREQUENCY`` bound process memory alone; a Redis is bounded by its
    ``maxmemory``. ``OPTIONS`` for Redis: ``namespace`` (``"django"``; :meth:`clear` empties it),
    ``coherence``, ``l1_entries`` (50,000; 0 switches process memory off), ``timeout`` and
    ``max_connections``.

    Aliases with the same location and options share one connection pool and one memory. What users of
    django-redis call beyond Django's API (``ttl``, ``lock``, ``delete_pattern``, ...) is there too.

    Raises:
        ConfigurationError: An unknown option, or a ``LOCATION`` that may mean a server and does not say so.
    """

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(params)
        given = dict(params.get("OPTIONS") or {})
        for name in given:
            if name not in _KNOWN:
                raise ConfigurationError("OPTIONS", name, sorted(_KNOWN))
        limits = {**params, **given}
        if not {"max_entries", "MAX_ENTRIES"} & limits.keys():
            self._max_entries = _MEMORY_ENTRIES
        options = _OPTIONS | {name: value for name, value in given.items() if name not in _CULL}
        url = server_of(location)
        key = (url or str(location), *sorted(options.items()))
        with _shared_mu:
            shared = _shared.get(key)
            if shared is None:
                shared = _shared[key] = _Shared(url, options)
        self._shared = shared
        self._cache = shared.manager

    # -- values ------------------------------------------------------------------------------------
    # A whole number is itself, so that incr() can add to it; everything else is a pickle.

    def _ttl(self, timeout: Any) -> float:
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return FOREVER if timeout is None else float(timeout)

    @staticmethod
    def _pack(value: Any) -> Any:
        is_number = type(value) is int and -_LONG < value < _LONG
        return value if is_number else pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def _unpack(stored: Any) -> Any:
        return pickle.loads(stored) if isinstance(stored, bytes) else stored

    def _room(self) -> None:
        if self._shared.table is not None:
            self._shared.table.make_room(self._max_entries, self._cull_frequency)

    def _keys(self, keys: Iterable[str], version: Any) -> dict[str, str]:
        return {self.make_and_validate_key(key, version=version): key for key in keys}

    # -- for threads -------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None, version: Any = None) -> Any:
        """Return the value, or ``default``."""
        stored = self._cache.get(self.make_and_validate_key(key, version=version), _ABSENT)
        return default if stored is _ABSENT else self._unpack(stored)

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """Keep ``value``; a time-out of 0 or less deletes the key."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        packed = self._pack(value)
        if ttl <= 0:
            self._cache.delete(name)
        else:
            self._room()
            self._cache.set(name, packed, ttl=ttl)

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Keep ``value`` unless there is one; tell whether it was kept. One winner among all processes."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        packed, won = self._pack(value), threading.Event()
        if ttl <= 0:
            return self._cache.get(name, _ABSENT) is _ABSENT
        self._room()
        self._cache.get_or_load(name, _winning(won, packed), ttl=ttl)
        return won.is_set()

    def get_or_set(self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """Return the value; where there is none, keep and return ``default`` or what it returns.

        A callable is called once for all who ask at the same time, in all processes.
        """
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        if ttl <= 0:
            return super().get_or_set(key, default, timeout=timeout, version=version)
        self._room()
        return self._unpack(self._cache.get_or_load(name, self._loader(default), ttl=ttl))

    def _loader(self, default: Any) -> Callable[[], Any]:
        return lambda: self._pack(default() if callable(default) else default)

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Give the key a new time-out; tell whether it was there."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        return self._cache.touch(name, ttl=ttl) if ttl > 0 else self._cache.delete(name) > 0

    def delete(self, key: str, version: Any = None) -> bool:
        """Delete the key; tell whether it was there."""
        return self._cache.delete(self.make_and_validate_key(key, version=version)) > 0

    def incr(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """Add ``delta`` and return the sum; no two calls anywhere lose one another, the time-out stays.

        Raises:
            ValueError: There is no such key.
            TypeError: The value is no number.
        """
        name = self.make_and_validate_key(key, version=version)
        if self._shared.store is None:
            return self._incr_here(key, name, delta)
        added = self._cache.add_to(name, delta if type(delta) is int and delta in INT64 else None)
        if added.is_absent:
            raise ValueError(f"Key '{key}' not found")
        if added.is_done:
            return added.total
        with SharedLock(self._shared.store, f"eventperf:lock:{name}", _LOCK_S):
            new = self._sum(key, self._cache.get(name, _ABSENT, options=_NO_L1), delta)
            self._cache.set(name, self._pack(new), ttl=added.left_s)
        return new

    def _sum(self, key: str, stored: Any, delta: Any) -> Any:
        """Add what the server cannot: fractions, very long numbers."""
        if stored is _ABSENT:
            raise ValueError(f"Key '{key}' not found")
        return self._unpack(stored) + delta

    def _incr_here(self, key: str, name: str, delta: Any) -> Any:
        assert self._shared.table is not None
        with self._shared.locks.of(name):
            stored, left = self._shared.table.left(name)
            if left <= 0:
                raise ValueError(f"Key '{key}' not found")
            new = self._unpack(stored) + delta
            self._cache.set(name, self._pack(new), ttl=left)
        return new

    def get_many(self, keys: Iterable[str], version: Any = None) -> dict[str, Any]:
        """Return the values there are, in one round trip per node."""
        names = self._keys(keys, version)
        return {names[n]: self._unpack(v) for n, v in self._cache.get_many(list(names)).items()}

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[str]:
        """Keep several values, in one round trip per node; returns an empty list."""
        ttl = self._ttl(timeout)
        items = {self.make_and_validate_key(k, version=version): self._pack(v) for k, v in data.items()}
        if ttl <= 0:
            self._cache.delete(*items)
        elif items:
            self._room()
            self._cache.set_many(items, ttl=ttl)
        return []

    def delete_many(self, keys: Iterable[str], version: Any = None) -> None:
        """Delete several keys, in one round trip per node."""
        if names := self._keys(keys, version):
            self._cache.delete(*names)

    def clear(self) -> None:
        """Delete every key of this location's namespace, whatever its prefix and version."""
        self._cache.clear()

    def trouble(self) -> object:
        """Return what changes whenever the server did not answer: a value was then not read, not absent."""
        stats = self._cache.stats()
        return object() if stats.breaker == "open" else stats.store_errors

    def close(self, **kwargs: Any) -> None:
        """Keep everything open: connections outlive requests."""

    # -- for tasks ---------------------------------------------------------------------------------

    async def aget(self, key: str, default: Any = None, version: Any = None) -> Any:
        """Asynchronous twin of :meth:`get`."""
        stored = await self._cache.aget(self.make_and_validate_key(key, version=version), _ABSENT)
        return default if stored is _ABSENT else self._unpack(stored)

    async def aset(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """Asynchronous twin of :meth:`set`."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        packed = self._pack(value)
        if ttl <= 0:
            await self._cache.adelete(name)
        else:
            self._room()
            await self._cache.aset(name, packed, ttl=ttl)

    async def aadd(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Asynchronous twin of :meth:`add`."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        packed, won = self._pack(value), threading.Event()
        if ttl <= 0:
            return await self._cache.aget(name, _ABSENT) is _ABSENT
        self._room()
        await self._cache.aget_or_load(name, _winning(won, packed), ttl=ttl)
        return won.is_set()

    async def aget_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> Any:
        """Asynchronous twin of :meth:`get_or_set`."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        if ttl <= 0:
            return await super().aget_or_set(key, default, timeout=timeout, version=version)
        self._room()
        return self._unpack(await self._cache.aget_or_load(name, self._loader(default), ttl=ttl))

    async def atouch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Asynchronous twin of :meth:`touch`."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        return await self._cache.atouch(name, ttl=ttl) if ttl > 0 else await self._cache.adelete(name) > 0

    async def adelete(self, key: str, version: Any = None) -> bool:
        """Asynchronous twin of :meth:`delete`."""
        return await self._cache.adelete(self.make_and_validate_key(key, version=version)) > 0

    async def aincr(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """Asynchronous twin of :meth:`incr`."""
        if self._shared.store is None:  # process memory: nothing to wait for
            return self.incr(key, delta, version)
        name = self.make_and_validate_key(key, version=version)
        added = await self._cache.aadd_to(name, delta if type(delta) is int and delta in INT64 else None)
        if added.is_absent:
            raise ValueError(f"Key '{key}' not found")
        if added.is_done:
            return added.total
        async with AsyncSharedLock(self._shared.store, f"eventperf:lock:{name}", _LOCK_S):
            new = self._sum(key, await self._cache.aget(name, _ABSENT, options=_NO_L1), delta)
            await self._cache.aset(name, self._pack(new), ttl=added.left_s)
        return new

    async def aget_many(self, keys: Iterable[str], version: Any = None) -> dict[str, Any]:
        """Asynchronous twin of :meth:`get_many`."""
        names = self._keys(keys, version)
        found = await self._cache.aget_many(list(names))
        return {names[n]: self._unpack(v) for n, v in found.items()}

    async def aset_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[str]:
        """Asynchronous twin of :meth:`set_many`."""
        ttl = self._ttl(timeout)
        items = {self.make_and_validate_key(k, version=version): self._pack(v) for k, v in data.items()}
        if ttl <= 0:
            await self._cache.adelete(*items)
        elif items:
            self._room()
            await self._cache.aset_many(items, ttl=ttl)
        return []

    async def adelete_many(self, keys: Iterable[str], version: Any = None) -> None:
        """Asynchronous twin of :meth:`delete_many`."""
        if names := self._keys(keys, version):
            await self._cache.adelete(*names)

    async def aclear(self) -> None:
        """Asynchronous twin of :meth:`clear`."""
        await self._cache.aclear()


def _winning(won: threading.Event, packed: Any) -> Callable[[], Any]:
    def load() -> Any:
        won.set()
        return packed

    return load


_CULL: Final = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})
_NO_L1: Final = CacheOptions(use_l1=False)
