"""A busy event loop (B12), very many namespaces (B13), and very many managers on one server (B14)."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from typing import Any

from cache_report import OURS, Report

from eventperf.cache import CacheManager, CacheOptions, RedisStore

# -- B12 -------------------------------------------------------------------------------------------------

SLICE_S, CLIENTS, KEYS = 0.08, 50, 20


async def _hits(url: str, name: str, calls: int, busy: bool) -> tuple[float, int]:
    """Return the share of hits among calls of ``CLIENTS`` tasks, and the loads."""
    loads = 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        return "v"

    async def compute() -> None:
        while True:
            started = time.perf_counter()
            while time.perf_counter() - started < SLICE_S:
                pass
            await asyncio.sleep(0)

    async def client(n: int) -> None:
        for turn in range(calls):
            await cache.aget_or_load(f"k{(n + turn) % KEYS}", load)
            await asyncio.sleep(0)

    async with CacheManager(url, namespace=name, l1=None, ttl=600) as cache:
        await cache.aclear()
        rival = asyncio.create_task(compute()) if busy else None
        await asyncio.gather(*(client(n) for n in range(CLIENTS)))
        if rival is not None:
            rival.cancel()
        await cache.aclear()
    return 1 - loads / (CLIENTS * calls), loads


def busy_loop(report: Report, url: str) -> None:
    """B12: another task computes for 80 ms at a time; hits beside a loop that does nothing else."""
    calls = 10 if report.quick else 40
    idle, idle_loads = asyncio.run(_hits(url, "b12", calls, False))
    busy, busy_loads = asyncio.run(_hits(url, "b12", calls, True))
    report.row("B12", f"{OURS}, idle loop", hits=f"{idle:.4f}", loads=idle_loads)
    report.row("B12", f"{OURS}, busy loop", hits=f"{busy:.4f}", loads=busy_loads)
    share = busy / idle
    report.judge("B12", "hits of an idle loop's", ">= 0.95", f"{share:.3f}", share >= 0.95)


# -- B13 -------------------------------------------------------------------------------------------------


def namespaces(report: Report, url: str) -> None:
    """B13: a write while this process follows 3,000 namespaces, beside one that follows one."""
    count = 300 if report.quick else 3000
    store = RedisStore(url, timeout=5)
    with (
        CacheManager(store, namespace="b13", ttl=600) as many,
        CacheManager(RedisStore(url, timeout=5), namespace="b13", ttl=600, l1=None) as writer,
    ):

        def write_us() -> float:
            out = []
            for n in range(500):
                started = time.perf_counter()
                writer.set("hot", n)
                out.append(time.perf_counter() - started)
            return statistics.median(out) * 1e6

        many.get("hot")
        time.sleep(0.5)
        one = min(write_us() for _ in range(5))
        for n in range(count):
            tenant = CacheOptions(namespace=f"tenant{n}", ttl=600)
            many.get_or_load("settings", lambda n=n: n, options=tenant)
        time.sleep(1)
        after = min(write_us() for _ in range(5))
    report.row("B13", f"{OURS}, SET, one namespace", us=round(one))
    report.row("B13", f"{OURS}, SET, {count:,} namespaces", us=round(after))
    report.judge("B13", "SET of one namespace's", "<= 1.20", f"{after / one:.2f}", after / one <= 1.2)


# -- B14 -------------------------------------------------------------------------------------------------


def _connections(nodes: list[Any]) -> list[int]:
    out = []
    for node in nodes:
        with node.client() as client:
            out.append(sum(not set(one["flags"]) & set("SM") for one in client.client_list()) - 1)
    return out


def managers(report: Report, url: str, nodes: list[Any], where: str) -> None:
    """B14: 1,000 managers of one process on one server: connections, threads, and the time they take idle."""
    count = 100 if report.quick else 1000
    before, threads = _connections(nodes), threading.active_count()
    opened = [CacheManager(RedisStore(url, timeout=5), namespace=f"b14:{n}", ttl=60) for n in range(count)]
    for n, cache in enumerate(opened):
        assert cache.get_or_load("k", lambda n=n: n) == n

    async def use() -> tuple[int, int, float]:
        await asyncio.gather(*(cache.aget_or_load("task", lambda: 1) for cache in opened))
        connections = max(now - then for now, then in zip(_connections(nodes), before, strict=True))
        spent, started = time.process_time(), time.perf_counter()
        await asyncio.sleep(5)
        idle = (time.process_time() - spent) / (time.perf_counter() - started)
        return connections, threading.active_count() - threads, idle

    connections, more, idle = asyncio.run(use())
    for cache in opened:
        cache.close()
    figures = {"connections_per_node": connections, "threads": more, "idle_cpu": f"{idle * 100:.2f} %"}
    report.row("B14", f"{OURS}, {count:,} managers, {where}", **figures)
    report.judge("B14", f"connections, {where}", "<= 8", str(connections), connections <= 8)
    report.judge("B14", f"idle CPU, {where}", "< 2 %", f"{idle * 100:.2f} %", idle < 0.02)
