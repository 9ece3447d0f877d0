"""PostgreSQL: catalog and statistics, HypoPG what-if, concurrent DDL, measurements."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from eventperf._core.extras import require
from eventperf.dbopt.errors import OptimizerBusy, StatementRefused
from eventperf.dbopt.indexes.estimate import StatisticsPlanner
from eventperf.dbopt.protocols import Capabilities, Measurement, PartitionPlan, Planner, Query
from eventperf.dbopt.schema.ddl import create_index_sql, normal_expression, quote_table
from eventperf.dbopt.schema.model import Column, ColumnStats, ExistingIndex, IndexSpec, Key, Schema, Table
from eventperf.dbopt.statements.lex import render
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample, Workload

from . import parted, partitions
from .promises import promised
from .sources import COUNTED, UNCOUNTED, PgStatStatements
from .what_if import HypoPlanner, explain, plan_shape

_NUMBER = re.compile(r"(small|big)?int(eger)?|numeric(\(.*\))?|real|double precision")
_LOCK = 0x65767066  # "evpf"
_RETRYABLE = ("55P03", "40P01", "40001", "57014")

_TABLES = """
SELECT c.oid, n.nspname, c.relname, pg_table_is_visible(c.oid), c.relkind, c.reltuples::bigint,
       pg_relation_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\\_temp%' AND n.nspname NOT LIKE 'pg\\_toast%'
  AND has_table_privilege(c.oid, 'SELECT')
