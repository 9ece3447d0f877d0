"""The outcome of a search with its account: what each index saves, for whom, why others were not taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from eventperf.dbopt.protocols import Plan, Query
from eventperf.dbopt.schema.model import IndexSpec

from .prices import NOTHING, Prices
from .states import State, States, by_table, serving

_RUNNERS_UP: Final = 20
#: So many queries, and this share of what is more, are planned once more with all that was chosen.
_CHECKED: Final = 100
_OF_MORE: Final = 0.1
#: A query whose plan costs so many times more than today has what it uses taken away, if that pays.
_DEARER: Final = 1.05
_REPAIRS: Final = 10

NOTHING_ASKED: Final = "no condition, join or order an index could serve"


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
        choices: Chosen indexes, most gain first.
        before: Plans of today by query.
        after: Plans with all choices.
        unserved: Why a query got nothing.
    """

    choices: list[Choice] = field(default_factory=list)
    before: dict[str, Plan] = field(default_factory=dict)
    after: dict[str, Plan] = field(default_factory=dict)
    unserved: dict[str, str] = field(default_factory=dict)


def settled(state: State, states: States, prices: Prices) -> State:
    """Return ``state`` with the plans of all it chose together, without what harms more than it helps.

    Growth looks at one index at a time, and at the plans that it changes then.
    """
    for _ in range(_REPAIRS):
        state = _planned(state, states, prices)
        dearer = [
            q
            for q in states.queries
            if state.plans[q.id].cost > _DEARER * prices.plan(q, NOTHING).cost and state.plans[q.id].used
        ]
        dearer.sort(key=lambda q: -prices.cost(q, state.plans[q.id]))
        found = (states.without(state, s) for q in dearer for s in state.plans[q.id].used)
        better = next((new for new in found if states.worth(state, new) > 0), None)
        if better is None:
            return state
        state = better
    return state


def _planned(state: State, states: States, prices: Prices) -> State:
    plans = dict(state.plans)
    ranked = sorted(states.queries, key=lambda q: -q.weight)
    most, specs = _CHECKED + int(_OF_MORE * len(ranked)), by_table(state.specs)
    for query in ranked:
        if most <= 0:
            break
        if set(serving(specs, query)) - state.plans[query.id].used:
            plans[query.id] = prices.plan(query, state.specs)
            most -= 1
    cost = sum(prices.cost(q, plans[q.id]) for q in ranked)
    return State(state.specs, plans, cost, state.size, state.upkeep)


def account(
    state: State, states: States, prices: Prices, wanted: Mapping[str, Sequence[IndexSpec]]
) -> Selection:
    """Return what was chosen with its grounds."""
    before = {q.id: prices.plan(q, NOTHING) for q in states.queries}
    out = Selection(before=before, after=dict(state.plans))
    total = states.total or 1.0
    picked: dict[str, list[IndexSpec]] = defaultdict(list)
    for spec, queries in states.by_spec.items():
        for name in queries:
            picked[name].append(spec)
    for spec in state.specs:
        serves = [q for q in states.by_table[spec.table] if spec in out.after[q.id].used]
        if not serves:
            prices.reasons[spec] = "no plan uses it beside the chosen ones"
            continue
        gain = states.without(state, spec).cost - state.cost
        choice = Choice(spec, gain / total, prices.size(spec), states.writes(spec) / total, serves)
        own = [o for q in serves for o in picked[q.id]]
        others = [o for q in serves for o in wanted.get(q.id, ()) if o.table == spec.table]
        choice.rejected = [
            (other, prices.reasons.get(other, "another index gains more per byte"))
            for other in dict.fromkeys((*own, *others))
            if other not in state.specs
        ][:_RUNNERS_UP]
        out.choices.append(choice)
    out.choices.sort(key=lambda c: (-c.gain, c.spec.label()))
    out.unserved = _unserved(states, out, wanted)
    return out


def _unserved(
    states: States, selection: Selection, wanted: Mapping[str, Sequence[IndexSpec]]
) -> dict[str, str]:
    out = dict(states.failed)
    for query in states.queries:
        if selection.after[query.id].used:
            continue
        if wanted.get(query.id):
            out[query.id] = "no candidate made its plan cheaper by enough to pay for its bytes and writes"
            continue
        today = selection.before[query.id]
        existing = ", ".join(sorted(today.existing))
        if not existing and "PRIMARY KEY" in today.text:
            existing = "the primary key"
        out[query.id] = f"already served by {existing}" if existing else NOTHING_ASKED
    return out
