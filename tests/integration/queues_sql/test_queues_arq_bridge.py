"""Stock arq at one end, this package at the other, and arq's worker under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("arq", reason="the arq extra is not installed")
import arq
from arq.connections import RedisSettings

from eventperf.queues import JobState, QueueManager
from eventperf.queues.compat import arq as compat
from faults import Worker, wait_until

pytestmark = pytest.mark.integration


async def add(ctx: dict[str, Any], a: int, b: int = 0) -> int:
    return a + b


async def stubborn(ctx: dict[str, Any]) -> int:
    if ctx["job_try"] < 3:
        raise arq.Retry(defer=0.01)
    return int(ctx["job_try"])


async def broken(ctx: dict[str, Any]) -> None:
    raise ValueError("no luck")


@pytest.fixture
def queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace="bridge") as manager:
        yield manager


def test_stock_producer_is_served_by_our_worker(queues: QueueManager, redis_url: str) -> None:
    settings = RedisSettings.from_dsn(redis_url)

    async def scenario() -> None:
        bridge = compat.Bridge(queues, settings)
        bridge.adopt([add, stubborn, arq.func(broken, name="bad")])
        producer = await arq.create_pool(settings)
        try:
            jobs = [
                await producer.enqueue_job("add", 2, b=3),
                await producer.enqueue_job("stubborn"),
                await producer.enqueue_job("bad"),
                await producer.enqueue_job("add", 1, _defer_by=60, _job_id="later"),
                await producer.enqueue_job("add", object, _job_id="pickle-only"),
            ]
            assert all(jobs)
            drained = await bridge.drain()
            assert drained.moved == 4
            assert list(drained.refused) == ["pickle-only"]
            assert queues.job_info("later").state is JobState.DELAYED
            assert (await bridge.drain()).moved == 0
            worker = queues.worker(concurrency=5)
            running = asyncio.create_task(worker.arun())
            assert await jobs[0].result(timeout=20) == 5
            assert await jobs[1].result(timeout=20) == 3
            with pytest.raises(ValueError, match="no luck"):
                await jobs[2].result(timeout=20)
            left = await producer.zrange("arq:queue", 0, -1)
            assert set(left) == {b"pickle-only", b"later"}
            assert await arq.jobs.Job("later", producer).status() is arq.jobs.JobStatus.in_progress
            worker.stop()
            await running
        finally:
            await producer.aclose(close_connection_pool=True)
            await bridge.aclose()
            await queues.aclose()

    asyncio.run(scenario())
    assert [info.type for info in queues.dead("normal")] == ["bad"]


def test_our_producer_is_served_by_a_stock_worker(queues: QueueManager, redis_url: str) -> None:
    settings = RedisSettings.from_dsn(redis_url)

    async def scenario() -> None:
        bridge = compat.Bridge(queues, settings)
        bridge.forward("add")
        job = await queues.aenqueue("add", {"args": [20], "kwargs": {"b": 22}})
        one = await queues.aenqueue("add", 7)
        await queues.worker().arun(burst=True)
        with Worker(STOCK, redis_url) as stock:
            assert await asyncio.to_thread(stock.wait, 30) == 0, stock.output
        pool = await arq.create_pool(settings)
        try:
            found = [await arq.jobs.Job(j.id, pool).result(timeout=5) for j in (job, one)]
            assert found == [42, 7]
        finally:
            await pool.aclose(close_connection_pool=True)
            await bridge.aclose()
            await queues.aclose()

    asyncio.run(scenario())


def test_bridge_keeps_running_beside_producers(queues: QueueManager, redis_url: str) -> None:
    settings = RedisSettings.from_dsn(redis_url)

    async def scenario() -> None:
        bridge, stop = compat.Bridge(queues, settings), asyncio.Event()
        bridge.adopt([add])
        producer = await arq.create_pool(settings)
        worker = queues.worker(concurrency=5)
        tasks = [asyncio.create_task(worker.arun()), asyncio.create_task(bridge.run(stop, poll_s=0.02))]
        try:
            jobs = [await producer.enqueue_job("add", n, b=n) for n in range(30)]
            assert [await job.result(timeout=20) for job in jobs if job] == [2 * n for n in range(30)]
        finally:
            stop.set()
            worker.stop()
            await asyncio.gather(*tasks)
            await producer.aclose(close_connection_pool=True)
            await bridge.aclose()
            await queues.aclose()

    asyncio.run(scenario())


def _send(url: str, *numbers: int) -> None:
    with Worker(PRODUCER, url, *numbers) as producer:
        assert producer.wait(30) == 0, producer.output


def test_full_slots_do_not_wait_for_the_poll(redis_url: str) -> None:
    """With 10 slots arq runs at most 10 jobs each ``poll_delay``, here 2 s, where 500 a second fit."""
    _send(redis_url, *range(100))
    with Worker(OURS, redis_url, 2.0) as worker:
        worker.wait_for("ran")
        began = time.monotonic()
        wait_until(lambda: worker.output.count("ran") == 100, 30)
        assert time.monotonic() - began < 10, "arq's own worker needs 18 s"


def test_worker_outlives_a_restart_of_redis(private_redis: Callable[..., Any]) -> None:
    server = private_redis(appendonly="yes", appendfsync="always")
    with Worker(OURS, server.url, 0.05) as worker:
        _send(server.url, 1)
        worker.wait_for("ran 1")
        server.kill9()
        time.sleep(0.3)
        server.restart()
        _send(server.url, 2)
        worker.wait_for("ran 2")
        assert worker.running


PRODUCER = """
import asyncio, sys, arq
async def send():
    pool = await arq.create_pool(arq.connections.RedisSettings.from_dsn(sys.argv[1]))
    for n in sys.argv[2:]:
        await pool.enqueue_job("nap", int(n))
asyncio.run(send())
"""

STOCK = """
import asyncio, sys, arq
async def add(ctx, a, b=0):
    return a + b
settings = arq.connections.RedisSettings.from_dsn(sys.argv[1])
arq.Worker([add], redis_settings=settings, burst=True, poll_delay=0).run()
"""

OURS = """
import asyncio, sys
from eventperf.queues.compat import arq
async def nap(ctx, n):
    await asyncio.sleep(0.02)
    print("ran", n, flush=True)
settings = arq.RedisSettings.from_dsn(sys.argv[1])
settings.conn_retries, settings.conn_retry_delay = 100, 0.1
arq.Worker([nap], redis_settings=settings, poll_delay=float(sys.argv[2])).run()
"""
