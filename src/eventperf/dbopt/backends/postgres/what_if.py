"""What-if on PostgreSQL: HypoPG's hypothetical indexes over sampled copies, never over the real tables.

HypoPG has crashed servers, so it runs in the ``what_if`` database. What that database lacks of the
application's tables is copied there, when a statement needs it.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from eventperf.dbopt.indexes.estimate import StatisticsPlanner
from eventperf.dbopt.protocols import Plan, Query
from eventperf.dbopt.schema.ddl import create_index_sql, quote
from eventperf.dbopt.schema.model import IndexSpec, Schema
from eventperf.dbopt.schema.selectivity import partial_share, prefix_distinct
from eventperf.dbopt.statements.lex import render, tokens
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.workload import Sample

from .copies import Copies
from .drivers import connection_of
from .grants import lessen
from .harmless import harm

_STATEMENT_MS: Final = 10_000
_numbers: Final = itertools.count()
_RECOVERY_S: Final = 30.0
_EXPLAIN: Final = "EXPLAIN (FORMAT JSON, SUMMARY)"
_PLANNING: Final = "Planning Time"
#: What took between so many milliseconds to plan is planned again: a cold catalogue is no part of it.
_SHORT_MS: Final = 1.0
_LONG_MS: Final = 10.0
#: For temporary tables, in place of 8 MB: what is read again and again is there, as it is on a server.
_BUFFERS: Final = "64MB"
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


def read_plan(row: Any) -> dict[str, Any]:
    """Return the plan in a row of EXPLAIN and what it took; an engine may leave JSON as text."""
    found = json.loads(row[0]) if isinstance(row[0], (str, bytes)) else row[0]
    plan: dict[str, Any] = found[0]["Plan"]
    return plan | {_PLANNING: found[0].get(_PLANNING, 0.0)}


def explain(db: Any, sample: Sample) -> dict[str, Any]:
    """Return a statement's plan; without values the generic one."""
    if sample.values is not None:
        sql, values = render(sample.sql, sample.values, "format", "postgres")
        return read_plan(db.execute(f"{_EXPLAIN} {sql}", values or None, prepare=False).fetchone())
    parts, count = [], 0
    for kind, text in tokens(sample.sql, "postgres"):
        if kind == "param":
            count += 1
            text = f"${count}"
        parts.append(text)
    name = f"eventperf_{next(_numbers)}"  # one of a transaction that failed is still there
    db.execute(f"PREPARE {name} AS {''.join(parts)}")
    try:
        call = f"({', '.join(['NULL'] * count)})" if count else ""
        return read_plan(db.execute(f"{_EXPLAIN} EXECUTE {name}{call}").fetchone())
    finally:
        with suppress(Exception):
            db.execute(f"DEALLOCATE {name}")


def _entry(width: float, types: Sequence[str]) -> float:
    """Return the bytes of one index entry: its header, its values on their boundaries, and its pointer."""
    fixed = [t for t in types if t.lower().startswith(_FIXED)]
    if len(fixed) == len(types):
        return 8.0 * math.ceil((width + 8.0) / 8.0) + 4.0
    # Values of varying length end anywhere: half a word is lost at the end, some before each that is aligned.
    return width + 8.0 + 4.0 + 1.5 * len(fixed) + 4.0


