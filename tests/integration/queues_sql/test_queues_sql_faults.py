"""SQL job stores whose workers are killed and whose server is restarted."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import JobState, QueueManager
from eventperf.testing.queues import balanced
from eventperf.testing.queues.tools import Station
from faults import Worker, wait_until
from servers import PostgresServer

pytestmark = pytest.mark.integration

JOBS = """
import asyncio, sys
from eventperf.queues import QueueManager
queues = QueueManager(sys.argv[1])
@queues.job("nap")
async def nap(ctx, data: float):
    await asyncio.sleep(data)
    print("effect", ctx.job_id, ctx.crashes, flush=True)
    return ctx.attempt
queues.worker(concurrency=8, lease=1.5).run()
"""


def test_killed_worker_loses_nothing(url: str) -> None:
    with QueueManager(url) as queues:
        with Worker(JOBS, url) as doomed, Worker(JOBS, url) as other:
            wait_until(lambda: queues.backlog().workers == 2, 40, what="two workers")
            jobs = queues.enqueue_many("nap", [0.05] * 300)
            doomed.wait_for("effect")
            doomed.kill9()
            assert queues.drain(60)
            done = Counter(line.split()[1] for line in [*doomed.lines, *other.lines] if "effect" in line)
        rows = queues.status()
        assert sum(row.completed for row in rows) == 300
        assert sum(row.failed for row in rows) == 0
        assert balanced(rows)
        assert {job.id for job in jobs} == set(done), "every job had its effect"
        again = sum(done.values()) - 300
        assert again <= 32, "only what the killed worker ran or had not reported ran again"


def test_worker_outlives_a_restart_of_its_server(private_postgres: Callable[..., PostgresServer]) -> None:
    server = private_postgres()
    ran: list[int] = []
    with QueueManager(server.url) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]

        @queues.job("count")
        async def count(ctx: Any, data: int) -> None:
            ran.append(data)

        worker = queues.worker(concurrency=4, lease=3)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            queues.enqueue_many("count", range(50))
            wait_until(lambda: len(ran) >= 50, what="the first jobs")
            server.kill9()
            time.sleep(0.3)
            server.restart()
            last = wait_until(lambda: _enqueued(queues), timeout=20, what="the server")
            wait_until(lambda: last.info().state is JobState.COMPLETED, timeout=20, what="the worker")
            assert queues.drain(20)
        finally:
            worker.stop()
            thread.join(30)
        assert not thread.is_alive()
        assert set(ran) == {*range(50), 99}
        assert sum(row.completed for row in queues.status()) == 51
        assert balanced(queues.status())


def _enqueued(queues: QueueManager) -> Any:
    from eventperf.errors import StoreUnavailable

    try:
        return queues.enqueue("count", 99, id="after-the-restart")
    except StoreUnavailable:
        return None


def test_a_worker_hears_of_jobs_in_a_process_with_many_open_files(postgres_url: str) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this system allows few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with QueueManager(postgres_url, namespace=uuid4().hex) as queues:
            queues.backend.create_schema()  # type: ignore[attr-defined]
            station = Station(queues, "t")
            waiter = queues.backend.waiter(station.card)
            assert not waiter.wait(station.id, 0.05), "and says so in no error"
            queues.enqueue("t")
            assert waiter.wait(station.id, 30)
            waiter.close()
    finally:
        for one in opened:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
