"""A cachelib backend: for what takes one (Flask-Session, Authlib, ...)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require

require("cachelib", extra="cachelib", needed_by="eventperf.contrib.cachelib")
from cachelib.base import BaseCache  # noqa: E402

from eventperf.cache import FOREVER  # noqa: E402

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

__all__ = ["EventPerfCache"]

_MISSING: Final = object()


class EventPerfCache(BaseCache):
    """cachelib's API over a :class:`~eventperf.cache.CacheManager`.

    Values are kept as the manager's serializer keeps them: on Redis hand one with ``serializer="pickle"``
    where what you keep is more than plain data. ``inc`` and ``dec`` read and write, as cachelib's own do.

    Args:
        cache: The manager; its namespace is what ``clear`` empties.
        default_timeout: Seconds, where a call names none; 0 is for ever.

    Raises:
        ConfigurationError: ``cache`` is no manager.
        MissingExtra: cachelib is not installed.

    >>> from eventperf.cache import CacheManager
    >>> kept = EventPerfCache(CacheManager())
    >>> kept.set("a", 1), kept.add("a", 2), kept.get("a"), kept.has("b")
    (True, False, 1, False)
    """

    def __init__(self, cache: CacheManager, default_timeout: int = 300) -> None:
        super().__init__(default_timeout)
        if not callable(getattr(cache, "get_or_load", None)):
            raise ConfigurationError("cache", type(cache).__name__, "a CacheManager")
        self.cache: CacheManager = cache

    def _ttl(self, timeout: Any) -> float:
        seconds = self._normalize_timeout(timeout)
        return FOREVER if seconds == 0 else float(seconds)

    def get(self, key: str) -> Any:
        """Return the value, ``None`` where there is none."""
        return self.cache.get(key)

    def set(self, key: str, value: Any, timeout: Any = None) -> bool:
        """Keep a value; a time-out below 0 deletes it."""
        ttl = self._ttl(timeout)
        if ttl < 0:
            self.cache.delete(key)
        else:
            self.cache.set(key, value, ttl=ttl)
        return True

    def add(self, key: str, value: Any, timeout: Any = None) -> bool:
        """Keep a value unless there is one; one winner among all processes."""
        ttl, won = self._ttl(timeout), threading.Event()
        if ttl < 0:
            return not self.has(key)
        self.cache.get_or_load(key, _winning(won, value), ttl=ttl)
        return won.is_set()

    def delete(self, key: str) -> bool:
        """Delete a key; tell whether it was there."""
        return self.cache.delete(key) > 0

    def has(self, key: str) -> bool:
        """Tell whether there is a value, ``None`` included."""
        return self.cache.get(key, _MISSING) is not _MISSING

    def clear(self) -> bool:
        """Empty the manager's namespace, and no other."""
        self.cache.clear()
        return True


def _winning(won: threading.Event, value: Any) -> Callable[[], Any]:
    def load() -> Any:
        won.set()
        return value

    return load
