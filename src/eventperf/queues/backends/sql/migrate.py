"""Making the tables and bringing those of older releases up to date, alone, whoever else starts now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.engine import Connection, Engine

from eventperf.queues.errors import SchemaMissing, StoreUnavailable

from . import tables as s
from .history import STEPS, Step

FRESH: Final = Step(why="all tables", tables=s.metadata.sorted_tables)

_LOCK = s.hashed("eventperf", "schema")
_PATIENCE_S = 30


class _Found:
    """The tables of a database, looked up once."""

    def __init__(self, conn: Connection) -> None:
        self._look: Any = inspect(conn)

    @cached_property
    def tables(self) -> frozenset[str]:
        return frozenset(self._look.get_table_names())

    def has_table(self, table: str) -> bool:
        return table in self.tables

    def has_column(self, table: str, column: str) -> bool:
        return self.has_table(table) and column in {c["name"] for c in self._look.get_columns(table)}

    def has_index(self, table: str, index: str) -> bool:
        return self.has_table(table) and index in {i["name"] for i in self._look.get_indexes(table)}


class _Nothing:
    """A database that nobody has asked."""

    def has_table(self, table: str) -> bool:
        return False

    def has_column(self, table: str, column: str) -> bool:
        return False

    def has_index(self, table: str, index: str) -> bool:
        return False


def version_of(conn: Connection) -> int:
    """Return the version of the tables in this database; 0 when there are none."""
    if not inspect(conn).has_table(s.schema_table.name):
        return 0
    return conn.execute(select(s.schema_table.c.version)).scalar() or 0


def check(conn: Connection) -> None:
    """Refuse a database without the tables of this release.

    Raises:
        SchemaMissing: They are not there, or of another version.
    """
    if (found := version_of(conn)) != s.VERSION:
        raise SchemaMissing(found, s.VERSION)


def lacking(conn: Connection) -> list[str]:
    """Return the tables and columns that this release needs and this database has not."""
    there, missing = _Found(conn), list[str]()
    for table in s.metadata.sorted_tables:
        if not there.has_table(table.name):
            missing.append(table.name)
            continue
        have = {column["name"] for column in there._look.get_columns(table.name)}
        missing += [f"{table.name}.{column.name}" for column in table.c if column.name not in have]
    return missing


def create(engine: Engine) -> int:
    """Make the tables, or bring older ones up to date; harmless when they are.

    Returns:
        The version that was found; 0 when there were no tables.

    Raises:
        SchemaMissing: The tables are of a newer release, or of none.
        StoreUnavailable: Another process is at it and does not come to an end.
    """
    with engine.connect() as conn:
        conn.execution_options(eventperf_write=False)
        with conn.begin():
            found = version_of(conn)
    if found == s.VERSION:
        return found
    with engine.connect() as conn, _alone(conn):
        return bring_up(conn)


def bring_up(conn: Connection) -> int:
    """Do what :func:`create` does in the transaction of ``conn``."""
    found = version_of(conn)
    if found > s.VERSION:
        raise SchemaMissing(found, s.VERSION)
    if found < s.VERSION:
        for step in steps_after(found):
            for statement in step.statements(conn.dialect, _Found(conn)):
                conn.exec_driver_sql(statement.replace("%", "%%"))
        if missing := lacking(conn):
            raise SchemaMissing(found, s.VERSION, missing)
        stamp = update if found else insert
        conn.execute(stamp(s.schema_table).values(version=s.VERSION))
    return found


def steps_after(version: int) -> list[Step]:
    """Return what leads from tables of ``version`` to those of this release."""
    return [STEPS[n] for n in range(version + 1, s.VERSION + 1)] if version else [FRESH]


@contextmanager
def _alone(conn: Connection) -> Iterator[None]:
    """A transaction beside which no other process changes the tables."""
    kind = conn.dialect.name
    if kind in ("postgresql", "sqlite"):  # SQLite's transaction begins with the write lock
        with conn.begin():
            if kind == "postgresql":
                conn.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE_S}s'"))
                conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield
        return
    name = {"name": f"eventperf_schema_{_LOCK}", "wait": _PATIENCE_S}
    if conn.execute(text("SELECT GET_LOCK(:name, :wait)"), name).scalar() != 1:
        raise StoreUnavailable("another process is changing the tables of the job store; try again")
    conn.commit()
    try:
        with conn.begin():
            yield
    finally:
        conn.execute(text("SELECT RELEASE_LOCK(:name)"), name)
        conn.commit()


def ddl(engine: Engine, since: int = 0) -> str:
    """Return the statements of :func:`create` for tables of version ``since``, for a migration tool."""
    there = _Nothing()
    found = [one for step in steps_after(since) for one in step.statements(engine.dialect, there)]
    verb = f"UPDATE {s.schema_table.name} SET version = {s.VERSION}"
    found.append(verb if since else f"INSERT INTO {s.schema_table.name} (version) VALUES ({s.VERSION})")
    return ";\n\n".join(found) + ";\n"
