"""What-if on PostgreSQL: HypoPG's hypothetical indexes over sampled copies, never over the real tables.

HypoPG has crashed servers, so it runs in the ``what_if`` database. What that database lacks of the
application's tables is copied there: temporary tables of this session with a sample of the rows, the
real indexes, and the real row counts where the user may set them. They are gone when the session ends,
however it ends.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from eventperf.dbopt.indexes.estimate import StatisticsPlanner
from eventperf.dbopt.protocols import Plan, Query
from eventperf.dbopt.schema.ddl import create_index_sql, quote, quote_table
from eventperf.dbopt.schema.model import IndexSpec, Schema, Table
from eventperf.dbopt.schema.selectivity import partial_share, prefix_distinct
from eventperf.dbopt.statements.lex import render, tokens
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample

_WHOLE: Final = 20_000
_SHARE: Final = 0.02
_RECOVERY_S: Final = 30.0
_FIXED: Final = ("int", "small", "big", "date", "time", "bool", "real", "double", "float", "uuid", "oid")


def plan_shape(plan: dict[str, Any]) -> tuple[str, frozenset[str]]:
    """Return a JSON plan as indented text without figures, and the names of its indexes."""
    lines: list[str] = []
    names: set[str] = set()

    def walk(node: dict[str, Any], depth: int) -> None:
        parts = [node["Node Type"]]
        if "Index Name" in node:
            names.add(node["Index Name"])
            parts.append(f"using {node['Index Name']}")
        if "Relation Name" in node:
            parts.append(f"on {node['Relation Name']}")
        lines.append("  " * depth + " ".join(parts))
        for child in node.get("Plans", ()):
            walk(child, depth + 1)

    walk(plan, 0)
    return "\n".join(lines), frozenset(names)


def explain(db: Any, sample: Sample) -> dict[str, Any]:
    """Return a statement's plan; without values the generic one."""
    if sample.values is not None:
        sql, values = render(sample.sql, sample.values, "format", "postgres")
        found = db.execute(f"EXPLAIN (FORMAT JSON) {sql}", values or None, prepare=False).fetchone()
        plan: dict[str, Any] = found[0][0]["Plan"]
        return plan
    parts, count = [], 0
    for kind, text in tokens(sample.sql, "postgres"):
        if kind == "param":
            count += 1
            text = f"${count}"
        parts.append(text)
    db.execute(f"PREPARE eventperf AS {''.join(parts)}")
    try:
        call = f"({', '.join(['NULL'] * count)})" if count else ""
        plan = db.execute(f"EXPLAIN (FORMAT JSON) EXECUTE eventperf{call}").fetchone()[0][0]["Plan"]
    finally:
        with suppress(Exception):
            db.execute("DEALLOCATE eventperf")
    return plan


