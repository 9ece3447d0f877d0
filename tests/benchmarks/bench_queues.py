"""Queues beside named peers and the floors of the same run, with targets and verdicts.

The floor is a bare redis-py stream loop (XREADGROUP, XACK, XDEL) with no retry, lease or result. Peers run in
a process of their own each (``queues_peers.py``); one that is not installed is printed as absent. Crashes,
restarts and promotions are tests, not benchmarks: ``tests/integration/queues``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis.asyncio
from queues_peers import NAMES

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


async def latency_floor(url: str, n: int = 200) -> dict[str, float]:
    """The same with RPUSH and a blocked BLPOP."""
    late = list[float]()

    async def consume() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            while len(late) < n:
                found = await client.blpop(["l"], timeout=2)
                if found is not None:
                    late.append((time.time() - float(found[1])) * 1e3)

    running = asyncio.create_task(consume())
    async with redis.asyncio.Redis.from_url(url) as client:
        await asyncio.sleep(0.3)
        for _ in range(n):
            await client.rpush("l", time.time())
            await asyncio.sleep(0.02)
        await running
    late.sort()
    return {"p50_ms": late[len(late) // 2], "p99_ms": late[int(len(late) * 0.99)]}


async def share(url: str, n: int, concurrency: int, sleep_s: float) -> dict[str, float]:
    """Part of the ideal rate that jobs of a fixed length reach."""
    queues, marks = manager(url), list[float]()

    @queues.job("nap")
    async def nap(ctx: Any, data: int) -> None:
        marks.append(time.perf_counter())
        await asyncio.sleep(sleep_s)
        marks.append(time.perf_counter())

    await queues.aenqueue_many("nap", range(n))
    await queues.worker(concurrency=concurrency).arun(burst=True)
    await queues.aclose()
    return {"share": n / concurrency * sleep_s / (max(marks) - min(marks))}


async def single(url: str, n: int = 3000) -> dict[str, float]:
    """One awaited call each, 20 in flight."""
    queues, numbers = manager(url), iter(range(n))
    await queues.astatus()

    async def send() -> None:
        for i in numbers:
            await queues.aenqueue("noop", ["n", i])

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(20)))
    took = time.perf_counter() - began
    await queues.aclose()
    return {"enqueue_s": n / took}


def size(url: str, n: int = 30_000) -> dict[str, float]:
    """Bytes of Redis a small waiting job."""
    client = redis.Redis.from_url(url)
    with manager(url) as queues:
        queues.status()
        before = client.info("memory")["used_memory"]
        queues.enqueue_many("noop", [["n", i] for i in range(n)])
        bytes_ = (client.info("memory")["used_memory"] - before) / n
    client.close()
    return {"bytes": bytes_}


async def punctuality(url: str, n: int = 1000) -> dict[str, float]:
    """Jobs due in 1 to 5 seconds: milliseconds late."""
    queues, late, rng = manager(url), list[float](), random.Random(1)

    @queues.job("due")
    async def due(ctx: Any, data: float) -> None:
        late.append((time.time() - data) * 1e3)

    running = asyncio.create_task((worker := queues.worker(concurrency=100)).arun())
    await asyncio.sleep(0.3)
    base = time.time() + 1
    for _ in range(n):
        at = base + rng.random() * 4
        await queues.aenqueue("due", at, at=at)
    while len(late) < n:
        await asyncio.sleep(0.05)
    worker.stop()
    await running
    await queues.aclose()
    late.sort()
    return {"p50_ms": late[n // 2], "p99_ms": late[int(n * 0.99)], "earliest_ms": late[0]}


async def tenants(url: str, big: int = 100_000) -> dict[str, float]:
    """How much longer small tenants (99 with 10 jobs) take beside one with ``big`` than alone."""

    async def small_ones(beside: int) -> float:
        queues, ends, starts = manager(url), list[float](), list[float]()

        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            starts.append(time.perf_counter())
            await asyncio.sleep(0.001)
            if ctx.fairness_key != "big":
                ends.append(time.perf_counter())

        if beside:
            await queues.aenqueue_many("t", range(beside), fairness_key="big")
        for n in range(99):
            await queues.aenqueue_many("t", range(10), fairness_key=f"small-{n}")
        running = asyncio.create_task((worker := queues.worker(concurrency=10)).arun())
        while len(ends) < 990:
            await asyncio.sleep(0.005)
        worker.stop()
        await running
        await queues.aclose()
        return max(ends) - min(starts)

    alone = await small_ones(0)
    return {"times": await small_ones(big) / alone}


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
        for start in range(0, n, 100_000):
            queues.enqueue_many("t", range(start, start + 100_000))
        times = []
        for _ in range(50):
            began = time.perf_counter()
            rows = queues.status()
            times.append((time.perf_counter() - began) * 1e3)
        assert sum(row.waiting for row in rows) == n
    return {"jobs": n, "p50_ms": statistics.median(times)}


def peer(name: str, url: str, jobs: int, concurrency: int, sleep_ms: float) -> dict[str, float] | None:
    """Run one peer; ``None`` when it is absent or does not get through in a minute."""
    command = [sys.executable, str(Path(__file__).with_name("queues_peers.py"))]
    command += [name, url, str(jobs), str(concurrency), str(sleep_ms)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name:<14}not through in a minute", flush=True)
        return None
    if ran.returncode:
        why = (ran.stderr.strip().splitlines() or ["?"])[-1]
        print(f"{name:<14}absent: {why}", flush=True)
        return None
    found: dict[str, float] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def beside(rows: dict[str, Any]) -> None:
    """Run every peer: 2,000 no-ops at concurrency 100, 100 jobs of 20 ms at concurrency 10."""
    for name in NAMES:
        quick = on_server(lambda url, n=name: peer(n, url, 2000, 100, 0))
        if quick is not None:
            naps = on_server(lambda url, n=name: peer(n, url, 100, 10, 20))
            rows[name] = [{**quick, "share": naps["drain_s"] / 500 if naps else 0.0}]


def verdicts(rows: dict[str, dict[str, float]]) -> list[tuple[str, str, str, bool]]:
    """Compare the medians with the targets: row, measured, target, met."""
    ours, floor = rows["redis"], rows["stream floor"]
    at_least_once = [rows[n]["drain_s"] for n in NAMES if n in rows and n != "huey"]
    best = max(at_least_once, default=float("nan"))
    solo = rows["single"]["enqueue_s"]
    singles = [rows[n]["enqueue_s"] for n in NAMES if n in rows and n not in ("bullmq", "huey")]
    bulk = rows["bullmq"]["enqueue_s"] if "bullmq" in rows else float("nan")
    naps, brief = rows["20 ms x 10"]["share"], rows["5 ms x 100"]["share"]
    light, light_floor, due = rows["light load"], rows["light floor"], rows["due"]
    urgent = rows["urgency"]["last_critical_ms"] / rows["urgency"]["ideal_ms"]

    def row(name: str, value: float, unit: str, target: float, *, most: bool = False) -> Any:
        good = value <= target if most else value >= target
        return name, f"{value:,.3g}{unit}", f"{'<=' if most else '>='} {target:g}{unit}", good

    return [
        row("Q1 times the best at-least-once peer", ours["drain_s"] / best, " x", 10),
        row("Q1 share of the stream floor", 100 * ours["drain_s"] / floor["drain_s"], " %", 45),
        row("Q1 worker CPU a job", ours["worker_cpu_ms"], " ms", 0.04, most=True),
        row("Q2 bulk enqueue against bullmq", ours["enqueue_bulk_s"] / bulk, " x", 5),
        row("Q2 single enqueue against the best", solo / max(singles, default=float("nan")), " x", 1.5),
        row("Q2 bytes a waiting job", rows["size"]["bytes"], " B", 250, most=True),
        row("Q3 share of ideal, 20 ms x 10", 100 * naps, " %", 97),
        row("Q3 share of ideal, 5 ms x 100", 100 * brief, " %", 90),
        row("Q4 p50 against the floor", light["p50_ms"] / light_floor["p50_ms"], " x", 1.3, most=True),
        row("Q4 p99", light["p99_ms"], " ms", max(5.0, 1.5 * light_floor["p99_ms"]), most=True),
        row("Q7 criticals against ideal", urgent, " x", 1.3, most=True),
        row("Q8 p50 late", due["p50_ms"], " ms", 1, most=True),
        row("Q8 p99 late", due["p99_ms"], " ms", 10, most=True),
        row("Q8 earliest", due["earliest_ms"], " ms", 0),
        row("Q9 all counts", rows["status"]["p50_ms"], " ms", 1, most=True),
        row("Q10 small tenants beside a big one", rows["tenants"]["times"], " x", 2, most=True),
        row("Q12 memory drain", rows["memory"]["drain_s"], " /s", 100_000),
    ]  # fmt: skip


def main(argv: list[str]) -> int:
    """Run all, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="bench queues", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--waiting", type=int, default=1_000_000, help="jobs that wait while counts are read")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", help="also write the results to this file")
    args = parser.parse_args(argv)
    rows: dict[str, Any] = {}

    def measure(name: str, run: Callable[[str], Any]) -> None:
        rows.setdefault(name, []).append(on_server(run))
        print(".", end="", flush=True)

    def ameasure(name: str, run: Callable[[str], Awaitable[Any]]) -> None:
        measure(name, lambda url: asyncio.run(_main(run(url))))

    for _ in range(args.repeat):
        ameasure("stream floor", lambda url: stream_floor(url, args.jobs, args.concurrency))
        measure("redis", lambda url: drain(url, args.jobs, args.concurrency))
        rows.setdefault("memory", []).append(drain("memory://", args.jobs, args.concurrency))
        ameasure("single", single)
        ameasure("20 ms x 10", lambda url: share(url, 1000, 10, 0.02))
        ameasure("5 ms x 100", lambda url: share(url, 10_000, 100, 0.005))
        ameasure("light floor", latency_floor)
        ameasure("light load", latency)
        ameasure("urgency", urgency)
        ameasure("due", punctuality)
    measure("size", size)
    measure("status", lambda url: counts(url, args.waiting))
    ameasure("tenants", tenants)
    print()
    if not args.no_peers:
        beside(rows)
    for name, runs in rows.items():
        middle = {k: round(statistics.median(run[k] for run in runs), 3) for k in runs[0]}
        rows[name] = middle
        print(f"{name:<14}" + "  ".join(f"{k} {v:,}" for k, v in middle.items()))
    found = verdicts(rows)
    for name, value, target, good in found:
        print(f"{'met   ' if good else 'MISSED'}  {name:<40}{value:>14}   target {target}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"rows": rows, "verdicts": found}, file, indent=1)
    return 0


async def _main(work: Awaitable[Any]) -> Any:
    return await work


def on_server(run: Callable[[str], Any]) -> Any:
    """Give ``run`` the URL of a server of its own."""
    server = RedisServer().start()
    try:
        return run(server.url)
    finally:
        server.close()
