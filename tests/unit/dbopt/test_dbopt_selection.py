"""The search for indexes: whose names it knows, what it asks, what it merges, and what it leaves."""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from eventperf.dbopt import DatabaseOptimizer, Limits, Workload
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.backends.postgres.catalog import _column
from eventperf.dbopt.indexes.prices import NOTHING, Prices
from eventperf.dbopt.indexes.search import Search
from eventperf.dbopt.protocols import Capabilities, Plan, Query
from eventperf.dbopt.schema.model import Column, IndexSpec, Key, Schema, Table
from eventperf.dbopt.schema.selectivity import selectivity
from eventperf.dbopt.statements.fingerprint import Fingerprint
from eventperf.dbopt.statements.workload import Sample, Statement
from eventperf.testing import FakeClock

A, B, C = (IndexSpec("t", (Key(name),)) for name in "abc")


class Cheapest:
    """A planner that uses ``B`` where it may, else ``A``; it counts what it is asked."""

    is_real, is_cheapest, method = True, True, "made up"

    def __init__(self) -> None:
        self.explains = 0

    def plan(self, query: Any, specs: Any) -> Plan:
        self.explains += 1
        for spec, cost in ((B, 10.0), (A, 50.0)):
            if spec in specs:
                return Plan(cost=cost, text=spec.label(), used=frozenset((spec,)))
        return Plan(cost=100.0, text="scan")

    def size(self, spec: IndexSpec) -> int:
        return 1000

    def close(self) -> None:
        return None


class Asked:
    """What ``Prices`` reads of a query."""

    id, weight, tables = "q", 2.0, frozenset(("t",))


def test_what_a_larger_set_answered_is_not_asked_again() -> None:
    planner, query = Cheapest(), Asked()
    prices = Prices(planner)
    assert prices.plan(query, frozenset((A, B, C))).used == {B}  # type: ignore[arg-type]
    assert prices.plan(query, frozenset((B, C))).used == {B}  # type: ignore[arg-type]
    assert planner.explains == 1
    assert prices.plan(query, frozenset((A, C))).used == {A}  # type: ignore[arg-type]
    assert planner.explains == 2  # B was in use and is not there: nothing implied that
    assert prices.cost(query, prices.plan(query, frozenset((A,)))) == pytest.approx(1.0)  # type: ignore[arg-type]
    assert prices.plan(query, NOTHING).cost == 100.0  # type: ignore[arg-type]
    assert planner.explains == 3
    # A set is worth no more than one that holds it.
    assert prices.floor(query, frozenset((C,))) == pytest.approx(1.0)  # type: ignore[arg-type]


class Priced:
    """A planner that knows what each statement costs with each index."""

    is_real, is_cheapest, method = True, True, "made up"

    def __init__(self, **costs: dict[IndexSpec, float]) -> None:
        self.costs = costs

    def plan(self, query: Any, specs: Any) -> Plan:
        known = {spec: cost for spec, cost in self.costs[query.id].items() if spec in specs}
        if not known:
            return Plan(cost=100.0, text="scan")
        best = min(known, key=lambda spec: known[spec])
        return Plan(cost=known[best], text=best.label(), used=frozenset((best,)))

    def size(self, spec: IndexSpec) -> int:
        return 5_000_000 if spec == A else 20_000_000

    def close(self) -> None:
        return None


def searched(planner: Priced, *, left_s: float = math.inf, **limits: Any) -> Search:
    """A search over one statement for each of the planner's, on ``t``, with all indexes as candidates."""
    columns = {name: Column(name=name, type="int") for name in "abc"}
    table = Table(name="t", columns=columns, rows=100_000, size_bytes=100_000_000)
    schema = Schema(dialect="sqlite", tables={"t": table})
    asked = "SELECT 1 FROM t WHERE a = 1 AND b = 2"
    queries = [
        Query(
            statement=Statement(fingerprint=Fingerprint(name, asked)),
            analysis=analyse(asked, schema),
            sample=Sample(asked, ()),
            weight=1.0,
        )
        for name in planner.costs
    ]
    wanted = {q.id: list(planner.costs[q.id]) for q in queries}
    any_planner: Any = planner
    prices, able = Prices(any_planner), Capabilities()
    search = Search(prices, wanted, schema, able, Limits(**limits), lambda: False, lambda: left_s)
    search.add(queries, lambda spec: 0.0)
    return search


def test_what_was_chosen_early_goes_when_a_later_choice_does_its_work_as_well() -> None:
    # By gain and bytes the narrow A comes first; B, which the third needs, then carries all three.
    search = searched(Priced(one={A: 10.0, B: 10.1}, two={A: 10.0, B: 10.1}, three={B: 10.0}))
    grown = search._state.specs
    assert grown == {A, B}, "growing alone keeps both"
    found = search.finish()
    assert [choice.spec for choice in found.choices] == [B]
    assert found.choices[0].rejected == [(A, "beside the chosen ones none is the better buy")]
    assert {plan.used for plan in found.after.values()} == {frozenset((B,))}


