"""Real indexes on whole copies in ``what_if``: what is chosen from a sample is measured on all rows.

The copies are the planner's own, made whole where they are small enough for the time; they go with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.errors import StatementRefused
from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.rewrites.tree import text_of
from eventperf.dbopt.schema.ddl import create_index_sql, quote
from eventperf.dbopt.schema.model import IndexSpec, Schema
from eventperf.dbopt.statements.fingerprint import parse
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample

from .running import limit_time, measured
from .what_if import ShadowPlanner, Shadows, Source

#: Rows that are copied in a second, at least, and no more of one table than this.
_PER_S: Final = 20_000
_MOST_ROWS: Final = 500_000


class ShadowsGround:
    """The copies of one planner, in its session.

    Args:
        errors: What the driver raises.
        db: The session.
        shadows: The copies.
        schema: The application's tables.
        is_mariadb: Or it is MySQL.
        harmful: Why a statement is not run.
    """

    place: str = "copies in what_if"
    copied: Sequence[str] = ()  # told by the planner

    def __init__(
        self,
        errors: Any,
        db: Any,
        shadows: Shadows,
        schema: Schema,
        *,
        is_mariadb: bool,
        harmful: Callable[[str], str | None],
    ) -> None:
        self._errors, self._db, self._shadows, self._schema = errors, db, shadows, schema
        self._is_mariadb, self._harmful = is_mariadb, harmful
        self._built: dict[str, str] = {}

    def unfit(self, table: str, /) -> str | None:
        if table in self._shadows.whole:
            return None
        held, rows = self._shadows.rows.get(table, 0), self._schema.tables[table].rows
        return f"the copy of {table} has {held:,} of about {rows:,} rows: more did not fit the time"

    def harm(self, sql: str, /) -> str | None:
        """Return why a statement is not run here."""
        return self._harmful(sql)

    def build(self, spec: IndexSpec, name: str, /, *, timeout_s: float) -> None:
        statement = create_index_sql(spec, name, "mysql")
        persistent = " PERSISTENT FOR ALL" if self._is_mariadb else ""
        self._change(
            statement, f"ANALYZE TABLE {quote(spec.table, 'mysql')}{persistent}", timeout_s=timeout_s
        )

        self._built[name] = spec.table

    def clear(self) -> None:
        """Drop what was built and is still there: plans that are asked for later must not see it."""
        for name, table in list(self._built.items()):
            self.drop(name, table)

    def drop(self, name: str, table: str, /) -> None:
        self._built.pop(name, None)
        self._change(f"DROP INDEX {quote(name, 'mysql')} ON {quote(table, 'mysql')}", timeout_s=5.0)

    def _change(self, *statements: str, timeout_s: float) -> None:
        try:
            with self._db.cursor() as cursor:
                limit_time(cursor, max(0.001, timeout_s), is_mariadb=self._is_mariadb)
                try:
                    for statement in statements:
                        cursor.execute(statement)
                        cursor.fetchall()
                finally:
                    if self._db.open:
                        limit_time(cursor, 0, is_mariadb=self._is_mariadb)
        except self._errors as error:
            raise StatementRefused(statements[0], str(error)) from error

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        if any(self._harmful(text) is not None for text in {s.sql for s in samples}):
            return None
        here = [_here(s) for s in samples]
        with self._db.cursor() as cursor:
            cursor.execute("START TRANSACTION READ ONLY")

        def limit(cursor: Any, seconds: float) -> None:
            limit_time(cursor, seconds, is_mariadb=self._is_mariadb)

        return measured(self._errors, self._db, here, runs=runs, timeout_s=timeout_s, limit=limit)


class GroundedPlanner(ShadowPlanner):
    """The planner, with its copies as a place to measure.

    Args:
        errors: What the driver raises.
        harmful: Why a statement is not run.
    """

    def __init__(
        self,
        errors: Any,
        db: Any,
        release: Any,
        source: Source,
        schema: Schema,
        server: str,
        harmful: Callable[[str], str | None],
    ) -> None:
        super().__init__(db, release, source, schema, server)
        self._errors, self._harmful, self._is_mariadb = errors, harmful, server == "MariaDB"

    def ground(self, *, timeout_s: float) -> AbstractContextManager[ShadowsGround]:
        """Make the copies whole, as far as the time allows; see :class:`ShadowsGround`."""
        return self._grounded(timeout_s)

    @contextmanager
    def _grounded(self, timeout_s: float) -> Iterator[ShadowsGround]:
        try:
            with muted():
                self._fill(time.monotonic() + timeout_s)
                self._forget_indexes()
                ground = ShadowsGround(
                    self._errors,
                    self._db,
                    self._shadows,
                    self._schema,
                    is_mariadb=self._is_mariadb,
                    harmful=self._harmful,
                )
                try:
                    yield ground
                finally:
                    if self._db.open:
                        ground.clear()
        except self._errors as error:
            raise StatementRefused("measure", str(error)) from error

    def _fill(self, end: float) -> None:
        """Copy the rest of tables, the smallest first, as long as there is time."""
        tables = self._schema.tables
        for name in sorted(self._shadows.made, key=lambda n: tables[n].rows):
            rows = tables[name].rows
            if name in self._shadows.whole:
                continue
            if rows > min(_MOST_ROWS, _PER_S * (end - time.monotonic())):
                return
            self._shadows.fill(name)
            self._made[name].clear()

    def _forget_indexes(self) -> None:
        """Drop what was built to plan with."""
        for table, made in self._made.items():
            if made and table in self._shadows.made:
                parts = ", ".join(f"DROP INDEX {quote(n, 'mysql')}" for n in made.values())
                with self._db.cursor() as cursor:
                    cursor.execute(f"ALTER TABLE {quote(table, 'mysql')} {parts}")
                made.clear()


def _here(sample: Sample) -> Sample:
    """Return a statement that reads the copies, also where it names the database of its tables."""
    tree = parse(sample.sql, "mysql").tree
    if tree is None or not any(t.db for t in tree.find_all(exp.Table)):
        return sample
    tree = tree.copy()
    for node in tree.find_all(exp.Table, exp.Column):
        node.set("db", None)
    return Sample(text_of(tree, "mysql"), sample.values)
