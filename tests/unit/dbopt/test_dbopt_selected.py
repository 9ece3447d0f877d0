"""The account of a search: what an index is worth, for whom, why others are not there, and what harms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from eventperf.dbopt import Limits
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.indexes.prices import NOTHING, Prices, Specs
from eventperf.dbopt.indexes.selection import NOTHING_ASKED, Selection, account, settled
from eventperf.dbopt.indexes.states import State, States
from eventperf.dbopt.protocols import Plan, Query
from eventperf.dbopt.schema.model import Column, IndexSpec, Key, Schema, Table
from eventperf.dbopt.statements.fingerprint import Fingerprint
from eventperf.dbopt.statements.workload import Sample, Statement

A, B, C, D = (IndexSpec("t", (Key(name),)) for name in "abcd")
U = IndexSpec("u", (Key("a"),))
COLUMNS = {name: Column(name=name, type="int") for name in "abcd"}
SCHEMA = Schema(
    dialect="sqlite",
    tables={
        name: Table(name=name, columns=dict(COLUMNS), rows=10_000, size_bytes=1_000_000)
        for name in "tu"
    },
)  # fmt: skip
Costs = Callable[[str, frozenset[str]], "tuple[float, str] | Plan"]


class Told:
    """A planner that is told what each statement costs with which indexes, by their columns."""

    is_real, is_cheapest, method = True, False, "made up"

    def __init__(self, costs: Costs) -> None:
        self.costs, self.asked = costs, list[str]()

    def plan(self, query: Any, specs: Iterable[IndexSpec]) -> Plan:
        self.asked.append(query.id)
        specs = list(specs)
        found = self.costs(query.id, frozenset(s.keys[0].name for s in specs))
        if isinstance(found, Plan):
            return found
        cost, used = found
        return Plan(cost=cost, text="", used=frozenset(s for s in specs if s.keys[0].name in used.split()))

    def size(self, spec: IndexSpec) -> int:
        return 1000 * (1 + "abcd".index(spec.keys[0].name))

    def close(self) -> None:
        return None


def query(name: str, weight: float = 1.0, table: str = "t") -> Query:
    text = f"SELECT 1 FROM {table} WHERE a = 1 AND b = 2 AND c = 3 AND d = 4"
    statement = Statement(fingerprint=Fingerprint(name, text))
    return Query(statement=statement, analysis=analyse(text, SCHEMA), sample=Sample(text, ()), weight=weight)


class Searched:
    """A workload, a planner, and the state with some indexes chosen."""

    def __init__(self, costs: Costs, queries: list[Query], chosen: Iterable[IndexSpec] = ()) -> None:
        self.planner = Told(costs)
        planner: Any = self.planner
        self.prices = Prices(planner)
        self.states = States(self.prices, SCHEMA, Limits())
        empty = State(NOTHING, {}, 0.0, 0, 0.0)
        state = self.states.add(empty, queries, lambda spec: 0.25 if spec == B else 0.0)
        specs: Specs = frozenset(chosen)
        plans = {q.id: self.prices.plan(q, specs) for q in queries}
        cost = sum(self.prices.cost(q, plans[q.id]) for q in queries)
        writes = sum(map(self.states.writes, specs))
        self.state = State(specs, plans, cost, state.size, writes) if specs else state

    def accounted(self, **wanted: list[IndexSpec]) -> Selection:
        return account(self.state, self.states, self.prices, wanted)


def by_first(**costs: float) -> Costs:
    """The cheapest of those that are there; 100 without any."""

    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        best = min(sorted(there & costs.keys()), key=lambda c: costs[c], default="")
        return (costs[best], best) if best else (100.0, "")

    return told


def test_a_choice_tells_what_it_saves_what_it_costs_and_for_whom() -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        if name == "three" and "b" in there:
            return 50.0, "b"
        return (10.0, "a") if "a" in there and name != "three" else (100.0, "")

    queries = [query("one", 3.0), query("two", 1.0), query("three", 1.0)]
    found = Searched(told, queries, [B, A]).accounted()
    first, second = found.choices
    assert (first.spec, [q.id for q in first.serves], first.size_bytes) == (A, ["one", "two"], 1000)
    assert (first.gain, first.write_cost) == (pytest.approx(0.9 * 4 / 5), 0.0)
    assert (second.spec, [q.id for q in second.serves], second.size_bytes) == (B, ["three"], 2000)
    assert (second.gain, second.write_cost) == (pytest.approx(0.1), pytest.approx(0.05))
    assert {name: plan.cost for name, plan in found.before.items()} == dict.fromkeys(found.before, 100.0)
    assert {name: plan.cost for name, plan in found.after.items()} == {
        "one": 10.0,
        "two": 10.0,
        "three": 50.0,
    }
    assert found.unserved == {}


def test_equal_gains_stand_by_their_names() -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        return (10.0, name) if name in there else (100.0, "")

    chosen = [C, A, B]
    found = Searched(told, [query("c"), query("b"), query("a")], chosen).accounted()
    assert [c.spec for c in found.choices] == [A, B, C]


def test_what_no_plan_uses_is_no_choice_and_says_so() -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        return (10.0, name) if name in there else (100.0, "")

    search = Searched(told, [query(name) for name in "acd"], [A, B, C, D])
    assert [c.spec for c in search.accounted().choices] == [A, C, D]
    assert search.prices.reasons == {B: "no plan uses it beside the chosen ones"}


def test_of_others_those_that_were_picked_come_first_then_those_that_were_made() -> None:
    search = Searched(by_first(a=10.0), [query("one"), query("two"), query("far", table="u")], [A])
    search.states.by_spec[D]["two"] = query("two")
    search.states.by_spec[A]["two"] = query("two")
    search.states.by_spec[C]["far"] = query("far")
    search.prices.reasons[B] = "saves too little"
    (choice,) = search.accounted(one=[B, A, U], two=[D, C], far=[U]).choices
    plain = "another index gains more per byte"
    assert choice.rejected == [(D, plain), (B, "saves too little"), (C, plain)]


def test_twenty_others_are_told_at_most() -> None:
    many = [IndexSpec("t", (Key("a"), Key(f"x{n}"))) for n in range(30)]
    (choice,) = Searched(by_first(a=10.0), [query("one")], [A]).accounted(one=many).choices
    assert [spec for spec, _ in choice.rejected] == many[:20]


def test_a_query_without_an_index_is_told_why() -> None:
    plans = {
        "dear": Plan(cost=5.0, text="SCAN"),
        "served": Plan(cost=5.0, text="", existing=frozenset({"ix_b", "ix_a"})),
        "keyed": Plan(cost=5.0, text="SEARCH USING INTEGER PRIMARY KEY"),
        "both": Plan(cost=5.0, text="PRIMARY KEY", existing=frozenset({"ix_a"})),
        "bare": Plan(cost=5.0, text="SCAN"),
    }

    def told(name: str, there: frozenset[str]) -> Any:
        if name == "broken":
            raise ValueError("no such function")
        if name == "helped":
            return (1.0, "a") if "a" in there else (100.0, "")
        return plans[name]

    search = Searched(told, [query(name) for name in ("helped", *plans)], [A])
    search.states.add(search.state, [query("broken")], lambda spec: 0.0)
    found = search.accounted(helped=[A], dear=[B], bare=[])
    assert found.unserved == {
        "broken": "the planner refused it: no such function",
        "served": "already served by ix_a, ix_b",
        "keyed": "already served by the primary key",
        "both": "already served by ix_a",
        "bare": NOTHING_ASKED,
        "dear": "no candidate made its plan cheaper by enough to pay for its bytes and writes",
    }
    assert found.before.keys() == {"helped", *plans}


def test_a_workload_of_no_weight_is_divided_by_nothing() -> None:
    (choice,) = Searched(by_first(a=10.0), [query("one", 0.0)], [A]).accounted().choices
    assert (choice.gain, choice.write_cost) == (0.0, 0.0)


def harmed(name: str, there: frozenset[str]) -> tuple[float, str]:
    """With ``a`` and ``b`` together the planner takes a bad plan for ``two``; either alone is good."""
    if name == "two" and {"a", "b"} <= there:
        return 400.0, "b"
    if name == "two":
        return 100.0, ""
    return (10.0, "a") if "a" in there else (100.0, "")


def test_what_harms_more_than_it_helps_is_taken_back() -> None:
    search = Searched(harmed, [query("one"), query("two", 2.0)], [A, B])
    assert search.state.plans["two"].cost == 400.0
    found = settled(search.state, search.states, search.prices)
    assert found.specs == {A}
    assert {name: plan.cost for name, plan in found.plans.items()} == {"one": 10.0, "two": 100.0}
    assert (found.cost, found.upkeep) == (pytest.approx(2.1), 0.0)


@pytest.mark.parametrize(("cost", "kept"), [(104.0, True), (106.0, False)])
def test_a_plan_a_little_dearer_than_today_is_left_alone(cost: float, kept: bool) -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        return (cost, "b") if "b" in there else (100.0, "")

    search = Searched(told, [query("one")], [B])
    assert (B in settled(search.state, search.states, search.prices).specs) is kept


def test_what_helps_others_more_than_it_harms_stays() -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        if "a" not in there:
            return 100.0, ""
        return (150.0 if name == "harmed" else 1.0), "a"

    search = Searched(told, [query("harmed"), query("one", 9.0)], [A])
    assert settled(search.state, search.states, search.prices).specs == {A}


def test_the_one_that_harms_most_is_looked_at_first_and_the_next_after_it() -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        return (500.0 if name == "a" else 110.0, name) if name in there else (100.0, "")

    search = Searched(told, [query("b"), query("a")], [A, B])
    one = settled(search.state, search.states, search.prices)
    assert one.specs == NOTHING
    assert one.cost == pytest.approx(2.0)


def test_all_that_was_chosen_is_planned_together_for_those_that_may_use_more_of_it() -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        return (10.0, "a b") if {"a", "b"} <= there else (50.0, "a") if "a" in there else (100.0, "")

    queries = [query(f"q{n:03}", 1.0 + n / 1000) for n in range(120)]
    search = Searched(told, queries, [A])
    grown = State(frozenset((A, B)), search.state.plans, search.state.cost, 0, 0.0)
    search.planner.asked.clear()
    found = settled(grown, search.states, search.prices)
    assert search.planner.asked == [f"q{n:03}" for n in range(119, 119 - 112, -1)], (
        "a hundred, a tenth of all"
    )
    assert found.specs == {A, B}
    assert sorted({plan.cost for plan in found.plans.values()}) == [10.0, 50.0]
    assert found.cost == pytest.approx(sum(search.prices.cost(q, found.plans[q.id]) for q in queries))


def test_who_uses_all_of_it_already_is_not_asked_again() -> None:
    search = Searched(by_first(a=10.0), [query("one"), query("far", table="u")], [A])
    search.planner.asked.clear()
    found = settled(search.state, search.states, search.prices)
    assert search.planner.asked == []
    assert found.cost == pytest.approx(1.1)


@pytest.mark.parametrize(("planning", "kept"), [(0.0, True), (2.0, True), (8.0, False)])
def test_an_index_pays_for_what_every_plan_of_its_table_takes_longer(planning: float, kept: bool) -> None:
    def told(name: str, there: frozenset[str]) -> tuple[float, str]:
        return (10.0, "a") if name == "helped" and "a" in there else (100.0, "")

    other = query("other", 1.0)
    other.planning = planning
    search = Searched(told, [query("helped"), other])
    search.states.by_spec[A]["helped"] = query("helped")
    new = search.states.more(search.state, (A,))
    assert new.upkeep == planning / 4
    assert (search.states.refused(search.state, new, (A,)) is None) is kept
    assert search.states.without(new, A).upkeep == 0
