"""Measured proof on PostgreSQL: real indexes on the copies in ``what_if``, or on what was restored there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from eventperf.dbopt import Advice, DatabaseOptimizer, Workload
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.backends.mysql import ground as mysql_ground
from eventperf.dbopt.backends.mysql.ground import ShadowsGround
from eventperf.dbopt.backends.postgres import copies
from eventperf.dbopt.backends.postgres.ground import CopiesGround
from eventperf.dbopt.protocols import Measurement, Query
from eventperf.dbopt.statements.workload import Sample

LOAD = "-- calls: 500\nSELECT at FROM visit WHERE page = 7 ORDER BY at"
MADE = (
    "CREATE TABLE visit (id BIGINT PRIMARY KEY, page INT, kind INT, at INT, note TEXT)",
    "INSERT INTO visit SELECT n, n % 300, n % 7, n, repeat('x', 60) FROM generate_series(1, 9000) n",
    "ANALYZE visit",
)


def run(url: str, *statements: str) -> list[Any]:
    engine = create_engine(url)
    try:
        with engine.begin() as db:
            found = [db.execute(text(s)) for s in statements]
            return found[-1].all() if found[-1].returns_rows else []
    finally:
        engine.dispose()


def indexes(url: str) -> list[str]:
    return [r[0] for r in run(url, "SELECT indexname FROM pg_indexes WHERE tablename = 'visit' ORDER BY 1")]


@pytest.fixture
def places(postgres_server: Any) -> Iterator[tuple[str, str]]:
    with postgres_server.fresh_database() as url, postgres_server.fresh_database() as what_if:
        run(url, *MADE)
        yield url, what_if


def advised(url: str, what_if: str) -> Advice:
    with DatabaseOptimizer(url, what_if=what_if) as optimizer:
        return optimizer.advise(Workload.from_sql(LOAD, dialect="postgres"))


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Measurement], float]], None]:
    """Says how long everything takes there, so that no test depends on a machine."""

    def bend(seconds: Callable[[Measurement], float]) -> None:
        real = CopiesGround.measure

        def measure(self: CopiesGround, samples: Sequence[Sample], **kwargs: Any) -> Measurement | None:
            found = real(self, samples, **kwargs)
            assert found is not None
            return replace(found, seconds=seconds(found), spread=0.0)

        monkeypatch.setattr(CopiesGround, "measure", measure)

    return bend


def advised_name(found: Measurement) -> bool:
    return any(name.startswith("ix_ep_") for name in found.indexes)


@pytest.mark.parametrize("is_restored", [False, True], ids=["copied", "restored"])
def test_a_set_is_built_and_measured_in_what_if_and_nothing_of_it_stays(
    places: tuple[str, str], took: Any, is_restored: bool
) -> None:
    url, what_if = places
    if is_restored:
        run(what_if, *MADE)
    before = indexes(url), indexes(what_if)
    took(lambda found: 0.01 if advised_name(found) else 0.1)
    advice = advised(url, what_if)
    (index,) = advice.indexes
    assert (index.level, index.speedup) == ("measured", pytest.approx(10.0))
    assert advice.trial == "Measured on tables in what_if: 1 statement, before and after."
    assert [(s.seconds_before, s.seconds_after) for s in index.serves] == [(0.1, 0.01)]
    assert (indexes(url), indexes(what_if)) == before


def test_what_is_slower_there_is_given_up(places: tuple[str, str], took: Any) -> None:
    took(lambda found: 0.5 if advised_name(found) else 0.1)
    advice = advised(*places)
    assert advice.indexes == []
    assert "Given up there: visit (" in advice.trial
    assert indexes(places[1]) == []


@pytest.mark.parametrize("is_restored", [False, True], ids=["copied", "restored"])
def test_copies_that_are_too_small_to_measure_are_said_to_be(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch, is_restored: bool
) -> None:
    url, what_if = places
    monkeypatch.setattr(copies, "_WHOLE", 2_000)
    monkeypatch.setattr(copies, "_SMALL_ROWS", 2_000)
    monkeypatch.setattr(copies, "_MOST_ROWS", 2_000)
    if is_restored:
        run(what_if, MADE[0], MADE[1].replace("9000", "2000"), MADE[2])
    advice = advised(url, what_if)
    (index,) = advice.indexes
    assert (index.level, index.speedup) == ("planned", None)
    said = " bytes in what_if, and " if is_restored else " of the 9,000 rows of visit: restore it there."
    assert said in advice.trial
    assert advice.trial.startswith("Not measured, 1 of 1 (visit (")


def test_a_sample_is_made_whole_to_be_measured(
    places: tuple[str, str], took: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_WHOLE", 2_000)
    monkeypatch.setattr(copies, "_SMALL_ROWS", 2_000)
    took(lambda found: 0.01 if advised_name(found) else 0.1)
    advice = advised(*places)
    assert [i.level for i in advice.indexes] == ["measured"]
    assert any("9,000 rows" in line for line in advice.copied)


def test_what_was_measured_and_helps_nothing_is_not_advised(places: tuple[str, str], took: Any) -> None:
    took(lambda found: 0.1 if not advised_name(found) else 0.099)
    advice = advised(*places)
    assert advice.indexes == []
    assert "its queries are only 1.01x faster" in advice.trial


def test_nothing_is_built_where_what_if_is_the_database_itself(places: tuple[str, str]) -> None:
    advice = advised(places[0], places[0])
    assert advice.trial == "Not measured on a copy: nothing is built in the application's own database."
    assert {i.level for i in advice.indexes} == {"planned"}


def test_a_server_that_dies_while_it_measures_costs_the_proof_only(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CopiesGround.build

    def dying(self: CopiesGround, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        run(places[1], f"SELECT pg_terminate_backend({self._db.info.backend_pid})")

    monkeypatch.setattr(CopiesGround, "build", dying)
    advice = advised(*places)
    assert [i.level for i in advice.indexes] == ["planned"]
    assert advice.trial.startswith("Not measured on a copy: ")


# --- MariaDB ------------------------------------------------------------------------------------

LOAD_MARIADB = "-- calls: 500\nSELECT at FROM visit WHERE page = 7 ORDER BY at"
MADE_MARIADB = (
    "CREATE TABLE visit (id BIGINT PRIMARY KEY, page INT, kind INT, at INT, note TEXT)",
    "INSERT INTO visit SELECT seq, seq % 300, seq % 7, seq, repeat('x', 60) FROM seq_1_to_9000",
    "ANALYZE TABLE visit",
)


@pytest.fixture
def mariadb_places(mariadb_server: Any) -> Iterator[tuple[str, str]]:
    with mariadb_server.fresh_database() as url, mariadb_server.fresh_database() as what_if:
        run(url, *MADE_MARIADB)
        yield url, what_if


def advised_mariadb(places: tuple[str, str], load: str = LOAD_MARIADB) -> Advice:
    with DatabaseOptimizer(places[0], what_if=places[1]) as optimizer:
        return optimizer.advise(Workload.from_sql(load, dialect="mysql"))


def indexes_mariadb(url: str) -> list[str]:
    asked = "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = DATABASE()"
    return sorted(r[0] for r in run(url, asked))


@pytest.fixture
def took_mariadb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Measurement], float]], None]:
    def bend(seconds: Callable[[Measurement], float]) -> None:
        real = ShadowsGround.measure

        def measure(self: ShadowsGround, samples: Sequence[Sample], **kwargs: Any) -> Measurement | None:
            found = real(self, samples, **kwargs)
            return None if found is None else replace(found, seconds=seconds(found), spread=0.0)

        monkeypatch.setattr(ShadowsGround, "measure", measure)

    return bend


def test_on_mariadb_a_set_is_measured_on_whole_copies_and_nothing_of_it_stays(
    mariadb_places: tuple[str, str], took_mariadb: Any
) -> None:
    took_mariadb(lambda found: 0.01 if advised_name(found) else 0.1)
    advice = advised_mariadb(mariadb_places)
    (index,) = advice.indexes
    assert (index.level, index.speedup) == ("measured", pytest.approx(10.0))
    assert advice.trial == "Measured on copies in what_if: 1 statement, before and after."
    assert any("9,000 rows" in line for line in advice.copied), "a sample alone tells no times"
    assert indexes_mariadb(mariadb_places[0]) == ["PRIMARY"]
    assert indexes_mariadb(mariadb_places[1]) == []


def test_on_mariadb_what_is_slower_there_is_given_up(
    mariadb_places: tuple[str, str], took_mariadb: Any
) -> None:
    took_mariadb(lambda found: 0.5 if advised_name(found) else 0.1)
    advice = advised_mariadb(mariadb_places)
    assert advice.indexes == []
    assert "Given up there: visit (" in advice.trial


def test_on_mariadb_a_copy_that_is_not_whole_is_not_measured(
    mariadb_places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_ground, "_MOST_ROWS", 100)
    advice = advised_mariadb(mariadb_places)
    assert {i.level for i in advice.indexes} == {"planned"}
    assert "more did not fit the time" in advice.trial


@pytest.mark.parametrize("named", [False, True], ids=["bare", "with its database"])
def test_on_mariadb_statements_run_on_the_copies_whatever_they_name(
    mariadb_places: tuple[str, str], named: bool
) -> None:
    database = make_url(mariadb_places[0]).database
    table = f"`{database}`.visit" if named else "visit"
    advice = advised_mariadb(mariadb_places, f"SELECT at FROM {table} WHERE page = 7 ORDER BY at")
    (index,) = advice.indexes
    (served,) = index.serves
    assert served.seconds_before is not None
    assert index.level == "measured" or index.speedup is None


def test_a_statement_that_is_refused_is_said_to_be_and_not_that_time_was_short(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CopiesGround, "measure", lambda self, samples, **kwargs: None)
    advice = advised(*places)
    assert "time was left" not in advice.trial
    assert "its queries could not be run there" in advice.trial


def test_a_plan_tells_what_it_took(places: tuple[str, str]) -> None:
    with DatabaseOptimizer(places[0], what_if=places[1]) as optimizer:
        dialect = optimizer.dialect
        schema = dialect.schema()
        planner = dialect.planner(schema)
        sql = LOAD.partition("\n")[2]
        (statement,) = Workload.from_sql(sql, dialect="postgres")
        query = Query(statement=statement, analysis=analyse(sql, schema), sample=Sample(sql))
        try:
            assert planner.plan(query, ()).planning_s > 0
        finally:
            planner.close()