class Copies:
    """Sampled copies of the application's tables as temporary tables of one session.

    Args:
        psycopg: The driver.
        source: Connection to the application's database; only read.
        schema: Its tables.
    """

    def __init__(self, psycopg: Any, source: Any, schema: Schema) -> None:
        self._psycopg, self._schema = psycopg, schema
        self.notes: list[str] = []
        self.rows: dict[str, list[Any]] = {}
        self.skipped: set[str] = set()
        self._visible: dict[str, float] = {}
        self._definitions: dict[str, list[str]] = {}
        self._types: dict[str, list[tuple[str, str]]] = {}
        for table in schema.tables.values():
            try:
                self._read(source, table)
            except psycopg.Error as error:
                source.rollback()
                self.skipped.add(table.name)
                self.notes.append(f"{table.name} could not be sampled: {str(error).splitlines()[0]}")

    def _read(self, source: Any, table: Table) -> None:
        name = quote_table(table.name, "postgres")
        share = max(_SHARE, _WHOLE / max(1, table.rows))
        pick = "" if share >= 1 or table.is_partitioned else f" TABLESAMPLE SYSTEM ({100 * share:.4f})"
        columns = ", ".join(quote(c, "postgres") for c in table.columns)
        limit = f" LIMIT {_WHOLE}" if table.is_partitioned else ""
        source.execute("SET LOCAL statement_timeout = 30000")
        found = source.execute(f"SELECT {columns} FROM {name}{pick}{limit}").fetchall()
        if len(found) < min(table.rows, 1_000):  # few, full pages: a sample of rows instead
            found = source.execute(f"SELECT {columns} FROM {name} LIMIT {min(table.rows, _WHOLE)}").fetchall()
        self.rows[table.name] = found
        self._definitions[table.name] = [
            row[0]
            for row in source.execute(
                "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass(%s) "
                "AND indisvalid",
                (name,),
            )
        ]
        self._types[table.name] = [(c.name, c.type) for c in table.columns.values()]
        ((visible,),) = source.execute(
            "SELECT coalesce(max(least(1.0, relallvisible::float8 / relpages)), 1.0) FROM pg_class "
            "WHERE oid = to_regclass(%s) AND relpages > 0",
            (name,),
        ).fetchall()
        self._visible[table.name] = float(visible)

    def make(self, db: Any) -> list[str]:
        """Create the copies that this session's database lacks; return what could not be."""
        notes = list(self.notes)
        for table in self._schema.tables.values():
            if table.name in self.skipped:
                continue
            there = db.execute("SELECT to_regclass(%s)", (quote_table(table.name, "postgres"),))
            if there.fetchone()[0] is not None:
                continue  # the user restored a copy here: better than a sample
            try:
                self._copy(db, table)
            except self._psycopg.Error as error:
                notes.append(f"{table.name} could not be copied: {str(error).splitlines()[0]}")
        return notes

    def _copy(self, db: Any, table: Table) -> None:
        short = quote(table.name.rpartition(".")[2], "postgres")
        rows = self.rows[table.name]
        parts = []
        for name, type_ in self._types[table.name]:
            kind = type_
            if db.execute("SELECT to_regtype(%s)", (type_.partition("(")[0],)).fetchone()[0] is None:
                kind = "text"  # a type of the application's own
            nullable = table.columns[name].nullable
            parts.append(f"{quote(name, 'postgres')} {kind}{'' if nullable else ' NOT NULL'}")
        # A sample on thin pages: fewer rows, but not as few pages, for the price of a scan is in pages.
        thin = " WITH (fillfactor = 10)" if len(rows) < table.rows * 0.9 else ""
        db.execute(f"CREATE TEMPORARY TABLE {short} ({', '.join(parts)}){thin}")
        columns = ", ".join(quote(c, "postgres") for c in table.columns)
        with db.cursor() as cursor, cursor.copy(f"COPY {short} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([_plain(v) for v in row])
        for column in table.columns.values():
            if table.rows and column.stats.distinct > 100:
                share = -min(1.0, column.stats.distinct / table.rows)
                with suppress(self._psycopg.Error):
                    db.execute(
                        f"ALTER TABLE {short} ALTER COLUMN {quote(column.name, 'postgres')} "
                        f"SET (n_distinct = {share:.8f})"
                    )
        for text in self._definitions[table.name]:
            head, _, rest = text.partition(" ON ")
            body = rest[rest.index(" USING ") :]
            with suppress(self._psycopg.Error):  # an index on a type or function that is not here
                db.execute(f"{head} ON {short}{body}")
        db.execute(f"VACUUM ANALYZE {short}")  # else no index alone would ever answer a query
        with suppress(self._psycopg.Error):  # superusers only; else ratios of the sample have to do
            db.execute(
                "UPDATE pg_class SET reltuples = %s, relpages = greatest(1, pg_relation_size(oid) / 8192), "
                "relallvisible = floor(%s * greatest(1, pg_relation_size(oid) / 8192)) "
                "WHERE oid = to_regclass(%s)",
                (float(table.rows), self._visible[table.name], f"pg_temp.{short}"),
            )


def _entry(width: float, types: Sequence[str]) -> float:
    """Return the bytes of one index entry: its header, its values on their boundaries, and its pointer."""
    fixed = [t for t in types if t.lower().startswith(_FIXED)]
    if len(fixed) == len(types):
        return 8.0 * math.ceil((width + 8.0) / 8.0) + 4.0
    # Values of varying length end anywhere: half a word is lost at the end, some before each that is aligned.
    return width + 8.0 + 4.0 + 1.5 * len(fixed) + 4.0


def _plain(value: Any) -> Any:
    is_list = isinstance(value, list) and any(isinstance(v, dict) for v in value)
    return json.dumps(value) if is_list or isinstance(value, dict) else value


class HypoPlanner:
    """PostgreSQL's own planner with HypoPG's hypothetical indexes, in the ``what_if`` database.

    When the server dies while it plans, the statement and its indexes are given up, the copies are made
    again on a new connection, and the search goes on.

    Args:
        psycopg: The driver.
        engine: Engine of the ``what_if`` database.
        schema: The application's tables.
        source: Connection to the application's database, to copy samples from; ``None`` when ``what_if``
            is that database, which the caller asked for.
    """

    is_real: bool = True
    is_cheapest: bool = True

    def __init__(self, psycopg: Any, engine: Any, schema: Schema, source: Any = None) -> None:
        self.explains: int = 0
        self.method: str = "PostgreSQL's planner with HypoPG"
        self.notes: list[str] = []
        self._psycopg, self._schema, self._engine = psycopg, schema, engine
        self._copies = Copies(psycopg, source, schema) if source is not None else None
        if self._copies is not None:
            self.method += " over sampled copies"
        self._made: dict[IndexSpec, int] = {}
        self._built: dict[IndexSpec, str] = {}  # what HypoPG cannot imagine is built on the copies
        self._sizes: dict[IndexSpec, int] = {}
        self._poison: set[tuple[str, frozenset[IndexSpec]]] = set()
        self._fallback: StatisticsPlanner | None = None
        self._fairy: Any = None
        self._db: Any = None
        try:
            self._open()
        except psycopg.Error as error:
            self._fallback = StatisticsPlanner(schema)
            self.is_real = False
            self.method = "statistics alone (what_if has no HypoPG)"
            self.notes.append(f"what_if cannot plan: {str(error).splitlines()[0]}")

    def _open(self) -> None:
        with muted():
            self._fairy = self._engine.raw_connection()
            self._db = self._fairy.driver_connection
            self._db.rollback()
            self._db.autocommit = True
            self._made.clear()
            self._built.clear()
            self._db.execute("CREATE EXTENSION IF NOT EXISTS hypopg")
            self._db.execute("SELECT hypopg_reset()")
            self._db.execute("SET plan_cache_mode = force_generic_plan")
            if self._copies is not None:
                self.notes += [n for n in self._copies.make(self._db) if n not in self.notes]

    def close(self) -> None:
        """Forget all hypothetical indexes and copies, and give the connection back."""
        if self._fairy is None:
            return
        try:
            if not self._db.closed and self._fallback is None:
                self._db.execute("SELECT hypopg_reset()")
                self._db.execute("RESET plan_cache_mode")
                if self._copies is not None:
                    self._db.execute("DISCARD TEMP")
            if not self._db.closed:
                self._db.autocommit = False
        finally:
            self._drop_connection()

    def _drop_connection(self) -> None:
        fairy, self._fairy = self._fairy, None
        if fairy is not None:
            if self._db.closed:
                fairy.invalidate()
            fairy.close()

    def _recover(self) -> None:
        """Wait for the server to come back, and make everything again."""
        self._drop_connection()
        end = time.monotonic() + _RECOVERY_S
        while True:
            try:
                self._open()
            except Exception:
                self._drop_connection()
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def size(self, spec: IndexSpec, /) -> int:
        """Return rows x width, with equal keys stored once (PostgreSQL 13 and later).

        HypoPG's own figure knows neither repeated keys nor the real row count of a sampled copy, and was
        2.5 times too high on TPC-H.
        """
        if self._fallback is not None:
            return self._fallback.size(spec)
        if spec not in self._sizes:
            self._sizes[spec] = self._estimate(spec)
        return self._sizes[spec]

    def _estimate(self, spec: IndexSpec) -> int:
        table = self._schema.tables[spec.table]
        rows = float(table.rows)
        if spec.method != "btree":
            return int(rows * 60) + 16384
        if spec.where:
            rows *= partial_share(spec, table)
        columns = [table.column(c) for c in spec.columns]
        width = sum(c.stats.width if c is not None else 12.0 for c in columns)
        entry = _entry(width, [c.type if c is not None else "text" for c in columns])
        plain = [k.name for k in spec.keys if not k.is_expression]
        distinct = rows
        if not spec.include and len(plain) == len(spec.keys):
            distinct = min(rows, prefix_distinct(table, plain)[-1])
        if rows > 2.5 * distinct:
            return int((distinct * entry + rows * 6.2) * 1.1) + 16384
        return int(rows * entry * 1.12) + 16384

    def _ensure(self, spec: IndexSpec) -> None:
        there = spec
        if self._copies is not None and "." in spec.table:
            there = replace(spec, table=spec.table.rpartition(".")[2])
        if spec.method != "btree":
            if spec not in self._built:
                self._build(spec, there)
        elif spec not in self._made:
            text = create_index_sql(there, "h", "postgres")
            row = self._db.execute("SELECT indexrelid FROM hypopg_create_index(%s)", (text,)).fetchone()
            self._made[spec] = int(row[0])

    def _build(self, spec: IndexSpec, there: IndexSpec) -> None:
        """Build an index on the sampled copy: HypoPG knows no GIN."""
        where = self._db.execute("SELECT to_regclass(%s)", (f"pg_temp.{quote(there.table, 'postgres')}",))
        if self._copies is None or where.fetchone()[0] is None:
            raise self._psycopg.NotSupportedError(
                f"HypoPG cannot imagine {spec.method}, and it is built on sampled copies only: "
                "give what_if another database"
            )
        self._db.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        name = f"built_{len(self._built)}_{abs(hash(spec)) % 10**8}"
        self._db.execute(create_index_sql(there, name, "postgres"))
        self._built[spec] = name

    def _set(self, wanted: frozenset[IndexSpec]) -> None:
        for spec in [s for s in self._made if s not in wanted]:
            self._db.execute("SELECT hypopg_drop_index(%s::oid)", (self._made.pop(spec),))
        for spec in [s for s in self._built if s not in wanted]:
            self._db.execute(f"DROP INDEX pg_temp.{self._built.pop(spec)}")
        for spec in wanted:
            self._ensure(spec)

    def plan(self, query: Query, specs: Sequence[IndexSpec], /) -> Plan:
        """EXPLAIN with exactly these hypothetical indexes."""
        if self._fallback is not None:
            self.explains += 1
            return self._fallback.plan(query, specs)
        wanted = frozenset(s for s in specs if s.table in query.analysis.tables)
        if (query.id, wanted) in self._poison:
            raise self._psycopg.OperationalError("the what-if server died while it planned this before")
        with muted():
            try:
                self._set(wanted)
                self.explains += 1
                plan = explain(self._db, self._local(query.sample))
            except self._psycopg.Error:
                if self._db.closed:
                    self._poison.add((query.id, wanted))
                    self.notes.append(f"{query.id}: the what-if server died while it planned this")
                    self._recover()
                raise
        text, names = plan_shape(plan)
        by_name = {str(oid): spec for spec, oid in self._made.items()}
        by_name |= {name: spec for spec, name in self._built.items()}
        used, existing = set(), set()
        for name in names:
            known = name[1:].partition(">")[0] if name.startswith("<") else name
            if known in by_name:
                used.add(by_name[known])
            else:
                existing.add(name)
        return Plan(cost=plan["Total Cost"], text=text, used=frozenset(used), existing=frozenset(existing))

    def _local(self, sample: Sample) -> Sample:
        """Name copies without their schema: temporary tables have another."""
        if self._copies is None or not any("." in n for n in self._schema.tables):
            return sample
        out, parts = [], list(tokens(sample.sql, "postgres"))
        schemas = {n.partition(".")[0] for n in self._schema.tables if "." in n}
        skip = 0
        for at, token in enumerate(parts):
            if skip:
                skip -= 1
            elif token.text.strip('"') in schemas and [t.text for t in parts[at + 1 : at + 2]] == ["."]:
                skip = 1
            else:
                out.append(token.text)
        return Sample("".join(out), sample.values)
