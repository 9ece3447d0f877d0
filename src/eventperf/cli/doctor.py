"""``eventperf doctor``: looks at a running configuration; each finding is one sentence with its cure."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Literal

from eventperf._core.errors import ConfigurationError, EventPerfError
from eventperf._core.urls import redact

from .output import Progress, emit_json, table

_SKEW_S: Final = 1.0
_SLOW_S: Final = 0.025
_ROUNDS: Final = 7
_OLDEST: Final = (6, 0)
_LATE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: ``"cache"``, ``"queues"``, ``"database"`` or ``"scaling"``.
        about: What was looked at.
        state: ``"ok"``, ``"warn"`` (works, but), ``"bad"`` (does not).
        said: What was found.
        cure: What to do, empty where there is nothing to do.
    """

    part: str
    about: str
    state: Literal["ok", "warn", "bad"]
    said: str
    cure: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--cache", metavar="URL", action="append", default=[], help="redis://... (repeatable)"
    )
    parser.add_argument("--queues", metavar="APP", action="append", default=[],
                        help="module:attribute of a QueueManager, or a URL (repeatable)")  # fmt: skip
    parser.add_argument("--namespace", help="of queues and caches given by URL")
    parser.add_argument("--database", metavar="URL", action="append", default=[], help="SQLAlchemy URL")
    parser.add_argument("--what-if", metavar="URL", help="database where hypothetical objects may be made")
    parser.add_argument("--scale-config", metavar="FILE", help="configuration of `eventperf scale run`")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Look at everything that was named; 0 when nothing is bad, 1 else.

    Raises:
        ConfigurationError: Nothing was named.
    """
    looks: list[tuple[str, str, Callable[[], Iterator[Finding]]]] = [
        *(("cache", redact(url), partial(_cache, url, args.namespace or "app")) for url in args.cache),
        *(("queues", redact(app), partial(_queues, app, args.namespace or "default")) for app in args.queues),
        *(("database", redact(url), partial(_database, url, args.what_if)) for url in args.database),
        *(("scaling", path, partial(_scaling, path)) for path in filter(None, [args.scale_config])),
    ]
    if not looks:
        raise ConfigurationError(
            "doctor", "", "at least one of --cache, --queues, --database and --scale-config"
        )
    found: list[Finding] = []
    progress = Progress(quiet=args.json)
    for part, about, look in looks:
        progress.say(f"looking at {part}: {about}")
        seen = _looked(part, about, look)
        found += seen
        if not args.json:  # each part as soon as it is done: a later one may hang
            _print(seen)
    if args.json:
        emit_json([asdict(finding) for finding in found])
    return 1 if any(f.state == "bad" for f in found) else 0


def _looked(part: str, about: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return what one part says, up to what ends it."""
    seen: list[Finding] = []
    try:
        seen.extend(look())  # what was found before an error stays
    except EventPerfError as error:
        seen.append(Finding(part=part, about=about, state="bad", said=str(error)))
    except Exception as error:  # whatever a driver says is the finding
        said = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        seen.append(Finding(part=part, about=about, state="bad", said=said))
    return seen


def _print(found: list[Finding]) -> None:
    marks = {"ok": "ok", "warn": "WARN", "bad": "BAD"}
    rows = [[f.part, f.about, marks[f.state], f.said, f.cure] for f in found]
    table(["part", "about", "", "found", "what to do"], rows)


# --- Redis ----------------------------------------------------------------------------------------


def _cache(url: str, namespace: str) -> Iterator[Finding]:
    from eventperf.cache import CacheManager, RedisStore

    from .cache_ping import look

    if "://" not in url:
        raise ConfigurationError("--cache", redact(url), "a URL such as redis://host:6379/0")
    with CacheManager(RedisStore(url, timeout=5), namespace=namespace, l1=None, coherence="bus") as cache:
        for node in cache.store.links.masters():
            for a in look(node, namespace):
                state: Literal["ok", "bad"] = "ok" if a.works else "bad"
                yield Finding(
                    part="cache", about=f"{a.node} {a.ability}", state=state, said=a.detail or "works"
                )
            yield from _server("cache", node)
            yield _room(node)


