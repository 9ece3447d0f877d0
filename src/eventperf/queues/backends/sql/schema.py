"""The tables of the SQL job store, made and upgraded only when asked (in SQLite at first use).

All names start with ``eventperf_``; one set of tables serves every namespace of a database.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeEngine

from eventperf.queues.errors import QueueError, SchemaMissing

VERSION: Final = 2
"""Version of the tables this release reads and writes."""

WAITING: Final = 0
DELAYED: Final = 1
ACTIVE: Final = 2
COMPLETED: Final = 3
FAILED: Final = 4
CANCELLED: Final = 5
PARKED: Final = 6
"""States as they are stored; a parked job waits for a worker that knows its type."""

NEVER: Final = 1e18
"""When a delayed job is due that waits for others."""

metadata: MetaData = MetaData()

_BIG = BigInteger().with_variant(Integer, "sqlite")
_FAMILY = ("mysql", "mariadb")
_BINARY = LargeBinary().with_variant(mysql.LONGBLOB(), *_FAMILY)
_LONG = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), *_FAMILY)


def _name(length: int = 200) -> TypeEngine[Any]:
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, *_FAMILY)


def _number(name: str, kind: Any = Integer, default: str = "0") -> Column[Any]:
    return Column(name, kind, nullable=False, server_default=text(default))


schema_table: Table = Table("eventperf_schema", metadata, Column("version", Integer, primary_key=True))

jobs: Table = Table(
    "eventperf_jobs",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=True),
    Column("ns", BigInteger, nullable=False),
    Column("id", _name(), nullable=False),
    Column("type", _name(), nullable=False),
    Column("queue", _name(), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("turn", BigInteger, nullable=False),  # the fairness key, hashed
    Column("state", SmallInteger, nullable=False),
    Column("at", Double, nullable=False),  # due, end of lease, or when it may be forgotten
    Column("tag", Double, nullable=False),  # place in its class
    Column("created_at", Double, nullable=False),
    Column("ready_at", Double, nullable=False),
    Column("deadline_at", Double),
    Column("held_key", String(64)),  # its row in the unique table
    Column("held_for", String(32)),
    Column("payload", _BINARY, nullable=False),
    Column("facts", _LONG),
    _number("attempts"),
    _number("crashes"),
    _number("token", BigInteger),
    Column("worker", _name()),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("cancel", Boolean, nullable=False, server_default=text("false")),
    Column("progress", Double),
    Column("error", _LONG),
    Column("result", _BINARY),
    Column("steps", _LONG),
    mysql_engine="InnoDB",
)
_c = jobs.c


def _index(name: str, *columns: Any, where: Any, unique: bool = False) -> None:
    """Index only the rows in ``where`` on servers that can."""
    Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where)


Index("eventperf_jobs_id", _c.ns, _c.id, unique=True)
_index(
    "eventperf_jobs_next", _c.ns, _c.state, _c.queue, _c.priority, _c.tag, _c.seq, where=_c.state == WAITING
)
_index(
    "eventperf_jobs_turn", _c.ns, _c.state, _c.queue, _c.priority, _c.turn, _c.tag, where=_c.state == WAITING
)
_index("eventperf_jobs_time", _c.ns, _c.state, _c.at, where=_c.state != WAITING)
_index("eventperf_jobs_ended", _c.ns, _c.state, _c.queue, _c.finished_at, where=_c.state.in_((3, 4)))

lanes: Table = Table(
    "eventperf_lanes",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("queue", _name(), primary_key=True),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    _number("skipped"),
    mysql_engine="InnoDB",
)

queues: Table = Table(
    "eventperf_queues",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("queue", _name(), primary_key=True),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    _number("credit"),
    mysql_engine="InnoDB",
)

unique: Table = Table(
    "eventperf_unique",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("held_key", String(64), primary_key=True),
    Column("job_id", _name(), nullable=False),
    Column("until", Double, nullable=False),
    mysql_engine="InnoDB",
)

workers: Table = Table(
    "eventperf_workers",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("id", _name(), primary_key=True),
    Column("queues", _LONG, nullable=False),
    Column("types", _LONG, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("lease_s", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("gone", Boolean, nullable=False, server_default=text("false")),
    mysql_engine="InnoDB",
)

schedules: Table = Table(
    "eventperf_schedules",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("name", _name(), primary_key=True),
    Column("slot", Double, nullable=False, server_default=text("-1")),  # the last one that fired
    Column("asked_at", Double, nullable=False),
    mysql_engine="InnoDB",
)

links: Table = Table(
    "eventperf_links",
    metadata,
    Column("ns", BigInteger, primary_key=True, autoincrement=False),
    Column("parent_id", _name(), primary_key=True),
    Column("child_id", _name(), primary_key=True),
    Column("ended", Boolean, nullable=False),  # freed by any end of the parent, not by success only
    Index("eventperf_links_child", "ns", "child_id"),
    mysql_engine="InnoDB",
)
"""Who waits for whom."""

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
    Column("n", _BIG, primary_key=True, autoincrement=True),
    Column("ns", BigInteger, nullable=False),
    Column("scope", BigInteger, nullable=False),  # the limit, hashed
    Column("turn", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Index("eventperf_starts_at", "ns", "scope", "at"),
    mysql_engine="InnoDB",
)
"""What has started within the span of each rate limit."""

COUNTERS: Final = (
    "waiting", "delayed", "active", "enqueued", "completed", "failed", "cancelled", "retried", "stalled",
    "dead", "replayed", "woke", "called", "runs",
)  # fmt: skip

tallies: Table = Table(
    "eventperf_tallies",
    metadata,
    Column("n", _BIG, primary_key=True, autoincrement=True),
    Column("ns", BigInteger, nullable=False),
    Column("queue", _name(), nullable=False),
    Column("bucket", BigInteger, nullable=False),
    *(_number(counter, BigInteger) for counter in COUNTERS),
    _number("run_s", Double),
    Index("eventperf_tallies_ns", "ns"),
    mysql_engine="InnoDB",
)
"""Changes of the counters, appended so that no transaction waits for another's, folded now and then."""


