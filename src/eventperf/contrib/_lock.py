"""A lock among processes, on the leases of the cache's second tier; a thread lock without one."""

from __future__ import annotations

import secrets
import threading
import time
from types import TracebackType
from typing import Any

_FIRST_S, _MOST_S = 0.001, 0.025


class SharedLock:
    """One holder among all processes for ``lease_s`` at most; not re-entrant.

    Args:
        store: A :class:`~eventperf.cache.RedisStore`.
        key: The lock's key on the server.
        lease_s: A holder that died is replaced after this many seconds; longer work may overlap.
    """

    def __init__(self, store: Any, key: str, lease_s: float) -> None:
        self._store = store
        self._key = key
        self._lease_s = lease_s
        self._token: str | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; with ``wait`` until it is free."""
        token, pause = secrets.token_hex(8), _FIRST_S
        while True:
            (grant,) = self._store.acquire_many([self._key], token, lease_s=self._lease_s, force=set())
            if grant.state == "granted":
                self._token = token
                return True
            if not wait:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _MOST_S)

    def release(self) -> None:
        """Give it back; nothing happens when the lease has ended meanwhile."""
        token, self._token = self._token, None
        if token is not None:
            self._store.release_many(token, [self._key])

    def locked(self) -> bool:
        """Tell whether anybody holds it."""
        return self._store.get(self._key) is not None

    def __enter__(self) -> SharedLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.release()


class AsyncSharedLock:
    """The same for tasks."""

    def __init__(self, store: Any, key: str, lease_s: float) -> None:
        self._store = store
        self._key = key
        self._lease_s = lease_s
        self._token = ""

    async def __aenter__(self) -> AsyncSharedLock:
        import asyncio

        token, pause = secrets.token_hex(8), _FIRST_S
        while True:
            (grant,) = await self._store.aacquire_many([self._key], token, lease_s=self._lease_s, force=set())
            if grant.state == "granted":
                self._token = token
                return self
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_S)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        await self._store.arelease_many(self._token, [self._key])


class LocalLocks:
    """A fixed set of thread locks, chosen by key."""

    def __init__(self, count: int = 64) -> None:
        self._locks = [threading.Lock() for _ in range(count)]

    def of(self, key: str) -> threading.Lock:
        """Return the lock of ``key``; some keys share one."""
        return self._locks[hash(key) % len(self._locks)]
