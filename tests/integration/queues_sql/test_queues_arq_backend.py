"""A manager on arq's own keys: stock arq at the other end, crashes, restarts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("arq", reason="the arq extra is not installed")
import arq
from arq.connections import RedisSettings
from arq.worker import JobExecutionFailed

from eventperf.errors import ConfigurationError
from eventperf.queues import JobState, QueueConfig, QueueManager
from eventperf.queues.compat import arq as compat
from eventperf.queues.errors import PayloadError
from faults import Worker, wait_until
from servers import RedisServer

pytestmark = pytest.mark.integration

JSON: dict[str, Any] = {"job_serializer": compat.dumps, "job_deserializer": compat.loads}


@pytest.fixture(params=["json", "pickle"])
def serializer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stock(serializer: str) -> dict[str, Any]:
    """What a stock arq end needs to be told."""
    return JSON if serializer == "json" else {}


@pytest.fixture
def name() -> str:
    """One of arq's queues, by its own name."""
    return f"arq:mail-{uuid4().hex[:6]}"


@pytest.fixture
def queues(redis_url: str, serializer: str, name: str) -> Iterator[QueueManager]:
    url = f"arq+{redis_url}?serializer={serializer}&poll=0.02"
    with QueueManager(url, queues=[QueueConfig(name=name)]) as manager:
        yield manager


def in_thread(manager: QueueManager, **options: Any) -> tuple[Any, threading.Thread]:
    worker = manager.worker(**options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    return worker, thread


def test_stock_producer_is_served_here(
    queues: QueueManager, redis_url: str, stock: dict[str, Any], name: str
) -> None:
    @queues.job("add")
    async def add(ctx: Any, data: dict[str, Any]) -> int:
        return sum(data["args"]) + sum(data["kwargs"].values())

    @queues.job("bad", attempts=1)
    def bad(ctx: Any, data: None) -> None:
        raise ValueError("no luck")

    async def producer() -> None:
        pool = await arq.create_pool(RedisSettings.from_dsn(redis_url), default_queue_name=name, **stock)
        try:
            good = await pool.enqueue_job("add", 2, b=3)
            failing = await pool.enqueue_job("bad")
            assert good is not None
            assert failing is not None
            assert await good.result(timeout=10, poll_delay=0.02) == 5
            with pytest.raises(JobExecutionFailed, match="ValueError: no luck"):
                await failing.result(timeout=10, poll_delay=0.02)
            waiting = await pool.enqueue_job("add", 1, c=1, _defer_by=60)
            assert waiting is not None
            assert queues.job_info(waiting.job_id).state is JobState.DELAYED
            assert queues.cancel(waiting.job_id)
            with pytest.raises(asyncio.CancelledError):
                await waiting.result(timeout=1)
        finally:
            await pool.aclose()

    worker, thread = in_thread(queues)
    try:
        asyncio.run(producer())
    finally:
        worker.stop()
        thread.join(20)
    assert sum(s.completed for s in queues.status()) == 1


def test_stock_worker_serves_jobs_from_here(
    queues: QueueManager, redis_url: str, stock: dict[str, Any], name: str
) -> None:
    tries: list[int] = []

    async def greet(ctx: dict[str, Any], data: str) -> str:
        return f"hello {data}"

    async def resize(ctx: dict[str, Any], width: int, height: int = 1) -> int:
        tries.append(ctx["job_try"])
        if ctx["job_try"] == 1:
            raise arq.Retry(defer=0.01)
        return width * height

    async def broken(ctx: dict[str, Any], data: None) -> None:
        raise ValueError("no luck")

    jobs = [
        queues.enqueue("greet", "you"),
        queues.enqueue("resize", {"args": [3], "kwargs": {"height": 4}}),
        queues.enqueue("broken"),
    ]

    async def work() -> None:
        worker = arq.Worker(
            [arq.func(f, name=f.__name__) for f in (greet, resize, broken)],
            redis_settings=RedisSettings.from_dsn(redis_url), queue_name=name,
            burst=True, poll_delay=0.02, handle_signals=False, **stock,
        )  # fmt: skip
        await worker.async_run()
        await worker.pool.aclose()

    asyncio.run(work())
    assert [job.result(0) for job in jobs[:2]] == ["hello you", 12]
    assert tries == [1, 2]
    assert (jobs[2].info().state, jobs[2].info().error) == (JobState.FAILED, "ValueError: no luck")


def test_killed_workers_jobs_run_again_soon(redis_url: str) -> None:
    """arq waits for the longest time-out of all its functions; here the lease says when."""
    name = f"arq:crash-{uuid4().hex[:6]}"
    url = f"arq+{redis_url}?poll=0.02"
    code = f"""
from eventperf.queues import QueueConfig, QueueManager
import asyncio
queues = QueueManager({url!r}, queues=[QueueConfig(name={name!r})])

@queues.job("t", timeout="5m")
async def t(ctx, data):
    print("began", flush=True)
    await asyncio.sleep(60)

queues.worker(lease=1.0).run()
"""
    with QueueManager(url, queues=[QueueConfig(name=name)]) as queues, Worker(code) as worker:
        job = queues.enqueue("t")
        worker.wait_for("began")
        worker.kill9()

        @queues.job("t")
        async def t(ctx: Any, data: None) -> int:
            return int(ctx.attempt)

        second, thread = in_thread(queues, lease=1.0)
        try:
            assert job.result(60) == 2
        finally:
            second.stop()
            thread.join(20)


def test_worker_lives_on_when_redis_restarts(private_redis: Callable[..., RedisServer]) -> None:
    server = private_redis()
    with QueueManager(f"arq+{server.url}?poll=0.02") as queues:

        @queues.job("t")
        async def t(ctx: Any, data: int) -> int:
            return data

        worker, thread = in_thread(queues, lease=1.0)
        try:
            assert t.enqueue(1).result(10) == 1
            server.kill9()
            time.sleep(1.0)
            server.start()
            wait_until(lambda: _answer(queues) == 2, 20)
            assert thread.is_alive()
        finally:
            worker.stop()
            thread.join(20)
        assert not thread.is_alive()


def _answer(queues: QueueManager) -> Any:
    from eventperf.errors import StoreUnavailable

    try:
        return queues.enqueue("t", 2).result(5)
    except StoreUnavailable:
        return None


def test_schedules_fire_on_arq_too(redis_url: str) -> None:
    name = f"arq:cron-{uuid4().hex[:6]}"
    ran: list[int] = []
    with QueueManager(f"arq+{redis_url}?poll=0.02", queues=[QueueConfig(name=name)]) as queues:

        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            ran.append(data)

        queues.cron(f"each-{name}", "1s", "t", 7)
        worker, thread = in_thread(queues)
        wait_until(lambda: len(ran) >= 2, 10)
        worker.stop()
        thread.join(20)


def test_wrong_urls_and_foreign_blobs_are_told(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"serializer.*yaml"):
        QueueManager(f"arq+{redis_url}?serializer=yaml")
    with pytest.raises(ConfigurationError, match=r"poll.*never"):
        QueueManager(f"arq+{redis_url}?poll=never")
    name = f"arq:foreign-{uuid4().hex[:6]}"
    pickled = QueueManager(f"arq+{redis_url}?serializer=pickle", queues=[QueueConfig(name=name)])
    as_json = QueueManager(f"arq+{redis_url}", queues=[QueueConfig(name=name)])
    with pickled, as_json:
        job = pickled.enqueue("t", 1)
        with pytest.raises(PayloadError, match="serializer=json"):
            as_json.job_info(job.id)
        assert pickled.cancel(job.id)
