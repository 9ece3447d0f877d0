"""pg_stat_statements wherever it is and whatever its version; costs of expressions."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt import DatabaseOptimizer, Workload

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("how", ["VERSION '1.7'", "SCHEMA statistics", "SCHEMA statistics VERSION '1.4'"])
def test_statements_are_read_from_any_version_in_any_schema(how: str, postgres_server: Any) -> None:
    with postgres_server.fresh_database() as url:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as db:
            for sql in (
                "DROP EXTENSION pg_stat_statements",
                "CREATE SCHEMA statistics",
                f"CREATE EXTENSION pg_stat_statements {how}",
                "CREATE TABLE asked (id int PRIMARY KEY, a int)",
                "SELECT id FROM asked WHERE a = 5",
            ):
                db.exec_driver_sql(sql)
        work = Workload.from_pg_stat_statements(engine)
        engine.dispose()
    assert [s.calls for s in work if s.fingerprint.text == "select id from asked where a = ?"] == [1]


def test_a_range_of_an_expression_gets_its_index(postgres_server: Any) -> None:
    """Without statistics a planner takes a third of the rows for the answer."""
    with postgres_server.fresh_database() as url, postgres_server.fresh_database() as other:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as db:
            for sql in (
                "CREATE TABLE told (id int PRIMARY KEY, data jsonb NOT NULL)",
                "INSERT INTO told SELECT g, jsonb_build_object('n', g) FROM generate_series(1, 30000) g",
                "VACUUM ANALYZE told",
            ):
                db.exec_driver_sql(sql)
            sql = "SELECT id FROM told WHERE (data ->> 'n')::int > 29990"
            with DatabaseOptimizer(engine, what_if=other) as optimizer:
                advice = optimizer.advise(Workload.from_sql(sql, "postgres"), budget="60s")
            assert [i.spec.keys[0].name for i in advice.indexes] == ["CAST((data ->> 'n') AS INT)"]
            db.exec_driver_sql(advice.indexes[0].sql)
            db.exec_driver_sql("VACUUM ANALYZE told")
            assert "Index" in str(db.exec_driver_sql(f"EXPLAIN {sql}").all())
        engine.dispose()
