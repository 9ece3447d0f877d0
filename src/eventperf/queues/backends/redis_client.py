"""Connections to Redis for the queue engine, and what may be wrong with the server behind them."""

from __future__ import annotations

import logging
from typing import Any

from eventperf._core import sentinel
from eventperf._core.extras import require
from eventperf._core.urls import BackendURL, redact
from eventperf.queues.errors import StoreUnavailable

_log = logging.getLogger("eventperf.queues")

COMMAND_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 2.0
_WAIT_MARGIN_S = 3.0


def build_client(url: BackendURL, module: str, *, waits: bool = False) -> Any:
    """Build a client that holds one connection and opens it on first use."""
    redis: Any = require(module, extra="queues", needed_by="the Redis queue backend")
    timeout = COMMAND_TIMEOUT_S + _WAIT_MARGIN_S + 2 if waits else COMMAND_TIMEOUT_S
    common: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": _CONNECT_TIMEOUT_S}
    common["socket_keepalive"] = True
    if "+cluster" in url.scheme:
        return _cluster_client(url, redis, module, common)
    common |= {"max_connections": 1, "timeout": 30}
    if url.scheme in sentinel.SCHEMES:
        asynchronous = module.endswith("asyncio")
        pool = sentinel.master_pool(
            url, asynchronous=asynchronous, extra="queues", needed_by="the Redis queue backend",
            sentinel_timeout_s=_CONNECT_TIMEOUT_S, **common,
        )  # fmt: skip
    else:
        pool = redis.BlockingConnectionPool.from_url(url.text, **common)
    return redis.Redis(connection_pool=pool)


def _cluster_client(url: BackendURL, redis: Any, module: str, common: dict[str, Any]) -> Any:
    cluster: Any = require(f"{module}.cluster", extra="queues", needed_by="the Redis queue backend")
    nodes = [cluster.ClusterNode(host, port or 6379) for host, port in url.hosts]
    if url.username or url.password:
        common |= {"username": url.username, "password": url.password}
    if url.scheme.startswith("rediss"):
        common["ssl"] = True
    common |= sentinel.query_options(url, extra="queues", needed_by="the Redis queue backend")
    try:  # the sync client looks for its nodes at once
        return redis.RedisCluster(startup_nodes=nodes, require_full_coverage=False, **common)
    except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
        raise lost(url, error) from error


def lost(url: BackendURL, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"Redis at {redact(url.text)} does not answer: {type(error).__name__}: {error}")


def warn_of_eviction(facts: Any) -> None:
    """Warn when the server may evict jobs; ``facts`` is what ``INFO memory`` answered."""
    rows = list(facts.values()) if facts and all(isinstance(v, dict) for v in facts.values()) else [facts]
    for row in rows:
        policy = str(row.get("maxmemory_policy", "noeviction"))
        if int(row.get("maxmemory", 0)) > 0 and policy != "noeviction":
            _log.warning(
                "this Redis may evict jobs: maxmemory-policy is %r with maxmemory set; use 'noeviction'",
                policy,
            )
            return
