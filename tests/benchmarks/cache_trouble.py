"""Dropping a third of a large keyspace (B6), and a Redis that accepts but never answers (B9)."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from typing import Any

from cache_report import OURS, Report, peer, quantile

from eventperf.cache import CacheManager, RedisStore

# -- B6 --------------------------------------------------------------------------------------------------

MATCH, OTHERS = 100_000, 200_000


def fill(url: str, prefix: str, count: int, tags: tuple[str, ...] = ()) -> None:
    """Store ``count`` small values in bulk."""
    with CacheManager(RedisStore(url, timeout=30), namespace="b6", ttl=3600, l1=None) as cache:
        for start in range(0, count, 5000):
            items = {f"{prefix}{n}": n for n in range(start, min(count, start + 5000))}
            cache.set_many(items, tags=tags)


def bystander(url: str, stop: Any, answer: Any) -> None:
    """Another client: plain GETs on all nodes; sends latencies before and after ``stop`` was marked."""
    from redis.cluster import ClusterNode, RedisCluster

    host, port = url.split("//")[1].split(",")[0].split(":")
    client = RedisCluster(startup_nodes=[ClusterNode(host, int(port))])
    idle: list[float] = []
    busy: list[float] = []
    n = 0
    client.get("b6:1:q0")
    answer.send("ready")
    while not stop.is_set():
        began = time.perf_counter()
        client.get(f"b6:1:q{n % 500}")
        (busy if answer.poll() else idle).append(time.perf_counter() - began)
        n += 1
    answer.send((idle, busy))
    client.close()


def watcher(url: str, keys: list[str], answer: Any) -> None:
    """A process that holds tagged entries in memory; sends when it last served one of them."""
    with CacheManager(RedisStore(url, timeout=5), namespace="b6", ttl=3600) as cache:
        give_up = time.monotonic() + 10
        while cache.stats().l1_hits < len(keys) and time.monotonic() < give_up:
            cache.get_many(keys)
            time.sleep(0.01)
        answer.send(cache.stats().l1_hits)
        served, stop = 0.0, time.monotonic() + 20
        missed = 0
        while missed < len(keys) and time.monotonic() < stop:
            missed = 0
            for key in keys:
                if cache.get(key) is None:
                    missed += 1
                else:
                    served = time.perf_counter()
            time.sleep(0.0005)
        answer.send((served, len(keys) - missed))


class Beside:
    """A bystander's latencies around one action."""

    def __init__(self, url: str, settle_s: float) -> None:
        self._url, self._settle_s = url, settle_s

    def during(self, action: Any) -> dict[str, Any]:
        """Run ``action`` and return its time and what the bystander saw, in ms."""
        context = multiprocessing.get_context("spawn")
        stop, (here, there) = context.Event(), context.Pipe()
        child = context.Process(target=bystander, args=(self._url, stop, there))
        child.start()
        here.recv()
        time.sleep(self._settle_s)
        here.send(1)
        began = time.perf_counter()
        action()
        taken = time.perf_counter() - began
        time.sleep(max(0.3, self._settle_s - taken))
        stop.set()
        idle, busy = here.recv()
        child.join()
        return {
            "ms": f"{taken * 1e3:.2f}", "idle_p999_ms": f"{quantile(idle, 0.999) * 1e3:.2f}",
            "p999_ms": f"{quantile(busy, 0.999) * 1e3:.2f}", "idle_worst_ms": f"{max(idle) * 1e3:.1f}",
            "worst_ms": f"{max(busy) * 1e3:.1f}",
        }  # fmt: skip


def drop_many(report: Report, cluster: Any) -> None:
    """B6: drop 100,000 of 300,000 keys on three masters, by tag and by pattern."""
    url, scale = cluster.url, 10 if report.quick else 1
    match, others = MATCH // scale, OTHERS // scale
    cluster.flush()
    fill(url, "q", others)
    fill(url, "ev:42:", match, ("event:42",))
    _by_tag(report, url, match)
    cluster.flush()
    fill(url, "q", others)
    fill(url, "ev:42:", match)
    with CacheManager(RedisStore(url, timeout=5), namespace="b6", l1=None) as cache:
        cache.get("q0")
        ours = Beside(url, 2.0).during(lambda: cache.invalidate_pattern("ev:42:*"))
        left = cache.invalidate_pattern("ev:42:*", dry_run=True)
    report.row("B6 pattern", OURS, **ours, left=left)
    fill(url, "ev:42:", match)
    theirs = report.attempt(
        "B6 pattern",
        "cashews delete_match",
        lambda: Beside(url, 2.0).during(lambda: asyncio.run(_cashews_drop(cluster))),
    )
    ratio = float(ours["ms"]) / float(theirs["ms"]) if theirs else 0.0
    report.judge(
        "B6", "pattern, of cashews' time", "<= 0.50", f"{ratio:.2f}", ratio <= 0.5 if theirs else None
    )
    worst = float(ours["worst_ms"]) / float(ours["idle_worst_ms"])
    report.judge("B6", "pattern: worst GET of idle worst", "<= 2.0", f"{worst:.1f}", worst <= 2)
    cluster.flush()


