"""Queues in SQL databases beside procrastinate on the same PostgreSQL, and the outbox relay.

    nox -s bench -- queues_sql --peer /path/to/venv/bin/python

``--peer`` names an interpreter that has procrastinate and psycopg; without it that row is missing.
One worker process each, no-ops, concurrency 100; medians of ``--rounds`` runs that take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import create_engine

from eventperf.queues import QueueManager
from eventperf.queues.outbox import Relay, create_table
from servers import MariaDBServer, PostgresServer, RedisServer

Figures = dict[str, float]

PEER = """
import asyncio, json, sys, time
import procrastinate
info, n, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=info, max_size=20))
marks = []
@app.task(name="noop")
async def noop(kind, n):
    marks.append(time.perf_counter())
    if len(marks) == total:
        done.set()
async def main():
    global done, total
    total, done = n, asyncio.Event()
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began = time.perf_counter()
        for _ in range(200):
            await noop.defer_async(kind="n", n=0)
        single = 200 / (time.perf_counter() - began)
        began = time.perf_counter()
        for start in range(0, n - 200, 1000):
            rows = [dict(kind="n", n=i) for i in range(start, min(n - 200, start + 1000))]
            await noop.batch_defer_async(*rows)
        bulk = (n - 200) / (time.perf_counter() - began)
        cpu = time.process_time()
        worker = asyncio.create_task(app.run_worker_async(
            concurrency=concurrency, install_signal_handlers=False, delete_jobs="never"))
        await done.wait()
        cpu = time.process_time() - cpu
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    print(json.dumps({"enqueue_one_s": single, "enqueue_bulk_s": bulk,
                      "drain_s": n / (marks[-1] - marks[0]), "worker_cpu_ms": cpu / n * 1e3}))
asyncio.run(main())
"""


def ours(url: str, n: int, concurrency: int) -> Figures:
    """Enqueue one by one and in bulk, then run everything in one worker."""
    with QueueManager(url, namespace=uuid4().hex) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]
        marks: list[float] = []

        @queues.job("noop")
        async def noop(ctx: Any, data: list[Any]) -> None:
            marks.append(time.perf_counter())
            if len(marks) == n:
                worker.stop()

        began = time.perf_counter()
        for _ in range(200):
            queues.enqueue("noop", ["n", 0])
        single = 200 / (time.perf_counter() - began)
        began = time.perf_counter()
        queues.enqueue_many("noop", [["n", i] for i in range(n - 200)])
        bulk = (n - 200) / (time.perf_counter() - began)
        worker, cpu = queues.worker(concurrency=concurrency), time.process_time()
        worker.run()
        cpu = time.process_time() - cpu
        assert sum(row.completed for row in queues.status()) == n
    return {
        "enqueue_one_s": single,
        "enqueue_bulk_s": bulk,
        "drain_s": n / (marks[-1] - marks[0]),
        "worker_cpu_ms": cpu / n * 1e3,
    }


def peer(python: str, info: str, n: int, concurrency: int) -> Figures:
    """Run procrastinate in its own interpreter on a database of its own."""
    command = [python, "-c", PEER, info, str(n), str(concurrency)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def outbox(database: str, redis_url: str, n: int) -> Figures:
    """Write ``n`` jobs in transactions of 100, then relay them."""
    engine = create_engine(database)
    create_table(engine)
    with QueueManager(redis_url, namespace=uuid4().hex) as queues, Relay(queues, database) as relay:
        began = time.perf_counter()
        for start in range(0, n, 100):
            with engine.begin() as conn:
                queues.enqueue_many("ship", range(start, start + 100), session=conn)
        written = n / (time.perf_counter() - began)
        began = time.perf_counter()
        assert relay.run(burst=True) == n
        relayed = n / (time.perf_counter() - began)
    engine.dispose()
    return {"outbox_write_s": written, "outbox_relay_s": relayed}


def medians(runs: list[Figures]) -> Figures:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main(argv: list[str]) -> None:
    """Run all and print the medians."""
    parser = argparse.ArgumentParser(prog="bench queues_sql")
    parser.add_argument("--peer", help="interpreter with procrastinate")
    parser.add_argument("-n", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    size = (args.n, args.concurrency)
    runs: dict[str, list[Figures]] = {}

    def note(name: str, run: Callable[[], Figures]) -> None:
        runs.setdefault(name, []).append(run())

    with PostgresServer() as postgres, MariaDBServer() as mariadb, RedisServer() as redis:
        for _ in range(args.rounds):
            with postgres.fresh_database() as url:
                note("eventperf, PostgreSQL", lambda url=url: ours(url, *size))  # type: ignore[misc]
            if args.peer:
                with postgres.fresh_database() as url:
                    info = url.replace("+psycopg", "")
                    note("procrastinate", lambda info=info: peer(args.peer, info, *size))  # type: ignore[misc]
            with postgres.fresh_database() as url:
                note("outbox to Redis", lambda url=url: outbox(url, redis.url, 20_000))  # type: ignore[misc]
        with mariadb.fresh_database() as url:
            note("eventperf, MariaDB", lambda: ours(url, *size))
        with tempfile.TemporaryDirectory() as folder:
            note("eventperf, SQLite", lambda: ours(f"sqlite:///{folder}/jobs.db", *size))
    found = {name: medians(rows) for name, rows in runs.items()}
    for name, row in found.items():
        figures = "  ".join(f"{k} {v:,.3f}" if v < 10 else f"{k} {v:,.0f}" for k, v in row.items())
        print(f"{name:24} {figures}", file=sys.stdout)
    if "procrastinate" in found:
        ratio = found["eventperf, PostgreSQL"]["drain_s"] / found["procrastinate"]["drain_s"]
        print(f"drain, PostgreSQL over procrastinate: {ratio:.1f} x (target 2)")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
