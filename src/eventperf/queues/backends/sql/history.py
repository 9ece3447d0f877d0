"""How the tables came to be what they are: one step from each version to the next.

A step is history: it says what changed when it was released, never what the tables are today
(:mod:`.sql_schema` does), and is not edited afterwards. Every change looks whether it is there already,
because MariaDB and MySQL commit each of them by itself: a run that was stopped half-way is finished by
the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from .columns import BIG, PARTIAL, name_type

__all__ = ["STEPS", "Step", "There"]

_LONG = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), "mysql", "mariadb")


class There(Protocol):
    """What is there already."""

    def has_table(self, table: str) -> bool: ...
    def has_column(self, table: str, column: str) -> bool: ...
    def has_index(self, table: str, index: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one release changed; nothing that a worker of the release before it could not live with.

    Attributes:
        why: For people, in a few words.
        tables: New tables, with their indexes.
        columns: New columns, each with a default, in a table of its own here.
        indexes: New indexes of tables that are there.
        replaced: Indexes that are of no use any more where an index may leave rows out (``PARTIAL``).
    """

    why: str
    tables: Sequence[Table] = ()
    columns: Sequence[Column[Any]] = ()
    indexes: Sequence[Index] = ()
    replaced: Sequence[str] = ()

    def statements(self, dialect: Dialect, there: There) -> Iterator[str]:
        """Yield what has to be said to the server, one statement at a time."""

        def words(element: Any) -> str:
            return str(element.compile(dialect=dialect)).strip()

        for table in self.tables:
            if not there.has_table(table.name):
                yield words(CreateTable(table))
            yield from _indexes(table.indexes, there, words, dialect.name)
        for column in self.columns:
            if not there.has_column(column.table.name, column.name):
                yield f"ALTER TABLE {column.table.name} ADD COLUMN {words(CreateColumn(column))}"
        yield from _indexes(self.indexes, there, words, dialect.name)
        if dialect.name in PARTIAL:
            yield from (f"DROP INDEX IF EXISTS {name}" for name in self.replaced)


def _indexes(indexes: Any, there: There, words: Callable[[Any], str], engine: str) -> Iterator[str]:
    for index in sorted(indexes, key=lambda one: str(one.name)):
        assert index.table is not None
        if engine not in index.info.get("engines", (engine,)):
            continue
        if not there.has_index(index.table.name, str(index.name)):
            yield words(CreateIndex(index))


