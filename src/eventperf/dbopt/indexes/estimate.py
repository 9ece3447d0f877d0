"""Price plans from statistics alone, where no planner may be asked. Advice that rests on it says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from eventperf.dbopt.analysis.names import TableUse
from eventperf.dbopt.protocols import Plan, Query
from eventperf.dbopt.schema.model import IndexSpec, Schema, Table
from eventperf.dbopt.schema.selectivity import prefix_distinct, selectivity

_SEEK = 4.0
#: What an index saves must be so many times what is left, or the estimate may be wrong about its sign.
_CLEARLY = 2.0
#: What planning takes doubles with every table, until an engine looks at some orders only (PostgreSQL 15:
#: 0.25 ms for four tables, 0.7 for six, 30 for twelve and more).
_PLANNING_S = 2e-5
_LONGEST_S = 0.03


class StatisticsPlanner:
    """A cost model over column statistics: access paths, nested loops or one pass, sorts."""

    is_real = False
    is_cheapest = True
    method = "statistics alone (no what_if database)"

    def __init__(self, schema: Schema) -> None:
        self.explains: int = 0
        self.notes: list[str] = []
        self._schema = schema

    def close(self) -> None:
        """Nothing was made."""

    def size(self, spec: IndexSpec, /) -> int:
        """Return rows x (widths + 12 bytes)."""
        table = self._schema.tables[spec.table]
        columns = [table.column(c) for c in spec.columns]
        width = sum(c.stats.width if c is not None else 12.0 for c in columns)
        return int(table.rows * (width + 12.0) * 1.2) + 8192

    def plan(self, query: Query, specs: Sequence[IndexSpec], /) -> Plan:
        """Return the cheapest access per table, and what sorting costs."""
        self.explains += 1
        uses = self._order(query)
        outer, cost = 1.0, 0.0
        used: set[IndexSpec] = set()
        existing: set[str] = set()
        seen: set[str] = set()
        lines = []
        for number, use in enumerate(uses):
            table = self._schema.tables[use.table]
            joined = {mine for mine, other, _ in use.joins if number and (not other or other in seen)}
            seen.add(use.alias)
            step, spec, ordered = self._access(query, use, table, specs, joined, outer)
            rows = table.rows * self._kept(query, use)
            cost += step
            if number == 0 and (use.order_by or use.group_by) and not ordered:
                cost += rows * math.log2(rows + 2) * 0.1
            outer *= max(1.0, rows) if not joined else rows / self._distinct(table, joined)
            outer = max(1.0, outer)
            lines.append(f"{use.table}: {'scan' if spec is None else spec.label()}")
            if spec is not None and spec in specs:
                used.add(spec)
            elif spec is not None:
                existing |= {i.name for i in table.indexes if i.spec == spec}
        return Plan(
            cost=max(1.0, cost),
            text="\n".join(lines),
            used=frozenset(used),
            existing=frozenset(existing),
            planning_s=min(_LONGEST_S, _PLANNING_S * 2.0 ** min(len(uses), 20)),
        )

    def _order(self, query: Query) -> list[TableUse]:
        """Return the uses, what is left of each least first, and each after one that it is joined with."""
        left = sorted(query.analysis.uses, key=lambda u: self._kept(query, u))
        out: list[TableUse] = []
        seen: set[str] = set()
        while left:
            use = next((u for u in left if any(other in seen for _, other, _ in u.joins)), left[0])
            left.remove(use)
            seen.add(use.alias)
            out.append(use)
        return out

    @staticmethod
    def _distinct(table: Table, columns: Iterable[str]) -> float:
        """Return the values of the column that has most of them."""
        return max(1.0, *(prefix_distinct(table, [c])[-1] for c in columns))

    def _kept(self, query: Query, use: TableUse) -> float:
        table = self._schema.tables[use.table]
        share = 1.0
        for predicate in use.predicates:
            share *= selectivity(predicate, table, query.sample.values)
        return max(share, 1.0 / max(1, table.rows))

    def _access(
        self,
        query: Query,
        use: TableUse,
        table: Table,
        specs: Sequence[IndexSpec],
        joined: set[str],
        outer: float,
    ) -> tuple[float, IndexSpec | None, bool]:
        width = table.size_bytes / max(1, table.rows)
        best: tuple[float, IndexSpec | None, bool] = (table.rows * (0.4 + width / 150), None, False)
        real = [i.spec for i in table.indexes if i.valid]
        every = [*real, *(s for s in specs if s.table == table.name)]
        for spec in every:
            matched, ordered = self._matched(query, use, table, spec, joined)
            if matched is None:
                continue
            covering = use.columns <= set(spec.columns)
            per = 3.0 + matched * (0.6 if covering else 0.6 + _SEEK)
            if ordered and use.limited:
                per *= 0.2
            total = per * (max(1.0, outer) if joined else 1.0)
            margin = _CLEARLY if spec in specs and best[1] not in specs else 1.0
            if total * margin < best[0]:
                best = (total, spec, ordered)
        return best

    def _matched(
        self, query: Query, use: TableUse, table: Table, spec: IndexSpec, joined: set[str]
    ) -> tuple[float | None, bool]:
        values = query.sample.values
        equal = {p.column: p for p in use.predicates if p.kind in ("eq", "in", "null")}
        share, at = 1.0, 0
        for key in spec.keys:
            if key.is_expression:
                hit = next((p for p in use.predicates if p.expression == key.name), None)
                if hit is None:
                    break
                share *= selectivity(hit, table, values)
            elif key.name in equal:
                share *= selectivity(equal[key.name], table, values)
            elif key.name in joined:
                share /= max(1.0, prefix_distinct(table, [key.name])[-1])
            else:
                break
            at += 1
        ordered = bool(use.order_by) and tuple(k.name for k in spec.keys[at:])[: len(use.order_by)] == tuple(
            o.column for o in use.order_by
        )
        rest = spec.keys[at:]
        ranged = [
            p for p in use.predicates if rest and p.column == rest[0].name and p.kind in ("range", "prefix")
        ]
        for predicate in ranged:
            share *= selectivity(predicate, table, values)
        if at == 0 and not ranged and not (ordered and use.limited):
            return None, False
        return max(1e-3, table.rows * share), ordered
