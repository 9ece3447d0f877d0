"""A stop takes the time that was asked for, whatever handlers and hooks do: the process ends by itself."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from eventperf.queues import JobState, QueueManager
from faults import Worker, wait_until

PROGRAM = """
import asyncio, concurrent.futures, sys, threading, time
from eventperf.queues import QueueManager
from eventperf.queues.working import closing, runs

closing.LAST_S, closing._HEED_S, runs._STOPS_WITHIN_S = 1.0, 0.2, 0.2  # shorter, not others
queues, kind = QueueManager(sys.argv[1], namespace=sys.argv[2]), sys.argv[3]

def begun():
    print("begun", flush=True)

async def deaf(ctx, data):
    begun()
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass

async def blocked(ctx, data):
    begun()
    time.sleep(600)

async def busy(ctx, data):
    begun()
    while True:
        pass

def hung(ctx, data):
    begun()
    time.sleep(600)

async def to_thread(ctx, data):
    begun()
    await asyncio.to_thread(time.sleep, 600)

async def starts_task(ctx, data):
    asyncio.ensure_future(deaf(ctx, data))
    await asyncio.sleep(0.05)

async def generator(ctx, data):
    async def endless():
        try:
            yield 1
        finally:
            await asyncio.sleep(600)
    made = endless()
    globals()["kept"] = made
    await made.__anext__()
    begun()

def thread(ctx, data):
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    begun()

def pool(ctx, data):
    concurrent.futures.ThreadPoolExecutor(1).submit(time.sleep, 600)
    begun()

async def hook(ctx, data):
    begun()

if kind == "hook":
    @queues.on_shutdown
    async def down(state):
        await asyncio.sleep(600)

queues.job(kind, attempts=1)(globals()[kind])
queues.worker(concurrency=2, grace=0.2, lease=2.0).run()
"""
GO_ON = "blocked", "busy", "hung"
HELD = "deaf", "to_thread", *GO_ON
ENDED = "starts_task", "generator", "thread", "pool", "hook"


@pytest.fixture
def queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace=uuid4().hex) as manager:
        yield manager


@pytest.mark.parametrize("kind", [*HELD, *ENDED])
def test_a_process_that_is_told_to_stop_ends_whatever_its_handlers_do(
    queues: QueueManager, redis_url: str, kind: str
) -> None:
    job = queues.enqueue(kind)
    with Worker(PROGRAM, redis_url, queues.namespace, kind) as worker:
        worker.wait_for("begun")
        if kind in ENDED:
            wait_until(lambda: job.info().state is JobState.COMPLETED, 30)
        worker.terminate()
        worker.wait(60)
    back = JobState.WAITING, JobState.DELAYED  # until the process has gone
    assert job.info().state in (back if kind in HELD else (JobState.COMPLETED,)), "handed back at once"
    assert job.info().attempt <= 1, "and no attempt is counted"
    if kind in GO_ON:
        assert "process ended" in (job.info().error or ""), "not to be started before it has"
    assert sum(s.stalled for s in queues.status()) == 0, "nobody takes it for a crash"
