"""Connections to Redis for the queue engine, and what may be wrong with the server behind them."""

from __future__ import annotations

from typing import Any

from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.urls import BackendURL, redact
from eventperf._redis.connect import Wanted, open_client, reason
from eventperf._redis.refusals import said
from eventperf.queues.errors import StoreUnavailable

_log = logger("eventperf.queues")

COMMAND_TIMEOUT_S = 5.0
WAIT_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 2.0
_CONNECTIONS = 8  # for threads: behind a call that hangs, others go on; tasks share one, as pushes join


def build_client(url: BackendURL, *, asynchronous: bool = False, waits: bool = False) -> Any:
    """Build a client that opens connections as calls need them at the same time, mostly one.

    Args:
        waits: The connection is for blocking commands, which answer late.

    Raises:
        StoreUnavailable: A cluster none of whose nodes answers; its client looks for them at once.
    """
    timeout = WAIT_TIMEOUT_S if waits else COMMAND_TIMEOUT_S
    wanted = Wanted(
        extra="queues",
        needed_by="the Redis queue backend",
        connections=1 if asynchronous else _CONNECTIONS,
        wait_s=COMMAND_TIMEOUT_S,
        sentinel_timeout_s=_CONNECT_TIMEOUT_S,
        settings={
            "socket_timeout": timeout,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "socket_keepalive": True,
        },
        of_cluster={"require_full_coverage": False},
    )
    errors: Any = require("redis.exceptions", extra=wanted.extra, needed_by=wanted.needed_by)
    try:
        return open_client(url, wanted, asynchronous=asynchronous)
    except (errors.RedisError, errors.RedisClusterException, OSError) as error:
        raise lost(url, error) from error


def lost(url: BackendURL, error: Exception) -> StoreUnavailable:
    """Return the error of a server that does not answer, or answers that it cannot now."""
    what = said(error) or "does not answer"
    return StoreUnavailable(f"Redis at {redact(url.text)} {what}: {reason(error)}")


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
