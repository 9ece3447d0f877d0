"""The main job: the same visitors against the same platform, plain and with one part after another."""

from __future__ import annotations

import platform as host
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, text

from eventperf._core.urls import redact
from eventperf.cache import CacheManager, CacheStats
from eventperf.cli.output import Progress
from eventperf.dbopt import ApplyReport, DatabaseOptimizer, QueryRecorder
from eventperf.queues import QueueManager
from eventperf.queues.outbox import TABLE, create_table

from . import dataset, day, load
from .app import READS, Site
from .chaos import Chaos, PrivateRedis
from .check import Ledger, Verdict
from .window import Window

STAGES = ("plain", "+ cache", "+ indexes", "+ queue")
LINGER_RPS = 20.0
LOAD_SHARE = 0.6
"""The arrival rate of every stage, as a share of what the plain site sustains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line asked for."""

    scale: float = 1.0
    seconds: float = 4.0
    seed: int = 7
    redis: str | None = None
    database: str | None = None
    chaos: bool = False


@dataclass(slots=True, kw_only=True)
class Stage:
    """One row of the table.

    Attributes:
        sustained_rps: 0 where it was not measured.
        log: What was broken: ``(seconds since the beginning of the load, what happened)``.
    """

    name: str
    sustained_rps: float
    open_loop: load.Result
    hit_ratio: float | None
    verdict: Verdict
    waits: dict[str, list[float]]
    examples: list[str]
    log: list[tuple[float, str]] = field(default_factory=list)

    @property
    def queries_per_request(self) -> float:
        """Statements sent to the database per request of the open loop."""
        return self.open_loop.statements / max(1, len(self.open_loop.samples))


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Everything that was measured.

    Attributes:
        chaos: The last stage again, while things were broken; not among the ``stages``.
    """

    settings: Settings
    size: dataset.Size
    engine: str
    rate: float
    stages: list[Stage] = field(default_factory=list)
    endpoints: dict[str, tuple[float, float]] = field(default_factory=dict)
    applied: ApplyReport | None = None
    gains: dict[str, tuple[str, int]] = field(default_factory=dict)
    day: day.Day | None = None
    chaos: Stage | None = None
    took_s: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Stage]:
        """All stages, in the order in which they ran."""
        return self.stages if self.chaos is None else [*self.stages, self.chaos]

    @property
    def is_clean(self) -> bool:
        """Whether the independent check found nothing wrong in any stage."""
        return all(stage.verdict.is_clean and not _broken(stage) for stage in self.rows)


def _broken(stage: Stage) -> list[str]:
    """Errors other than requests given up because the server did not keep up."""
    return [text_ for text_ in stage.open_loop.errors if not text_.startswith("given up")]


class Job:
    """The platform, and what is done on it.

    Args:
        engine: An empty database the demo may fill.
        settings: What was asked for.
        progress: Told what is being done.
        window: Shows it meanwhile.
    """

    def __init__(
        self, engine: Engine, settings: Settings, progress: Progress, window: Window | None = None
    ) -> None:
        self.engine: Engine = engine
        self.settings: Settings = settings
        self.progress: Progress = progress
        self.window: Window | None = window
        self.size: dataset.Size = dataset.Size.at(settings.scale)
        self.ids: count[int] = count(self.size.registrations + 1)
        self.rate: float = 0.0

    def run(self) -> Outcome:
        """Build the platform, then run every stage."""
        began, size = time.monotonic(), self.size
        if self.engine.dialect.name == "sqlite":
            dataset.tune_sqlite(self.engine)
        with self.progress.step(
            f"building {size.events} events, {size.participants:,} participants, "
            f"{size.registrations:,} registrations"
        ):
            dataset.build(self.engine, size, self.settings.seed)
        outcome = self._stages()
        outcome.took_s = time.monotonic() - began
        return outcome

    def linger(self, stopped: threading.Event) -> None:
        """Let a few visitors come to the last stage's site until ``stopped``, for whoever looks at it."""
        with ExitStack() as stack:
            manager = stack.enter_context(self._cache(self.settings.redis))
            queues = stack.enter_context(self._queues())
            site = Site(self.engine, self._ledger(), self.ids, cache=manager, queues=queues)
            stack.enter_context(working(queues))
            stack.enter_context(self._shown(manager, queues))
            rate, turn = min(self.rate, LINGER_RPS), 1000
            while not stopped.is_set():
                visitors = load.schedule(self.size, rate, 1, self.settings.seed, turn)
                load.drive(site, visitors, paced=True, stop_after_s=2)
                turn += 1

    def _shown(self, cache: CacheManager | None, queues: QueueManager | None) -> AbstractContextManager[None]:
        return nullcontext() if self.window is None else self.window.over(cache=cache, queues=queues)

    def _stages(self) -> Outcome:
        plain = self._stage(0, cache=False, queue=False)
        outcome = Outcome(settings=self.settings, size=self.size, engine=self._engine_name(), rate=self.rate)
        outcome.stages.append(plain)
        outcome.stages.append(self._stage(1, cache=True, queue=False))
        before = self._query_times()
        self._advise(outcome)
        after = self._query_times()
        outcome.endpoints = {page: (before[page], after[page]) for page in before}
        outcome.stages.append(self._stage(2, cache=True, queue=False))
        outcome.stages.append(self._stage(3, cache=True, queue=True))
        if self.settings.chaos:
            outcome.chaos = self._chaos(len(STAGES))
        with self.progress.step("a simulated event day for the autoscaler"):
            outcome.day = day.simulate(self.engine, outcome.stages[-1].sustained_rps, self.settings.seed)
        if self.window is not None:
            self.window.show(scaler={"simulated day": outcome.day.decisions})
        outcome.environment = self._environment()
        return outcome

    # -- one stage -------------------------------------------------------------------------------------

    def _stage(self, index: int, *, cache: bool, queue: bool) -> Stage:
        name, seconds = STAGES[index], self.settings.seconds
        ledger = self._ledger()
        with ExitStack() as stack:
            manager = stack.enter_context(self._cache(self.settings.redis)) if cache else None
            queues = stack.enter_context(self._queues()) if queue else None
            site = Site(self.engine, ledger, self.ids, cache=manager, queues=queues)
            if queues is not None:
                stack.enter_context(working(queues))
            stack.enter_context(self._shown(manager, queues))
            crowd = load.schedule(self.size, 5000, 2 * seconds, self.settings.seed + 1, 2 * index)
            with self.progress.step(f"{name}: as many requests as it sustains"):
                sustained = load.drive(site, crowd, paced=False, stop_after_s=seconds * 0.5).rate
            if not self.rate:
                self.rate = LOAD_SHARE * sustained
            if queues is not None:
                queues.drain("30s")  # the backlog of the closed loop is not this measurement's
                ledger.waits.clear()
            visitors = self._visitors(index)
            before = manager.stats() if manager is not None else None
            with self.progress.step(f"{name}: {self.rate:.0f} arrivals/s for {seconds:g} s"):
                result = load.drive(site, visitors, paced=True, stop_after_s=seconds * 2)
            if queues is not None and not queues.drain("60s"):
                self.progress.say("the queue did not drain within a minute")
            hits = _hit_ratio(before, manager.stats()) if manager is not None and before is not None else None
            return Stage(
                name=name, sustained_rps=sustained, open_loop=result, hit_ratio=hits,
                verdict=ledger.verdict(), waits=dict(ledger.waits), examples=ledger.examples,
            )  # fmt: skip

    def _visitors(self, index: int) -> list[load.Request]:
        return load.schedule(self.size, self.rate, self.settings.seconds, self.settings.seed, 2 * index + 1)

    def _chaos(self, index: int) -> Stage:
        """The last stage's parts and arrivals, with a worker process and a Redis that die meanwhile."""
        seconds, ledger, namespace = self.settings.seconds, self._ledger(), f"eventperf-demo-{time.time_ns()}"
        create_table(self.engine)
        with ExitStack() as stack:
            stack.callback(self._drop_outbox)
            folder = stack.enter_context(TemporaryDirectory(prefix="eventperf-demo-redis-"))
            redis = PrivateRedis(Path(folder))
            stack.callback(redis.kill)
            redis.start()
            manager = stack.enter_context(self._cache(redis.url))
            queues = stack.enter_context(QueueManager(redis.url, namespace=namespace))
            site = Site(self.engine, ledger, self.ids, cache=manager, queues=queues, outbox=True)
            chaos = Chaos(self.engine, redis, queues, ledger, namespace)
            with chaos.running():
                said = f"chaos: {self.rate:.0f} arrivals/s for {seconds:g} s; a worker and Redis are killed"
                with self.progress.step(said), chaos.unleashed(seconds):
                    result = load.drive(site, self._visitors(index), paced=True, stop_after_s=seconds * 2)
                if not chaos.settle():
                    self.progress.say("the side work was not done within a minute")
            stats = manager.stats()
        return Stage(
            name="chaos", sustained_rps=0.0, open_loop=result, hit_ratio=_hit_ratio(None, stats),
            verdict=ledger.verdict(), waits=dict(ledger.waits), examples=ledger.examples, log=chaos.log,
        )  # fmt: skip

    def _drop_outbox(self) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {TABLE}")

    def _ledger(self) -> Ledger:
        with self.engine.connect() as connection:

            def counted(sql: str) -> dict[int, int]:
                return {int(row[0]): int(row[1]) for row in connection.execute(text(sql))}

            return Ledger(
                counted("SELECT event_id, COUNT(*) FROM registrations GROUP BY event_id"),
                counted("SELECT participant_id, COUNT(*) FROM registrations GROUP BY participant_id"),
                counted("SELECT event_id, COUNT(*) FROM check_ins GROUP BY event_id"),
            )

    @contextmanager
    def _cache(self, redis: str | None) -> Iterator[CacheManager]:
        with CacheManager(redis, namespace="eventperf-demo") as manager:
            manager.clear()
            yield manager
            if redis:
                manager.clear()

    @contextmanager
    def _queues(self) -> Iterator[QueueManager]:
        namespace = f"eventperf-demo-{time.time_ns()}"
        with QueueManager(self.settings.redis or "memory://", namespace=namespace) as queues:
            yield queues

    # -- indexes ---------------------------------------------------------------------------------------

    def _advise(self, outcome: Outcome) -> None:
        site = Site(self.engine, self._ledger(), self.ids, cache=None, queues=None)
        with self.progress.step("recording 200 requests"):
            recorder = QueryRecorder(self.engine)
            try:
                crowd = load.schedule(self.size, 2000, 1, self.settings.seed + 2, 99)[:200]
                load.drive(site, crowd, paced=False, stop_after_s=5.0)
                workload = recorder.workload()
            finally:
                recorder.close()
        optimizer = DatabaseOptimizer(self.engine)
        if self.window is not None:
            self.window.show(optimizer=DatabaseOptimizer(self.engine, source=workload))
        with self.progress.step("advising indexes by the database's own planner"):
            advice = optimizer.advise(workload)
        with self.progress.step(f"applying {len(advice.indexes)} indexes, measuring each before and after"):
            outcome.applied = optimizer.apply(advice, dry_run=False)
        outcome.gains = {index.name: (index.reason, index.size_bytes) for index in advice.indexes}

    def _query_times(self) -> dict[str, float]:
        """Median milliseconds of each page's queries, alone, without cache."""
        site = Site(self.engine, self._ledger(), self.ids, cache=None, queues=None)
        chosen: dict[str, list[load.Request]] = {page: [] for page in READS}
        for request in load.schedule(self.size, 500, 4, self.settings.seed + 3):
            if request.page in chosen and len(chosen[request.page]) < 9:
                chosen[request.page].append(request)
        for request in (each for requests in chosen.values() for each in requests):
            load.visit(site, request)  # every pooled connection has read the schema and these rows
        times = {}
        for page, requests in chosen.items():
            taken = []
            for request in requests:
                began = time.perf_counter()
                load.visit(site, request)
                taken.append((time.perf_counter() - began) * 1000)
            times[page] = statistics.median(taken) if taken else 0.0
        return times

    # -- names -----------------------------------------------------------------------------------------

    def _engine_name(self) -> str:
        with self.engine.connect() as connection:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
        return f"{self.engine.dialect.name} {version}".strip()

    def _environment(self) -> dict[str, str]:
        import os

        from eventperf import __version__

        redis = self.settings.redis
        return {
            "eventperf": __version__,
            "Python": host.python_version(),
            "machine": f"{host.system()} {host.machine()}, {os.cpu_count()} cores",
            "database": self._engine_name(),
            "cache": f"process memory + {redact(redis)}" if redis else "process memory",
            "queue": redact(redis) if redis else "in this process's memory",
            "server threads": str(load.THREADS),
            "seed": str(self.settings.seed),
        }


