"""Ten open pages beside a worker that has always work, and when a browser paints: processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console_fill import manager

from browsers import browser
from console_asks import everything
from eventperf.cache import CacheManager
from eventperf.cli.console import FileLog, server
from eventperf.contrib.console import Console
from servers import RedisServer

POLL_S = 5.0  # of an open page
PAGES = ("", "queues", "queues/jobs?in=bench", "cache", "scaling")
CONTEXT = multiprocessing.get_context("spawn")


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


def redis_ms(redis: RedisServer) -> float:
    told = redis.client().info("cpu")
    return 1e3 * (told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"])


def cpu_ms(process: Any) -> float:
    """Return the CPU of a process so far, in steps of 10 ms."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return 1e3 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work(url: str) -> None:
    """Run jobs without end."""
    with manager(url) as queues:
        for kind in ("ticket", "rare"):

            @queues.job(kind)
            async def nothing(ctx: Any, data: Any) -> None:
                return None

        queues.worker(concurrency=100).run()


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


@contextmanager
def served(url: str, log: Path) -> Iterator[tuple[Any, int]]:
    ready, end = CONTEXT.Queue(), CONTEXT.Event()
    host = CONTEXT.Process(target=serve, args=(url, str(log), ready, end), daemon=True)
    host.start()
    try:
        yield host, ready.get(timeout=120)
    finally:
        end.set()
        host.join(30)


def open_pages(port: int, many: int, seen: Any, end: Any) -> None:
    """Be ``many`` browsers, each with a page open; each releases ``seen`` once."""

    def one(n: int) -> None:
        time.sleep(POLL_S * n / many)
        is_first = True
        while not end.is_set():
            url = f"http://127.0.0.1:{port}/{PAGES[n % len(PAGES)]}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                answer.read()
            if is_first:
                seen.release()
                is_first = False
            end.wait(POLL_S)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def ten_pages(port: int) -> Iterator[None]:
    """Go on once each of ten pages has been shown."""
    seen, stop = CONTEXT.Semaphore(0), CONTEXT.Event()
    browsers = CONTEXT.Process(target=open_pages, args=(port, 10, seen, stop), daemon=True)
    browsers.start()
    for _ in range(10):
        assert seen.acquire(timeout=120)
    yield
    stop.set()
    browsers.join(60)


def beside(url: str, log: Path, redis: RedisServer, seconds: float, rounds: int) -> None:
    """Compare a worker alone and beside ten open pages, in turns, by CPU too: a clock tells of others."""
    turns: dict[bool, list[Sequence[float]]] = {False: [], True: []}
    with served(url, log) as (host, port), manager(url) as queues:
        worker = CONTEXT.Process(target=work, args=(url,), daemon=True)

        def reading() -> tuple[float, ...]:
            done = sum(s.completed for s in queues.status())
            return time.monotonic(), done, cpu_ms(worker), redis_ms(redis), cpu_ms(host)

        def turn(looked: bool) -> None:
            before = reading()
            time.sleep(seconds)
            took, jobs, mine, its, hosts = (b - a for a, b in zip(before, reading(), strict=True))
            turns[looked].append((jobs / took, 1e3 * mine / jobs, 1e3 * its / jobs, hosts / took / 10))

        with ten_pages(port):
            pass  # the first look of each page
        looks(redis, host, port)
        if not rounds:
            return
        worker.start()
        for n in range(rounds):
            for looked in (bool(n % 2), not n % 2):  # neither is always the first
                if looked:
                    with ten_pages(port):
                        turn(True)
                else:
                    turn(False)
        worker.terminate()
        worker.join()
    told(turns)


def looks(redis: RedisServer, host: Any, port: int) -> None:
    """Tell what ten open pages cost while no worker runs."""
    idle = quiet(redis, host, 20)
    with ten_pages(port):
        busy = quiet(redis, host, 40)
        with heard(redis) as count:
            count()
            began = time.monotonic()
            time.sleep(20)
            asked = count() / (time.monotonic() - began) / 10
    share, hosts = (b - a for a, b in zip(idle, busy, strict=True))
    print(
        f"\nan open page: {asked:.2f} Redis commands/s; ten, without a worker: {share:.2f} % of Redis' thread"
    )
    print(f"beyond {idle[0]:.2f} % when nobody looks, {hosts:.2f} % of a core of the host", flush=True)


def told(turns: dict[bool, list[Sequence[float]]]) -> None:
    columns = "jobs/s | its CPU, µs/job | Redis' thread, µs/job | the console's host, % of a core"
    print(f"\n| a worker | {columns} |\n|---|---|---|---|---|")
    for looked, name in ((False, "alone"), (True, "beside ten open pages")):
        a, b, c, d = (statistics.median(column) for column in zip(*turns[looked], strict=True))
        print(f"| {name} | {a:,.0f} | {b:.1f} | {c:.1f} | {d:.2f} |")
    for at, what in ((0, "jobs/s"), (1, "its CPU"), (2, "Redis' thread")):
        ratios = [b[at] / a[at] - 1 for a, b in zip(turns[False], turns[True], strict=True)]
        spread = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else 0.0
        print(f"{what}: {statistics.mean(ratios):+.2%} ± {spread:.2%} (mean of {len(ratios)} pairs)")


def quiet(redis: RedisServer, host: Any, seconds: float) -> tuple[float, float]:
    """Return how many per cent of a core Redis' thread and the console's host take."""
    began, before = time.monotonic(), (redis_ms(redis), cpu_ms(host))
    time.sleep(seconds)
    after, took = (redis_ms(redis), cpu_ms(host)), time.monotonic() - began
    return (after[0] - before[0]) / took / 10, (after[1] - before[1]) / took / 10


def paints(url: str, log: Path, paths: Sequence[str], repeat: int) -> None:
    """Tell when a browser has painted something of each page, and how much it then holds."""
    print("\n| page | first paint, ms, least | median | elements |\n|---|---|---|---|")
    with served(url, log) as (_, port), tempfile.TemporaryDirectory() as profile:
        driver = browser(Path(profile))
        try:
            for path in paths:
                found = []
                for _ in range(repeat):
                    driver.get(f"http://127.0.0.1:{port}{path}")
                    found.append(driver.execute_async_script(PAINT))
                many = driver.execute_script("return document.querySelectorAll('*').length")
                print(
                    f"| {path} | {min(found):.0f} | {statistics.median(found):.0f} | {many:,} |", flush=True
                )
        finally:
            driver.quit()


PAINT = """
const done = arguments[0];
new PerformanceObserver((list) => {
  const found = list.getEntriesByName("first-contentful-paint")[0];
  if (found) done(found.startTime);
}).observe({type: "paint", buffered: true});
"""
