"""What queries cost under sets of indexes: each question put to the planner once, and only if it must be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from eventperf.dbopt.protocols import Plan, Planner, Query
from eventperf.dbopt.schema.model import IndexSpec

Specs = frozenset[IndexSpec]
NOTHING: Specs = frozenset()
#: What a statement that gets slower loses counts this many times, up to the second figure.
_LOSS = 2.0
_WORST = 3.0


class Prices:
    """Plans and sizes, remembered.

    Attributes:
        reasons: What the planner could not take, and its words.
        is_cheapest: More indexes never make a plan dearer.
        is_tolerant: Take a set that the planner refuses for one that gains nothing, instead of raising.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.is_cheapest: bool = planner.is_cheapest
        self._plans: dict[str, dict[Specs, Plan]] = defaultdict(dict)
        self._sizes: dict[IndexSpec, int] = {}
        self.reasons: dict[IndexSpec, str] = {}
        self.is_tolerant = False

    def plan(self, query: Query, specs: Specs) -> Plan:
        """Return the plan of ``query`` under ``specs``, asked only where earlier answers do not imply it."""
        tables = query.analysis.tables
        relevant = frozenset(s for s in specs if s.table in tables)
        asked = self._plans[query.id]
        plan = asked.get(relevant) or _implied(asked, relevant)
        if plan is None:
            try:
                plan = self._planner.plan(query, sorted(relevant, key=repr))
            except Exception as error:
                if not relevant or not self.is_tolerant:
                    raise
                # One set that the planner cannot take must not end the search: it gains nothing.
                for spec in relevant:
                    self.reasons.setdefault(spec, refusal(error))
                plan = self.plan(query, NOTHING)
            asked[relevant] = plan
        return plan

    def is_known(self, query: Query) -> bool:
        """Tell whether today's plan of ``query`` is known."""
        return NOTHING in self._plans[query.id]

    def fitting(self, query: Query, specs: Specs) -> Plan | None:
        """Return the plan under those of ``specs`` that the planner takes; ``None`` when it takes none."""
        try:
            return self.plan(query, specs)
        except Exception:
            for spec in specs:
                try:
                    self.plan(query, frozenset((spec,)))
                except Exception as error:
                    self.reasons[spec] = refusal(error)
            fine = frozenset(s for s in specs if s not in self.reasons)
            return self.plan(query, fine) if fine != specs else None

    def cost(self, query: Query, plan: Plan) -> float:
        """Return the query's weight under ``plan``; what it loses counts double, and by half at most."""
        ratio = share(plan.cost, self.plan(query, NOTHING).cost)
        return query.weight * (ratio if ratio <= 1.0 else min(_WORST, 1.0 + _LOSS * (ratio - 1.0)))

    def floor(self, query: Query, specs: Specs) -> float:
        """Return what the query costs at least under ``specs``: more indexes never made a plan dearer."""
        if not self.is_cheapest:
            return 0.0
        tables = query.analysis.tables
        relevant = frozenset(s for s in specs if s.table in tables)
        known = [p.cost for more, p in self._plans[query.id].items() if relevant <= more]
        return query.weight * share(max(known, default=0.0), self.plan(query, NOTHING).cost)

    def size(self, spec: IndexSpec) -> int:
        """Return estimated bytes, asked once."""
        if spec not in self._sizes:
            self._sizes[spec] = max(1, self._planner.size(spec))
        return self._sizes[spec]


def share(after: float, before: float) -> float:
    """Return one cost in another; what costs nothing (an empty table, ``a = NULL``) cannot get cheaper."""
    return after / before if before > 0 else 1.0


def _implied(asked: Mapping[Specs, Plan], specs: Specs) -> Plan | None:
    """Return the plan that a larger set got, where ``specs`` still has all that plan uses.

    A planner that takes the cheapest of many plans takes the same one of fewer, as long as it is among
    them ("atomic configurations": Chaudhuri and Narasayya, "An Efficient, Cost-Driven Index Selection Tool
    for Microsoft SQL Server", VLDB 1997).
    """
    for more, plan in asked.items():
        if plan.used <= specs <= more:
            return plan
    return None


def refusal(error: Exception) -> str:
    """Return a planner's refusal in one line: its first, or the error's kind where it says nothing."""
    said = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return f"the planner refused it: {said}"
