"""Databases that benchmarks fill, index, measure and strip again: SQLite, PostgreSQL, MariaDB."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from eventperf.dbopt import DatabaseOptimizer
from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.statements.lex import bind
from eventperf.dbopt.statements.workload import Sample

Asking = tuple[str, Sequence[Mapping[str, Any]]]


class Bed:
    """One database; ``with`` it. Tables are ``name -> column definitions``."""

    def __init__(self, kind: str, tables: Mapping[str, str]) -> None:
        self.kind, self.tables = kind, dict(tables)
        self.what_if: Any = None
        self.empty: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Bed:
        try:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self.path = folder / "bench.db"
            if self.kind == "sqlite":
                url = f"sqlite:///{self.path}"
            else:
                from servers import MariaDBServer, PostgresServer

                server = (PostgresServer if self.kind == "postgres" else MariaDBServer)()
                self._stack.callback(server.close)
                server.start()
                url = self._stack.enter_context(server.fresh_database())
                self.empty = self._stack.enter_context(server.fresh_database())
                if self.kind == "mariadb":  # sampled copies are made in a database of their own
                    self.what_if = self.empty
            local = {"connect_args": {"local_infile": True}} if self.kind == "mariadb" else {}
            self.engine = create_engine(url, **local)
            self._stack.callback(self.engine.dispose)
            self.what_if = self.what_if or self.engine
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def columns(self) -> dict[str, list[str]]:
        """Column names by table."""
        return {t: [c.split()[0] for c in _split(d)] for t, d in self.tables.items()}

    # --- data ----------------------------------------------------------------------------------

    def fill(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Create a table and load it the engine's fastest way."""
        raw = self.engine.raw_connection()
        try:
            db: Any = raw.driver_connection
            cursor = db.cursor()
            cursor.execute(f"CREATE TABLE {table} ({self.tables[table]})")
            if self.kind == "sqlite":
                marks = ",".join("?" * len(self.columns[table]))
                cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            elif self.kind == "postgres":
                with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                    for block in _blocks(rows):
                        copy.write(block)
            else:
                self._load(cursor, table, rows)
            cursor.close()
            db.commit()
        finally:
            raw.close()

    def _load(self, cursor: Any, table: str, rows: Iterable[Sequence[Any]]) -> None:
        cursor.execute("SET unique_checks = 0")
        with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as file:
            for block in _blocks(rows):
                file.write(block)
            file.flush()
            cursor.execute(f"LOAD DATA LOCAL INFILE '{file.name}' INTO TABLE {table} CHARACTER SET utf8mb4")

    def analyse(self) -> None:
        """Bring statistics up to date."""
        self.run(*([f"ANALYZE TABLE {t}" for t in self.tables] if self.kind == "mariadb" else ["ANALYZE"]))

    def run(self, *statements: str) -> None:
        """Run changes, each in its own transaction."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            for statement in statements:
                db.exec_driver_sql(statement)

    # --- indexes -------------------------------------------------------------------------------

    def size(self) -> int:
        """Return the bytes of everything but the tables' own primary keys."""
        if self.kind == "sqlite":
            with self.engine.connect() as db:
                used = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, "
                return int(db.execute(text(used + "pragma_freelist_count, pragma_page_size")).scalar() or 0)
        if self.kind == "postgres":
            sql = (
                "SELECT coalesce(sum(pg_relation_size(indexrelid)), 0) FROM pg_index i "
                "JOIN pg_class c ON c.oid = indrelid "
                "WHERE NOT indisprimary AND relnamespace = 'public'::regnamespace"
            )
        else:
            sql = (
                "SELECT coalesce(sum(stat_value) * @@innodb_page_size, 0) FROM mysql.innodb_index_stats "
                "WHERE database_name = DATABASE() AND stat_name = 'size' AND index_name <> 'PRIMARY'"
            )
        with self.engine.connect() as db:
            return int(db.execute(text(sql)).scalar() or 0)

    def create(self, definitions: Iterable[str]) -> None:
        """Create indexes from ``table (column, ...)`` or whole statements."""
        for number, what in enumerate(definitions):
            if what.upper().startswith("CREATE"):
                self.run(what)
            else:
                self.run(f"CREATE INDEX bench_{number} ON {what}")

    def hide(self) -> None:
        """Take every secondary index out of all plans, as a revert does before it drops them."""
        with DatabaseOptimizer(self.engine) as optimizer:
            dialect: Any = optimizer.dialect
            for table in self.tables:
                for index in dialect.indexes(table):
                    if not (index.primary or index.constraint):
                        dialect.execute_ddl(dialect.hide_sql(index.name, table), lock_timeout_s=60.0)

    def strip(self) -> None:
        """Drop every secondary index."""
        with DatabaseOptimizer(self.engine) as optimizer:
            dialect = optimizer.dialect
            for table in self.tables:
                for index in dialect.indexes(table):
                    if not (index.primary or index.constraint):
                        dialect.execute_ddl(dialect.drop_sql(index.name, table), lock_timeout_s=60.0)

    # --- measuring -----------------------------------------------------------------------------

    def score(self, asked: Sequence[Asking], *, cap_s: float = 10.0) -> list[Measurement]:
        """Measure each statement on its parameter sets: the best of three runs each, averaged."""
        out = []
        with DatabaseOptimizer(self.engine) as optimizer:
            dialect = optimizer.dialect
            for sql, values in asked:
                bound = [bind(sql, v, dialect.name) if v else bind(sql, None, dialect.name) for v in values]
                samples = [Sample(b.sql, b.values) for b in bound]
                found = dialect.measure(samples, runs=3, timeout_s=cap_s)
                if found is None:
                    raise RuntimeError(f"{self.kind} cannot run {sql}")
                out.append(found)
        return out

    def time_writes(self, statements: Iterable[tuple[str, Mapping[str, Any]]]) -> float:
        """Return the seconds of all statements in one transaction that is rolled back."""
        with self.engine.connect() as db:
            began = time.perf_counter()
            for sql, values in statements:
                db.execute(text(sql), values)
            took = time.perf_counter() - began
            db.rollback()
        return took


def _split(definition: str) -> list[str]:
    out, depth, at = [], 0, 0
    for n, character in enumerate(definition):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            out.append(definition[at:n].strip())
            at = n + 1
    return [c for c in [*out, definition[at:].strip()] if not c.upper().startswith("PRIMARY KEY")]


def _blocks(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    buffer = io.StringIO()
    for n, row in enumerate(rows, 1):
        buffer.write("\t".join("\\N" if v is None else str(v) for v in row))
        buffer.write("\n")
        if n % 20_000 == 0:
            yield buffer.getvalue()
            buffer = io.StringIO()
    yield buffer.getvalue()
