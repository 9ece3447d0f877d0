"""Workers and servers that die: nothing is lost, nothing finishes twice, nobody stays down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventperf.queues import JobState, QueueManager
from eventperf.testing.queues import Station, balanced
from faults import TcpProxy, Worker, wait_until

pytestmark = pytest.mark.integration

JOBS = """
import asyncio, sys
from eventperf.queues import QueueManager
queues = QueueManager(sys.argv[1], namespace="faults")
@queues.job("nap")
async def nap(ctx, data: float):
    print("start", ctx.job_id, flush=True)
    await asyncio.sleep(data)
    return ctx.attempt
queues.worker(concurrency=4, lease=float(sys.argv[2]), grace=float(sys.argv[3])).run()
print("stopped", flush=True)
"""


@pytest.fixture
def queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace="faults") as manager:
        yield manager


def test_orphan_of_a_killed_worker_runs_again_though_the_queue_is_idle(
    queues: QueueManager, redis_url: str
) -> None:
    lease = 1.5
    with Worker(JOBS, redis_url, lease, 1) as doomed, Worker(JOBS, redis_url, lease, 1) as other:
        wait_until(lambda: queues.backlog().workers == 2, what="two workers")
        job = queues.enqueue("nap", 3.0)
        wait_until(lambda: "start" in doomed.output + other.output)
        if "start" in other.output:
            doomed, other = other, doomed
        doomed.kill9()
        other.wait_for(f"start {job.id}", 30)
        assert job.result(30) == 1, "a crash is no attempt"
    info = job.info()
    assert (info.crashes, info.state) == (1, JobState.COMPLETED)


def test_frozen_worker_comes_back_too_late(queues: QueueManager, redis_url: str) -> None:
    with Worker(JOBS, redis_url, 1.0, 1) as frozen:
        job = queues.enqueue("nap", 0.3)
        frozen.wait_for("start")
        frozen.sigstop()
        station = Station(queues, "nap")
        (lease,) = wait_until(station.take, 5)
        frozen.sigcont()
        frozen.wait_for("dropped", 10)
        assert station.end(lease, result=queues.codec.encode("mine"))
    assert job.result(1) == "mine"
    assert sum(s.completed for s in queues.status()) == 1


def test_sigterm_hands_back_what_does_not_finish_in_time(queues: QueueManager, redis_url: str) -> None:
    with Worker(JOBS, redis_url, 15, 0.2) as worker:
        long, short = queues.enqueue("nap", 60.0), queues.enqueue("nap", 0.05)
        wait_until(lambda: worker.output.count("start") == 2)
        worker.terminate()
        worker.wait_for("stopped")
        assert worker.wait() == 0
    assert short.result(0) == 1
    assert long.info().state is JobState.WAITING
    assert long.info().crashes == 0


def _serve(queues: QueueManager) -> tuple[Any, threading.Thread]:
    worker = queues.worker(concurrency=5, lease=2.0, grace=1.0)
    thread = threading.Thread(target=worker.run)
    thread.start()
    return worker, thread


def _tiny(queues: QueueManager) -> Callable[..., Any]:
    async def tiny(ctx: Any, data: int) -> int:
        return data

    return queues.job("tiny")(tiny).enqueue


def test_worker_outlives_a_restart_of_redis(private_redis: Callable[..., Any]) -> None:
    server = private_redis(appendonly="yes", appendfsync="always")
    with QueueManager(server.url) as queues:
        send = _tiny(queues)
        worker, thread = _serve(queues)
        try:
            assert send(1).result(5) == 1
            waiting = send(2, delay=2)
            server.kill9()
            time.sleep(0.5)
            server.start()
            assert send(3).result(30) == 3
            assert waiting.result(30) == 2
            assert thread.is_alive()
        finally:
            worker.stop()
            thread.join(20)


def test_cut_connections_cost_nothing(redis_server: Any, redis_url: str) -> None:
    with TcpProxy(redis_server.host, redis_server.port) as proxy:  # noqa: SIM117 - the order matters
        with QueueManager(redis_url, namespace="cut") as producer:
            with QueueManager(proxy.url(redis_url), namespace="cut") as queues:
                _tiny(queues)
                worker, thread = _serve(queues)
                try:
                    wait_until(lambda: producer.backlog().workers == 1)
                    for _ in range(5):
                        jobs = producer.enqueue_many("tiny", range(200))
                        proxy.cut()
                        for job in jobs[::50]:
                            job.result(10)
                    assert producer.drain(15)
                    assert thread.is_alive()
                finally:
                    worker.stop()
                    thread.join(20)
            rows = producer.status()
            assert sum(s.completed for s in rows) == 1000
            assert balanced(rows)


def test_worker_holds_two_connections_and_a_producer_one(private_redis: Callable[..., Any]) -> None:
    server = private_redis()

    def open_now() -> int:
        with server.client() as client:
            return sum(c["cmd"] != "client|list" for c in client.client_list())

    with QueueManager(server.url) as queues:
        before = open_now()
        queues.enqueue_many("tiny", range(10))
        queues.status()
        assert open_now() - before == 1
        queues.close()
        _tiny(queues)
        before = open_now()
        worker, thread = _serve(queues)
        try:
            wait_until(lambda: open_now() - before == 2, what="two connections")
            time.sleep(0.2)
            assert open_now() - before == 2
        finally:
            worker.stop()
            thread.join(20)