def _room(node: Any) -> Finding:
    """Look at what a Redis does when it is full: a cache wants it to evict, jobs want it not to."""
    memory = node.info("memory")
    policy, limit = str(memory.get("maxmemory_policy", "noeviction")), int(memory.get("maxmemory", 0))
    if not limit:
        said = f"no maxmemory ({policy}): entries live until their TTL, whatever memory that takes"
        cure = "CONFIG SET maxmemory and maxmemory-policy allkeys-lfu (jobs need a server of their own then)"
    elif policy == "noeviction":
        said = f"noeviction at {limit:,} bytes: a full server refuses what the cache would store"
        cure = "CONFIG SET maxmemory-policy allkeys-lfu; if it holds jobs too, use two servers"
    else:
        return Finding(part="cache", about="eviction", state="ok", said=f"{policy} at {limit:,} bytes")
    return Finding(part="cache", about="eviction", state="warn", said=said, cure=cure)


def _server(part: str, node: Any) -> Iterator[Finding]:
    """Look at what matters to every use of a Redis: version, clock, distance."""
    info = node.info("server")
    version = str(info.get("redis_version", "0"))
    old = tuple(int(n) for n in version.split(".")[:2] if n.isdigit()) < _OLDEST
    cure = f"upgrade: {_OLDEST[0]}.{_OLDEST[1]} is the oldest that is tested" if old else ""
    yield Finding(part=part, about="version", state="warn" if old else "ok", said=version, cure=cure)
    asked = time.time()
    seconds, micros = node.time()
    skew = abs((seconds + micros / 1e6) - (asked + time.time()) / 2)
    cure = "keep both machines' clocks by NTP: delays and deadlines are told in the store's time"
    bad = skew > _SKEW_S
    said = f"{skew:.3f} s from this machine's"
    yield Finding(
        part=part, about="clock", state="warn" if bad else "ok", said=said, cure=cure if bad else ""
    )
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        node.ping()
        taken.append(time.perf_counter() - began)
    middle = statistics.median(taken)
    slow = middle > _SLOW_S
    cure = "put it near the application: each command waits for it" if slow else ""
    yield Finding(part=part, about="round trip", state="warn" if slow else "ok",
                  said=f"{middle * 1000:.2f} ms", cure=cure)  # fmt: skip


# --- queues ---------------------------------------------------------------------------------------


def _queues(app: str, namespace: str) -> Iterator[Finding]:
    from .queue import load

    with load(app, namespace) as queues:
        began = time.perf_counter()
        status = queues.status()
        took_ms = (time.perf_counter() - began) * 1000
        yield Finding(
            part="queues", about=queues.backend.name, state="ok", said=f"answers in {took_ms:.1f} ms"
        )
        if "://" in app and app.startswith(("redis", "valkey", "unix")):
            yield from _job_server(app)
        if hasattr(queues.backend, "schema_version"):
            yield _tables(queues.backend)
        workers = max((s.workers for s in status), default=0)
        waits = sum(s.waiting for s in status)
        module = "myapp.jobs:queues (the module that has the jobs)" if "://" in app else redact(app)
        cure = "" if workers else f"start one: eventperf queue worker {module}"
        state: Literal["ok", "warn", "bad"] = "ok" if workers else "bad" if waits else "warn"
        said = f"{workers} alive, {waits:,} jobs wait"
        yield Finding(part="queues", about="workers", state=state, said=said, cure=cure)
        for s in status:
            yield from _queue(s)


def _queue(status: Any) -> Iterator[Finding]:
    if status.dead:
        cure = f"look: eventperf queue dead APP {status.name}; then replay or purge"
        yield Finding(
            part="queues", about=status.name, state="warn", said=f"{status.dead:,} dead jobs", cure=cure
        )
    if status.paused:
        cure = f"eventperf queue resume APP {status.name}"
        yield Finding(part="queues", about=status.name, state="warn", said="paused", cure=cure)
    elif status.oldest_wait_s > _LATE_S:
        said = f"the oldest job has waited {status.oldest_wait_s:.0f} s"
        cure = "more workers or slots, or look for what blocks it"
        yield Finding(part="queues", about=status.name, state="warn", said=said, cure=cure)


