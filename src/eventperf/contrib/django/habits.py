"""What users of django-redis call beyond Django's own API, with the names and answers they know."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf.cache import escape

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

__all__ = ["DjangoRedisCalls", "HeldLock"]

_PLACE: Final = "\x00key\x00"
_HOUR: Final = 3600.0


class DjangoRedisCalls:
    """The calls of django-redis, for process memory too, so that tests need no server."""

    _cache: CacheManager
    _shared: Any

    if TYPE_CHECKING:
        key_prefix: str
        version: int
        key_func: Any

        def make_and_validate_key(self, key: str, version: Any = None) -> str: ...
        def touch(self, key: str, timeout: Any = ..., version: Any = None) -> bool: ...

    # -- how long ----------------------------------------------------------------------------------

    def ttl(self, key: str, version: Any = None) -> int | None:
        """Return the seconds left, 0 without such a key, ``None`` for one that never ends."""
        left = self._left(key, version)
        return None if left == math.inf else left and max(1, round(left))  # type: ignore[return-value]

    def pttl(self, key: str, version: Any = None) -> int | None:
        """Return the milliseconds left; see :meth:`ttl`."""
        left = self._left(key, version)
        return None if left == math.inf else math.ceil(1000 * left)

    def _left(self, key: str, version: Any) -> float:
        return self._cache.ttl(self.make_and_validate_key(key, version=version)) or 0

    def expire(self, key: str, timeout: float | dt.timedelta, version: Any = None) -> bool:
        """Let the key end so many seconds from now; tell whether it was there."""
        return self.touch(key, _seconds(timeout), version)

    def pexpire(self, key: str, timeout: float | dt.timedelta, version: Any = None) -> bool:
        """Let the key end so many milliseconds from now; tell whether it was there."""
        return self.touch(key, _seconds(timeout, 1000), version)

    def expire_at(self, key: str, when: float | dt.datetime, version: Any = None) -> bool:
        """Let the key end at a ``datetime`` or seconds since the epoch; tell whether it was there."""
        return self.touch(key, _moment(when) - time.time(), version)

    def pexpire_at(self, key: str, when: float | dt.datetime, version: Any = None) -> bool:
        """The same, from milliseconds since the epoch."""
        return self.touch(key, _moment(when, 1000) - time.time(), version)

    def persist(self, key: str, version: Any = None) -> bool:
        """Let the key never end; tell whether it would have."""
        return 0 < self._left(key, version) < math.inf and self.touch(key, None, version)

    # -- patterns ----------------------------------------------------------------------------------

    def keys(self, search: str, version: Any = None) -> list[str]:
        """Return the keys of this prefix and version that match a glob, in no order.

        The cost is linear in the keys of the server; a key over 512 characters is named by its beginning.

        Raises:
            ConfigurationError: ``KEY_FUNCTION`` does not keep keys as they are.
        """
        head, tail = self._around(version)
        found = self._cache.keys(escape(head) + search + escape(tail))
        return [key[len(head) : len(key) - len(tail)] for key in found]

    def iter_keys(self, search: str, itersize: int | None = None, version: Any = None) -> Iterator[str]:
        """Go over the keys that match a glob; steps have a size of their own, whatever ``itersize`` says."""
        del itersize
        yield from self.keys(search, version)

    def delete_pattern(
        self, pattern: str, version: Any = None, prefix: str | None = None, itersize: int | None = None
    ) -> int:
        """Delete the keys that match a glob, in every process; return how many there were.

        Args:
            pattern: Below this prefix and version; see :meth:`keys`.
            version: Another one than the cache's.
            prefix: Another one than ``KEY_PREFIX``.
            itersize: Taken and not used: steps have a size of their own.
        """
        del itersize
        head, tail = self._around(version, prefix)
        return self._cache.invalidate_pattern(escape(head) + pattern + escape(tail))

    def _around(self, version: Any, prefix: str | None = None) -> tuple[str, str]:
        """Return what stands before and after a key in the store."""
        made = self.key_func(
            _PLACE,
            self.key_prefix if prefix is None else prefix,
            self.version if version is None else version,
        )
        head, found, tail = str(made).partition(_PLACE)
        if not found:
            raise ConfigurationError("KEY_FUNCTION", made, "one that keeps keys as they are, for patterns")
        return head, tail

    # -- locks, and the server itself ----------------------------------------------------------------

    def lock(
        self,
        key: str,
        version: Any = None,
        timeout: float | None = None,
        sleep: float = 0.1,
        blocking_timeout: float | None = None,
        blocking: bool = True,
        thread_local: bool = True,
    ) -> HeldLock:
        """Return a lock with one holder among all processes, for ``with`` or ``acquire`` and ``release``.

        Args:
            key: What it guards; locks and values of one name do not meet.
            version: As for every key.
            timeout: A holder that died is replaced after so many seconds; an hour where nothing is said.
            sleep: Taken and not used: who waits is woken, or looks every 20 ms.
            blocking_timeout: How long to wait; as long as it takes where nothing is said.
            blocking: Whether to wait at all.
            thread_local: Taken and not used: each lock object is one holder.
        """
        del sleep, thread_local
        name = self.make_and_validate_key(key, version=version)
        wait = blocking_timeout if blocking else 0.0
        life = timeout or _HOUR
        return HeldLock(self._cache.lock(name, ttl=life, wait=wait), life, wait)

    def get_client(self, key: str | None = None, write: bool = True) -> Any:
        """Return redis-py's client of this server, for what is no cache: lists, sets, pipelines.

        Its answers are bytes, a command may take as long as it takes, and keys are the server's own, without
        prefix, version and namespace. All callers of this location share it.

        Raises:
            ConfigurationError: ``LOCATION`` is process memory.
        """
        del key, write
        if self._shared.store is None:
            raise ConfigurationError("LOCATION", "process memory", "a Redis: redis://host:6379/0")
        return self._shared.store.links.patient()

    @property
    def client(self) -> Any:
        """What ``django_redis.get_redis_connection`` asks for its client; it has :meth:`get_client`."""
        return self


class HeldLock:
    """A lock as redis-py has them, on a lease of the cache's. Made by ``cache.lock``."""

    def __init__(self, lock: Any, life: float, wait: float | None) -> None:
        self._lock, self._life, self._wait = lock, life, wait
        self._until = 0.0

    def acquire(self, blocking: bool | None = None, blocking_timeout: float | None = None) -> bool:
        """Take the lock; tell whether it is ours."""
        wait = 0.0 if blocking is False else self._wait if blocking_timeout is None else blocking_timeout
        return self._held(self._lock.acquire(wait=wait), self._life)

    def release(self) -> None:
        """Give it back; nothing happens when it was lost meanwhile."""
        self._lock.release()

    def extend(self, additional_time: float, replace_ttl: bool = False) -> bool:
        """Keep it so many seconds longer, or with ``replace_ttl`` from now; tell whether it is ours still."""
        left = 0.0 if replace_ttl else max(0.0, self._until - time.monotonic())
        return self._held(self._lock.renew(left + additional_time), left + additional_time)

    def reacquire(self) -> bool:
        """Keep it for its time-out from now; tell whether it is ours still."""
        return self._held(self._lock.renew(), self._life)

    def _held(self, is_ours: bool, life: float) -> bool:
        if is_ours:
            self._until = time.monotonic() + life
        return is_ours

    def __enter__(self) -> HeldLock:
        self._lock.__enter__()
        self._held(True, self._life)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._lock.__exit__(kind, error, trace)


def _seconds(time_out: float | dt.timedelta, scale: float = 1) -> float:
    return time_out.total_seconds() if isinstance(time_out, dt.timedelta) else time_out / scale


def _moment(when: float | dt.datetime, scale: float = 1) -> float:
    return when.timestamp() if isinstance(when, dt.datetime) else when / scale
