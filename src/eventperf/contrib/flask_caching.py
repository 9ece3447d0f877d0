"""A backend for Flask-Caching: ``CACHE_TYPE = "eventperf.contrib.flask_caching.EventPerfCache"``."""

from __future__ import annotations

from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.cache import CacheManager

from .cachelib import EventPerfCache as CachelibCache

require("flask_caching", extra="flask-caching", needed_by="eventperf.contrib.flask_caching")
from flask_caching.backends.base import BaseCache  # noqa: E402

__all__ = ["EventPerfCache"]


class EventPerfCache(CachelibCache, BaseCache):
    """Flask-Caching's API over a manager made from the application's configuration.

    ``CACHE_EVENTPERF_URL`` (or ``CACHE_REDIS_URL``) names the second tier, process memory without it;
    ``CACHE_KEY_PREFIX`` the namespace; ``CACHE_DEFAULT_TIMEOUT`` the life; ``CACHE_OPTIONS`` are keyword
    arguments of :class:`~eventperf.cache.CacheManager`. Values are pickled, as by every backend of
    Flask-Caching: choosing it is the consent.
    """

    @classmethod
    def factory(cls, app: Any, config: Any, args: Any, kwargs: Any) -> EventPerfCache:
        """Make the backend; Flask-Caching calls it.

        Raises:
            ConfigurationError: A setting that cannot be.
        """
        url = config.get("CACHE_EVENTPERF_URL") or config.get("CACHE_REDIS_URL") or None
        options = dict(config.get("CACHE_OPTIONS") or {})
        options.setdefault("namespace", (config.get("CACHE_KEY_PREFIX") or "flask_cache").rstrip(":_"))
        options.setdefault("serializer", "pickle")
        try:
            manager = CacheManager(url, **options)
        except TypeError as error:
            raise ConfigurationError("CACHE_OPTIONS", sorted(options), "arguments of CacheManager") from error
        return cls(manager, default_timeout=int(config.get("CACHE_DEFAULT_TIMEOUT") or 0))
