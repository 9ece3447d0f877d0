"""MySQL and MariaDB: catalog, sampled statistics, online DDL, measurements.

Longer than other files: what the two servers say differently is told apart statement by statement.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from eventperf.dbopt.errors import OptimizerBusy, SourceUnavailable, StatementRefused
from eventperf.dbopt.indexes.estimate import StatisticsPlanner
from eventperf.dbopt.protocols import Capabilities, Measurement, PartitionPlan, Planner, Query
from eventperf.dbopt.schema.ddl import create_index_sql, quote
from eventperf.dbopt.schema.model import Column, ExistingIndex, IndexSpec, Schema, Table, touched
from eventperf.dbopt.schema.selectivity import column_stats
from eventperf.dbopt.statements.lex import render
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample, Workload

from . import grants, partitions
from .ground import GroundedPlanner
from .harmless import harm
from .indexes import found_indexes
from .promises import promised
from .running import limit_time, measured
from .sources import Digests, SlowLogTable
from .what_if import Refused

_SAMPLE: Final = 3_000
_TEXT_PREFIX: Final = 64
_LONG: Final = ("text", "blob")
_RETRYABLE: Final = (1205, 1213)  # lock wait time-out, deadlock
_TABLES: Final = ("BASE TABLE", "SYSTEM VERSIONED")
_NO_LOCK: Final = 1205
_LOCK_S: Final = 2  # how long a question of ours waits for a lock


class MysqlDialect:
    """MySQL 8 and MariaDB 10.6 and later through SQLAlchemy and PyMySQL or mysqlclient."""

    name = "mysql"
    identifier_limit = 64

    def __init__(self, engine: Any, *, ddl: Any = None, what_if: Any = None) -> None:
        self._pymysql = engine.dialect.dbapi  # or mysqlclient: the errors of both have the same names
        self._engine = engine
        self._ddl = ddl or engine
        self._held = threading.local()
        self._what_if = what_if
        version = self._rows("SELECT VERSION()")[0][0]
        self.is_mariadb: bool = "mariadb" in version.lower()
        self.capabilities: Capabilities = Capabilities(
            appends_primary_key=True,
            prefix_for_text=True,
            hidden_indexes=True,
            max_key_bytes=3_072,
            seconds_per_cost=2e-6,
        )

    @contextmanager
    def _connection(self, engine: Any = None, *, ends: bool = False) -> Iterator[Any]:
        """Yield a connection; one that ``ends`` is not used again, whatever was left in its session."""
        with muted():
            fairy = (engine or self._engine).raw_connection()
            db = fairy.driver_connection
            try:
                if engine is None:  # a statement of the application may call anything: it is only measured
                    db.rollback()
                    with db.cursor() as cursor:
                        cursor.execute(f"SET SESSION lock_wait_timeout = {_LOCK_S}")
                        cursor.execute("START TRANSACTION READ ONLY")
                yield db
            finally:
                if engine is None and db.open:
                    db.rollback()
                    with db.cursor() as cursor:
                        cursor.execute("SET SESSION lock_wait_timeout = DEFAULT")
                if ends:
                    fairy.invalidate()
                fairy.close()

    def _rows(self, sql: str, values: Any = None) -> list[Any]:
        with self._connection() as db, db.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def close(self) -> None:
        """Nothing to close: the engines are the caller's."""

    def excess(self) -> str | None:
        """Tell that the connection's user may do everything."""
        return grants.excess(self._rows)

    def grants(self, role: str, /) -> list[str]:
        """Return the statements that make a user who only reads."""
        return grants.grants(self._rows, role)

    def source(self, since: Any, /) -> Workload:
        """Read the slow log table, or the digests where it is empty."""
        try:
            found = Workload.from_source(SlowLogTable(self._engine), since)
        except SourceUnavailable:
            return Workload.from_source(Digests(self._engine))
        return found if len(found) else Workload.from_source(Digests(self._engine))

    # --- catalog -------------------------------------------------------------------------------

    def schema(self) -> Schema:
        """Read information_schema and a sample of every table."""
        return self._schema(None)

    def schema_of(self, words: frozenset[str], /) -> Schema:
        """Read information_schema, and a sample of the tables that statements of these words may read."""
        return self._schema(words)

    def _schema(self, words: frozenset[str] | None) -> Schema:
        every = self._rows(
            "SELECT table_type, table_name, table_rows, data_length FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_type <> 'VIEW'"
        )
        tables = [row[1:] for row in every if row[0] in ("BASE TABLE", "SYSTEM VERSIONED")]
        others = frozenset(
            row[1].lower() for row in every if row[0] not in ("BASE TABLE", "SYSTEM VERSIONED")
        )
        columns: dict[str, list[Any]] = {}
        for row in self._rows(
            "SELECT table_name, column_name, column_type, is_nullable FROM information_schema.columns "
            "WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position"
        ):
            columns.setdefault(row[0], []).append(row[1:])
        keys: dict[str, dict[str, list[Any]]] = {}
        for table, name, column, target, theirs in self._rows(
            "SELECT table_name, constraint_name, column_name, referenced_table_name, referenced_column_name "
            "FROM information_schema.key_column_usage WHERE table_schema = DATABASE() "
            "AND referenced_table_name IS NOT NULL ORDER BY ordinal_position"
        ):
            keys.setdefault(table, {}).setdefault(name, []).append((column, target, theirs))
        views = dict(
            self._rows(
                "SELECT table_name, view_definition FROM information_schema.views "
                "WHERE table_schema = DATABASE()"
            )
        )
        indexes = self._all_indexes(None)
        sampled = {name for name, _, _ in tables}
        if words is not None:
            pointing = {t: [parts[0][1] for parts in k.values()] for t, k in keys.items()}
            sampled &= touched(sampled, views, pointing, words)
        out: dict[str, Table] = {}
        locked: dict[str, str] = {}
        for name, rows, size in tables:
            told = columns.get(name, []), indexes.get(name, []), keys.get(name, {})
            try:
                if not told[0]:  # MariaDB skips what it cannot open
                    raise Refused("it could not be opened")
                out[name] = self._table(name, int(rows or 0), int(size or 0), *told, name in sampled)
            except (Refused, self._pymysql.MySQLError) as error:
                if isinstance(error, self._pymysql.MySQLError) and error.args[0] != _NO_LOCK:
                    raise
                locked[name] = "a session that SHOW PROCESSLIST has"
        return Schema(tables=out, views=views, dialect="mysql", locked=locked, others=others)

    def _table(
        self,
        name: str,
        rows: int,
        size: int,
        columns: list[Any],
        indexes: list[ExistingIndex],
        keys: dict[str, Any],
        is_sampled: bool,
    ) -> Table:
        primary = next((tuple(k.name for k in i.spec.keys) for i in indexes if i.primary), ())
        quoted = quote(name, "mysql")
        names = ", ".join(quote(c[0], "mysql") for c in columns)
        sample: list[Any] = []
        if not is_sampled:
            pass  # no statement reads it
        elif rows <= _SAMPLE * 4 or len(primary) != 1:
            sample = self._rows(f"SELECT {names} FROM {quoted} LIMIT {_SAMPLE * 4}")
        else:
            # Every n-th primary key: a range of the clustered index per step is cheap and spread out.
            key = quote(primary[0], "mysql")
            low, high = self._rows(f"SELECT MIN({key}), MAX({key}) FROM {quoted}")[0]
            if isinstance(low, int) and high > low:
                step = max(1, (high - low + 1) // _SAMPLE)
                marks = ",".join(str(k) for k in range(low, high + 1, step))
                sample = self._rows(f"SELECT {names} FROM {quoted} WHERE {key} IN ({marks})")
            if len(sample) < _SAMPLE // 10:
                sample = self._rows(f"SELECT {names} FROM {quoted} LIMIT {_SAMPLE}")
        rows = max(rows, len(sample))
        return Table(
            name=name,
            columns={
                c[0]: Column(
                    name=c[0],
                    type=c[1],
                    nullable=c[2] == "YES",
                    stats=column_stats([row[i] for row in sample], rows),
                )
                for i, c in enumerate(columns)
            },
            primary_key=primary,
            indexes=tuple(indexes),
            rows=rows,
            size_bytes=size,
            foreign_keys=tuple(
                (tuple(p[0] for p in parts), parts[0][1], tuple(p[2] for p in parts))
                for parts in keys.values()
            ),
            unique_sets=tuple(tuple(k.name for k in i.spec.keys) for i in indexes if i.unique),
            sample=sample,
        )

    def _all_indexes(self, table: str | None) -> dict[str, list[ExistingIndex]]:
        extra = "" if table is None else " AND table_name = %s"
        shown = "ignored" if self.is_mariadb else "is_visible"
        rows = self._rows(
            "SELECT table_name, index_name, non_unique, column_name, collation, sub_part, index_type, "
            f"{shown} FROM information_schema.statistics WHERE table_schema = DATABASE(){extra} "
            "ORDER BY table_name, index_name, seq_in_index",
            None if table is None else (table,),
        )
        return found_indexes(rows, "YES" if self.is_mariadb else "NO")

    def indexes(self, table: str, /) -> list[ExistingIndex]:
        """Return the indexes of one table."""
        return self._all_indexes(table).get(table, [])

    def planner(self, schema: Schema, /) -> Planner:
        """Return the optimizer on sampled copies in ``what_if``, else statistics."""
        if self._what_if is None:
            return StatisticsPlanner(schema)
        try:
            return self._shadow(schema)
        except (Refused, self._pymysql.MySQLError) as error:
            planner = StatisticsPlanner(schema)
            planner.notes.append(f"what_if cannot be used: {error}")
            return planner

    def _shadow(self, schema: Schema) -> Planner:
        if self._is_same():
            raise Refused("it is the application's own database, where nothing may be made")
        with muted():
            fairy = self._what_if.raw_connection()
            try:
                server = "MariaDB" if self.is_mariadb else "MySQL"
                errors, db = self._pymysql.MySQLError, fairy.driver_connection
                return GroundedPlanner(errors, db, fairy.close, self._connection, schema, server, self.harm)
            except BaseException:
                fairy.close()
                raise

    def _is_same(self) -> bool:
        """Tell whether ``what_if`` is the application's own database."""
        query = "SELECT @@hostname, @@port, DATABASE()"
        with self._connection(self._what_if) as db, db.cursor() as cursor:
            cursor.execute(query)
            return bool(cursor.fetchone() == self._rows(query)[0])

    @contextmanager
    def scratch(self) -> Iterator[Any]:
        """Yield a connection to ``what_if`` for temporary tables; ``None`` where there is none."""
        if self._what_if is None or self._is_same():
            yield None
            return
        with self._connection(self._what_if) as db, db.cursor() as cursor:
            self._timeout(cursor, 5.0)
            try:
                yield db
            finally:
                if db.open:
                    db.rollback()
                    self._timeout(cursor, 0)

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
        if self._what_if is None or self._is_same():
            return None
        errors = self._pymysql.MySQLError
        with self._connection(self._what_if) as db:
            try:
                return partitions.pruning(db, self._connection, plan, schema, queries, errors)
            except (Refused, errors):
                return None

    def cost(self, sql: str, values: Sequence[Any] | None, /) -> float | None:
        """Return the optimizer's cost on the real database, where the server tells one."""
        if self.harm(sql) is not None:
            return None
        with self._connection() as db, db.cursor() as cursor:
            try:
                text, given = render(sql, values, "format", "mysql")
                cursor.execute(f"EXPLAIN FORMAT=JSON {text}", given or None)
                plan = json.loads(cursor.fetchone()[0])
            except (self._pymysql.MySQLError, ValueError):
                return None
        block, tree = plan.get("query_block", {}), plan.get("query_plan", {})
        found = block.get("cost")  # MariaDB; then the two versions of MySQL's form
        found = found or block.get("cost_info", {}).get("query_cost") or tree.get("estimated_total_cost")
        return None if found is None else float(found)

    def hide_sql(self, name: str, table: str, /) -> str:
        """Return the statement that takes an index out of every plan at once; it is not dropped yet."""
        return self._alter(name, table, "IGNORED" if self.is_mariadb else "INVISIBLE")

    def show_sql(self, name: str, table: str, /) -> str:
        """Return the statement that brings it back into plans."""
        return self._alter(name, table, "NOT IGNORED" if self.is_mariadb else "VISIBLE")

    @staticmethod
    def _alter(name: str, table: str, word: str) -> str:
        return f"ALTER TABLE {quote(table, 'mysql')} ALTER INDEX {quote(name, 'mysql')} {word}"

    # --- changes -------------------------------------------------------------------------------

    def create_sql(self, spec: IndexSpec, name: str, /) -> str:
        """Return the online form; long texts get a prefix."""
        with_prefix = []
        types = dict(
            self._rows(
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_schema = DATABASE() AND table_name = %s",
                (spec.table,),
            )
        )
        for key in spec.keys:
            long = any(word in str(types.get(key.name, "")).lower() for word in _LONG)
            with_prefix.append(replace(key, prefix=_TEXT_PREFIX) if long and key.prefix is None else key)
        return create_index_sql(replace(spec, keys=tuple(with_prefix)), name, "mysql")

    def drop_sql(self, name: str, table: str, /) -> str:
        owner, index = quote(table, "mysql"), quote(name, "mysql")
        return f"ALTER TABLE {owner} DROP INDEX {index}, ALGORITHM=INPLACE, LOCK=NONE"

    def execute_ddl(self, statement: str, *, lock_timeout_s: float) -> None:
        """Run one change; the metadata lock is waited for as long as told, and no longer."""
        with self._changing() as db, db.cursor() as cursor:
            try:
                cursor.execute(f"SET SESSION lock_wait_timeout = {max(1, round(lock_timeout_s))}")
                cursor.execute(statement)
            except self._pymysql.MySQLError as error:
                code = error.args[0] if error.args else 0
                raise StatementRefused(statement, str(error), retryable=code in _RETRYABLE) from error
            finally:
                if db.open:
                    cursor.execute("SET SESSION lock_wait_timeout = DEFAULT")

    def refresh_statistics(self, table: Table, /) -> None:
        persistent = " PERSISTENT FOR ALL" if self.is_mariadb and table.rows < 1_000_000 else ""
        self.execute_ddl(f"ANALYZE TABLE {quote(table.name, 'mysql')}{persistent}", lock_timeout_s=5.0)

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        held = getattr(self._held, "db", None)
        if held is not None:
            yield held
            return
        with self._connection(self._ddl) as db:
            yield db

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold a session's named lock; changes run in that very session.

        A server goes on building for a client that was killed: the lock lasts as long as it does.
        """
        with self._connection(self._ddl) as db, db.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(CONCAT('eventperf.', LEFT(SHA2(DATABASE(), 256), 32)), 0)")
            if cursor.fetchone()[0] != 1:
                raise OptimizerBusy("another optimizer is applying changes to this database")
            self._held.db = db
            try:
                yield
            finally:
                self._held.db = None
                if db.open:
                    cursor.execute(
                        "SELECT RELEASE_LOCK(CONCAT('eventperf.', LEFT(SHA2(DATABASE(), 256), 32)))"
                    )

    # --- measurements --------------------------------------------------------------------------

    def harm(self, sql: str, /) -> str | None:
        """Tell why a recorded statement is not run."""
        return harm(self._rows, sql)

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        """Run SELECTs with a statement time-out and read their plan."""
        if any(self.harm(text) is not None for text in {s.sql for s in samples}):
            return None
        with self._connection(ends=True) as db:
            errors = self._pymysql.MySQLError
            return measured(errors, db, samples, runs=runs, timeout_s=timeout_s, limit=self._timeout)

    def _timeout(self, cursor: Any, timeout_s: float) -> None:
        limit_time(cursor, timeout_s, is_mariadb=self.is_mariadb)

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
        with self._connection(ends=True) as db, db.cursor() as cursor:
            try:
                self._timeout(cursor, timeout_s)
                cursor.execute(sql)
                yield from cursor.fetchmany(limit)
            except self._pymysql.MySQLError as error:
                raise StatementRefused(sql, str(error)) from error
            finally:
                if db.open:
                    self._timeout(cursor, 0)
