"""Between jobs and rows of the SQL store, and the counters of one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from eventperf._core.objects import read_json
from eventperf.queues.attempts import KEPT, Attempt, Ending, dumped, loaded
from eventperf.queues.job import JobInfo, JobRecord, JobState, Lease, NewJob, parents
from eventperf.queues.soundness import fault

from . import tables as s

BUCKET_S: Final = 10.0
BUCKETS: Final = 6
MOST_TRIES: Final = 1_000_000_000
"""No job was tried as often, and one more of it still fits its column."""

STATES: Final[Mapping[int, JobState]] = {
    s.WAITING: JobState.WAITING,
    s.DELAYED: JobState.DELAYED,
    s.ACTIVE: JobState.ACTIVE,
    s.COMPLETED: JobState.COMPLETED,
    s.FAILED: JobState.FAILED,
    s.CANCELLED: JobState.CANCELLED,
    s.PARKED: JobState.WAITING,
    s.HELD: JobState.WAITING,
}

_DAMAGED: Final = (ValueError, TypeError, RecursionError)
_COLUMNS: Final = frozenset({"id", "type", "queue", "priority", "payload", "deadline_at", "created_at"})
_FACT_ITEMS: Final = tuple(
    (f.name, f.default) for f in fields(JobRecord) if f.name not in _COLUMNS and f.default is not MISSING
)


def names_of(text: str | None) -> set[str]:
    """Return the set of names in a column, empty when what lies there is none.

    >>> names_of('["a", "b"]') == {"a", "b"}, names_of("{")
    (True, set())
    """
    try:
        found = read_json(text or "[]")
    except _DAMAGED:
        return set()
    return {str(name) for name in found} if isinstance(found, list) else set()


def facts_of(text: str | None) -> dict[str, Any]:
    """Return the facts in a column, none when what lies there is something else."""
    try:
        found = read_json(text or "{}")
    except _DAMAGED:
        return {}
    return found if isinstance(found, dict) else {}


def clean(text: str | None) -> str | None:
    """Return ``text`` as every database can store it: without NUL, lone surrogates made visible.

    >>> clean("no file \\udcff\\0")
    'no file \\\\udcff\\\\x00'
    """
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def facts(record: JobRecord) -> str | None:
    """Return the rarely used fields of ``record`` that differ from their defaults."""
    found = {name: v for name, default in _FACT_ITEMS if (v := getattr(record, name)) != default}
    return json.dumps(found, separators=(",", ":")) if found else None


_FACTS: Final = frozenset(name for name, _ in _FACT_ITEMS)


def _more(row: Any) -> dict[str, Any]:
    """Return the facts of ``row``; raise ``ValueError`` for what nobody here wrote."""
    more = read_json(row.facts) if row.facts else {}
    if not isinstance(more, dict) or not more.keys() <= _FACTS:
        raise ValueError("its facts are not those of a job")
    if "tags" in more:
        more["tags"] = tuple(map(str, more["tags"]))
    return more


def _record(row: Any, **more: Any) -> JobRecord:
    return JobRecord(
        id=row.id, type=row.type, queue=row.queue, priority=row.priority, payload=bytes(row.payload),
        deadline_at=row.deadline_at, created_at=row.created_at, **more,
    )  # fmt: skip


def lease_of(row: Any, token: int) -> Lease:
    """Return the lease of the job in ``row``, unreadable when it is not what was enqueued."""
    try:
        record = _record(row, **_more(row))
        why = fault(record)
    except _DAMAGED as error:
        record, why = _record(row), str(error)[:200]
    for name in ("attempts", "crashes"):
        if not 0 <= getattr(row, name) < MOST_TRIES:
            why = f"its {name} are no number of tries"
    return Lease(record, token, max(0, row.attempts) + 1, max(0, row.crashes), why)


def held_key(record: JobRecord) -> str | None:
    """Return the name of the record's unique key, as long for every key."""
    if record.unique_key is None:
        return None
    import hashlib

    return hashlib.sha256(f"{record.type}\0{record.unique_key}".encode("utf-8", "surrogatepass")).hexdigest()


def flow_of(row: Any) -> Mapping[str, Any]:
    """Return what a job waits for; nothing of a damaged one."""
    try:
        flow = _more(row).get("flow")
    except _DAMAGED:
        return {}
    return flow if isinstance(flow, dict) and isinstance(flow.get("after"), list) else {}


