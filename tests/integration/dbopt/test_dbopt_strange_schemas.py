"""Advice on databases that nobody here made: it breaks nothing, and copies are what the tables are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt import DatabaseOptimizer, Workload

pytestmark = pytest.mark.integration


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Any]:
    made = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    yield made
    made.dispose()


@pytest.fixture
def other(postgres_server: Any) -> Iterator[str]:
    with postgres_server.fresh_database() as url:
        yield url


def advised(engine: Any, what_if: str | None, sql: str) -> Any:
    with DatabaseOptimizer(engine, what_if=what_if) as optimizer:
        return optimizer.advise(Workload.from_sql(sql, "postgres"), budget="15s")


def made(engine: Any, *statements: str) -> None:
    with engine.connect().execution_options(no_parameters=True) as db:
        for statement in (*statements, "VACUUM ANALYZE"):
            db.exec_driver_sql(statement)


def test_what_can_be_written_today_can_be_written_afterwards(engine: Any, other: str) -> None:
    made(
        engine,
        "CREATE TABLE settings (id serial PRIMARY KEY, owner int NOT NULL, name varchar(40) NOT NULL, "
        "value text NOT NULL, extra jsonb, raw bytea)",
        "INSERT INTO settings (owner, name, value) SELECT g / 20, 'n' || g % 20, 'v' || g "
        "FROM generate_series(1, 40000) g ORDER BY random()",
    )
    advice = advised(
        engine,
        other,
        "SELECT name, value FROM settings WHERE owner = 77; "
        "SELECT id FROM settings WHERE owner = 77 ORDER BY value; "
        "SELECT owner, min(value) FROM settings WHERE name = 'n7' GROUP BY owner",
    )
    assert advice.indexes
    for index in advice.indexes:
        assert not {"value", "extra", "raw"} & {*index.spec.columns}, index.sql
    warned = advised(engine, other, "SELECT id FROM settings WHERE value = 'v77'")
    assert [i.spec.keys[0].name for i in warned.indexes] == ["value"]
    assert any("value has no length limit" in w for w in warned.warnings)


def test_tables_of_one_name_are_told_apart_in_one_statement(engine: Any, other: str) -> None:
    made(
        engine,
        "CREATE SCHEMA north",
        "CREATE SCHEMA south",
        "CREATE TABLE north.sales (id int PRIMARY KEY, shop int, amount int)",
        "CREATE TABLE south.sales (id int PRIMARY KEY, shop int, code int)",
        "INSERT INTO north.sales SELECT g, g % 3, g FROM generate_series(1, 30000) g",
        "INSERT INTO south.sales SELECT g, g % 3000, g FROM generate_series(1, 30000) g",
    )
    try:
        sql = (
            "SELECT north.sales.amount FROM north.sales JOIN south.sales ON south.sales.id = north.sales.id "
            "WHERE south.sales.shop = 7"
        )
        advice = advised(engine, other, sql)
        assert not advice.unserved, advice.unserved
        assert {(i.spec.table, i.spec.keys[0].name) for i in advice.indexes} == {("south.sales", "shop")}
        assert '"south"."sales"' in advice.indexes[0].sql
    finally:
        made(engine, "DROP SCHEMA north CASCADE", "DROP SCHEMA south CASCADE")


def test_enums_domains_and_views_on_views_are_planned_on_copies(engine: Any, other: str) -> None:
    made(
        engine,
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad')",
        "CREATE DOMAIN short AS varchar(20)",
        "CREATE TABLE guests (id serial PRIMARY KEY, mood mood NOT NULL, nick short, seat int NOT NULL)",
        "INSERT INTO guests (mood, nick, seat) SELECT 'ok', 'n' || g, g % 9000 "
        "FROM generate_series(1, 30000) g",
        "CREATE VIEW seated AS SELECT id, mood, nick, seat FROM guests",
        "CREATE VIEW happy AS SELECT id, seat FROM seated WHERE mood <> 'sad'::mood",
    )
    advice = advised(engine, other, "SELECT id FROM happy WHERE seat = 7")
    assert [i.spec.keys[0].name for i in advice.indexes] == ["seat"], (advice.unserved, advice.warnings)
    assert advice.level == "planned"
    assert any(c.startswith("guests: ") for c in advice.copied)


def test_what_is_advised_without_a_planner_can_be_made(engine: Any) -> None:
    """Types without an order, and expressions whose value hangs on a setting, are refused by CREATE INDEX."""
    made(
        engine,
        "CREATE TABLE odd (id serial PRIMARY KEY, x xid NOT NULL, l line NOT NULL, z timestamptz NOT NULL, "
        "n timestamp NOT NULL, t text NOT NULL)",
        "INSERT INTO odd (x, l, z, n, t) SELECT (g::text)::xid, '{1,2,3}', now() - g * interval '1 min', "
        "now() - g * interval '1 min', 't' || g FROM generate_series(1, 30000) g",
    )
    conditions = [
        "x = '5'::xid",
        "l = '{1,2,4}'",
        "z::date = '2024-01-01'",
        "to_char(n, 'YYYY') = '2024'",
        "concat(t, 'x') = 't5x'",
        "extract(epoch FROM z) = 5",
        "date_trunc('day', n) = '2024-01-01'",
        "lower(t) = 't5'",
    ]
    advice = advised(engine, None, "; ".join(f"SELECT id FROM odd WHERE {c}" for c in conditions))
    assert {"LOWER(t)", "DATE_TRUNC('DAY', n)"} <= {i.spec.keys[0].name for i in advice.indexes}
    made(engine, *(index.sql for index in advice.indexes))


def test_composites_and_domains_of_domains_are_what_they_are_made_of(engine: Any, other: str) -> None:
    made(
        engine,
        "CREATE DOMAIN filled AS text CHECK (value <> '')",
        "CREATE DOMAIN hint AS filled",
        "CREATE TYPE internal_note AS (body text, pages int)",
        "CREATE TABLE told (id serial PRIMARY KEY, owner int NOT NULL, hint hint NOT NULL, "
        "note internal_note NOT NULL)",
        "INSERT INTO told (owner, hint, note) SELECT g / 20, 'h' || g, ROW('n' || g, g)::internal_note "
        "FROM generate_series(1, 40000) g",
    )
    sqls = (
        "SELECT id, hint FROM told WHERE owner = 77 ORDER BY hint",
        "SELECT note FROM told WHERE owner = 78",
        "SELECT id FROM told WHERE owner = 3 AND note = ROW('n5', 5)::internal_note",
    )
    advice = advised(engine, other, ";".join(sqls))
    assert not advice.unserved, advice.unserved
    assert {c for i in advice.indexes for c in i.spec.columns} <= {"owner", "id"}


def test_the_reason_of_a_range_of_endless_texts_is_their_length(engine: Any, other: str) -> None:
    made(
        engine,
        "CREATE TABLE endless (id int PRIMARY KEY, name text)",
        "INSERT INTO endless SELECT g, 'n' || g FROM generate_series(1, 30000) g",
    )
    advice = advised(engine, other, "SELECT id FROM endless WHERE name BETWEEN 'n555' AND 'n556'")
    assert not advice.indexes
    assert "could refuse values" in str(advice.unserved)


def test_changes_of_data_are_planned_on_copies_as_queries_are(engine: Any, other: str) -> None:
    made(
        engine,
        "CREATE TABLE jobs (id int PRIMARY KEY, state int, done int)",
        "CREATE TABLE runs (id int PRIMARY KEY, job_id int, cost int)",
        "INSERT INTO jobs SELECT g, g % 900, g FROM generate_series(1, 30000) g",
        "INSERT INTO runs SELECT g, g, g FROM generate_series(1, 30000) g",
    )
    wanted = {
        "DELETE FROM jobs WHERE state = 5": ("jobs", "state"),
        "UPDATE jobs SET done = 1 WHERE state = 5": ("jobs", "state"),
        "INSERT INTO runs SELECT id, state, done FROM jobs WHERE state = 5": ("jobs", "state"),
        "UPDATE jobs SET done = 1 FROM runs WHERE runs.job_id = jobs.id AND runs.cost = 5": ("runs", "cost"),
        "MERGE INTO jobs USING runs ON jobs.state = runs.job_id AND runs.cost = 5 "
        "WHEN MATCHED THEN UPDATE SET done = runs.cost": ("runs", "cost"),
    }
    for sql, key in wanted.items():
        advice = advised(engine, other, sql)
        assert not advice.unserved, (sql, advice.unserved)
        assert key in {(i.spec.table, i.spec.keys[0].name) for i in advice.indexes}, sql