@contextmanager
def working(queues: QueueManager) -> Iterator[None]:
    """Run a worker in a thread of this process, as a small site would."""
    worker = queues.worker()
    thread = threading.Thread(target=worker.run, name="worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(30)


def _hit_ratio(before: CacheStats | None, after: CacheStats) -> float:
    """Return the share of reads between two moments that were answered from the cache."""
    hit = after.hits - (before.hits if before else 0)
    return hit / max(1, hit + after.misses - (before.misses if before else 0))


def _waits(waits: list[float]) -> dict[str, float]:
    shares = {f"p{share * 100:g}": load.percentile(waits, share) * 1000 for share in (0.5, 0.99)}
    return {**shares, "jobs": len(waits)}


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the figures as plain data for JSON."""
    result: dict[str, Any] = {
        "engine": outcome.engine, "arrivals_per_s": outcome.rate, "took_s": outcome.took_s,
        "is_clean": outcome.is_clean, "environment": outcome.environment,
    }  # fmt: skip
    result["stages"] = [
        {
            "name": s.name, "sustained_rps": s.sustained_rps, "requests": len(s.open_loop.samples),
            "p50_ms": s.open_loop.latency(0.5) * 1000, "p99_ms": s.open_loop.latency(0.99) * 1000,
            "p999_ms": s.open_loop.latency(0.999) * 1000, "queries_per_request": s.queries_per_request,
            "hit_ratio": s.hit_ratio, "errors": s.open_loop.errors[:5],
            "error_count": len(s.open_loop.errors),
            "stale": s.verdict.stale, "reads_checked": s.verdict.checked, "jobs": s.verdict.jobs,
            "lost": s.verdict.lost, "double": s.verdict.double, "again": s.verdict.again,
            "broken": [{"at_s": at, "what": what} for at, what in s.log],
            "queue_wait_ms": {queue: _waits(waits) for queue, waits in s.waits.items()},
        }
        for s in outcome.rows
    ]  # fmt: skip
    result["endpoint_query_ms"] = {p: {"before": b, "after": a} for p, (b, a) in outcome.endpoints.items()}
    result["indexes"] = outcome.applied.to_dict() if outcome.applied else None
    if outcome.day is not None:
        result["simulated_day"] = {
            "decisions": [d.explain() for d in outcome.day.decisions],
            "mean_replicas": outcome.day.mean_replicas,
            "short_minutes": outcome.day.short_minutes,
            "static_short_minutes": outcome.day.static_minutes,
        }
    return result
