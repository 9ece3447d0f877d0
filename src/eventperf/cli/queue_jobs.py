"""The ``eventperf queue`` commands that show jobs and change those that wait."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.texts import plain

from .output import emit_json, say, table

if TYPE_CHECKING:
    from eventperf.queues import QueueManager


def configure(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the commands that find and change jobs."""
    jobs = command("jobs", "find jobs by state, queue, type, tag or text, a page at a time")
    jobs.add_argument("--state", help="waiting, delayed, active, completed, failed or cancelled")
    jobs.add_argument("--queue")
    jobs.add_argument("--type")
    jobs.add_argument("--tag")
    jobs.add_argument("--text", help="part of the id, the error or the encoded payload")
    jobs.add_argument("--limit", type=int, default=50)
    jobs.add_argument("--cursor", help="where the page before ended")
    jobs.add_argument("--json", action="store_true")
    update = command("update", "change a job that has not begun")
    update.add_argument("id")
    update.add_argument("--delay", help="such as 5m, from now; 0s lets it run at once")
    update.add_argument("--at", help="a time with its zone, such as 2026-05-01T09:00:00+09:00")
    update.add_argument("--priority", type=int)
    update.add_argument("--queue")
    update.add_argument("--data", help="the new payload, as JSON")
    metrics = command("metrics", "show throughput, failures, waits and run times by queue and type")
    metrics.add_argument("--since", default="1h", help="how far back, at most 1d")
    metrics.add_argument("--step", help="a row for each step of time, such as 10m; sums only by default")
    metrics.add_argument("--json", action="store_true")
    workers = command("workers", "list live workers: what they serve and run, where, which version")
    workers.add_argument("--json", action="store_true")


def dead(queues: QueueManager, args: argparse.Namespace) -> int:
    """List the dead letter."""
    if args.limit < 1:
        raise ConfigurationError("--limit", args.limit, "at least 1")
    names = [args.queue] if args.queue else list(queues.queues)
    jobs = [job for name in names for job in queues.dead(name, limit=args.limit)]
    columns = ("id", "type", "queue", "attempt", "crashes", "error")
    rows = [(j.id, j.type, j.queue, j.attempt, j.crashes, j.error) for j in jobs]
    if args.json:
        emit_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        table(columns, [(*row[:-1], _line(row[-1])) for row in rows])
    return 0


def info(queues: QueueManager, args: argparse.Namespace) -> int:
    """Show a job with its attempts."""
    facts = asdict(queues.job_info(args.id))
    facts["state"] = facts["state"].value
    for name in ("payload", "result"):
        facts[name] = _data(queues, facts[name])
    if args.json:
        emit_json(facts)
        return 0
    attempts = facts.pop("attempts")
    for name, value in facts.items():
        if value not in (None, "", {}, (), []):
            print(f"{name:<12} {_when(value) if name.endswith('_at') else plain(str(value))}")
    for one in attempts:
        took = f"{one['seconds']:.3g} s"
        crashed = one["outcome"] == "crashed"  # when it did, nobody knows
        said = f"crashed, noticed {took} after its start," if crashed else f"{one['outcome']} after {took}"
        said = f"{said} on {one['worker']}"
        say(f"\nattempt {one['number']}, {_when(one['started_at'])}: {said}")
        for part in ("error", "traceback", "log_tail"):
            if one[part] and not (part == "error" and one["traceback"]):
                say(f"{part.replace('_', ' ')}:\n{one[part]}")
    return 0


def _data(queues: QueueManager, stored: bytes | None) -> Any:
    """Return what a job carries; bytes that this process cannot read as they are."""
    from eventperf.queues import PayloadError

    try:
        return None if stored is None else queues.codec.decode(stored)
    except PayloadError:
        return repr(stored)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="milliseconds")


