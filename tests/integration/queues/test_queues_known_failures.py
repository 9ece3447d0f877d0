"""Ways in which other queues are known to fail, tried on this one with a real Redis."""

from __future__ import annotations

import asyncio
import logging
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import JobState, QueueManager, StoreUnavailable
from eventperf.queues.backends.redis.backend import RedisStore
from eventperf.testing import FakeClock
from eventperf.testing.queues import Station, balanced, until
from eventperf.testing.queues.tools import run_until
from faults import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace=uuid4().hex) as manager:
        yield manager


def test_long_blocking_wait_ends_in_time_and_not_in_an_error(queues: QueueManager) -> None:
    """Blocking reads of 5 s or more meet the client's socket time-out."""
    station, start = Station(queues, "t"), time.monotonic()
    assert station.wait(60) is False
    assert time.monotonic() - start > 4


def test_due_jobs_do_not_wait_for_blocking_time_outs(
    queues: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server looks at blocking time-outs ten times a second; due jobs have a timer of their own."""
    # Here a blocking read always takes its whole time-out, which is 5 seconds under this lease.
    monkeypatch.setattr(RedisStore, "wait", lambda store, worker, timeout_s: time.sleep(timeout_s))
    late = list[float]()

    @queues.job("due")
    async def due(ctx: Any, data: float) -> None:
        late.append(time.time() - data)

    now = time.time()
    for n in range(60):
        at = now + 0.5 + n * 0.021
        queues.enqueue("due", at, at=at)
    run_until(queues, lambda: len(late) == 60, lease=30.0)
    assert min(late) > -0.005, "never early, but for the rounding of the clocks to milliseconds"
    assert statistics.median(late) < 2


def test_delay_longer_than_the_lease_runs_once(queues: QueueManager) -> None:
    """An ETA beyond the visibility time-out runs a job many times."""
    runs = list[int]()

    @queues.job("later")
    async def later(ctx: Any, data: None) -> None:
        runs.append(ctx.crashes)

    job = queues.enqueue("later", delay=1.5)
    run_until(queues, lambda: job.info().is_finished, lease=0.4)
    assert runs == [0]


@pytest.mark.parametrize("years", [-20, 20])
def test_wrong_clock_of_a_host_moves_nothing(redis_url: str, years: int) -> None:
    clock = FakeClock(time=time.time() + years * 31_557_600)
    with QueueManager(redis_url, namespace=uuid4().hex, clock=clock) as queues:

        @queues.job("t", attempts=2)
        async def t(ctx: Any, data: None) -> int:
            return int(ctx.attempt)

        start = time.monotonic()
        job, dead = queues.enqueue("t", delay=0.3), queues.enqueue("t", deadline=60)
        run_until(queues, lambda: job.info().is_finished and dead.info().is_finished)
        assert (job.result(0), dead.result(0)) == (1, 1)
        assert time.monotonic() - start > 0.29
        assert abs(job.info().created_at - time.time()) < 60


def test_restart_repeats_no_more_than_what_ran(private_redis: Callable[..., Any]) -> None:
    """Peers run a whole prefetched batch again when the server comes back."""
    server = private_redis(appendonly="yes", appendfsync="always")
    runs = Counter[int]()
    with QueueManager(server.url) as queues:

        @queues.job("short")
        async def short(ctx: Any, data: int) -> None:
            runs[data] += 1
            await asyncio.sleep(0.01)

        queues.enqueue_many("short", range(1500))
        worker = queues.worker(concurrency=10, lease=10)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            wait_until(lambda: len(runs) > 200, 20)
            server.kill9()
            time.sleep(0.3)
            server.start()
            wait_until(lambda: len(runs) == 1500, 40)

            def drained() -> bool:
                try:
                    return queues.drain(30)
                except StoreUnavailable:
                    return False

            assert until(drained, 40)
        finally:
            worker.stop()
            thread.join(20)
        rows = queues.status()
        assert sum(s.completed for s in rows) == 1500
        assert balanced(rows)
    repeated = sum(runs.values()) - 1500
    assert repeated <= 10, "at most what ran"


def test_busy_tenant_is_overtaken_by_small_ones_under_workers(queues: QueueManager) -> None:
    order = list[str]()

    @queues.job("t")
    async def t(ctx: Any, data: None) -> None:
        order.append(ctx.fairness_key)

    queues.enqueue_many("t", [None] * 5000, fairness_key="big")
    for n in range(20):
        queues.enqueue_many("t", [None] * 5, fairness_key=f"small-{n}")
    run_until(queues, lambda: len(order) == 5100)
    last = max(i for i, key in enumerate(order) if key != "big")
    assert last < 100 + 5 + 300, "their own, as many turns of the big one, and what was claimed ahead"


def test_a_server_that_may_evict_is_warned_about(
    private_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis(maxmemory="100mb", **{"maxmemory-policy": "allkeys-lru"})
    with caplog.at_level(logging.WARNING, "eventperf.queues"), QueueManager(server.url) as queues:
        queues.enqueue("t")
        queues.enqueue("t")
        queues.worker().run(burst=True)
    said = [r.getMessage() for r in caplog.records if "evict" in r.getMessage()]
    assert said
    assert "allkeys-lru" in said[0]
    assert len(said) <= 2, "once for each face, not once a call"


def test_enqueue_waits_for_replicas_when_asked(private_redis: Callable[..., Any]) -> None:
    server = private_redis(repl_diskless_sync_delay=0)
    with QueueManager(server.url, wait_replicas=1, wait_timeout=0.1) as lonely:
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            lonely.enqueue("t", id="order-1")

        async def main() -> None:
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await lonely.aenqueue("t", id="order-1")
            await lonely.aclose()

        asyncio.run(main())
    replica = private_redis(replicaof=f"{server.host} {server.port}")
    with QueueManager(server.url, wait_replicas=1, wait_timeout=5) as queues:
        wait_until(lambda: _linked(server), 20, what="the replica to be in step")
        job = queues.enqueue("t", id="order-1")
        assert job.info().state is JobState.WAITING
        assert sum(s.enqueued for s in queues.status()) == 1
        with QueueManager(replica.url) as promoted:
            replica.execute("REPLICAOF", "NO", "ONE")
            assert promoted.job_info("order-1").state is JobState.WAITING
            lease = Station(promoted, "t").take()[0]
            assert lease.record.id == "order-1"


def test_a_repeated_enqueue_waits_for_the_replicas_too(private_redis: Callable[..., Any]) -> None:
    """It stores nothing new, and Valkey's WAIT (not Redis') is content when its connection wrote nothing."""
    server = private_redis(repl_diskless_sync_delay=0)
    replica = private_redis(replicaof=f"{server.host} {server.port}")
    wait_until(lambda: _linked(server), 20, what="the replica to be in step")
    replica.sigstop()
    try:
        for _ in range(2):  # each on a connection of its own, as after a restart of the producer
            with (
                QueueManager(server.url, wait_replicas=1, wait_timeout=0.3) as queues,
                pytest.raises(StoreUnavailable, match="0 of 1 replicas"),
            ):
                queues.enqueue("t", id="order-1")
    finally:
        replica.sigcont()
    with QueueManager(server.url, wait_replicas=1, wait_timeout=10) as queues:
        assert queues.enqueue("t", id="order-1").id == "order-1"


def _linked(server: Any) -> bool:
    row = server.execute("INFO", "replication").get("slave0")
    return bool(row and row["state"] == "online")


def test_jobs_held_ready_do_not_wait_behind_a_slow_one(queues: QueueManager) -> None:
    """A worker that prefetched short jobs and then meets a long one gives the rest to others."""
    release = threading.Event()
    ran = list[int]()

    @queues.job("mixed")
    async def mixed(ctx: Any, data: int) -> None:
        ran.append(data)
        if data == 1000:
            await asyncio.to_thread(release.wait, 30)

    queues.enqueue_many("mixed", range(2000))
    busy = queues.worker(concurrency=1, lease=20)
    thread = threading.Thread(target=busy.run)
    thread.start()
    try:
        wait_until(lambda: 1000 in ran, 30)
        with QueueManager(queues.backend, namespace=queues.namespace) as other:
            other.job("mixed")(mixed.fn)
            run_until(other, lambda: len(set(ran)) == 2000)
        wait_until(lambda: sum(s.completed for s in queues.status()) == 1999, 20)
    finally:
        release.set()
        busy.stop()
        thread.join(30)
    assert sorted(ran) == list(range(2000))
