"""``eventperf cache ping``: what of a cache works on a server, what does not, and what that costs."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .output import emit_json, table

_TIMES: Final = 7
_SLOW_S: Final = 0.025


class Finding(NamedTuple):
    """One ability of one server."""

    node: str
    ability: str
    works: bool
    detail: str


def ping(cache: Any, args: argparse.Namespace) -> int:
    """Try each ability once on every master; 0 when all work, 1 when something is lost."""
    found = [finding for node in cache.store.links.masters() for finding in look(node, cache.namespace)]
    if args.json:
        emit_json([finding._asdict() for finding in found])
    else:
        rows = [[f.node, f.ability, "yes" if f.works else "NO", f.detail] for f in found]
        table(["server", "ability", "works", ""], rows)
    return 0 if all(finding.works for finding in found) else 1


def look(node: Any, namespace: str) -> list[Finding]:
    """Try each ability once on one server."""
    from eventperf.cache.backends.redis.cures import cure_of

    options = node.connection_pool.connection_kwargs
    name = f"{options.get('host', options.get('path', '?'))}:{options.get('port', '')}".rstrip(":")
    out = []
    with node.client() as one:  # one connection: tracking is a matter of connections
        for ability, loss, attempt in _ABILITIES:
            try:
                out.append(Finding(name, ability, *attempt(one, f"{namespace}:1:eventperf-ping")))
            except Exception as error:  # whatever the driver says is the finding
                said = f"{type(error).__name__}: {error}"[:160]
                cure = cure_of(said)
                out.append(Finding(name, ability, False, f"{said}: {loss}{'; ' if cure else ''}{cure}"))
    return out


def _answer(one: Any, key: str) -> tuple[bool, str]:
    taken = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        one.execute_command("PING")
        taken.append(time.perf_counter() - began)
    middle = statistics.median(taken)
    slow = ": slow for a cache, is it near?" if middle > _SLOW_S else ""
    return True, f"{middle * 1000:.2f} ms{slow}"


def _role(one: Any, key: str) -> tuple[bool, str]:
    info = one.info("replication")
    return info.get("role") == "master", str(info.get("role"))


def _store(one: Any, key: str) -> tuple[bool, str]:
    one.execute_command("SET", key, b"1", "PX", 1000)
    found = one.execute_command("GET", key)
    one.execute_command("UNLINK", key)
    return found == b"1", "" if found == b"1" else f"{found!r} came back"


def _script(one: Any, key: str) -> tuple[bool, str]:
    return one.execute_command("EVAL", "return redis.call('EXISTS', KEYS[1])", 1, key) == 0, ""


def _track(one: Any, key: str) -> tuple[bool, str]:
    # One look is enough here: the cache itself listens on a connection of its own.
    target = one.execute_command("CLIENT", "ID")
    one.execute_command("CLIENT", "TRACKING", "ON", "REDIRECT", target, "BCAST", "PREFIX", key)
    one.execute_command("CLIENT", "TRACKING", "OFF")
    return True, ""


def _evict(one: Any, key: str) -> tuple[bool, str]:
    info = one.info("memory")
    policy, limit = str(info.get("maxmemory_policy", "unknown")), int(info.get("maxmemory", 0))
    works = policy != "noeviction" or not limit
    return works, policy if works else "noeviction: a full server refuses writes; choose allkeys-lfu"


Attempt = Callable[[Any, str], tuple[bool, str]]
_ABILITIES: Final[tuple[tuple[str, str, Attempt], ...]] = (
    ("answers", "nothing works", _answer),
    ("is a master", "nothing can be stored", _role),
    ("stores", "nothing is shared", _store),
    ("scripts", "no leases, so each process loads; no tags", _script),
    ("tracking", 'process memory cannot follow; choose coherence="bus"', _track),
    ("channels", "processes do not wake one another", lambda one, key: (
        int(one.execute_command("PUBLISH", key, b"")) >= 0, "")),
    ("scan", "no patterns, no clear()", lambda one, key: (bool(one.execute_command("SCAN", 0)), "")),
    ("eviction", "unknown", _evict),
)  # fmt: skip
