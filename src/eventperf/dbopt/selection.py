"""Choose a set of indexes for a whole workload: gain per byte, with interaction, within budgets.

Greedy growth with lazily refreshed gains, then removal of what the others made needless, in the
spirit of Extend (Schlosser, Kossmann, Boissier, "Efficient Scalable Multi-attribute Index Selection
Using Recursive Strategies", ICDE 2019) and DB2Advis (Valentin et al., ICDE 2000).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .model import IndexSpec
from .options import Limits
from .protocols import Plan, Planner, Query

_RUNNERS_UP = 20
#: A query whose plan could still improve by less than this share of all costs is not asked about.
_NO_ROOM = 0.0005
#: The same for queries for which the planner picked another index.
_LITTLE_ROOM = 0.02
#: Least share of the remaining time an index must save, per share of the tables' bytes it adds.
_PER_BYTE = 0.1

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


class Search:
    """One search over one workload; ``expired`` is asked between steps (anytime)."""

    def __init__(
        self,
        planner: Planner,
        queries: Sequence[Query],
        wanted: Mapping[str, Sequence[IndexSpec]],
        limits: Limits,
        writes: Callable[[IndexSpec], float],
        expired: Callable[[], bool],
        stored: int = 0,
    ) -> None:
        self._planner, self._limits = planner, limits
        self._queries = [q for q in queries if q.analysis.uses]
        self._wanted, self._writes, self._expired = wanted, writes, expired
        self._plans: dict[tuple[str, frozenset[IndexSpec]], Plan] = {}
        self._by_spec: dict[IndexSpec, list[Query]] = defaultdict(list)
        self._by_table: dict[str, list[Query]] = defaultdict(list)
        self._sizes: dict[IndexSpec, int] = {}
        self._failed: dict[str, str] = {}
        self._reasons: dict[IndexSpec, str] = {}
        self._is_searching = False
        self._stored = stored
        self._floors: dict[str, float] = {}
        self._left_of: tuple[frozenset[IndexSpec] | None, float] = (None, 0.0)
        self._total = sum(q.weight for q in self._queries) or 1.0

    # --- prices --------------------------------------------------------------------------------

    def _plan(self, query: Query, specs: frozenset[IndexSpec]) -> Plan:
        tables = query.analysis.tables
        relevant = frozenset(s for s in specs if s.table in tables)
        key = (query.id, relevant)
        plan = self._plans.get(key)
        if plan is None:
            try:
                plan = self._planner.plan(query, sorted(relevant, key=repr))
            except Exception as error:
                if not relevant or not self._is_searching:
                    raise
                # One set that the planner cannot take must not end the search: it gains nothing.
                reason = f"the planner refused it: {_said(error)}"
                for spec in relevant:
                    self._reasons.setdefault(spec, reason)
                plan = self._plan(query, frozenset())
            self._plans[key] = plan
            if plan.used and plan.used != relevant:  # what it did not use, it does not need
                self._plans.setdefault((query.id, plan.used), plan)
        return plan

    def _cost(self, query: Query, specs: frozenset[IndexSpec]) -> float:
        """Return the query's weight under ``specs``."""
        base = self._plan(query, frozenset()).cost
        return query.weight * min(1.5, self._plan(query, specs).cost / base)

    def size(self, spec: IndexSpec) -> int:
        """Return estimated bytes, asked once."""
        if spec not in self._sizes:
            self._sizes[spec] = max(1, self._planner.size(spec))
        return self._sizes[spec]

    # --- the search ----------------------------------------------------------------------------

    def run(self) -> Selection:
        """Search until nothing more is worth its bytes, or time is up."""
        self._baselines()
        pool = self._shortlist()
        self._is_searching = True
        chosen = self._grow(pool)
        chosen = self._shrink(chosen)
        chosen = self._exchange(chosen)
        return self._report(chosen)

    def _baselines(self) -> None:
        kept = []
        for query in self._queries:
            try:
                self._plan(query, frozenset())
            except Exception as error:
                # One statement that the planner refuses must not end the search for the others.
                self._failed[query.id] = f"the planner refused it: {_said(error)}"
            else:
                kept.append(query)
        self._queries = kept
        for query in kept:
            for table in query.analysis.tables:
                self._by_table[table].append(query)

    def _shortlist(self) -> list[IndexSpec]:
        """Let the planner pick among all candidates of a query at once; then again without those.

        Two rounds per query find the best and the second best set with a handful of plans; what
        was never picked is judged no further.
        """
        pool: dict[IndexSpec, None] = {}
        for query in sorted(self._queries, key=lambda q: -q.weight):
            left = list(self._wanted.get(query.id, ()))
            base = self._plan(query, frozenset())
            for _ in range(3):
                if not left or self._expired():
                    break
                plan = self._try(query, frozenset(left))
                if plan is None or not plan.used or plan.cost >= base.cost * 0.98:
                    break
                cost = query.weight * min(1.5, plan.cost / base.cost)
                self._floors[query.id] = min(cost, self._floors.get(query.id, cost))
                for spec in plan.used:
                    pool.setdefault(spec)
                    self._by_spec[spec].append(query)
                left = [s for s in left if s not in plan.used]
            for spec in left:
                self._reasons.setdefault(spec, "the planner chose another index for every query")
            self._narrow(query, pool)
        return list(pool)

    def _narrow(self, query: Query, pool: dict[IndexSpec, None]) -> None:
        """Offer the short and the partial form of an index as well: they may gain more per byte."""
        mine = [s for s in pool if query in self._by_spec[s]]
        for spec in mine:
            for shorter in self._wanted.get(query.id, ()):
                is_short = shorter.is_prefix_of(spec) and len(shorter.keys) < len(spec.columns)
                names = {k.name for k in shorter.keys}
                is_part = shorter.where is not None and shorter.table == spec.table and not spec.where
                if shorter not in pool and (is_short or (is_part and names <= set(spec.columns))):
                    pool.setdefault(shorter)
                    self._by_spec[shorter].append(query)

    def _try(self, query: Query, specs: frozenset[IndexSpec]) -> Plan | None:
        try:
            return self._plan(query, specs)
        except Exception:
            # Find the one candidate the planner cannot take, and go on without it.
            for spec in specs:
                try:
                    self._plan(query, frozenset((spec,)))
                except Exception as error:
                    self._reasons[spec] = f"the planner refused it: {_said(error)}"
            fine = frozenset(s for s in specs if s not in self._reasons)
            return self._plan(query, fine) if fine != specs else None

    def _gain(self, spec: IndexSpec, chosen: frozenset[IndexSpec], *, at_first: bool = False) -> float:
        gain, left = 0.0, self._left(chosen)
        for query in self._by_table[spec.table]:
            room = self._cost(query, chosen) - self._floors.get(query.id, 0.0)
            if room <= _NO_ROOM * left:
                continue  # nearly as good as the planner made it with every candidate there
            mine = query in self._by_spec[spec]
            if not mine and (at_first or room <= _LITTLE_ROOM * left):
                continue
            if mine or (self._may_serve(spec, query) and not self._is_served(spec, query, chosen)):
                gain += self._cost(query, chosen) - self._cost(query, chosen | {spec})
        return gain

    def _is_served(self, spec: IndexSpec, query: Query, chosen: frozenset[IndexSpec]) -> bool:
        """Tell whether the query's plan uses a chosen index that begins like ``spec`` already."""
        used = self._plan(query, chosen).used
        return any(u.table == spec.table and u.keys[0] == spec.keys[0] for u in used)

    def _may_serve(self, spec: IndexSpec, query: Query) -> bool:
        first = spec.keys[0].name
        for use in query.analysis.uses:
            if use.table == spec.table and not spec.keys[0].is_expression and not spec.where:
                looked_up = {p.column for p in use.predicates} | {j[0] for j in use.joins}
                if first in looked_up:
                    return True
        return False

    def _grow(self, pool: list[IndexSpec]) -> frozenset[IndexSpec]:
        chosen: frozenset[IndexSpec] = frozenset()
        used_bytes = 0
        heap: list[tuple[float, int, int, IndexSpec]] = []
        for number, spec in enumerate(pool):
            if self._expired():
                break
            heapq.heappush(heap, (-self._score(spec, chosen, at_first=True), -1, number, spec))
        version = 0
        while heap and not self._expired():
            score, seen, number, spec = heapq.heappop(heap)
            if score >= 0:
                break
            if seen != version:
                # Gains only shrink as others are chosen (nearly): refresh the best one lazily.
                heapq.heappush(heap, (-self._score(spec, chosen), version, number, spec))
                continue
            budget = self._limits.max_index_bytes
            if budget is not None and used_bytes + self.size(spec) > budget:
                self._reasons[spec] = f"would exceed max_index_bytes ({budget:,})"
                continue
            chosen |= {spec}
            used_bytes += self.size(spec)
            for old in [o for o in chosen if o != spec and o.is_prefix_of(spec)]:
                chosen -= {old}
                used_bytes -= self.size(old)
                self._reasons[old] = f"a prefix of {spec.label()}"
            version += 1
        return chosen

    def _left(self, chosen: frozenset[IndexSpec]) -> float:
        """Return what the workload costs with ``chosen``.

        Gains are measured against what is left: one runaway statement, once it is served, must not make
        every other gain look small.
        """
        if self._left_of[0] != chosen:
            self._left_of = chosen, sum(self._cost(q, chosen) for q in self._queries)
        return self._left_of[1]

    def _score(self, spec: IndexSpec, chosen: frozenset[IndexSpec], *, at_first: bool = False) -> float:
        """Return gain per byte (damped: small tables are not free), or 0 when not worth having."""
        gain = self._gain(spec, chosen, at_first=at_first)
        writes = self._writes(spec)
        left = self._left(chosen)
        if gain <= left * self._limits.min_gain_ratio:
            if not at_first:
                self._reasons[spec] = (
                    f"saves only {100 * max(gain, 0) / left:.2f} % of what is left beside the chosen ones"
                )
                return 0.0
            return 1e-9 * max(gain, 1e-12)  # judged again when its turn comes, if it comes
        bytes_share = self.size(spec) / self._bytes_of(spec)
        is_free = self._limits.max_index_bytes is not None  # the caller's own bound takes its place
        if not at_first and not is_free and gain / left < _PER_BYTE * bytes_share:
            self._reasons[spec] = (
                f"saves {100 * gain / left:.2f} % of what is left for {100 * bytes_share:.0f} % more bytes"
            )
            return 0.0
        if writes > gain * self._limits.max_write_cost_ratio:
            self._reasons[spec] = f"writers would lose {writes:.3g} s for {gain:.3g} s gained"
            return 0.0
        return float((gain - writes) / (self.size(spec) + 2_000_000) ** 0.6)

    def _shrink(self, chosen: frozenset[IndexSpec]) -> frozenset[IndexSpec]:
        """Remove, largest first, what the rest makes nearly needless."""
        for spec in sorted(chosen, key=lambda s: -self.size(s)):
            if self._expired():
                break
            rest = chosen - {spec}
            users = [q for q in self._by_table[spec.table] if spec in self._plan(q, chosen).used]
            loss = sum(self._cost(q, rest) - self._cost(q, chosen) for q in users)
            left = self._left(chosen)
            if loss <= left * self._limits.min_gain_ratio or loss <= self._writes(spec):
                chosen = rest
                self._reasons[spec] = (
                    f"saves only {100 * max(loss, 0) / left:.2f} % of what is left beside the chosen ones"
                )
        return chosen

    def _exchange(self, chosen: frozenset[IndexSpec]) -> frozenset[IndexSpec]:
        """Swap an index, largest first, for another that serves its queries where that is the better buy.

        Growth alone cannot: what was chosen early may keep the planner from what would be better now.
        """
        for spec in sorted(chosen, key=lambda s: -self.size(s)):
            left, best, most = self._left(chosen), None, self._limits.min_gain_ratio
            for other in self._rivals(spec, chosen):
                if self._expired():
                    return chosen
                swapped = chosen - {spec} | {other}
                gain = sum(self._cost(q, chosen) - self._cost(q, swapped) for q in self._by_table[spec.table])
                gain -= self._writes(other) - self._writes(spec)
                bytes_share = (self.size(other) - self.size(spec)) / self._bytes_of(other)
                worth = gain / left - _PER_BYTE * bytes_share
                if worth > most and self._fits(swapped):
                    best, most = other, worth
            if best is not None:
                chosen = chosen - {spec} | {best}
                self._reasons[spec] = f"{best.label()} is the better buy"
        return chosen

    def _rivals(self, spec: IndexSpec, chosen: frozenset[IndexSpec]) -> list[IndexSpec]:
        """Return what may take the place of ``spec``: for a query that uses it, what the planner picked
        once, and narrower and wider forms of it."""
        left, rivals = self._left(chosen), dict[IndexSpec, None]()
        for query in self._by_table[spec.table]:
            if spec not in self._plan(query, chosen).used:
                continue
            room = self._cost(query, chosen) - self._floors.get(query.id, 0.0)
            for other in self._wanted.get(query.id, ()):
                if other in chosen or other.table != spec.table:
                    continue
                n = min(len(other.keys), len(spec.keys))
                is_form = (other.where, other.method) == (spec.where, spec.method)
                is_form = is_form and other.keys[:n] == spec.keys[:n]
                if not is_form and query not in self._by_spec.get(other, ()):
                    continue
                if room > _LITTLE_ROOM * left or (is_form and self.size(other) < self.size(spec)):
                    rivals.setdefault(other)
        return list(rivals)

    def _fits(self, chosen: frozenset[IndexSpec]) -> bool:
        budget = self._limits.max_index_bytes
        return budget is None or sum(map(self.size, chosen)) <= budget

    def _bytes_of(self, spec: IndexSpec) -> int:
        """Return the bytes that an index' own are compared with: those of all tables."""
        return max(self._stored, self.size(spec))

    # --- the account ---------------------------------------------------------------------------

    def _report(self, chosen: frozenset[IndexSpec]) -> Selection:
        before = {q.id: self._plan(q, frozenset()) for q in self._queries}
        after = {q.id: self._plan(q, chosen) for q in self._queries}
        choices = []
        for spec in chosen:
            rest = chosen - {spec}
            serves = [q for q in self._by_table[spec.table] if spec in after[q.id].used]
            gain = sum(self._cost(q, rest) - self._cost(q, chosen) for q in serves)
            if not serves:
                self._reasons[spec] = "no plan uses it beside the chosen ones"
                continue
            choice = Choice(
                spec, gain / self._total, self.size(spec), self._writes(spec) / self._total, serves
            )
            names = {id(q) for q in serves}
            picked = [o for o, qs in self._by_spec.items() if any(id(q) in names for q in qs)]
            others = [o for q in serves for o in self._wanted.get(q.id, ()) if o.table == spec.table]
            choice.rejected = [
                (other, self._reasons.get(other, "another index gains more per byte"))
                for other in dict.fromkeys((*picked, *others))
                if other not in chosen
            ][:_RUNNERS_UP]
            choices.append(choice)
        choices.sort(key=lambda c: (-c.gain, c.spec.label()))
        rejected = [(s, r) for s, r in self._reasons.items() if s not in chosen]
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


def _said(error: Exception) -> str:
    """Return an error's first line, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
