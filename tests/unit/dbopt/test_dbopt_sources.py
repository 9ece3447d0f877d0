"""What statements read beside tables stops no analysis, and what is told of the tables is the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt import DatabaseOptimizer, Workload
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.schema.model import Column, Schema, Table
from eventperf.dbopt.schema.vetting import is_immutable


def table(name: str, *columns: str) -> Table:
    return Table(name=name, columns={c: Column(name=c, type="int") for c in columns}, rows=9_000)


TABLES = {t.name: t for t in (table("t", "id", "a", "j", "at"), table("s", "id", "t_id", "v"))}
READ = [
    (
        "postgres",
        "SELECT d AS day, count(t.id) FROM generate_series(1, 3) d LEFT JOIN t ON t.a = d "
        "GROUP BY day HAVING count(t.id) > 2",
        "t.a",
    ),
    ("postgres", "SELECT x.key FROM t, jsonb_each(t.j) x WHERE t.a = 4 AND x.value > 5", "t.a"),
    ("postgres", "SELECT r.k FROM t, jsonb_to_record(j) AS r(k int, n text) WHERE a = 4", "t.a"),
    ("postgres", "SELECT id FROM t, json_to_recordset('[]') AS x(b int) WHERE t.a = x.b", "t.a"),
    (
        "postgres",
        "WITH d AS (DELETE FROM s WHERE v = 9 RETURNING t_id) SELECT 1 FROM t JOIN d ON t_id = t.id",
        "s.v t.id",
    ),
    (
        "postgres",
        "WITH d AS (INSERT INTO s(id) VALUES (1) RETURNING id) SELECT 1 FROM t, d WHERE t.a = d.id",
        "t.a",
    ),
    ("postgres", "SELECT id FROM t WHERE a = 5 FOR UPDATE OF t SKIP LOCKED", "t.a"),
    ("postgres", "SELECT t.id FROM t JOIN pg_class c ON c.relpages = t.a WHERE c.relname = 'x'", "t.a"),
    ("postgres", "SELECT t.id FROM t, information_schema.tables i WHERE t.a = 4", "t.a"),
    (
        "mysql",
        "SELECT k, id FROM t, JSON_TABLE(t.j, '$' COLUMNS (k INT PATH '$.k')) jt WHERE a = 5",
        "t.a",
    ),
    ("mysql", "SELECT seq, id FROM seq_1_to_9 LEFT JOIN t ON t.a = seq", "t.a"),
    ("sqlite", "SELECT id FROM t WHERE a IN (SELECT value FROM json_each(?))", "t.a"),
    ("sqlite", "SELECT value AS v FROM t, json_each(t.j) WHERE a = 5 AND v > 3", "t.a"),
    ("sqlite", "UPDATE OR IGNORE t SET a = 4 WHERE id = 5", "t.id"),
    ("sqlite", "SELECT t.id FROM f JOIN t ON t.id = f.rowid WHERE f MATCH 'x' AND t.a = 4", "t.id t.a"),
]


@pytest.mark.parametrize(("dialect", "sql", "looked_up"), READ)
def test_functions_changes_and_the_servers_own_tables_are_read_past(
    dialect: str, sql: str, looked_up: str
) -> None:
    found = analyse(sql, Schema(tables=TABLES, dialect=dialect, others=frozenset({"f"})))
    assert (found.error, found.unknown, found.unread) == (None, [], None)
    places = {f"{u.table}.{p.column}" for u in found.uses for p in u.predicates}
    places |= {f"{u.table}.{mine}" for u in found.uses for mine, _, _ in u.joins}
    assert set(looked_up.split()) <= places


def test_the_arguments_of_a_function_are_read_from_their_table() -> None:
    found = analyse(
        "SELECT x.key FROM t, jsonb_each(t.j) x WHERE t.a = 4", Schema(tables=TABLES, dialect="postgres")
    )
    assert [sorted(u.columns) for u in found.uses] == [["a", "j"]]


def test_a_table_that_is_missing_is_still_told() -> None:
    found = analyse("SELECT id FROM t JOIN nowhere n ON n.x = t.a", Schema(tables=TABLES, dialect="postgres"))
    assert found.unknown == ["nowhere"]


def test_a_dot_in_a_name_is_no_schema() -> None:
    known = Table(
        name="public.a.b", columns={"x": Column(name="x", type="int")}, namespace="public", rows=900
    )
    found = analyse('SELECT x FROM "a.b" WHERE x = 1', Schema(tables={known.name: known}, dialect="postgres"))
    assert [u.table for u in found.uses] == ["public.a.b"]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("LOWER(t)", True),
        ("CAST(z AS DATE)", False),
        ("CAST(n AS DATE)", True),
        ("CAST(t AS DATE)", False),
        ("CAST(j ->> 'n' AS INT)", True),
        ("CAST(j ->> 'at' AS TIMESTAMPTZ)", False),
        ("CAST(n AS TEXT)", False),
        ("CAST(i AS TEXT)", True),
        ("DATE_TRUNC('DAY', z)", False),
        ("DATE_TRUNC('DAY', n)", True),
        ("EXTRACT(EPOCH FROM z)", False),
        ("EXTRACT(HOUR FROM n)", True),
        ("TO_CHAR(n, 'YYYY')", False),
        ("CONCAT(t, 'x')", False),
        ("t || 'x'", True),
        ("myf(t)", False),
    ],
)
def test_postgresql_builds_on_what_no_setting_changes(text: str, right: bool) -> None:
    types = {
        "t": "text",
        "z": "timestamp with time zone",
        "n": "timestamp without time zone",
        "j": "jsonb",
        "i": "integer",
    }
    made = Table(name="x", columns={c: Column(name=c, type=t) for c, t in types.items()})
    assert is_immutable(text, made, "postgres") is right


def test_virtual_tables_and_what_they_keep_are_no_tables_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a INT)")
        db.executemany("INSERT INTO t (a) VALUES (?)", [(n % 500,) for n in range(9_000)])
        try:
            db.execute("CREATE VIRTUAL TABLE f USING fts5(x)")
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no fts5")
    work = Workload.from_sql(
        "SELECT t.id FROM f JOIN t ON t.a = f.rowid WHERE f MATCH 'x'; SELECT id FROM t WHERE a = 3"
    )
    with DatabaseOptimizer(create_engine(f"sqlite:///{file}")) as optimizer:
        advice = optimizer.advise(work)
        assert set(optimizer.dialect.schema().tables) == {"t"}
    assert not advice.warnings
    assert [i.spec.label() for i in advice.indexes] == ["t (a)"]


@pytest.mark.parametrize("opening", ["(", "NOT ", "- "])
def test_what_is_nested_too_deeply_is_not_told_as_cut(opening: str) -> None:
    end = ")" * 3_000 if opening == "(" else ""
    found = analyse(f"SELECT id FROM t WHERE {opening * 3_000}a = 5{end}", Schema(tables=TABLES))
    assert (found.is_cut, found.unread) == (False, None)
    assert found.error == "it is nested more deeply than can be read"


def test_a_mark_of_the_order_of_bytes_is_no_part_of_a_script(tmp_path: Path) -> None:
    file = tmp_path / "asked.sql"
    file.write_text(
        "SELECT id FROM t WHERE a = 5;\r\nSELECT id FROM t WHERE a = 6;\r\n", encoding="utf-8-sig"
    )
    (only,) = Workload.from_sql_file(file)
    assert (only.fingerprint.text, only.calls) == ("select id from t where a = ?", 2)


@pytest.mark.parametrize("condition", ["", " WHERE b < 40"])
def test_the_least_and_the_greatest_stand_at_the_ends_of_an_index(tmp_path: Path, condition: str) -> None:
    file = tmp_path / "a.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b INT)")
        db.executemany(
            "INSERT INTO t (a, b) VALUES (?, ?)", [(n * 7 % 20_000, n % 50) for n in range(20_000)]
        )
    with DatabaseOptimizer(create_engine(f"sqlite:///{file}")) as optimizer:
        advice = optimizer.advise(Workload.from_sql(f"SELECT max(a) FROM t{condition}"))
    assert [i.spec.keys[0].name for i in advice.indexes] == ["a"], advice.unserved