def test_what_still_earns_its_bytes_stays() -> None:
    search = searched(Priced(one={A: 1.0, B: 60.0}, two={A: 1.0, B: 60.0}, three={B: 10.0}))
    found = search.finish()
    assert [choice.spec for choice in found.choices] == [A, B]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    file = tmp_path / "shop.db"
    draw = random.Random(5)
    with sqlite3.connect(file) as db:
        db.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, buyer INT NOT NULL, state TEXT NOT NULL, "
            "placed INT NOT NULL, total INT NOT NULL, helper INT, note TEXT NOT NULL)"
        )
        rows = (
            (
                n,
                draw.randrange(400),
                draw.choices(("done", "open", "lost"), (94, 4, 2))[0],
                draw.randrange(10**6),
                draw.randrange(500),
                draw.randrange(300) if draw.random() < 0.3 else None,
                "a note of some length " * 9,
            )
            for n in range(20_000)
        )
        db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    db.close()
    made = create_engine(f"sqlite:///{file}")
    yield made
    made.dispose()


def advised(engine: Engine, *texts: str, **limits: Any) -> list[IndexSpec]:
    workload = Workload("sqlite")
    for text in texts:
        workload.add(text, calls=50)
    with DatabaseOptimizer(engine, limits=Limits(**limits)) as optimizer:
        return [i.spec for i in optimizer.advise(workload).indexes]


QUEUE = "SELECT * FROM orders WHERE state = 'open' ORDER BY placed LIMIT 20"
LIST = "SELECT * FROM orders WHERE state IN ('open', 'lost') ORDER BY placed LIMIT 20"


@pytest.mark.parametrize(
    ("text", "where"), [(QUEUE, "state = 'open'"), (LIST, "state IN ('open', 'lost')")], ids=["one", "list"]
)
def test_rare_constants_of_the_text_make_a_partial_index(engine: Engine, text: str, where: str) -> None:
    (spec,) = advised(engine, text)
    assert (spec.where, spec.keys[0].name) == (where, "placed")


@pytest.mark.parametrize("text", [QUEUE, LIST], ids=["one", "list"])
def test_a_constant_that_changes_from_call_to_call_makes_none(engine: Engine, text: str) -> None:
    found = advised(engine, text, text.replace("'open'", "'done'"))
    assert [s.where for s in found] == [None] * len(found)


def test_a_column_that_is_often_null_is_indexed_without_its_nulls(engine: Engine) -> None:
    (spec,) = advised(engine, "SELECT * FROM orders WHERE helper = 77")
    assert spec.where == "helper IS NOT NULL"
    assert not any(
        s.where for s in advised(engine, "SELECT * FROM orders WHERE helper IS NULL AND buyer = 7")
    )


def test_one_index_carries_what_two_statements_read(engine: Engine) -> None:
    total = "SELECT sum(total) FROM orders WHERE buyer = 7"
    latest = "SELECT max(placed), min(state) FROM orders WHERE buyer = 9"
    (spec,) = advised(engine, total, latest)
    assert spec.keys[0].name == "buyer"
    assert {"buyer", "total", "placed", "state"} == set(spec.columns)


def test_max_index_bytes_is_kept(engine: Engine) -> None:
    texts = (
        QUEUE,
        LIST,
        "SELECT * FROM orders WHERE helper = 77",
        "SELECT sum(total) FROM orders WHERE buyer = 7",
    )
    free = advised(engine, *texts)
    bound = advised(engine, *texts, max_index_bytes=150_000)
    assert 0 < len(bound) < len(free)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "mysql"])
def test_names_in_mixed_case_are_resolved(dialect: str) -> None:
    def table(name: str, *columns: str) -> Table:
        return Table(name=name, columns={c: Column(name=c, type="int") for c in columns}, rows=1000)

    tables = (table("userAccounts", "id", "createdAt", "teamId"), table("Teams", "id", "Name"))
    schema = Schema(dialect=dialect, tables={t.name: t for t in tables})
    quoted = (
        'SELECT "Name", count(*) AS "N" FROM "userAccounts" JOIN "Teams" ON "Teams".id = "teamId" '
        'WHERE "createdAt" > 5 GROUP BY "Name" ORDER BY "N"'
    )
    accounts, teams = analyse(quoted.replace('"', "`") if dialect == "mysql" else quoted, schema).uses
    assert [(p.column, p.kind) for p in accounts.predicates] == [("createdAt", "range")]
    assert (accounts.table, accounts.joins) == ("userAccounts", [("teamId", "teams", "id")])
    assert (teams.table, teams.group_by, teams.columns) == ("Teams", ("Name",), {"Name", "id"})


