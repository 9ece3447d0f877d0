"""Stores that refuse, answer into the void or hang between the steps of a lease's life: every kind of store.

Each life is one random history: workers hold jobs, some of the store's verbs stop working, every lease runs
out meanwhile, jobs end, the store comes back. No worker has died, so no job may run twice, count a crash or
be buried. Time passes in the store's own books: nothing here waits for a lease.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import create_engine, update

from eventperf.queues import JobInfo, JobState, QueueManager, StoreUnavailable
from eventperf.queues.backends.sql import tables
from eventperf.testing.clock import FakeClock
from eventperf.testing.queues import balanced

LEASE_S = 60.0
PASSED_S = 4 * LEASE_S
VERBS = ("claim", "renew", "finish", "enter")
MOODS = ("refuse", "void", "hang", "refuse")
Age = Callable[[], None]


class Weather:
    """Which verbs fail just now and how: refused, answered into the void, or held until it is over."""

    def __init__(self) -> None:
        self.moods: dict[str, str] = {}
        self.refused: Counter[tuple[str, str]] = Counter()
        self.passed: Counter[tuple[str, str]] = Counter()
        self.over = threading.Event()

    async def next(self, kind: str, verb: str, workers: Sequence[Any]) -> None:
        """Wait until each of ``workers`` has been refused, or has got through, once more."""
        count: Counter[tuple[str, str]] = getattr(self, kind)
        seen = count.copy()
        keys = [(verb, worker.id) for worker in workers]
        await _until(lambda: all(count[key] > seen[key] for key in keys), f"{verb} {kind}")

    def clear(self) -> None:
        self.moods = {}
        self.over.set()

    def before(self, verb: str, worker: str) -> str:
        mood = self.moods.get(verb, "")
        if mood:
            self.refused[verb, worker] += 1
        if mood == "refuse":
            raise StoreUnavailable(f"{verb} is refused")
        return mood

    def after(self, mood: str, verb: str, worker: str) -> None:
        if mood == "void":
            raise StoreUnavailable(f"the answer to {verb} is lost")
        self.passed[verb, worker] += 1


class Face:
    """A face of a store, threads' or tasks', under some weather."""

    def __init__(self, inner: Any, weather: Weather) -> None:
        self._inner = inner
        self._weather = weather

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._inner, verb)
        if verb not in VERBS:
            return call
        if inspect.iscoroutinefunction(call):
            return lambda *args: self._ask(call, verb, args)
        return lambda *args: self._call(call, verb, args)

    async def nudge(self, worker: str) -> None:
        """Nobody attends for longer than a moment here."""

    async def _ask(self, call: Any, verb: str, args: Any) -> Any:
        worker = _worker(args)
        mood = self._weather.before(verb, worker)
        answer = await call(*args)
        self._weather.after(mood, verb, worker)
        return answer

    def _call(self, call: Any, verb: str, args: Any) -> Any:
        worker = _worker(args)
        mood = self._weather.before(verb, worker)
        if mood == "hang":
            assert self._weather.over.wait(60)
        answer = call(*args)
        self._weather.after(mood, verb, worker)
        return answer

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        return self._hear(self._inner.wait, worker, timeout_s)

    def attend(self, worker: str, timeout_s: float, /) -> bool | str:
        return self._hear(lambda worker, moment_s: time.sleep(moment_s) or False, worker, 0.05)

    def _hear(self, listen: Any, worker: str, timeout_s: float) -> bool | str:
        """Listen in moments, so that bad weather ends a wait and has the worker try a renewal."""
        until = time.monotonic() + timeout_s
        while True:
            if mood := self._weather.moods.get("renew"):
                if mood == "hang":
                    return "message"
                raise StoreUnavailable("cut")
            began = time.monotonic()
            heard = listen(worker, 0.05)
            if heard or time.monotonic() >= until or time.monotonic() < began + 0.04:  # the last: interrupted
                return heard  # type: ignore[no-any-return]


def _worker(args: Any) -> str:
    return args[0] if args and isinstance(args[0], str) else getattr(args[0], "id", "") if args else ""


class Faulty:
    """A backend under some weather."""

    def __init__(self, inner: Any, weather: Weather) -> None:
        self._inner = inner
        self._weather = weather
        self.name: str = inner.name
        self.capabilities: frozenset[str] = inner.capabilities

    def __reduce__(self) -> Any:
        raise TypeError("no guard: it would not see the weather")

    def sync(self) -> Any:
        return self._inner.sync()  # the producer's, which is not what is tried here

    def waiter(self, card: Any) -> Any:
        return Face(self._inner.waiter(card), self._weather)

    def aio(self) -> Any:
        return Face(self._inner.aio(), self._weather)

    def close(self) -> None:
        self._inner.close()


async def _until(done: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.005)


async def _ends(queues: QueueManager, ids: list[str]) -> list[JobInfo]:
    end = time.monotonic() + 60
    while True:
        found = await queues.backend.aio().fetch(ids)
        infos = [info for info in found if info is not None and info.is_finished]
        if len(infos) == len(ids):
            return infos
        assert time.monotonic() < end, found
        await asyncio.sleep(0.05)


async def life(url: str, namespace: str, age: Age, seed: int, **options: Any) -> None:
    """Live one random history and look at what is left of it."""
    rng, weather, runs = Random(seed), Weather(), Counter[str]()
    gates = defaultdict[str, asyncio.Event](asyncio.Event)  # a job may run before its sender knows its id
    mood = MOODS[seed % len(MOODS)]
    options |= {"namespace": namespace, "max_crashes": 1}
    with (
        QueueManager(url, **options) as plain,
        QueueManager(Faulty(plain.backend, weather), **options) as queues,
    ):

        @queues.job("held", attempts=1)
        async def held(ctx: Any, data: None) -> None:
            runs[ctx.job_id] += 1
            await gates[ctx.job_id].wait()

        # A worker that hangs alone has died as far as others can tell, so there are none.
        workers = [queues.worker(concurrency=2, lease=LEASE_S, grace=30) for _ in range(1 + (mood != "hang"))]
        tasks = [asyncio.create_task(worker.arun()) for worker in workers]
        jobs = await queues.aenqueue_many("held", [None] * 4 * len(workers))
        assert all(gates[job.id] for job in jobs)
        await _until(lambda: len(runs) == 2 * len(workers), "jobs that run")
        failing = {"renew", *rng.sample(VERBS, rng.randint(0, 4))}
        weather.moods = {"renew": "hang"} if mood == "hang" else dict.fromkeys(failing, mood)
        await weather.next("refused", "renew", workers)
        age()
        for job_id in rng.sample(sorted(runs), rng.randint(1, 2)):
            gates[job_id].set()
        if mood == "hang":
            await weather.next("passed", "claim", workers)
        else:
            await weather.next("refused", "renew", workers)
        weather.clear()
        await weather.next("passed", "renew", workers)
        for gate in gates.values():
            gate.set()
        infos = await _ends(plain, list(gates))
        for worker in workers:
            worker.stop()
        await asyncio.gather(*tasks)
        await plain.backend.aio().close()
        told = [(info.state, info.crashes, runs[info.id]) for info in infos]
        assert told == [(JobState.COMPLETED, 0, 1)] * len(jobs), (seed, mood, sorted(failing))
        rows = plain.status()
        assert balanced(rows)
        assert sum(row.stalled for row in rows) == 0, (seed, mood)


def test_lives_on_the_memory_store() -> None:
    async def side_by_side() -> None:
        lives = []
        for seed in range(24):
            clock = FakeClock()
            lives.append(life("memory://", "m", partial(clock.advance, PASSED_S), seed, clock=clock))
        await asyncio.gather(*lives)

    asyncio.run(side_by_side())


async def _lives(url: str, age: Callable[[str], None]) -> None:
    names = {uuid4().hex[:8]: seed for seed in range(3)}
    await asyncio.gather(*(life(url, name, partial(age, name), seed) for name, seed in names.items()))


@pytest.mark.integration
def test_lives_on_redis(redis_url: str) -> None:
    def age(namespace: str) -> None:
        prefix = f"{{eventperf:{namespace}}}:"
        for job_id, ends in client.zrange(f"{prefix}l", 0, -1, withscores=True):
            client.zadd(f"{prefix}l", {job_id: ends - PASSED_S * 1000})
        for worker, card in client.hgetall(f"{prefix}wk").items():
            until, rest = card.split(b"\x1f", 1)
            client.hset(f"{prefix}wk", worker, b"%d\x1f%b" % (int(until) - PASSED_S * 1000, rest))

    with redis.Redis.from_url(redis_url) as client:
        asyncio.run(_lives(redis_url, age))


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_lives_in_sql(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    with QueueManager(url) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]

    def age(namespace: str) -> None:
        job, worker = tables.jobs.c, tables.workers.c
        ns = tables.hashed(namespace)
        active = update(tables.jobs).where(job.ns == ns, job.state == tables.ACTIVE)
        heard = update(tables.workers).where(worker.ns == ns)
        with engine.begin() as conn:
            conn.execute(active.values(at=job.at - PASSED_S))
            conn.execute(heard.values(until=worker.until - PASSED_S))

    engine = create_engine(url)
    try:
        asyncio.run(_lives(url, age))
    finally:
        engine.dispose()
