"""Jobs that are part of the application's own transaction, and the tables they need."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from eventperf.cli.main import main
from eventperf.errors import ConfigurationError, SchemaMissing, StoreUnavailable
from eventperf.queues import JobState, QueueManager
from eventperf.testing.queues import Station, balanced


@pytest.fixture
def app(url: str) -> Iterator[Any]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
    yield engine
    engine.dispose()


@pytest.fixture
def queues(url: str) -> Iterator[QueueManager]:
    with QueueManager(url) as manager:
        yield manager


@pytest.mark.integration
def test_job_leaves_with_the_commit_or_never_was(queues: QueueManager, app: Any) -> None:
    station = Station(queues, "mail")
    with Session(app) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        kept = queues.enqueue("mail", 1, session=session)
        if "sqlite" not in str(app.url):  # a writer of one file keeps all others out
            assert station.take() == [], "not before the commit"
        session.commit()
    with Session(app) as session:
        session.execute(text("INSERT INTO orders VALUES (2)"))
        gone = queues.enqueue("mail", 2, session=session, unique_key="k")
        queues.enqueue_many("mail", [3, 4], session=session, delay=5)
        session.rollback()
    with app.connect() as conn:
        assert conn.execute(text("SELECT id FROM orders")).scalars().all() == [1]
    assert station.ids() == [kept.id]
    assert queues.backend.sync().fetch([gone.id]) == [None]
    assert not queues.enqueue("mail", 5, unique_key="k").duplicate, "its key was rolled back with it"
    assert sum(row.enqueued for row in queues.status()) == 2
    assert balanced(queues.status())


@pytest.mark.integration
def test_job_of_a_connection_and_thousands_at_once(queues: QueueManager, app: Any) -> None:
    with app.begin() as conn:
        jobs = queues.enqueue_many("mail", range(2500), session=conn)
    assert sum(row.waiting for row in queues.status()) == 2500
    assert jobs[-1].info().state is JobState.WAITING


@pytest.mark.integration
def test_open_transaction_holds_up_nobody(postgres_url: str) -> None:
    """Counters, classes and places are taken without a lock that lasts until the caller's commit."""
    app = create_engine(postgres_url, poolclass=NullPool)
    with QueueManager(postgres_url) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]
        queues.enqueue("mail", 0)
        with Session(app) as slow:
            late = queues.enqueue("mail", 1, session=slow)
            others = [queues.enqueue("mail", n).id for n in (2, 3)]
            station = Station(queues, "mail")
            leases = station.take()
            assert {lease.record.id for lease in leases} >= set(others)
            assert all(station.end(lease) for lease in leases)
            slow.commit()
        assert station.ids() == [late.id]
        assert balanced(queues.status())
    app.dispose()


def test_async_session_takes_part(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def scenario(queues: QueueManager) -> list[str]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)
        async with AsyncSession(engine) as session:
            kept = await queues.aenqueue("mail", 1, session=session)
            await session.commit()
            await queues.aenqueue("mail", 2, session=session)
            await session.rollback()
        await engine.dispose()
        await queues.aclose()
        return [kept.id]

    with QueueManager(f"sqlite:///{path}") as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]
        kept = asyncio.run(scenario(queues))
        assert Station(queues, "mail").ids() == kept


@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize("writes_first", [False, True])
def test_the_first_use_of_a_sqlite_file_may_be_in_a_transaction(
    tmp_path: Path, ends: str, writes_first: bool
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'jobs.db'}", poolclass=NullPool)
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
    with QueueManager(f"sqlite:///{tmp_path / 'jobs.db'}") as queues:
        with engine.connect() as conn:
            if writes_first:
                conn.execute(text("INSERT INTO orders VALUES (1)"))
            kept = queues.enqueue("mail", 1, session=conn)
            getattr(conn, ends)()
            assert Station(queues, "mail").drain() == ([kept.id] if ends == "commit" else [])
            again = queues.enqueue("mail", 2, session=conn)
            conn.commit()
        assert Station(queues, "mail").drain() == [again.id]
    engine.dispose()


def test_sessions_of_other_things_are_refused(tmp_path: Path, postgres_url: str) -> None:
    app = create_engine(postgres_url, poolclass=NullPool)
    with QueueManager(f"sqlite:///{tmp_path / 'jobs.db'}") as queues:
        for session in (object(), {"a": 1}):
            with pytest.raises(ConfigurationError, match="session"):
                queues.enqueue("mail", 1, session=session)
        with app.connect() as conn, pytest.raises(ConfigurationError, match="a session on SQLite"):
            queues.enqueue("mail", 1, session=conn)
    app.dispose()


@pytest.mark.integration
def test_tables_are_made_only_when_asked(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with QueueManager(postgres_url) as queues:
        for call in (lambda: queues.enqueue("t"), queues.status):
            with pytest.raises(SchemaMissing, match="queue schema"):
                call()
        assert main(["queue", "schema", postgres_url, "--sql"]) == 0
        assert "CREATE TABLE eventperf_jobs" in capsys.readouterr().out
        threads = [threading.Thread(target=queues.backend.create_schema) for _ in range(4)]  # type: ignore[attr-defined]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert main(["queue", "schema", postgres_url]) == 0
        queues.enqueue("t")
        engine = create_engine(postgres_url, poolclass=NullPool)
        with engine.begin() as conn:
            conn.execute(text("UPDATE eventperf_schema SET version = 99"))
        engine.dispose()
    with QueueManager(postgres_url) as queues, pytest.raises(SchemaMissing, match="version 99"):
        queues.enqueue("t")


def test_urls_that_cannot_work_are_refused() -> None:
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///x.db?poll=never"):
        with pytest.raises(ConfigurationError):
            QueueManager(url)
    with (
        QueueManager("postgresql+psycopg://me:s3cret@127.0.0.1:1/none") as queues,
        pytest.raises(StoreUnavailable) as caught,
    ):
        queues.enqueue("t")
    assert "s3cret" not in str(caught.value)