def listed(queues: QueueManager, args: argparse.Namespace) -> int:
    """List jobs of a queue in one state."""
    from eventperf.queues import JobState, UnknownQueue

    if args.limit < 1 or args.offset < 0:
        raise ConfigurationError("--limit", args.limit, "at least 1, with an --offset of at least 0")
    try:
        state = JobState(args.state)
    except ValueError:
        allowed = [one.value for one in JobState if one is not JobState.CANCELLED]
        raise ConfigurationError("--state", args.state, allowed) from None
    if args.queue not in queues.queues:
        raise UnknownQueue("queue", args.queue, queues.queues)
    found = queues.backend.sync().listing(args.queue, state, offset=args.offset, limit=args.limit)
    columns = ("id", "type", "state", "priority", "attempt", "created", "error")
    rows = [
        (j.id, j.type, j.state.value, j.priority, j.attempt, _when(j.created_at), _line(j.error))
        for j in found
    ]
    if args.json:
        emit_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        table(columns, rows)
    return 0


def jobs(queues: QueueManager, args: argparse.Namespace) -> int:
    """Show a page of a search."""
    page = queues.jobs(
        state=args.state, queue=args.queue, type=args.type, tag=args.tag, text=args.text, limit=args.limit,
        cursor=args.cursor,
    )  # fmt: skip
    columns = ("id", "type", "queue", "state", "priority", "attempt", "created", "error")
    rows = [
        (j.id, j.type, j.queue, j.state.value, j.priority, j.attempt, _when(j.created_at), _line(j.error))
        for j in page.jobs
    ]
    if args.json:
        emit_json({"jobs": [dict(zip(columns, row, strict=True)) for row in rows], "cursor": page.cursor})
        return 0
    table(columns, rows)
    if page.cursor:
        say(f"more: --cursor {page.cursor}")
    return 0


def update(queues: QueueManager, args: argparse.Namespace) -> int:
    """Change a job that has not begun."""
    changes: dict[str, Any] = {"delay": args.delay, "priority": args.priority, "queue": args.queue}
    if args.at is not None:
        try:
            changes["at"] = datetime.fromisoformat(args.at)
        except ValueError:
            raise ConfigurationError("--at", args.at, "a time such as 2026-05-01T09:00:00+09:00") from None
    if args.data is not None:
        try:
            changes["data"] = json.loads(args.data)
        except ValueError:
            raise ConfigurationError("--data", args.data, "JSON") from None
    queues.update(args.id, **changes)
    say(f"{args.id} is changed")
    if args.data is not None and queues.job_info(args.id).type not in queues.types:
        print(
            "its data was not checked: only the application knows its type",
            file=sys.stderr,
        )
    return 0


def metrics(queues: QueueManager, args: argparse.Namespace) -> int:
    """Show what the queues did."""
    metrics = queues.metrics(args.since, args.step or "1m")
    found = (
        metrics.intervals if args.step else [one for _, one in sorted(metrics.by("queue", "type").items())]
    )
    columns = ("queue", "type", "completed", "failed", "retried", "cancelled", "crashed")
    times = [(name, percent) for name in ("wait", "run") for percent in (50, 95, 99)]
    rows = []
    for one in found:
        counts = [getattr(one, column) for column in columns]
        rows.append([_when(one.at), *counts, *(getattr(one, name).percentile(p) for name, p in times)])
    names = ("since", *columns, *(f"{name}_p{percent}_s" for name, percent in times))
    if args.json:
        emit_json([dict(zip(names, row, strict=True)) for row in rows])
        return 0
    table(names, [[f"{x:.3g}" if isinstance(x, float) else x for x in row] for row in rows])
    return 0


def workers(queues: QueueManager, args: argparse.Namespace) -> int:
    """List live workers."""
    found = queues.workers()
    if args.json:
        emit_json([asdict(one) for one in found])
        return 0
    columns = ("id", "queues", "running", "slots", "host", "pid", "version", "eventperf", "started")
    rows = [
        (
            one.id, ",".join(one.queues), one.running, one.slots, one.host or "", one.pid or "",
            one.version or "", one.eventperf_version or "", _when(one.started_at) if one.started_at else "",
        )
        for one in found
    ]  # fmt: skip
    table(columns, rows)
    return 0


def _line(error: str | None) -> str:
    return (error or "").partition("\n")[0]
