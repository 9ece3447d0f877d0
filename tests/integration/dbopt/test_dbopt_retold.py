"""What a parser takes for something else, and what two values of one kind may still differ in: on each engine
no form of such a statement gives other rows, or the same in another order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbopt_forms import Asked, forms, place
from eventperf.dbopt import DatabaseOptimizer, Workload
from foreign import Foreign


def many(dialect: str, values: str, last: int = 3_000) -> str:
    """Return a SELECT of values made of n = 1, 2, ..."""
    source = {
        "sqlite": "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s "
        f"WHERE n < {last}) SELECT n FROM s)",
        "postgres": f"generate_series(1, {last}) AS s(n)",
        "mysql": f"(SELECT seq AS n FROM seq_1_to_{last}) s",
    }
    return f"SELECT {values} FROM {source[dialect]}"


#: engine, tables, their rows, statements, and the rule that has a form for one of them all the same
KINDS: dict[str, tuple[str, list[str], list[str], list[str], str]] = {
    "casts that SQLite and its parser read in two ways": (
        "sqlite",
        ["CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT)"],
        ["INSERT INTO t " + many("sqlite", "n, '900719925474' || (1000 + n), n")],
        ["SELECT DISTINCT id, CAST(a AS NUMERIC) FROM t WHERE b < 50",
         "SELECT DISTINCT id, CAST('2024-01-01' AS DATE) FROM t WHERE b < 50",
         "SELECT id FROM t WHERE (b = 1 OR b = 2) AND CAST('abc' AS STRING) = 0",
         "SELECT DISTINCT id, CAST(a AS TEXT) FROM t WHERE b < 50"],
        "needless-distinct",
    ),
    "days before a zero day": (
        "mysql",
        ["CREATE TABLE t (id INT PRIMARY KEY, a DATE, b DATETIME, c DATETIME(6))"],
        ["INSERT INTO t " + many("mysql", "n, '2023-12-31', '2023-12-31 23:59:59', '2023-12-31 23:59:59.99'"),
         "INSERT INTO t VALUES (0, '2024-01-00', '2024-01-00 00:00:00', '2024-01-00 00:00:00')"],
        [f"SELECT id FROM t WHERE DATE({c}) = '2023-12-31'" for c in "abc"],
        "date-to-range",
    ),
    "the order of an enum is not that of its texts": (
        "mysql",
        ["CREATE TABLE t (id INT PRIMARY KEY, st ENUM('z', 'a', 'm'), a INT, b INT, KEY (a), KEY (b))"],
        ["INSERT INTO t " + many("mysql", "n, 1 + n % 3, n % 50, n % 70")],
        ["SELECT id, st FROM t WHERE a = 7 OR b = 9 ORDER BY st",
         "SELECT id, st, a FROM t WHERE a = 7 OR b = 9 ORDER BY a"],
        "or-to-union-all",
    ),
    "a condition within a comment that is run": (
        "mysql",
        ["CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)"],
        ["INSERT INTO t " + many("mysql", "n, n % 50, n % 7")],
        ["SELECT DISTINCT id, a FROM t WHERE a = 7 /*! AND b = 2 */",
         "SELECT DISTINCT id, a FROM t WHERE a = 7 /*M!100100 AND b = 2 */"],
        "needless-distinct",
    ),
    "numbers that are equal but not of one range": (
        "mysql",
        ["CREATE TABLE o (k INT PRIMARY KEY, v INT)", "CREATE TABLE i (k INT UNSIGNED NOT NULL, v INT)"],
        ["INSERT INTO o " + many("mysql", "n + 10, n"), "INSERT INTO i " + many("mysql", "n, n")],
        ["SELECT o.k FROM o WHERE o.k - 5 > 100 AND o.v < (SELECT max(i.v) FROM i WHERE i.k = o.k)"],
        "aggregate-to-join",
    ),
    "the same on PostgreSQL": (
        "postgres",
        ["CREATE TABLE o (k bigint PRIMARY KEY, v int)", "CREATE TABLE i (k int NOT NULL, v int)"],
        ["INSERT INTO o " + many("postgres", "n, n"), "INSERT INTO i " + many("postgres", "n, n + 1")],
        ["SELECT o.k FROM o WHERE o.k * 1000000 > 5 AND o.v < (SELECT max(i.v) FROM i WHERE i.k = o.k)"],
        "aggregate-to-join",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_forms_give_the_rows_of_the_text_and_not_of_its_reading(
    kind: str, request: Any, tmp_path: Path
) -> None:
    dialect, ddl, inserts, sqls, rule = KINDS[kind]
    made = Foreign(0, dialect)
    made.ddl, made.inserts = ddl, inserts
    with place(dialect, request, tmp_path) as (url, what_if):
        asked = Asked(made, url)
        with DatabaseOptimizer(asked.engine, what_if=what_if) as optimizer:
            found = list(forms(sqls, optimizer))
            advice = optimizer.advise(Workload.from_sql(";\n".join(sqls), dialect), budget="1h")
        assert [(pair, said) for pair in found if (said := asked.difference(pair)) is not None] == []
        assert rule in {pair.rule for pair in found}, "a rule that has no form proves nothing"
        work = Workload.from_sql(";\n".join(sqls), dialect)
        for rewrite in (r for r in advice.rewrites if r.is_safe and r.after):
            assert asked.rows(work[rewrite.fingerprint].sql) == asked.rows(rewrite.after or "")
        asked.close()


@pytest.mark.parametrize("mode", ["PIPES_AS_CONCAT", "ANSI_QUOTES"])
def test_a_mode_that_gives_a_sign_another_meaning_costs_forms_and_no_row(
    mode: str, request: Any, tmp_path: Path
) -> None:
    made = Foreign(0, "mysql")
    made.ddl = ["CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(9), b VARCHAR(9))"]
    made.inserts = ["INSERT INTO t " + many("mysql", "n, n % 50, n % 50")]
    sqls = [
        "SELECT DISTINCT id, a FROM t WHERE a || 'x' = '7x'",
        'SELECT DISTINCT id, a FROM t WHERE "a" = "b"',
    ]
    with place("mysql", request, tmp_path) as (url, _):
        asked = Asked(made, url)
        asked.rows(f"SET SESSION sql_mode = '{mode}'")
        with DatabaseOptimizer(asked.engine) as optimizer:
            found = list(forms(sqls, optimizer))
        assert [pair for pair in found if asked.difference(pair) is not None] == []
        asked.close()
