"""What the console costs beside a million jobs, 100,000 cache keys and a week of decisions.

Each page: CPU of the first look of a process and of later ones, its time here (the least is nearest to a
quiet machine), Redis commands (as a client sends them; a script is one) or SQL statements, time of Redis' own
thread, bytes of the whole answer. Then when a browser paints, and ten open pages beside a worker that has
always work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from console_beside import beside, heard, paints, redis_ms
from console_fill import fill_cache, fill_jobs, fill_log, fill_statements, manager
from sqlalchemy import Engine, create_engine, event

from console_asks import everything, get
from eventperf.cache import CacheManager
from eventperf.cli.console import FileLog
from eventperf.contrib.console import Console
from eventperf.contrib.console.web import Response
from eventperf.dbopt import DatabaseOptimizer
from eventperf.queues import QueueManager
from servers import PostgresServer, RedisServer

TARGETS = {"ms": 100.0, "commands": 5, "kB": 150.0}
Page = tuple[str, dict[str, str]]


def pages(queues: QueueManager) -> dict[str, Page]:
    job = queues.jobs(queue="low", state="waiting", limit=1).jobs[0].id
    deep = {"state": "waiting", "queue": "low"}
    page = queues.jobs(**deep, limit=50)
    for _ in range(100):
        page = queues.jobs(**deep, limit=50, cursor=page.cursor)
    return {
        "overview": ("/", {}),
        "queues, an hour": ("/queues", {}),
        "queues, a day": ("/queues", {"span": "24h"}),
        "jobs, all": ("/queues/jobs", {}),
        "jobs, dead": ("/queues/jobs", {"state": "failed"}),
        "jobs, waiting, page 101": ("/queues/jobs", {**deep, "cursor": page.cursor or ""}),
        "jobs, a tag": ("/queues/jobs", {"tag": "rare"}),
        "jobs, a rare type": ("/queues/jobs", {"type": "rare"}),
        "jobs, a text": ("/queues/jobs", {"text": "u777@"}),
        "a job": ("/queues/job", {"id": job}),
        "workers": ("/queues/workers", {}),
        "schedules and limits": ("/queues/rules", {}),
        "cache": ("/cache", {}),
        "cache, a key": ("/cache", {"key": "event:77", "in": "bench"}),
        "database": ("/database", {}),
        "scaling, a week": ("/scaling", {}),
    }


def size(answer: Response) -> float:
    return (sum(len(a) + len(b) + 4 for a, b in answer.headers) + len(answer.body)) / 1000


@contextmanager
def statements() -> Iterator[Callable[[], int]]:
    """Count the SQL statements of this process."""
    seen: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *more: Any) -> None:
        seen.append(statement)

    def count() -> int:
        found = len(seen)
        seen.clear()
        return found

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield count
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def measure(make: Callable[[], Console], asked: dict[str, Page], redis: RedisServer, repeat: int) -> None:
    print("| page | CPU, first look | CPU | ms, least | median | Redis commands | SQL | Redis' thread | kB |")
    print("|---|---|---|---|---|---|---|---|---|")
    console = make()
    with heard(redis) as count, statements() as sent:
        for name, (path, query) in asked.items():
            answer = get(console, path, **query)
            assert answer.status == 200, (name, answer.body[:2000])
            fresh, spent = make(), time.process_time()
            get(fresh, path, **query)
            first = 1e3 * (time.process_time() - spent)
            count(), sent()
            took, busy, spent = [], redis_ms(redis), time.process_time()
            for _ in range(repeat):
                began = time.perf_counter()
                get(console, path, **query)
                took.append(1e3 * (time.perf_counter() - began))
            spent, busy = 1e3 * (time.process_time() - spent) / repeat, (redis_ms(redis) - busy) / repeat
            commands, sql, kb = count() / repeat, sent() / repeat, size(answer)
            values = {"ms": min(took), "commands": max(commands, sql), "kB": kb}
            late = ", ".join(what for what, value in values.items() if value > TARGETS[what])
            told = f"{name} **missed: {late}**" if late else name
            times = f"{first:.1f} | {spent:.1f} | {min(took):.1f} | {statistics.median(took):.1f}"
            print(f"| {told} | {times} | {commands:.1f} | {sql:.1f} | {busy:.2f} | {kb:.1f} |", flush=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench console", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--repeat", type=int, default=20, help="looks at each page; 0: none")
    parser.add_argument("--postgres", action="store_true", help="jobs in PostgreSQL; pages only")
    parser.add_argument("--paints", type=int, default=5, help="loads of each page by a browser; 0: none")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn; 0: no open pages")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of turns beside a worker")
    args = parser.parse_args(argv)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(save=""))
        log = Path(folder := stack.enter_context(tempfile.TemporaryDirectory())) / "decisions.jsonl"
        url = redis.url
        if args.postgres:
            postgres = stack.enter_context(PostgresServer())
            url = stack.enter_context(postgres.fresh_database())
        began = time.monotonic()
        fill_jobs(url, args.jobs)
        print(
            f"{args.jobs:,} jobs in {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        ticks = fill_log(log, args.days)
        engine = create_engine(f"sqlite:///{folder}/shop.db")
        recorder = fill_statements(engine)
        with manager(url) as queues, CacheManager(redis.url, namespace="bench") as cache:
            fill_cache(cache, args.keys)
            print(
                f"{args.keys:,} keys, {ticks:,} decisions ({log.stat().st_size / 1e6:.0f} MB)\n", flush=True
            )

            def make() -> Console:
                decisions = FileLog(str(log))
                deque(decisions, maxlen=0)  # as the command does before it serves
                return Console(
                    queues={"bench": queues}, cache={"bench": cache}, scaler={"web": decisions},
                    optimizer=DatabaseOptimizer(engine, source=recorder), may=everything,
                )  # fmt: skip

            asked = pages(queues)
            if args.repeat:
                measure(make, asked, redis, args.repeat)
        if args.paints and not args.postgres:
            paths = [f"{path}?{urlencode(query)}" for path, query in asked.values() if path != "/database"]
            paints(url, log, paths, args.paints)
        if args.seconds and not args.postgres:
            beside(url, log, redis, args.seconds, args.rounds)
        print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0
