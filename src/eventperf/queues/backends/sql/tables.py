"""The tables of the SQL job store, as this release reads and writes them.

All names start with ``eventperf_``; one set of tables serves every namespace of a database.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, String, Table, or_, text

from .columns import (
    BIG,
    BINARY,
    DOUBLE,
    FAMILY,
    FLAG,
    INTEGER,
    LONG,
    PARTIAL,
    SMALL,
    WIDE,
    name_type,
    text_type,
)

VERSION: Final = 6
"""Version of the tables this release reads and writes; each has its step in :mod:`.sql_steps`."""

WAITING: Final = 0
DELAYED: Final = 1
ACTIVE: Final = 2
COMPLETED: Final = 3
FAILED: Final = 4
CANCELLED: Final = 5
PARKED: Final = 6
HELD: Final = 7
"""States as they are stored. A parked job waits for a worker that knows its type, a held one until a limit
lets it through; both count as waiting."""

ENDED: Final = (COMPLETED, FAILED, CANCELLED)

NEVER: Final = 1e18
"""When a delayed job is due that waits for others."""

metadata: MetaData = MetaData()


def _number(name: str, kind: Any = INTEGER, default: str = "0") -> Column[Any]:
    return Column(name, kind, nullable=False, server_default=text(default))


schema_table: Table = Table("eventperf_schema", metadata, Column("version", Integer, primary_key=True))

jobs: Table = Table(
    "eventperf_jobs",
    metadata,
    Column("seq", BIG, primary_key=True, autoincrement=True),
    Column("ns", WIDE, nullable=False),
    Column("id", name_type(), nullable=False),
    Column("type", name_type(), nullable=False),
    Column("queue", name_type(), nullable=False),
    Column("priority", INTEGER, nullable=False),
    Column("turn", WIDE, nullable=False),  # the fairness key, hashed
    Column("state", SMALL, nullable=False),
    Column("at", DOUBLE, nullable=False),  # due, end of lease, or when it may be forgotten
    Column("tag", DOUBLE, nullable=False),  # place in its class
    Column("created_at", DOUBLE, nullable=False),
    Column("ready_at", DOUBLE, nullable=False),
    Column("deadline_at", DOUBLE),
    Column("held_key", text_type(64)),  # its row in the unique table
    Column("held_for", text_type(32)),
    Column("payload", BINARY, nullable=False),
    Column("facts", LONG),
    _number("attempts"),
    _number("crashes"),
    _number("token", WIDE),
    Column("worker", name_type()),
    Column("started_at", DOUBLE),
    Column("finished_at", DOUBLE),
    Column("cancel", FLAG, nullable=False, server_default=text("false")),
    Column("progress", DOUBLE),
    Column("error", LONG),
    Column("result", BINARY),
    Column("steps", LONG),
    Column("history", LONG),  # its last runs, JSON; a first run that completes is not written down
    mysql_engine="InnoDB",
)
_c = jobs.c

SHOWN: Final = tuple(column for column in _c if column is not _c.history)
"""The columns of a listing."""


def _index(name: str, *columns: Any, where: Any, unique: bool = False, **more: Any) -> None:
    """Index only the rows in ``where`` on servers that can."""
    Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where, **more)


def _waiting(name: str, whole: str, *columns: Any) -> None:
    """Index what waits: ``name`` where an index may leave rows out, else ``whole``, with the state in it.

    PostgreSQL drops a condition that the index' own implies: of a column before ``queue`` it then knows
    nothing, and reads all that waits.
    """
    only = {"engines": PARTIAL}
    _index(name, _c.ns, *columns, where=_c.state == WAITING, info=only)
    Index(whole, _c.ns, _c.state, *columns, info={"engines": FAMILY})


Index("eventperf_jobs_id", _c.ns, _c.id, unique=True)
_waiting("eventperf_jobs_class", "eventperf_jobs_next", _c.queue, _c.priority, _c.tag, _c.seq)
_waiting("eventperf_jobs_fair", "eventperf_jobs_turn", _c.queue, _c.priority, _c.turn, _c.tag)
_index("eventperf_jobs_time", _c.ns, _c.state, _c.at, where=_c.state != WAITING)
_index("eventperf_jobs_parked", _c.ns, _c.state, _c.type, _c.at, where=_c.state == PARKED)
_held: dict[str, Any] = {"where": _c.state == HELD, "info": {"engines": PARTIAL}}
_index("eventperf_jobs_held", _c.ns, _c.queue, _c.priority, _c.tag, _c.seq, **_held)
_index("eventperf_jobs_held_fair", _c.ns, _c.queue, _c.priority, _c.turn, _c.tag, **_held)
_index("eventperf_jobs_ended", _c.ns, _c.state, _c.queue, _c.finished_at, where=_c.state.in_((3, 4)))

lanes: Table = Table(
    "eventperf_lanes",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("queue", name_type(), primary_key=True),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    _number("skipped"),
    mysql_engine="InnoDB",
)

queues: Table = Table(
    "eventperf_queues",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("queue", name_type(), primary_key=True),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    _number("credit"),
    mysql_engine="InnoDB",
)

unique: Table = Table(
    "eventperf_unique",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("held_key", String(64), primary_key=True),
    Column("job_id", name_type(), nullable=False),
    Column("until", Double, nullable=False),
    mysql_engine="InnoDB",
)

workers: Table = Table(
    "eventperf_workers",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("id", name_type(), primary_key=True),
    Column("queues", LONG, nullable=False),
    Column("types", LONG, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("lease_s", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("gone", Boolean, nullable=False, server_default=text("false")),
    Column("about", LONG),
    mysql_engine="InnoDB",
)

schedules: Table = Table(
    "eventperf_schedules",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("name", name_type(), primary_key=True),
    Column("slot", Double, nullable=False, server_default=text("-1")),  # the last one that fired
    Column("asked_at", Double, nullable=False),
    mysql_engine="InnoDB",
)

links: Table = Table(
    "eventperf_links",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("parent_id", name_type(), primary_key=True),
    Column("child_id", name_type(), primary_key=True),
    Column("ended", Boolean, nullable=False),  # freed by any end of the parent, not by success only
    Index("eventperf_links_child", "ns", "child_id"),
    mysql_engine="InnoDB",
)
"""Who waits for whom; under :func:`kin` of a namespace who ever waited for whom, while the parent is kept."""

tags: Table = Table(
    "eventperf_tags",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("tag", name_type(), primary_key=True),
    Column("job_seq", BIG, primary_key=True, autoincrement=False),
    Index("eventperf_tags_job", "job_seq"),
    mysql_engine="InnoDB",
)
"""The words by which jobs are found; a row for each of a job's, none for a job without."""

