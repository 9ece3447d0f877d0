"""Plans priced by statistics alone: what a join can look up, and what planning takes."""

from __future__ import annotations

from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.indexes.estimate import StatisticsPlanner
from eventperf.dbopt.protocols import Query
from eventperf.dbopt.schema.model import Column, ColumnStats, IndexSpec, Key, Schema, Table
from eventperf.dbopt.statements.fingerprint import Fingerprint
from eventperf.dbopt.statements.workload import Sample, Statement


def table(name: str, rows: int, /, **distinct: float) -> Table:
    columns = {c: Column(name=c, type="int", stats=ColumnStats(distinct=d)) for c, d in distinct.items()}
    return Table(name=name, columns=columns, rows=rows, size_bytes=rows * 60, primary_key=("id",))


SCHEMA = Schema(
    dialect="sqlite",
    tables={
        "work": table("work", 10_000, id=10_000, name=10_000),
        "credit": table("credit", 100_000, id=100_000, work_id=1_000, person_id=5_000),
        "person": table("person", 5_000, id=5_000, age=2),
    },
)
TEXT = (
    "SELECT c.id FROM work w, credit c, person p "
    "WHERE c.work_id = w.id AND c.person_id = p.id AND w.name = 3 AND p.age = 1"
)


def query(text: str) -> Query:
    statement = Statement(fingerprint=Fingerprint("q", text))
    return Query(statement=statement, analysis=analyse(text, SCHEMA), sample=Sample(text, ()))


def on(*columns: str) -> IndexSpec:
    return IndexSpec("credit", tuple(map(Key, columns)))


def test_a_join_looks_up_only_what_the_tables_before_it_tell() -> None:
    planner, asked = StatisticsPlanner(SCHEMA), query(TEXT)
    by_one, by_both = (planner.plan(asked, [on(*c)]) for c in (("work_id",), ("work_id", "person_id")))
    assert by_one.used == {on("work_id")}
    assert by_both.cost == by_one.cost, "no person is known yet when its credits are looked up"
    assert planner.plan(asked, [on("person_id")]).used == frozenset()


def test_what_a_join_multiplies_is_looked_up_for_each_row_of_it() -> None:
    planner = StatisticsPlanner(SCHEMA)
    every = query("SELECT 1 FROM work w, credit c, person p WHERE c.work_id = w.id AND c.person_id = p.id")
    one = query(f"{TEXT} AND w.id = 7")
    index = on("work_id")
    assert planner.plan(one, [index]).used == {index}
    assert planner.plan(every, [index]).used == frozenset(), "a hundred thousand rows are read at once"


def test_planning_is_taken_to_double_with_every_table_and_no_more_than_engines_bound_it() -> None:
    planner = StatisticsPlanner(SCHEMA)

    def took(tables: int) -> float:
        names = [f"w{n}" for n in range(tables)]
        joined = " AND ".join(["1 = 1", *(f"w0.id = {n}.id" for n in names[1:])])
        return planner.plan(
            query(f"SELECT 1 FROM {', '.join(f'work {n}' for n in names)} WHERE {joined}"), []
        ).planning_s

    assert took(4) == 2 * took(3)
    assert took(14) == took(20)
