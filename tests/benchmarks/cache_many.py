"""Several processes: stampedes (B5) and coherence between two of them (B8)."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from cache_report import OURS, Absent, Report, peer, quantile

from eventperf.cache import CacheManager, RedisStore

LOAD_S = 0.05


# -- B5 --------------------------------------------------------------------------------------------------


def _ours(url: str | None) -> CacheManager:
    return CacheManager(RedisStore(url, timeout=1), namespace="bench") if url else CacheManager()


def _guards(kind: str, url: str | None, load: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the call of one library: get a key, or load it once."""
    if kind in ("threads", "tasks"):
        cache = _ours(url)
        if kind == "threads":
            return lambda key: cache.get_or_load(key, lambda: load(key), ttl=600)

        async def ours(key: str) -> Any:
            return await cache.aget_or_load(key, lambda: load(key), ttl=600)

        return ours
    if kind == "cachebox async":
        cachebox = peer("cachebox")
        return cachebox.cached(cachebox.LRUCache(4096), postprocess=None)(load)  # type: ignore[no-any-return]
    if kind == "cashews":
        shared = peer("cashews").Cache()
        shared.setup(f"{url}?max_connections=200" if url else "mem://", suppress=False)
        return shared(ttl=600, key="s:{key}", lock=True)(_named(load))  # type: ignore[no-any-return]
    aiocache = peer("aiocache")
    where: dict[str, Any] = {}
    if url:
        host, port = url.split("/")[2].split(":")
        where = {"cache": aiocache.Cache.REDIS, "endpoint": host, "port": int(port),
                 "serializer": peer("aiocache.serializers").PickleSerializer()}  # fmt: skip
    return aiocache.cached_stampede(lease=2, ttl=600, key_builder=lambda f, key: key, **where)(_named(load))  # type: ignore[no-any-return]


def _named(load: Callable[[str], Any]) -> Callable[[str], Any]:
    async def loading(key: str) -> Any:
        return await load(key)

    return loading


def _threads(call: Callable[[str], Any], count: int, key: str, start: Callable[[], object]) -> Any:
    taken, errors = [0.0] * count, []
    gate = threading.Barrier(count + 1)

    def work(n: int) -> None:
        gate.wait()
        began = time.perf_counter()
        try:
            call(key)
        except Exception as error:
            errors.append(repr(error)[:100])
        taken[n] = time.perf_counter() - began

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    start()
    gate.wait()
    for thread in threads:
        thread.join(20)
    return taken, errors


async def _tasks(call: Callable[[str], Any], count: int, key: str) -> Any:
    taken, errors = [0.0] * count, []

    async def work(n: int) -> None:
        began = time.perf_counter()
        try:
            await call(key)
        except Exception as error:
            errors.append(repr(error)[:100])
        taken[n] = time.perf_counter() - began

    await asyncio.gather(*(work(n) for n in range(count)))
    return taken, errors


def caller(kind: str, url: str | None, count: int, key: str, counter: str, gate: Any, answer: Any) -> None:
    """One process of a stampede: warm up, wait for the others, call; sends times and errors."""
    file = os.open(counter, os.O_WRONLY | os.O_APPEND)  # one byte per load: uses nothing under test

    def load(name: str) -> Any:
        if name == key:
            os.write(file, b".")
        time.sleep(LOAD_S)
        return {"v": name}

    async def aload(name: str) -> Any:
        if name == key:
            os.write(file, b".")
        await asyncio.sleep(LOAD_S)
        return {"v": name}

    async def run() -> Any:
        call = _guards(kind, url, aload)
        await call(f"warm{os.getpid()}")
        await asyncio.sleep(0.2)
        gate.wait()
        return await _tasks(call, count, key)

    try:
        if kind == "bare event":
            got = _bare(count, gate.wait)
        elif kind == "threads":
            call = _guards(kind, url, load)
            call(f"warm{os.getpid()}")
            time.sleep(0.2)
            got = _threads(call, count, key, gate.wait)
        else:
            got = asyncio.run(run())
        answer.put(got)
    except Absent as reason:
        gate.abort()
        answer.put(str(reason))
    except Exception as error:
        gate.abort()
        answer.put(f"{type(error).__name__}: {error}")
    time.sleep(0.2)
    answer.close()
    answer.join_thread()
    os._exit(0)


def _bare(count: int, start: Callable[[], object]) -> Any:
    """The floor of threads: all wait on one event that is set after the load time."""
    event, leads = threading.Event(), threading.Lock()

    def call(_: str) -> None:
        if leads.acquire(blocking=False):
            time.sleep(LOAD_S)
            event.set()
        event.wait()

    return _threads(call, count, "", start)


