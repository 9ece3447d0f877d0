"""What a claim costs behind jobs that may not run now, and a job among very many queues.

Each figure is the least of many repetitions, so that other work on the machine shows little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

from eventperf.queues import JobSpec, Limit, QueueConfig, QueueManager
from eventperf.testing.queues import Station
from servers import MariaDBServer, PostgresServer, RedisServer

LIMITS = {
    "rate": [Limit(type="held", rate=1, per="1h")],
    "cap": [Limit(type="held", concurrency=1)],
    "cap of each of 1,000 keys": [Limit(type="held", concurrency=1, per_key=True)],
    "cap of a queue": [Limit(queue="low", concurrency=1)],
    "one unknown type": [],
    "unknown types, each another": [],
}


def held(kind: str, n: int) -> list[JobSpec]:
    """Return jobs that the limit or the worker of this kind holds back."""
    names = [f"held{k}" if kind.endswith("another") else "held" for k in range(n)]
    return [JobSpec(type=name, queue="low", fairness_key=f"k{k % 1000}") for k, name in enumerate(names)]


def least(step: Callable[[], Any], repeat: int) -> float:
    """Return the least time of ``step``, in milliseconds."""
    found = []
    for _ in range(repeat):
        began = time.perf_counter()
        step()
        found.append(time.perf_counter() - began)
    return min(found) * 1e3


def blocked(url: str, kind: str, n: int, repeat: int = 40) -> tuple[float, float]:
    """Return the time of a claim that finds a job behind ``n`` blocked ones, and of one that finds none."""
    queues = {"low": {"priority": 1}, "high": {"priority": 1}}
    with QueueManager(
        url, namespace=uuid4().hex, queues=queues, unknown_grace="1h", limits=LIMITS[kind]
    ) as q:
        types = ("free",) if "unknown" in kind else ("held", "free")
        station = Station(q, *types, lease_s=3600)
        if n:
            q.enqueue_many(held(kind, n))
        for _ in range(12):  # until those in front are known to be blocked
            station.take()
        took = []
        for _ in range(repeat):
            q.enqueue("free", queue="high" if kind == "cap of a queue" else "low")
            began = time.perf_counter()
            (lease,) = station.take(1)
            took.append(time.perf_counter() - began)
            assert station.end(lease)
        return min(took) * 1e3, least(lambda: station.take(1), repeat)


def many(url: str, n: int) -> tuple[float, float]:
    """Return the time of a job (pushed, claimed, finished) and of a status among ``n`` queues."""
    with QueueManager(url, namespace=uuid4().hex, queues=[QueueConfig(name=f"t{k}") for k in range(n)]) as q:
        station = Station(q, "t", lease_s=3600)

        def job() -> None:
            q.enqueue("t", queue="t1")
            (lease,) = station.take(1)
            assert station.end(lease)

        return least(job, 50), least(q.status, 20)


@contextmanager
def store(name: str) -> Iterator[str]:
    """Give the URL of an empty store."""
    with ExitStack() as stack:
        if name == "memory":
            yield "memory://"
        elif name == "redis":
            yield stack.enter_context(RedisServer()).url
        else:
            if name == "sqlite":
                url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/jobs.db"
            else:
                server = PostgresServer() if name == "postgresql" else MariaDBServer()
                url = stack.enter_context(stack.enter_context(server).fresh_database())
            with QueueManager(url) as queues:
                queues.backend.create_schema()  # type: ignore[attr-defined]  # an SQL backend
            yield url


def main(argv: list[str]) -> int:
    """Print a table of claims by store and kind, then of jobs and status by the number of queues."""
    parser = argparse.ArgumentParser(prog="bench queues_blocked", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="blocked jobs")
    parser.add_argument("--stores", nargs="+", default=["memory", "redis", "sqlite", "postgresql", "mariadb"])
    args = parser.parse_args(argv)
    print(f"{'a claim, ms':<42}{'alone':>8}{'behind':>8}   {'finds none':>10}{'behind':>8}")
    for name in args.stores:
        with store(name) as url:
            for kind in LIMITS:
                alone, behind = blocked(url, kind, 0), blocked(url, kind, args.jobs)
                row = f"{alone[0]:>8.2f}{behind[0]:>8.2f}   {alone[1]:>10.2f}{behind[1]:>8.2f}"
                print(f"{name + ', ' + kind:<42}{row}", flush=True)
    for name in {"memory", "redis"} & set(args.stores):
        with store(name) as url:
            for n in (4, 2000):
                job, status = many(url, n)
                print(f"{name}, {n:,} queues: a job {job:.2f} ms, status {status:.2f} ms", flush=True)
    return 0
