"""The same path on every driver that an application may use, through its own engine."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from eventperf.dbopt import (
    Advised,
    ApplyReport,
    DatabaseOptimizer,
    IndexChanged,
    Limits,
    QueryRecorder,
    Sample,
    Workload,
)

pytestmark = pytest.mark.integration
HOSTILE = "a\tb\nc\\d \"q\" 's' {x}"


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Any]:
    pytest.importorskip(request.param)
    made = create_engine(
        postgres_url.replace("+psycopg:", f"+{request.param}:"), json_deserializer=lambda t: t
    )
    with made.begin() as db:
        db.execute(
            text(
                "CREATE TYPE mood AS ENUM ('good', 'bad');"
                "CREATE TABLE visits (id UUID PRIMARY KEY, page INT NOT NULL, at TIMESTAMPTZ NOT NULL, "
                "day DATE, tags TEXT[], moods mood[], data JSONB, plain JSON, raw BYTEA, took INTERVAL, "
                "span INT4RANGE, note TEXT, ok BOOLEAN);"
                "CREATE TABLE empty (id INT PRIMARY KEY, name TEXT)"
            )
        )
        db.execute(
            text(
                "INSERT INTO visits SELECT md5(n::text)::uuid, n % 400, now() - n * interval '1 min', "
                "CASE n % 9 WHEN 0 THEN 'infinity' ELSE current_date - n % 90 END, ARRAY['a', NULL, 'b\"c'], "
                "ARRAY['good']::mood[], '{\"k\": [1, \"x\"]}', '[]', '\\x00ff', interval '1 day', "
                "int4range(n, n + 5), :note, n % 2 = 0 FROM generate_series(1, 12000) n"
            ),
            {"note": HOSTILE},
        )
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text("ANALYZE"))
    yield made
    made.dispose()


def drive(engine: Any) -> QueryRecorder:
    recorder = QueryRecorder(engine)
    some = uuid.UUID("c4ca4238-a0b9-2382-0dcc-509a6f75849b")
    with engine.connect() as db:
        for n in range(8):
            page = "SELECT id, at FROM visits WHERE page = :p ORDER BY at DESC LIMIT 20"
            db.execute(text(page), {"p": n}).all()
            db.execute(text("SELECT note FROM visits WHERE id = :i"), {"i": some}).all()
            db.execute(
                text("SELECT count(*) FROM visits WHERE day = :d AND ok"), {"d": dt.date(2026, 11, n + 1)}
            ).all()
            db.execute(text("SELECT * FROM empty WHERE name = :n"), {"n": "x%y"}).all()
    recorder.close()
    return recorder


def test_an_applications_own_driver_serves_the_whole_path(engine: Any, postgres_server: Any) -> None:
    with postgres_server.fresh_database() as scratch:
        recorder = drive(engine)
        seen: list[Any] = []
        with DatabaseOptimizer(engine, what_if=scratch, source=recorder) as optimizer:
            stop = optimizer.on(seen.append)
            advice = optimizer.advise()
            assert advice.level == "planned", advice.warnings
            assert not [w for w in advice.warnings if "could not be copied" in w], advice.warnings
            assert any(i.spec.columns[:1] == ("page",) for i in advice.indexes), str(advice)
            report = optimizer.apply(advice, dry_run=False)
            assert not report.failed
            assert report.measured
            stop()
        assert {type(e) for e in seen} == {Advised, IndexChanged}
        assert [e.name for e in seen if isinstance(e, IndexChanged) and e.outcome == "created"] == [
            a.name for a in report.created
        ]


def test_a_copy_holds_the_very_values_of_the_table(engine: Any, postgres_server: Any) -> None:
    """COPY's text form, for every type and for texts full of its own signs."""
    from eventperf.dbopt.backends.postgres.drivers import connection_of

    fairy = engine.raw_connection()
    db = connection_of(fairy)
    names = [
        r[0]
        for r in db.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'visits'::regclass "
            "AND attnum > 0 ORDER BY attnum"
        ).fetchall()
    ]
    texts = ", ".join(f"{n}::text" for n in names)
    rows = db.execute(f"SELECT {texts} FROM visits ORDER BY id LIMIT 500").fetchall()
    assert "infinity" in {row[names.index("day")] for row in rows}
    db.execute("CREATE TEMPORARY TABLE twin (LIKE visits)")
    with db.cursor() as cursor, cursor.copy("COPY twin FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    differ = db.execute(
        "SELECT count(*), sum(((t.*)::text IS DISTINCT FROM (v.*)::text)::int) "
        "FROM twin t JOIN visits v USING (id)"
    ).fetchone()
    assert tuple(differ) == (500, 0)
    fairy.close()


