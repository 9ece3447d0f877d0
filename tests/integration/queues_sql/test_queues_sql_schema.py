"""Tables of every release that made any, brought up to date; and those that cannot be."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from eventperf.cli.main import main
from eventperf.errors import QueueError, SchemaMissing, StoreUnavailable
from eventperf.queues import QueueManager
from eventperf.queues.backends.sql import tables as sql_schema
from eventperf.testing.queues import Station

pytestmark = pytest.mark.integration

TABLES = Path(__file__).with_name("tables")
"""What the releases printed with ``eventperf queue schema --sql``, by version and what was new."""
RELEASES = sorted({path.name.rpartition("-")[0] for path in TABLES.glob("*.sql")})
SERVERS = ("sqlite", "postgres", "mariadb")


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def sql(url: str) -> Callable[..., Any]:
    """Say statements to the database, as another program would."""

    def say(*statements: str) -> None:
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as conn:
            for statement in statements:
                conn.execute(text(statement))
        engine.dispose()

    return say


def made_by(release: str, url: str) -> list[str]:
    kinds = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mariadb"}
    server = kinds[make_url(url).get_backend_name()]
    words = (TABLES / f"{release}-{server}.sql").read_text()
    return [statement for statement in words.split(";\n") if statement.strip()]


def options(index: Any) -> dict[str, str]:
    return {name: str(value) for name, value in (index.get("dialect_options") or {}).items()}


def shape(url: str) -> dict[str, Any]:
    """What the server says of the tables, without the order of their columns."""
    engine: Engine = create_engine(url, poolclass=NullPool)
    look = inspect(engine)
    found = {}
    for table in sorted(name for name in look.get_table_names() if name.startswith("eventperf_")):
        columns = {
            c["name"]: (str(c["type"]), c["nullable"], str(c.get("default"))) for c in look.get_columns(table)
        }
        indexes = {
            i["name"]: (tuple(i["column_names"]), bool(i["unique"]), options(i))
            for i in look.get_indexes(table)
        }
        found[table] = columns, look.get_pk_constraint(table)["constrained_columns"], indexes
    engine.dispose()
    return found


def create(url: str) -> int:
    with QueueManager(url) as queues:
        found: int = queues.backend.create_schema()  # type: ignore[attr-defined]
        return found


def forget(url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as conn:
        for table in inspect(conn).get_table_names():
            if table.startswith("eventperf_"):
                conn.execute(text(f"DROP TABLE {table}"))
    engine.dispose()


@pytest.mark.parametrize("release", RELEASES)
def test_older_tables_become_what_fresh_ones_are(url: str, sql: Callable[..., Any], release: str) -> None:
    """Of every release that made tables, by the statements that it printed."""
    assert create(url) == 0
    fresh = shape(url)
    forget(url)
    sql(*made_by(release, url))
    assert create(url) == int(release[0])
    assert shape(url) == fresh
    assert create(url) == sql_schema.VERSION, "and then there is nothing left to do"


def test_printed_statements_do_the_same(url: str, sql: Callable[..., Any]) -> None:
    """Those for a migration tool, over tables of the first release."""
    assert create(url) == 0
    fresh = shape(url)
    forget(url)
    sql(*made_by("1-first", url))
    with QueueManager(url) as queues:
        backend: Any = queues.backend
        sql(*backend.schema_ddl(since=1).split(";\n")[:-1])
        assert backend.schema_version() == sql_schema.VERSION
    assert shape(url) == fresh, "printed statements do the same"


def test_jobs_of_older_tables_are_kept_and_run(url: str, sql: Callable[..., Any]) -> None:
    create(url)
    with QueueManager(url) as queues:
        kept = queues.enqueue("t", 1)
    sql(
        "DROP TABLE eventperf_links",
        "ALTER TABLE eventperf_tallies DROP COLUMN trimmed",
        "UPDATE eventperf_schema SET version = 1",
    )
    with QueueManager(url) as queues:
        if not url.startswith("sqlite"):  # on a server only when you say so
            with pytest.raises(SchemaMissing, match="version 1"):
                queues.enqueue("t", 2)
        create(url)
        assert Station(queues, "t").ids() == [kept.id]
        assert sum(row.waiting for row in queues.status()) == 0


def test_run_that_was_stopped_half_way_is_finished_by_the_next(url: str, sql: Callable[..., Any]) -> None:
    """Where each statement commits by itself, a process may die between any two of them."""
    create(url)
    fresh = shape(url)
    forget(url)
    sql(*made_by("1-first", url))
    with QueueManager(url) as queues:
        words = queues.backend.schema_ddl(since=1).split(";\n")[:-1]  # type: ignore[attr-defined]
    sql(*words[: len(words) // 2])
    create(url)
    assert shape(url) == fresh
    forget(url)
    with QueueManager(url) as queues:
        words = queues.backend.schema_ddl().split(";\n")[:-1]  # type: ignore[attr-defined]
    sql(*words[: len(words) // 2])
    create(url)
    assert shape(url) == fresh


@pytest.mark.parametrize("version", [1, sql_schema.VERSION])
def test_tables_of_no_release_are_refused_by_what_they_lack(
    version: int, url: str, sql: Callable[..., Any]
) -> None:
    create(url)
    sql(
        "ALTER TABLE eventperf_jobs DROP COLUMN held_for",
        f"UPDATE eventperf_schema SET version = {version}",
    )
    if version < sql_schema.VERSION:
        with pytest.raises(SchemaMissing, match=f"version {version} but lack eventperf_jobs.held_for"):
            create(url)
        with QueueManager(url) as queues:
            assert queues.backend.schema_version() == version, "never stamped as what they are not"  # type: ignore[attr-defined]
    with QueueManager(url) as queues, pytest.raises(SchemaMissing) as caught:
        queues.enqueue("t", 1)
    assert not isinstance(caught.value, StoreUnavailable), "waiting would not help"
    assert f"version {version}" in str(caught.value)


def test_tables_of_a_newer_release_are_refused_in_words(url: str, sql: Callable[..., Any]) -> None:
    create(url)
    sql("UPDATE eventperf_schema SET version = 99")
    with QueueManager(url) as queues:
        for call in (lambda: create(url), lambda: queues.enqueue("t"), queues.status):
            with pytest.raises(SchemaMissing, match=r"version 99, this release knows .*upgrade eventperf"):
                call()


def test_dropped_table_is_told_by_its_name(url: str, sql: Callable[..., Any]) -> None:
    create(url)
    with QueueManager(url) as queues:
        queues.enqueue("t", 1)
        sql("DROP TABLE eventperf_unique")
        with pytest.raises(QueueError, match="eventperf_unique") as caught:
            queues.enqueue("t", 1, unique_key="k")
        assert not isinstance(caught.value, StoreUnavailable)


@pytest.mark.parametrize("release", ["", "1-first"])
def test_starters_do_not_collide(release: str, url: str, sql: Callable[..., Any]) -> None:
    if release:
        sql(*made_by(release, url))
    code = (
        "import sys; from eventperf.queues import QueueManager; q = QueueManager(sys.argv[1]);"
        "q.backend.create_schema(); q.enqueue('t', 1); q.close()"
    )
    failed: list[str] = []

    def start() -> None:
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True)
        if done.returncode:
            failed.append(done.stderr)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with QueueManager(url) as queues:
        assert sum(row.waiting for row in queues.status()) == 4


def test_command_says_what_it_found_and_did(
    url: str, sql: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    sql(*made_by("1-first", url))
    assert main(["queue", "schema", url, "--check"]) == 1
    said = capsys.readouterr().out
    assert "version 1" in said
    assert "jobs that wait for others" in said
    assert main(["queue", "schema", url]) == 0
    assert f"from version 1 to {sql_schema.VERSION}" in capsys.readouterr().out
    assert main(["queue", "schema", url, "--check"]) == 0
    assert main(["queue", "schema", url, "--sql", "--since", "2"]) == 0
    said = capsys.readouterr().out
    assert "ADD COLUMN trimmed" in said
    assert "eventperf_schedules" not in said
    assert main(["queue", "schema", url, "--sql", "--since", "99"]) == 2
