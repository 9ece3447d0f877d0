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
from eventperf.dbopt.protocols import Capabilities, Plan, Query
from eventperf.dbopt.schema.model import IndexSpec, Schema

from .candidates import mergers
from .prices import NOTHING, Prices, Specs, refusal

_RUNNERS_UP = 20
#: So many queries get an index each when time is up before any set was searched, if it halves their cost.
_HURRIED = 10
_HALF = 0.5
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
        prices: Of plans and sizes; what is known of them is kept for the next search.
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
        prices: Prices,
        queries: Sequence[Query],
        wanted: Mapping[str, Sequence[IndexSpec]],
        schema: Schema,
        able: Capabilities,
        limits: Limits,
        writes: Callable[[IndexSpec], float],
        expired: Callable[[], bool],
    ) -> None:
        self._prices, self._limits, self._schema, self._able = prices, limits, schema, able
        self._queries = [q for q in queries if q.analysis.uses]
        self._wanted, self._writes, self._expired = wanted, writes, expired
        self._by_spec: dict[IndexSpec, dict[str, Query]] = defaultdict(dict)
        self._by_table: dict[str, list[Query]] = defaultdict(list)
        self._failed: dict[str, str] = {}
        self._reasons = self._prices.reasons
        self._stored = sum(t.size_bytes for t in schema.tables.values())
        self._floors: dict[str, float] = {}
        self._sets: dict[Specs, None] = {}
        self._best: dict[str, Plan] = {}
        self._total = sum(q.weight for q in self._queries) or 1.0

    def run(self, seed: Specs = NOTHING) -> Selection:
        """Search until nothing more is worth its bytes, or time is up.

        Args:
            seed: What an earlier search among fewer statements chose; the outcome is no worse than that.
        """
        state = self._seeded(self._today(), seed)
        pool = self._shortlist()
        self._prices.is_tolerant = True
        state = self._grow(state, pool)
        state = self._improve(state, pool)
        if not state.specs and self._expired():
            state = self._hurried(state)
        return self._report(state)

    def _hurried(self, state: _State) -> _State:
        """Return what the planner picked for the costliest queries one by one: time was up before more."""
        specs: Specs = NOTHING
        budget = self._limits.max_index_bytes
        for query in sorted(self._queries, key=lambda q: -q.weight)[:_HURRIED]:
            best = self._best.get(query.id)
            if best is None or best.cost > _HALF * self._prices.plan(query, NOTHING).cost:
                continue
            more = specs | best.used
            if budget is None or sum(map(self._prices.size, more)) <= budget:
                specs = more
        new = self._seeded(state, specs)
        return new if new.cost + new.writes < state.cost else state

    def _seeded(self, state: _State, seed: Specs) -> _State:
        """Return the state with ``seed``, whatever is known of it."""
        if not seed:
            return state
        plans = {q.id: self._prices.plan(q, seed) for q in self._queries}
        cost = sum(self._prices.cost(q, plans[q.id]) for q in self._queries)
        for query in self._queries:
            for spec in plans[query.id].used:
                self._by_spec[spec][query.id] = query
        size, writes = sum(map(self._prices.size, seed)), sum(map(self._writes, seed))
        return _State(seed, plans, cost, size, writes)

    # --- states --------------------------------------------------------------------------------

    def _today(self) -> _State:
        kept = []
        for query in self._queries:
            if self._expired() and not self._prices.is_known(query):
                break  # what was never planned is not searched for
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

    def _with(self, state: _State, *specs: IndexSpec) -> _State:
        """Return ``state`` with more indexes; only queries they may help are asked about."""
        plans, cost, more = dict(state.plans), state.cost, frozenset(specs)
        for query in {q.id: q for s in specs for q in self._by_table[s.table]}.values():
            now = state.plans[query.id]
            mine = frozenset(s for s in more if self._is_worth_asking(state, query, s, more))
            if not mine:
                continue
            # What its plan does not use today will not be in tomorrow's, nearly always: fewer questions.
            plan = self._prices.plan(query, now.used | mine)
            if plan.used & mine:
                plans[query.id] = plan
                cost += self._prices.cost(query, plan) - self._prices.cost(query, now)
        size = state.size + sum(map(self._prices.size, specs))
        return _State(state.specs | more, plans, cost, size, state.writes + sum(map(self._writes, specs)))

    def _is_worth_asking(self, state: _State, query: Query, spec: IndexSpec, more: Specs) -> bool:
        """Tell whether an index of ``more`` may help a query, or harm it, by enough to ask the planner."""
        now = state.plans[query.id]
        price = self._prices.cost(query, now)
        if self._prices.is_cheapest:
            room = price - self._floor(query, now.used | more)
            if room <= _NO_ROOM * state.cost:
                return False  # nearly as good as it can get
            if query.id in self._by_spec[spec]:
                return True
            return room > _LITTLE_ROOM * state.cost and _may_serve(spec, query) and not _is_served(spec, now)
        if query.id in self._by_spec[spec]:
            return True
        is_minor = price <= _LITTLE_HARM * state.cost and _is_served(spec, now)
        return not is_minor and price > _NO_ROOM * state.cost and _may_serve(spec, query)

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
                self._best.setdefault(query.id, plan)
                if len(plan.used) > 1:
                    self._sets.setdefault(plan.used)
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

    def _grow(self, state: _State, pool: Sequence[IndexSpec]) -> _State:
        """Take single indexes, then the sets that only gain together (both sides of an OR), then go on."""
        state = self._grow_singly(state, pool)
        known, taken = set(pool), False
        for together in self._sets:
            missing = sorted(together - state.specs, key=repr)
            if len(missing) < 2 or not known.issuperset(missing) or self._expired():
                continue
            new = self._with(state, *missing)
            if self._refused(state, new, missing) is None:
                state, taken = new, True
        return self._grow_singly(state, pool) if taken else state

    def _grow_singly(self, state: _State, pool: Iterable[IndexSpec]) -> _State:
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
        reason = self._refused(state, new, (spec,))
        if reason is not None:
            self._reasons[spec] = reason
            return 0.0
        return self._score(spec, state.cost - new.cost - self._writes(spec))

    def _refused(self, state: _State, new: _State, specs: Sequence[IndexSpec]) -> str | None:
        """Return why indexes are not worth having; ``None`` when they are."""
        gain, writes = state.cost - new.cost, new.writes - state.writes
        percent = f"{100 * max(gain, 0) / max(state.cost, 1e-12):.2f} % of what is left"
        budget = self._limits.max_index_bytes
        if gain <= state.cost * self._limits.min_gain_ratio * len(specs):
            return f"saves only {percent} beside the chosen ones"
        if budget is not None and new.size > budget:
            return f"would exceed max_index_bytes ({budget:,})"
        if self._worth(state, new) <= 0:
            share = (new.size - state.size) / max(1, self._stored)
            return f"saves {percent} for {100 * share:.0f} % more bytes"
        if writes > gain * self._limits.max_write_cost_ratio:
            return f"writers would lose {writes:.3g} s for {gain:.3g} s gained"
        return None

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
