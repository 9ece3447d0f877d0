"""What advising costs grows slower than the work: plans, depth of trees, and the last step before the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlglot
from sqlalchemy import Engine, create_engine

from eventperf.dbopt import DatabaseOptimizer, Limits, Workload, advising, lint_workload
from eventperf.dbopt.analysis import names
from eventperf.dbopt.analysis.plain import balance
from eventperf.dbopt.backends.mysql.what_if import _unfiltered
from eventperf.dbopt.backends.sqlite.what_if import ScratchPlanner
from eventperf.dbopt.indexes.deadline import Deadline
from eventperf.dbopt.lint.statements import lint_file
from eventperf.dbopt.protocols import Query, ReadsSome
from eventperf.dbopt.schema.model import Column, IndexSpec, Key, Schema, Table, words_of
from eventperf.dbopt.statements.fingerprint import parse
from eventperf.dbopt.statements.lex import split, split_lines
from eventperf.dbopt.statements.workload import Sample
from eventperf.testing import FakeClock


def table(name: str, *columns: str) -> Table:
    return Table(name=name, columns={c: Column(name=c, type="INTEGER") for c in columns}, rows=1000)


SCHEMA = Schema(
    tables={
        "orders": table("orders", "id", "customer", "at", "State", "total"),
        "customer": table("customer", "id", "name", "country"),
        "item": table("item", "id", "order_id", "kind", "at"),
    }
)

PLAIN = [
    "SELECT id FROM orders WHERE customer = 3 AND at > 5 ORDER BY at DESC, id LIMIT 5",
    "SELECT * FROM orders WHERE state IN (1, 2)",
    "SELECT o.*, name FROM orders o JOIN customer ON customer.id = o.customer WHERE country = 3",
    "SELECT o.id AS n FROM orders AS o, item i WHERE i.order_id = o.id AND i.kind = 2 ORDER BY n",
    "SELECT o.total FROM orders o LEFT JOIN item ON item.order_id = o.id AND item.kind = 1 WHERE o.State = 2",
    "SELECT customer, count(*) FROM orders GROUP BY customer HAVING count(*) > 2 ORDER BY 1",
    "SELECT DISTINCT kind FROM item",
    "SELECT min(total) FROM orders WHERE (customer = 1 OR state = 2)",
    "SELECT a.id FROM orders a JOIN orders b ON a.customer = b.id WHERE b.at BETWEEN 1 AND 2",
    "SELECT total + 1 FROM orders WHERE abs(total) = 3 AND NOT state IS NULL",
    "UPDATE orders SET total = 1 WHERE customer = 4",
    "DELETE FROM item WHERE kind = 2 AND order_id < 4",
]
NOT_PLAIN = [
    "SELECT id FROM orders WHERE customer IN (SELECT id FROM customer WHERE country = 1)",
    "WITH x AS (SELECT id FROM item) SELECT id FROM x",
    "SELECT at AS total FROM orders ORDER BY total",  # a name of two things
    "SELECT name FROM orders JOIN customer USING (id)",
    "SELECT at FROM orders JOIN item ON item.order_id = orders.id",  # of two tables
    "SELECT id FROM orders UNION SELECT id FROM item",
    "SELECT id FROM orders NATURAL JOIN customer",
    'SELECT id FROM orders WHERE state = "open"',
]


def used(sql: str) -> tuple[list[Any], Any]:
    found = names.analyse(sql, SCHEMA)
    uses = [
        (
            u.table, u.alias, u.joins, u.group_by, u.order_by, u.columns, u.limited, u.in_outer, u.min_max,
            u.distinct, [(p.column, p.kind, p.values, p.expression, p.inner, p.op) for p in u.predicates],
            [[[(p.column, p.kind, p.values) for p in b] for b in a] for a in u.alternatives],
        )
        for u in found.uses
    ]  # fmt: skip
    return sorted(uses, key=repr), (found.error, found.unknown, found.written)


@pytest.mark.parametrize("sql", PLAIN + NOT_PLAIN)
def test_the_short_way_of_resolving_names_gives_what_the_long_way_gives(
    sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []
    short = names.plain_uses

    def watched(*args: Any) -> Any:
        found = short(*args)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(names, "plain_uses", watched)
    one = used(sql)
    assert taken == [sql in PLAIN]
    monkeypatch.setattr(names, "plain_uses", lambda *args: None)
    assert one == used(sql)
    assert one[0]


@pytest.mark.parametrize("word", ["OR", "AND"])
def test_a_chain_of_thousands_is_no_deeper_than_its_logarithm(word: str) -> None:
    terms = [f"(kind = {n} AND at = {n})" for n in range(2_000)]
    tree = sqlglot.parse_one(f"SELECT id FROM item WHERE {f' {word} '.join(terms)}", read="sqlite")
    before = tree.args["where"].this
    flat = [t.sql() for t in before.flatten(unnest=False)]
    balance(tree)
    after = tree.args["where"].this
    assert [t.sql() for t in after.flatten(unnest=False)] == flat
    deepest = max(n.depth for n in tree.find_all(sqlglot.exp.Column))
    assert deepest < 30, "the parser's own is 2,000"


def test_a_long_chain_says_what_each_branch_asks_for() -> None:
    sql = "SELECT id FROM item WHERE " + " OR ".join(f"(kind = {n} AND at = {n})" for n in range(300))
    (use,) = names.analyse(sql, SCHEMA).uses
    (group,) = use.alternatives
    assert [[p.column for p in branch] for branch in group] == [["kind", "at"]] * 300
    assert [p.values for branch in group for p in branch] == [(n,) for n in range(300) for _ in "ka"]


def test_a_search_ends_before_its_time_does() -> None:
    """What is found has to be told as well: a twenty-fifth of the budget is for that, two seconds at most."""
    clock = FakeClock()
    deadline = Deadline(clock, clock.monotonic() + 10, lambda line: None)
    clock.advance(9.5)
    assert not deadline.expired()
    assert deadline.left_s() == pytest.approx(0.1)
    clock.advance(0.2)
    assert deadline.expired()
    assert deadline.left_s() == 0
    long = Deadline(clock, clock.monotonic() + 300, lambda line: None)
    assert long.left_s() == pytest.approx(298)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://")
    with made.begin() as db:
        for t in range(12):
            db.exec_driver_sql(f"CREATE TABLE t{t} (id INTEGER PRIMARY KEY, a INT, b INT, c INT, d INT)")
            rows = ", ".join(f"({n % 7}, {n % 19}, {n % 50}, {n * 31 % 97})" for n in range(400))
            db.exec_driver_sql(f"INSERT INTO t{t} (a, b, c, d) VALUES {rows}")
    yield made
    made.dispose()


def test_the_planner_is_asked_a_few_times_for_each_statement(engine: Engine) -> None:
    draw, lines = Random(3), []
    for n in range(120):
        one, two, three = draw.sample("abcd", 3)
        lines.append(
            f"SELECT {three} FROM t{n % 12} WHERE {one} = 3 AND {two} > {n % 5} ORDER BY {three}, id"
        )
        other = draw.randrange(12)
        lines.append(
            f"SELECT x.{one} FROM t{n % 12} x JOIN t{other} y ON y.{two} = x.id WHERE y.{three} = {n}"
        )
    work = Workload.from_sql(";\n".join(lines))
    with DatabaseOptimizer(engine) as optimizer:
        advice = optimizer.advise(work, budget="10m")
    assert advice.is_complete
    assert advice.indexes
    assert advice.explains <= 800 + 4 * len(work)  # a hundred of them after what a proof gave up


def test_a_statement_too_long_for_the_time_left_is_named_and_left_out(engine: Engine) -> None:
    long = "SELECT a FROM t1 WHERE " + " OR ".join(f"b = {n}" for n in range(3_000))
    work = Workload.from_sql(f"{long};\nSELECT b FROM t2 WHERE c = 3 AND d = 5")
    with DatabaseOptimizer(engine) as optimizer:
        advice = optimizer.advise(work, budget=2)
    (told,) = [w for w in advice.warnings if "characters" in w]
    assert "give a larger budget" in told


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_a_script_is_cut_alike_in_pieces_of_any_size(size: int) -> None:
    text = (
        "SELECT 'a;b' FROM t; -- calls: 3;\nSELECT $x$ ; $y$ ; $x$;\n/* ; /* ; */ */ SELECT 1;;\n"
        "INSERT INTO t VALUES ('it''s;', \";\"), (E'\\';');SELECT 2"
    )
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    assert list(split_lines(pieces, "postgres")) == split(text, "postgres")
    assert len(split(text, "postgres")) == 5


def test_lint_of_a_file_holds_one_statement_of_a_shape_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 10 MB took 817 MB: every tree of it was kept, and every statement parsed."""
    file, parsed = tmp_path / "big.sql", []
    long = ", ".join(f"({n}, 'x')" for n in range(20_000))
    lines = [f"SELECT * FROM t WHERE lower(a) = 'v{n}'" for n in range(300)]
    file.write_text(";\n".join([*lines, f"INSERT INTO t (a, b) VALUES {long}", "SELECT a FROM t OFFSET 9"]))
    whole = parse.__wrapped__

    def watched(sql: str, dialect: str) -> Any:
        parsed.append(len(sql))
        return whole(sql, dialect)

    monkeypatch.setattr(parse, "__wrapped__", watched)
    before = parse.cache_info().currsize
    found, count = lint_file(file)
    assert count == 3
    assert sorted(f.rule for f in found) == ["offset", "select-star", "wrapped-column"]
    assert len(parsed) == 3
    assert max(parsed) < 100
    assert parse.cache_info().currsize == before
    monkeypatch.undo()
    small = Workload.from_sql("SELECT * FROM t WHERE lower(a) = 'v'; SELECT a FROM t OFFSET 9")
    assert {f.key for f in found} == {f.key for f in lint_workload(small)}


