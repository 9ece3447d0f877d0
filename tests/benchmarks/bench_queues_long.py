"""Queues over time: workers killed again and again, a million future jobs, an idle worker, shares by weight.

Seeded, so that a run that found something can be run again: ``--first-seed``. Prints what was measured beside
the target.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any
from uuid import uuid4

from eventperf.queues import JobState, QueueConfig, QueueManager
from servers import RedisServer

JOBS, SLEEP_S, SLOTS, LEASE_S = 2000, 0.02, 20, 2.0

WORKER = f"""
import asyncio, os, sys, time
import redis.asyncio
from eventperf.queues import QueueManager

queues = QueueManager(sys.argv[1], namespace=sys.argv[2])
notes = redis.asyncio.Redis.from_url(sys.argv[1])

@queues.job("nap")
async def nap(ctx, data):
    await notes.rpush("starts", f"{{ctx.job_id}} {{time.time()}} {{os.getpid()}}")
    await asyncio.sleep({SLEEP_S})

queues.worker(concurrency={SLOTS}, lease={LEASE_S}).run()
"""


def killed(url: str, seed: int) -> dict[str, float]:
    """SIGKILL the worker three times while 2,000 jobs run, and once more when the queue has gone idle."""
    rng, name = random.Random(seed), uuid4().hex
    server_notes = _client(url)
    with QueueManager(url, namespace=name) as queues:
        ends = Counter[str]()
        jobs = queues.enqueue_many("nap", range(JOBS))
        kills = list[float]()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", WORKER, url, name], stderr=subprocess.DEVNULL)

        worker = start()
        for _ in range(3):
            while not server_notes.llen("starts"):
                time.sleep(0.01)
            time.sleep(rng.uniform(0.2, 0.6))
            worker.kill()
            worker.wait()
            kills.append(time.time())
            worker = start()
        _until(lambda: _done(queues) == JOBS)
        # The queue is idle but for one job whose worker dies; another worker is there with nothing to do.
        idle = start()
        time.sleep(0.5)
        before = server_notes.llen("starts")
        last = queues.enqueue("nap", JOBS)
        _until(lambda: server_notes.llen("starts") > before)
        holder = int(server_notes.lindex("starts", -1).split()[2])
        os.kill(holder, 9)
        kills.append(time.time())
        _until(lambda: last.info().state is JobState.COMPLETED)
        worker.kill()
        idle.kill()
        worker.wait()
        idle.wait()
        starts: dict[str, list[float]] = {}
        for line in server_notes.lrange("starts", 0, -1):
            job, at, _ = line.decode().split()
            starts.setdefault(job, []).append(float(at))
        late = list[float]()
        for times in starts.values():
            for first, again in itertools.pairwise(times):
                ends["repeats"] += 1
                late.append(again - min(k for k in kills if k >= first))
        rows = {row.name: row for row in queues.status()}
        lost = JOBS + 1 - sum(row.completed for row in rows.values())
        assert sum(job.info().state is JobState.COMPLETED for job in jobs[-100:]) == 100
    server_notes.close()
    return {
        "lost": lost,
        "finishes_too_many": max(0, -lost),
        "repeats": ends["repeats"],
        "again_after_s": statistics.median(late),
        "again_after_most_s": max(late),
    }


def _done(queues: QueueManager) -> int:
    return sum(row.completed for row in queues.status())


def _client(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url)


def _until(holds: Any, within_s: float = 120.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("not within two minutes")
        time.sleep(0.02)


def crowded(url: str, future: int) -> dict[str, float]:
    """Drain no-ops with nothing else there, then beside ``future`` jobs that are due tomorrow."""

    def drain(queues: QueueManager, n: int = 20_000) -> float:
        seen = [0.0, 0.0, 0]

        @queues.job("noop")
        async def noop(ctx: Any, data: int) -> None:
            seen[0] = seen[0] or time.perf_counter()
            seen[2] += 1
            seen[1] = time.perf_counter()

        queues.enqueue_many("noop", range(n))
        queues.worker(concurrency=100).run(burst=True)
        assert seen[2] == n
        return n / (seen[1] - seen[0])

    alone, beside = list[float](), list[float]()
    with QueueManager(url, namespace="crowd") as full:
        for start in range(0, future, 50_000):
            full.enqueue_many("later", range(start, start + 50_000), delay="1d")
        for _ in range(5):  # in turn, so that a slow minute slows both
            with QueueManager(url, namespace=f"alone{uuid4().hex}") as queues:
                alone.append(drain(queues))
            with QueueManager(url, namespace="crowd") as queues:
                beside.append(drain(queues))
    one, other = statistics.median(alone), statistics.median(beside)
    return {"alone_s": one, "beside_s": other, "slower_pct": 100 * (1 - other / one)}


def idle(url: str, seconds: float = 20.0) -> dict[str, float]:
    """Commands that a worker of four idle queues sends; what scripts call inside is not counted."""
    queues = QueueManager(url, namespace=uuid4().hex)

    @queues.job("noop")
    async def noop(ctx: Any, data: int) -> None: ...

    worker = queues.worker()
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(3)
    seen = Counter[str]()
    with _client(url) as watching, watching.monitor() as monitor:
        end = time.monotonic() + seconds
        monitor.connection._sock.settimeout(seconds)
        while time.monotonic() < end:
            try:
                command = monitor.next_command()
            except Exception:
                break
            if command["client_type"] != "lua":
                seen[command["command"].split()[0].upper()] += 1
    worker.stop()
    thread.join()
    queues.close()
    return {"commands_a_second": sum(seen.values()) / seconds}


async def shares(url: str, seconds: float = 10.0) -> dict[str, float]:
    """Four queues with weights 4, 3, 2 and 1 and always work in each: the part each one gets."""
    weights = {"a": 4, "b": 3, "c": 2, "d": 1}
    queues = QueueManager(
        url, namespace=uuid4().hex, order="weighted",
        queues=[QueueConfig(name=name, weight=weight) for name, weight in weights.items()],
    )  # fmt: skip
    ran = Counter[str]()

    @queues.job("nap", queue="a")
    async def nap(ctx: Any, data: int) -> None:
        ran[ctx.queue] += 1
        await asyncio.sleep(0.005)

    for name in weights:
        await queues.aenqueue_many("nap", range(int(seconds * 2500)), queue=name)
    worker = queues.worker(concurrency=10)
    running = asyncio.create_task(worker.arun())
    await asyncio.sleep(seconds)
    counted = dict(ran)
    worker.stop()
    await running
    await queues.aclose()
    total = sum(counted.values())
    off = {name: 100 * abs(counted[name] / total / (weight / 10) - 1) for name, weight in weights.items()}
    return {"jobs": total, "worst_off_pct": max(off.values())}


def main(argv: list[str]) -> int:
    """Run all, print each beside its target."""
    parser = argparse.ArgumentParser(prog="bench queues_long", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="runs with killed workers")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--future", type=int, default=1_000_000)
    parser.add_argument("--json", help="also write the results to this file")
    args = parser.parse_args(argv)

    def on_server(run: Any) -> dict[str, float]:
        with RedisServer() as server:
            found: dict[str, float] = run(server.url)
            return found

    rows: dict[str, Any] = {"killed": []}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        row = on_server(lambda url, s=seed: killed(url, s))
        print(f"seed {seed}: " + "  ".join(f"{k} {v:,.3f}" for k, v in row.items()), flush=True)
        rows["killed"].append(row)
    rows["idle"] = on_server(idle)
    rows["shares"] = on_server(lambda url: asyncio.run(shares(url)))
    rows["future"] = on_server(lambda url: crowded(url, args.future))
    kills = rows["killed"]
    again = statistics.median(k["again_after_s"] for k in kills)
    most = max(k["again_after_most_s"] for k in kills)
    for name, value, target in (
        ("Q5 lost", sum(k["lost"] for k in kills), 0),
        ("Q5 finishes beyond one a job", sum(k["finishes_too_many"] for k in kills), 0),
        ("Q5 run again after, s (lease 2 s)", again, LEASE_S + 0.3),
        ("Q5 at most, s", most, LEASE_S + 1),
        ("Q4 idle, commands a second", rows["idle"]["commands_a_second"], 1),
        ("Q7 weighted shares off by, %", rows["shares"]["worst_off_pct"], 5),
        ("Q8 slower beside future jobs, %", rows["future"]["slower_pct"], 5),
    ):
        print(f"{'met   ' if value <= target else 'MISSED'}  {name:<40}{value:>10.3f}   target <= {target:g}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)
    return 0