def _by_tag(report: Report, url: str, match: int) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    keys = [f"ev:42:{n}" for n in range(0, match, max(1, match // 200))]
    child = context.Process(target=watcher, args=(url, keys, there))
    child.start()
    held = here.recv()
    moments: list[float] = []
    taken: list[float] = []
    calm = Beside(url, 2.0).during(lambda: None)
    with CacheManager(RedisStore(url, timeout=5), namespace="b6", l1=None) as cache:
        cache.invalidate_tags("other")  # the script is known, the connections are there

        def drop() -> None:
            for tag in (*(f"other:{n}" for n in range(20)), "event:42"):
                began = time.perf_counter()
                cache.invalidate_tags(tag)
                moments.append(time.perf_counter())
                taken.append((moments[-1] - began) * 1e3)

        figures = Beside(url, 2.0).during(drop)
    seen, left = here.recv()
    child.join()
    lag = max(0.0, seen - moments[-1]) * 1e3
    middle = quantile(taken, 0.5)  # the cost does not depend on what carries the tag: one sample says little
    figures |= {"ms": f"{taken[-1]:.2f}", "median_of_21_ms": f"{middle:.2f}"}
    report.row("B6 tag", "floor: nothing is dropped", **calm)
    report.row("B6 tag", OURS, **figures, keys=match, other_l1_right_ms=f"{lag:.1f}", held=held, left=left)
    report.judge("B6", f"tag of {match} keys", "<= 1 ms", f"{middle:.2f} ms", middle <= 1)
    report.judge(
        "B6", "tag: L1 of another process right", "<= 10 ms", f"{lag:.1f} ms", lag <= 10 and not left
    )
    change = float(figures["p999_ms"]) / max(float(calm["idle_p999_ms"]), float(calm["p999_ms"]))
    report.judge("B6", "tag: p99.9 of another client, of calm", "<= 1.5", f"{change:.2f}", change <= 1.5)


async def _cashews_drop(cluster: Any) -> None:
    cache = peer("cashews").Cache()
    cache.setup(f"redis://127.0.0.1:{cluster.nodes[0].port}", cluster=True, suppress=False, socket_timeout=60)
    await cache.delete_match("b6:1:ev:42:*")
    await cache.close()


# -- B9 --------------------------------------------------------------------------------------------------


def _load() -> int:
    time.sleep(0.001)
    return 1


def black_hole(report: Report, server: Any) -> None:
    """B9: a server stopped with SIGSTOP; calls of a loader that takes 1 ms."""
    alone = []
    for _ in range(100):
        began = time.perf_counter()
        _load()
        alone.append((time.perf_counter() - began) * 1e3)
    report.row(
        "B9",
        "floor: the loader alone",
        p50_ms=f"{quantile(alone, 0.5):.2f}",
        p99_ms=f"{quantile(alone, 0.99):.2f}",
    )
    for way in ("sync", "async"):
        _ours_in_the_dark(report, server, way == "async")
    if not report.quick:
        for name in ("cashews", "dogpile.cache"):
            report.attempt("B9", name, lambda name=name: _peer_in_the_dark(server, name))


def _ours_in_the_dark(report: Report, server: Any, tasks: bool) -> None:
    way = "async" if tasks else "sync"
    with CacheManager(server.url, namespace=f"b9{way}", ttl=600) as cache, server.client() as client:
        loop = asyncio.new_event_loop()

        def call(key: str) -> Any:
            return (
                loop.run_until_complete(cache.aget_or_load(key, _load))
                if tasks
                else cache.get_or_load(key, _load)
            )

        call("warm")
        cache.set("changed", "old")
        time.sleep(0.2)
        server.sigstop()
        taken = []
        try:
            for n in range(100):
                began = time.perf_counter()
                call(f"k{n}")
                taken.append((time.perf_counter() - began) * 1e3)
            cache.invalidate("changed")
        finally:
            server.sigcont()
        back = time.perf_counter()
        while cache.stats().breaker != "closed" or cache.stats().coherence != "tracking":
            if time.perf_counter() - back > 20:
                break
            time.sleep(0.002)
        recovered = time.perf_counter() - back
        stale = int(cache.get("changed") is not None)
        client.ping()
        if tasks:
            loop.run_until_complete(cache.aclose())
        loop.close()
    later = sorted(taken[1:])
    p99 = later[97]
    report.row(
        "B9",
        f"{OURS} {way}",
        first_ms=f"{taken[0]:.1f}",
        later_p50_ms=f"{later[49]:.2f}",
        later_p99_ms=f"{p99:.2f}",
        later_max_ms=f"{later[-1]:.2f}",
        recovered_s=f"{recovered:.2f}",
        stale=stale,
    )
    report.judge("B9", f"{way}: first call", "<= 60 ms", f"{taken[0]:.1f} ms", taken[0] <= 60)
    report.judge("B9", f"{way}: later calls, p99", "<= 2 ms", f"{p99:.2f} ms", p99 <= 2)
    report.judge("B9", f"{way}: recovered", "<= 1 s", f"{recovered:.2f} s", recovered <= 1)
    report.judge("B9", f"{way}: stale values", "0", str(stale), stale == 0)


def _peer_in_the_dark(server: Any, name: str) -> dict[str, Any]:
    calls: list[str] = []

    def work() -> None:
        loop = asyncio.new_event_loop()
        if name == "cashews":
            cache: Any = peer("cashews").Cache()
            cache.setup(server.url)

            @cache(ttl=600, key="b9:{k}")
            async def cached(k: str) -> int:
                return _load()

            call: Any = lambda k: loop.run_until_complete(cached(k))  # noqa: E731
        else:
            region = peer("dogpile.cache").make_region()
            region.configure("dogpile.cache.redis", arguments={"url": server.url})
            call = lambda k: region.get_or_create(k, _load)  # noqa: E731
        call("warm")
        ready.set()
        stopped.wait()
        for n in range(2):
            began = time.perf_counter()
            try:
                call(f"k{n}")
                how = ""
            except Exception as error:
                how = f" {type(error).__name__}"
            calls.append(f"{(time.perf_counter() - began) * 1e3:.0f} ms{how}")

    ready, stopped = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(5)
    server.sigstop()
    stopped.set()
    thread.join(12)
    server.sigcont()
    thread.join(5)
    return {"calls": "; ".join(calls) or "still waiting after 12 s"}
