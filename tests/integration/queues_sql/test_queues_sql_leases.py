"""What a lease covers in a database: a job until its outcome is stored, for as long as its worker lives."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from eventperf.errors import StoreUnavailable
from eventperf.queues import JobSpec, JobState, QueueConfig, QueueManager
from eventperf.testing.queues import Station, balanced
from faults import wait_until

pytestmark = pytest.mark.integration

LEASE_S = 1.0
SERVERS = ("sqlite", "postgres", "mariadb")


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return _made(f"sqlite:///{tmp_path / 'jobs.db'}")
    return _made(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=SERVERS[1:])
def server_url(request: pytest.FixtureRequest) -> str:
    return _made(request.getfixturevalue(f"{request.param}_url"))


def _made(url: str) -> str:
    with QueueManager(url) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]
    return url


def stalled(queues: QueueManager) -> int:
    return sum(row.stalled for row in queues.status())


def test_renewal_waits_for_nobody_who_is_at_the_rows(server_url: str) -> None:
    """A report, a cancellation or a backup may hold a job's row for longer than its lease."""
    app = create_engine(server_url, poolclass=NullPool)
    with QueueManager(server_url) as queues:
        queues.enqueue("t")
        busy, idle = Station(queues, "t", lease_s=LEASE_S), Station(queues, "t", lease_s=LEASE_S)
        (lease,) = busy.take()
        held = [(lease.record.id, lease.token)]
        with app.begin() as conn:
            conn.execute(text("SELECT seq FROM eventperf_jobs FOR UPDATE")).all()
            end = time.monotonic() + 2.5 * LEASE_S
            while time.monotonic() < end:
                # This thread holds the lock: a renewal that waited for it would not end.
                assert busy.store.renew(busy.id, held).lost == []
                assert idle.take() == []
                time.sleep(0.1)
        assert idle.take() == [], "its worker was heard of all the time"
        assert busy.end(lease)
        assert stalled(queues) == 0
    app.dispose()


