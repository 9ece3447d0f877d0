"""Cache benchmarks: floors and peers side by side in one run; ratios decide.

Peers that are not installed are left out and named. ``--redis URL`` uses a server; without it one is started.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import json
import pickle
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from eventperf.cache import CacheManager, MemoryStore, RedisStore
from servers import RedisServer

VALUE = {"id": 42, "name": "event", "tags": ["a", "b", "c"], "ok": True}
PAYLOAD = {
    "id": 123456,
    "title": "Developer Conference",
    "participants": [
        {"id": 1000 + n, "name": f"participant-{n:03d}", "paid": bool(n % 2)} for n in range(20)
    ],
}


def optional(name: str) -> Any:
    """Return a peer's module, or ``None``."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def ns_per_call(fn: Callable[[int], Any], calls: int = 200_000, rounds: int = 5) -> float:
    """Return the median over rounds, in nanoseconds."""
    fn(1)
    out = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(calls):
            fn(1)
        out.append((time.perf_counter() - started) / calls * 1e9)
    return statistics.median(out)


def sync_hit() -> list[dict[str, Any]]:
    """B1: a hit of a decorated function."""
    cache = CacheManager()
    rows = {
        "eventperf": cache.cached(ttl=600)(lambda k: VALUE),
        "floor: bare function": lambda k: VALUE,
        "floor: lru_cache": functools.lru_cache(lambda k: VALUE),
    }
    if (cachetools := optional("cachetools")) is not None:
        store = cachetools.TTLCache(1000, 600)
        rows["cachetools TTL + lock"] = cachetools.cached(store, lock=threading.Lock())(lambda k: VALUE)
    if (cachebox := optional("cachebox")) is not None:
        rows["cachebox TTL"] = cachebox.cached(cachebox.TTLCache(1000, 600))(lambda k: VALUE)
    return [{"case": "B1 sync hit", "who": who, "ns": round(ns_per_call(fn))} for who, fn in rows.items()]


def async_hit() -> list[dict[str, Any]]:
    """B2: a hit of a decorated coroutine function."""

    async def bare(k: int) -> Any:
        return VALUE

    ours = CacheManager().cached(ttl=600)(bare)

    async def measure(fn: Any, calls: int = 100_000) -> float:
        await fn(1)
        started = time.perf_counter()
        for _ in range(calls):
            await fn(1)
        return (time.perf_counter() - started) / calls * 1e9

    rows = {"eventperf": ours, "floor: bare coroutine": bare}
    return [
        {"case": "B2 async hit", "who": who, "ns": round(asyncio.run(measure(fn)))}
        for who, fn in rows.items()
    ]


def redis_hit(url: str) -> list[dict[str, Any]]:
    """B3 and B4: a coherent hit in process memory, and a hit in Redis."""
    import redis

    client = redis.Redis.from_url(url)
    client.set("plain", pickle.dumps(PAYLOAD, 5))

    def peer(_: int) -> Any:
        return pickle.loads(client.get("plain"))

    with (
        CacheManager(RedisStore(url, timeout=2), namespace="bench", l1=None) as far,
        CacheManager(RedisStore(url, timeout=2), namespace="bench") as near,
    ):
        far.set("k", PAYLOAD, ttl=600)
        while near.stats().l1_hits < 2:
            near.get("k")
        rows = [
            ("B3 coherent hit", "eventperf", ns_per_call(lambda _: near.get("k"), 50_000)),
            ("B4 Redis hit", "eventperf", ns_per_call(lambda _: far.get("k"), 2_000)),
            (
                "B4 Redis hit",
                "redis-py + pickle",
                ns_per_call(peer, 2_000),
            ),
        ]
    client.close()
    return [{"case": case, "who": who, "ns": round(ns)} for case, who, ns in rows]


def stampede(url: str) -> list[dict[str, Any]]:
    """B5: 200 threads miss one key whose loader takes 50 ms."""
    loads: list[int] = []
    with CacheManager(RedisStore(url, timeout=2), namespace="bench") as cache:
        cache.delete("cold")

        def load() -> int:
            loads.append(1)
            time.sleep(0.05)
            return 1

        times: list[float] = []
        gate = threading.Barrier(200)

        def call() -> None:
            gate.wait()
            started = time.perf_counter()
            cache.get_or_load("cold", load)
            times.append((time.perf_counter() - started) * 1e3)

        threads = [threading.Thread(target=call) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    p99 = sorted(times)[197]
    return [{"case": "B5 stampede", "who": "eventperf", "loads": len(loads), "p99_ms": round(p99, 1)}]


def memory() -> list[dict[str, Any]]:
    """B11: bytes per entry beyond the 1 KB value and its own header."""
    import gc

    import psutil

    process, count = psutil.Process(), 200_000
    cache = CacheManager(l1=MemoryStore(max_entries=300_000))
    gc.collect()
    before = process.memory_info().rss
    for n in range(count):
        cache.set(str(n), b"%01000d" % n, ttl=600)
    gc.collect()
    used = (process.memory_info().rss - before) / count - 1033
    return [{"case": "B11 memory", "who": "eventperf", "bytes_over_value": round(used)}]


def main(argv: list[str]) -> int:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(prog="cache")
    parser.add_argument("--redis", help="a server to use instead of a private one")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    server = None if args.redis else RedisServer().start()
    try:
        url = args.redis or server.url  # type: ignore[union-attr]
        rows = [*sync_hit(), *async_hit(), *redis_hit(url), *stampede(url), *memory()]
    finally:
        if server is not None:
            server.close()
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            print("  ".join(f"{name}={value}" for name, value in row.items()))
    missing = [name for name in ("cachebox", "cachetools") if optional(name) is None]
    if missing:
        print("not installed, left out:", ", ".join(missing))
    return 0
