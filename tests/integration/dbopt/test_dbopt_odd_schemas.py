"""Names, types and indexes that ended the run of other advisers, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from eventperf.dbopt import DatabaseOptimizer, Workload

pytestmark = pytest.mark.integration

ROWS = 20_000


@pytest.fixture
def engine(server: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    made = create_engine(request.getfixturevalue(f"{server}_url"))
    yield made
    made.dispose()


@pytest.fixture
def other(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with request.getfixturevalue(f"{server}_server").fresh_database() as url:
        yield url


def analysed(engine: Any, *tables: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        if engine.dialect.name == "postgresql":
            db.execute(text("VACUUM ANALYZE"))
        for table in tables if engine.dialect.name != "postgresql" else ():
            db.exec_driver_sql(f"ANALYZE TABLE {table}")


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_odd_names_reserved_words_and_long_texts(server: str, engine: Any, other: str) -> None:
    q = '"' if server == "postgres" else "`"
    table = f"{q}Order items{q}"
    if server == "postgres":
        table = f'"Sales dept".{table}'
    long = "a" * 60
    with engine.begin() as db:
        if server == "postgres":
            db.exec_driver_sql('CREATE SCHEMA "Sales dept"')
        db.exec_driver_sql(
            f"CREATE TABLE {table} (id INT PRIMARY KEY, {q}Group{q} INT NOT NULL, {q}a b{q} INT NOT NULL, "
            f"{q}select{q} TEXT NOT NULL, {q}{long}1{q} INT NOT NULL, {q}{long}2{q} INT NOT NULL)"
        )
        for start in range(0, ROWS, 2000):
            rows = ",".join(
                f"({n}, {n % 997}, {n * 7 % 5000}, 'Text {n * 31 % ROWS} {'x' * 40}', {n % 1999}, {n % 1789})"
                for n in range(start, start + 2000)
            )
            db.exec_driver_sql(f"INSERT INTO {table} VALUES {rows}")
    analysed(engine, table)
    queries = [
        f"SELECT id FROM {table} WHERE {q}Group{q} = 7 ORDER BY {q}a b{q}",
        f"SELECT {q}a b{q} FROM {table} WHERE {q}select{q} = 'Text 77 {'x' * 40}'",
        f"SELECT id FROM {table} WHERE {q}{long}1{q} = 5",
        f"SELECT id FROM {table} WHERE {q}{long}2{q} = 5",
    ]
    workload = Workload.from_sql(";\n".join(queries), dialect="postgres" if server == "postgres" else "mysql")
    with DatabaseOptimizer(engine, what_if=other) as optimizer:
        advice = optimizer.advise(workload)
        assert not advice.unserved, advice.warnings
        report = optimizer.apply(advice, dry_run=False, verify=False)
    assert not report.failed, [a.reason for a in report.failed]
    assert not report.skipped, [a.reason for a in report.skipped]
    assert len({a.name for a in report.created}) == len(advice.indexes) >= 4
    if server == "mariadb":  # a TEXT is indexed by its first characters
        assert any("`select`(" in i.sql for i in advice.indexes)
    with engine.connect() as db:
        for query in queries:
            plan = str(db.exec_driver_sql(f"EXPLAIN {query}").all())
            assert "ix_ep_" in plan, plan


@pytest.mark.parametrize("server", ["postgres"])
def test_types_and_indexes_of_other_kinds_stop_nothing(server: str, engine: Any, other: str) -> None:
    with engine.begin() as db:
        db.exec_driver_sql(
            "CREATE TABLE places (id INT PRIMARY KEY, at POINT NOT NULL, tags JSONB NOT NULL, "
            "words TSVECTOR NOT NULL, parts INT[] NOT NULL, owner INT NOT NULL, state TEXT NOT NULL, "
            "changed INT NOT NULL, code TEXT NOT NULL)"
        )
        db.exec_driver_sql(
            "INSERT INTO places SELECT n, point(n, n), jsonb_build_object('k', mod(n, 50)), "
            "to_tsvector('simple', 'w' || mod(n, 300)), ARRAY[mod(n, 70)], mod(n * 7919, 3000), "
            "CASE WHEN mod(n, 40) = 0 THEN 'PENDING' ELSE 'Done' END, mod(n * 31, 20000), 'c' || n "
            f"FROM generate_series(1, {ROWS}) n"
        )
        for definition in ("gin (tags)", "gist (at)", "gin (words)", "brin (changed)", "hash (code)"):
            db.exec_driver_sql(f"CREATE INDEX ON places USING {definition}")
    analysed(engine)
    queries = [
        "SELECT id FROM places WHERE tags @> '{\"k\": 7}'",
        "SELECT id FROM places WHERE words @@ to_tsquery('simple', 'w7')",
        "SELECT id FROM places WHERE at <@ box '((1,1),(5,5))'",
        "SELECT id FROM places WHERE parts @> ARRAY[7]",
        "SELECT id FROM places WHERE code = 'c77'",
        "SELECT count(*) FROM places WHERE owner = 77",
        "SELECT * FROM places WHERE state = 'PENDING' ORDER BY changed LIMIT 10",
    ]
    with DatabaseOptimizer(engine, what_if=other) as optimizer:
        advice = optimizer.advise(Workload.from_sql(";\n".join(queries), dialect="postgres"))
        report = optimizer.apply(advice, dry_run=False, verify=False)
    assert not report.failed, [a.reason for a in report.failed]
    specs = [i.spec for i in advice.indexes]
    assert any(s.keys[0].name == "owner" for s in specs), (specs, advice.warnings)
    # A literal keeps its case.
    assert any(s.where == "state = 'PENDING'" for s in specs), specs
    assert not any(s.keys[0].name in ("at", "tags", "words", "code") for s in specs), specs
    assert all(s.method == "gin" for s in specs if s.keys[0].name == "parts"), specs
    assert not any("changed" in d.name or "code" in d.name for d in advice.drops if d.kind == "prefix")


@pytest.mark.parametrize("server", ["mariadb"])
def test_a_primary_key_is_never_the_end_of_an_index(server: str, engine: Any, other: str) -> None:
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE visits (id INT PRIMARY KEY, page INT NOT NULL, at INT NOT NULL)")
        for start in range(0, ROWS, 2000):
            rows = ",".join(f"({n}, {n % 500}, {n * 31 % ROWS})" for n in range(start, start + 2000))
            db.exec_driver_sql(f"INSERT INTO visits VALUES {rows}")
    analysed(engine, "visits")
    workload = Workload.from_sql(
        "SELECT id FROM visits WHERE page = 7 ORDER BY id LIMIT 5;"
        "SELECT id, at FROM visits WHERE page = 7 AND id > 9",
        dialect="mysql",
    )
    with DatabaseOptimizer(engine, what_if=other) as optimizer:
        specs = [i.spec for i in optimizer.advise(workload).indexes]
    assert specs
    assert all(s.keys[0].name == "page" and s.keys[-1].name != "id" for s in specs), specs