def _number(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _second() -> Step:
    known = MetaData()
    schedules = Table(
        "eventperf_schedules",
        known,
        Column("ns", BigInteger, primary_key=True, autoincrement=False),
        Column("name", name_type(), primary_key=True),
        Column("slot", Double, nullable=False, server_default=text("-1")),
        Column("asked_at", Double, nullable=False),
        mysql_engine="InnoDB",
    )
    links = Table(
        "eventperf_links",
        known,
        Column("ns", BigInteger, primary_key=True, autoincrement=False),
        Column("parent_id", name_type(), primary_key=True),
        Column("child_id", name_type(), primary_key=True),
        Column("ended", Boolean, nullable=False),
        Index("eventperf_links_child", "ns", "child_id"),
        mysql_engine="InnoDB",
    )
    return Step(why="schedules, and jobs that wait for others", tables=(schedules, links))


def _third() -> Step:
    known = MetaData()
    jobs = Table(
        "eventperf_jobs",
        known,
        Column("ns", BigInteger),
        Column("state", SmallInteger),
        Column("type", name_type()),
        Column("at", Double),
    )
    c = jobs.c
    parked = c.state == text("6")
    index = Index(
        "eventperf_jobs_parked", c.ns, c.state, c.type, c.at, postgresql_where=parked, sqlite_where=parked
    )
    tallies = Table("eventperf_tallies", known, _number("trimmed"), _number("lapsed"))
    limits = Table(
        "eventperf_limits",
        known,
        Column("ns", BigInteger, primary_key=True, autoincrement=False),
        mysql_engine="InnoDB",
    )
    starts = Table(
        "eventperf_starts",
        known,
        Column("n", BIG, primary_key=True, autoincrement=True),
        Column("ns", BigInteger, nullable=False),
        Column("scope", BigInteger, nullable=False),
        Column("turn", BigInteger, nullable=False),
        Column("at", Double, nullable=False),
        Index("eventperf_starts_at", "ns", "scope", "at"),
        mysql_engine="InnoDB",
    )
    return Step(
        why="limits, an index for jobs of unknown types, counts of trimmed dead jobs and of lapsed leases",
        tables=(limits, starts),  # tables of version 2 may have them
        columns=tuple(tallies.c),
        indexes=(index,),
    )


def _fourth() -> Step:
    known = MetaData()
    jobs = Table("eventperf_jobs", known, Column("history", _LONG))
    tags = Table(
        "eventperf_tags",
        known,
        Column("ns", BigInteger, primary_key=True, autoincrement=False),
        Column("tag", name_type(), primary_key=True),
        Column("job_seq", BIG, primary_key=True, autoincrement=False),
        Index("eventperf_tags_job", "job_seq"),
        mysql_engine="InnoDB",
    )
    minutes = Table(
        "eventperf_minutes",
        known,
        Column("n", BIG, primary_key=True, autoincrement=True),
        Column("ns", BigInteger, nullable=False),
        Column("minute", BigInteger, nullable=False),
        Column("facts", _LONG, nullable=False),
        Index("eventperf_minutes_at", "ns", "minute"),
        mysql_engine="InnoDB",
    )
    waiting = Table(
        "eventperf_jobs",
        MetaData(),
        Column("ns", BigInteger),
        Column("state", SmallInteger),
        Column("queue", name_type()),
        Column("priority", Integer),
        Column("tag", Double),
        Column("seq", BIG),
        Column("turn", Double),
    )
    c = waiting.c
    only: Any = {"postgresql_where": c.state == 0, "sqlite_where": c.state == 0, "info": {"engines": PARTIAL}}
    return Step(
        why="attempts of jobs, tags, minutes of what the queues did; claims at a million jobs",
        tables=(tags, minutes),
        columns=tuple(jobs.c),
        indexes=(
            Index("eventperf_jobs_class", c.ns, c.queue, c.priority, c.tag, c.seq, **only),
            Index("eventperf_jobs_fair", c.ns, c.queue, c.priority, c.turn, c.tag, **only),
        ),
        replaced=("eventperf_jobs_next", "eventperf_jobs_turn"),
    )


def _fifth() -> Step:
    workers = Table("eventperf_workers", MetaData(), Column("about", _LONG))
    return Step(why="what workers tell of themselves", columns=tuple(workers.c))


def _shelf_tables() -> tuple[Table, Table]:
    known = MetaData()
    shelves = Table(
        "eventperf_shelves",
        known,
        Column("n", BIG, primary_key=True, autoincrement=True),
        Column("ns", BigInteger, nullable=False),
        Column("scope", BigInteger, nullable=False),
        Column("turn", BigInteger, nullable=False),
        Column("queue", name_type(), nullable=False),
        Column("priority", Integer, nullable=False),
        Column("at", Double, nullable=False),
        Index("eventperf_shelves_class", "ns", "scope", "turn", "queue", "priority", unique=True),
        Index("eventperf_shelves_at", "ns", "at"),
        Index("eventperf_shelves_queue", "ns", "queue", "at"),
        mysql_engine="InnoDB",
    )
    held = Table(
        "eventperf_held",
        known,
        Column("shelf", BIG, primary_key=True, autoincrement=False),
        Column("tag", Double, primary_key=True),
        Column("job_seq", BIG, primary_key=True, autoincrement=False),
        Index("eventperf_held_job", "job_seq"),
        mysql_engine="InnoDB",
    )
    return shelves, held


def _sixth() -> Step:
    known = MetaData()
    jobs = Table(
        "eventperf_jobs",
        known,
        Column("ns", BigInteger),
        Column("state", SmallInteger),
        Column("queue", name_type()),
        Column("priority", Integer),
        Column("turn", BigInteger),
        Column("tag", Double),
        Column("seq", BIG),
    )
    starts = Table(
        "eventperf_starts", known, *(Column(name, BigInteger) for name in ("ns", "scope", "turn")),
        Column("at", Double),
    )  # fmt: skip
    c, t = jobs.c, starts.c
    is_held = c.state == text("7")
    only: Any = {"postgresql_where": is_held, "sqlite_where": is_held, "info": {"engines": PARTIAL}}
    return Step(
        why="jobs that a limit holds back stand on shelves of their own",
        tables=_shelf_tables(),
        indexes=(
            Index("eventperf_jobs_held", c.ns, c.queue, c.priority, c.tag, c.seq, **only),
            Index("eventperf_jobs_held_fair", c.ns, c.queue, c.priority, c.turn, c.tag, **only),
            Index("eventperf_starts_turn", t.ns, t.scope, t.turn, t.at),
        ),
    )


STEPS: Final[dict[int, Step]] = {2: _second(), 3: _third(), 4: _fourth(), 5: _fifth(), 6: _sixth()}
"""The step that leads to each version. Tables of version 1 are older than any step."""
