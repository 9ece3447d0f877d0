"""What ``apply`` does when others hold locks, when two run at once, and when an index does harm."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from dbopt_plans import index, plain_index, prepared
from eventperf.dbopt import Advice, DatabaseOptimizer, Limits, OptimizerBusy, QueryRecorder, Workload
from eventperf.dbopt.schema.model import IndexSpec, Key
from eventperf.testing import FakeClock
from faults import wait_until

pytestmark = pytest.mark.integration
ENGINES = ["sqlite", "postgres", "mariadb"]


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'safety.db'}"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def engine(url: str) -> Iterator[Any]:
    made = create_engine(url)
    yield made
    made.dispose()


def made(optimizer: DatabaseOptimizer, table: str = "sales") -> list[str]:
    there = optimizer.dialect.indexes(table)
    assert all(i.valid for i in there)
    return sorted(i.name for i in there if not i.primary)


def jobs(engine: Any) -> None:
    """Fill a table whose late jobs are all at the end of the order in which they are due."""
    rows = 60_000
    with engine.begin() as db:
        db.execute(
            text(
                "CREATE TABLE jobs (id INT PRIMARY KEY, state VARCHAR(8) NOT NULL, due INT NOT NULL, "
                "body VARCHAR(200) NOT NULL)"
            )
        )
        for start in range(0, rows, 3000):
            lines = []
            for n in range(start, start + 3000):
                due = n * 7919 % rows
                lines.append(f"({n},'{'late' if due > rows * 0.97 else 'done'}',{due},'{'x' * 150}')")
            db.execute(text(f"INSERT INTO jobs VALUES {','.join(lines)}"))
    if engine.dialect.name != "mysql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.execute(text("ANALYZE"))


def test_an_index_that_does_harm_is_taken_back(engine: Any) -> None:
    """The planner expects the wanted rows early in the index; they are all at its end."""
    jobs(engine)
    with QueryRecorder(engine) as recorder, engine.connect() as db:
        for state in ("late", "late", "late"):
            db.execute(text("SELECT * FROM jobs WHERE state = :s ORDER BY due LIMIT 10"), {"s": state}).all()
        workload = recorder.workload()
    with DatabaseOptimizer(engine, limits=Limits(statement_timeout=5.0)) as optimizer:
        (statement,) = workload
        advice = Advice(dialect=optimizer.dialect.name)
        advice.indexes = [index(optimizer.dialect, IndexSpec("jobs", (Key("due"),)), statement)]
        report = optimizer.apply(advice, dry_run=False, workload=workload)
        left = made(optimizer, "jobs")
    assert not report.failed, str(report)
    assert [a.name for a in report.reverted] == [advice.indexes[0].name], str(report)
    assert "slower" in report.reverted[0].reason
    assert left == []
    assert report.created == []
    (compared,) = report.measured.values()
    assert advice.indexes[0].name in compared.after.indexes  # what the verdict rests on
    assert compared.reverted is not None
    assert advice.indexes[0].name not in compared.reverted.indexes  # measured again without it
    (row,) = report.to_dict()["measured"]
    assert row["plan_changed"]
    assert row["after_s"] > row["before_s"]
    assert row["after_revert_s"] == compared.reverted.seconds
    assert "after the revert" in str(report)


def test_one_bad_index_in_a_plan_costs_no_good_one(engine: Any) -> None:
    jobs(engine)
    with engine.begin() as db:
        columns = "id INT PRIMARY KEY, name VARCHAR(8) NOT NULL, code INT NOT NULL"
        db.execute(text(f"CREATE TABLE states ({columns})"))
        names = ["late", "done", *(f"s{n}" for n in range(20_000))]
        lines = [f"({n},'{name}',{n % 500})" for n, name in enumerate(names)]
        db.execute(text(f"INSERT INTO states VALUES {','.join(lines)}"))
    if engine.dialect.name != "mysql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.execute(text("ANALYZE"))
    bad = (
        "SELECT j.*, (SELECT max(s.code) FROM states s WHERE s.name = :s) AS code FROM jobs j "
        "WHERE j.state = :s ORDER BY j.due LIMIT 10"
    )
    with QueryRecorder(engine) as recorder, engine.connect() as db:
        for _ in range(3):
            db.execute(text(bad), {"s": "late"}).all()
            db.execute(text("SELECT id FROM states WHERE name = :s"), {"s": "late"}).all()
        workload = recorder.workload()
    with DatabaseOptimizer(engine, limits=Limits(statement_timeout=5.0, verify_budget=60.0)) as optimizer:
        dialect: Any = optimizer.dialect
        both = next(s for s in workload if "jobs" in s.fingerprint.text)
        single = next(s for s in workload if "jobs" not in s.fingerprint.text)
        advice = Advice(dialect=dialect.name)
        advice.indexes = [
            index(dialect, IndexSpec("jobs", (Key("due"),)), both),
            index(dialect, IndexSpec("states", (Key("name"),)), single),
        ]
        harmful, useful = (i.name for i in advice.indexes)
        measure = dialect.measure

        def by_the_plan(samples: Any, **how: Any) -> Any:
            """Run the statement, and take for its time what its plan says: the machine may be busy."""
            found = measure(samples, **how)
            slow = 10.0 if harmful in found.indexes else 1.0
            return replace(found, seconds=slow * (0.1 if useful in found.indexes else 0.5))

        dialect.measure = by_the_plan
        report = optimizer.apply(advice, dry_run=False, workload=workload)
        left = made(optimizer, "jobs"), made(optimizer, "states")
    assert not report.failed, str(report)
    assert [a.name for a in report.reverted] == [harmful], str(report)
    assert [a.name for a in report.created] == [useful], str(report)
    assert left == ([], [useful])


def test_two_at_once_make_each_index_once(url: str, tmp_path: Path) -> None:
    plan, _, names = prepared(url, tmp_path)
    child = (
        "import sys\n"
        "from eventperf.dbopt import Advice, DatabaseOptimizer, OptimizerBusy\n"
        "with DatabaseOptimizer(sys.argv[1]) as o:\n"
        "    advice = Advice.load(sys.argv[2])\n"
        "    o.dialect\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    try:\n"
        "        r = o.apply(advice, dry_run=False, verify=False)\n"
        "        print(len(r.created), len(r.skipped), len(r.failed))\n"
        "    except OptimizerBusy:\n"
        "        print('busy')\n"
    )
    command = [sys.executable, "-c", child, url, str(plan)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for c in children:
        assert c.stdout is not None
        assert c.stdout.readline() == "ready\n"
    for c in children:
        assert c.stdin is not None
        c.stdin.write("go\n")
        c.stdin.flush()
    said = sorted(c.communicate(timeout=60)[0].strip() for c in children)
    # The second is turned away, or comes when the first is done and finds everything there.
    assert said in (["2 0 0", "busy"], ["0 2 0", "2 0 0"]), said
    with DatabaseOptimizer(url) as optimizer:
        assert made(optimizer) == names


def test_while_one_applies_another_is_told_so(url: str, tmp_path: Path) -> None:
    plan, _, _ = prepared(url, tmp_path)
    with DatabaseOptimizer(url) as first, DatabaseOptimizer(url) as second:
        with first.dialect.exclusive(), pytest.raises(OptimizerBusy):
            second.apply(Advice.load(plan), dry_run=False)
        assert second.apply(Advice.load(plan), dry_run=False, verify=False).created


def test_a_held_lock_costs_the_time_out_and_no_more(url: str, engine: Any, tmp_path: Path) -> None:
    plan, _, names = prepared(url, tmp_path)
    limits = Limits(lock_timeout=1.0, lock_attempts=1)
    lock = {
        "sqlite": "UPDATE sales SET price = 1 WHERE id = 1",
        "postgresql": "LOCK TABLE sales IN SHARE MODE",
        "mysql": "SELECT id FROM sales WHERE id = 1",  # a metadata lock until the transaction ends
    }[engine.dialect.name]
    with DatabaseOptimizer(url, limits=limits) as optimizer:
        advice = Advice.load(plan)
        with engine.connect() as db:
            db.execute(text(lock))
            began = time.monotonic()
            try:
                report = optimizer.apply(advice, dry_run=False, verify=False)
                assert report.failed, str(report)
                assert report.created == []
            finally:
                took = time.monotonic() - began
                db.rollback()
        assert took < 30
        again = optimizer.apply(advice, dry_run=False, verify=False)
        assert sorted(a.name for a in again.created) == names, str(again)
        assert made(optimizer) == names


def test_a_plan_file_is_reviewed_edited_and_applied(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'review.db'}"
    _, workload, _ = prepared(url, tmp_path)
    run = [sys.executable, "-m", "eventperf", "db"]

    def cli(*args: str) -> str:
        done = subprocess.run([*run, *args], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    script, reviewed = tmp_path / "out.sql", tmp_path / "reviewed.json"
    cli("advise", url, "--workload", str(workload), "--sql", str(script), "--plan", str(reviewed))
    data = json.loads(reviewed.read_text())
    assert data["indexes"]
    assert all(i["sql"] + ";" in script.read_text() for i in data["indexes"])
    assert "77" not in reviewed.read_text().replace('"', " ").split()  # no parameter values
    data["indexes"] = data["indexes"][:1]  # the reviewer strikes the rest out
    data["indexes"][0]["sql"] = "DROP TABLE sales"  # what runs is built from the definition
    reviewed.write_text(json.dumps(data))
    assert "Nothing was changed" in cli("apply", url, str(reviewed))
    with DatabaseOptimizer(url) as optimizer:
        assert made(optimizer) == []
    cli("apply", url, str(reviewed), "--yes", "--workload", str(workload))
    with DatabaseOptimizer(url) as optimizer:
        assert made(optimizer) == [data["indexes"][0]["name"]]
        round_trip = Advice.from_dict(Advice.load(reviewed).to_dict())
    assert round_trip.to_dict() == Advice.load(reviewed).to_dict()


def many(folder: Path) -> tuple[str, Path]:
    """A database and a workload that keep the search busy for longer than a test waits."""
    url = f"sqlite:///{folder / 'many.db'}"
    engine = create_engine(url)
    columns = [f"c{n}" for n in range(12)]
    with engine.begin() as db:
        for t in range(10):
            db.execute(
                text(f"CREATE TABLE t{t} (id INTEGER PRIMARY KEY, {', '.join(f'{c} INT' for c in columns)})")
            )
            db.execute(
                text(
                    f"INSERT INTO t{t} ({', '.join(columns)}) VALUES ({', '.join(':' + c for c in columns)})"
                ),
                [{c: n * (7 + i) % (10 + 40 * i) for i, c in enumerate(columns)} for n in range(500)],
            )
    engine.dispose()
    lines = [
        f"SELECT c{(a + b) % 12} FROM t{t} WHERE c{a} = 1 AND c{b} > 2 ORDER BY c{a * b % 12};"
        for t in range(10)
        for a in range(12)
        for b in range(a)
    ]
    (folder / "many.sql").write_text("\n".join(lines))
    return url, folder / "many.sql"


def test_a_budget_ends_the_search_with_the_best_so_far(tmp_path: Path) -> None:
    url, file = many(tmp_path)
    workload = Workload.from_sql_file(file)
    said: list[str] = []
    clock = FakeClock()

    def tell(line: str) -> None:
        said.append(line)
        if len(said) < 8:
            clock.advance(60 if line.startswith("searching: ") else 1.5)

    with DatabaseOptimizer(url, clock=clock) as optimizer:
        advice = optimizer.advise(workload, budget="30s", progress=tell)
    assert not advice.is_complete
    assert any("time budget" in w for w in advice.warnings)
    assert any(line.startswith("searching: ") for line in said)
    assert 0 < advice.explains < 10_000


SLOW_ADVICE = """
import signal, sys, time
from eventperf.cli.main import main
from eventperf.dbopt.backends.sqlite.what_if import ScratchPlanner

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

