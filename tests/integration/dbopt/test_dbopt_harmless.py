"""What somebody recorded is planned and run only where it can do no more than read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from dbopt_plans import index
from eventperf.dbopt import Advice, DatabaseOptimizer, Sample, StatementRefused, Workload
from eventperf.dbopt.schema.model import IndexSpec, Key

pytestmark = pytest.mark.integration
SELECT = "SELECT at FROM v WHERE page = 7 AND {} ORDER BY at"

#: What is no plain reading on PostgreSQL, each by a way of its own.
HARM = {
    "leaves its role": "set_config('role','none',true) IS NOT NULL",
    "runs a text": "query_to_xml('select 1', true, true, '') IS NOT NULL",
    "runs a text, stable": "table_to_xml('v', true, true, '') IS NOT NULL",
    "reads a file": "pg_read_file('PG_VERSION') <> ''",
    "lists files": "EXISTS (SELECT 1 FROM pg_ls_dir('.'))",
    "writes a file": "lo_export(1, '/tmp/x') = 1",
    "takes a lock": "pg_try_advisory_lock(99)",
    "takes a lock, spaced": 'pg_catalog . "pg_try_advisory_lock" /* x */ (99)',
    "takes a lock behind a line end": "true -- x\r AND pg_try_advisory_lock(99)",
    "takes a lock, in escapes": 'U&"pg\\005ftry_advisory_lock"(99)',
    "waits": "pg_sleep(0) IS NOT NULL",
    "counts up": "nextval('sq') > 0",
    "calls its owner's": "evil(1) = 1",
    "calls an overload": "reverse(page) = 1",
    "calls it as a column": "v.column_like IS NOT NULL",
    "casts to a domain": "CAST(1 AS trap) = 1",
    "uses an operator": "page === 7",
    "more than one": "true; SELECT pg_try_advisory_lock(99)",
}
READS = (
    "lower(at::text) <> '' AND now() > '2000-01-01' AND coalesce(page, 1) IN (SELECT 7)",
    "current_setting('role') <> '' AND random() < 2",
    "similarity(at::text, 'x') < 2 AND EXISTS (SELECT 1 FROM harmless_view)",
    "at BETWEEN 1 AND 5 OR CASE WHEN page > 1 THEN true END",
)


@pytest.fixture(scope="module")
def postgres(postgres_server: Any) -> Iterator[Any]:
    with postgres_server.fresh_database() as url:
        made = create_engine(url)
        with made.begin() as db:
            for statement in (
                "CREATE EXTENSION IF NOT EXISTS pg_trgm",
                "CREATE TABLE v (page int, at int)",
                "INSERT INTO v SELECT mod(i, 50), i FROM generate_series(1, 500) i",
                "CREATE SEQUENCE sq",
                "CREATE FUNCTION evil(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN "
                "PERFORM pg_try_advisory_lock(99); RETURN $1; END $$",
                "CREATE FUNCTION reverse(int) RETURNS int LANGUAGE sql AS 'SELECT evil($1)'",
                "CREATE FUNCTION column_like(v) RETURNS int LANGUAGE sql AS 'SELECT evil(1)'",
                "CREATE FUNCTION same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT evil($1) = $2'",
                "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same)",
                "CREATE DOMAIN trap AS int CHECK (evil(VALUE) = 1)",
                "CREATE VIEW harmless_view AS SELECT upper(at::text) AS t FROM v",
                "CREATE VIEW inner_view AS SELECT evil(at) AS t FROM v",
                "CREATE VIEW outer_view AS SELECT t FROM inner_view",
                "CREATE TABLE ruled (a int)",
                "ALTER TABLE ruled ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY p ON ruled USING (evil(a) = 1)",
            ):
                db.exec_driver_sql(statement)
        yield made
        made.dispose()


@pytest.fixture(scope="module")
def mariadb(mariadb_server: Any) -> Iterator[Any]:
    with mariadb_server.fresh_database() as url:
        made = create_engine(url)
        with made.begin() as db:
            for statement in (
                "CREATE TABLE v (page int, at int)",
                "INSERT INTO v VALUES (7, 1), (8, 2)",
                "CREATE FUNCTION total(a int) RETURNS int DETERMINISTIC RETURN get_lock('L99', 0)",
                "CREATE VIEW harmless_view AS SELECT upper(at) AS t FROM v",
                "CREATE VIEW inner_view AS SELECT get_lock('L99', 0) AS t FROM v",
                "CREATE VIEW outer_view AS SELECT t FROM inner_view",
            ):
                db.exec_driver_sql(statement)
        yield made
        made.dispose()


def locks(engine: Any) -> int:
    with engine.connect() as db:
        if engine.dialect.name == "mysql":
            return int(db.scalar(text("SELECT is_used_lock('L99') IS NOT NULL")))
        return int(
            db.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99"))
        )


def refused(dialect: Any, sql: str) -> bool:
    """Tell whether a statement is refused in words, by everything that would plan or run it."""
    with pytest.raises(StatementRefused, match="not run: "):
        list(dialect.rows(sql, timeout_s=5, limit=5))
    ran = dialect.measure([Sample(sql, ())], runs=1, timeout_s=5), dialect.cost(sql, ())
    return ran == (None, None) and dialect.harm(sql) is not None


@pytest.mark.parametrize("way", HARM)
def test_what_is_no_plain_reading_is_neither_planned_nor_run(postgres: Any, way: str) -> None:
    with DatabaseOptimizer(postgres) as optimizer:
        assert refused(optimizer.dialect, SELECT.format(HARM[way]))
    assert not locks(postgres)


@pytest.mark.parametrize("table", ["inner_view", "outer_view", "ruled", "pg_locks"])
def test_views_and_row_rules_are_looked_into(postgres: Any, table: str) -> None:
    with DatabaseOptimizer(postgres) as optimizer:
        assert refused(optimizer.dialect, f"SELECT * FROM {table}")
    assert not locks(postgres)


@pytest.mark.parametrize("condition", READS)
def test_plain_reading_is_measured(postgres: Any, condition: str) -> None:
    sql = SELECT.format(condition)
    with DatabaseOptimizer(postgres) as optimizer:
        dialect: Any = optimizer.dialect
        assert dialect.harm(sql) is None
        assert dialect.measure([Sample(sql, ())], runs=1, timeout_s=5) is not None
        assert dialect.cost(sql, ()) is not None


def test_a_planner_in_the_applications_own_database_folds_nobodys_function(postgres: Any) -> None:
    work = Workload.from_sql("SELECT at FROM v WHERE page = evil(7) ORDER BY at", dialect="postgres")
    with DatabaseOptimizer(postgres, what_if=postgres) as optimizer:
        told = str(optimizer.advise(work))
        assert not locks(postgres)
    assert "it calls evil" in told, told


def test_a_session_that_ran_recorded_statements_is_not_used_again(postgres: Any, mariadb: Any) -> None:
    for engine, name in ((postgres, "pg_backend_pid()"), (mariadb, "connection_id()")):
        engine.dispose()  # the pool may hold several of the tests before
        with engine.connect() as db:
            before = db.scalar(text(f"SELECT {name}"))
        with DatabaseOptimizer(engine) as optimizer:
            dialect: Any = optimizer.dialect
            assert dialect.measure([Sample("SELECT at FROM v", ())], runs=1, timeout_s=5) is not None
        with engine.connect() as db:
            assert db.scalar(text(f"SELECT {name}")) != before


@pytest.mark.parametrize(
    "condition",
    [
        "get_lock('L99', 0)",
        "/*! get_lock('L99', 0) */ = 1",
        "`get_lock` ('L99', 0)",
        "load_file('/etc/passwd') IS NULL",
        "sleep(0) = 0",
        "benchmark(1, 1) = 0",
        "sys_exec('true') = 0",
        "total(1) = 1",
        "(@a := 1) = 1",
        "1 = 1 INTO OUTFILE '/tmp/x' --",
        "EXISTS (SELECT 1 FROM outer_view)",
        "\"get_lock\"('L99', 0)",
    ],
)
def test_mariadb_runs_what_is_listed_only(mariadb: Any, condition: str) -> None:
    with DatabaseOptimizer(mariadb) as optimizer:
        assert refused(optimizer.dialect, SELECT.format(condition))
    assert not locks(mariadb)


def test_mariadb_measures_plain_reading(mariadb: Any) -> None:
    sql = "SELECT count(*), upper(at) FROM v WHERE page IN (7) AND at < year(now()) AND EXISTS "
    with DatabaseOptimizer(mariadb) as optimizer:
        dialect: Any = optimizer.dialect
        for statement in (f"{sql} (SELECT t FROM harmless_view) GROUP BY at", "SELECT v.at FROM v"):
            assert dialect.harm(statement) is None
            assert dialect.measure([Sample(statement, ())], runs=1, timeout_s=5) is not None


def test_apply_says_what_it_does_not_measure(postgres: Any) -> None:
    sql = SELECT.format("pg_try_advisory_lock(99)")
    work = Workload.from_sql(sql, dialect="postgres")
    with DatabaseOptimizer(postgres) as optimizer:
        dialect: Any = optimizer.dialect
        advice = Advice(dialect=dialect.name)
        advice.indexes = [index(dialect, IndexSpec("v", (Key("page"),)), next(iter(work)))]
        report = optimizer.apply(advice, dry_run=False, workload=work)
        optimizer.revert(report, dry_run=False)
        assert not locks(postgres)
    told = [w for w in report.warnings if "is not measured: it calls pg_try_advisory_lock" in w]
    assert len(told) == 1, report.warnings
