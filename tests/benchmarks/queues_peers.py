"""One peer in a process of its own: ``python queues_peers.py dramatiq redis://... 3000 100 0``.

Arguments: name, URL, jobs, concurrency, milliseconds a job sleeps. Prints JSON: jobs per second enqueued (one
call each, 20 in flight where the peer is asynchronous) and drained, first start to last end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

NAMES = ("dramatiq", "taskiq", "saq", "arq", "bullmq", "huey", "celery", "rq", "streaq")

URL, JOBS, CONCURRENCY, SLEEP_S = "", 0, 0, 0.0
_marks = [0.0, 0.0, 0]
_mu = threading.Lock()
_all_done = threading.Event()


def _begin() -> None:
    if not _marks[0]:
        _marks[0] = time.perf_counter()


def _end() -> None:
    with _mu:
        _marks[2] += 1
        if _marks[2] == JOBS:
            _marks[1] = time.perf_counter()
            _all_done.set()


async def body(n: int) -> None:
    _begin()
    if SLEEP_S:
        await asyncio.sleep(SLEEP_S)
    _end()


def sync_body(n: int) -> None:
    _begin()
    if SLEEP_S:
        time.sleep(SLEEP_S)
    _end()


async def _each(send: Callable[[int], Any]) -> float:
    numbers, began = iter(range(JOBS)), time.perf_counter()

    async def sender() -> None:
        for n in numbers:
            await send(n)

    await asyncio.gather(*(sender() for _ in range(20)))
    return JOBS / (time.perf_counter() - began)


async def _until_done() -> None:
    while not _all_done.is_set():
        await asyncio.sleep(0.01)


def dramatiq() -> float:
    import dramatiq as lib
    from dramatiq.brokers.redis import RedisBroker

    broker: Any = RedisBroker(url=URL)
    lib.set_broker(broker)
    actor = lib.actor(sync_body, actor_name="t")
    began = time.perf_counter()
    for n in range(JOBS):
        actor.send(n)
    rate = JOBS / (time.perf_counter() - began)
    lib.Worker(broker, worker_threads=min(CONCURRENCY, 10)).start()
    _all_done.wait()
    return rate


def huey() -> float:
    from huey import RedisHuey

    queue = RedisHuey("bench", url=URL, results=False)
    task = queue.task(name="t")(sync_body)
    began = time.perf_counter()
    for n in range(JOBS):
        task(n)
    rate = JOBS / (time.perf_counter() - began)
    consumer = queue.create_consumer(workers=min(CONCURRENCY, 10), worker_type="thread")
    consumer.start()
    _all_done.wait()
    return rate


async def taskiq() -> float:
    from taskiq.api import run_receiver_task
    from taskiq_redis import RedisStreamBroker

    broker: Any = RedisStreamBroker(URL)
    task = broker.task(task_name="t")(body)
    await broker.startup()
    rate = await _each(lambda n: task.kiq(n))
    broker.is_worker_process = True
    running = asyncio.ensure_future(run_receiver_task(broker, max_async_tasks=CONCURRENCY, run_startup=False))
    await _until_done()
    running.cancel()
    return rate


async def saq() -> float:
    from saq import Queue, Worker

    queue = Queue.from_url(URL)
    await queue.connect()

    async def t(ctx: Any, *, n: int) -> None:
        await body(n)

    rate = await _each(lambda n: queue.enqueue("t", n=n))
    worker: Any = Worker(queue, [("t", t)], concurrency=CONCURRENCY)
    worker.SIGNALS = []
    running = asyncio.ensure_future(worker.start())
    await _until_done()
    running.cancel()
    return rate


async def arq() -> float:
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker, func

    settings = RedisSettings.from_dsn(URL)
    pool = await create_pool(settings)

    async def t(ctx: Any, n: int) -> None:
        await body(n)

    rate = await _each(lambda n: pool.enqueue_job("t", n))
    worker = Worker([func(t, name="t")], redis_settings=settings, max_jobs=CONCURRENCY, handle_signals=False)
    running = asyncio.ensure_future(worker.main())
    await _until_done()
    running.cancel()
    return rate


async def bullmq() -> float:
    from bullmq import Queue, Worker

    queue: Any = Queue("bench", {"connection": URL})
    keep = {"removeOnComplete": {"count": 100}}
    began = time.perf_counter()
    for start in range(0, JOBS, 1000):
        part = range(start, min(JOBS, start + 1000))
        await queue.addBulk([{"name": "t", "data": {"n": n}, "opts": keep} for n in part])
    rate = JOBS / (time.perf_counter() - began)

    async def process(job: Any, token: str) -> None:
        await body(job.data["n"])

    Worker("bench", process, {"connection": URL, "concurrency": CONCURRENCY, **keep})
    await _until_done()
    return rate


def celery() -> float:
    from celery import Celery

    app = Celery("bench", broker=URL)
    app.conf.update(task_ignore_result=True, task_acks_late=True, worker_redirect_stdouts=False)
    task = app.task(name="t")(sync_body)
    began = time.perf_counter()
    with app.amqp.producer_pool.acquire(block=True) as producer:
        for n in range(JOBS):
            task.apply_async((n,), producer=producer)
    rate = JOBS / (time.perf_counter() - began)

    def report() -> None:  # its worker wants the main thread, and does not give it back
        _all_done.wait()
        _report(rate)

    threading.Thread(target=report).start()
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "CRITICAL"]
    app.worker_main(["worker", "-P", "threads", "-c", str(min(CONCURRENCY, 10)), *quiet])
    return rate


def rq() -> float:
    from redis import Redis
    from rq import Queue, SimpleWorker

    connection = Redis.from_url(URL)
    queue = Queue("bench", connection=connection)
    began = time.perf_counter()
    for n in range(JOBS):
        queue.enqueue("__main__.sync_body", n)
    rate = JOBS / (time.perf_counter() - began)
    SimpleWorker([queue], connection=connection).work(
        burst=True, logging_level="CRITICAL"
    )  # one job at a time
    return rate


async def streaq() -> float:
    from streaq import Worker

    worker: Any = Worker(redis_url=URL, concurrency=CONCURRENCY, handle_signals=False)
    task = worker.task(name="t", silent=True)(body)
    async with worker:
        rate = await _each(lambda n: task.enqueue(n))
    running = asyncio.ensure_future(worker.run_async())
    await _until_done()
    running.cancel()
    return rate


def _report(rate: float) -> None:
    """Print what was measured and end: workers of some peers cannot be stopped from outside."""
    print(json.dumps({"enqueue_s": rate, "drain_s": JOBS / (_marks[1] - _marks[0])}), flush=True)
    os._exit(0)


def main(argv: list[str]) -> int:
    """Run one peer and print its figures; exit code 3 when it cannot be imported."""
    global URL, JOBS, CONCURRENCY, SLEEP_S
    URL, JOBS, CONCURRENCY, SLEEP_S = argv[1], int(argv[2]), int(argv[3]), float(argv[4]) / 1000
    logging.disable(logging.ERROR)
    peers: dict[str, Callable[[], Any]] = {
        "dramatiq": dramatiq, "taskiq": taskiq, "saq": saq, "arq": arq, "bullmq": bullmq, "huey": huey,
        "celery": celery, "rq": rq, "streaq": streaq,
    }  # fmt: skip
    try:
        peer = peers[argv[0]]
        rate = asyncio.run(peer()) if asyncio.iscoroutinefunction(peer) else peer()
    except ImportError as error:
        print(error, file=sys.stderr)
        return 3
    _report(rate)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
