"""Process memory: hits of decorated functions (B1, B2), hit ratios (B10), memory per entry (B11)."""

from __future__ import annotations

import asyncio
import functools
import gc
import heapq
import multiprocessing
import statistics
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import Any

from cache_report import OURS, VALUE, Absent, Report, peer

from eventperf.cache import CacheManager, MemoryStore

KEYS = list(range(1000))


# -- B1, B2 ----------------------------------------------------------------------------------------------


def spin(function: Callable[[int], Any], loops: int) -> float:
    """Return the nanoseconds of one call, over ``loops`` times all keys."""
    started = time.perf_counter()
    for _ in range(loops):
        for key in KEYS:
            function(key)
    return (time.perf_counter() - started) / loops / len(KEYS) * 1e9


def one_thread(function: Callable[[int], Any], rounds: int) -> float:
    """Return the median nanoseconds of a hit."""
    spin(function, 1)
    loops = max(1, int(1e8 / 1000 / spin(function, 1)))
    return statistics.median(spin(function, loops) for _ in range(rounds))


def four_threads(function: Callable[[int], Any], rounds: int) -> float:
    """Return wall time per hit with four threads at it."""
    loops = max(1, int(5e7 / 1000 / spin(function, 1)))
    out = []
    for _ in range(rounds):
        gate = threading.Barrier(5)

        def work(gate: threading.Barrier = gate) -> None:
            gate.wait()
            spin(function, loops)
            gate.wait()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        gate.wait()
        started = time.perf_counter()
        gate.wait()
        out.append((time.perf_counter() - started) / (4 * loops * len(KEYS)) * 1e9)
        for thread in threads:
            thread.join()
    return statistics.median(out)


def _constant(k: int) -> Any:
    return VALUE


def _sync_peers() -> dict[str, Callable[[], Callable[[int], Any]]]:
    def cachebox_ttl() -> Any:
        cachebox = peer("cachebox")
        return cachebox.cached(cachebox.TTLCache(4096, 600), postprocess=None)(_constant)

    def cachetools_ttl() -> Any:
        cachetools = peer("cachetools")
        return cachetools.cached(cachetools.TTLCache(4096, 600), lock=threading.RLock())(_constant)

    def theine() -> Any:
        from datetime import timedelta

        return peer("theine").Memoize(4096, timedelta(seconds=600))(lambda k: VALUE)

    def moka() -> Any:
        return peer("moka_py").cached(maxsize=4096, ttl=600)(_constant)

    def dogpile() -> Any:
        region = peer("dogpile.cache").make_region().configure("dogpile.cache.memory", expiration_time=600)
        return region.cache_on_arguments()(_constant)

    return {
        "cachebox TTL": cachebox_ttl, "cachetools TTL + lock": cachetools_ttl, "theine": theine,
        "moka-py": moka, "dogpile.cache memory": dogpile,
    }  # fmt: skip


def sync_hit(report: Report) -> None:
    """B1: a hit of a decorated function, with a TTL and statistics."""
    rounds = 3 if report.quick else 5
    cache = CacheManager()
    ours = cache.cached(ttl=600)(_constant)
    keyed = cache.cached(ttl=600, key="b1:{k}")(_constant)

    class Shop:
        @cache.cached(ttl=600, key="shop:{k}")
        def event(self, k: int) -> Any:
            return VALUE

    shop = Shop()
    mine, bare = one_thread(ours, rounds), one_thread(_constant, rounds)
    lru = one_thread(functools.lru_cache(4096)(_constant), rounds)
    four = four_threads(ours, 3)
    report.row("B1", OURS, ns=round(mine), ns_4_threads=round(four))
    report.row("B1", f"{OURS}, key= template", ns=round(one_thread(keyed, rounds)))
    report.row("B1", f"{OURS}, keyword argument", ns=round(one_thread(lambda k: ours(k=k), rounds)))
    method = one_thread(lambda k: shop.event(k), rounds)
    report.row("B1", f"{OURS}, method", ns=round(method))
    report.row("B1", "floor: bare function", ns=round(bare))
    report.row("B1", "floor: lru_cache", ns=round(lru))
    box: dict[str, Any] = {}
    for name, make in _sync_peers().items():
        got = report.attempt("B1", name, lambda make=make: {"ns": round(one_thread(make(), 3))})
        box = got if name == "cachebox TTL" else box
    report.judge("B1", "of cachebox TTL", "<= 0.40", _ratio(mine, box), _under(mine, box, 0.4))
    report.judge("B1", "of lru_cache", "<= 1.30", f"{mine / lru:.2f}", mine / lru <= 1.3)
    report.judge("B1", "method", "<= 300 ns", f"{method:.0f} ns", method <= 300)
    report.judge("B1", "4 threads of 1 thread", "<= 1.20", f"{four / mine:.2f}", four / mine <= 1.2)
    cache.close()