def test_two_schemas_may_have_a_table_of_one_name() -> None:
    def table(name: str, *columns: str) -> Table:
        return Table(name=name, columns={c: Column(name=c, type="int") for c in columns}, rows=1000)

    tables = (table("orders", "id", "buyer"), table("Archive.orders", "id", "buyer"))
    schema = Schema(dialect="postgres", tables={t.name: t for t in tables})
    (use,) = analyse('SELECT id FROM "Archive".orders WHERE buyer = 7', schema).uses
    assert (use.table, [p.column for p in use.predicates]) == ("Archive.orders", ["buyer"])


def many(count: int) -> str:
    """Return statements in many shapes over one schema, some of them costly."""
    draw, names = random.Random(2), ["buyer", "state", "placed", "total", "helper"]
    out: dict[str, None] = {}
    while len(out) < count:
        one, two, three = draw.sample(names, 3)
        read = ", ".join(sorted(draw.sample([*names, "id"], draw.randrange(1, 4))))
        order = draw.choice(["", f" ORDER BY {three} LIMIT {draw.randrange(5, 90)}"])
        where = f"{one} = {draw.randrange(30)} AND {two} > {draw.randrange(9)}"
        text = f"SELECT {read} FROM orders WHERE {where}{order}"
        out[f"-- calls: {int(10 ** draw.uniform(0, 4))}\n{text}"] = None
    return ";\n".join(out)


def test_planner_calls_grow_slower_than_statements(engine: Engine) -> None:
    asked = {}
    for count in (20, 80):
        work = Workload.from_sql(many(count), "sqlite")
        with DatabaseOptimizer(engine) as optimizer:
            advice = optimizer.advise(work, budget="10m")
        assert advice.is_complete
        assert advice.gain > 0.5
        asked[len(work)] = advice.explains / len(work)
    few, more = asked.values()
    assert more <= few
    assert more <= 12  # all of them on one table: each index may matter to each of them


@pytest.mark.parametrize("seconds", [0.5, 200.0])
def test_what_no_index_can_help_does_not_decide_what_is_worth_one(engine: Engine, seconds: float) -> None:
    work = Workload("sqlite")
    work.add("SELECT note FROM orders WHERE id = 7", calls=5000, total_s=seconds)  # a slow network
    work.add("SELECT count(*) FROM orders WHERE buyer = 7", calls=100, total_s=0.5)
    with DatabaseOptimizer(engine) as optimizer:
        assert [i.spec.keys[0].name for i in optimizer.advise(work).indexes] == ["buyer"]


def test_a_budget_that_is_over_before_the_search_still_has_the_index_of_the_costliest(engine: Engine) -> None:
    work = Workload.from_sql("SELECT note FROM orders WHERE buyer = 7", "sqlite")
    clock = FakeClock()
    began = clock.monotonic

    def leaps() -> float:
        clock.advance(1.0)  # every look at the clock takes a second
        return began()

    clock.monotonic = leaps  # type: ignore[method-assign]
    with DatabaseOptimizer(engine, clock=clock) as optimizer:
        advice = optimizer.advise(work, budget="2s")
    assert not advice.is_complete
    assert [i.spec.keys[0].name for i in advice.indexes] == ["buyer"]


class Pairs(Priced):
    """A planner for which two indexes gain together only, as joins do; it counts its questions."""

    asked = 0

    def plan(self, query: Any, specs: Any) -> Plan:
        self.asked += 1
        both = frozenset((A, B))
        return Plan(cost=5.0, text="both", used=both) if both <= {*specs} else Plan(cost=100.0, text="scan")


def test_a_planner_too_slow_for_single_questions_is_believed_in_what_it_picked() -> None:
    """Statements of fifteen joins take half a second a plan: single candidates ate all the time."""
    planner = Pairs(one={A: 5.0, B: 5.0}, two={A: 5.0, B: 5.0}, three={C: 5.0})
    found = searched(planner, left_s=0.0).finish()
    assert {choice.spec for choice in found.choices} == {A, B}
    assert planner.asked == 6, "today's plan and the plan with all candidates, of each statement"
    assert found.after["one"].cost == 5.0


@pytest.mark.parametrize(
    ("condition", "share"), [("done", 0.9), ("NOT done", 0.5), ("done = true", 0.9), ("done = false", 0.1)]
)
def test_a_condition_that_is_a_bare_column_keeps_the_rows_that_statistics_say(
    condition: str, share: float
) -> None:
    """PostgreSQL writes them as ``t`` and ``f``; taken for words, each seemed rare."""
    row = (1, "done", "boolean", False, 0.0, 1, 2.0, ["t", "f"], [0.9, 0.1], None, 1.0, 1, None, True)
    table = Table(name="t", columns={"done": _column(row, 1000)}, rows=1000)
    found = analyse(f"SELECT 1 FROM t WHERE {condition}", Schema(tables={"t": table}, dialect="postgres"))
    ((predicate,),) = (use.predicates for use in found.uses)
    assert selectivity(predicate, table, None) == share
