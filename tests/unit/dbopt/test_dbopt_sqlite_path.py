"""The whole path on SQLite: record, advise, apply, measure, revert."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine

from eventperf.dbopt import (
    Advice,
    AdviceMismatch,
    DatabaseError,
    DatabaseOptimizer,
    DatabaseUnavailable,
    IndexAdvice,
    IndexSpec,
    Key,
    Limits,
    OptimizerBusy,
    QueryRecorder,
    SourceUnavailable,
    Workload,
)
from eventperf.errors import ConfigurationError, UnknownScheme


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "events.db"
    db = sqlite3.connect(file)
    draw = random.Random(3)
    db.executescript(
        """
        CREATE TABLE events (id INTEGER PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL);
        CREATE TABLE registrations (id INTEGER PRIMARY KEY, event_id INT NOT NULL REFERENCES events (id),
            participant_id INT NOT NULL, status TEXT NOT NULL, registered_at TEXT NOT NULL);
        CREATE TABLE "odd ""table" (id INTEGER PRIMARY KEY, "order" INT, "a b" TEXT);
        """
    )
    db.executemany("INSERT INTO events VALUES (?, ?, ?)", [(i, f"Event {i}", "open") for i in range(100)])
    rows = [(i, draw.randrange(100), draw.randrange(5000), "ok", f"2026-{i % 12:02}") for i in range(80_000)]
    db.executemany("INSERT INTO registrations VALUES (?, ?, ?, ?, ?)", rows)
    db.executemany('INSERT INTO "odd ""table" VALUES (?, ?, ?)', [(i, i % 500, "x") for i in range(40_000)])
    db.commit()
    db.close()
    return file


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{path}")
    yield made
    made.dispose()


BY_EVENT = "SELECT id, participant_id FROM registrations WHERE event_id = :e ORDER BY registered_at"
ODD = 'SELECT "a b" FROM "odd ""table" WHERE "order" = :o'


def drive(engine: Engine, *statements: str, times: int = 10) -> Workload:
    recorder = QueryRecorder(engine)
    with engine.connect() as db:
        for number in range(times):
            for statement in statements:
                db.execute(text(statement), {"e": number, "o": number}).all()
    recorder.close()
    return recorder.workload()


def test_one_composite_index_serves_filter_and_order(engine: Engine) -> None:
    workload = drive(engine, BY_EVENT)
    advice = DatabaseOptimizer(engine).advise(workload)
    assert [i.spec.columns[:2] for i in advice.indexes] == [("event_id", "registered_at")]
    served = advice.indexes[0].serves[0]
    assert "SCAN registrations" in served.plan_before
    assert "SEARCH registrations" in served.plan_after
    assert "TEMP B-TREE" not in served.plan_after
    assert served.callers[0].startswith(__file__)


def test_advising_and_dry_run_leave_the_file_as_it_was(engine: Engine, path: Path) -> None:
    workload = drive(engine, BY_EVENT, ODD)
    before = path.read_bytes()
    optimizer = DatabaseOptimizer(engine, source=workload)
    advice = optimizer.advise()
    report = optimizer.apply(advice)
    assert report.dry_run
    assert len(report.planned) == len(advice.indexes) == 2
    assert path.read_bytes() == before


def test_apply_measures_and_a_second_run_finds_all_done(engine: Engine, path: Path) -> None:
    workload = drive(engine, BY_EVENT, ODD)
    optimizer = DatabaseOptimizer(engine, source=workload)
    advice = optimizer.advise()
    report = optimizer.apply(advice, dry_run=False)
    assert len(report.created) == 2, str(report)
    assert all(c.plan_changed for c in report.measured.values())
    db = sqlite3.connect(path)
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert names == {a.name for a in report.created}
    assert db.execute("SELECT count(*) FROM sqlite_stat1").fetchone()[0] >= 2
    db.close()
    again = optimizer.apply(advice, dry_run=False)
    assert not again.created
    assert len(again.skipped) == 2
    assert not optimizer.advise().indexes


def test_an_index_that_no_plan_uses_is_reverted(engine: Engine, path: Path) -> None:
    workload = drive(engine, BY_EVENT)
    optimizer = DatabaseOptimizer(engine, source=workload)
    advice = optimizer.advise()
    useless = IndexSpec("registrations", (Key("status"),))
    serves = advice.indexes[0].serves
    advice.indexes.append(
        IndexAdvice(
            name="ix_ep_useless",
            spec=useless,
            sql="",
            reason="",
            gain=0.1,
            size_bytes=1,
            write_cost=0.0,
            proof="",
            serves=serves,
        )
    )
    report = optimizer.apply(advice, dry_run=False)
    assert [a.name for a in report.reverted] == ["ix_ep_useless"]
    with sqlite3.connect(path) as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'ix_ep_useless'").fetchall()
    db.close()


def test_optimize_counts_what_happened(engine: Engine) -> None:
    optimizer = DatabaseOptimizer(engine, source=drive(engine, BY_EVENT, ODD))
    dry = optimizer.optimize()
    assert (dry.indexes_suggested, dry.indexes_created, dry.queries_optimized) == (2, 0, 0)
    real = optimizer.optimize(dry_run=False)
    assert (real.slow_queries_found, real.indexes_created, real.queries_optimized) == (2, 2, 2)


def test_a_broken_statement_never_ends_the_run(engine: Engine) -> None:
    workload = Workload.from_sql(
        "SELECT broken FROM WHERE; SELECT x FROM nowhere; WITH r AS (SELECT event_id FROM registrations "
        "WHERE participant_id = 7) SELECT * FROM events e WHERE EXISTS "
        "(SELECT 1 FROM r WHERE r.event_id = e.id);"
        "-- calls: 50\n" + BY_EVENT
    )
    advice = DatabaseOptimizer(engine).advise(workload)
    assert {i.spec.columns[0] for i in advice.indexes} == {"event_id", "participant_id"}
    assert any("nowhere" in w for w in advice.warnings)


def test_a_prefix_is_never_advised_next_to_its_extension(engine: Engine) -> None:
    workload = Workload.from_sql(
        "SELECT id FROM registrations WHERE event_id = 5; "
        "SELECT id FROM registrations WHERE event_id = 5 AND participant_id = 9;" + BY_EVENT
    )
    specs = [i.spec for i in DatabaseOptimizer(engine).advise(workload).indexes]
    assert specs
    assert not any(a.is_prefix_of(b) for a in specs for b in specs if a != b)


@pytest.mark.parametrize("column", ["status <> 'ok'", "status != 'ok'"])
def test_inequality_columns_stay_out_of_composites(engine: Engine, column: str) -> None:
    workload = Workload.from_sql(f"SELECT id FROM registrations WHERE event_id = 5 AND {column}")
    for index in DatabaseOptimizer(engine).advise(workload).indexes:
        assert index.spec.keys[0].name == "event_id"


def test_an_index_under_a_quoted_name_is_seen(engine: Engine, path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute('CREATE INDEX "my ""index" ON registrations ("event_id", "registered_at", participant_id)')
    db.close()
    assert not DatabaseOptimizer(engine).advise(drive(engine, BY_EVENT)).indexes


def test_plan_files_survive_the_disk_and_run_from_it(engine: Engine, tmp_path: Path) -> None:
    workload = drive(engine, BY_EVENT)
    optimizer = DatabaseOptimizer(engine)
    advice = optimizer.advise(workload)
    advice.save(tmp_path / "plan.json")
    loaded = Advice.load(tmp_path / "plan.json")
    assert loaded.to_dict() == advice.to_dict()
    loaded.indexes = [replace(i, sql="DROP TABLE events") for i in loaded.indexes]
    report = optimizer.apply(loaded, dry_run=False, workload=workload)
    assert len(report.created) == 1  # what runs is built from the definition, not from text in a file
    (tmp_path / "other.json").write_text('{"format": "something"}')
    with pytest.raises(AdviceMismatch):
        Advice.load(tmp_path / "other.json")


def test_max_applied_bounds_what_is_created(engine: Engine) -> None:
    optimizer = DatabaseOptimizer(engine, source=drive(engine, BY_EVENT, ODD), limits=Limits(max_applied=1))
    report = optimizer.apply(optimizer.advise(), dry_run=False)
    assert len(report.created) == 1
    assert "max_applied" in report.skipped[0].reason


def test_two_optimizers_do_not_apply_at_once(engine: Engine, path: Path) -> None:
    optimizer = DatabaseOptimizer(engine, source=drive(engine, BY_EVENT))
    advice = optimizer.advise()
    other = DatabaseOptimizer(f"sqlite:///{path}")
    with other.dialect.exclusive(), pytest.raises(OptimizerBusy):
        optimizer.apply(advice, dry_run=False)
    assert optimizer.apply(advice, dry_run=False).created
    other.close()


def test_a_table_dropped_meanwhile_is_skipped(engine: Engine, path: Path) -> None:
    optimizer = DatabaseOptimizer(engine, source=drive(engine, BY_EVENT))
    advice = optimizer.advise()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE registrations")
    db.close()
    report = optimizer.apply(advice, dry_run=False)
    assert [a.reason for a in report.skipped] == ["its table is gone"]


def test_a_locked_database_fails_the_index_and_not_the_run(engine: Engine, path: Path) -> None:
    limits = Limits(lock_timeout=0.05, lock_attempts=2)
    optimizer = DatabaseOptimizer(engine, source=drive(engine, BY_EVENT), limits=limits)
    advice = optimizer.advise()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    report = optimizer.apply(advice, dry_run=False)
    blocker.execute("ROLLBACK")
    blocker.close()
    assert [a.name for a in report.failed] == [advice.indexes[0].name]


def test_duplicate_and_prefix_indexes_are_advised_for_dropping(engine: Engine, path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE INDEX a ON registrations (event_id)")
        db.execute("CREATE INDEX b ON registrations (event_id)")
        db.execute("CREATE INDEX c ON registrations (participant_id)")
        db.execute("CREATE INDEX d ON registrations (participant_id, status)")
        db.execute("CREATE UNIQUE INDEX e ON events (name)")
    db.close()
    advice = DatabaseOptimizer(engine).advise(Workload())
    kinds = {d.name: d.kind for d in advice.drops}
    assert kinds["c"] == "prefix"
    assert sorted(kinds) in (["a", "c"], ["b", "c"])


def test_async_engines_are_recorded_and_advised(path: Path) -> None:
    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        recorder = QueryRecorder(engine)
        async with engine.connect() as db:
            for number in range(6):
                await db.execute(text(BY_EVENT), {"e": number})
        optimizer = DatabaseOptimizer(engine, source=recorder)
        advice = await optimizer.aadvise()
        assert len(advice.indexes) == 1
        assert next(iter(recorder.workload())).callers.keys() == {
            recorder.n_plus_one()[0].caller.partition(" < ")[0]
        }
        assert recorder.n_plus_one()[0].caller.startswith(__file__)
        optimizer.close()
        await engine.dispose()

    asyncio.run(main())


def test_a_task_finds_advises_applies_and_optimizes_while_its_loop_goes_on(
    engine: Engine, path: Path
) -> None:
    workload = drive(engine, BY_EVENT, ODD)
    optimizer = DatabaseOptimizer(engine, source=workload)

    def indexes() -> int:
        with sqlite3.connect(path) as db:
            return int(db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'index'").fetchone()[0])

    async def main() -> None:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        pulse = asyncio.create_task(beat())
        found = await optimizer.aslow_queries(limit=1)
        assert [q.fingerprint for q in found] == [q.fingerprint for q in optimizer.slow_queries(limit=1)]
        advice = await optimizer.aadvise()
        planned = await optimizer.aapply(advice)
        assert (planned.dry_run, len(planned.planned), indexes()) == (True, 2, 0)
        tried = await optimizer.aoptimize()
        assert (tried.report.dry_run, tried.indexes_created, indexes()) == (True, 0, 0)
        before = beats
        done = await optimizer.aapply(advice, dry_run=False, verify=False)
        assert beats > before, "the loop was free meanwhile"
        assert (done.dry_run, len(done.created), done.measured, indexes()) == (False, 2, {}, 2)
        real = await optimizer.aoptimize(dry_run=False)
        assert (real.report.dry_run, real.indexes_created, indexes()) == (False, 0, 2), "all is done"
        pulse.cancel()

    asyncio.run(main())
    optimizer.close()


def test_sqlite_has_no_record_of_its_own(engine: Engine) -> None:
    with pytest.raises(SourceUnavailable, match="QueryRecorder"):
        DatabaseOptimizer(engine).slow_queries()


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownScheme, match="oracle"):
        DatabaseOptimizer("oracle://scott:tiger@host/db")
    with pytest.raises(ConfigurationError, match="engine_or_url"):
        DatabaseOptimizer(42)
    with pytest.raises(ConfigurationError) as error:
        DatabaseOptimizer("sqlite://", what_if="postgresql://u:s3cret@h/db")
    assert "s3cret" not in str(error.value)
    with pytest.raises(ConfigurationError, match="max_applied"):
        Limits(max_applied=0)
    with pytest.raises(DatabaseUnavailable, match="unable to open"):
        DatabaseOptimizer(f"sqlite:///{tmp_path}/no/such.db").advise(Workload())


def test_advice_for_another_engine_is_refused(engine: Engine) -> None:
    with pytest.raises(DatabaseError, match="postgres"):
        DatabaseOptimizer(engine).apply(Advice(dialect="postgres"))
