"""Choose a set of indexes for a whole workload: gain per byte, with interaction, within budgets.

Greedy growth over lazily refreshed bounds, then each index is taken away and the gap filled anew, with
merged forms among the candidates; in the spirit of Extend (Schlosser, Kossmann, Boissier, "Efficient
Scalable Multi-attribute Index Selection Using Recursive Strategies", ICDE 2019), DB2Advis (Valentin et al.,
ICDE 2000) and index merging (Chaudhuri and Narasayya, "Index Merging", ICDE 1999).
"""

from __future__ import annotations

import heapq
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Capabilities, Plan, Query
from eventperf.dbopt.schema.model import IndexSpec, Schema

from .forms import mergers
from .prices import NOTHING, Prices, Specs
from .selection import Selection, account, settled
from .states import State, States, by_table, serving

#: So many queries get an index each when time is up before any set was searched, if it halves their cost.
_HURRIED: Final = 10
_HALF: Final = 0.5
#: So many queries are asked about when time was up before the first: one of them may gain.
_LATE: Final = 3
#: So many queries, and this share of what is more, have their second and third best indexes asked for.
_SECONDS: Final = 20
_OF_MORE: Final = 0.05
#: So many questions, and so many for each query, may be asked while sets grow, and to improve and settle
#: them. With two before, for its plan of today and its shortlist, a thousand queries take less than 4,000.
_QUESTIONS: Final = 100
_PER_QUERY: Final = 0.75
_PER_OLD_QUERY: Final = 0.15
#: No step takes more of the time that is left than this part, as far as the planner's pace tells.
_STEP: Final = 0.15
#: A plan must cost less than this share of today's to be a reason for an index.
_CHEAPER: Final = 0.98
#: What grows first is judged by gain over bytes to this power: one wide index may do the work of several.
_DAMPED: Final = 0.8
#: Added to every size: small tables are not free.
_LEAST: Final = 2_000_000
#: An index is not reconsidered when all that could be won is this many times less than one must save.
_SETTLED: Final = 2.0


