"""Queues against the floors of the same run: drain, enqueue, light-load latency, urgency, counts.

The floor is a bare redis-py stream loop (XREADGROUP, XACK, XDEL) with no retry, lease or result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import redis.asyncio

from eventperf.queues import QueueManager
from servers import RedisServer


def manager(url: str) -> QueueManager:
    """Return a manager on a namespace of its own."""
    return QueueManager(url, namespace=uuid4().hex)


def drain(url: str, n: int, concurrency: int) -> dict[str, float]:
    """Enqueue ``n`` no-ops in bulk, then run them; jobs per second, first start to last end."""
    queues, marks = manager(url), [0.0, 0.0, 0]

    @queues.job("noop")
    async def noop(ctx: Any, data: list[Any]) -> None:
        if not marks[2]:
            marks[0] = time.perf_counter()
        marks[2] += 1
        if marks[2] == n:
            marks[1] = time.perf_counter()
            worker.stop()

    began = time.perf_counter()
    queues.enqueue_many("noop", [["n", i] for i in range(n)])
    enqueued = time.perf_counter() - began
    worker, cpu = queues.worker(concurrency=concurrency), time.process_time()
    worker.run()
    cpu = time.process_time() - cpu
    queues.close()
    return {
        "enqueue_bulk_s": n / enqueued,
        "drain_s": n / (marks[1] - marks[0]),
        "worker_cpu_ms": cpu / n * 1e3,
    }


async def stream_floor(url: str, n: int, concurrency: int) -> dict[str, float]:
    """The same with a bare consumer group."""
    client = redis.asyncio.Redis.from_url(url)
    for start in range(0, n, 1000):
        async with client.pipeline(transaction=False) as pipe:
            for i in range(start, min(n, start + 1000)):
                pipe.xadd("floor", {"d": json.dumps(["n", i])})
            await pipe.execute()
    await client.xgroup_create("floor", "g", "0")
    began, done = time.perf_counter(), 0

    async def one(data: bytes) -> None:
        json.loads(data)

    while done < n:
        for _, messages in await client.xreadgroup("g", "c", {"floor": ">"}, count=concurrency):
            await asyncio.gather(*[one(fields[b"d"]) for _, fields in messages])
            ids = [i for i, _ in messages]
            async with client.pipeline(transaction=False) as pipe:
                pipe.xack("floor", "g", *ids)
                pipe.xdel("floor", *ids)
                await pipe.execute()
            done += len(messages)
    took = time.perf_counter() - began
    await client.delete("floor")
    await client.aclose()
    return {"drain_s": n / took}


async def latency(url: str, n: int = 200) -> dict[str, float]:
    """50 jobs a second: milliseconds from enqueue to start."""
    queues, late = manager(url), list[float]()

    @queues.job("mark")
    async def mark(ctx: Any, data: float) -> None:
        late.append((time.time() - data) * 1e3)

    worker = queues.worker(concurrency=10)
    running = asyncio.create_task(worker.arun())
    await asyncio.sleep(0.3)
    for _ in range(n):
        await queues.aenqueue("mark", time.time())
        await asyncio.sleep(0.02)
    worker.stop()
    await running
    await queues.aclose()
    late.sort()
    return {"p50_ms": late[len(late) // 2], "p99_ms": late[int(len(late) * 0.99)]}


async def urgency(url: str) -> dict[str, float]:
    """100 criticals behind 5,000 lows of 5 ms on 10 slots; the ideal is 50 ms."""
    queues, ends = manager(url), list[float]()

    async def nap(ctx: Any, data: int) -> None:
        await asyncio.sleep(0.005)
        if ctx.queue == "critical":
            ends.append(time.perf_counter())

    queues.job("nap")(nap)
    await queues.aenqueue_many("nap", range(5000), queue="low")
    worker = queues.worker(concurrency=10)
    running = asyncio.create_task(worker.arun())
    await asyncio.sleep(0.3)
    began = time.perf_counter()
    await queues.aenqueue_many("nap", range(100), queue="critical")
    while len(ends) < 100:
        await asyncio.sleep(0.001)
    worker.stop()
    await running
    await queues.aclose()
    return {"last_critical_ms": (max(ends) - began) * 1e3, "ideal_ms": 50.0}


def counts(url: str, n: int) -> dict[str, float]:
    """The status call with ``n`` jobs waiting."""
    with manager(url) as queues:
        queues.enqueue_many("t", range(n))
        times = []
        for _ in range(50):
            began = time.perf_counter()
            rows = queues.status()
            times.append((time.perf_counter() - began) * 1e3)
        assert sum(row.waiting for row in rows) == n
    return {"jobs": n, "p50_ms": statistics.median(times)}


def main(argv: list[str]) -> int:
    """Run all, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="bench queues", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="also write the results to this file")
    args = parser.parse_args(argv)
    rows: dict[str, Any] = {}
    for turn in range(args.repeat):
        _measure(
            rows, "stream floor", lambda url: asyncio.run(stream_floor(url, args.jobs, args.concurrency))
        )
        _measure(rows, "redis", lambda url: drain(url, args.jobs, args.concurrency))
        rows.setdefault("memory", []).append(drain("memory://", args.jobs, args.concurrency))
        print(f"turn {turn + 1} of {args.repeat}", flush=True)
    _measure(rows, "light load", lambda url: asyncio.run(latency(url)))
    _measure(rows, "urgency", lambda url: asyncio.run(urgency(url)))
    _measure(rows, "status", lambda url: counts(url, 100_000))
    for name, runs in rows.items():
        middle = {k: round(statistics.median(run[k] for run in runs), 3) for k in runs[0]}
        rows[name] = middle
        print(f"{name:<14}" + "  ".join(f"{k} {v:,}" for k, v in middle.items()))
    print(f"share of the stream floor: {rows['redis']['drain_s'] / rows['stream floor']['drain_s']:.0%}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)
    return 0


def _measure(
    rows: dict[str, Any], name: str, run: Callable[[str], dict[str, float] | Awaitable[Any]]
) -> None:
    server = RedisServer().start()
    try:
        rows.setdefault(name, []).append(run(server.url))
    finally:
        server.close()