def test_revert_drops_what_apply_made_and_nothing_else(engine: Any, tmp_path: Any) -> None:
    with engine.begin() as db:
        db.execute(text("CREATE INDEX mine ON visits (took)"))
        db.execute(text("CREATE UNIQUE INDEX ix_ep_key ON empty (name)"))
    with DatabaseOptimizer(engine, source=drive(engine)) as optimizer:
        advice = optimizer.advise()
        report = optimizer.apply(advice, dry_run=False, verify=False)
        assert report.created
        report.save(tmp_path / "report.json")
        read = ApplyReport.load(tmp_path / "report.json")
        assert optimizer.revert(read, dry_run=True).planned
        read.created.append(
            read.created[0].__class__(name="mine", index="", table="visits", sql="", reason="")
        )
        done = optimizer.revert(read)
        assert {a.name for a in done.reverted} == {a.name for a in report.created}
        assert [a.name for a in done.skipped] == ["mine"]
        assert not optimizer.revert(read).reverted
    with engine.connect() as db:
        left = (
            db.execute(text("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")).scalars().all()
        )
    assert {"mine", "ix_ep_key"} <= set(left)
    assert not [n for n in left if n.startswith("ix_ep_") and n != "ix_ep_key"]


def test_excluded_tables_are_left_alone_and_slips_are_told(engine: Any) -> None:
    recorder = drive(engine)
    with DatabaseOptimizer(engine, limits=Limits(exclude=["vis*", "visitt"])) as optimizer:
        advice = optimizer.advise(recorder)
    assert not advice.indexes
    assert [w for w in advice.warnings if w.startswith("visitt was included or excluded")]
    assert not [w for w in advice.warnings if w.startswith("vis* ")]
    with DatabaseOptimizer(engine, limits=Limits(include=["public.visits"])) as optimizer:
        assert {i.spec.table for i in optimizer.advise(recorder).indexes} == {"visits"}


def test_the_role_of_the_grants_can_advise_and_nothing_more(engine: Any, postgres_url: str) -> None:
    from sqlalchemy.exc import DBAPIError

    role = f"ad'vi\"x {uuid.uuid4().hex[:6]}"
    with DatabaseOptimizer(engine, source=drive(engine)) as optimizer:
        advice = optimizer.advise()
        told = [w for w in advice.warnings if "is a superuser" in w]
        assert told, advice.warnings
        assert "CREATE ROLE" in told[0]
        statements = optimizer.grants(role)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            for statement in statements:
                db.exec_driver_sql(statement)
        least = create_engine(engine.url.set(username=role))
        with DatabaseOptimizer(least, source=drive(engine)) as optimizer:
            again = optimizer.advise()
        assert {i.spec.columns[0] for i in again.indexes} >= {"page"}, str(again)
        assert not [w for w in again.warnings if "superuser" in w]
        with least.connect() as db, pytest.raises(DBAPIError):
            db.exec_driver_sql("DELETE FROM visits")
        least.dispose()
    finally:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            quoted = '"' + role.replace('"', '""') + '"'
            db.exec_driver_sql(f"DROP OWNED BY {quoted}")
            db.exec_driver_sql(f"DROP ROLE {quoted}")


def test_a_superuser_measures_as_a_role_that_only_reads_and_calls_nobodys_function(engine: Any) -> None:
    """A recorded statement may call anybody's function, which runs with the rights of whoever calls it."""
    with engine.begin() as db:
        db.exec_driver_sql(
            "CREATE FUNCTION lesser() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN "
            "IF current_setting('is_superuser') = 'on' THEN RAISE 'as a superuser'; END IF; RETURN 7; END $$"
        )
    calls = "SELECT id FROM visits WHERE page = lesser()"
    with DatabaseOptimizer(engine) as optimizer:
        dialect = optimizer.dialect
        assert list(dialect.rows("SELECT current_setting('is_superuser')", timeout_s=5, limit=1)) == [
            ("off",)
        ]
        assert dialect.measure([Sample("SELECT id FROM visits", ())], runs=1, timeout_s=5)
        assert dialect.cost(calls, ()) is None
        assert dialect.cost("SELECT id FROM visits WHERE page = lesser() + $1", None) is None
        for forbidden in (calls, "SELECT pg_read_file('PG_VERSION')", "DELETE FROM visits"):
            assert dialect.measure([Sample(forbidden, ())], runs=1, timeout_s=5) is None
        work = Workload.from_sql(calls, dialect="postgres")
        assert not [w for w in optimizer.advise(work).warnings if "refused" in w]
    with engine.connect() as db:
        assert db.exec_driver_sql("SELECT current_setting('is_superuser')").scalar() == "on", (
            "given back as it was"
        )
    with DatabaseOptimizer(engine, what_if=engine) as optimizer:
        told = str(optimizer.advise(work))
        assert "as a superuser" not in told
