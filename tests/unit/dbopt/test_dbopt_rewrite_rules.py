"""Every rule against generated schemas and hostile values: both forms give the same rows.

``EVENTPERF_REWRITES=5000`` tries as many more.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import suppress
from typing import Any

import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventperf.dbopt.backends.sqlite.promises import promised
from eventperf.dbopt.rewrites.known import is_known, is_open
from eventperf.dbopt.rewrites.rules import RULES
from eventperf.dbopt.schema.model import Column, Schema, Table

MANY = int(os.environ.get("EVENTPERF_REWRITES", "60"))
VALUES: list[Any] = [None, 0, 1, 2, 3, 50, 1.5, "a", "A", "a ", "b", "", "1", "n/a", "2x", b"a"]
TYPES = ["INTEGER", "INT", "TEXT", "TEXT COLLATE NOCASE", "TEXT COLLATE RTRIM", "REAL", "STRING", ""]
STATEMENTS = [
    "SELECT DISTINCT t.k, t.v FROM t",
    "SELECT DISTINCT t.k FROM t JOIN s ON t.k = s.k",
    "SELECT DISTINCT t.*, s.v FROM t, s WHERE t.k = s.k",
    "SELECT DISTINCT k, v FROM t ORDER BY v LIMIT 3",
    "SELECT v FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.k = t.k)",
    "SELECT v FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.k = t.k AND s.v = t.v)",
    "SELECT v FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = t.k)",
    "SELECT v FROM t WHERE NOT EXISTS (SELECT * FROM s WHERE s.v = t.k AND s.k > 1)",
    "SELECT k FROM t WHERE k NOT IN (SELECT k FROM s)",
    "SELECT k FROM t WHERE v NOT IN (SELECT s.k FROM s WHERE s.v > 0)",
    "SELECT k FROM t WHERE k IN (SELECT k FROM s ORDER BY v)",
    "SELECT k FROM t WHERE k IN (SELECT k FROM s ORDER BY v LIMIT -1 OFFSET 2)",
    "SELECT k FROM t WHERE (SELECT count(*) FROM s WHERE s.k = t.k) > 0",
    "SELECT k FROM t WHERE 0 = (SELECT count(s.v) FROM s WHERE s.k = t.v)",
    "SELECT k FROM t WHERE v < (SELECT 2 * max(s.v) FROM s WHERE s.k = t.k)",
    "SELECT k FROM t WHERE k GLOB 'a*' AND v < (SELECT sum(s.v) FROM s WHERE s.k = t.k)",
    "SELECT k FROM t WHERE length(k) = 1 AND v <> (SELECT min(s.v) FROM s WHERE s.k = t.k)",
    "SELECT k, (SELECT count(*) FROM s WHERE s.k = t.k) AS n FROM t",
    "SELECT k, (SELECT max(s.v) FROM s WHERE s.v = t.k) AS n FROM t WHERE v > 0",
    "SELECT k FROM t WHERE k + 1 > 2",
    "SELECT k FROM t WHERE v - 1 <= 1",
    "SELECT v FROM t WHERE substr(k, 1, 1) = 'a'",
    "SELECT v FROM t WHERE k = 1 OR k = 2 OR k = 3",
    "SELECT v FROM t WHERE k = 'a' OR k = 1",
    "SELECT v FROM t WHERE (k = 'a' AND v > 0) OR (k = 'a' AND v = 'A')",
    "SELECT k OR (k AND v) AS x FROM t",
    "SELECT k FROM t WHERE k = 'a' OR v > 0",
    "SELECT k, v FROM t WHERE k IS NULL OR v = 'b' ORDER BY k",
    "WITH s AS (SELECT v AS k, k AS v FROM t) SELECT DISTINCT s.k FROM s",
    "SELECT DISTINCT k, v, CAST(v AS NUMERIC) FROM t",
    "SELECT DISTINCT k, v, CAST(v AS STRING) AS x, CAST(v AS BOOLEAN) FROM t",
    "SELECT v FROM t WHERE (k = 1 OR k = 2) AND CAST(v AS DATE) = 1",
    "SELECT v FROM t WHERE (k = 'a' OR k = 'b') AND CAST(v AS DATETIME) > 0",
    "SELECT v FROM t WHERE (k = 1 OR k = 2 OR k = 3) AND '{\"a.b\": 1}' ->> 'a.b' = 1",
]
columns = st.tuples(st.sampled_from(TYPES), st.sampled_from(["", " NOT NULL"]))
keys = st.sampled_from(
    [
        "",
        "PRIMARY KEY (k)",
        "UNIQUE (k)",
        "UNIQUE (k, v)",
        "INDEX k COLLATE BINARY",
        "INDEX k COLLATE NOCASE",
        "INDEX k WHERE v > 1",
    ]
)
rows = st.lists(st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)), max_size=12)
tables = st.tuples(columns, columns, keys, rows)


def make(db: sqlite3.Connection, name: str, drawn: Any) -> Table:
    (k, k_null), (v, v_null), key, given_rows = drawn
    inside = f", {key}" if key and not key.startswith("INDEX") else ""
    db.execute(f"CREATE TABLE {name} (k {k}{k_null}, v {v}{v_null}{inside})")
    if key.startswith("INDEX"):
        part, _, where = key.removeprefix("INDEX ").partition(" WHERE ")
        db.execute(f"CREATE UNIQUE INDEX u_{name} ON {name} ({part})" + (f" WHERE {where}" if where else ""))
    for row in given_rows:
        with suppress(sqlite3.IntegrityError):  # the rowid takes whole numbers only
            db.execute(f"INSERT OR IGNORE INTO {name} VALUES (?, ?)", row)
    told = Table(
        name=name,
        columns={c: Column(name=c, type=t.partition(" ")[0]) for c, t in (("k", k), ("v", v))},
        primary_key=("k",) if key.startswith("PRIMARY") else (),
        rows=1000,
    )
    return promised(told, lambda sql: db.execute(sql).fetchall())


@settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck), derandomize=MANY == 60)
@given(t=tables, s=tables, number=st.integers(0, len(STATEMENTS) - 1))
def test_no_rule_gives_other_rows_on_sqlite(t: Any, s: Any, number: int) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        schema = Schema(tables={n: make(db, n, d) for n, d in (("t", t), ("s", s))}, dialect="sqlite")
        for sql in (STATEMENTS + STATEMENTS)[number : number + 3]:
            tree = sqlglot.parse_one(sql, read="sqlite")
            if not is_open(sql, tree, "sqlite"):
                continue
            before = Counter(map(repr, db.execute(sql)))
            for rule in RULES:
                for form in rule.forms(tree, schema):
                    bare = form.tree.sql("sqlite")
                    if "LIMIT" not in bare:
                        after = Counter(map(repr, db.execute(bare)))
                        assert after == before, (form.rule, sql, bare)
    finally:
        db.close()


def test_each_rule_for_sqlite_finds_a_statement_here() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    good = (("INTEGER", " NOT NULL"), ("INTEGER", " NOT NULL"), "PRIMARY KEY (k)", [])
    text = (("TEXT", " NOT NULL"), ("INTEGER", " NOT NULL"), "PRIMARY KEY (k)", [])
    found: set[str] = set()
    for drawn in (good, text):
        for name in ("t", "s"):
            db.execute(f"DROP TABLE IF EXISTS {name}")
        schema = Schema(tables={n: make(db, n, drawn) for n in ("t", "s")}, dialect="sqlite")
        for sql in STATEMENTS:
            tree = sqlglot.parse_one(sql, read="sqlite")
            found |= {f.rule for rule in RULES if is_known(tree) for f in rule.forms(tree, schema)}
    db.close()
    assert found >= {r.name for r in RULES} - {"date-to-range", "typed-literal"}