class Search:
    """One search over a workload that arrives in parts; whenever it ends, the best so far stands.

    Args:
        prices: Of plans and sizes; it knows when time is up.
        wanted: Candidates by query, filled by the caller.
        schema: The tables.
        able: What the engine's indexes can be.
        limits: Budgets.
        expired: Whether time is up, asked between steps.
        left_s: How much is left of it.
    """

    def __init__(
        self,
        prices: Prices,
        wanted: Mapping[str, Sequence[IndexSpec]],
        schema: Schema,
        able: Capabilities,
        limits: Limits,
        expired: Callable[[], bool],
        left_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._prices, self._schema, self._able, self._limits = prices, schema, able, limits
        self._wanted, self._expired, self._left_s = wanted, expired, left_s
        self._states = States(prices, schema, limits)
        self._state = State(NOTHING, {}, 0.0, 0, 0.0)
        self._reasons = prices.reasons
        self._picked: dict[IndexSpec, None] = {}
        self._by_query: dict[str, list[IndexSpec]] = defaultdict(list)
        self._sets: dict[Specs, None] = {}
        self._best: dict[str, Plan] = {}
        self._pool: list[IndexSpec] = []

    def add(self, queries: Iterable[Query], writes: Callable[[IndexSpec], float]) -> None:
        """Take more queries, and choose for all there are so far.

        Args:
            queries: New ones.
            writes: What maintaining an index costs the writers of all queries so far.
        """
        known = len(self._states.queries)
        fresh = [q for q in queries if q.analysis.uses]
        self._state = self._states.add(self._state, fresh, writes)
        self._shortlist(self._states.queries[known:])
        self._prices.allowed = self._affordable(math.inf)
        self._state = self._states.refreshed(self._state, self._states.queries[known:])
        self._pool = self._merged()
        self._prices.allowed = self._affordable(_QUESTIONS + _PER_QUERY * (len(self._states.queries) - known))
        self._state = self._grow(self._state, self._pool)
        self._prices.allowed = math.inf
        if not self._state.specs and self._expired():
            self._state = self._hurried(self._state)

    def finish(self) -> Selection:
        """Improve what was chosen until nothing is left to win, or time is up; return it with its account."""
        self._prices.allowed = self._affordable(_QUESTIONS + _PER_OLD_QUERY * len(self._states.queries))
        state = self._improve(self._state, self._pool)
        self._prices.allowed = self._affordable(_QUESTIONS + _PER_OLD_QUERY * len(self._states.queries), 1.0)
        self._state = settled(state, self._states, self._prices)
        return self._account(self._affordable(max(self._prices.allowed, _QUESTIONS)))

    def instead(self, gone: Mapping[IndexSpec, str], more: Sequence[IndexSpec]) -> Selection:
        """Return what was chosen without some, each with the reason, and with others in their place."""
        state = self._state
        self._prices.allowed = self._affordable(_QUESTIONS)
        for spec in state.specs & gone.keys():
            state = self._states.without(state, spec)
        self._state = self._states.more(state, [s for s in more if s not in state.specs])
        self._reasons.update(gone)
        return self._account(self._prices.allowed)

    def _affordable(self, questions: float, part: float = _STEP) -> float:
        """Return how many questions may be asked for one step: a slow planner must not eat all the time.

        Then the best known plans go on telling, among them what the planner picked for each statement.
        """
        return min(questions, part * self._left_s() / max(self._prices.pace_s, 1e-9))

    def _account(self, questions: float) -> Selection:
        self._prices.allowed = questions
        found = account(self._state, self._states, self._prices, self._wanted)
        self._prices.allowed = math.inf
        return found

    def _hurried(self, state: State) -> State:
        """Return what the planner picked for the costliest queries one by one: time was up before more."""
        budget = self._limits.max_index_bytes
        for query in sorted(self._states.queries, key=lambda q: -q.weight)[:_HURRIED]:
            best = self._best.get(query.id)
            if best is None or best.cost > _HALF * self._prices.plan(query, NOTHING).cost:
                continue
            new = self._states.more(state, sorted(best.used - state.specs, key=repr))
            fits = budget is None or new.size <= budget
            if fits and new.cost + new.upkeep < state.cost + state.upkeep:
                state = new
        return state

    # --- candidates ----------------------------------------------------------------------------

    def _shortlist(self, queries: Sequence[Query]) -> None:
        """Let the planner pick among all candidates of a query at once; then again without those.

        A few rounds for each costly query find the best sets with a handful of plans; what was never picked
        is judged no further. Then shorter and partial forms of what was.
        """
        ranked = sorted(queries, key=lambda q: -q.weight)
        many, taken = _SECONDS + int(_OF_MORE * len(ranked)), by_table(self._state.specs)
        wanted = {q.id: [*serving(taken, q), *self._wanted.get(q.id, ())] for q in ranked}
        left = {name: list(dict.fromkeys(specs)) for name, specs in wanted.items()}
        asked = ranked
        for again in range(3):
            if again and len(asked) > self._affordable(math.inf):
                break
            picked = {q.id for n, q in enumerate(asked) if self._picks(q, left[q.id], n)}
            asked = [q for q in asked[:many] if q.id in picked and again < len(q.analysis.uses)]
        for query in ranked:
            for spec in left[query.id]:
                self._reasons.setdefault(spec, "the planner chose another index for every query")
            self._narrow(query)

    def _picks(self, query: Query, left: list[IndexSpec], number: int) -> bool:
        """Let the planner pick of what is left for a query, and take that out; tell whether it did."""
        late = not self._picked  # however short the time, the costliest statements are asked about
        if not left or (self._expired() and not (late and number < _LATE)):
            return False
        plan = self._prices.fitting(query, frozenset(left), late=late)
        if plan is None or not plan.used or plan.cost >= self._prices.plan(query, NOTHING).cost * _CHEAPER:
            return False
        cost, floors = self._prices.cost(query, plan), self._states.floors
        floors[query.id] = min(cost, floors.get(query.id, cost))
        self._best.setdefault(query.id, plan)
        if len(plan.used) > 1:
            self._sets.setdefault(plan.used)
        for spec in sorted(plan.used, key=repr):
            self._pick(spec, query)
        left[:] = [s for s in left if s not in plan.used]
        return True

    def _pick(self, spec: IndexSpec, query: Query) -> None:
        self._picked.setdefault(spec)
        self._states.by_spec[spec][query.id] = query
        self._by_query[query.id].append(spec)

    def _narrow(self, query: Query) -> None:
        """Offer the short and the partial form of an index as well: they may gain more per byte."""
        for spec in list(self._by_query[query.id]):
            for shorter in self._wanted.get(query.id, ()):
                if shorter in self._picked:
                    continue
                is_short = shorter.is_prefix_of(spec) and len(shorter.keys) < len(spec.columns)
                names = {k.name for k in shorter.keys}
                is_part = shorter.where is not None and shorter.table == spec.table and not spec.where
                if is_short or (is_part and names <= set(spec.columns)):
                    self._pick(shorter, query)

    def _merged(self) -> list[IndexSpec]:
        """Return what was picked, with forms that do the work of several."""
        pool = dict(self._picked)
        by_spec = self._states.by_spec
        for merged, parts in mergers(self._picked, self._schema, self._able):
            pool.setdefault(merged)
            for part in parts:
                by_spec[merged] |= by_spec[part]
        return list(pool)

    # --- steps ---------------------------------------------------------------------------------

    def _grow(self, state: State, pool: Sequence[IndexSpec]) -> State:
        """Take single indexes, then the sets that only gain together (both sides of an OR), then go on."""
        state = self._grow_singly(state, pool)
        known, taken = set(pool), False
        for together in self._sets:
            missing = sorted(together - state.specs, key=repr)
            if len(missing) < 2 or not known.issuperset(missing) or self._expired():
                continue
            new = self._states.more(state, missing)
            if self._states.refused(state, new, missing) is None:
                state, taken = new, True
        return self._grow_singly(state, pool) if taken else state

    def _grow_singly(self, state: State, pool: Iterable[IndexSpec]) -> State:
        """Take what gains most per byte until nothing is worth its bytes.

        A gain is bounded by the room that its queries have left, which asks no planner: only what comes to
        the top is priced, and priced again when the plans of its queries changed meanwhile.
        """
        heap: list[tuple[float, bool, int, IndexSpec]] = []
        for number, spec in enumerate(pool):
            if spec not in state.specs:
                heapq.heappush(
                    heap, (-self._score(spec, self._states.bound(spec, state)), False, number, spec)
                )
        judged: dict[IndexSpec, list[Plan]] = {}
        while heap and not self._expired():
            score, is_price, number, spec = heapq.heappop(heap)
            if score >= 0:
                break
            plans = [state.plans[i] for i in self._states.by_spec[spec]]
            if is_price and all(map(operator.is_, plans, judged[spec])):
                state = self._taken(state, spec) or state
                continue
            bound = self._score(spec, self._states.bound(spec, state))
            if heap and -bound > heap[0][0] and bound < -score:
                heapq.heappush(heap, (-bound, False, number, spec))
                continue
            judged[spec] = plans
            heapq.heappush(heap, (-self._judge(state, spec), True, number, spec))
        return state

    def _score(self, spec: IndexSpec, gain: float) -> float:
        """Return gain per byte, damped."""
        return gain / math.pow(self._prices.size(spec) + _LEAST, _DAMPED)

    def _judge(self, state: State, spec: IndexSpec) -> float:
        """Return an index' score by the queries it helps most, or 0 when it is not worth having."""
        new = self._states.more(state, (spec,), roughly=True)
        reason = self._states.refused(state, new, (spec,))
        if reason is not None:
            self._reasons[spec] = reason
            return 0.0
        return self._score(spec, state.cost - new.cost - self._states.upkeep(spec))

    def _taken(self, state: State, spec: IndexSpec) -> State | None:
        """Return ``state`` with an index; ``None`` when it is not worth having after all are asked."""
        new = self._states.more(state, (spec,))
        reason = self._states.refused(state, new, (spec,))
        if reason is not None:
            self._reasons[spec] = reason
            return None
        for old in [o for o in new.specs if o != spec and o.is_prefix_of(spec)]:
            new = self._states.without(new, old)
            self._reasons[old] = f"a prefix of {spec.label()}"
        return new

    def _improve(self, state: State, pool: Sequence[IndexSpec]) -> State:
        """Take each index away, largest first, and grow again around the gap; keep what is better.

        Growth alone cannot: what was chosen early may be needless now, or keep the planner from what would
        be the better buy.
        """
        for spec in sorted(state.specs, key=lambda s: (-self._prices.size(s), repr(s))):
            if self._expired() or self._prices.allowed <= 0:
                break
            if spec not in state.specs:
                continue
            if self._states.potential(state, spec) <= _SETTLED * self._limits.min_gain_ratio:
                continue
            others = [o for o in pool if o.table == spec.table and o != spec and o not in state.specs]
            new = self._grow(self._states.without(state, spec), others)
            if not self._expired() and self._states.worth(state, new) > 0:
                added = ", ".join(s.label() for s in new.specs - state.specs)
                self._reasons[spec] = f"beside the chosen ones {added or 'none'} is the better buy"
                state = new
        return state