def stampede_once(server: Any, kind: str, far: bool, processes: int, count: int) -> dict[str, Any]:
    """Return loads, p50 and p99 in ms, errors and commands of one stampede."""
    context = multiprocessing.get_context("spawn")
    key, url = f"k{time.time_ns()}", server.url if far else None
    gate, answer = context.Barrier(processes + 1), context.Queue()
    with tempfile.NamedTemporaryFile() as counter, server.client() as client:
        children = [
            context.Process(target=caller, args=(kind, url, count, key, counter.name, gate, answer))
            for _ in range(processes)
        ]
        for child in children:
            child.start()
        give_up = time.monotonic() + 30
        while gate.n_waiting < processes and not gate.broken and time.monotonic() < give_up:
            time.sleep(0.02)  # all are warm
        before = client.info("commandstats")
        try:
            gate.wait(30)
        except threading.BrokenBarrierError:
            raise Absent(str(answer.get(timeout=10))) from None
        results = [answer.get(timeout=40) for _ in children]
        time.sleep(0.05)
        after = client.info("commandstats")
        for child in children:
            child.join(10)
        loads = os.path.getsize(counter.name)
    if bad := [result for result in results if isinstance(result, str)]:
        raise RuntimeError(bad[0])
    taken = [t * 1e3 for times, _ in results for t in times]
    errors = [error for _, wrong in results for error in wrong]
    return {
        "loads": loads,
        "p50_ms": quantile(taken, 0.5),
        "p99_ms": quantile(taken, 0.99),
        "errors": len(errors),
        "commands": _sent(before, after) if far else 0,
    }


SCRIPTED = {"get", "set", "getrange", "setrange", "time", "pttl", "pexpire", "publish", "unlink"}


