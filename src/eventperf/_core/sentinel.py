"""Connections to the master that Redis Sentinel names, asked for anew whenever one is opened.

https://redis.io/docs/latest/develop/reference/sentinel-clients/ says what a client has to do. redis-py's
managed connections do it; here they get a pool that waits for a free connection instead of failing, and a
finder that keeps no connection to a Sentinel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import ConfigurationError
from .extras import require
from .urls import BackendURL, redact

SCHEMES = ("redis+sentinel", "rediss+sentinel")


def check(url: BackendURL) -> tuple[str, int]:
    """Return the service and the database that ``redis+sentinel://host:26379,host/SERVICE/DB`` names.

    Raises:
        ConfigurationError: No service, or a database that is no number.

    >>> from eventperf._core.urls import parse_url
    >>> check(parse_url("redis+sentinel://a:26379,b:26379/mymaster/2"))
    ('mymaster', 2)
    """
    service, _, database = url.path.partition("/")
    if not service or not (database or "0").isdigit():
        allowed = "redis+sentinel://host:26379,host:26379/SERVICE or .../SERVICE/DATABASE"
        raise ConfigurationError("url", redact(url.text), allowed)
    return service, int(database or 0)


def query_options(url: BackendURL, *, extra: str, needed_by: str) -> dict[str, Any]:
    """Return what a URL says after the question mark, read as redis-py does for a single server."""
    parsers: Any = require("redis.connection", extra=extra, needed_by=needed_by).URL_QUERY_ARGUMENT_PARSERS
    return {name: parsers.get(name, str)(text) for name, text in url.options.items()}


def master_pool(
    url: BackendURL,
    *,
    asynchronous: bool,
    extra: str,
    needed_by: str,
    sentinel_timeout_s: float,
    **settings: Any,
) -> Any:
    """Return a blocking pool of connections to the master of ``url``.

    Args:
        url: Its user and password are the server's; ``sentinel_username`` and ``sentinel_password`` among
            its options are the Sentinels'.
        sentinel_timeout_s: How long a Sentinel may take to answer.
        settings: Of the pool, and of connections where the URL says nothing.
    """
    service, database = check(url)
    package = "redis.asyncio" if asynchronous else "redis"
    redis: Any = require(package, extra=extra, needed_by=needed_by)
    sentinel: Any = require(f"{package}.sentinel", extra=extra, needed_by=needed_by)
    options = query_options(url, extra=extra, needed_by=needed_by)
    asked: dict[str, Any] = {
        "socket_timeout": sentinel_timeout_s,
        "socket_connect_timeout": sentinel_timeout_s,
    }
    for name in ("username", "password"):
        if (given := options.pop(f"sentinel_{name}", None)) is not None:
            asked[name] = given
    user = {"username": url.username, "password": url.password}
    options |= {name: value for name, value in user.items() if value is not None}
    managed = sentinel.SentinelManagedConnection
    if url.scheme.startswith("rediss"):
        managed, asked["ssl"] = sentinel.SentinelManagedSSLConnection, True
        asked |= {name: value for name, value in options.items() if name.startswith("ssl_")}
    finder = (_AsyncFinder if asynchronous else _Finder)(sentinel.Sentinel, url.hosts, service, asked)
    return redis.BlockingConnectionPool(
        connection_class=managed, connection_pool=finder, **{**settings, "db": database, **options}
    )


class _Finder:
    """What a managed connection asks for its address."""

    is_master = True
    check_connection = False

    def __init__(
        self, kind: Any, hosts: Sequence[tuple[str, int | None]], service: str, asked: dict[str, Any]
    ) -> None:
        self._kind = kind
        self._hosts = [(host, port or 26379) for host, port in hosts]
        self.service_name = service
        self._asked = asked

    def _sentinels(self) -> Any:
        return self._kind(self._hosts, sentinel_kwargs=self._asked)

    def get_master_address(self) -> Any:
        found = self._sentinels()
        try:
            return found.discover_master(self.service_name)
        finally:
            for one in found.sentinels:
                one.connection_pool.disconnect()


class _AsyncFinder(_Finder):
    async def get_master_address(self) -> Any:
        found = self._sentinels()
        try:
            return await found.discover_master(self.service_name)
        finally:
            for one in found.sentinels:
                await one.connection_pool.disconnect()