"""
_COLUMNS = """
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
       s.null_frac, s.avg_width, s.n_distinct, s.most_common_vals::text::text[], s.most_common_freqs,
       s.histogram_bounds::text::text[], s.correlation
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
  AND NOT s.inherited
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY(%s) ORDER BY a.attrelid, a.attnum
"""
_INDEXES = """
SELECT i.indrelid, ic.relname, i.indisunique, i.indisprimary, i.indisvalid, am.amname, i.indnkeyatts,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true) FROM generate_series(1, i.indnatts) k),
       ARRAY(SELECT coalesce(att.attname, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(num, ord)
             LEFT JOIN pg_attribute att ON att.attrelid = i.indrelid AND att.attnum = u.num AND u.num > 0
             ORDER BY u.ord),
       i.indoption::int2[],
       ARRAY(SELECT CASE WHEN oc.opcdefault THEN '' ELSE oc.opcname END
             FROM unnest(i.indclass::oid[]) WITH ORDINALITY u(op, ord) JOIN pg_opclass oc ON oc.oid = u.op
             ORDER BY u.ord),
       pg_get_expr(i.indpred, i.indrelid, true), pg_relation_size(i.indexrelid), st.idx_scan,
       EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am am ON am.oid = ic.relam
LEFT JOIN pg_stat_all_indexes st ON st.indexrelid = i.indexrelid
WHERE i.indrelid = ANY(%s)
"""
_KEYS = """
SELECT k.conrelid, ARRAY(SELECT attname FROM unnest(k.conkey) u JOIN pg_attribute ON attrelid = k.conrelid
       AND attnum = u), k.confrelid::regclass::text
FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = ANY(%s)
"""


class PostgresDialect:
    """PostgreSQL 12 and later through SQLAlchemy and psycopg 3."""

    name = "postgres"
    identifier_limit = 63

    def __init__(self, engine: Any, *, ddl: Any = None, what_if: Any = None) -> None:
        self._psycopg = require("psycopg", extra="postgres", needed_by="DatabaseOptimizer on PostgreSQL")
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
            counts_scans=True,
            trigram=trigram is not None,
            pattern_ops=provider == "i" or collate not in ("C", "POSIX", "ucs_basic"),
        )

    @contextmanager
    def _connection(self, engine: Any = None, *, autocommit: bool = False) -> Iterator[Any]:
        with muted():
            fairy = (engine or self._engine).raw_connection()
            db = fairy.driver_connection
            try:
                db.rollback()
                db.autocommit = autocommit
                db.execute(UNCOUNTED)
                yield db
            finally:
                if not db.closed:
                    db.rollback()
                    db.autocommit = True
                    db.execute(COUNTED)
                    db.autocommit = False
                fairy.close()

    @contextmanager
    def _cursor(self, engine: Any = None) -> Iterator[Any]:
        with self._connection(engine) as db, db.cursor() as cursor:
            yield cursor

    def close(self) -> None:
        """Nothing to close: the engines are the caller's."""

    def source(self, since: Any, /) -> Workload:
        """Read pg_stat_statements; cumulative, so ``since`` cannot narrow it."""
        return Workload.from_source(PgStatStatements(self._engine))

    # --- catalog -------------------------------------------------------------------------------

    def schema(self) -> Schema:
        """Read tables, columns, pg_stats and indexes in five queries."""
        with self._cursor() as cursor:
            tables = cursor.execute(_TABLES).fetchall()
            oids = [row[0] for row in tables]
            names = {r[0]: r[2] if r[3] else f"{r[1]}.{r[2]}" for r in tables}
            rows = {r[0]: r[5] for r in tables}
            for oid in [o for o, n in rows.items() if n < 0]:  # never analysed
                table = quote_table(names[oid], "postgres")
                rows[oid] = cursor.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            columns: dict[int, dict[str, Column]] = {oid: {} for oid in oids}
            for row in cursor.execute(_COLUMNS, (oids,)).fetchall():
                columns[row[0]][row[1]] = _column(row, rows[row[0]])
            indexes = self._indexes(cursor, oids, names)
            keys: dict[int, list[Any]] = {}
            for oid, mine, target in cursor.execute(_KEYS, (oids,)).fetchall():
                keys.setdefault(oid, []).append((tuple(mine), target, ()))
            found = cursor.execute(
                "SELECT viewname, definition FROM pg_views "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
        out = {}
        for oid, _, _, _, kind, _, size in tables:
            mine = tuple(indexes.get(oid, ()))
            out[names[oid]] = Table(
                name=names[oid],
                columns=columns[oid],
                primary_key=next((tuple(k.name for k in i.spec.keys) for i in mine if i.primary), ()),
                indexes=mine,
                rows=max(0, rows[oid]),
                size_bytes=size,
                foreign_keys=tuple(keys.get(oid, ())),
                unique_sets=tuple(
                    tuple(k.name for k in i.spec.keys) for i in mine if i.unique and not i.spec.where
                ),
                is_partitioned=kind == "p",
            )
        return Schema(tables=out, views=dict(found), dialect="postgres")

    def _indexes(
        self, cursor: Any, oids: Sequence[int], names: dict[int, str]
    ) -> dict[int, list[ExistingIndex]]:
        out: dict[int, list[ExistingIndex]] = {}
        for row in cursor.execute(_INDEXES, (list(oids),)).fetchall():
            oid, name, unique, primary, valid, method, nkeys, texts, attributes, options, classes, where = (
                row[:12]
            )
            keys = tuple(
                Key(
                    attributes[n] or normal_expression(texts[n], "postgres"),
                    bool(options[n] & 1),
                    not attributes[n],
                    classes[n] or None,
                )
                for n in range(nkeys)
            )
            condition = normal_expression(where, "postgres") if where else None
            spec = IndexSpec(names[oid], keys, tuple(attributes[nkeys:]), condition, method)
            out.setdefault(oid, []).append(
                ExistingIndex(
                    name=name,
                    spec=spec,
                    unique=unique,
                    primary=primary,
                    valid=valid,
                    size_bytes=row[12],
                    scans=row[13],
                    constraint=row[14],
                )
            )
        return out

    def indexes(self, table: str, /) -> list[ExistingIndex]:
        """Return the indexes of one table."""
        with self._cursor() as cursor:
            quoted = quote_table(table, "postgres")
            oid = cursor.execute("SELECT to_regclass(%s)::oid", (quoted,)).fetchone()[0]
            return [] if oid is None else self._indexes(cursor, [oid], {oid: table}).get(oid, [])

    def planner(self, schema: Schema, /) -> Planner:
        """Return HypoPG in ``what_if`` where it can be had, else statistics."""
        if self._what_if is None:
            return StatisticsPlanner(schema)
        with self._connection() as db:
            return HypoPlanner(self._psycopg, self._what_if, schema, None if self._is_same() else db)

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
                db.execute("SET TRANSACTION READ ONLY")
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
            try:
                db.execute(f"SET lock_timeout = {int(lock_timeout_s * 1000)}")
                db.execute("SET statement_timeout = 0")
                db.execute(statement)
            except self._psycopg.Error as error:
                raise StatementRefused(
                    statement, str(error).splitlines()[0], retryable=error.sqlstate in _RETRYABLE
                ) from error
            finally:
                if not db.closed:
                    db.execute("RESET lock_timeout")
                    db.execute("RESET statement_timeout")

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

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        """Run SELECTs in a read-only transaction with a statement time-out."""
        times: list[float] = []
        capped = False
        with self._connection() as db:
            try:
                db.execute("SET TRANSACTION READ ONLY")
                sql, values = render(samples[0].sql, samples[0].values, "format", "postgres")
                plan = db.execute(f"EXPLAIN (FORMAT JSON) {sql}", values or None).fetchone()[0][0]["Plan"]
                db.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
                for sample in samples:
                    best: list[float] = []
                    for _ in range(runs):
                        took = self._run(db, sample)
                        capped = capped or took is None
                        best.append(timeout_s if took is None else took)
                        if best[-1] > timeout_s / 4:
                            break
                    times.append(min(best))
            except self._psycopg.Error:
                return None
            text, used = plan_shape(plan)
            names = parted.with_roots(db, used)
        mean = sum(times) / len(times)
        return Measurement(seconds=mean, plan=text, indexes=names, runs=len(times) * runs, capped=capped)

    def _run(self, db: Any, sample: Sample) -> float | None:
        sql, values = render(sample.sql, sample.values, "format", "postgres")
        db.execute("SAVEPOINT eventperf")
        began = time.perf_counter()
        try:
            db.execute(sql, values or None).fetchall()
        except self._psycopg.errors.QueryCanceled:
            db.execute("ROLLBACK TO SAVEPOINT eventperf")
            return None
        return time.perf_counter() - began

    def promised(self, schema: Schema, names: Collection[str], /) -> Schema:
        """Return the schema with what is enforced of these tables."""

        def ask(sql: str) -> Iterator[Any]:
            return self.rows(sql, timeout_s=5.0, limit=10_000)

        tables = {n: promised(t, ask) if n in names else t for n, t in schema.tables.items()}
        return replace(schema, tables=tables)

    def rows(self, sql: str, *, timeout_s: float, limit: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of one SELECT, at most ``limit``."""
        with self._connection() as db:
            try:
                db.execute("SET TRANSACTION READ ONLY")
                db.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
                yield from db.execute(sql).fetchmany(limit)
            except self._psycopg.Error as error:
                raise StatementRefused(sql, str(error).splitlines()[0]) from error


def _number(text: str) -> float | str:
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:  # NaN, Infinity
        return text


def _column(row: Sequence[Any], rows: int) -> Column:
    _, name, type_, nullable, null_ratio, width, distinct, values, shares, bounds, correlation = row
    if distinct is None:
        return Column(name=name, type=type_, nullable=nullable)
    cast = _number if _NUMBER.fullmatch(type_) else str
    stats = ColumnStats(
        distinct=distinct if distinct > 0 else max(1.0, -distinct * max(1, rows)),
        null_ratio=null_ratio,
        common=tuple(zip(map(cast, values or ()), shares or (), strict=False)),
        bounds=tuple(map(cast, bounds or ())),
        width=width,
        correlation=correlation or 0.0,
    )
    return Column(name=name, type=type_, nullable=nullable, stats=stats)