def test_an_index_that_cannot_be_made_does_not_fail_what_is_planned_after_it(engine: Engine) -> None:
    """SQLite's scratch copy took it for made, and could not drop it again for any later statement."""
    with DatabaseOptimizer(engine) as optimizer:
        schema = optimizer.dialect.schema()
        planner = optimizer.dialect.planner(schema)
        sql = "SELECT a FROM t1 WHERE b = 3"
        (statement,) = Workload.from_sql(sql)
        query = Query(statement=statement, analysis=names.analyse(sql, schema), sample=Sample(sql, ()))
        good = IndexSpec("t1", (Key("b"),))
        bad = IndexSpec("t1", (Key("no_such(b)", is_expression=True),))
        for specs in ([good, bad], [bad]):
            with pytest.raises(Exception, match="no such"):
                planner.plan(query, specs)
            assert planner.plan(query, [good]).used == {good}
            assert planner.plan(query, []).used == frozenset()
        planner.close()


def test_a_filter_of_row_ids_in_a_plan_of_mariadb_is_left_out() -> None:
    row = {"type": "ref|filter", "key": "a|b", "rows": "12 (3%)", "table": "t"}
    assert _unfiltered(row) == {"type": "ref", "key": "a", "rows": "12", "table": "t"}
    assert _unfiltered({"type": "ALL", "key": None, "rows": 7}) == {"type": "ALL", "key": None, "rows": "7"}
    assert _unfiltered({"type": None, "key": None, "rows": None})["rows"] == ""