def hashed(*parts: str) -> int:
    """Return a stable number for a namespace or a fairness key; fits a signed BIGINT.

    >>> hashed("default") == hashed("default") != hashed("other")
    True
    """
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def version_of(conn: Connection) -> int:
    """Return the version of the tables in this database; 0 when there are none."""
    if not inspect(conn).has_table(schema_table.name):
        return 0
    return conn.execute(select(schema_table.c.version)).scalar() or 0


def check(conn: Connection) -> None:
    """Refuse a database without the tables of this release.

    Raises:
        SchemaMissing: They are not there, or of another version.
    """
    if (found := version_of(conn)) != VERSION:
        raise SchemaMissing(found, VERSION)


def create(engine: Engine) -> None:
    """Make the tables; harmless when they are there.

    Raises:
        QueueError: The tables are of a newer release than this one.
    """
    with engine.begin() as conn:
        found = version_of(conn)
        if found > VERSION:
            raise QueueError(f"the tables are of version {found}, this release knows {VERSION}")
        if found == VERSION:
            return
        if conn.dialect.name == "postgresql":  # two processes may start at once
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": hashed("eventperf", "schema")})
        metadata.create_all(conn)
        if conn.execute(select(schema_table.c.version).with_for_update()).first() is None:
            conn.execute(insert(schema_table).values(version=VERSION))
        else:
            conn.execute(update(schema_table).values(version=VERSION))


def ddl(engine: Engine) -> str:
    """Return the statements of :func:`create`, for a migration tool."""
    found = []
    for table in metadata.sorted_tables:
        found.append(str(CreateTable(table).compile(engine)).strip())
        found += [
            str(CreateIndex(i).compile(engine)) for i in sorted(table.indexes, key=lambda i: str(i.name))
        ]
    found.append(f"INSERT INTO {schema_table.name} (version) VALUES ({VERSION})")
    return ";\n\n".join(found) + ";\n"
