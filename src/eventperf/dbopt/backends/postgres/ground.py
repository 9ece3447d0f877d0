"""Real indexes on the copies in ``what_if``, or on what its owner restored there, inside one transaction.

It is rolled back in the end: whatever happens, no index of ours stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final

from eventperf.dbopt.errors import StatementRefused
from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.schema.ddl import create_index_sql, quote, quote_table
from eventperf.dbopt.schema.model import IndexSpec, Schema
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample

from .copies import WHOLE, Copies
from .harmless import harm
from .running import measured
from .what_if import HypoPlanner

#: What was restored tells times with this share of the bytes at least.
_BYTES: Final = 0.5
_LOCK_MS: Final = 500


class CopiesGround:
    """The tables of one planner, in its session."""

    place: str = "tables in what_if"
    copied: Sequence[str] = ()  # what the plans rest on, which is told already

    def __init__(self, psycopg: Any, db: Any, copies: Copies, schema: Schema) -> None:
        self._psycopg, self._db, self._copies, self._schema = psycopg, db, copies, schema
        self._built: dict[str, str] = {}
        self._aside: frozenset[str] = frozenset()

    def unfit(self, table: str, /) -> str | None:
        known = self._schema.tables[table]
        if known.is_partitioned:
            return f"{table} is partitioned"
        if not self._copies.is_restored(table):
            held = self._copies.rows.get(table, 0)
            if held < WHOLE * known.rows:
                return f"what_if has {held:,} of the {known.rows:,} rows of {table}: restore it there"
            return None
        place = quote_table(table, "postgres")
        ((size,),) = self._db.execute("SELECT pg_relation_size(to_regclass(%s))", (place,)).fetchall()
        if size < _BYTES * known.size_bytes:
            return f"{table} has {size:,} bytes in what_if, and {known.size_bytes:,} here"
        return None

    def harm(self, sql: str, /) -> str | None:
        """Return why a statement is not run here."""
        return harm(self._db, self._copies.local(sql))

    def build(self, spec: IndexSpec, name: str, /, *, timeout_s: float) -> None:
        there = replace(spec, table=self._copies.place(spec.table))
        statement = create_index_sql(there, name, "postgres")
        self._change(statement, f"ANALYZE {quote_table(there.table, 'postgres')}", timeout_s=timeout_s)
        self._built[name] = spec.table

    def aside(self, names: frozenset[str], /) -> None:
        self._aside = names

    def drop(self, name: str, table: str, /) -> None:
        self._change(f"DROP INDEX {self._named(name, table)}", timeout_s=5.0)
        self._built.pop(name, None)

    def _named(self, name: str, table: str) -> str:
        schema = table.rpartition(".")[0] if self._copies.is_restored(table) else "pg_temp"
        place = f"{quote(schema, 'postgres')}." if schema else ""
        return f"{place}{quote(name, 'postgres')}"

    def _change(self, *statements: str, timeout_s: float) -> None:
        self._db.execute("SAVEPOINT change")
        try:
            self._db.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
            self._db.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
            for statement in statements:
                self._db.execute(statement)
        except self._psycopg.Error as error:
            if not self._db.closed:
                self._db.execute("ROLLBACK TO SAVEPOINT change")
            raise StatementRefused(statements[0], str(error).splitlines()[0]) from error

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        local = [s._replace(sql=self._copies.local(s.sql)) for s in samples]
        self._db.execute("SAVEPOINT run")
        try:
            for name in self._aside & self._built.keys():  # they are back with the savepoint
                self._db.execute(f"DROP INDEX {self._named(name, self._built[name])}")
            self._db.execute("SET LOCAL transaction_read_only = on")
            return measured(self._psycopg, self._db, local, runs=runs, timeout_s=timeout_s)
        finally:
            if not self._db.closed:
                self._db.execute("ROLLBACK TO SAVEPOINT run")


class GroundedPlanner(HypoPlanner):
    """The planner, with its tables as a place to measure."""

    def ground(self, *, timeout_s: float) -> AbstractContextManager[CopiesGround]:
        """Make the copies whole as far as the time allows; see :class:`CopiesGround`."""
        return self._grounded(time.monotonic() + timeout_s)

    @contextmanager
    def _grounded(self, end: float) -> Iterator[CopiesGround]:
        if self._fallback is not None or self._copies is None:
            reason = "nothing is built in the application's own database" if self.is_real else self.method
            raise StatementRefused("measure", reason)
        try:
            with muted():
                self._set(frozenset())
                with self._writing():
                    self._copies.fill(self._db, end)
                self._db.execute("BEGIN READ WRITE")
                yield CopiesGround(self._psycopg, self._db, self._copies, self._schema)
        except self._psycopg.Error as error:
            raise StatementRefused("measure", str(error).splitlines()[0]) from error
        finally:
            if not self._db.closed:
                self._db.execute("ROLLBACK")
