"""PostgreSQL: catalog and statistics, HypoPG what-if, concurrent DDL, measurements."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from eventperf.dbopt.errors import OptimizerBusy, StatementRefused
from eventperf.dbopt.indexes.estimate import StatisticsPlanner
from eventperf.dbopt.protocols import Capabilities, Measurement, PartitionPlan, Planner, Query
from eventperf.dbopt.schema.ddl import create_index_sql, quote_table
from eventperf.dbopt.schema.model import ExistingIndex, IndexSpec, Schema, Table
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample, Workload

from . import catalog, grants, parted, partitions
from .drivers import connection_of, sqlstate
from .ground import GroundedPlanner
from .harmless import harm
from .promises import promised
from .running import measured
from .sources import COUNTED, UNCOUNTED, PgStatStatements
from .what_if import explain

_LOCK = 0x65767066  # "evpf"
_CONCURRENT = "CREATE INDEX CONCURRENTLY "
_HOLDERS = """
SELECT a.pid, a.state, extract(epoch FROM now() - a.xact_start)
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = to_regclass(%s) AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
"""
_NO_LOCK = "55P03"
_LOCK_MS, _CATALOG_MS = 2_000, 60_000  # how long our questions wait for a lock, and may take
_READS = 3
_RETRYABLE = ("55P03", "40P01", "40001", "57014")


class PostgresDialect:
    """PostgreSQL 12 and later through SQLAlchemy and psycopg or psycopg2."""

    name = "postgres"
    identifier_limit = 63

    def __init__(self, engine: Any, *, ddl: Any = None, what_if: Any = None) -> None:
        self._psycopg = engine.dialect.dbapi  # or psycopg2: the errors of both have the same names
        self._engine, self._what_if = engine, what_if
        self._ddl = ddl or engine
        self._held = threading.local()
        with self._cursor() as cursor:
            collate, provider = cursor.execute(
                "SELECT datcollate, to_jsonb(d) ->> 'datlocprovider' FROM pg_database d "
                "WHERE datname = current_database()"
            ).fetchone()
            trigram = cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'").fetchone()
        self.capabilities: Capabilities = Capabilities(
            include=True,
            partial=True,
            expression=True,
            max_key_bytes=2_700,
            refuses_long_values=True,
            orders_nulls=True,
            inverted=True,
            counts_scans=True,
            trigram=trigram is not None,
            pattern_classes=True,
            pattern_ops=provider == "i" or collate not in ("C", "POSIX", "ucs_basic"),
        )

    @contextmanager
    def _connection(
        self, engine: Any = None, *, autocommit: bool = False, ends: bool = False
    ) -> Iterator[Any]:
        """Yield a connection; one that ``ends`` is not used again, whatever was left in its session."""
        with muted():
            fairy = (engine or self._engine).raw_connection()
            db = connection_of(fairy)
            before, is_uncounted = db.autocommit, False
            try:
                db.rollback()
                db.autocommit = autocommit
                is_uncounted = db.execute(UNCOUNTED).fetchone() is not None
                if engine is None and not autocommit:  # whatever a statement of the application calls
                    db.execute("SET TRANSACTION READ ONLY")
                    db.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                yield db
            finally:
                if not db.closed:
                    db.rollback()
                    if is_uncounted:  # only superusers may set it, and set it back
                        db.autocommit = True
                        db.execute(COUNTED)
                    db.autocommit = before  # an engine of the application may be in auto-commit
                if ends:
                    fairy.invalidate()
                fairy.close()

    @contextmanager
    def _cursor(self, engine: Any = None) -> Iterator[Any]:
        """Yield a cursor for the catalogue: no question of ours waits for long."""
        with self._connection(engine) as db, db.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
            cursor.execute(f"SET LOCAL statement_timeout = {_CATALOG_MS}")
            yield cursor

    def close(self) -> None:
        """Nothing to close: the engines are the caller's."""

    def excess(self) -> str | None:
        """Tell that the connection is a superuser's."""
        with self._cursor() as cursor:
            return grants.excess(cursor)

    def grants(self, role: str, /) -> list[str]:
        """Return the statements that make a role which only reads."""
        with self._cursor() as cursor:
            return grants.grants(cursor, role)

    def source(self, since: Any, /) -> Workload:
        """Read pg_stat_statements; cumulative, so ``since`` cannot narrow it."""
        return Workload.from_source(PgStatStatements(self._engine))

    # --- catalog -------------------------------------------------------------------------------

    def schema(self) -> Schema:
        """Read tables, columns, statistics, indexes and views; what is locked exclusively is left out.

        Raises:
            StatementRefused: Again and again another lock came between two of its questions.
        """
        for attempt in range(_READS, 0, -1):
            with self._cursor() as cursor:
                try:
                    return catalog.read(cursor)
                except self._psycopg.Error as error:
                    if attempt > 1 and sqlstate(error) == _NO_LOCK:
                        continue  # a lock was taken since they were counted: now it is known
                    raise StatementRefused("the catalogue", str(error).splitlines()[0]) from error
        raise AssertionError("the last attempt returns or raises")

    def indexes(self, table: str, /) -> list[ExistingIndex]:
        """Return the indexes of one table."""
        with self._cursor() as cursor:
            return catalog.indexes_of(cursor, table)

    def planner(self, schema: Schema, /) -> Planner:
        """Return HypoPG in ``what_if`` where it can be had, else statistics."""
        if self._what_if is None:
            return StatisticsPlanner(schema)
        source = None if self._is_same() else self._connection
        return GroundedPlanner(self._psycopg, self._what_if, schema, source)

    def _is_same(self) -> bool:
        """Tell whether ``what_if`` is the application's own database."""
        query = "SELECT current_database(), pg_postmaster_start_time(), inet_server_port()"
        with self._cursor() as one, self._cursor(self._what_if) as other:
            return bool(one.execute(query).fetchone() == other.execute(query).fetchone())

    @contextmanager
    def scratch(self) -> Iterator[Any]:
        """Yield a connection to ``what_if`` for temporary tables; ``None`` where there is none."""
        if self._what_if is None or self._is_same():
            yield None
            return
        with self._connection(self._what_if, autocommit=True) as db:
            db.execute("SET statement_timeout = 5000")
            try:
                yield db
            finally:
                if not db.closed:
                    db.execute("RESET statement_timeout")

    def partition_ddl(self, plan: PartitionPlan, /) -> Iterator[str]:
        """Yield the statements that partition the table; nothing runs them here."""
        return partitions.ddl(plan)

    def partition_breaks(self, plan: PartitionPlan, schema: Schema, /) -> Iterator[str]:
        """Yield the foreign keys that have to change."""
        return partitions.breaks(plan, schema)

    def pruning(
        self, plan: PartitionPlan, schema: Schema, queries: Sequence[Query], /
    ) -> dict[str, int] | None:
        """Plan the queries on an empty partitioned copy in ``what_if``."""
        with self.scratch() as db:
            if db is None:
                return None
            try:
                return partitions.pruning(self._psycopg, db, plan, schema, queries)
            except self._psycopg.Error:
                return None

    def cost(self, sql: str, values: Sequence[Any] | None, /) -> float | None:
        """Return the planner's cost of a statement on the real database; EXPLAIN runs and writes nothing."""
        with self._connection() as db:
            try:
                if harm(db, sql) is not None:
                    return None
                grants.lessen(db)
                db.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                return float(
                    explain(db, Sample(sql, None if values is None else tuple(values)))["Total Cost"]
                )
            except self._psycopg.Error:
                return None

    # --- changes -------------------------------------------------------------------------------

    def create_sql(self, spec: IndexSpec, name: str, /) -> str:
        """Return the online form; a partitioned parent is built part by part, then attached."""
        parts = self.steps(spec, name)
        if parts:
            return ";\n".join(statement for statement, _ in parts)
        return create_index_sql(spec, name, "postgres", concurrently=True)

    def steps(self, spec: IndexSpec, name: str, /) -> list[tuple[str, str | None]]:
        """Return what is left to do for an index on a partitioned parent; empty for other tables."""
        with self._cursor() as cursor:
            return parted.steps(cursor, spec, name)

    def drop_sql(self, name: str, table: str, /) -> str:
        schema = table.rpartition(".")[0]
        index = quote_table(f"{schema}.{name}" if schema else name, "postgres")
        with self._cursor() as cursor:
            how = "" if parted.is_parted(cursor, index) else "CONCURRENTLY "
        return f"DROP INDEX {how}IF EXISTS {index}"

    def execute_ddl(self, statement: str, *, lock_timeout_s: float) -> None:
        """Run one change outside a transaction, as the concurrent forms need."""
        with self._changing() as db:
            if statement.startswith(_CONCURRENT):
                self._wait(db, statement, lock_timeout_s)
            try:
                db.execute(f"SET lock_timeout = {int(lock_timeout_s * 1000)}")
                db.execute("SET statement_timeout = 0")
                db.execute(statement)
            except self._psycopg.Error as error:
                raise StatementRefused(
                    statement, str(error).splitlines()[0], retryable=sqlstate(error) in _RETRYABLE
                ) from error
            finally:
                if not db.closed:
                    db.execute("RESET lock_timeout")
                    db.execute("RESET statement_timeout")

    def _wait(self, db: Any, statement: str, lock_timeout_s: float) -> None:
        """Wait for the transactions that a concurrent build would have to wait for, before it begins.

        Once begun and cut short, it leaves a half-made index that the same transactions keep from being
        dropped.
        """
        table = statement.partition(" ON ONLY ")[2] or statement.partition(" ON ")[2]
        name = table.partition(" (")[0].partition(" USING ")[0]
        end = time.monotonic() + lock_timeout_s
        while True:
            try:
                held = db.execute(_HOLDERS, (name,)).fetchall()
            except self._psycopg.Error as error:
                raise StatementRefused(statement, str(error).splitlines()[0]) from error
            if not held:
                return
            if time.monotonic() > end:
                who = "; ".join(f"pid {pid} ({state}, {int(age or 0)} s)" for pid, state, age in held[:3])
                reason = f"lock not available: open transactions changed {name}: {who}; nothing was begun"
                raise StatementRefused(statement, reason, retryable=True)
            time.sleep(0.05)

    def refresh_statistics(self, table: Table, /) -> None:
        statement = f"ANALYZE {quote_table(table.name, 'postgres')}"
        self.execute_ddl(statement, lock_timeout_s=5.0)

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        held = getattr(self._held, "db", None)
        if held is not None:
            yield held
            return
        with self._connection(self._ddl, autocommit=True) as db:
            yield db

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold a session's advisory lock; changes run in that very session.

        A server goes on building for a client that was killed. As the lock ends with the session that
        builds, the next optimizer is told that this one is busy until the server is done.
        """
        with self._connection(self._ddl, autocommit=True) as db:
            if not db.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()[0]:
                raise OptimizerBusy("another optimizer is applying changes to this database")
            self._held.db = db
            try:
                yield
            finally:
                self._held.db = None
                if not db.closed:
                    db.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    # --- measurements --------------------------------------------------------------------------

    def harm(self, sql: str, /) -> str | None:
        """Tell why a recorded statement is not run."""
        with self._connection() as db:
            return harm(db, sql)

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        """Run SELECTs in a read-only transaction with a statement time-out."""
        with self._connection(ends=True) as db:
            try:
                grants.lessen(db)
            except self._psycopg.Error:
                return None

            def names(used: frozenset[str]) -> frozenset[str]:
                return parted.with_roots(db, used)

            return measured(self._psycopg, db, samples, runs=runs, timeout_s=timeout_s, names=names)

    def promised(self, schema: Schema, names: Collection[str], /) -> Schema:
        """Return the schema with what is enforced of these tables."""

        def ask(sql: str) -> Iterator[Any]:
            return self._read(sql, timeout_s=5.0, limit=10_000)

        tables = {n: promised(t, ask) if n in names else t for n, t in schema.tables.items()}
        return replace(schema, tables=tables)

    def rows(self, sql: str, *, timeout_s: float, limit: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of one SELECT, at most ``limit``."""
        reason = self.harm(sql)
        if reason is not None:
            raise StatementRefused(sql, f"not run: {reason}")
        yield from self._read(sql, timeout_s=timeout_s, limit=limit)

    def _read(self, sql: str, *, timeout_s: float, limit: int) -> Iterator[tuple[Any, ...]]:
        with self._connection(ends=True) as db:
            try:
                grants.lessen(db)
                db.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
                yield from db.execute(sql).fetchmany(limit)
            except self._psycopg.Error as error:
                raise StatementRefused(sql, str(error).splitlines()[0]) from error
