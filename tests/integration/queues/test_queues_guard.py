"""A call in a handler that holds the interpreter for longer than a lease: slow is not dead."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from eventperf.queues import JobState, QueueManager
from eventperf.testing.queues import Station
from faults import Worker, wait_until

pytestmark = pytest.mark.integration

JOBS = """
import logging, re, sys, time
from eventperf.queues import QueueManager
logging.basicConfig(level=logging.WARNING)
queues = QueueManager(sys.argv[1], namespace=sys.argv[2])
@queues.job("hold", attempts=1)
def hold(ctx, data):
    print("start", ctx.job_id, ctx.crashes, flush=True)
    re.match(r"(a+)+$", "a" * data + "b")
    return ctx.attempt
@queues.job("nap", attempts=1)
async def nap(ctx, data):
    print("start", ctx.job_id, flush=True)
    import asyncio
    await asyncio.sleep(data)
queues.worker(concurrency=2, lease=float(sys.argv[3]), grace=1).run()
"""


def _size(seconds: float) -> int:
    """Return how many letters keep this machine's interpreter for at least ``seconds``."""
    size, took = 18, 0.0
    while took < seconds:
        size += 1
        begun = time.perf_counter()
        re.match(r"(a+)+$", "a" * size + "b")
        took = time.perf_counter() - begun
    return size


@pytest.fixture(params=["redis", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def queues(url: str) -> Iterator[QueueManager]:
    with QueueManager(url, namespace=uuid4().hex) as manager:
        yield manager


def _children(pid: int) -> list[int]:
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split(None, 1) for line in found.stdout.splitlines()]
    return [int(row[0]) for row in rows if row[1:] != ["ps"]]


def test_job_that_holds_the_interpreter_past_its_lease_is_kept(url: str, queues: QueueManager) -> None:
    size = _size(2.5)
    with Worker(JOBS, url, queues.namespace, 1.0) as worker:
        wait_until(lambda: queues.backlog().workers == 1, 30)
        job = queues.enqueue("hold", size)
        worker.wait_for("start", 20)
        station = Station(queues, "hold")  # it would get the job with the lease's end
        while not job.info().is_finished:
            assert station.take() == []
            time.sleep(0.05)
        assert (job.info().state, job.info().crashes) == (JobState.COMPLETED, 0)
        worker.wait_for("stood still", 10)
    assert sum(s.stalled for s in queues.status()) == 0


def test_guard_covers_no_worker_that_is_suspended(redis_url: str) -> None:
    # not on SQLite: suspended in a transaction, the worker would keep the whole file locked
    with QueueManager(redis_url, namespace=uuid4().hex) as queues:  # noqa: SIM117 - the order matters
        with Worker(JOBS, redis_url, queues.namespace, 1.0) as worker:
            wait_until(lambda: queues.backlog().workers == 1, 30)
            queues.enqueue("nap", 60.0)
            worker.wait_for("start", 20)
            worker.sigstop()
            station = Station(queues, "nap", lease_s=0.5)
            (lease,) = wait_until(station.take, 30)
            assert station.end(lease)
            worker.sigcont()


def test_guard_covers_no_worker_that_is_dead(url: str, queues: QueueManager) -> None:
    with Worker(JOBS, url, queues.namespace, 1.0) as worker:
        wait_until(lambda: queues.backlog().workers >= 1, 30)
        queues.enqueue("nap", 60.0)
        worker.wait_for("start", 20)
        pid = worker.pid
        guards = _children(pid)
        assert guards
        worker.kill9()
        (lease,) = wait_until(Station(queues, "nap", lease_s=5).take, 30)
        assert lease.crashes == 1
        wait_until(lambda: not any(Path(f"/proc/{g}").exists() for g in guards), 30, what="the guard to end")


def test_worker_whose_guard_was_killed_works_on_and_says_so(url: str, queues: QueueManager) -> None:
    with Worker(JOBS, url, queues.namespace, 1.0) as worker:
        wait_until(lambda: queues.backlog().workers == 1, 30)
        for guard in _children(worker.pid):
            os.kill(guard, 9)
        jobs = queues.enqueue_many("nap", [0.5] * 4)
        wait_until(lambda: all(job.info().is_finished for job in jobs), 20)
        worker.wait_for("guard has gone", 10)


def test_nothing_is_left_of_a_guard_after_the_run(url: str, queues: QueueManager) -> None:
    @queues.job("t")
    async def t(ctx: object, data: None) -> None: ...

    before = set(_children(os.getpid()))
    worker = queues.worker(max_age=0.8, lease=0.9)
    worker.run()
    assert set(_children(os.getpid())) <= before
