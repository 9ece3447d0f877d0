"""What SQLite's own planner would do with indexes that do not exist, and what that would cost.

The plan comes from SQLite on an empty copy of the schema whose ``sqlite_stat1`` holds the real (or
sampled) figures: it agrees with the plan of a really indexed database. SQLite tells no cost, so the
rows each step visits are estimated here from the sample.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.analysis.names import TableUse
from eventperf.dbopt.protocols import Plan, Query
from eventperf.dbopt.schema.ddl import create_index_sql, quote
from eventperf.dbopt.schema.model import IndexSpec, Schema, Table, index_name
from eventperf.dbopt.schema.selectivity import partial_columns, partial_share, prefix_distinct, selectivity

_STEP: Final = re.compile(
    r"(?P<how>SCAN|SEARCH) (?:TABLE )?(?P<alias>.+?)(?: AS (?P<as>\S+))?"
    r"(?: USING (?P<auto>AUTOMATIC )?(?:PARTIAL )?(?P<covering>COVERING )?"
    r"(?P<what>INDEX|INTEGER PRIMARY KEY|PRIMARY KEY)"
    r"(?: (?P<index>[^()]+?))?)?(?: \((?P<terms>.*?)\))?(?: LEFT-JOIN)?(?: EXISTS)?$"
)
_TERM: Final = re.compile(r"(?P<column><expr>|.+?)(?P<op>=|>|<)\?$")
_SKIPPED: Final = re.compile(r"ANY\((.+?)\)")
_SEEK: Final = 7.0  # one b-tree descent to a row, in rows read in order
_SORT: Final = 0.25


class ScratchPlanner:
    """One in-memory database per search; nothing of the application is touched."""

    is_real = True
    is_cheapest = False
    method = "SQLite's planner on a scratch copy of schema and statistics"

    def __init__(self, sqlite3: Any, schema: Schema, ddl: Sequence[Any], stats: Sequence[Any]) -> None:
        self.explains: int = 0
        self._schema = schema
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._sqlite3 = sqlite3
        self._made: dict[IndexSpec, str] = {}
        self._stat: dict[IndexSpec, str] = {}
        self._specs: dict[str, IndexSpec] = {}  # by name, of all that was ever made
        self._real = {i.name: i.spec for t in schema.tables.values() for i in t.indexes}
        self._current: dict[str, frozenset[IndexSpec]] = {}  # by table
        self.notes: list[str] = []
        for kind, name, _, sql in ddl:
            if name.startswith("sqlite_") or kind == "trigger":
                continue
            try:
                self._db.execute(sql)
            except sqlite3.Error as error:
                if name.lower() not in schema.others:  # a virtual table makes its own
                    self.notes.append(f"{kind} {name} could not be copied for planning: {error}")
        self._db.execute("ANALYZE sqlite_schema")
        known = {(t, i) for t, i, _ in stats}
        rows = [tuple(s) for s in stats]
        for table in schema.tables.values():
            rows += [
                (table.name, i.name, self._stat_text(i.spec))
                for i in table.indexes
                if (table.name, i.name) not in known
            ]
            if not any(t == table.name for t, _, _ in rows):
                rows.append((table.name, None, str(max(1, table.rows))))
        self._db.executemany("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", rows)
        self._db.execute("ANALYZE sqlite_schema")

    def close(self) -> None:
        """Free the scratch database."""
        self._db.close()

    def size(self, spec: IndexSpec, /) -> int:
        """Return rows x (width of the columns + record overhead)."""
        table = self._schema.tables[spec.table]
        rows = float(table.rows)
        if spec.where:
            rows *= partial_share(spec, table)
        return int(rows * (_index_width(spec, table) + 5.0) * 1.06) + 4096

    def plan(self, query: Query, specs: Sequence[IndexSpec], /) -> Plan:
        """Ask SQLite for its plan and price it."""
        self._set(frozenset(s for s in specs if s.table in query.tables), query.tables)
        self.explains += 1
        values = {f"p{i}": v for i, v in enumerate(query.sample.values or (), 1)}
        if query.sample.values is None:
            values = {f"p{i}": None for i in range(1, 200)}
        rows = self._db.execute(f"EXPLAIN QUERY PLAN {query.sample.sql}", values).fetchall()
        text, names = shape(rows)
        made = self._specs
        return Plan(
            cost=max(1.0, _Pricer(query, self._schema, made, self._real).price(rows)),
            text=text,
            used=frozenset(made[n] for n in names if n in made),
            existing=frozenset(n for n in names if n not in made),
        )

    def _set(self, wanted: frozenset[IndexSpec], tables: frozenset[str]) -> None:
        """Make exactly ``wanted`` on ``tables``; what is on others disturbs nobody, and may serve again."""
        there = frozenset(s for t in tables for s in self._current.get(t, ()))
        if wanted == there:
            return
        for spec in there - wanted:
            self._db.execute(f"DROP INDEX {quote(self._made[spec], 'sqlite')}")
            self._current[spec.table] -= {spec}  # step by step: the next may be refused
        for spec in wanted - there:
            name = self._made.setdefault(spec, index_name(spec, limit=120, prefix="hypo"))
            self._specs[name] = spec
            self._db.execute(create_index_sql(spec, name, "sqlite"))
            self._current[spec.table] = self._current.get(spec.table, frozenset()) | {spec}
            stat = self._stat.get(spec)
            if stat is None:
                stat = self._stat[spec] = self._stat_text(spec)
            self._db.execute(
                "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", (spec.table, name, stat)
            )
        self._db.execute("ANALYZE sqlite_schema")

    def _stat_text(self, spec: IndexSpec) -> str:
        """Return the row ANALYZE would write: rows, then rows per value of each prefix."""
        table = self._schema.tables[spec.table]
        rows = max(1.0, table.rows * (partial_share(spec, table) if spec.where else 1.0))
        plain = [k.name for k in spec.keys]
        if any(k.is_expression for k in spec.keys):
            distinct = [rows / 10] * len(plain)
        else:
            distinct = prefix_distinct(table, plain)
        return " ".join(str(max(1, math.ceil(v))) for v in (rows, *(rows / max(1.0, d) for d in distinct)))


def shape(rows: Sequence[Sequence[Any]]) -> tuple[str, frozenset[str]]:
    """Return EXPLAIN QUERY PLAN as indented text, and the names of the indexes in it."""
    depth = {0: -1}
    lines, names = [], set()
    for number, parent, _, detail in rows:
        depth[number] = depth.get(parent, -1) + 1
        lines.append("  " * depth[number] + detail)
        found = _STEP.match(detail)
        if found is not None and found["index"] and not found["auto"]:
            names.add(found["index"].strip())
        if detail.startswith("USING INDEX ") and " FOR " in detail:
            names.add(detail[len("USING INDEX ") :].partition(" FOR ")[0])
    return "\n".join(lines), frozenset(names)


def _index_width(spec: IndexSpec, table: Table) -> float:
    total = 0.0
    for key in spec.keys:
        column = table.column(key.name)
        total += 1.0 + (column.stats.width if column is not None and not key.is_expression else 12.0)
    primary = [table.columns[c] for c in table.primary_key if c in table.columns]
    return total + 1.0 + (sum(c.stats.width for c in primary) if primary else 4.0)


class _Pricer:
    """Walks a plan: nested loops multiply, sorts and subqueries add."""

    def __init__(
        self, query: Query, schema: Schema, made: dict[str, IndexSpec], real: dict[str, IndexSpec]
    ) -> None:
        self._query, self._schema, self._made, self._real = query, schema, made, real
        self._uses: dict[str, TableUse] = {}
        for use in reversed(query.analysis.uses):
            self._uses[use.alias.lower()] = use
        self._names: dict[str, str] = {}
        tree = query.analysis.tree
        for table in tree.find_all(exp.Table) if tree is not None else ():
            self._names.setdefault(table.alias_or_name.lower(), table.name)
        self._derived: dict[str, float] = {}
        self._children: dict[int, list[tuple[int, str]]] = {}

    def price(self, rows: Sequence[Sequence[Any]]) -> float:
        for number, parent, _, detail in rows:
            self._children.setdefault(parent, []).append((number, detail))
        return self._block(0, top=True)[0]

    def _block(self, parent: int, top: bool = False) -> tuple[float, float]:
        """Return (cost, rows) of the steps under ``parent``, which are one query block."""
        cost, rows, loops = 0.0, 1.0, 0.0
        sorts = False
        for number, detail in self._children.get(parent, ()):
            if detail.startswith(("SCAN", "SEARCH")) and "CONSTANT ROW" not in detail:
                step, kept = self._step(detail, rows)
                loops += step
                rows *= kept
                cost_children, _ = self._block(number)
                loops += cost_children
            elif detail == "MULTI-INDEX OR":
                step, kept = self._either(number)
                loops += rows * step
                rows *= kept
            elif "TEMP B-TREE" in detail:
                sorts = sorts or "LAST TERM" not in detail
                cost += _SORT * rows * math.log2(rows + 2) + rows * 0.5
                if "GROUP BY" in detail or "DISTINCT" in detail:
                    rows = max(1.0, rows / 10)
            elif detail.startswith("CORRELATED"):
                inner, _ = self._block(number)
                loops += inner * max(1.0, rows)
            elif detail.startswith(("CO-ROUTINE", "MATERIALIZE")):
                inner, made = self._block(number)
                cost += inner + (made if detail.startswith("MATERIALIZE") else 0.0)
                self._derived[detail.split(" ", 1)[1].strip().lower()] = max(1.0, made)
            else:
                inner, made = self._block(number)
                cost += inner
                if not detail.startswith(("LIST", "SCALAR", "BLOOM", "USING")):
                    rows = max(rows, made)
        if top and not sorts:
            loops *= self._stops_early(rows)
        return cost + loops, max(rows, 1e-3)

    def _stops_early(self, rows: float) -> float:
        tree = self._query.analysis.tree
        if not isinstance(tree, exp.Select) or tree.args.get("limit") is None:
            return 1.0
        if tree.args.get("group") is None and any(e.find(exp.AggFunc) for e in tree.expressions):
            return 1.0
        limit = self._number(tree.args["limit"].expression, 20.0)
        offset = tree.args.get("offset")
        if offset is not None:
            limit += self._number(offset.expression, 0.0)
        return min(1.0, max(limit, 1.0) / max(rows, 1e-3))

    def _number(self, node: Any, default: float) -> float:
        values = self._query.sample.values
        if isinstance(node, exp.Literal) and node.name.isdigit():
            return float(node.name)
        if isinstance(node, exp.Placeholder) and values and node.name[1:].isdigit():
            value = values[int(node.name[1:]) - 1]
            return float(value) if isinstance(value, (int, float)) else default
        return default

    def _either(self, parent: int) -> tuple[float, float]:
        cost = kept = 0.0
        for number, _ in self._children.get(parent, ()):
            for _, detail in self._children.get(number, ()):
                if detail.startswith("SEARCH"):
                    step, rows = self._step(detail, 1.0)
                    cost, kept = cost + step, kept + rows
        return cost, kept

    def _step(self, detail: str, outer: float) -> tuple[float, float]:
        """Return (cost of all iterations, rows kept per iteration) of one loop."""
        found = _STEP.match(detail)
        if found is None:
            return outer * 10.0, 1.0
        alias = (found["as"] or found["alias"]).strip('"').lower()
        index = (found["index"] or "").strip()
        spec = self._made.get(index) or self._real.get(index)
        table = self._table(alias, spec)
        if table is None:
            n = self._derived.get(alias, 100.0)
            if found["how"] == "SEARCH":
                return n + outer * 3.0, max(1.0, n / 100)
            return outer * n * 0.5, n
        use = self._uses.get(alias)
        if use is None or use.table != table.name:
            use = next((u for u in self._query.analysis.uses if u.table == table.name), None)
        implied = () if spec is None or not spec.where else partial_columns(spec, table)
        every = self._kept(use, table, implied)
        row = _row_cost(table.size_bytes / max(1, table.rows))
        if spec is not None and found["covering"]:
            row = _row_cost(_index_width(spec, table))
        size = float(max(1, table.rows))
        if found["how"] == "SCAN":
            if spec is not None:
                size *= partial_share(spec, table) if spec.where else 1.0
                step = size * (row if found["covering"] else row + _SEEK)
            else:
                step = size * row
            return outer * step, size * every
        if (
            not found["terms"] and found["what"] is not None
        ):  # min() or max(): the first that is kept, from an end
            return outer * (0.3 * math.log2(size + 2) + min(size, 1.0 / max(every, 1e-9)) * row), 1.0
        terms = [m for m in map(_TERM.match, re.split(r" AND ", found["terms"] or "")) if m is not None]
        matched, used = self._matched(terms, use, table, spec, size)
        if found["auto"]:
            return size * (row + _SORT * math.log2(size + 2)) + outer * (2.0 + matched), matched
        skipped = [c for c in _SKIPPED.findall(found["terms"] or "") if c in table.columns]
        descents = prefix_distinct(table, skipped)[-1] if skipped else 1.0  # one for each value passed over
        per = 0.3 * math.log2(size + 2) * descents + matched * row
        if found["what"] == "INDEX" and not found["covering"]:
            per += matched * _SEEK
        return outer * per, max(matched * self._kept(use, table, (*used, *implied)), 1e-6)

    def _table(self, alias: str, spec: IndexSpec | None) -> Table | None:
        if spec is not None:
            return self._schema.tables[spec.table]
        if alias in self._derived:
            return None
        use = self._uses.get(alias)
        name = use.table if use is not None else self._names.get(alias, alias)
        return self._schema.table(name)

    def _matched(
        self,
        terms: Sequence[re.Match[str]],
        use: TableUse | None,
        table: Table,
        spec: IndexSpec | None,
        size: float,
    ) -> tuple[float, tuple[str, ...]]:
        equal = [t["column"] for t in terms if t["op"] == "="]
        ranged = {t["column"] for t in terms if t["op"] != "="}
        if equal and equal[0] in ("rowid", "<expr>"):
            if equal[0] == "rowid":
                return self._list(use, table.primary_key, table), tuple(table.primary_key)
            return size * 0.01, ()
        share = 1.0
        known = (
            {p.column: p for p in use.predicates if p.kind in ("eq", "in", "null")} if use is not None else {}
        )
        joined = [c for c in equal if c not in known]
        for column in equal:
            if column in known:
                share *= selectivity(known[column], table, self._query.sample.values)
        if joined:
            share /= max(
                1.0, prefix_distinct(table, joined)[-1] if all(c in table.columns for c in joined) else 100
            )
        if equal and table.is_unique(equal):
            share = min(share, max(1.0, self._list(use, equal, table)) / size)
        if spec is not None and spec.where:
            share *= partial_share(spec, table)
        for p in use.predicates if use is not None else ():
            if p.column in ranged or (p.kind == "function" and "<expr>" in ranged):
                share *= selectivity(p, table, self._query.sample.values)
        if "rowid" in ranged:
            share *= 0.25
        return max(size * share, 1e-3), (*equal, *ranged)

    def _list(self, use: TableUse | None, columns: Sequence[str], table: Table) -> float:
        """Return how many values a unique lookup has: an IN list has several."""
        out = 1.0
        for p in use.predicates if use is not None else ():
            if p.kind == "in" and p.column in columns:
                out *= max(1, len(p.values))
        return out

    def _kept(self, use: TableUse | None, table: Table, used: Sequence[str]) -> float:
        share = 1.0
        for p in use.predicates if use is not None else ():
            if p.column not in used:
                share *= selectivity(p, table, self._query.sample.values)
        return share


def _row_cost(width: float) -> float:
    return 0.4 + width / 150.0