def _ratio(mine: float, theirs: dict[str, Any], key: str = "ns") -> str:
    return f"{mine / theirs[key]:.2f}" if theirs else "-"


def _under(mine: float, theirs: dict[str, Any], limit: float) -> bool | None:
    return mine / theirs["ns"] <= limit if theirs else None


async def aspin(function: Callable[[int], Any], rounds: int) -> float:
    """Return the median nanoseconds of awaiting a hit."""
    for key in KEYS:
        await function(key)

    async def once(loops: int) -> float:
        started = time.perf_counter()
        for _ in range(loops):
            for key in KEYS:
                await function(key)
        return (time.perf_counter() - started) / loops / len(KEYS) * 1e9

    loops = max(1, int(1e8 / 1000 / await once(1)))
    return statistics.median([await once(loops) for _ in range(rounds)])


async def _aconstant(k: int) -> Any:
    return VALUE


def _async_peers() -> dict[str, Callable[[], Callable[[int], Any]]]:
    def cachebox() -> Any:
        box = peer("cachebox")
        return box.cached(box.LRUCache(4096), postprocess=None)(_aconstant)

    def async_lru() -> Any:
        return peer("async_lru").alru_cache(maxsize=4096)(_aconstant)

    def aiocache() -> Any:
        return peer("aiocache").cached(ttl=600, key_builder=lambda f, k: str(k))(_aconstant)

    def cashews() -> Any:
        cache = peer("cashews").Cache()
        cache.setup("mem://", size=4096)

        @cache(ttl=600, key="l1:{k}")
        async def hit(k: int) -> Any:
            return VALUE

        return hit

    return {
        "cachebox": cachebox,
        "async-lru": async_lru,
        "aiocache memory": aiocache,
        "cashews memory": cashews,
    }


def async_hit(report: Report) -> None:
    """B2: a hit of a decorated coroutine function."""
    cache = CacheManager()
    mine = asyncio.run(aspin(cache.cached(ttl=600)(_aconstant), 5))
    report.row("B2", OURS, ns=round(mine))
    report.row("B2", "floor: bare coroutine", ns=round(asyncio.run(aspin(_aconstant, 5))))
    got = {}
    for name, make in _async_peers().items():
        got[name] = report.attempt("B2", name, lambda make=make: {"ns": round(asyncio.run(aspin(make(), 3)))})
    report.judge(
        "B2",
        "of cachebox async",
        "<= 0.45",
        _ratio(mine, got["cachebox"]),
        _under(mine, got["cachebox"], 0.45),
    )
    for name in ("cashews memory", "aiocache memory"):
        times = f"{got[name]['ns'] / mine:.0f}" if got[name] else "-"
        met = got[name]["ns"] / mine >= 50 if got[name] else None
        report.judge("B2", f"times faster than {name}", ">= 50", times, met)
    cache.close()


# -- B10 -------------------------------------------------------------------------------------------------

