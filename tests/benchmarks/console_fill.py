"""What the console is measured beside: jobs of all states, cache keys, decisions, a day of minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Engine, create_engine, insert, select, text

from eventperf.cache import CacheManager
from eventperf.dbopt import QueryRecorder
from eventperf.queues import QueueConfig, QueueManager
from eventperf.queues.backends.sql import measuring, tables
from eventperf.queues.minutes import MINUTE_S, Interval
from eventperf.queues.protocols import Outcome
from eventperf.scaling import (
    AutoScaler,
    CalendarPolicy,
    CallableMetrics,
    DecisionLog,
    SimulatedTarget,
    TargetTracking,
)
from eventperf.testing import FakeClock
from eventperf.testing.queues import Station

KEPT: Any = {"keep_completed": 10_000, "keep_failed": 20_000}
QUEUES = {name: QueueConfig(name=name, **KEPT) for name in ("high", "normal", "low")}
TYPES = ("mail", "ticket", "rare")


def manager(url: str) -> QueueManager:
    return QueueManager(url, namespace="bench", queues=list(QUEUES.values()))


def fill_jobs(url: str, count: int) -> None:
    """Store jobs of all states: most wait, some are delayed, some have ended."""
    with manager(url) as queues:
        if not url.startswith("redis"):
            queues.backend.create_schema()  # type: ignore[attr-defined]
        ended = min(20_000, count // 10)
        queues.enqueue_many("mail", ({"order": n} for n in range(ended)), queue="high")
        station = Station(queues, "mail", lease_s=600)
        for at in range(0, ended, 1000):
            leases = station.take(1000)
            kind: Any = "dead" if (at // 1000) % 2 else "done"
            station.store.finish([Outcome(x.record.id, x.token, kind, error="bad address") for x in leases])
        for at in range(0, count - ended, 10_000):
            few = range(at, min(at + 10_000, count - ended))
            options: dict[str, Any] = {"queue": ("normal", "low")[at // 10_000 % 2]}
            if at % 200_000 == 0:
                options |= {"delay": "6h", "tags": ["festival"]}
            queues.enqueue_many("ticket", ({"order": n, "to": f"u{n}@example.com"} for n in few), **options)
        for n in range(20):
            queues.enqueue("rare", n, queue="low", tags=["rare"])
    minutes = range(int(time.time() // MINUTE_S) - 1_440, int(time.time() // MINUTE_S))
    redis_minutes(url, minutes) if url.startswith("redis") else sql_minutes(url, minutes)


def redis_minutes(url: str, minutes: Sequence[int]) -> None:
    """Write minutes of nine kinds of jobs, as the store keeps those that are over."""
    from redis import Redis

    client, prefix = Redis.from_url(url), "{eventperf:bench}:"
    kinds = [f"{queue}\x1f{type_}" for queue in QUEUES for type_ in TYPES]
    known = {name.decode(): int(n) for name, n in client.hgetall(f"{prefix}Mn").items()}
    numbers = {kind: known.get(kind, 100 + n) for n, kind in enumerate(kinds)}
    client.hset(f"{prefix}Mn", mapping=numbers)
    pipe = client.pipeline()
    for minute in minutes:
        told = [f"{n}d=50 {n}f=1" for n in numbers.values()]
        told += [
            f"{n}{what}{20 + (minute + k) % 40}=6"
            for n in numbers.values()
            for what in "wx"
            for k in range(8)
        ]
        pipe.set(f"{prefix}m:{minute}", " ".join(told))
    pipe.execute()


def sql_minutes(url: str, minutes: Sequence[int]) -> None:
    """The same, in the table of an SQL store."""
    engine = create_engine(url)
    with engine.begin() as db:
        namespace = db.execute(select(tables.jobs.c.ns).limit(1)).scalar_one()
        for minute in minutes:
            found = [
                Interval(at=minute * MINUTE_S, queue=queue, type=type_, completed=50, failed=1)
                for queue in QUEUES
                for type_ in TYPES
            ]
            for one in found:
                for k in range(8):
                    one.wait.add(20 + (minute + k) % 40, 6)
                    one.run.add(20 + (minute + k) % 40, 6)
            row = {"ns": namespace, "minute": minute, "facts": measuring._text(found)}
            db.execute(insert(tables.minutes), row)
        if engine.dialect.name == "postgresql":
            db.execute(text("ANALYZE"))
    engine.dispose()


def fill_cache(cache: CacheManager, count: int) -> None:
    for at in range(0, count, 1000):
        cache.set_many({f"event:{n}": {"title": "x" * 200, "n": n} for n in range(at, at + 1000)}, ttl=86_400)
    for n in range(300):
        cache.get_or_load(f"page:{n}", lambda n=n: "y" * n)


def fill_log(path: Path, days: float) -> int:
    """Write decisions of every 15 seconds; those of the last half day foresee, which makes them long."""
    clock, dice = FakeClock(time=time.time() - days * 86_400), Random(3)
    now = {"rps": 200.0}
    ticks = int(days * 86_400 / 15)
    with DecisionLog(path, steady=True) as log:
        scaler = AutoScaler(
            SimulatedTarget(4, name="prod/deployment/web"), CallableMetrics(rps=lambda: now["rps"]),
            TargetTracking(rps=50), min_replicas=3, max_replicas=200, clock=clock, log=log,
        )  # fmt: skip
        for tick in range(ticks):
            if ticks - tick == 2_880:
                scaler.policy = CalendarPolicy(capacity_rps=50)
            now["rps"] = min(2_000.0, max(10.0, now["rps"] * dice.uniform(0.97, 1.031)))
            scaler.tick()
            clock.advance(15)
    return ticks


def fill_statements(engine: Engine) -> QueryRecorder:
    recorder = QueryRecorder(engine)
    with engine.connect() as db:
        for n in range(300):
            asked = text(f"SELECT {n} AS c{n}, count(*) FROM sqlite_master WHERE name = :n")
            db.execute(asked, {"n": str(n)}).all()
    return recorder
