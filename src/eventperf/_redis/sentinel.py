"""Connections to the master that Redis Sentinel names, asked for anew whenever one is opened.

https://redis.io/docs/latest/develop/reference/sentinel-clients/ says what a client has to do. redis-py's
managed connections do it; here they get a pool that waits for a free connection instead of failing, and a
finder that keeps no connection to a Sentinel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventperf._core.extras import require
from eventperf._core.urls import BackendURL

from .bounded import abounded, bounded
from .url import is_tls, master_of, query_options, user


def master_pool(
    url: BackendURL,
    *,
    asynchronous: bool,
    extra: str,
    needed_by: str,
    sentinel_timeout_s: float,
    settings: dict[str, Any],
) -> Any:
    """Return a blocking pool of connections to the master of ``url``.

    Args:
        url: Its user and password are the server's; ``sentinel_username`` and ``sentinel_password`` among
            its options are the Sentinels'.
        sentinel_timeout_s: How long a Sentinel may take to answer.
        settings: Of the pool, and of connections where the URL says nothing.
    """
    service, database = master_of(url)
    package = "redis.asyncio" if asynchronous else "redis"
    redis: Any = require(package, extra=extra, needed_by=needed_by)
    sentinel: Any = require(f"{package}.sentinel", extra=extra, needed_by=needed_by)
    options = query_options(url, extra=extra, needed_by=needed_by)
    retry: Any = require(f"{package}.retry", extra=extra, needed_by=needed_by)
    backoff: Any = require("redis.backoff", extra=extra, needed_by=needed_by)
    asked: dict[str, Any] = {
        "socket_timeout": sentinel_timeout_s,
        "socket_connect_timeout": sentinel_timeout_s,
        "retry": retry.Retry(backoff.NoBackoff(), 0),  # the next Sentinel is the second try
    }
    for name in ("username", "password"):
        if (given := options.pop(f"sentinel_{name}", None)) is not None:
            asked[name] = given
    options |= user(url)
    managed = sentinel.SentinelManagedConnection
    if is_tls(url):
        managed, asked["ssl"] = sentinel.SentinelManagedSSLConnection, True
        of_tls = {**settings, **options}
        asked |= {name: value for name, value in of_tls.items() if name.startswith("ssl_")}
    errors: Any = require("redis.exceptions", extra=extra, needed_by=needed_by)
    finder = (_AsyncFinder if asynchronous else _Finder)(
        sentinel.Sentinel, url.hosts, service, asked, sentinel.MasterNotFoundError, errors.RedisError
    )
    return redis.BlockingConnectionPool(
        connection_class=(abounded if asynchronous else bounded)(managed),
        connection_pool=finder,
        **{**settings, "db": database, **options},
    )


class _Finder:
    """What a managed connection asks for its address."""

    is_master = True
    check_connection = False

    def __init__(
        self,
        kind: Any,
        hosts: Sequence[tuple[str, int | None]],
        service: str,
        asked: dict[str, Any],
        nobody: type[Exception],
        any_error: type[Exception],
    ) -> None:
        self._kind = kind
        self._nobody, self._any = nobody, any_error
        self._hosts = [(host, port or 26379) for host, port in hosts]
        self.service_name = service
        self._asked = asked

    def _sentinels(self) -> Any:
        return self._kind(self._hosts, sentinel_kwargs=self._asked)

    def _unknown(self, error: Exception) -> Exception:
        """Return an error that names the Sentinels; that of redis-py 8 prints each of its pools."""
        asked = ", ".join(f"{host}:{port}" for host, port in self._hosts)
        return type(error)(f"no Sentinel at {asked} names a master for {self.service_name!r}")

    def get_master_address(self) -> Any:
        found = self._sentinels()
        try:
            try:
                return found.discover_master(self.service_name)
            except self._nobody as error:
                unknown = self._unknown(error)
            raise unknown from self._trouble(found)  # out of the handler: a cause has no other behind it
        finally:
            for one in found.sentinels:
                one.connection_pool.disconnect()

    def _trouble(self, found: Any) -> Exception | None:
        for one in found.sentinels:
            try:
                one.ping()
            except self._any as error:
                return error
        return None


class _AsyncFinder(_Finder):
    async def get_master_address(self) -> Any:
        found = self._sentinels()
        try:
            try:
                return await found.discover_master(self.service_name)
            except self._nobody as error:
                unknown = self._unknown(error)
            raise unknown from await self._atrouble(found)
        finally:
            for one in found.sentinels:
                await one.connection_pool.disconnect()

    async def _atrouble(self, found: Any) -> Exception | None:
        for one in found.sentinels:
            try:
                await one.ping()
            except self._any as error:
                return error
        return None
