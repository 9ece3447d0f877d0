"""What queries cost under sets of indexes: each question put to the planner once, and only if it must be."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from eventperf.dbopt.protocols import Plan, Planner, Query
from eventperf.dbopt.schema.model import IndexSpec
from eventperf.dbopt.statements.told import reason

Specs = frozenset[IndexSpec]
NOTHING: Specs = frozenset()
#: What a statement that gets slower loses counts this many times, up to the second figure.
_LOSS = 2.0
_WORST = 3.0


class Prices:
    """Plans and sizes, remembered.

    Args:
        planner: Who is asked.
        expired: Whether time is up: from then on the best that is known is the answer.
        dialect: Of the statements.

    Attributes:
        reasons: What the planner could not take, and its words.
        allowed: So many more questions; then the best that is known is the answer, too.
        is_cheapest: More indexes never make a plan dearer.
    """

    def __init__(
        self, planner: Planner, expired: Callable[[], bool] = lambda: False, dialect: str = "sqlite"
    ) -> None:
        self._planner, self._expired, self._dialect = planner, expired, dialect
        self.is_cheapest: bool = planner.is_cheapest
        self._plans: dict[str, dict[Specs, Plan]] = defaultdict(dict)
        self._sizes: dict[IndexSpec, int] = {}
        self._today: dict[str, float] = {}
        self.reasons: dict[IndexSpec, str] = {}
        self.allowed: float = math.inf
        self._asked_s, self._asked = 0.0, 0

    @property
    def pace_s(self) -> float:
        """Seconds that a question takes on this planner, so far."""
        return self._asked_s / max(1, self._asked)

    def plan(self, query: Query, specs: Specs) -> Plan:
        """Return the plan of ``query`` under ``specs``.

        One set that the planner cannot take must not end the search: it gains nothing.
        """
        try:
            return self._ask(query, specs)
        except Exception as error:
            relevant = _relevant(query, specs)
            if not relevant:
                raise
            for spec in relevant:
                self.reasons.setdefault(spec, self.refusal(query, error))
            plan = self._plans[query.id][relevant] = self._ask(query, NOTHING)
            return plan

    def refusal(self, query: Query, error: Exception) -> str:
        """Return the planner's refusal in one line, without values."""
        return f"the planner refused it: {reason(error, query.sample.sql, self._dialect)[:160]}"

    def _ask(self, query: Query, specs: Specs, *, late: bool = False) -> Plan:
        """Return a plan, asked only where earlier answers do not imply it.

        When time or questions are used up what is known is the answer, if not asked for ``late``.
        """
        relevant, asked = _relevant(query, specs), self._plans[query.id]
        plan = asked.get(relevant) or _implied(asked, relevant)
        if plan is None:
            if asked and not late and (self.allowed <= 0 or self._expired()):
                return self.guess(query, relevant)
            self.allowed -= 1
            began = time.monotonic()
            try:
                plan = asked[relevant] = self._planner.plan(query, sorted(relevant, key=repr))
            finally:
                self._asked_s += time.monotonic() - began
                self._asked += 1
        return plan

    def beside(self, query: Query, needed: Specs, every: Specs) -> Plan:
        """Return the plan with what is ``needed``; out of questions, the best known with ``every`` index."""
        if self.allowed <= 0 or self._expired():
            return self.guess(query, every)
        return self.plan(query, needed)

    def guess(self, query: Query, specs: Specs) -> Plan:
        """Return the cheapest plan known that needs no more than ``specs``, without asking."""
        fits = [p for p in self._plans[query.id].values() if p.used <= specs]
        return min(fits, key=lambda p: p.cost) if fits else self.plan(query, NOTHING)

    def fitting(self, query: Query, specs: Specs, *, late: bool = False) -> Plan | None:
        """Return the plan under those of ``specs`` that the planner takes; ``None`` when it takes none."""
        try:
            return self._ask(query, specs, late=late)
        except Exception:
            for spec in specs:
                try:
                    self._ask(query, frozenset((spec,)), late=late)
                except Exception as error:
                    self.reasons[spec] = self.refusal(query, error)
            fine = frozenset(s for s in specs if s not in self.reasons)
            return self.plan(query, fine) if fine != specs else None

    def cost(self, query: Query, plan: Plan) -> float:
        """Return the query's weight under ``plan``; what it loses counts double, and by half at most."""
        ratio = share(plan.cost, self.today(query))
        return query.weight * (ratio if ratio <= 1.0 else min(_WORST, 1.0 + _LOSS * (ratio - 1.0)))

    def today(self, query: Query) -> float:
        """Return what the query's plan costs without any of the indexes."""
        cost = self._today.get(query.id)
        if cost is None:
            cost = self._today[query.id] = self.plan(query, NOTHING).cost
        return cost

    def floor(self, query: Query, specs: Specs) -> float:
        """Return what the query costs at least under ``specs``: more indexes never made a plan dearer."""
        if not self.is_cheapest:
            return 0.0
        relevant = _relevant(query, specs)
        known = [p.cost for more, p in self._plans[query.id].items() if relevant <= more]
        return query.weight * share(max(known, default=0.0), self.today(query))

    def size(self, spec: IndexSpec) -> int:
        """Return estimated bytes, asked once."""
        if spec not in self._sizes:
            self._sizes[spec] = max(1, self._planner.size(spec))
        return self._sizes[spec]


def _relevant(query: Query, specs: Specs) -> Specs:
    mine = [s for s in specs if s.table in query.tables]
    return specs if len(mine) == len(specs) else frozenset(mine)


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
