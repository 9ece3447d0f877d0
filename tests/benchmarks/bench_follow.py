"""A cache that follows the database, beside django-cacheops and django-cachalot, on PostgreSQL and Redis.

``nox -s bench -- follow``. Each cache serves the same Django application in a process of its own, which forks
two readers, two writers, one that is killed, and, where it has one, the reader of the change journal.

Stale is a read that **began after the write had returned** to whoever made it and gave an older version. A
write that is killed after its commit never returns: it counts from the death of its process. With the change
journal a write counts when the reader of the journal has read, and told, all that was committed at the time
(``Journal.lag_s``); how long that takes is printed as lag, and reads that were older before that are counted
apart. So is a version that was rolled back and seen. The control reads the database each time and must have
none of them; a cache without hits is not judged. Reads and writes go on in step, whatever each cache costs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from follow_caches import NAMES, SETTINGS

HERE = Path(__file__).parent


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py follow", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--reads", type=int, default=100_000, help="of each of ours under racing writers (100,000)")
    add("--peer-reads", type=int, default=0, help="the same of the others (as many)")
    add("--per-write", type=int, default=100, help="reads for each write (100)")
    add("--requests", type=int, default=6_000, help="of the event site's mix (6,000)")
    add("--queries", type=int, default=2_000, help="of each kind whose CPU is measured (2,000)")
    add("--only", default=",".join(NAMES), help=f"caches, of {', '.join(NAMES)}")
    add("--json", type=Path, help="write what was measured here")
    options = parser.parse_args(argv)
    sizes = {name: getattr(options, name) for name in ("reads", "peer_reads", "requests", "queries")}
    sizes |= {"peer_reads": options.peer_reads or options.reads, "per_write": options.per_write, "rounds": 7}
    found = measure(options.only.split(","), sizes)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0 if verdicts(found)["sound"] else 1


def measure(names: list[str], sizes: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Run each cache on servers that are made for it, one after another, and their CPU in turns."""
    from servers import PostgresServer, RedisServer

    for name in names:
        if name not in NAMES:
            raise SystemExit(f"--only: got {name!r}; allowed: {', '.join(NAMES)}")
    with contextlib.ExitStack() as stack:
        postgres, redis = PostgresServer(max_connections=200), RedisServer()
        for server in (postgres, redis):
            stack.callback(server.close)
            server.start()
        return measure_on(postgres, redis, names, sizes)


def measure_on(
    postgres: Any, redis: Any, names: list[str], sizes: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """Do so on servers that are there; each cache has databases of its own."""
    found: dict[str, dict[str, Any]] = {}
    served: dict[str, subprocess.Popen[str]] = {}
    with contextlib.ExitStack() as stack:
        for at, name in enumerate(names, start=2):
            url = stack.enter_context(postgres.fresh_database())
            given = sizes | {"reads": sizes["reads" if name.startswith("eventperf") else "peer_reads"]}
            served[name] = stack.enter_context(
                serve(name, url, f"{redis.url.rpartition('/')[0]}/{at}", given)
            )
            found[name] = answer(name, served[name])
            print(name, found[name], file=sys.stderr, flush=True)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(sizes["rounds"]):
            for name, process in served.items():
                print(file=process.stdin, flush=True)
                rounds[name].append(answer(name, process))
        for name, each in rounds.items():
            found[name] |= {what: min(one[what] for one in each) for what in each[0]}
    return found


def serve(name: str, url: str, redis: str, sizes: dict[str, int]) -> subprocess.Popen[str]:
    """Start one cache in a process of its own."""
    call = [sys.executable, str(HERE / "follow_runs.py"), json.dumps([name, url, redis, sizes])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def answer(name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the next thing that it has measured."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{name}: exit {process.wait()}; what it said stands above")
    return dict(json.loads(line))


def verdicts(found: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Say what holds; ``sound`` is whether the comparison itself may be believed."""
    ours = {name: told for name, told in found.items() if name.startswith("eventperf")}
    peers = {name: told for name, told in found.items() if name not in ours and name != "none"}
    control = found.get("none", {"stale": 0, "undone": 0, "site_stale": 0})
    journal = found.get("eventperf + journal")

    def best(what: str, of: dict[str, dict[str, Any]], pick: Any = min) -> float:
        return float(pick((told[what] for told in of.values()), default=float("nan")))

    out = {
        "sound": control["stale"] + control["undone"] + control["site_stale"] == 0
        and all(told["hits"] > 0 and told["site_hits"] > 0 for told in [*ours.values(), *peers.values()])
    }
    if journal:
        out["0 stale with the journal"] = journal["stale"] + journal["undone"] + journal["site_stale"] == 0
    if ours and peers:
        for what in ("uncached_us", "recorded_us"):
            out[f"{what} <= theirs"] = max(told[what] for told in ours.values()) <= best(what, peers)
        right = {name: told for name, told in peers.items() if not told["site_stale"]} or peers
        mine = max(told["site_hits"] for told in ours.values())
        out["site_hits >= theirs"] = mine >= best("site_hits", right, max)
    return out


STALE = (
    "reads", "hits", "stale", "of them after a kill", "older, before the journal was read",
    "rolled back and seen", "writes", "kills", "lag p50, max",
)  # fmt: skip
COSTS = (
    "query not cached", "query recorded and kept", "page of 5 queries from the cache", "save",
    "site: hits", "queries a read", "stale",
)  # fmt: skip


def report(found: dict[str, dict[str, Any]]) -> str:
    """Return the tables: what was stale, then CPU in microseconds and the event site."""
    lines = [f"| | {' | '.join(STALE)} |", "|---|" + "---|" * len(STALE)]
    for name, told in found.items():
        lag = f"{told['lags'][0] * 1e3:.1f}, {told['lags'][1] * 1e3:.0f} ms" if told["lags"] else ""
        writes = ", ".join(f"{n} {kind}" for kind, n in told["writes"].items())
        counts = " | ".join(str(told[what]) for what in ("stale", "stale_killed", "early", "undone"))
        hits = f"{told['hits'] / told['reads']:.1%}"
        lines.append(
            f"| {name} | {told['reads']:,} | {hits} | {counts} | {writes} | {told['kills']} | {lag} |"
        )
    lines += ["", f"| | {' | '.join(COSTS)} |", "|---|" + "---|" * len(COSTS)]
    for name, told in found.items():
        figures = " | ".join(
            f"{told[what]:.0f}" for what in ("uncached_us", "recorded_us", "hit_us", "save_us")
        )
        site = f"{told['site_hits']:.1%} | {told['site_queries']:.2f} | {told['site_stale']}"
        lines.append(f"| {name} | {figures} | {site} |")
    lines += ["", *(f"* {name}: {SETTINGS[name]}" for name in found), ""]
    packages = ("django", "django-cacheops", "django-cachalot", "redis", "psycopg")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        lines.append(", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages))
    lines += [f"{what}: {'met' if held else 'MISSED'}" for what, held in verdicts(found).items()]
    return "\n".join(lines)


__all__ = ["main", "measure_on", "report", "verdicts"]
