"""Forms that look equal and are not are caught by made rows; forms that are equal pass."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator

import pytest
import sqlglot
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlglot.optimizer.unnest_subqueries import unnest_subqueries

from eventperf.dbopt import DatabaseOptimizer, RewriteAdvice, Workload
from eventperf.dbopt.rewrites.proof import compare, multiset
from eventperf.dbopt.schema.model import Column, Schema, Table

JOINS_EXISTS = pytest.mark.skipif(
    sqlite3.sqlite_version_info >= (3, 51),
    reason="this SQLite makes a join of EXISTS by itself: nothing to gain",
)


def table(name: str, *columns: tuple[str, str, bool], key: tuple[str, ...] = ()) -> Table:
    return Table(
        name=name,
        columns={c: Column(name=c, type=t, nullable=n) for c, t, n in columns},
        primary_key=key,
        rows=1000,
    )


SCHEMA = Schema(
    tables={
        "a": table("a", ("id", "INTEGER", False), ("k", "INTEGER", True), ("s", "TEXT", True), key=("id",)),
        "b": table(
            "b", ("id", "INTEGER", False), ("a_id", "INTEGER", True), ("m", "INTEGER", True), key=("id",)
        ),
        "line": table(
            "line",
            ("ok", "INTEGER", False),
            ("num", "INTEGER", False),
            ("supp", "INTEGER", True),
            key=("ok", "num"),
        ),
    }
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # NULL inside empties NOT IN
        (
            "SELECT id FROM a WHERE k NOT IN (SELECT m FROM b)",
            "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE m = k)",
        ),
        # the join doubles rows
        (
            "SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.k)",
            "SELECT a.id FROM a JOIN b ON b.a_id = a.k",
        ),
        # no group is no row, a count of none is 0
        (
            "SELECT id FROM a WHERE 0 = (SELECT count(*) FROM b WHERE b.a_id = a.k)",
            "SELECT a.id FROM a, (SELECT a_id, count(*) AS n FROM b GROUP BY a_id) d "
            "WHERE d.a_id = a.k AND d.n = 0",
        ),
        # a row that meets both branches comes once
        (
            "SELECT id FROM a WHERE k = 2 OR s = 'x'",
            "SELECT id FROM a WHERE k = 2 UNION ALL SELECT id FROM a WHERE s = 'x'",
        ),
        # NULL in the first branch must not hide the second
        (
            "SELECT id FROM a WHERE k = 2 OR s = 'x'",
            "SELECT id FROM a WHERE k = 2 UNION ALL SELECT id FROM a WHERE s = 'x' AND NOT k = 2",
        ),
        ("SELECT DISTINCT k FROM a", "SELECT k FROM a"),
        ("SELECT id FROM a WHERE k > 2", "SELECT id FROM a WHERE k >= 2"),
        ("SELECT id FROM a WHERE s = 'x'", "SELECT id FROM a WHERE lower(s) = 'x'"),
    ],
)
def test_a_form_that_is_not_equal_is_found_out(one: str, other: str) -> None:
    before, after = (sqlglot.parse_one(q, read="sqlite") for q in (one, other))
    trial = compare(before, after, SCHEMA)
    assert trial.equal is False
    assert trial.note.startswith("lost")
    assert compare(before, before.copy(), SCHEMA).equal


def test_the_wrong_unnesting_of_a_not_equal_exists_is_found_out() -> None:
    """sqlglot's rule for EXISTS with ``<>`` gives other rows; it is the shape of TPC-H's Q21."""
    one = sqlglot.parse_one(
        "SELECT l1.ok, l1.num FROM line AS l1 WHERE NOT EXISTS "
        "(SELECT * FROM line AS l3 WHERE l3.ok = l1.ok AND l3.supp <> l1.supp)"
    )
    other = sqlglot.parse_one(
        "SELECT l1.ok, l1.num FROM line AS l1 LEFT JOIN (SELECT ok FROM line GROUP BY ok HAVING "
        "count(DISTINCT supp) > 1) AS l3 ON l3.ok = l1.ok WHERE l3.ok IS NULL OR l1.supp IS NULL"
    )
    assert compare(one, other, SCHEMA).equal
    wrong = unnest_subqueries(one.copy())
    assert wrong != one
    trial = compare(one, wrong, SCHEMA)
    assert trial.equal is not True, "either it cannot run here, or its rows differ"


def test_what_cannot_run_proves_nothing() -> None:
    one = sqlglot.parse_one("SELECT id FROM a")
    trial = compare(one, sqlglot.parse_one("SELECT no_such_function(id) FROM a"), SCHEMA)
    assert trial.equal is None
    assert "no such function" in trial.note
    assert compare(sqlglot.parse_one("SELECT 1 FROM missing"), one, SCHEMA).equal is None


def test_multisets_count_duplicates_and_forgive_the_last_digit() -> None:
    assert multiset([(1,), (1,)]) != multiset([(1,)])
    assert multiset([(0.1 + 0.2,)]) == multiset([(0.3,)])
    assert multiset([(None,)]) != multiset([(0,)])


# --- the rules, on an engine ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://")
    with made.begin() as db:
        db.exec_driver_sql("CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT, region INT)")
        db.exec_driver_sql(
            "CREATE TABLE o (id INTEGER PRIMARY KEY, c_id INT, price INT NOT NULL, code TEXT NOT NULL)"
        )
        for n in range(400):
            db.exec_driver_sql(f"INSERT INTO c VALUES ({n}, 'c{n}', {n % 7 if n % 5 else 'NULL'})")
        for n in range(3000):
            owner = n * 31 % 300 if n % 11 else "NULL"
            db.exec_driver_sql(f"INSERT INTO o VALUES ({n}, {owner}, {n % 100}, 'A{n % 50:02}')")
    yield made
    made.dispose()


def advised(engine: Engine, sql: str) -> list[RewriteAdvice]:
    with DatabaseOptimizer(engine) as optimizer:
        return optimizer.advise(Workload.from_sql(sql)).rewrites


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("SELECT id FROM c WHERE NOT EXISTS (SELECT * FROM o WHERE o.c_id = c.id)", "not-exists-to-not-in"),
        pytest.param(
            "SELECT id FROM c WHERE EXISTS (SELECT 1 FROM o WHERE c_id = c.id AND price > 98)",
            "exists-to-in",
            marks=JOINS_EXISTS,
        ),
        (
            "SELECT o.id FROM o, c WHERE c.id = o.c_id AND c.region = 3 AND "
            "price < (SELECT 1.5 * avg(price) FROM o AS x WHERE x.c_id = c.id)",
            "aggregate-to-join",
        ),
        ("SELECT id, (SELECT count(*) FROM o WHERE o.c_id = c.id) AS n FROM c", "count-to-join"),
        ("SELECT id, (SELECT max(price) FROM o WHERE o.c_id = c.id) AS n FROM c", "aggregate-to-left-join"),
        (
            "SELECT sum(price) FROM o, c WHERE (c.id = o.c_id AND region = 1 AND price > 3) "
            "OR (c.id = o.c_id AND region = 2 AND price > 5)",
            "common-factor",
        ),
        ("SELECT DISTINCT o.id, c.name FROM o JOIN c ON c.id = o.c_id", "needless-distinct"),
    ],
)
def test_a_better_form_gives_the_same_rows(engine: Engine, sql: str, rule: str) -> None:
    (found,) = [r for r in advised(engine, sql) if r.after is not None]
    assert rule in found.rule
    assert found.is_safe
    assert "NULLs, duplicates and empty tables" in found.verdict
    assert found.seconds_before is not None
    assert found.seconds_after is not None
    assert found.after is not None
    with engine.connect() as db:
        before, after = (Counter(db.execute(text(q)).all()) for q in (sql, found.after))
    assert before == after


@pytest.mark.parametrize(
    "sql",
    [
        # c_id can be NULL on the outer side: NOT EXISTS keeps such rows, NOT IN does not
        "SELECT id FROM o WHERE NOT EXISTS (SELECT 1 FROM c WHERE c.id = o.c_id)",
        # tied by more than equality
        "SELECT id FROM c WHERE EXISTS (SELECT 1 FROM o WHERE o.c_id = c.id AND o.price <> c.region)",
        # a count of nothing is 0, which an inner join would lose
        "SELECT id FROM c WHERE region < (SELECT count(*) FROM o WHERE o.c_id = c.id)",
        # an aggregate that is not NULL over nothing
        "SELECT id FROM c WHERE region < (SELECT coalesce(sum(price), 0) FROM o WHERE o.c_id = c.id)",
        # a text and a number are compared with a cast
        "SELECT id FROM c WHERE EXISTS (SELECT 1 FROM o WHERE o.code = c.region)",
        # DISTINCT does something: a customer has many orders
        "SELECT DISTINCT c.id FROM c JOIN o ON o.c_id = c.id",
        "SELECT id FROM c WHERE random() > 0 AND EXISTS (SELECT 1 FROM o WHERE o.c_id = c.id)",
    ],
)
def test_a_form_without_its_condition_is_not_offered(engine: Engine, sql: str) -> None:
    assert [r for r in advised(engine, sql) if r.after is not None] == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("SELECT id FROM o ORDER BY price LIMIT 20 OFFSET 2000", "offset-to-keyset"),
        ("SELECT id FROM c WHERE id NOT IN (SELECT c_id FROM o)", "not-in-with-nulls"),
    ],
)
def test_advice_without_a_new_form_says_what_would_differ(engine: Engine, sql: str, rule: str) -> None:
    (found,) = advised(engine, sql)
    assert (found.rule, found.after, found.is_safe) == (rule, None, False)
    assert found.verdict
    if rule == "offset-to-keyset":
        assert "(price, id) > (:last_price, :last_id)" in found.advice


@JOINS_EXISTS
def test_parameters_stay_parameters(engine: Engine) -> None:
    sql = "SELECT id FROM c WHERE EXISTS (SELECT 1 FROM o WHERE o.c_id = c.id AND o.price > ?)"
    (found,) = [r for r in advised(engine, sql) if r.after is not None]
    assert ":p1" in str(found.after)
    assert "parameters are not known" in found.verdict