def _sent(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Return the commands clients sent. Calls inside scripts are told apart by what scripts of ours call."""
    calls: dict[str, int] = {}
    for name, figures in after.items():
        was = before.get(name, {"calls": 0})["calls"]
        calls[name.removeprefix("cmdstat_").lower()] = figures["calls"] - was
    for name in ("info", "client", "hello", "ping", "client|setinfo", "client|setname", "select", "auth"):
        calls.pop(name, None)
    if calls.get("evalsha"):
        for name in SCRIPTED - {"get"}:
            calls.pop(name, None)
    return sum(calls.values())


def stampede(report: Report, server: Any) -> None:
    """B5: many callers miss one key whose loader takes 50 ms."""
    rounds = 3 if report.quick else 5
    in_process = [("tasks", 60.0), ("cachebox async", 0), ("cashews", 0), ("aiocache", 0)]
    for far, processes, count in ((False, 1, 200), (True, 1, 200), (True, 4, 50)):
        case = f"B5 {processes} x {count}{' Redis' if far else ''}"
        limit = 65.0 if processes > 1 else 60.0
        for kind, ours in in_process:
            if far and kind == "cachebox async":
                continue
            got = _median(report, server, case, kind, far, processes, count, rounds if ours else 3)
            if ours and got:
                _judge(report, case, got, limit, processes, far)
        floor = _median(report, server, case, "bare event", False, processes, count, rounds)
        got = _median(report, server, case, "threads", far, processes, count, rounds)
        ratio = got["p99_ms"] / floor["p99_ms"]
        report.judge(case, "threads: p99 of a bare Event's", "<= 1.15", f"{ratio:.2f}", ratio <= 1.15)
        report.judge(case, "threads: loads", "1", str(got["loads"]), got["loads"] == 1)
        report.judge(case, "threads: errors", "0", str(got["errors"]), got["errors"] == 0)
        if far:
            each = got["commands"] / processes
            report.judge(case, "threads: commands per process", "<= 3", f"{each:.1f}", each <= 3)


def _median(
    report: Report, server: Any, case: str, kind: str, far: bool, processes: int, count: int, rounds: int
) -> dict[str, Any]:
    def measure() -> dict[str, Any]:
        runs = [stampede_once(server, kind, far, processes, count) for _ in range(rounds)]
        out = {name: quantile([run[name] for run in runs], 0.5) for name in runs[0]}
        out["loads"] = max(run["loads"] for run in runs)
        out["errors"] = max(run["errors"] for run in runs)
        return {name: round(value, 1) for name, value in out.items()}

    name = (
        f"{OURS} {kind}"
        if kind in ("tasks", "threads")
        else f"floor: {kind}"
        if kind == "bare event"
        else kind
    )
    return report.attempt(case, name, measure)


def _judge(report: Report, case: str, got: dict[str, Any], limit: float, processes: int, far: bool) -> None:
    p99 = got["p99_ms"]
    report.judge(case, "tasks: p99", f"<= {limit:.0f} ms", f"{p99:.1f} ms", p99 <= limit)
    report.judge(case, "tasks: loads", "1", str(got["loads"]), got["loads"] == 1)
    report.judge(case, "tasks: errors", "0", str(got["errors"]), got["errors"] == 0)
    if far:
        each = got["commands"] / processes
        report.judge(case, "tasks: commands per process", "<= 3", f"{each:.1f}", each <= 3)


# -- B8 --------------------------------------------------------------------------------------------------


def follower(url: str, seconds: float, answer: Any) -> None:
    """Read one key over and over; send when each value was first seen."""
    with CacheManager(RedisStore(url, timeout=2), namespace="b8", ttl=600) as cache:
        cache.get("k")
        answer.send("ready")
        seen, last, stop, reads = [], None, time.monotonic() + seconds, 0
        while time.monotonic() < stop:
            value = cache.get("k")
            reads += 1
            if value != last:
                last = value
                seen.append((value, time.perf_counter_ns()))
            if reads % 64 == 0:
                time.sleep(0.0002)  # a reader that never yields measures its own GIL
        answer.send((seen, reads / seconds, cache.stats().l1_hits / max(1, reads)))
        answer.recv()


def racer(url: str, keys: int, answer: Any) -> None:
    """Read a thousand keys while they are written; after a silence send what is served."""
    with CacheManager(RedisStore(url, timeout=2), namespace="b8", ttl=600) as cache:
        names = [f"r{n}" for n in range(keys)]
        cache.get("r0")
        answer.send("ready")
        while not answer.poll():
            for name in names:
                cache.get(name)
        answer.recv()
        time.sleep(0.5)
        answer.send({name: cache.get(name) for name in names})
        answer.recv()


def lag(report: Report, url: str, where: str) -> None:
    """How long another process serves the old value, over 250 writes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=follower, args=(url, 5.0, there))
    child.start()
    written: dict[int, int] = {}
    with CacheManager(RedisStore(url, timeout=2), namespace="b8", ttl=600, l1=None) as writer:
        writer.set("k", 0)
        here.recv()
        time.sleep(0.3)
        for n in range(1, 251):
            writer.set("k", n)
            written[n] = time.perf_counter_ns()
            time.sleep(0.015)
    seen, reads, near = here.recv()
    here.send(1)
    child.join()
    first: dict[int, float] = {}
    for value, at in seen:
        if value in written and value not in first:
            first[value] = max(0.0, (at - written[value]) / 1e6)
    lags = list(first.values())
    p99 = quantile(lags, 0.99)
    report.row(
        "B8 lag",
        f"{OURS}, {where}",
        p50_ms=f"{quantile(lags, 0.5):.2f}",
        p99_ms=f"{p99:.2f}",
        max_ms=f"{max(lags):.2f}",
        seen=f"{len(lags)} of 250",
        reads_s=round(reads),
        near=f"{near:.0%}",
    )
    report.judge("B8", f"lag p99, {where}", "<= 3 ms", f"{p99:.2f} ms", p99 <= 3)


def race(report: Report, url: str, where: str) -> None:
    """Keys that stay stale after writes that race with reads."""
    rounds, keys = (3, 1000) if report.quick else (20, 1000)
    context, stale = multiprocessing.get_context("spawn"), 0
    names = [f"r{n}" for n in range(keys)]
    with CacheManager(RedisStore(url, timeout=2), namespace="b8", ttl=600, l1=None) as writer:
        for attempt in range(rounds):
            here, there = context.Pipe()
            child = context.Process(target=racer, args=(url, keys, there))
            child.start()
            here.recv()
            for lap in range(3):
                for name in names:
                    writer.set(name, (attempt, lap))
            here.send(1)
            final = here.recv()
            here.send(1)
            child.join()
            stale += sum(final[name] != (attempt, 2) for name in names)
    report.row("B8 race", f"{OURS}, {where}", stale=stale, keys=rounds * keys)
    report.judge("B8", f"stale keys after {rounds} races, {where}", "0", str(stale), stale == 0)


def coherence(report: Report, url: str, cluster_url: str) -> None:
    """B8: what another process sees of our writes, and when."""
    for where, place in (("standalone", url), ("cluster", cluster_url)):
        lag(report, place, where)
    race(report, url, "standalone")
    if not report.quick:
        race(report, cluster_url, "cluster")
