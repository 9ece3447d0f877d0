"""What the console costs beside a million jobs, 100,000 cache keys and a week of decisions.

Each page: its time here (the least is nearest to a quiet machine) and its CPU, Redis commands (as a
client sends them; a script is one), time of Redis' own thread, bytes of the whole answer. Then ten open pages
beside a worker that has always work.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import create_engine, text

from console_asks import everything, get
from eventperf.cache import CacheManager
from eventperf.cli.console import FileLog, server
from eventperf.contrib.console import Console
from eventperf.contrib.console.web import Response
from eventperf.dbopt import DatabaseOptimizer, QueryRecorder
from eventperf.queues import QueueConfig, QueueManager
from eventperf.queues.protocols import Outcome
from eventperf.scaling import AutoScaler, CallableMetrics, DecisionLog, SimulatedTarget, TargetTracking
from eventperf.testing import FakeClock
from eventperf.testing.queues import Station
from servers import RedisServer

KEPT: Any = {"keep_completed": 10_000, "keep_failed": 20_000}
QUEUES = {name: QueueConfig(name=name, **KEPT) for name in ("high", "normal", "low")}
POLL_S = 5.0  # of an open page
TARGETS = {"ms": 100.0, "commands": 5, "kB": 150.0}


def manager(url: str) -> QueueManager:
    return QueueManager(url, namespace="bench", queues=list(QUEUES.values()))


def fill_jobs(url: str, count: int) -> None:
    """Store jobs of all states: most wait, some are delayed, some have ended."""
    with manager(url) as queues:
        ended = min(20_000, count // 10)
        queues.enqueue_many("mail", ({"order": n} for n in range(ended)), queue="high")
        station = Station(queues, "mail", lease_s=600)
        for at in range(0, ended, 1000):
            leases = station.take(1000)
            kind: Any = "dead" if (at // 1000) % 2 else "done"
            station.store.finish([Outcome(x.record.id, x.token, kind, error="bad address") for x in leases])
        for at in range(0, count - ended, 10_000):
            few = range(at, min(at + 10_000, count - ended))
            options: dict[str, Any] = {"queue": ("normal", "low")[at // 10_000 % 2]}
            if at % 200_000 == 0:
                options |= {"delay": "6h", "tags": ["festival"]}
            queues.enqueue_many("ticket", ({"order": n, "to": f"u{n}@example.com"} for n in few), **options)
        for n in range(20):
            queues.enqueue("rare", n, queue="low", tags=["rare"])
        fill_minutes(url, queues)


def fill_minutes(url: str, queues: QueueManager) -> None:
    """Write a day of minutes of nine kinds of jobs, as the store keeps those that are over."""
    from redis import Redis

    client, prefix, now = Redis.from_url(url), "{eventperf:bench}:", int(time.time() // 60)
    kinds = [f"{queue}\x1f{type_}" for queue in queues.queues for type_ in ("mail", "ticket", "rare")]
    known = {name.decode(): int(n) for name, n in client.hgetall(f"{prefix}Mn").items()}
    numbers = {kind: known.get(kind, 100 + n) for n, kind in enumerate(kinds)}
    client.hset(f"{prefix}Mn", mapping=numbers)
    pipe = client.pipeline()
    for minute in range(now - 1_440, now):
        told = [f"{n}d=50 {n}f=1" for n in numbers.values()]
        told += [
            f"{n}{what}{20 + (minute + k) % 40}=6"
            for n in numbers.values()
            for what in "wx"
            for k in range(8)
        ]
        pipe.set(f"{prefix}m:{minute}", " ".join(told))
    pipe.execute()


def fill_cache(cache: CacheManager, count: int) -> None:
    for at in range(0, count, 1000):
        cache.set_many({f"event:{n}": {"title": "x" * 200, "n": n} for n in range(at, at + 1000)}, ttl=86_400)
    for n in range(300):
        cache.get_or_load(f"page:{n}", lambda n=n: "y" * n)


def fill_log(path: Path, days: float) -> int:
    clock, dice = FakeClock(time=time.time() - days * 86_400), Random(3)
    now = {"rps": 200.0}
    ticks = int(days * 86_400 / 15)
    with DecisionLog(path, steady=True) as log:
        scaler = AutoScaler(
            SimulatedTarget(4, name="prod/deployment/web"), CallableMetrics(rps=lambda: now["rps"]),
            TargetTracking(rps=50), min_replicas=3, max_replicas=60, clock=clock, log=log,
        )  # fmt: skip
        for _ in range(ticks):
            now["rps"] = max(10.0, now["rps"] * dice.uniform(0.97, 1.031))
            scaler.tick()
            clock.advance(15)
    return ticks


@contextmanager
def heard(redis: RedisServer) -> Iterator[Callable[[], int]]:
    """Count the commands that clients send, those inside scripts left out."""
    client = redis.client()
    with client.monitor() as monitor:
        seen: list[str] = []

        def listen() -> None:
            try:
                heard = (one["command"] for one in monitor.listen() if one["client_type"] != "lua")
                for command in heard:
                    seen.append(command)  # noqa: PERF402 - it goes on for ever, and is read meanwhile
            except Exception:
                return  # the server has ended

        threading.Thread(target=listen, daemon=True).start()
        mark = redis.client()

        def count() -> int:
            """Return how many since the call before; a mark of our own says that all were heard."""
            mark.echo("mark")
            while not any(c.startswith("ECHO") for c in seen):
                time.sleep(0.001)
            found = [c for c in seen if not c.startswith(("ECHO", "HELLO", "CLIENT", "SELECT", "INFO"))]
            seen.clear()
            return len(found)

        yield count


def cpu_ms(redis: RedisServer) -> float:
    told = redis.client().info("cpu")
    return 1e3 * (told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"])


def pages(console: Console, queues: QueueManager) -> dict[str, tuple[str, dict[str, str]]]:
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


def measure(console: Console, queues: QueueManager, redis: RedisServer, repeat: int) -> None:
    print("| page | ms, least | median | longest | CPU | Redis commands | Redis' thread | kB |")
    print("|---|---|---|---|---|---|---|---|")
    with heard(redis) as count:
        for name, (path, query) in pages(console, queues).items():
            answer = get(console, path, **query)  # connections and the first look
            assert answer.status == 200, (name, answer.body[:2000])
            count()
            took, busy, spent = [], cpu_ms(redis), time.process_time()
            for _ in range(repeat):
                began = time.perf_counter()
                get(console, path, **query)
                took.append(1e3 * (time.perf_counter() - began))
            spent, busy = 1e3 * (time.process_time() - spent) / repeat, (cpu_ms(redis) - busy) / repeat
            commands, kb = count() / repeat, size(answer)
            values = {"ms": min(took), "commands": commands, "kB": kb}
            late = ", ".join(what for what, value in values.items() if value > TARGETS[what])
            told = f"{name} **missed: {late}**" if late else name
            times = f"{min(took):.1f} | {statistics.median(took):.1f} | {max(took):.1f} | {spent:.1f}"
            print(f"| {told} | {times} | {commands:.1f} | {busy:.2f} | {kb:.1f} |", flush=True)


def work(url: str) -> None:
    """Run jobs without end, in a process of its own."""
    with manager(url) as queues:

        @queues.job("ticket")
        async def ticket(ctx: Any, data: Any) -> None:
            return None

        @queues.job("rare")
        async def rare(ctx: Any, data: Any) -> None:
            return None

        queues.worker(concurrency=100).run()


def open_pages(port: int, many: int, end: Any) -> None:
    """Be ``many`` browsers, each with a page open."""
    import urllib.request

    def one(n: int) -> None:
        path = ("", "queues", "queues/jobs?in=bench", "cache", "scaling")[n % 5]
        time.sleep(POLL_S * n / many)
        while not end.is_set():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as answer:
                answer.read()
            end.wait(POLL_S)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def serve(url: str, log: str, ready: Any, end: Any) -> None:
    """Be the process of the host that serves the console."""
    with manager(url) as queues, CacheManager(url, namespace="bench") as cache:
        console = Console(
            queues={"bench": queues}, cache={"bench": cache}, scaler=FileLog(log), may=everything
        )
        with server(console.wsgi(), "127.0.0.1", 0) as http:
            ready.put(http.server_port)
            threading.Thread(target=http.serve_forever, daemon=True).start()
            end.wait()


def beside(url: str, log: Path, redis: RedisServer, seconds: float, rounds: int) -> None:
    """Compare a worker alone and beside ten open pages, in turns."""
    context = multiprocessing.get_context("spawn")
    ready, end = context.Queue(), context.Event()
    worker = context.Process(target=work, args=(url,), daemon=True)
    host = context.Process(target=serve, args=(url, str(log), ready, end), daemon=True)
    worker.start()
    host.start()
    port = ready.get(timeout=120)
    rates: dict[bool, list[float]] = {False: [], True: []}
    asked: list[float] = []
    with manager(url) as queues, heard(redis) as count:

        def done() -> int:
            return sum(s.completed for s in queues.status())

        time.sleep(5)
        for n in range(2 * rounds):
            looked, stop = bool(n % 2), context.Event()
            browsers = context.Process(target=open_pages, args=(port, 10, stop), daemon=True)
            if looked:
                browsers.start()
                time.sleep(POLL_S + 1)
            first, began = done(), time.monotonic()
            time.sleep(seconds)
            rates[looked].append((done() - first) / (time.monotonic() - began))
            if looked:
                stop.set()
                browsers.join(60)
        worker.terminate()
        worker.join()
        count()
        stop = context.Event()
        browsers = context.Process(target=open_pages, args=(port, 10, stop), daemon=True)
        browsers.start()
        time.sleep(POLL_S + 1)
        count()
        before, began = cpu_ms(redis), time.monotonic()
        time.sleep(20)
        asked = [count() / (time.monotonic() - began) / 10, (cpu_ms(redis) - before) / 20 / 10]
        stop.set()
        browsers.join(60)
    end.set()
    host.join(30)
    alone, looked_at = statistics.median(rates[False]), statistics.median(rates[True])
    each = {
        name: [round(rate) for rate in rates[kind]] for name, kind in (("alone", False), ("beside", True))
    }
    print(f"\na worker, jobs/s: {alone:,.0f} alone, {looked_at:,.0f} beside ten open pages", end="")
    print(f" ({looked_at / alone - 1:+.1%}; {each})")
    print(f"an open page: {asked[0]:.2f} commands/s; ten: {asked[1]:.2f} % of Redis' thread", flush=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench console", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of each turn beside the worker; 0 leaves it out"
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    with RedisServer(save="") as redis, tempfile.TemporaryDirectory() as folder:
        began, log = time.monotonic(), Path(folder) / "decisions.jsonl"
        fill_jobs(redis.url, args.jobs)
        print(
            f"{args.jobs:,} jobs in {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        ticks = fill_log(log, args.days)
        engine = create_engine(f"sqlite:///{folder}/shop.db")
        recorder = QueryRecorder(engine)
        with engine.connect() as db:
            for n in range(300):
                db.execute(
                    text(f"SELECT {n} AS c{n}, count(*) FROM sqlite_master WHERE name = :n"), {"n": str(n)}
                ).all()
        with manager(redis.url) as queues, CacheManager(redis.url, namespace="bench") as cache:
            fill_cache(cache, args.keys)
            print(
                f"{args.keys:,} keys, {ticks:,} decisions ({log.stat().st_size / 1e6:.0f} MB)\n", flush=True
            )
            console = Console(
                queues={"bench": queues}, cache={"bench": cache}, scaler={"web": FileLog(str(log))},
                optimizer=DatabaseOptimizer(engine, source=recorder), may=everything,
            )  # fmt: skip
            measure(console, queues, redis, args.repeat)
        if args.seconds:
            beside(redis.url, log, redis, args.seconds, args.rounds)
    return 0