UNIVERSE = 100_000


def traces(length: int) -> dict[str, list[int]]:
    """Zipf(0.99) over 100,000 keys; with scans mixed in; with a hot set that moves half way."""
    random = Random(7)
    bounds = list(accumulate(1 / rank**0.99 for rank in range(1, UNIVERSE + 1)))
    names = random.sample(range(UNIVERSE), UNIVERSE)
    zipf = [
        names[min(UNIVERSE - 1, bisect_left(bounds, random.random() * bounds[-1]))] for _ in range(length)
    ]
    scans: list[int] = []
    for start in range(0, length, 10_000):
        first = UNIVERSE + start // 2
        scans += [*zipf[start : start + 10_000], *range(first, first + 5_000)]
    moved = zipf[: length // 2] + [(key + 37_117) % UNIVERSE for key in zipf[length // 2 :]]
    return {"zipf": zipf, "zipf + scans": scans, "moving hot set": moved}


def belady(trace: list[int], size: int) -> float:
    """Return the hit ratio of the optimal policy, which knows the future."""
    upcoming: dict[int, int] = {}
    following = [0] * len(trace)
    for i in range(len(trace) - 1, -1, -1):
        following[i] = upcoming.get(trace[i], 10**9 + i)
        upcoming[trace[i]] = i
    inside: dict[int, int] = {}
    heap: list[tuple[int, int]] = []
    hits = 0
    for i, key in enumerate(trace):
        if key in inside:
            hits += 1
        elif len(inside) >= size:
            while True:
                far, other = heapq.heappop(heap)
                if inside.get(other) == -far:
                    del inside[other]
                    break
        inside[key] = following[i]
        heapq.heappush(heap, (-following[i], key))
    return hits / len(trace)


Policy = tuple[Callable[[int], bool], Callable[[int], object]]


def _ours(size: int) -> Policy:
    cache = CacheManager(l1=MemoryStore(max_entries=size))
    get, put = cache.get, cache.set
    return (lambda k: get(str(k)) is not None), (lambda k: put(str(k), 1, ttl=600))


def _cachetools(name: str) -> Callable[[int], Policy]:
    def make(size: int) -> Policy:
        cache = getattr(peer("cachetools"), name)(size)
        return (lambda k: cache.get(k) is not None), (lambda k: cache.__setitem__(k, 1))

    return make


def _cachebox(name: str) -> Callable[[int], Policy]:
    def make(size: int) -> Policy:
        cache = getattr(peer("cachebox"), name)(size)
        return (lambda k: cache.get(k) is not None), (lambda k: cache.insert(k, 1))

    return make


def _theine(size: int) -> Policy:
    cache = peer("theine").Cache(size)
    return (lambda k: cache.get(k)[1]), (lambda k: cache.set(k, 1))


def _moka(size: int) -> Policy:
    cache = peer("moka_py").Moka(size)
    return (lambda k: cache.get(k) is not None), (lambda k: cache.set(k, 1))


def _s3fifo(size: int) -> Policy:
    cache = peer("s3fifo").Cache(capacity=size)
    return (lambda k: cache.get(k) is not None), (lambda k: cache.put(k, 1))


POLICIES: dict[str, Callable[[int], Policy]] = {
    OURS: _ours, "cachetools LRU": _cachetools("LRUCache"), "cachetools LFU": _cachetools("LFUCache"),
    "cachebox LRU": _cachebox("LRUCache"), "cachebox LFU": _cachebox("LFUCache"),
    "theine W-TinyLFU": _theine, "moka-py TinyLFU": _moka, "s3fifo-cache S3-FIFO": _s3fifo,
}  # fmt: skip


def replay(policy: Policy, trace: list[int]) -> float:
    """Return the hit ratio, get and put on a miss."""
    get, put = policy
    hits = 0
    for key in trace:
        if get(key):
            hits += 1
        else:
            put(key)
    return hits / len(trace)


def hit_ratio(report: Report) -> None:
    """B10: hit ratios beside other policies and the optimum."""
    length = 400_000
    sizes = (1_000,) if report.quick else (1_000, 10_000)
    columns = {f"{name}@{size}": (trace, size) for name, trace in traces(length).items() for size in sizes}
    optimum = {column: belady(*what) * 100 for column, what in columns.items()}
    report.row("B10", "optimum (Belady)", **{column: f"{best:.1f}" for column, best in optimum.items()})
    table: dict[str, dict[str, float]] = {}
    for name, make in POLICIES.items():

        def measure(make: Any = make, name: str = name) -> dict[str, Any]:
            got = {column: replay(make(size), trace) * 100 for column, (trace, size) in columns.items()}
            table[name] = got
            return {column: f"{ratio:.1f}" for column, ratio in got.items()}

        report.attempt("B10", name, measure)
    mine = table.pop(OURS)
    for column, ratio in mine.items():
        rivals = {name: got[column] for name, got in table.items()}
        best = max(rivals, key=lambda name: rivals[name], default="")
        target = f">= {rivals[best]:.1f} ({best})" if best else "-"
        met = ratio >= rivals[best] - 0.05 if best else None
        report.judge("B10", column, target, f"{ratio:.1f}", met)
    gap = statistics.mean(optimum[column] - ratio for column, ratio in mine.items())
    report.judge("B10", "mean points below the optimum", "<= 6.5", f"{gap:.1f}", gap <= 6.5)


# -- B11 -------------------------------------------------------------------------------------------------


def _stores() -> dict[str, Callable[[], Callable[[int, bytes], object]]]:
    def ours() -> Any:
        cache = CacheManager(l1=MemoryStore(max_entries=300_000))
        return lambda k, v: cache.set(str(k), v, ttl=600)

    def ours_tagged() -> Any:
        cache = CacheManager(l1=MemoryStore(max_entries=300_000))
        return lambda k, v: cache.set(str(k), v, ttl=600, tags=("event:42",))

    def cachebox() -> Any:
        return peer("cachebox").TTLCache(200_001, 600).insert

    def cachetools() -> Any:
        return peer("cachetools").TTLCache(200_001, 600).__setitem__

    def theine() -> Any:
        from datetime import timedelta

        store = peer("theine").Cache(200_001)
        return lambda k, v: store.set(str(k), v, timedelta(seconds=600))

    def plain() -> Any:
        return dict[int, bytes]().__setitem__

    return {
        OURS: ours, f"{OURS}, one tag": ours_tagged, "floor: dict": plain, "cachebox TTL": cachebox,
        "cachetools TTL": cachetools, "theine": theine,
    }  # fmt: skip


def weigh(name: str, answer: Any) -> None:
    """Fill one store in a process of its own and send its bytes per entry."""
    import psutil

    count = 200_000
    try:
        put = _stores()[name]()
    except Absent as reason:
        answer.send(str(reason))
        return
    put(-1, b"x" * 1000)
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    for n in range(count):
        put(n, b"%01000d" % n)
    gc.collect()
    answer.send((process.memory_info().rss - before) / count - 1033)


def memory(report: Report) -> None:
    """B11: bytes per entry beyond the 1 KB value and its own header."""
    context = multiprocessing.get_context("spawn")
    for name in _stores():

        def measure(name: str = name) -> dict[str, Any]:
            here, there = context.Pipe()
            child = context.Process(target=weigh, args=(name, there))
            child.start()
            there.close()
            got = here.recv() if here.poll(120) else "no answer"
            child.join()
            if isinstance(got, str):
                raise Absent(got)
            return {"bytes_over_value": round(got)}

        figures = report.attempt("B11", name, measure)
        if name == OURS:
            used = figures["bytes_over_value"]
            report.judge("B11", "bytes per entry over the value", "<= 220", str(used), used <= 220)