def row_of(new: NewJob, ns: int, now: float) -> dict[str, Any]:
    """Return the row of a job that comes in at ``now``; its tag is not known yet."""
    r = new.record
    due = now + new.delay_s if new.delay_s > 0 else 0.0
    return {
        "ns": ns, "id": r.id, "type": r.type, "queue": r.queue, "priority": r.priority,
        "turn": s.hashed(r.key) if r.key else 0, "state": s.DELAYED if due else s.WAITING, "at": due,
        "tag": 0.0, "created_at": now, "ready_at": now,
        "deadline_at": r.deadline_at if new.deadline_s is None else now + new.deadline_s,
        "held_key": held_key(r), "held_for": r.unique_for if isinstance(r.unique_for, str) else "time",
        "payload": r.payload, "facts": facts(r),
    }  # fmt: skip


def history_of(row: Any) -> tuple[Attempt, ...]:
    """Return the runs of ``row``: those written down, and the last one where it completed."""
    try:
        written = loaded(_runs(row.history))
    except (*_DAMAGED, KeyError, AttributeError):
        written = ()
    if row.state != s.COMPLETED or row.started_at is None or (written and written[-1].outcome == "completed"):
        return written
    last = Attempt(
        number=row.attempts, worker=row.worker or "", started_at=row.started_at, outcome="completed",
        seconds=max(0.0, row.finished_at - row.started_at),
    )  # fmt: skip
    return (*written, last)[-KEPT:]


def _runs(history: str | None) -> list[Any]:
    try:
        found = read_json(history) if history else []
    except ValueError:  # damaged since it was written
        return []
    return found if isinstance(found, list) else []


def longer(history: str | None, attempt: Attempt) -> str:
    """Return a job's written runs with one more, the last of them."""
    runs = _runs(history)
    return json.dumps([*runs, dumped(attempt)][-KEPT:], separators=(",", ":"))


def run_of(row: Any, ending: Ending, seconds: float, *said: str | None) -> Attempt:
    """Return the run of ``row`` that ends now, with its error, traceback and log lines."""
    error, trace, logs = (clean(text) for text in said)
    return Attempt(
        number=row.attempts + 1, worker=row.worker or "", started_at=row.started_at or 0.0, seconds=seconds,
        outcome=ending, error=error, traceback=trace, log_tail=logs,
    )  # fmt: skip


def info_of(row: Any, *, whole: bool = False) -> JobInfo:
    """Return what people are shown of ``row``; its runs only of the ``whole`` row."""
    state = row.state
    try:
        more = _more(row)
        headers = {str(name): str(value) for name, value in dict(more.get("headers") or {}).items()}
    except _DAMAGED:  # no worker runs it: the dead letter takes it and says so
        more, headers = {}, {}
    ran = state not in (s.WAITING, s.DELAYED, s.PARKED, s.HELD) and row.token > 0
    return JobInfo(
        id=row.id, type=row.type, queue=row.queue, state=STATES.get(state, JobState.FAILED),
        priority=row.priority, attempt=max(0, row.attempts) + (state == s.ACTIVE), crashes=row.crashes,
        created_at=row.created_at,
        due_at=row.at if state == s.DELAYED and row.at < s.NEVER else None,
        started_at=row.started_at if ran else None,
        finished_at=row.finished_at, worker=row.worker if state == s.ACTIVE else None,
        progress=row.progress if state == s.ACTIVE else None, error=row.error,
        result=None if row.result is None else bytes(row.result), payload=bytes(row.payload),
        key=str(more.get("key", "")), headers=headers, tags=more.get("tags", ()),
        attempts=history_of(row) if whole else (), **parents(more.get("flow")),
    )  # fmt: skip


class Tally:
    """Changes of the counters in one transaction."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, float]] = {}
        self.woke: bool = False
        self.called: bool = False

    def add(self, queue: str, **changes: float) -> None:
        row = self._rows.setdefault(queue, {})
        for name, by in changes.items():
            row[name] = row.get(name, 0) + by
        self.woke = self.woke or bool(changes.get("woke"))
        self.called = self.called or bool(changes.get("called"))

    def write(self, conn: Connection, ns: int, now: float) -> int:
        """Append the changes; return how many rows."""
        bucket = int(now // BUCKET_S)
        return write_tallies(conn, ns, ((queue, bucket, row) for queue, row in self._rows.items()))


def write_tallies(conn: Connection, ns: int, found: Iterable[tuple[str, int, Mapping[str, float]]]) -> int:
    """Append rows ``(queue, bucket, counters)``."""
    rows = [
        {"ns": ns, "queue": queue, "bucket": bucket, "run_s": row.get("run_s", 0.0)}
        | {name: int(row.get(name, 0)) for name in s.COUNTERS}
        for queue, bucket, row in found
        if any(row.values())
    ]
    if rows:
        conn.execute(insert(s.tallies), rows)
    return len(rows)
