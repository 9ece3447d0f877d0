"""Partition advice: proved by plans on a partitioned copy, honest about keys, and its DDL runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from eventperf.dbopt import Advice, DatabaseOptimizer, Limits, PartitionAdvice, Workload

pytestmark = pytest.mark.integration

ROWS = 12_000
LIMITS = Limits(partition_rows=10_000)
BY_MONTH = "SELECT sum(amount) FROM orders WHERE ordered_at >= '2026-03-05' AND ordered_at < '2026-03-20'"
BY_DAY = "SELECT count(*) FROM orders WHERE ordered_at >= '2026-05-01' AND ordered_at < '2026-05-02'"
BY_ID = "SELECT amount FROM orders WHERE id = 77"
WORKLOAD = f"-- calls: 100\n{BY_MONTH};\n-- calls: 50\n{BY_DAY};\n-- calls: 2\n{BY_ID};\n"


def fill(engine: Any) -> None:
    moment = "DATETIME" if engine.dialect.name != "postgresql" else "TIMESTAMP"
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE people (id INT PRIMARY KEY)")
        db.exec_driver_sql("INSERT INTO people VALUES (0), (1), (2)")
        db.exec_driver_sql(
            "CREATE TABLE orders (id INT PRIMARY KEY, person INT NOT NULL, amount INT NOT NULL, "
            f"ordered_at {moment} NOT NULL, FOREIGN KEY (person) REFERENCES people (id))"
        )
        db.exec_driver_sql("CREATE TABLE notes (id INT PRIMARY KEY, order_id INT REFERENCES orders (id))")
        for start in range(0, ROWS, 2000):
            rows = ",".join(
                f"({n}, {n % 3}, {n % 100}, '2026-{n % 12 + 1:02}-{n % 28 + 1:02} 10:00:00')"
                for n in range(start, start + 2000)
            )
            db.exec_driver_sql(f"INSERT INTO orders VALUES {rows}")


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Any]:
    engine = create_engine(postgres_url)
    fill(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text("ANALYZE"))
    yield engine
    engine.dispose()


@pytest.fixture
def mariadb(mariadb_url: str) -> Iterator[Any]:
    engine = create_engine(mariadb_url)
    fill(engine)
    with engine.begin() as db:
        db.exec_driver_sql("ANALYZE TABLE orders")
    yield engine
    engine.dispose()


@pytest.fixture
def other(request: pytest.FixtureRequest, server: str) -> Iterator[str]:
    with request.getfixturevalue(f"{server}_server").fresh_database() as url:
        yield url


def advised(engine: Any, what_if: str | None) -> tuple[Advice, list[PartitionAdvice]]:
    dialect = "postgres" if engine.dialect.name == "postgresql" else "mysql"
    with DatabaseOptimizer(engine, what_if=what_if, limits=LIMITS) as optimizer:
        workload = Workload.from_sql(WORKLOAD, dialect=dialect)
        advice = optimizer.advise(workload)
    return advice, advice.partitions


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_pruning_is_proved_on_an_empty_copy(server: str, other: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(server)
    advice, (found,) = advised(engine, other)
    assert (found.table, found.column, found.is_proven) == ("orders", "ordered_at", True)
    assert found.parts >= 4
    ids = {s.fingerprint.text: s.fingerprint.id for s in advice.workload or ()}
    month = next(i for t, i in ids.items() if "sum" in t)
    by_id = next(i for t, i in ids.items() if "where id" in t)
    shares = dict(found.prunes)
    assert 0 < shares[month] <= 0.2
    assert found.reads_all == (by_id,)
    assert "EXPLAIN on an empty copy" in found.proof
    assert any("primary key (id) must hold ordered_at" in b for b in found.breaks)
    if server == "mariadb":
        assert any("foreign key (person) to people must go" in b for b in found.breaks)
        assert any("foreign key of notes" in b for b in found.breaks)
    assert Advice.from_dict(advice.to_dict()).partitions == advice.partitions
    assert "partitioning orders" in advice.to_sql()


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_the_advised_ddl_runs_and_the_engine_prunes(
    server: str, other: str, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(server)
    _, (found,) = advised(engine, other)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        before = db.execute(text(BY_MONTH)).scalar()
        db.exec_driver_sql("DROP TABLE notes")  # what breaks is for the owner to solve
        if server == "mariadb":
            name = db.execute(
                text(
                    "SELECT constraint_name FROM information_schema.referential_constraints "
                    "WHERE constraint_schema = DATABASE() AND table_name = 'orders'"
                )
            ).scalar()
            db.exec_driver_sql(f"ALTER TABLE orders DROP FOREIGN KEY `{name}`")
        for statement in found.ddl:
            for part in statement.split("; ") if "BEGIN" in statement else [statement]:
                db.exec_driver_sql(part)
        assert db.execute(text(BY_MONTH)).scalar() == before
        assert db.execute(text("SELECT count(*) FROM orders")).scalar() == ROWS
        if server == "postgres":
            plan = "\n".join(row[0] for row in db.execute(text(f"EXPLAIN {BY_MONTH}")))
            assert plan.count("orders_p2026") == 1
        else:
            form = "PARTITIONS" if engine.dialect.is_mariadb else "FORMAT=TRADITIONAL"
            row = db.execute(text(f"EXPLAIN {form} {BY_MONTH}")).mappings().one()
            assert row["partitions"].count(",") == 0


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_seconds_since_1970_are_cut_by_time(server: str, other: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(server)
    start, day = 1_780_000_000, 86_400
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE views (id INT PRIMARY KEY, page INT NOT NULL, seen INT NOT NULL)")
        for first in range(0, ROWS, 2000):
            rows = ",".join(
                f"({n}, {n % 90}, {start + n * 7919 % (200 * day)})" for n in range(first, first + 2000)
            )
            db.exec_driver_sql(f"INSERT INTO views VALUES {rows}")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.exec_driver_sql("ANALYZE TABLE views" if server == "mariadb" else "ANALYZE")
    week = f"SELECT count(*) FROM views WHERE seen >= {start + 9 * day} AND seen < {start + 16 * day}"
    dialect = "postgres" if server == "postgres" else "mysql"
    with DatabaseOptimizer(engine, what_if=other, limits=LIMITS) as optimizer:
        # Whoever pages by the key is served by its index.
        paged = optimizer.advise(Workload.from_sql("SELECT * FROM views WHERE id > 5", dialect=dialect))
        assert not paged.partitions
        (found,) = optimizer.advise(Workload.from_sql(week, dialect=dialect)).partitions
    assert (found.column, found.is_proven) == ("seen", True)
    assert "604,800 values" in found.reason
    assert found.prunes[0][1] <= 2 / (found.parts + 1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        before = db.execute(text(week)).scalar()
        for statement in found.ddl:
            for part in statement.split("; ") if "BEGIN" in statement else [statement]:
                db.exec_driver_sql(part)
        assert db.execute(text(week)).scalar() == before


def test_without_what_if_the_advice_says_that_it_is_not_proved(postgres: Any) -> None:
    _, (found,) = advised(postgres, None)
    assert not found.is_proven
    assert "not proved" in found.proof
    assert found.prunes


def test_a_workload_that_reads_by_key_gets_none_and_the_reason(postgres: Any) -> None:
    with DatabaseOptimizer(postgres, limits=LIMITS) as optimizer:
        advice = optimizer.advise(Workload.from_sql(BY_ID, dialect="postgres"))
    assert advice.partitions == []
    assert any("orders" in w and "not worth partitioning" in w for w in advice.warnings)


def test_optimize_counts_partitioning_suggestions(postgres: Any) -> None:
    source = Workload.from_sql(WORKLOAD, dialect="postgres")
    with DatabaseOptimizer(postgres, source=source, limits=LIMITS) as optimizer:
        result = optimizer.optimize()
    assert result.partitioning_suggestions == len(result.advice.partitions) == 1
    assert result.indexes_suggested == len(result.advice.indexes)
    assert result.rewrites_suggested == len(result.advice.rewrites)
    assert (result.indexes_created, result.queries_optimized) == (0, 0)


def test_sqlite_says_why_not(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/db.sqlite")
    fill(engine)
    with DatabaseOptimizer(engine, limits=LIMITS) as optimizer:
        advice = optimizer.advise(Workload.from_sql(WORKLOAD))
    engine.dispose()
    assert advice.partitions == []
    assert any("SQLite has no partitions" in w for w in advice.warnings)
