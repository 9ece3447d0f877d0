"""Names in a statement, and what SQLite runs of what was recorded."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event

from eventperf.dbopt import DatabaseOptimizer, Sample, StatementRefused
from eventperf.dbopt.statements.calls import calls, one_query


@pytest.mark.parametrize(
    ("sql", "dialect"),
    [
        ("SELECT f (1)", "postgres"),
        ('SELECT x."f"/* */(1)', "postgres"),
        ("SELECT F\n--\n(1)", "postgres"),
        ("SELECT a[1:f(2)]", "postgres"),
        ("SELECT 5 %f(2)", "postgres"),
        ("SELECT `f`(1)", "mysql"),
        ("SELECT 'a\\', f(1) -- '", "mysql"),
        ("SELECT [f](1)", "sqlite"),
    ],
)
def test_a_call_is_found_however_it_is_written(sql: str, dialect: str) -> None:
    assert "f" in calls(sql, dialect).called


@pytest.mark.parametrize(
    ("sql", "dialect"),
    [
        ("SELECT 1 -- x\rAND f(1)", "postgres"),
        ('SELECT U&"f"(1)', "postgres"),
        ("SELECT \u00a0f(1)", "postgres"),
        ("SELECT a\U0001f600(1)", "postgres"),
        ("SELECT 1f(1)", "postgres"),
        ("SELECT 5--f(1)", "mysql"),
        ("SELECT 1 /*!50000 + f(1) */", "mysql"),
    ],
)
def test_what_engines_may_read_otherwise_is_not_read(sql: str, dialect: str) -> None:
    assert calls(sql, dialect).unread is not None


def test_one_statement_that_begins_as_a_query() -> None:
    assert one_query("/* x */ WITH a AS (SELECT ';') SELECT 1 ;", "postgres") is None
    for other in ("SELECT 1; SELECT 2", "DELETE FROM t", "", "SET a = 1"):
        assert one_query(other, "postgres") is not None


def test_sqlite_calls_nothing_that_the_application_has_registered(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'own.db'}")
    called: list[int] = []

    @event.listens_for(engine, "connect")
    def register(db: sqlite3.Connection, _: Any) -> None:
        db.create_function("writefile", 1, called.append)

    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE t (a INT)")
        db.exec_driver_sql("INSERT INTO t VALUES (1)")
        db.exec_driver_sql("CREATE VIEW deep (a) AS SELECT writefile(a) FROM t")
        db.exec_driver_sql("CREATE VIEW fine AS SELECT upper(a) AS a FROM t")
    with DatabaseOptimizer(engine) as optimizer:
        dialect: Any = optimizer.dialect
        for sql in (
            "SELECT writefile(a) FROM t",
            "SELECT * FROM deep",
            "SELECT load_extension('x') FROM t",
            "SELECT * FROM pragma_journal_mode('off')",
        ):
            assert dialect.harm(sql) is not None
            assert dialect.measure([Sample(sql, ())], runs=1, timeout_s=5) is None
            with pytest.raises(StatementRefused, match="not run: "):
                list(dialect.rows(sql, timeout_s=5, limit=1))
        for sql in ("SELECT lower(a) FROM fine WHERE a IN (1) OR a LIKE 'x%'", "SELECT count(*) FROM t"):
            assert dialect.measure([Sample(sql, ())], runs=1, timeout_s=5) is not None
    assert called == []
    engine.dispose()