def test_reading_statements_leaves_time_for_the_search(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty statements of TPC-DS took 18 s to read: of a budget of 30 s nothing was left to plan them."""
    clock, events = FakeClock(), []
    real_analyse, real_plan = advising.analyse, ScratchPlanner.plan

    def analyse(*args: Any) -> Any:
        clock.advance(1)
        events.append("read")
        return real_analyse(*args)

    def plan(*args: Any) -> Any:
        events.append("plan")
        return real_plan(*args)

    monkeypatch.setattr(advising, "analyse", analyse)
    monkeypatch.setattr(ScratchPlanner, "plan", plan)
    lines = [f"SELECT {x} FROM t{n} WHERE {y} = 3" for n in range(12) for x, y in ("ab", "bc", "cd")]
    work = Workload.from_sql(";\n".join(lines))
    limits = Limits(measure_budget=0)
    with DatabaseOptimizer(engine, clock=clock, limits=limits) as optimizer:
        advice = optimizer.advise(work, budget=16)
    assert events.index("plan") <= 5, "a quarter of the time is for reading"
    assert advice.indexes


def test_tables_that_no_statement_names_are_not_sampled() -> None:
    made = create_engine("sqlite://")
    with made.begin() as db:
        for name, more in (
            ("kept", ""),
            ("child", ", k INT REFERENCES Kept(id)"),
            ("seen", ""),
            ("other", ""),
        ):
            db.exec_driver_sql(f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY, a INT{more})')
            db.exec_driver_sql(f'INSERT INTO "{name}" (a) VALUES (1), (2), (2)')
        db.exec_driver_sql("CREATE VIEW look AS SELECT a FROM seen")
    with DatabaseOptimizer(made) as optimizer:
        dialect = optimizer.dialect
        assert isinstance(dialect, ReadsSome)
        schema = dialect.schema_of(words_of(["DELETE FROM Kept WHERE id = 1", "SELECT a FROM look"]))
        whole = dialect.schema()
    made.dispose()
    sampled = {name for name, table in schema.tables.items() if table.sample}
    assert sampled == {"kept", "child", "seen"}, "what points to a changed table is looked into"
    assert {n for n, t in whole.tables.items() if t.sample} == {*schema.tables} == {*sampled, "other"}
    assert schema.tables["kept"].columns == whole.tables["kept"].columns
    assert [*schema.tables["other"].columns] == ["id", "a"]