minutes: Table = Table(
    "eventperf_minutes",
    metadata,
    Column("n", BIG, primary_key=True, autoincrement=True),
    Column("ns", WIDE, nullable=False),
    Column("minute", WIDE, nullable=False),
    Column("facts", LONG, nullable=False),
    Index("eventperf_minutes_at", "ns", "minute"),
    mysql_engine="InnoDB",
)
"""What ended in a minute by queue and type, JSON; appended about once a second, added up when it is over."""

turns: Table = Table(
    "eventperf_limits",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    mysql_engine="InnoDB",
)
"""The row on which claims under limits take turns."""

starts: Table = Table(
    "eventperf_starts",
    metadata,
    Column("n", BIG, primary_key=True, autoincrement=True),
    Column("ns", BigInteger, nullable=False),
    Column("scope", BigInteger, nullable=False),  # the limit, hashed
    Column("turn", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Index("eventperf_starts_at", "ns", "scope", "at"),
    Index("eventperf_starts_turn", "ns", "scope", "turn", "at"),
    mysql_engine="InnoDB",
)
"""What has started within the span of each rate limit."""

shelves: Table = Table(
    "eventperf_shelves",
    metadata,
    Column("n", BIG, primary_key=True, autoincrement=True),
    Column("ns", BigInteger, nullable=False),
    Column("scope", BigInteger, nullable=False),  # the limit, hashed
    Column("turn", BigInteger, nullable=False),
    Column("queue", name_type(), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("at", Double, nullable=False),  # when to look whether it opens
    Index("eventperf_shelves_class", "ns", "scope", "turn", "queue", "priority", unique=True),
    Index("eventperf_shelves_at", "ns", "at"),
    Index("eventperf_shelves_queue", "ns", "queue", "at"),
    mysql_engine="InnoDB",
)
"""The classes of which a limit holds jobs back."""

held: Table = Table(
    "eventperf_held",
    metadata,
    Column("shelf", BIG, primary_key=True, autoincrement=False),
    Column("tag", Double, primary_key=True),
    Column("job_seq", BIG, primary_key=True, autoincrement=False),
    Index("eventperf_held_job", "job_seq"),
    mysql_engine="InnoDB",
)
"""The jobs on each shelf, in their order."""

COUNTERS: Final = (
    "waiting", "delayed", "active", "enqueued", "completed", "failed", "cancelled", "retried", "stalled",
    "dead", "replayed", "woke", "called", "runs", "trimmed", "lapsed",
)  # fmt: skip

tallies: Table = Table(
    "eventperf_tallies",
    metadata,
    Column("n", BIG, primary_key=True, autoincrement=True),
    Column("ns", BigInteger, nullable=False),
    Column("queue", name_type(), nullable=False),
    Column("bucket", BigInteger, nullable=False),
    *(_number(counter, BigInteger) for counter in COUNTERS if counter not in ("trimmed", "lapsed")),
    _number("run_s", Double),
    _number("trimmed", BigInteger),  # dead jobs beyond what is kept
    _number("lapsed", BigInteger),  # leases that ended though their worker lives
    Index("eventperf_tallies_ns", "ns"),
    mysql_engine="InnoDB",
)
"""Changes of the counters, appended so that no transaction waits for another's, folded now and then."""


BEYOND: Final = 1e300
"""No time is later; what is not a number sorts behind it, in SQLite and in PostgreSQL."""


def is_due(now: float) -> Any:
    """Return the condition that the time of a job has come, or is none."""
    return or_(jobs.c.at <= now, jobs.c.at > BEYOND)


def in_state(*states: int) -> Any:
    """Return the condition that a job is in one of ``states``, written so that partial indexes serve it.

    The states stand in the statement itself: of a bound value neither SQLite nor a prepared statement of
    PostgreSQL knows that it is within an index's own condition, and SQLite must find that condition as it is.
    """
    numbers = ", ".join(str(state) for state in states)
    column = f"{jobs.name}.state"
    said = f"{column} = {numbers}" if len(states) == 1 else f"{column} IN ({numbers})"
    if WAITING not in states:
        said += f" AND {column} != {WAITING}"
    if set(states) <= {COMPLETED, FAILED}:
        said += f" AND {column} IN (3, 4)"
    return text(f"({said})")


def kin(ns: int) -> int:
    """Return the number under which links of a namespace are remembered; none is that of another."""
    return -1 - ns


def hashed(*parts: str) -> int:
    """Return a stable number for a namespace or a fairness key; fits a signed BIGINT.

    >>> hashed("default") == hashed("default") != hashed("other")
    True
    """
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