plan, calls = ScratchPlanner.plan, []

def slowly(self, *args):
    calls.append(1)
    if len(calls) > 1320:  # two plans of each statement, then the search: it goes on until the signal
        time.sleep(0.05)
    return plan(self, *args)

ScratchPlanner.plan = slowly
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_the_search_with_the_best_so_far(tmp_path: Path) -> None:
    url, file = many(tmp_path)
    command = [sys.executable, "-c", SLOW_ADVICE, "db", "advise", url, "--workload", str(file)]
    command += ["--budget", "10m", "--plan", str(tmp_path / "plan.json")]
    with (
        (tmp_path / "progress").open("w") as progress,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=progress, text=True) as child,
    ):
        try:
            wait_until(lambda: "searching" in (tmp_path / "progress").read_text(), 60)
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0, out
    assert "stopped early" in out
    assert "interrupted" in out
    assert not Advice.load(tmp_path / "plan.json").is_complete


def test_a_table_that_is_dropped_meanwhile_harms_no_other(url: str, engine: Any, tmp_path: Path) -> None:
    plan, _, names = prepared(url, tmp_path)
    with engine.begin() as db:
        db.execute(text("CREATE TABLE gone (id INT PRIMARY KEY, a INT)"))
        db.execute(text("CREATE TABLE going (id INT PRIMARY KEY, a INT)"))
    with DatabaseOptimizer(url) as optimizer:
        advice = Advice.load(plan)
        specs = [IndexSpec("gone", (Key("a"),)), IndexSpec("going", (Key("a"),))]
        advice.indexes = [*(plain_index(optimizer.dialect, s) for s in specs), *advice.indexes]
        with engine.begin() as db:
            db.execute(text("DROP TABLE gone"))

        def drop(line: str) -> None:
            if line.startswith("creating index 1 "):
                with engine.begin() as db:
                    db.execute(text("DROP TABLE going"))

        report = optimizer.apply(advice, dry_run=False, verify=False, progress=drop)
        assert [a.reason for a in report.skipped] == ["its table is gone"]
        assert [a.index for a in report.failed] == ["going (a)"]
        assert sorted(a.name for a in report.created) == names
        assert made(optimizer) == names


