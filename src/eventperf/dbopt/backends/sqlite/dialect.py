"""SQLite: catalog, sampled statistics, DDL and measurements on one file."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from eventperf._core.extras import require
from eventperf._core.files import private
from eventperf.dbopt.errors import OptimizerBusy, SourceUnavailable, StatementRefused
from eventperf.dbopt.protocols import Capabilities, Measurement
from eventperf.dbopt.schema.ddl import create_index_sql, normal_expression, quote
from eventperf.dbopt.schema.model import (
    Column,
    ColumnStats,
    ExistingIndex,
    IndexSpec,
    Key,
    Schema,
    Table,
    touched,
)
from eventperf.dbopt.schema.selectivity import column_stats
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample, Workload

from .ground import CopiedPlanner
from .harmless import harm
from .promises import promised
from .running import measured

_SAMPLE: Final = 3_000
_ANALYZE_WHOLE: Final = 5_000_000
_threads: Final[dict[str, threading.Lock]] = {}


class SqliteDialect:
    """SQLite through a SQLAlchemy engine; reading never writes, not even statistics."""

    name = "sqlite"
    identifier_limit = 120  # SQLite has none; longer names help nobody
    capabilities: Capabilities = Capabilities(
        partial=True,
        expression=True,
        appends_primary_key=True,
        collations=True,
        seconds_per_cost=4e-7,
        returns_early=True,
    )

    def __init__(self, engine: Any, *, ddl: Any = None, what_if: Any = None) -> None:
        self._engine = engine
        self._ddl = ddl or engine
        self._sqlite3 = require("sqlite3", extra="dbopt", needed_by="DatabaseOptimizer")

    @contextmanager
    def _connection(self, engine: Any = None) -> Iterator[Any]:
        with muted():
            fairy = (engine or self._engine).raw_connection()
            db = fairy.driver_connection
            before = db.execute("PRAGMA query_only").fetchone()[0]
            # In memory it is the application's one connection, which may write meanwhile.
            only_reads = engine is None and bool(db.execute("PRAGMA database_list").fetchone()[2])
            try:
                if only_reads:
                    db.execute("PRAGMA query_only = ON")
                yield db
            finally:
                if only_reads:
                    db.execute(f"PRAGMA query_only = {before}")
                fairy.close()

    def close(self) -> None:
        """Nothing to close: the engine is the caller's."""

    def source(self, since: Any, /) -> Workload:
        raise SourceUnavailable(
            "SQLite", "it records nothing itself; use QueryRecorder(engine) or a SQL file"
        )

    # --- catalog -------------------------------------------------------------------------------

    def schema(self) -> Schema:
        """Read the catalog and sample every table (about 10 ms each)."""
        return self._schema(None)

    def schema_of(self, words: frozenset[str], /) -> Schema:
        """Read the catalog, and sample the tables that statements of these words may read."""
        return self._schema(words)

    def _schema(self, words: frozenset[str] | None) -> Schema:
        with self._connection() as db:
            rows = db.execute(
                "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            )
            found = rows.fetchall()
            views = {name: sql for kind, name, sql in found if kind == "view"}
            counts = self._known_counts(db)
            # Virtual tables and what they keep in tables of their own (older SQLites do not tell which).
            kinds = {row[1]: row[2] for row in db.execute("PRAGMA table_list")}
            others = {n for kind, n, sql in found if kind == "table" and _is_virtual(sql)}
            others |= {n for n, kind in kinds.items() if kind == "shadow"}
            plain = [name for kind, name, sql in found if kind == "table" and sql and name not in others]
            sampled = frozenset(plain)
            if words is not None:
                asked = 'SELECT m.name, k."table" FROM sqlite_master m, pragma_foreign_key_list(m.name) k'
                pointing: dict[str, list[str]] = {}
                for name, target in db.execute(asked):
                    pointing.setdefault(name, []).append(target)
                sampled = touched(plain, views, pointing, words)
            tables = {name: self._table(db, name, counts, name in sampled) for name in plain}
            lowered = frozenset(name.lower() for name in others)
            return Schema(tables=tables, views=views, dialect="sqlite", others=lowered)

    @staticmethod
    def _known_counts(db: Any) -> dict[str, int]:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone():
            return {}
        out: dict[str, int] = {}
        for table, stat in db.execute("SELECT tbl, stat FROM sqlite_stat1"):
            first = (stat or "").split(" ")[0]
            if first.isdigit():
                out[table] = max(out.get(table, 0), int(first))
        return out

    def _table(self, db: Any, name: str, counts: dict[str, int], is_sampled: bool) -> Table:
        quoted = quote(name, "sqlite")
        info = db.execute(f"PRAGMA table_xinfo({quoted})").fetchall()
        columns = [(c[1], c[2] or "", not c[3], c[5]) for c in info if c[6] != 1]
        primary = tuple(c[0] for c in sorted((c for c in columns if c[3]), key=lambda c: c[3]))
        if is_sampled:
            rows, sample = self._sample(db, quoted, [c[0] for c in columns], counts.get(name))
            stats = [column_stats([row[i] for row in sample], rows) for i in range(len(columns))]
        else:
            rows, sample, stats = counts.get(name, 0), [], [ColumnStats()] * len(columns)
        width = sum(s.width for s in stats) + len(columns) + 6
        indexes = tuple(self.indexes(name, db))
        collations = self._collations(db, name)
        keys: dict[int, list[tuple[int, str, str]]] = {}
        for key in db.execute(f"PRAGMA foreign_key_list({quoted})"):
            keys.setdefault(key[0], []).append((key[1], key[3], key[4] or "id"))
        targets = {key[0]: key[2] for key in db.execute(f"PRAGMA foreign_key_list({quoted})")}
        return Table(
            name=name,
            columns={
                c[0]: Column(
                    name=c[0],
                    type=c[1],
                    nullable=c[2] and not (c[3] and len(primary) == 1),
                    collation=None if collations.get(c[0], "BINARY") == "BINARY" else collations[c[0]],
                    stats=s,
                )
                for c, s in zip(columns, stats, strict=True)
            },
            primary_key=primary,
            indexes=indexes,
            rows=rows,
            size_bytes=int(rows * width * 1.05),
            foreign_keys=tuple(
                (tuple(p[1] for p in sorted(parts)), targets[i], tuple(p[2] for p in sorted(parts)))
                for i, parts in keys.items()
            ),
            unique_sets=tuple(
                tuple(k.name for k in i.spec.keys) for i in indexes if i.unique and not i.spec.where
            ),
            sample=sample,
        )

    def _sample(self, db: Any, quoted: str, columns: list[str], known: int | None) -> tuple[int, list[Any]]:
        names = ", ".join(quote(c, "sqlite") for c in columns)
        try:
            low, high = db.execute(f"SELECT min(rowid), max(rowid) FROM {quoted}").fetchone()
        except self._sqlite3.OperationalError:
            low = high = None  # WITHOUT ROWID, or an empty table
            if known is None:
                known = db.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0]
            return known, db.execute(f"SELECT {names} FROM {quoted} LIMIT {_SAMPLE}").fetchall()
        if low is None:
            return 0, []
        # Statistics may be old: a table that grew is counted again (a scan of its smallest b-tree).
        if known is None or high - low + 1 < known * 0.5 or high - low + 1 > known * 1.5:
            known = db.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0]
        if known <= _SAMPLE:
            return known, db.execute(f"SELECT {names} FROM {quoted}").fetchall()
        draw = random.Random(f"{quoted}{known}")  # the same advice for the same data
        wanted = draw.sample(range(low, high + 1), min(_SAMPLE, high - low + 1))
        out: list[Any] = []
        for at in range(0, len(wanted), 500):
            marks = ",".join(map(str, wanted[at : at + 500]))
            out += db.execute(f"SELECT {names} FROM {quoted} WHERE rowid IN ({marks})").fetchall()
        if len(out) < _SAMPLE // 10:
            out = db.execute(f"SELECT {names} FROM {quoted} LIMIT {_SAMPLE}").fetchall()
        return known, out

    def _collations(self, db: Any, table: str) -> dict[str, str]:
        """Return each column's own collation, as an index on an empty copy of the table shows it."""
        made = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        row = db.execute(made, (table,)).fetchone()
        if row is None or "COLLATE" not in str(row[0]).upper():
            return {}
        own = self._sqlite3.connect(":memory:")
        try:
            own.execute(row[0])
            quoted = quote(table, "sqlite")
            info = own.execute(f"PRAGMA table_info({quoted})").fetchall()
            names = ", ".join(quote(c[1], "sqlite") for c in info)
            own.execute(f"CREATE INDEX collations ON {quoted} ({names})")
            return {r[2]: r[4] for r in own.execute("PRAGMA index_xinfo(collations)") if r[2] is not None}
        except self._sqlite3.Error:  # a collation of the application's own
            return {}
        finally:
            own.close()

    def indexes(self, table: str, db: Any = None, /) -> list[ExistingIndex]:
        """Return the indexes of one table."""
        if db is None:
            with self._connection() as own:
                return self.indexes(table, own)
        out = []
        collations = self._collations(db, table)
        for _, name, unique, origin, partial in db.execute(
            f"PRAGMA index_list({quote(table, 'sqlite')})"
        ).fetchall():
            sql = db.execute(
                "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?", (name,)
            ).fetchone()
            text = sql[0] if sql and sql[0] else ""
            keys = []
            expressions = _expressions(text)
            info = db.execute(f"PRAGMA index_xinfo({quote(name, 'sqlite')})").fetchall()
            for position, (_, _, column, desc, collation, is_key) in enumerate(info):
                if not is_key:
                    continue
                if column is None:
                    inner = expressions[position] if position < len(expressions) else f"expression {position}"
                    keys.append(Key(normal_expression(inner, "sqlite"), bool(desc), True))
                else:
                    own = collations.get(column, "BINARY")
                    keys.append(Key(column, bool(desc), False, None if collation == own else collation))
            where = normal_expression(text[_where(text) :].strip(), "sqlite") if partial else None
            out.append(
                ExistingIndex(
                    name=name,
                    spec=IndexSpec(table, tuple(keys), (), where),
                    unique=bool(unique),
                    primary=origin == "pk",
                    constraint=origin != "c",
                )
            )
        return out

    def planner(self, schema: Schema, /) -> CopiedPlanner:
        """Return a planner on a scratch copy, in memory, of the schema and its statistics."""
        with self._connection() as db:
            ddl = db.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL "
                "ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 ELSE 2 END"
            ).fetchall()
            stats = []
            if any(row[1] == "sqlite_stat1" for row in ddl):
                stats = db.execute("SELECT tbl, idx, stat FROM sqlite_stat1").fetchall()
        return CopiedPlanner(self._sqlite3, schema, ddl, stats, self._connection)

    # --- changes -------------------------------------------------------------------------------

    def create_sql(self, spec: IndexSpec, name: str, /) -> str:
        return create_index_sql(spec, name, "sqlite")

    def drop_sql(self, name: str, table: str, /) -> str:
        return f"DROP INDEX {quote(name, 'sqlite')}"

    def execute_ddl(self, statement: str, *, lock_timeout_s: float) -> None:
        """Run one change in a transaction of its own: it happens whole or not at all."""
        with self._connection(self._ddl) as db:
            before = db.execute("PRAGMA busy_timeout").fetchone()[0]
            db.execute(f"PRAGMA busy_timeout = {int(lock_timeout_s * 1000)}")
            try:
                db.execute(statement)
                db.commit()
            except self._sqlite3.Error as error:
                db.rollback()
                code = getattr(error, "sqlite_errorcode", None)
                # Python 3.10 has no codes: SQLITE_BUSY and SQLITE_LOCKED both say "... is locked"
                busy = "is locked" in str(error) if code is None else code & 0xFF in (5, 6)
                raise StatementRefused(statement, str(error), retryable=busy) from error
            finally:
                db.execute(f"PRAGMA busy_timeout = {before}")

    def refresh_statistics(self, table: Table, /) -> None:
        """ANALYZE one table; of a very large one only a part of each index is read."""
        with self._connection(self._ddl) as db:
            before = db.execute("PRAGMA analysis_limit").fetchone()[0]
            try:
                if table.rows > _ANALYZE_WHOLE:
                    db.execute("PRAGMA analysis_limit = 50000")
                db.execute(f"ANALYZE {quote(table.name, 'sqlite')}")
                db.commit()
            except self._sqlite3.Error as error:
                raise StatementRefused(f"ANALYZE {table.name}", str(error)) from error
            finally:
                db.execute(f"PRAGMA analysis_limit = {before}")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold a lock file beside the database file; the system frees it when the process dies."""
        with self._connection() as db:
            path = next((row[2] for row in db.execute("PRAGMA database_list") if row[1] == "main"), "")
        key = os.path.realpath(path) if path else f"memory-{id(self._engine)}"
        lock = _threads.setdefault(key, threading.Lock())
        if not lock.acquire(blocking=False):
            raise OptimizerBusy("another optimizer of this process is applying changes to this database")
        try:
            if not path:
                yield
                return
            with _file_lock(Path(f"{key}-eventperf-lock")):
                yield
        finally:
            lock.release()

    # --- measurements --------------------------------------------------------------------------

    def harm(self, sql: str, /) -> str | None:
        """Tell why a recorded statement is not run."""
        with self._connection() as db:
            return harm(db, sql)

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        """Run SELECTs to their last row; progress callbacks stop those that take too long."""
        with self._connection() as db:
            return measured(self._sqlite3, db, samples, runs=runs, timeout_s=timeout_s)

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
        with self._connection() as db:
            end = time.perf_counter() + timeout_s
            db.set_progress_handler(lambda: time.perf_counter() > end, 10_000)
            try:
                cursor = db.execute(sql)
                yield from cursor.fetchmany(limit)
                cursor.close()
            except self._sqlite3.Error as error:
                raise StatementRefused(sql, str(error)) from error
            finally:
                db.set_progress_handler(None, 0)


def _is_virtual(sql: str | None) -> bool:
    return (sql or "").lstrip().upper().startswith("CREATE VIRTUAL")


def _expressions(sql: str) -> list[str]:
    """Return the parts between the outer brackets of CREATE INDEX ... ON t (...)."""
    from eventperf.dbopt.statements.lex import tokens

    parts: list[str] = []
    depth = 0
    current = ""
    for token in tokens(sql, "sqlite"):
        if token.text == ")" and token.kind == "op":
            depth -= 1
            if depth == 0:
                parts.append(current.strip())
                break
        if depth == 1 and token.text == ",":
            parts.append(current.strip())
            current = ""
        elif depth:
            current += token.text
        if token.text == "(" and token.kind == "op":
            depth += 1
    return parts


def _where(sql: str) -> int:
    from eventperf.dbopt.statements.lex import tokens

    at = depth = 0
    for token in tokens(sql, "sqlite"):
        depth += (token == ("op", "(")) - (token == ("op", ")"))
        at += len(token.text)
        if depth == 0 and token.kind == "word" and token.text.lower() == "where":
            return at
    return len(sql)


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold a lock file; it is gone afterwards, and a process that died leaves one that locks nobody out."""
    while True:
        with open(path, "a+b", opener=private) as file:
            _lock(file)
            if not _is_at(file, path):
                continue  # its last holder removed it between our opening and our locking it
            try:
                yield
            finally:
                with suppress(PermissionError):  # Windows keeps what is open
                    path.unlink()
            return


def _lock(file: IO[bytes]) -> None:
    try:
        try:
            import fcntl
        except ImportError:  # not POSIX
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OptimizerBusy("another optimizer is applying changes to this database") from error


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


__all__ = ["SqliteDialect"]
