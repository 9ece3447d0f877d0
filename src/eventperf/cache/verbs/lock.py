"""Locks among processes, on the leases of the second tier."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf.cache.checks import check_span
from eventperf.cache.engine.effects import Steps, arun, ask, run
from eventperf.cache.engine.state import Core
from eventperf.cache.errors import LockTimeout
from eventperf.cache.keys import Space, fit
from eventperf.cache.protocols import Grant

from .base import Verbs, text_of

if TYPE_CHECKING:
    from typing_extensions import Self


class LockVerbs(Verbs):
    """``lock`` and its twin."""

    def lock(
        self, name: str, *, ttl: Duration, wait: Duration | None = None, namespace: str | None = None
    ) -> Lock:
        """Return a lock with one holder among all processes of this namespace, for ``with``.

        Args:
            name: What it guards; names of locks and keys never meet.
            ttl: A holder that died, or takes longer, is replaced after this time; see :meth:`Lock.renew`.
            wait: How long ``with`` waits for it; unset as long as it takes, 0 not at all.
            namespace: Overrides the manager's.

        Raises:
            ConfigurationError: The second tier has no leases.

        >>> from eventperf.cache import CacheManager
        >>> cache = CacheManager()
        >>> with cache.lock("report", ttl="30s"):
        ...     cache.lock("report", ttl="30s").acquire(wait=0)
        False
        """
        return Lock(self._core, self._plan(None, None, namespace)[2], name, ttl, wait)

    def alock(
        self, name: str, *, ttl: Duration, wait: Duration | None = None, namespace: str | None = None
    ) -> AsyncLock:
        """Return the lock for ``async with``; see :meth:`lock`."""
        return AsyncLock(self._core, self._plan(None, None, namespace)[2], name, ttl, wait)


class _Lock:
    def __init__(self, core: Core, space: Space, name: str, ttl: Duration, wait: Duration | None) -> None:
        tier = core.tier
        if tier is not None and not tier.has_leases:
            raise ConfigurationError("store", core.store, "one with SupportsLease, such as RedisStore")
        self.name: str = fit(text_of(name, "name"))
        self._core = core
        self._key = f"{space.tag_prefix[:-2]}l:{self.name}"  # outside every prefix of entries and tags
        self._ttl_s = check_span(ttl, argument="ttl")
        self._wait_s = _patience(wait)
        self._token = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _take(self, wait_s: float | None) -> Steps[bool]:
        core, token = self._core, self._core.salt()
        give_up = None if wait_s is None else core.now() + wait_s
        while True:
            waker = core.wakes.expect(self._key)
            try:
                grant = yield from self._ask(token)
                if grant.state == "granted":
                    self._token = token
                    return True
                left = grant.wait_s + 0.005
                if give_up is not None:
                    left = min(left, give_up - core.now())
                    if left <= 0:
                        return False
                hears = core.tier is None or (core.bus is not None and core.bus.connected)
                yield from core.wakes.park(waker, max(0.001, left if hears else min(0.02, left)))
            finally:
                core.wakes.done(waker)

    def _ask(self, token: str) -> Steps[Grant]:
        tier = self._core.tier
        if tier is None:
            return self._core.locks.take(self._key, token, self._ttl_s)
        assert tier.take is not None
        self._core.ensure_channel()
        grants = yield from ask(tier.take, [self._key], token, lease_s=self._ttl_s, force=())
        return grants[0]

    def _release(self) -> Steps[None]:
        token, self._token = self._token, ""
        if not token:
            return
        tier = self._core.tier
        if tier is None:
            self._core.locks.give_back(self._key, token)
        else:
            assert tier.give_back is not None
            yield from ask(tier.give_back, token, [self._key])
        self._core.wakes.wake(self._key)

    def _renew(self, ttl: Duration | None) -> Steps[bool]:
        life_s = self._ttl_s if ttl is None else check_span(ttl, argument="ttl")
        tier = self._core.tier
        if not self._token:
            return False
        if tier is None:
            return self._core.locks.renew(self._key, self._token, life_s)
        assert tier.renew is not None
        yield from ask(tier.renew, self._token, [self._key], lease_s=life_s)
        blob = yield from ask(tier.get, self._key)
        return blob is not None and self._token.encode() in blob[:20]

    def _refused(self) -> LockTimeout:
        return LockTimeout(self.name, self._wait_s or 0.0)


class Lock(_Lock):
    """One holder among all processes; not re-entrant. Made by :meth:`CacheManager.lock`.

    A holder that takes longer than ``ttl`` has lost it without being told: renew it in time, or do only what
    may be done twice.
    """

    def acquire(self, wait: Duration | None = None) -> bool:
        """Take the lock; tell whether it is ours. ``wait`` as in :meth:`CacheManager.lock`.

        Raises:
            StoreUnavailable: The second tier does not answer: nobody knows who holds it.
        """
        return run(self._take(_patience(wait)))

    def release(self) -> None:
        """Give it back; nothing happens when its time was over."""
        run(self._release())

    def renew(self, ttl: Duration | None = None) -> bool:
        """Hold it ``ttl`` longer from now; false when its time was over."""
        return run(self._renew(ttl))

    def __enter__(self) -> Self:
        if not run(self._take(self._wait_s)):
            raise self._refused()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.release()


class AsyncLock(_Lock):
    """The same for tasks. Made by :meth:`CacheManager.alock`."""

    async def acquire(self, wait: Duration | None = None) -> bool:
        """Take the lock; see :meth:`Lock.acquire`."""
        return await arun(self._take(_patience(wait)))

    async def release(self) -> None:
        """Give it back; nothing happens when its time was over."""
        await arun(self._release())

    async def renew(self, ttl: Duration | None = None) -> bool:
        """Hold it ``ttl`` longer from now; false when its time was over."""
        return await arun(self._renew(ttl))

    async def __aenter__(self) -> Self:
        if not await arun(self._take(self._wait_s)):
            raise self._refused()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        await self.release()


def _patience(wait: Duration | None) -> float | None:
    return None if wait is None else check_span(wait, argument="wait", zero=True)
