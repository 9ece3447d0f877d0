"""Choose a set of indexes for a whole workload: gain per byte, with interaction, within budgets.

Greedy growth over lazily refreshed bounds, then each index is taken away and the gap filled anew, with
merged forms among the candidates; in the spirit of Extend (Schlosser, Kossmann, Boissier, "Efficient
Scalable Multi-attribute Index Selection Using Recursive Strategies", ICDE 2019), DB2Advis (Valentin et al.,
ICDE 2000) and index merging (Chaudhuri and Narasayya, "Index Merging", ICDE 1999).
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Capabilities, Plan, Planner, Query
from eventperf.dbopt.schema.model import IndexSpec, Schema

from .candidates import mergers
from .prices import NOTHING, Prices, Specs, refusal

_RUNNERS_UP = 20
#: A query whose plan could still improve by less than this share of all costs is not asked about.
_NO_ROOM = 0.0005
#: The same for queries for which the planner picked another index.
_LITTLE_ROOM = 0.02
#: Where an index may do harm, queries with another one and less than this share are not asked about.
_LITTLE_HARM = 0.005
#: An index that adds all tables' bytes once more must divide the remaining time by e to this power.
_PER_BYTE = 0.2
#: A workload that costs this share of what it does today is fast enough: half as much again is worth little.
_ENOUGH = 0.003
#: What grows first is judged by gain over bytes to this power: one wide index may do the work of several.
_DAMPED = 0.8
#: An index is not reconsidered when all that could be won is this many times less than one must save.
_SETTLED = 2.0

#: What maintaining one index costs per row written, in seconds: about one b-tree insert.
WRITE_S = 12e-6


@dataclass(slots=True)
class Choice:
    """One chosen index with its grounds.

    Attributes:
        spec: The index.
        gain: Share of the workload's weight it saves, given the others.
        size_bytes: Estimated size.
        write_cost: Share of the workload's weight that writers lose.
        serves: Queries whose plan uses it.
        rejected: Runners-up for the same queries, with the reason.
    """

    spec: IndexSpec
    gain: float
    size_bytes: int
    write_cost: float
    serves: list[Query] = field(default_factory=list)
    rejected: list[tuple[IndexSpec, str]] = field(default_factory=list)


@dataclass(slots=True)
class Selection:
    """The outcome of a search.

    Attributes:
        choices: Chosen indexes, most gain per byte first.
        before: Plans of today by query.
        after: Plans with all choices.
        unserved: Why a query got nothing.
        is_complete: ``False`` when the time budget ended the search early.
    """

    choices: list[Choice]
    before: dict[str, Plan]
    after: dict[str, Plan]
    unserved: dict[str, str]
    is_complete: bool
    rejected: list[tuple[IndexSpec, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _State:
    """A set of indexes, and the plan each query has with it."""

    specs: Specs
    plans: Mapping[str, Plan]
    cost: float
    size: int
    writes: float


class Search:
    """One search over one workload; ``expired`` is asked between steps (anytime).

    Args:
        planner: Prices plans and sizes.
        queries: The workload.
        wanted: Candidates by query.
        schema: Tables, whose bytes an index' own are compared with.
        able: What the engine's indexes can be.
        limits: Budgets.
        writes: What maintaining an index costs the workload's writers.
        expired: Whether time is up.
    """

    def __init__(
        self,
        planner: Planner,
        queries: Sequence[Query],
        wanted: Mapping[str, Sequence[IndexSpec]],
        schema: Schema,
        able: Capabilities,
        limits: Limits,
        writes: Callable[[IndexSpec], float],
        expired: Callable[[], bool],
    ) -> None:
        self._prices, self._limits, self._schema, self._able = Prices(planner), limits, schema, able
        self._queries = [q for q in queries if q.analysis.uses]
        self._wanted, self._writes, self._expired = wanted, writes, expired
        self._by_spec: dict[IndexSpec, dict[str, Query]] = defaultdict(dict)
        self._by_table: dict[str, list[Query]] = defaultdict(list)
        self._failed: dict[str, str] = {}
        self._reasons = self._prices.reasons
        self._stored = sum(t.size_bytes for t in schema.tables.values())
        self._floors: dict[str, float] = {}
        self._total = sum(q.weight for q in self._queries) or 1.0

    def run(self) -> Selection:
        """Search until nothing more is worth its bytes, or time is up."""
        state = self._today()
        pool = self._shortlist()
        self._prices.is_tolerant = True
        state = self._grow(state, pool)
        state = self._improve(state, pool)
        return self._report(state)

    # --- states --------------------------------------------------------------------------------

    def _today(self) -> _State:
        kept = []
        for query in self._queries:
            try:
                self._prices.plan(query, NOTHING)
            except Exception as error:
                # One statement that the planner refuses must not end the search for the others.
                self._failed[query.id] = refusal(error)
            else:
                kept.append(query)
        self._queries = kept
        for query in kept:
            for table in query.analysis.tables:
                self._by_table[table].append(query)
        plans = {q.id: self._prices.plan(q, NOTHING) for q in kept}
        return _State(NOTHING, plans, sum(q.weight for q in kept), 0, 0.0)

    def _with(self, state: _State, spec: IndexSpec) -> _State:
        """Return ``state`` with one index more; only queries it may help are asked about."""
        plans, cost = dict(state.plans), state.cost
        for query in self._by_table[spec.table]:
            now = state.plans[query.id]
            price = self._prices.cost(query, now)
            if self._prices.is_cheapest:
                room = price - self._floor(query, now.used | {spec})
                if room <= _NO_ROOM * state.cost:
                    continue  # nearly as good as it can get
                if query.id not in self._by_spec[spec]:
                    is_hopeless = not _may_serve(spec, query) or _is_served(spec, now)
                    if room <= _LITTLE_ROOM * state.cost or is_hopeless:
                        continue
            elif query.id not in self._by_spec[spec]:
                is_minor = price <= _LITTLE_HARM * state.cost and _is_served(spec, now)
                if is_minor or price <= _NO_ROOM * state.cost or not _may_serve(spec, query):
                    continue
            # What its plan does not use today will not be in tomorrow's, nearly always: fewer questions.
            plan = self._prices.plan(query, now.used | {spec})
            if spec in plan.used:
                plans[query.id] = plan
                cost += self._prices.cost(query, plan) - price
        size = state.size + self._prices.size(spec)
        return _State(state.specs | {spec}, plans, cost, size, state.writes + self._writes(spec))

    def _without(self, state: _State, spec: IndexSpec) -> _State:
        plans, cost, specs = dict(state.plans), state.cost, state.specs - {spec}
        for query in self._by_table[spec.table]:
            now = state.plans[query.id]
            if spec in now.used:
                plan = plans[query.id] = self._prices.plan(query, specs)
                cost += self._prices.cost(query, plan) - self._prices.cost(query, now)
        size = state.size - self._prices.size(spec)
        return _State(specs, plans, cost, size, state.writes - self._writes(spec))

    def _worth(self, old: _State, new: _State) -> float:
        """Return what ``new`` is better by: the logarithm of time saved, less a price of bytes and of count.

        Gains are measured against what is left: one runaway statement, once it is served, must not make
        every other gain look small. But where next to nothing is left, nothing is worth much any more. A
        bound given by the caller takes the place of the price of bytes.
        """
        little = _ENOUGH * self._total
        saved = math.log((old.cost + old.writes + little) / (new.cost + new.writes + little))
        more = len(new.specs) - len(old.specs)
        if self._limits.max_index_bytes is None:
            saved -= _PER_BYTE * (new.size - old.size) / max(self._stored, new.size, old.size, 1)
        return saved - more * self._limits.min_gain_ratio

    # --- candidates ----------------------------------------------------------------------------

    def _shortlist(self) -> list[IndexSpec]:
        """Let the planner pick among all candidates of a query at once; then again without those.

        A few rounds per query find the best sets with a handful of plans; what was never picked is judged
        no further. Then shorter, partial and merged forms of what was.
        """
        pool: dict[IndexSpec, None] = {}
        for query in sorted(self._queries, key=lambda q: -q.weight):
            left = list(self._wanted.get(query.id, ()))
            base = self._prices.plan(query, NOTHING)
            for _ in range(min(3, 1 + len(query.analysis.uses))):
                if not left or self._expired():
                    break
                plan = self._prices.fitting(query, frozenset(left))
                if plan is None or not plan.used or plan.cost >= base.cost * 0.98:
                    break
                cost = self._prices.cost(query, plan)
                self._floors[query.id] = min(cost, self._floors.get(query.id, cost))
                for spec in plan.used:
                    pool.setdefault(spec)
                    self._by_spec[spec][query.id] = query
                left = [s for s in left if s not in plan.used]
            for spec in left:
                self._reasons.setdefault(spec, "the planner chose another index for every query")
            self._narrow(query, pool)
        for merged, parts in mergers(pool, self._schema, self._able):
            pool.setdefault(merged)
            for part in parts:
                self._by_spec[merged] |= self._by_spec[part]
        return list(pool)

    def _narrow(self, query: Query, pool: dict[IndexSpec, None]) -> None:
        """Offer the short and the partial form of an index as well: they may gain more per byte."""
        mine = [s for s in pool if query.id in self._by_spec[s]]
        for spec in mine:
            for shorter in self._wanted.get(query.id, ()):
                is_short = shorter.is_prefix_of(spec) and len(shorter.keys) < len(spec.columns)
                names = {k.name for k in shorter.keys}
                is_part = shorter.where is not None and shorter.table == spec.table and not spec.where
                if shorter not in pool and (is_short or (is_part and names <= set(spec.columns))):
                    pool.setdefault(shorter)
                    self._by_spec[shorter][query.id] = query

    # --- steps ---------------------------------------------------------------------------------

    def _grow(self, state: _State, pool: Iterable[IndexSpec]) -> _State:
        """Take what gains most per byte until nothing is worth its bytes.

        A gain is bounded by the room that its queries have left, which asks no planner: only what comes to
        the top is priced, and priced again when something else was taken meanwhile.
        """
        heap: list[tuple[float, int, int, IndexSpec]] = []
        for number, spec in enumerate(pool):
            heapq.heappush(heap, (-self._score(spec, self._bound(spec, state)), -1, number, spec))
        version = 0
        while heap and not self._expired():
            score, seen, number, spec = heapq.heappop(heap)
            if score >= 0:
                break
            if seen == version:
                state = self._taken(state, spec)
                version += 1
                continue
            bound = self._score(spec, self._bound(spec, state))
            if heap and -bound > heap[0][0] and bound < -score:
                heapq.heappush(heap, (-bound, -1, number, spec))
                continue
            heapq.heappush(heap, (-self._judge(state, spec), version, number, spec))
        return state

    def _bound(self, spec: IndexSpec, state: _State) -> float:
        """Return the most that an index can gain the queries for which the planner picked it."""
        bound = 0.0
        for query in self._by_spec[spec].values():
            now = state.plans[query.id]
            bound += max(0.0, self._prices.cost(query, now) - self._floor(query, now.used | {spec}))
        return bound

    def _floor(self, query: Query, specs: Specs) -> float:
        """Return what a query costs at least under ``specs``, and under all candidates."""
        return max(self._floors.get(query.id, 0.0), self._prices.floor(query, specs))

    def _score(self, spec: IndexSpec, gain: float) -> float:
        """Return gain per byte, damped: small tables are not free."""
        return gain / math.pow(self._prices.size(spec) + 2_000_000, _DAMPED)

    def _judge(self, state: _State, spec: IndexSpec) -> float:
        """Return an index' score, or 0 when it is not worth having."""
        new = self._with(state, spec)
        gain, writes = state.cost - new.cost, self._writes(spec)
        percent = f"{100 * max(gain, 0) / state.cost:.2f} % of what is left"
        budget = self._limits.max_index_bytes
        reason = None
        if gain <= state.cost * self._limits.min_gain_ratio:
            reason = f"saves only {percent} beside the chosen ones"
        elif budget is not None and new.size > budget:
            reason = f"would exceed max_index_bytes ({budget:,})"
        elif self._worth(state, new) <= 0:
            share = self._prices.size(spec) / max(1, self._stored)
            reason = f"saves {percent} for {100 * share:.0f} % more bytes"
        elif writes > gain * self._limits.max_write_cost_ratio:
            reason = f"writers would lose {writes:.3g} s for {gain:.3g} s gained"
        if reason is not None:
            self._reasons[spec] = reason
            return 0.0
        return self._score(spec, gain - writes)

    def _taken(self, state: _State, spec: IndexSpec) -> _State:
        state = self._with(state, spec)
        for old in [o for o in state.specs if o != spec and o.is_prefix_of(spec)]:
            state = self._without(state, old)
            self._reasons[old] = f"a prefix of {spec.label()}"
        return state

    def _improve(self, state: _State, pool: Sequence[IndexSpec]) -> _State:
        """Take each index away, largest first, and grow again around the gap; keep what is better.

        Growth alone cannot: what was chosen early may be needless now, or keep the planner from what would
        be the better buy.
        """
        for spec in sorted(state.specs, key=lambda s: -self._prices.size(s)):
            if self._expired():
                break
            if spec not in state.specs:
                continue
            if self._potential(state, spec) <= _SETTLED * self._limits.min_gain_ratio:
                continue
            others = [o for o in pool if o.table == spec.table and o != spec and o not in state.specs]
            new = self._grow(self._without(state, spec), others)
            if self._worth(state, new) > 0:
                added = ", ".join(s.label() for s in new.specs - state.specs)
                self._reasons[spec] = f"beside the chosen ones {added or 'none'} is the better buy"
                state = new
        return state

    def _potential(self, state: _State, spec: IndexSpec) -> float:
        """Return the most that another choice in place of ``spec`` could be worth."""
        if self._limits.max_index_bytes is not None:
            return math.inf
        users = [q for q in self._by_table[spec.table] if spec in state.plans[q.id].used]
        room = sum(self._prices.cost(q, state.plans[q.id]) - self._floors.get(q.id, 0.0) for q in users)
        rest = max(state.cost - room, 1e-12)
        return math.log(state.cost / rest) + _PER_BYTE * self._prices.size(spec) / max(self._stored, 1)

    # --- the account ---------------------------------------------------------------------------

    def _report(self, state: _State) -> Selection:
        before = {q.id: self._prices.plan(q, NOTHING) for q in self._queries}
        after = {q.id: self._prices.plan(q, state.specs) for q in self._queries}
        choices = []
        for spec in state.specs:
            rest = state.specs - {spec}
            serves = [q for q in self._by_table[spec.table] if spec in after[q.id].used]
            if not serves:
                self._reasons[spec] = "no plan uses it beside the chosen ones"
                continue
            gain = sum(
                self._prices.cost(q, self._prices.plan(q, rest)) - self._prices.cost(q, after[q.id])
                for q in serves
            )
            choice = Choice(
                spec, gain / self._total, self._prices.size(spec), self._writes(spec) / self._total, serves
            )
            names = {q.id for q in serves}
            picked = [o for o, qs in self._by_spec.items() if names & qs.keys()]
            others = [o for q in serves for o in self._wanted.get(q.id, ()) if o.table == spec.table]
            choice.rejected = [
                (other, self._reasons.get(other, "another index gains more per byte"))
                for other in dict.fromkeys((*picked, *others))
                if other not in state.specs
            ][:_RUNNERS_UP]
            choices.append(choice)
        choices.sort(key=lambda c: (-c.gain, c.spec.label()))
        rejected = [(s, r) for s, r in self._reasons.items() if s not in state.specs]
        return Selection(choices, before, after, self._unserved(before, after), not self._expired(), rejected)

    def _unserved(self, before: Mapping[str, Plan], after: Mapping[str, Plan]) -> dict[str, str]:
        out = dict(self._failed)
        for query in self._queries:
            if after[query.id].used:
                continue
            if not self._wanted.get(query.id):
                existing = ", ".join(sorted(before[query.id].existing))
                if not existing and "PRIMARY KEY" in before[query.id].text:
                    existing = "the primary key"
                out[query.id] = (
                    f"already served by {existing}"
                    if existing
                    else "no condition, join or order an index could serve"
                )
            else:
                out[query.id] = "no candidate made its plan cheaper by enough to pay for its bytes and writes"
        return out


def _is_served(spec: IndexSpec, plan: Plan) -> bool:
    """Tell whether a plan uses an index that begins like ``spec`` already."""
    return any(u.table == spec.table and u.keys[0] == spec.keys[0] for u in plan.used)


def _may_serve(spec: IndexSpec, query: Query) -> bool:
    """Tell whether a query that the index was not made for could use it."""
    first = spec.keys[0]
    if first.is_expression or spec.where:
        return False
    for use in query.analysis.uses:
        looked_up = {p.column for p in use.predicates} | {j[0] for j in use.joins}
        if use.table == spec.table and first.name in looked_up:
            return True
    return False