class HypoPlanner:
    """PostgreSQL's own planner with HypoPG's hypothetical indexes, in the ``what_if`` database.

    When the server dies while it plans, the statement and its indexes are given up, the copies are made
    again on a new connection, and the search goes on.

    Args:
        psycopg: The driver.
        engine: Engine of the ``what_if`` database.
        schema: The application's tables.
        source: Opens connections to the application's database, to copy samples from; ``None`` when
            ``what_if`` is that database, which the caller asked for.
    """

    is_real: bool = True
    is_cheapest: bool = True

    def __init__(
        self,
        psycopg: Any,
        engine: Any,
        schema: Schema,
        source: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
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
        self._harm: dict[str, str | None] = {}
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
            self._db = connection_of(self._fairy)
            self._db.rollback()
            self._db.autocommit = True
            self._made.clear()
            self._built.clear()
            self._db.execute("CREATE EXTENSION IF NOT EXISTS hypopg")
            self._db.execute("SELECT hypopg_reset()")
            self._db.execute("SET plan_cache_mode = force_generic_plan")
            self._db.execute(f"SET statement_timeout = {_STATEMENT_MS}")
            with suppress(self._psycopg.Error):  # not after the session's first temporary table
                self._db.execute(f"SET temp_buffers = '{_BUFFERS}'")
            # What a statement calls may be anybody's function: planning it must not write.
            self._db.execute("SET default_transaction_read_only = on")
            if self._copies is not None:
                self._copies.forget()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("SET default_transaction_read_only = off")
        try:
            yield
        finally:
            if not self._db.closed:
                self._db.execute("SET default_transaction_read_only = on")

    def expect(self, queries: Iterable[Query], /) -> None:
        """Note what will be planned, so that each table is copied once, with all that is asked of it."""
        if self._copies is not None:
            self._copies.expect(queries)

    def copied(self) -> list[str]:
        """Tell what of the application's data was copied."""
        return [] if self._copies is None else [f"{t}: {what}" for t, what in self._copies.copied.items()]

    def _copy(self, query: Query) -> None:
        """Copy what a statement needs; hypothetical indexes on what is made anew are gone with the old."""
        if self._copies is None or not self._copies.lacks(query):
            return
        with self._writing():
            self._set(
                frozenset(s for s in (*self._made, *self._built) if s.table not in query.analysis.tables)
            )
            self._copies.make(self._db, query)
        self.notes += [n for n in self._copies.notes if n not in self.notes]

    def close(self) -> None:
        """Forget all hypothetical indexes and copies, and give the connection back."""
        if self._fairy is None:
            return
        try:
            if not self._db.closed and self._fallback is None:
                self._db.execute("SELECT hypopg_reset()")
                self._db.execute("RESET plan_cache_mode")
                self._db.execute("RESET statement_timeout")
                self._db.execute("RESET default_transaction_read_only")
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
        there = spec if self._copies is None else replace(spec, table=self._copies.place(spec.table))
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
        name = f"built_{len(self._built)}_{abs(hash(spec)) % 10**8}"
        with self._writing():
            if any(k.opclass for k in spec.keys):
                self._db.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            self._db.execute(create_index_sql(there, name, "postgres"))
        self._built[spec] = name

    def _set(self, wanted: frozenset[IndexSpec]) -> None:
        for spec in [s for s in self._made if s not in wanted]:
            self._db.execute("SELECT hypopg_drop_index(%s::oid)", (self._made.pop(spec),))
        for spec in [s for s in self._built if s not in wanted]:
            with self._writing():
                self._db.execute(f"DROP INDEX pg_temp.{self._built.pop(spec)}")
        for spec in wanted:
            self._ensure(spec)

    def _explained(self, sample: Sample) -> dict[str, Any]:
        if sample.sql not in self._harm:
            self._harm[sample.sql] = harm(self._db, sample.sql, on_copies=self._copies is not None)
        if (reason := self._harm[sample.sql]) is not None:  # to plan is to run what is taken for constant
            raise self._psycopg.NotSupportedError(f"not planned: {reason}")
        if self._copies is not None:
            return explain(self._db, sample)
        self._db.execute("BEGIN")  # in the application's database a statement may call anybody's function
        try:
            lessen(self._db)
            return explain(self._db, sample)
        finally:
            if not self._db.closed:
                self._db.execute("ROLLBACK")

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
                self._copy(query)
                self._set(wanted)
                self.explains += 1
                sample = query.sample
                if self._copies is not None:
                    sample = Sample(self._copies.local(sample.sql), sample.values)
                plan = self._explained(sample)
                if not wanted and _SHORT_MS < plan[_PLANNING] < _LONG_MS:
                    self.explains += 1
                    plan = min(plan, self._explained(sample), key=lambda p: p[_PLANNING])
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
        return Plan(
            cost=plan["Total Cost"],
            text=text,
            used=frozenset(used),
            existing=frozenset(existing),
            planning_s=plan[_PLANNING] / 1000,
        )