def _job_server(url: str) -> Iterator[Finding]:
    """Look at what would lose jobs: eviction, and a server that forgets when it restarts."""
    from eventperf.cache import RedisStore

    store = RedisStore(url, timeout=5)
    try:
        for node in store.links.masters():
            yield from _server("queues", node)
            memory = node.info("memory")
            policy, limit = str(memory.get("maxmemory_policy", "noeviction")), int(memory.get("maxmemory", 0))
            evicts = limit > 0 and policy != "noeviction"
            cure = "CONFIG SET maxmemory-policy noeviction, or a server of its own for jobs" if evicts else ""
            said = f"{policy} at {limit:,} bytes: jobs can vanish" if evicts else policy
            yield Finding(
                part="queues", about="eviction", state="bad" if evicts else "ok", said=said, cure=cure
            )
            kept = node.info("persistence")
            lasting = bool(int(kept.get("aof_enabled", 0)))
            cure = (
                "" if lasting else "appendonly yes: without it a crash loses the jobs since the last snapshot"
            )
            said = "append-only file" if lasting else "no append-only file"
            yield Finding(part="queues", about="persistence", state="ok" if lasting else "warn",
                          said=said, cure=cure)  # fmt: skip
    finally:
        store.close()


def _tables(backend: Any) -> Finding:
    found, known = backend.schema_version(), backend.schema_known
    if found == known:
        return Finding(part="queues", about="tables", state="ok", said=f"version {found}")
    cure = "eventperf queue schema APP" if found < known else "upgrade eventperf: the tables are newer"
    return Finding(part="queues", about="tables", state="bad", said=f"version {found} of {known}", cure=cure)


# --- database -------------------------------------------------------------------------------------


def _database(url: str, what_if: str | None) -> Iterator[Finding]:
    from eventperf.dbopt import DatabaseOptimizer
    from eventperf.dbopt.errors import SourceUnavailable

    with DatabaseOptimizer(url, what_if=what_if) as optimizer:
        schema = optimizer.dialect.schema()
        said = f"{optimizer.dialect.name}, {len(schema.tables)} tables can be read"
        yield Finding(part="database", about="schema", state="ok", said=said)
        for note in schema.notes:
            cure = "what was found is complete but for it; look again when the lock is gone"
            yield Finding(part="database", about="lock", state="warn", said=note, cure=cure)
        try:
            count = len(optimizer.slow_queries(limit=1000))
            yield Finding(
                part="database", about="statements", state="ok", said=f"{count} recorded by the server"
            )
        except SourceUnavailable as error:
            yield Finding(part="database", about="statements", state="warn", said=str(error),
                          cure="or record in the application: QueryRecorder(engine)")  # fmt: skip
        if optimizer.dialect.name == "sqlite":
            return
        cure = "--what-if URL of a database where hypothetical objects may be made, so that advice is proved"
        state: Literal["ok", "warn"] = "ok" if what_if else "warn"
        said = "a real planner judges" if what_if else "advice rests on statistics"
        yield Finding(part="database", about="proof", state=state, said=said, cure="" if what_if else cure)


# --- scaling --------------------------------------------------------------------------------------


def _scaling(path: str) -> Iterator[Finding]:
    """Read every target and every metric once; nothing is changed."""
    from .scale.config import build, read_file
    from .scale.reading import readings

    plan = build(read_file(path), dry_run=True)
    try:
        for text in plan.unseen:
            yield Finding(part="scaling", about=path, state="bad", said=f"can never work: {text}")
        for reading in readings(plan.scalers):
            name, state = reading.target, reading.state
            if state is None:
                said = f"cannot be read: {reading.error}"
                yield Finding(part="scaling", about=name, state="bad", said=said)
                continue
            said = f"{state.replicas} replicas, {state.ready} ready"
            yield Finding(part="scaling", about=name, state="ok", said=said)
            for metric, said, is_value in reading.metrics():
                kind: Literal["ok", "bad"] = "ok" if is_value else "bad"
                cure = "" if is_value else "mend its query or source"
                about = f"{name} {metric}"
                yield Finding(part="scaling", about=about, state=kind, said=said, cure=cure)
    finally:
        plan.close()