def test_job_that_its_living_worker_does_not_know_goes_back_without_a_crash(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a claim was lost on the way; a worker that renews has not died."""
    monkeypatch.setattr("eventperf.queues.backends.sql.leases._ANSWERED_WITHIN_S", 0.0)
    with QueueManager(url) as queues:
        job = queues.enqueue("t")
        busy, idle = Station(queues, "t", lease_s=LEASE_S), Station(queues, "t", lease_s=LEASE_S)
        (lost,) = busy.take()

        def again() -> Any:
            busy.store.renew(busy.id, [])
            return idle.take()

        (lease,) = wait_until(again, 10 * LEASE_S, every=0.1, what="the job")
        assert (lease.record.id, lease.crashes) == (job.id, 0)
        assert not busy.end(lost), "and the first owner is fenced out"
        assert idle.end(lease)
        assert stalled(queues) == 0
        assert balanced(queues.status())


def test_worker_that_said_good_bye_has_not_died(url: str) -> None:
    with QueueManager(url, max_crashes=1) as queues:
        queues.enqueue("t")
        first, second = Station(queues, "t", lease_s=LEASE_S), Station(queues, "t", lease_s=LEASE_S)
        assert len(first.take()) == 1
        first.store.leave(first.id)
        (lease,) = wait_until(second.take, 10 * LEASE_S, every=0.1, what="the job")
        assert lease.crashes == 0
        assert second.end(lease)
        assert stalled(queues) == 0


def test_worker_that_died_is_said_to_have(url: str) -> None:
    with QueueManager(url, max_crashes=1) as queues:
        job = queues.enqueue("t")
        first, second = Station(queues, "t", lease_s=LEASE_S), Station(queues, "t", lease_s=LEASE_S)
        assert len(first.take()) == 1
        wait_until(lambda: second.take() or job.info().is_finished, 10 * LEASE_S, every=0.1)
        assert job.info().error == "its worker died 1 times while running it"
        assert stalled(queues) == 1


def test_outcomes_that_are_stored_slowly_keep_their_leases(postgres_url: str) -> None:
    url, runs = _made(postgres_url), list[str]()
    app = create_engine(url, poolclass=NullPool)
    with app.begin() as conn:
        conn.execute(
            text(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(0.004); RETURN NULL; END $$"
            )
        )
        conn.execute(
            text(
                "CREATE TRIGGER slow AFTER UPDATE ON eventperf_jobs FOR EACH ROW "
                "WHEN (new.state IN (3, 4) AND old.state = 2) EXECUTE FUNCTION slow()"
            )
        )
    app.dispose()
    with QueueManager(url, queues=[QueueConfig(name="normal", concurrency=100, keep_failed=None)]) as queues:

        @queues.job("t", attempts=1)
        async def t(ctx: Any, data: int) -> None:
            runs.append(ctx.job_id)
            if data % 2:
                raise ValueError("no")

        queues.enqueue_many("t", range(1200))
        worker = queues.worker(lease=1.0)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            assert queues.drain(60)
        finally:
            worker.stop()
            thread.join(30)
        assert len(runs) == len(set(runs)) == 1200
        assert stalled(queues) == 0


@pytest.mark.parametrize("kind", ["retry", "dead", "cancelled"])
def test_text_that_no_database_takes_is_made_readable(kind: str, url: str) -> None:
    with QueueManager(url) as queues:
        odd, plain = queues.enqueue("t"), queues.enqueue("t")
        station = Station(queues, "t", lease_s=30)
        leases = station.take()
        assert station.end(leases[0], kind, error="no file \udcff\0 \U0001f600", delay_s=60.0)
        assert station.end(leases[1])
        assert odd.info().error == "no file \\udcff\\x00 \U0001f600"
        assert plain.info().state is JobState.COMPLETED


def test_outcome_that_the_database_refuses_ends_its_job_and_no_other(postgres_url: str) -> None:
    url = _made(postgres_url)
    app = create_engine(url, poolclass=NullPool)
    with app.begin() as conn:
        conn.execute(
            text("ALTER TABLE eventperf_jobs ADD CONSTRAINT small CHECK (octet_length(result) < 100)")
        )
    app.dispose()
    from eventperf.queues.protocols import Outcome

    with QueueManager(url) as queues:
        jobs = queues.enqueue_many("t", range(9))
        station = Station(queues, "t", lease_s=30)
        outcomes = [
            Outcome(one.record.id, one.token, result=b"x" * (1000 if n == 4 else 1))
            for n, one in enumerate(station.take())
        ]
        assert station.store.finish(outcomes) == [True] * 9
        states = [job.info().state for job in jobs]
        assert states == [JobState.FAILED if n == 4 else JobState.COMPLETED for n in range(9)]
        assert "its outcome could not be stored" in (jobs[4].info().error or "")
        assert balanced(queues.status())


def test_dead_job_that_is_put_back_obeys_its_unique_key(url: str) -> None:
    with QueueManager(url) as queues:
        dead = queues.enqueue("t", 1, unique_key="k")
        station = Station(queues, "t", lease_s=30)
        (lease,) = station.take()
        assert station.end(lease, "dead", error="no")
        newer = queues.enqueue("t", 2, unique_key="k")
        assert not queues.retry(dead.id), "a newer one has its key"
        assert queues.replay("normal") == 0
        assert station.ids() == [newer.id]


def test_long_chain_is_cancelled_to_its_end(url: str) -> None:
    """Deeper than the interpreter's stack."""
    with QueueManager(url) as queues:
        first = queues.enqueue("t", 0)
        specs = [JobSpec(type="t", data=0, id="c-0", after=[first.id])]
        specs += [JobSpec(type="t", data=n, id=f"c-{n}", after=[f"c-{n - 1}"]) for n in range(1, 500)]
        jobs = [first, *queues.enqueue_many(specs)]
        assert queues.cancel(first.id)
        assert sum(row.cancelled for row in queues.status()) == len(jobs)
        assert balanced(queues.status())


def read_only(url: str, on: bool) -> None:
    """Let all new transactions of a database take no writes, and end what is connected."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    words = [
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {engine.url.database} SET default_transaction_read_only = {'on' if on else 'off'}",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    ]
    with engine.connect() as conn:
        for word in words:
            conn.execute(text(word))
    engine.dispose()


def test_refused_writes_are_waited_out(postgres_url: str) -> None:
    """After a failover, or with a full disk, a database takes no writes for a while."""
    url, ran = _made(postgres_url), list[int]()
    with QueueManager(url) as queues:

        @queues.job("t", attempts=1)
        async def t(ctx: Any, data: int) -> None:
            ran.append(data)

        worker = queues.worker(concurrency=4, lease=2)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            jobs = queues.enqueue_many("t", range(400))
            wait_until(lambda: ran, 20, what="the first job")
            read_only(url, True)
            with pytest.raises(StoreUnavailable, match="takes no writes now") as why:
                wait_until(lambda: queues.enqueue("t", 999) and None, 10, every=0.1)
            assert "read-only" in str(why.value)
            time.sleep(2.5)
            read_only(url, False)
            wait_until(lambda: all(job.info().is_finished for job in jobs), 30, every=0.2, what="the jobs")
        finally:
            worker.stop()
            thread.join(30)
        assert set(range(400)) <= set(ran)
        assert len(ran) <= 400 + 8 + ran.count(999), "only what a cut connection left in doubt ran twice"
        assert stalled(queues) == 0
