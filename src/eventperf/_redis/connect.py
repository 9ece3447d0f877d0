"""Clients for a URL: a single server, the master that Sentinels name, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from eventperf._core.extras import require
from eventperf._core.urls import BackendURL

from .bounded import abounded, bounded
from .sentinel import master_pool
from .url import SENTINEL, is_cluster, is_tls, query_options, trust, user


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a room wants to be connected.

    Attributes:
        extra: The extra that brings redis-py to this room; ``needed_by`` names the feature, for errors.
        connections: At most so many to a server; callers beyond that wait for a free one.
        cluster_connections: At most so many to each node of a cluster, where a caller beyond that fails;
            ``None`` leaves it to redis-py.
        wait_s: How long a caller waits for a free connection.
        sentinel_timeout_s: How long a Sentinel may take to answer.
        settings: Of each connection, where the URL says nothing: ``socket_timeout`` and the like.
        of_pool: Of the pool of a single server only, such as ``retry``.
        of_cluster: Of a cluster's client only.
    """

    extra: str
    needed_by: str
    connections: int
    cluster_connections: int | None = None
    wait_s: float = 10
    sentinel_timeout_s: float = 2.0
    settings: dict[str, Any] = field(default_factory=dict)
    of_pool: dict[str, Any] = field(default_factory=dict)
    of_cluster: dict[str, Any] = field(default_factory=dict)


def open_client(url: BackendURL, wanted: Wanted, *, asynchronous: bool) -> Any:
    """Return a client that connects on first use (a cluster's for threads looks for its nodes at once).

    Raises:
        MissingExtra: redis-py is not installed.
        ConfigurationError: An option of the URL has a value it cannot have.
    """
    package = "redis.asyncio" if asynchronous else "redis"
    redis: Any = require(package, extra=wanted.extra, needed_by=wanted.needed_by)
    settings = {**wanted.settings, **trust(url)}
    if is_cluster(url):
        return _cluster(url, wanted, package, settings)
    options = query_options(url, extra=wanted.extra, needed_by=wanted.needed_by)
    settings |= {**wanted.of_pool, "max_connections": wanted.connections, "timeout": wanted.wait_s}
    settings = {name: value for name, value in settings.items() if name not in options}
    if url.scheme in SENTINEL:
        pool = master_pool(
            url,
            asynchronous=asynchronous,
            extra=wanted.extra,
            needed_by=wanted.needed_by,
            sentinel_timeout_s=wanted.sentinel_timeout_s,
            settings=settings,
        )
    else:
        connection: Any = require(f"{package}.connection", extra=wanted.extra, needed_by=wanted.needed_by)
        kinds = {"unix": "UnixDomainSocketConnection", "rediss": "SSLConnection"}
        kind = getattr(connection, kinds.get(url.scheme, "Connection"))
        settings["connection_class"] = (abounded if asynchronous else bounded)(kind)
        pool = redis.BlockingConnectionPool.from_url(url.text, **settings)
    return redis.Redis(connection_pool=pool)


def reason(error: BaseException) -> str:
    """Say in a line why a connection failed, from its first cause: redis-py keeps some of them to itself.

    >>> try:
    ...     try: raise OSError("certificate verify failed")
    ...     except OSError: raise ConnectionError("Error 1 connecting to h:1. 1.")
    ... except ConnectionError as error: reason(error)
    'ConnectionError: Error 1 connecting to h:1. 1. (OSError: certificate verify failed)'
    """
    first = error
    while (cause := first.__cause__ or first.__context__) is not None:
        first = cause
    said = f"{type(error).__name__}: {error}"[:300]
    if first is error or str(first) in said:
        return said
    return f"{said} ({type(first).__name__}: {first})"[:600]


def _cluster(url: BackendURL, wanted: Wanted, package: str, settings: dict[str, Any]) -> Any:
    cluster: Any = require(f"{package}.cluster", extra=wanted.extra, needed_by=wanted.needed_by)
    settings |= user(url)
    if wanted.cluster_connections is not None:
        settings["max_connections"] = wanted.cluster_connections
    settings |= query_options(url, extra=wanted.extra, needed_by=wanted.needed_by)
    settings |= wanted.of_cluster
    nodes = [cluster.ClusterNode(host, port or 6379) for host, port in url.hosts]
    if package.endswith("asyncio"):
        return _of_tasks(cluster.RedisCluster(startup_nodes=nodes, **settings, **_TLS[is_tls(url)]))
    kind: Any = require("redis.connection", extra=wanted.extra, needed_by=wanted.needed_by)
    made = kind.SSLConnection if is_tls(url) else kind.Connection
    if is_tls(url) and "ssl_check_hostname" not in cluster.REDIS_ALLOWED_KEYS:
        made = _checked(made, settings.pop("ssl_check_hostname"))
    first = nodes.pop(0)
    # The client for threads takes a class of connections only with a URL.
    return cluster.RedisCluster(
        url=f"redis://{_literal(first.host)}:{first.port}",
        startup_nodes=nodes,
        connection_class=bounded(made),
        **settings,
    )


_TLS: Final[tuple[dict[str, Any], dict[str, Any]]] = ({}, {"ssl": True})


def _of_tasks(client: Any) -> Any:
    """Return a cluster's client for tasks, which takes no class of connections, with those of ours."""
    settings = client.connection_kwargs  # of the nodes that it finds
    kind = settings["connection_class"] = abounded(settings["connection_class"])
    for node in client.nodes_manager.startup_nodes.values():
        node.connection_class = kind
    return client


def _checked(plain: Any, by_name: bool) -> Any:
    """Return connections that know whether to check the name: the cluster client of redis-py 5 forgets it."""

    class Checked(plain):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "ssl_check_hostname": by_name})

    return Checked


def _literal(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def close(client: Any) -> None:
    """Close a client and its connections, also a Cluster's whose nodes another thread learns just now."""
    for _ in range(100):
        try:
            client.close()
            break
        except RuntimeError:  # "dictionary changed size during iteration": its table of nodes
            continue
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        pool.disconnect()
