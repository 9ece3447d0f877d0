"""The whole path on PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from eventperf.dbopt import DatabaseOptimizer, DatabaseUnavailable, Limits, QueryRecorder, Workload

pytestmark = pytest.mark.integration

ROWS = 20_000


def fill(engine: Any) -> None:
    with engine.begin() as db:
        db.execute(
            text("CREATE TABLE events (id INT PRIMARY KEY, name VARCHAR(60) NOT NULL, status VARCHAR(10))")
        )
        db.execute(
            text(
                "CREATE TABLE registrations (id INT PRIMARY KEY, event_id INT NOT NULL, "
                "participant_id INT NOT NULL, status VARCHAR(10) NOT NULL, registered_at INT NOT NULL)"
            )
        )
        rows = ",".join(f"({n}, 'Event {n}', 'open')" for n in range(300))
        db.execute(text(f"INSERT INTO events VALUES {rows}"))
        for start in range(0, ROWS, 2000):
            rows = ",".join(
                f"({n}, {n * 7919 % 300}, {n % 5000}, 'ok', {n * 31 % ROWS})"
                for n in range(start, start + 2000)
            )
            db.execute(text(f"INSERT INTO registrations VALUES {rows}"))


BY_EVENT = "SELECT id, participant_id FROM registrations WHERE event_id = :n ORDER BY registered_at LIMIT 10"
BY_PERSON = "SELECT count(*) FROM registrations WHERE participant_id = :n"


def drive(engine: Any) -> Workload:
    with QueryRecorder(engine) as recorder, engine.connect() as db:
        for n in range(5):
            db.execute(text(BY_EVENT), {"n": n}).all()
            db.execute(text(BY_PERSON), {"n": n}).all()
        return recorder.workload()


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
    yield engine
    engine.dispose()


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_advise_apply_measure(server: str, request: pytest.FixtureRequest) -> None:
    engine = request.getfixturevalue(server)
    workload = drive(engine)
    what_if = engine if server == "postgres" else None
    optimizer = DatabaseOptimizer(engine, what_if=what_if, source=workload)
    advice = optimizer.advise()
    assert {i.spec.columns[0] for i in advice.indexes} == {"event_id", "participant_id"}
    report = optimizer.apply(advice, dry_run=False)
    assert not report.failed, str(report)
    assert {a.index.split("(")[1].split(",")[0].rstrip(")") for a in report.created} == {
        "event_id",
        "participant_id",
    }
    assert all(c.plan_changed for c in report.measured.values())
    again = optimizer.apply(advice, dry_run=False)
    assert len(again.skipped) == len(report.created)
    assert not again.created


def test_without_what_if_the_advice_says_so(postgres: Any) -> None:
    advice = DatabaseOptimizer(postgres).advise(drive(postgres))
    assert "statistics" in advice.proof
    assert advice.indexes


def test_a_reader_with_select_only_is_advised(postgres: Any, postgres_url: str) -> None:
    workload = drive(postgres)
    with postgres.begin() as db:
        db.execute(text("DROP ROLE IF EXISTS reader"))
        db.execute(text("CREATE ROLE reader LOGIN"))
        db.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    with DatabaseOptimizer(postgres_url.replace("eventperf@", "reader@")) as optimizer:
        advice = optimizer.advise(workload)
        report = optimizer.apply(advice, dry_run=False)
    assert advice.indexes
    assert len(report.failed) == len(advice.indexes)
    with postgres.begin() as db:
        db.execute(text("DROP OWNED BY reader"))
        db.execute(text("DROP ROLE reader"))


def test_pg_stat_statements_feeds_advice(postgres: Any) -> None:
    with postgres.begin() as db:
        db.execute(text("SELECT pg_stat_statements_reset()"))
    drive(postgres)
    optimizer = DatabaseOptimizer(postgres, what_if=postgres)
    workload = optimizer.workload()
    texts = [s.fingerprint.text for s in workload]
    assert any("from registrations where event_id" in t for t in texts)
    assert all(s.error is None for s in workload if "registrations" in s.fingerprint.text)
    advice = optimizer.advise(workload)
    assert {"event_id", "participant_id"} <= {i.spec.columns[0] for i in advice.indexes}


def test_slow_log_table_and_digests_are_read(mariadb: Any) -> None:
    with mariadb.connect() as db:
        db.execute(text("SET SESSION long_query_time = 0"))
        for n in range(3):
            db.execute(text(BY_PERSON), {"n": n}).all()
        db.execute(text("SET SESSION long_query_time = 10"))
    (slow,) = [s for s in Workload.from_slow_log(mariadb) if "participant_id = ?" in s.fingerprint.text]
    assert slow.calls == 3
    assert slow.rows_examined is not None
    assert slow.rows_examined >= ROWS
    assert len(slow.measurable) == 3
    digests = Workload.from_performance_schema(mariadb)
    errors = {s.fingerprint.text: s.error for s in digests if "from registrations" in s.fingerprint.text}
    assert errors
    assert set(errors.values()) == {None}


def test_an_invalid_index_of_a_killed_run_is_replaced(postgres: Any) -> None:
    workload = drive(postgres)
    optimizer = DatabaseOptimizer(postgres, what_if=postgres, source=workload)
    advice = optimizer.advise()
    name = advice.indexes[0].name
    with postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text(advice.indexes[0].sql))
        db.execute(
            text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = CAST(:n AS regclass)"),
            {"n": name},
        )
    report = optimizer.apply(advice, dry_run=False)
    assert report.cleaned == [name]
    assert name in [a.name for a in report.created]
    assert all(i.valid for i in optimizer.dialect.indexes("registrations"))


def test_a_blocked_build_gives_way_and_the_next_run_finishes(postgres: Any) -> None:
    limits = Limits(lock_timeout=0.2, lock_attempts=2)
    optimizer = DatabaseOptimizer(postgres, what_if=postgres, source=drive(postgres), limits=limits)
    advice = optimizer.advise()
    with postgres.connect() as blocker:
        blocker.execute(text("LOCK TABLE registrations IN ROW EXCLUSIVE MODE"))
        report = optimizer.apply(advice, dry_run=False)
        assert not report.created
        assert report.failed
        # A lock that stops CREATE INDEX stops DROP INDEX as well: at most one half-made index stays.
        assert sum(not i.valid for i in optimizer.dialect.indexes("registrations")) <= 1
    again = optimizer.apply(advice, dry_run=False)
    assert len(again.created) == len(advice.indexes)
    assert all(i.valid for i in optimizer.dialect.indexes("registrations"))


def test_an_unreachable_server_is_one_sentence_without_the_password() -> None:
    with pytest.raises(DatabaseUnavailable) as error:
        DatabaseOptimizer("postgresql://app:s3cret@127.0.0.1:1/app").slow_queries()
    assert "s3cret" not in str(error.value)
    assert "127.0.0.1" in str(error.value)
