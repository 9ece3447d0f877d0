"""One namespace in several partitions: what must hold over all of them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from eventperf._core.errors import ConfigurationError
from eventperf.queues import JobSpec, JobState, Limit, QueueError, QueueManager
from eventperf.testing.queues import Station, balanced
from faults import wait_until

pytestmark = pytest.mark.integration


def _run(queues: QueueManager, done: Callable[[], object], workers: int = 1, **options: Any) -> None:
    """Run workers in threads until ``done``."""
    running = [queues.worker(**options) for _ in range(workers)]
    threads = [threading.Thread(target=worker.run) for worker in running]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: bool(done()), 60)
    finally:
        for worker in running:
            worker.stop()
        for thread in threads:
            thread.join(30)


def _where(queues: QueueManager, ids: list[str]) -> set[int]:
    backend: Any = queues.backend
    return {backend.routing.of(job_id) for job_id in ids}


def test_another_number_is_refused_and_so_is_who_knows_of_none(redis_url: str) -> None:
    with QueueManager(redis_url, partitions=4) as made, QueueManager(redis_url, partitions=8) as other:
        made.enqueue("t")
        for call in (other.status, lambda: other.enqueue("t"), lambda: other.worker().run(burst=True)):
            with pytest.raises(ConfigurationError, match="got 8; allowed: 4"):
                call()
        with pytest.raises(ConfigurationError, match="got 8; allowed: 4"):
            asyncio.run(other.aenqueue("t"))
        with QueueManager(redis_url) as plain:
            for refused in (plain.status, lambda: plain.enqueue("t"), lambda: plain.job_info("x")):
                with pytest.raises(QueueError, match="partitions="):
                    refused()
            with pytest.raises(QueueError, match="partitions="):
                Station(plain, "t").claim()
        assert sum(row.waiting for row in made.status()) == 1


def test_a_namespace_without_partitions_keeps_its_jobs_and_its_keys(redis_url: str) -> None:
    with QueueManager(redis_url, partitions=1) as plain, redis.Redis.from_url(redis_url) as client:
        plain.status()
        with QueueManager(redis_url, partitions=2) as early:
            assert early.status(), "looked at only: it is new"
        client.flushdb()
        job = plain.enqueue("t")
        with QueueManager(redis_url, partitions=2) as late, pytest.raises(ConfigurationError, match="got 2"):
            late.enqueue("t")
        assert job.info().state is JobState.WAITING
        assert {key.split(b":")[1] for key in client.scan_iter()} == {b"default}"}


def test_a_unique_key_is_held_over_all_partitions(redis_url: str) -> None:
    with QueueManager(redis_url, partitions=8) as queues, QueueManager(redis_url, partitions=8) as others:

        def push(n: int) -> str:
            chosen = queues if n % 2 else others
            return chosen.enqueue("t", n, unique_key=f"k{n % 5}", fairness_key=f"f{n}").id

        with ThreadPoolExecutor(8) as pool:
            ids = set(pool.map(push, range(200)))
        assert len(ids) == 5
        assert sum(row.waiting for row in queues.status()) == 5
        assert queues.enqueue("other", unique_key="k1").id not in ids, "the key of another type"


def test_a_limit_by_key_is_held_over_all_partitions(redis_url: str) -> None:
    limits = [Limit(per_key=True, concurrency=2)]
    now, most, mu = Counter[str](), Counter[str](), threading.Lock()
    with QueueManager(redis_url, partitions=8, limits=limits) as queues:

        @queues.job("t")
        async def t(ctx: Any, data: None) -> None:
            with mu:
                now[ctx.fairness_key] += 1
                most[ctx.fairness_key] = max(most[ctx.fairness_key], now[ctx.fairness_key])
            await asyncio.sleep(0.002)
            with mu:
                now[ctx.fairness_key] -= 1

        keys = [f"tenant-{n % 12}" for n in range(240)]
        queues.enqueue_many([JobSpec(type="t", fairness_key=key) for key in keys])
        _run(queues, lambda: sum(r.completed for r in queues.status()) == 240, workers=2, concurrency=20)
        assert most == Counter(dict.fromkeys(keys, 2))
        with pytest.raises(ConfigurationError, match="square brackets"):
            queues.enqueue("t", fairness_key="a", unique_key="b")
        assert queues.enqueue("t", fairness_key="a", unique_key="[a]b").info().state is JobState.WAITING


def test_batches_and_chains_run_in_one_partition_each_and_in_their_order(redis_url: str) -> None:
    order: list[tuple[int, int]] = []
    with QueueManager(redis_url, partitions=8) as queues:

        @queues.job("t")
        async def t(ctx: Any, data: list[int]) -> int:
            order.append((data[0], data[1]))
            return data[1]

        @queues.job("sum")
        async def total(ctx: Any, data: int) -> int:
            return sum(await ctx.ainputs())

        chains = [queues.chain([JobSpec(type="t", data=[c, n]) for n in range(4)]) for c in range(12)]
        batches = []
        for b in range(12):
            parts = [JobSpec(type="t", data=[100 + b, n]) for n in range(5)]
            batches.append(queues.batch(parts, then=JobSpec(type="sum", data=b)))
        for jobs in (*chains, *batches):
            assert len(_where(queues, [job.id for job in jobs])) == 1
        assert len(_where(queues, [jobs[0].id for jobs in (*chains, *batches)])) > 4
        # With such a lease a worker looks by itself after minutes only: it must hear of each step.
        _run(queues, lambda: sum(r.completed for r in queues.status()) == 12 * 10, lease=3000)
        for c in range(12):
            assert [n for chain, n in order if chain == c] == [0, 1, 2, 3]
        assert [jobs[-1].result(0) for jobs in batches] == [10] * 12


def test_what_would_have_to_live_in_two_partitions_is_refused_and_nothing_stored(redis_url: str) -> None:
    with QueueManager(redis_url, partitions=8) as queues:
        first, second = (queues.enqueue("t", id=f"parent-{n}") for n in (1, 2))
        for options in (
            {"after": [first, second]},
            {"after": [first], "unique_key": "k"},
            {"after": [first], "id": "child"},
            {"id": "mine", "unique_key": "k"},
        ):
            with pytest.raises(ConfigurationError, match="square brackets"):
                queues.enqueue("t", **options)  # type: ignore[arg-type]
        specs = [JobSpec(type="t") for _ in range(20)]
        with pytest.raises(ConfigurationError, match="nobody"):
            queues.enqueue_many([*specs, JobSpec(type="t", after=["nobody"])])
        assert sum(row.enqueued for row in queues.status()) == 2
        child = queues.enqueue("t", after=[first], id=f"[{first.id}]child", unique_key=f"[{first.id}]k")
        assert child.info().state is JobState.DELAYED


def test_operators_reach_every_partition(redis_url: str) -> None:
    with QueueManager(redis_url, partitions=8, queues={"q": {}, "r": {}}) as queues:
        jobs = queues.enqueue_many("t", range(64), queue="q", tags=["x"])
        assert len(_where(queues, [job.id for job in jobs])) == 8
        queues.pause("q")
        station = Station(queues, "t", lease_s=30)
        assert station.take() == []
        queues.resume("q")
        for lease in station.take(32):
            station.end(lease, "dead", error="x")
        (row, _) = queues.status()
        assert (row.waiting, row.dead, row.failed, row.workers) == (32, 32, 32, 1)
        assert len(queues.dead("q", limit=5)) == 5
        assert queues.replay("q", limit=10) == 10
        assert queues.replay("q") == 22
        moved = queues.jobs(state="waiting", limit=1).jobs[0]
        queues.update(moved.id, queue="r", priority=9)
        assert queues.job_info(moved.id).queue == "r"
        assert sum(queues.cancel(job.id) for job in jobs[:4]) == 4
        seen, cursor = list[str](), None
        while True:
            page = queues.jobs(tag="x", limit=7, cursor=cursor)
            seen += [info.id for info in page.jobs]
            if (cursor := page.cursor) is None:
                break
        assert sorted(seen) == sorted(job.id for job in jobs)
        assert queues.purge("q") + queues.purge("r") == 60
        assert balanced(queues.status())
        assert sum(one.failed for one in queues.metrics().intervals) == 32
        assert [worker.running for worker in queues.workers()] == [0]


def test_schedules_fire_once_over_workers_of_all_partitions(redis_url: str) -> None:
    with QueueManager(redis_url, partitions=8) as queues:
        store: Any = queues.backend.sync()
        now = store.time()
        for name in ("a", "b", "c", "d"):
            queues.cron(name, "@daily", "t")
        fired = [
            store.fire(name, now + slot, queues.schedules[name].make())
            for _ in range(3) for slot in (0, 1) for name in queues.schedules
        ]  # fmt: skip
        assert sum(fired) == 8
        assert len(Station(queues, "t").take()) == 8


def _claims(client: Any) -> int:
    return sum(
        int(facts["calls"])
        for name, facts in client.info("commandstats").items()
        if name == "cmdstat_evalsha"
    )


@pytest.mark.parametrize("partitions", [1, 4, 16])
def test_what_a_claim_costs_does_not_depend_on_how_many_there_are(redis_url: str, partitions: int) -> None:
    """Scripts a job costs a worker that drains a full namespace."""
    with QueueManager(redis_url, partitions=partitions) as queues, redis.Redis.from_url(redis_url) as client:
        queues.enqueue_many("t", range(4000))
        station = Station(queues, "t", lease_s=60)
        before, claims = _claims(client), 0
        while len(station.take(10)) == 10:
            claims += 1
        spent = _claims(client) - before
        assert claims == 400
        assert 400 <= spent <= 400 + 4 * partitions


def test_a_job_of_a_handler_is_found_by_a_burst_wherever_it_is(redis_url: str) -> None:
    with QueueManager(redis_url, partitions=16) as queues:

        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            if data:
                await queues.aenqueue("t", data - 1)

        @queues.job("then")
        async def then(ctx: Any, data: int) -> None:
            if data:
                ctx.then("then", data - 1)

        queues.enqueue("t", 15)
        last = queues.enqueue("then", 15)
        queues.worker().run(burst=True)
        assert sum(row.completed for row in queues.status()) == 32
        assert last.info().state is JobState.COMPLETED
