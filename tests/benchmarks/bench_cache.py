"""Cache benchmarks B1 to B14: floors and peers side by side in one run; ratios decide.

Ends with a table of targets, measured figures and verdicts. Peers that are not installed are named. Servers
are private ones; nothing is asserted, a missed target is printed as such.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

import cache_far
import cache_many
import cache_near
import cache_shared
import cache_trouble
from cache_report import Report

from servers import RedisCluster, RedisServer


class Servers:
    """Started when a case first asks."""

    def __init__(self) -> None:
        self._one: RedisServer | None = None
        self._many: RedisCluster | None = None

    @property
    def one(self) -> RedisServer:
        """A standalone server."""
        if self._one is None:
            self._one = RedisServer().start()
        return self._one

    @property
    def many(self) -> RedisCluster:
        """A cluster of three masters."""
        if self._many is None:
            self._many = RedisCluster().start()
        return self._many

    def close(self) -> None:
        """Stop what runs."""
        for server in (self._one, self._many):
            if server is not None:
                server.close()


def _many_managers(report: Report, servers: Servers) -> None:
    cache_shared.managers(report, servers.one.url, [servers.one], "one server")
    cache_shared.managers(report, servers.many.url, servers.many.nodes, "cluster")


Case = Callable[[Report, Servers], None]
CASES: dict[str, tuple[str, Case]] = {
    "B1": ("sync hit of a decorated function", lambda report, _: cache_near.sync_hit(report)),
    "B2": ("async hit of a decorated function", lambda report, _: cache_near.async_hit(report)),
    "B3": (
        "coherent hit in process memory",
        lambda report, servers: cache_far.coherent_hit(report, servers.one.url, servers.many.url),
    ),
    "B4": (
        "hit in Redis",
        lambda report, servers: cache_far.redis_hit(report, servers.one.url, servers.one.port),
    ),
    "B5": (
        "stampede",
        lambda report, servers: cache_many.stampede(report, servers.one),
    ),
    "B6": (
        "dropping many keys",
        lambda report, servers: cache_trouble.drop_many(report, servers.many),
    ),
    "B7": (
        "a thousand keys of a cluster",
        lambda report, servers: cache_far.thousand_keys(report, servers.many.url, servers.many),
    ),
    "B8": (
        "coherence of two processes",
        lambda report, servers: cache_many.coherence(report, servers.one.url, servers.many.url),
    ),
    "B9": (
        "a Redis that never answers",
        lambda report, servers: cache_trouble.black_hole(report, servers.one),
    ),
    "B10": ("hit ratio of process memory", lambda report, _: cache_near.hit_ratio(report)),
    "B11": ("memory per entry", lambda report, _: cache_near.memory(report)),
    "B12": ("hits on a busy loop", lambda report, servers: cache_shared.busy_loop(report, servers.one.url)),
    "B13": (
        "a write among many namespaces",
        lambda report, servers: cache_shared.namespaces(report, servers.one.url),
    ),
    "B14": ("many managers on one server", _many_managers),
}


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="cache")
    parser.add_argument("--only", help="cases, such as B1,B5", default=",".join(CASES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds and keys, no slow peers")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    args = parser.parse_args(argv)
    wanted = args.only.upper().split(",")
    if unknown := [name for name in wanted if name not in CASES]:
        parser.error(f"--only: got {', '.join(unknown)}; allowed: {', '.join(CASES)}")
    logging.disable(logging.CRITICAL)  # peers log what is done to them on purpose
    report, servers = Report(quick=args.quick), Servers()
    try:
        for name in wanted:
            title, case = CASES[name]
            print(f"{name}: {title}", flush=True)
            case(report, servers)
    finally:
        servers.close()
    report.print_verdicts()
    if args.json:
        out = {"rows": report.rows, "verdicts": report.verdicts, "absent": report.absent}
        Path(args.json).write_text(json.dumps(out, indent=1))
    return 0