def test_permission_denied_half_way_is_reported_and_the_rest_goes_on(
    postgres_url: str, tmp_path: Path
) -> None:
    plan, _, names = prepared(postgres_url, tmp_path)
    engine = create_engine(postgres_url)
    role = f"half_{postgres_url.rpartition('/')[2]}"
    try:
        with engine.begin() as db:
            db.execute(text("CREATE TABLE theirs (id INT PRIMARY KEY, a INT)"))
            db.execute(text(f"CREATE ROLE {role} LOGIN"))
            db.execute(text(f"GRANT SELECT ON theirs TO {role}"))
            db.execute(text(f"GRANT CREATE ON SCHEMA public TO {role}"))
            db.execute(text(f"ALTER TABLE sales OWNER TO {role}"))
        with DatabaseOptimizer(postgres_url.replace("eventperf@", f"{role}@")) as optimizer:
            advice = Advice.load(plan)
            denied = plain_index(optimizer.dialect, IndexSpec("theirs", (Key("a"),)))
            advice.indexes = [advice.indexes[0], denied, *advice.indexes[1:]]
            report = optimizer.apply(advice, dry_run=False, verify=False)
            assert [a.index for a in report.failed] == ["theirs (a)"]
            assert "owner" in report.failed[0].reason
            assert made(optimizer) == names
    finally:
        with engine.begin() as db:
            db.execute(text("ALTER TABLE sales OWNER TO eventperf"))
            db.execute(text(f"DROP OWNED BY {role}"))
            db.execute(text(f"DROP ROLE {role}"))
        engine.dispose()


@pytest.mark.parametrize("zone", ["+13:00", "-11:00", "SYSTEM"])
def test_the_slow_log_counts_by_the_servers_clock_in_any_time_zone(mariadb_url: str, zone: str) -> None:
    engine = create_engine(mariadb_url, connect_args={"init_command": f"SET time_zone = '{zone}'"})
    try:
        with engine.begin() as db:
            db.execute(text("CREATE TABLE zoned (id INT PRIMARY KEY)"))
            db.execute(text("SET SESSION long_query_time = 0"))
            db.execute(text("SELECT id FROM zoned WHERE id = 4")).all()
            db.execute(text("SET SESSION long_query_time = 10"))
        found = [s for s in Workload.from_slow_log(engine, since="1h") if "from zoned" in s.fingerprint.text]
        assert [s.calls for s in found] == [1]
    finally:
        engine.dispose()
