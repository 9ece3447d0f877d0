"""What a workload costs under a set of indexes, and what a step from one set to another is worth."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Plan, Query
from eventperf.dbopt.schema.model import IndexSpec, Schema

from .prices import NOTHING, Prices, Specs

#: What maintaining one index costs per row written, in seconds: about one b-tree insert.
WRITE_S: Final = 12e-6
#: A query whose plan could still improve by less than this share of all costs is not asked about, nor by
#: less than this part of an even share where there are many queries.
_NO_ROOM: Final = 0.0005
_EVEN: Final = 0.25
#: The same for queries for which the planner picked another index.
_LITTLE_ROOM: Final = 0.02
#: Where an index may do harm, queries with another one and less than this share are not asked about.
_LITTLE_HARM: Final = 0.005
#: So many queries tell what an index gains: those with the most room. What the others gain is like it.
#: So many more are asked whether an index does them harm before it is taken. Fewer in large workloads.
_TOLD: Final = 12
_FEWEST: Final = 3
_LARGE: Final = 100
#: An index that adds all tables' bytes once more must divide the remaining time by e to this power.
_PER_BYTE: Final = 0.2
#: What no index can help counts at most so many times what some can: however long it takes, it takes that
#: long with every index, and by the client's clock it may be the network.
_FIXED: Final = 10.0
#: In a plan of so many tables an index takes as long to look at as its table did without it; where there are
#: fewer, so are the ways to join them (PostgreSQL 15: 0.15 of that for one table, 0.45 for four, 1 to 2 from
#: eight on). It counts double: what has no use for the index only gets slower.
_MANY_JOINS: Final = 8
_LOOKED: Final = 2.0
#: A workload that costs this share of what it does today is fast enough: half as much again is worth little.
_ENOUGH: Final = 0.003


@dataclass(frozen=True, slots=True)
class State:
    """A set of indexes, and the plan each query has with it."""

    specs: Specs
    plans: Mapping[str, Plan]
    cost: float
    size: int
    upkeep: float


class States:
    """The queries of a search, and the states that they can be in.

    Args:
        prices: Of plans and sizes.
        schema: Tables, whose bytes an index' own are compared with.
        limits: Budgets.

    Attributes:
        queries: Those that the planner takes.
        by_spec: The queries for which the planner picked an index, or a form of it.
        floors: What each query costs at least.
        failed: Why the planner refused the others.
    """

    def __init__(self, prices: Prices, schema: Schema, limits: Limits) -> None:
        self._prices, self._limits = prices, limits
        self._writes: Callable[[IndexSpec], float] = lambda spec: 0.0
        self._stored = sum(t.size_bytes for t in schema.tables.values())
        self.queries: list[Query] = []
        self.by_spec: dict[IndexSpec, dict[str, Query]] = defaultdict(dict)
        self.by_table: dict[str, list[Query]] = defaultdict(list)
        self.floors: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.total: float = 0.0
        self._fixed = 0.0
        self._planning = 0.0
        self._looks: dict[str, float] = defaultdict(float)

    def left(self, state: State) -> float:
        """Return what the queries cost that an index could help, and a bounded part of all else."""
        rest = max(state.cost - self._fixed, 1e-12)
        return rest + min(self._fixed + self._planning, _FIXED * rest)

    def add(self, state: State, queries: Iterable[Query], writes: Callable[[IndexSpec], float]) -> State:
        """Return ``state`` with more queries in the workload, and what all of it loses by writing."""
        self._writes = writes
        plans, cost = dict(state.plans), state.cost
        for query in queries:
            try:
                plan = self._prices.plan(query, NOTHING)
            except Exception as error:
                # One statement that the planner refuses must not end the search for the others.
                self.failed[query.id] = self._prices.refusal(query, error)
                continue
            self.queries.append(query)
            for table in query.tables:
                self.by_table[table].append(query)
            plans[query.id] = plan
            cost += self._prices.cost(query, plan)
            self.total += query.weight
            self._planning += query.planning
            uses = query.analysis.uses
            for use in uses:
                self._looks[use.table] += _LOOKED * query.planning * min(1 / len(uses), 1 / _MANY_JOINS)
        return State(state.specs, plans, cost, state.size, sum(map(self.upkeep, state.specs)))

    def refreshed(self, state: State, queries: Sequence[Query]) -> State:
        """Return ``state`` with what is known by now of the plans of ``queries``; the costliest are asked."""
        plans, cost, specs = dict(state.plans), state.cost, by_table(state.specs)
        for number, query in enumerate(sorted(queries, key=lambda q: -q.weight)):
            if not serving(specs, query):
                continue
            ask = self._prices.plan if number < _LARGE else self._prices.guess
            plan = plans[query.id] = ask(query, state.specs)
            for spec in plan.used:
                self.by_spec[spec][query.id] = query
            cost += self._prices.cost(query, plan) - self._prices.cost(query, state.plans[query.id])
        helpless = (q for q in self.queries if q.id not in self.floors and not plans[q.id].used)
        self._fixed = sum(self._prices.cost(q, plans[q.id]) for q in helpless)
        return replace(state, plans=plans, cost=cost)

    @property
    def _told(self) -> int:
        return max(_FEWEST, min(_TOLD, _TOLD * _LARGE // max(1, len(self.queries))))

    def writes(self, spec: IndexSpec) -> float:
        """Return what maintaining an index costs the workload's writers."""
        return self._writes(spec)

    def upkeep(self, spec: IndexSpec) -> float:
        """Return what an index costs that nobody uses: writers maintain it, and every plan looks at it."""
        return self._writes(spec) + self._looks[spec.table]

    # --- steps ---------------------------------------------------------------------------------

    def more(self, state: State, specs: Sequence[IndexSpec], *, roughly: bool = False) -> State:
        """Return ``state`` with more indexes; only queries they may help, or harm, are asked about.

        Args:
            state: As it is.
            specs: The new indexes.
            roughly: Ask few queries; what the others gain is taken to be like it.
        """
        more = frozenset(specs)
        asked, harmed = self._askable(state, more)
        told = asked[: self._told] if roughly else asked + harmed[: self._told]
        plans, gained, hoped = dict(state.plans), 0.0, 0.0
        for room, query, mine in told:
            now = state.plans[query.id]
            # What its plan does not use today will not be in tomorrow's, nearly always: fewer questions.
            plan = self._prices.beside(query, now.used | mine, state.specs | more)
            hoped += room
            if plan.used & mine:
                plans[query.id] = plan
                gained += self._prices.cost(query, now) - self._prices.cost(query, plan)
        if roughly and hoped > 0:
            gained += sum(room for room, _, _ in asked[self._told :]) * min(1.0, max(0.0, gained / hoped))
        size = state.size + sum(map(self._prices.size, specs))
        upkeep = state.upkeep + sum(map(self.upkeep, specs))
        return State(state.specs | more, plans, state.cost - gained, size, upkeep)

    def without(self, state: State, spec: IndexSpec) -> State:
        """Return ``state`` with one index less."""
        plans, cost, specs = dict(state.plans), state.cost, state.specs - {spec}
        users = [q for q in self.by_table[spec.table] if spec in state.plans[q.id].used]
        users.sort(key=lambda q: -q.weight)
        for number, query in enumerate(users):
            ask = self._prices.plan if number < self._told else self._prices.guess
            plan = plans[query.id] = ask(query, specs)
            cost += self._prices.cost(query, plan) - self._prices.cost(query, state.plans[query.id])
        size = state.size - self._prices.size(spec)
        return State(specs, plans, cost, size, state.upkeep - self.upkeep(spec))

    def _askable(
        self, state: State, more: Specs
    ) -> tuple[list[tuple[float, Query, Specs]], list[tuple[float, Query, Specs]]]:
        """Return the queries that ``more`` may help, most room first, and those that it may harm."""
        helped, harmed = [], []
        left = self.left(state)
        least = self._no_room * left
        for query in {q.id: q for s in more for q in self.by_table[s.table]}.values():
            now = state.plans[query.id]
            price = self._prices.cost(query, now)
            room = price - self.floor(query, now.used | more)
            mine = frozenset(s for s in more if self._may_help(state, query, s, room, least, left))
            if mine:
                helped.append((room, query, mine))
            elif not self._prices.is_cheapest and price > least:
                mine = frozenset(s for s in more if may_serve(s, query))
                is_minor = price <= _LITTLE_HARM * left and all(_is_served(s, now) for s in mine)
                if mine and not is_minor:
                    harmed.append((0.0, query, mine))
        helped.sort(key=lambda a: (-a[0], a[1].id))
        harmed.sort(key=lambda a: (-a[1].weight, a[1].id))
        return helped, harmed

    def _may_help(
        self, state: State, query: Query, spec: IndexSpec, room: float, least: float, left: float
    ) -> bool:
        if room <= least:
            return False  # nearly as good as it can get
        if query.id in self.by_spec[spec]:
            return True
        if room <= _LITTLE_ROOM * left or not may_serve(spec, query):
            return False
        return not _is_served(spec, state.plans[query.id])

    @property
    def _no_room(self) -> float:
        return min(_NO_ROOM, _EVEN / max(1, len(self.queries)))

    # --- worth ---------------------------------------------------------------------------------

    def floor(self, query: Query, specs: Specs) -> float:
        """Return what a query costs at least under ``specs``, and under all candidates."""
        return max(self.floors.get(query.id, 0.0), self._prices.floor(query, specs))

    def bound(self, spec: IndexSpec, state: State) -> float:
        """Return the most that an index can gain the queries for which the planner picked it."""
        bound = 0.0
        for query in self.by_spec[spec].values():
            now = state.plans[query.id]
            bound += max(0.0, self._prices.cost(query, now) - self.floor(query, now.used | {spec}))
        return bound

    def potential(self, state: State, spec: IndexSpec) -> float:
        """Return the most that another choice in place of ``spec`` could be worth."""
        if self._limits.max_index_bytes is not None:
            return math.inf
        users = [q for q in self.by_table[spec.table] if spec in state.plans[q.id].used]
        room = sum(self._prices.cost(q, state.plans[q.id]) - self.floors.get(q.id, 0.0) for q in users)
        rest = max(state.cost - room, 1e-12)
        return math.log(max(state.cost, 1e-12) / rest) + _PER_BYTE * self._prices.size(spec) / max(
            self._stored, 1
        )

    def worth(self, old: State, new: State) -> float:
        """Return what ``new`` is better by: the logarithm of time saved, less a price of bytes and of count.

        Gains are measured against what is left: one runaway statement, once it is served, must not make
        every other gain look small. But where next to nothing is left, nothing is worth much any more. A
        bound given by the caller takes the place of the price of bytes.
        """
        more = self.left(old) - old.cost + _ENOUGH * (self.total - self._fixed)
        saved = math.log((old.cost + old.upkeep + more) / max(new.cost + new.upkeep + more, 1e-12))
        if self._limits.max_index_bytes is None:
            saved -= _PER_BYTE * (new.size - old.size) / max(self._stored, new.size, old.size, 1)
        return saved - (len(new.specs) - len(old.specs)) * self._limits.min_gain_ratio

    def refused(self, state: State, new: State, specs: Sequence[IndexSpec]) -> str | None:
        """Return why indexes are not worth having; ``None`` when they are."""
        writes, left = sum(map(self._writes, specs)), self.left(state)
        gain = state.cost - new.cost - sum(self._looks[s.table] for s in specs)
        percent = f"{100 * max(gain, 0) / left:.2f} % of what is left"
        budget = self._limits.max_index_bytes
        if gain <= left * self._limits.min_gain_ratio * len(specs):
            return f"saves only {percent} beside the chosen ones"
        if budget is not None and new.size > budget:
            return f"would exceed max_index_bytes ({budget:,})"
        if self.worth(state, new) <= 0:
            share = (new.size - state.size) / max(1, self._stored)
            return f"saves {percent} for {100 * share:.0f} % more bytes"
        if writes > gain * self._limits.max_write_cost_ratio:
            return f"writers would lose {writes:.3g} s for {gain:.3g} s gained"
        return None


def _is_served(spec: IndexSpec, plan: Plan) -> bool:
    """Tell whether a plan uses an index that begins like ``spec`` already."""
    return any(u.table == spec.table and u.keys[0] == spec.keys[0] for u in plan.used)


def may_serve(spec: IndexSpec, query: Query) -> bool:
    """Tell whether a query that the index was not made for could use it."""
    first = spec.keys[0]
    return not (first.is_expression or spec.where) and (spec.table, first.name) in query.looked_up


def by_table(specs: Iterable[IndexSpec]) -> dict[str, list[IndexSpec]]:
    """Return indexes by their tables: a query is shown those of its own only."""
    out: dict[str, list[IndexSpec]] = defaultdict(list)
    for spec in specs:
        out[spec.table].append(spec)
    return out


def serving(specs: Mapping[str, Sequence[IndexSpec]], query: Query) -> list[IndexSpec]:
    """Return those of :func:`by_table` that a query could use."""
    return [s for table in query.tables for s in specs.get(table, ()) if may_serve(s, query)]
