"""Jobs that a limit holds back: a claim reads as much with thousands of them as with none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from eventperf.queues import JobSpec, JobState, Limit, QueueManager
from eventperf.queues.backends.sql import limits as limiting
from eventperf.testing.queues import Station, balanced

pytestmark = pytest.mark.integration

MANY = 2500
KEYS = 50
LIMITS = {
    "rate": [Limit(type="held", rate=1, per="1h")],
    "cap": [Limit(type="held", concurrency=1)],
    "rate of each key": [Limit(type="held", rate=1, per="1h", per_key=True)],
    "cap of each key": [Limit(type="held", concurrency=1, per_key=True)],
    "many limits": [
        *(Limit(type=f"t{n}", concurrency=1) for n in range(50)),
        Limit(queue="low", rate=KEYS + 10, per="1h"),
        Limit(type="held", concurrency=1, per_key=True),
    ],
}
_READ = {
    "postgresql": "SELECT COALESCE(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_xact_user_tables",
    "mysql": "SELECT sum(variable_value) FROM information_schema.session_status "
    "WHERE variable_name LIKE 'handler_read%'",
}


def reads(engine: Engine) -> Callable[[], int]:
    """Count what the server reads for each transaction: rows, on SQLite steps of its machine."""
    found = [0]
    kind = engine.dialect.name
    if kind == "sqlite":

        def step() -> None:
            found[0] += 10

        @event.listens_for(engine, "begin")
        def _begin(conn: Any) -> None:
            conn.connection.driver_connection.set_progress_handler(step, 10)

    else:
        before = [0]

        def asked(conn: Any) -> int:
            return int(conn.execute(text(_READ[kind])).scalar_one())

        @event.listens_for(engine, "begin")
        def _start(conn: Any) -> None:
            before[0] = 0
            before[0] = asked(conn)

        @event.listens_for(engine, "commit")
        def _end(conn: Any) -> None:
            found[0] += asked(conn) - before[0]

    def total() -> int:
        n, found[0] = found[0], 0
        return n

    return total


def claims(url: str, limits: list[Limit], n: int) -> tuple[int, int]:
    """Return what a claim reads that finds a free job behind ``n``, and one that finds none."""
    with QueueManager(url, namespace=f"n{n}", limits=limits) as queues:
        station = Station(queues, "held", "free", lease_s=3600)
        jobs = [JobSpec(type="held", queue="low", fairness_key=f"k{k % KEYS}") for k in range(n)]
        queues.enqueue_many(jobs)
        while station.take():
            pass
        for _ in range(4):  # those in front are set aside; nobody has anything else to write
            station.take(1)
        count = reads(queues.backend.engine())  # type: ignore[attr-defined]
        took, empty = list[int](), list[int]()
        for _ in range(5):
            free = queues.enqueue("free", queue="low")
            count()
            (lease,) = station.take(1)
            took.append(count())
            assert lease.record.id == free.id
            assert station.end(lease)
            count()
            assert station.take(1) == []
            empty.append(count())
        assert balanced(queues.status())
        return min(took), min(empty)


@pytest.mark.parametrize("kind", LIMITS)
def test_a_claim_reads_as_much_behind_thousands_as_behind_none(
    url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiting, "RECHECK_S", 3600.0)  # none is looked at again, at any speed
    none = KEYS if any(limit.per_key for limit in LIMITS[kind]) else 1  # all of them start
    few, many = claims(url, LIMITS[kind], none), claims(url, LIMITS[kind], MANY)
    assert many[0] <= 1.5 * few[0] + 50, (few, many)
    assert many[1] <= 1.5 * few[1] + 50, (few, many)


def shelved(queues: QueueManager) -> tuple[int, int]:
    """Return how many jobs stand on shelves, and how many shelves there are."""
    with queues.backend.engine().connect() as conn:  # type: ignore[attr-defined]
        jobs, shelves = (
            conn.execute(text(f"SELECT count(*) FROM eventperf_{table}")).scalar_one()
            for table in ("held", "shelves")
        )
        return jobs, shelves


def test_held_jobs_are_waiting_jobs_to_everybody_else(url: str) -> None:
    """Listed, counted, found, changed, cancelled and purged; nothing of them stays on a shelf."""
    with QueueManager(url, limits=[Limit(type="t", concurrency=1)]) as queues:
        jobs = [queues.enqueue("t", n, tags=["x"]) for n in range(8)]
        station = Station(queues, "t", lease_s=3600)
        (lease,) = station.take()
        assert shelved(queues) == (7, 1)
        assert {row.name: row.waiting for row in queues.status()}["normal"] == 7
        assert {row.name: row.oldest_wait_s for row in queues.status()}["normal"] > 0
        expected = [job.id for job in jobs[1:]]
        assert [info.id for info in queues.jobs(state="waiting").jobs] == expected
        assert [info.id for info in queues.jobs(state="waiting", tag="x").jobs] == expected[::-1]
        page = queues.jobs(state="waiting", limit=3)
        again = queues.jobs(state="waiting", limit=9, cursor=page.cursor)
        assert [info.id for info in (*page.jobs, *again.jobs)] == expected
        assert {queues.job_info(i).state for i in expected} == {JobState.WAITING}
        assert jobs[2].cancel()
        queues.update(jobs[3].id, delay="1h")
        queues.update(jobs[4].id, queue="low")
        queues.update(jobs[5].id, priority=9)
        queues.update(jobs[6].id, data=66)
        assert shelved(queues)[0] == 3, "1, 6 and 7 are where they were"
        assert station.end(lease)
        assert [x.record.id for x in station.take()] == [jobs[5].id], "of the higher priority"
        assert queues.purge("normal") == 3
        assert queues.purge("low") == 1
        assert balanced(queues.status())
        station.take()
        assert shelved(queues)[0] == 0


def test_shelves_of_a_limit_that_is_no_more_are_opened(url: str) -> None:
    with QueueManager(url, limits=[Limit(type="t", rate=1, per="1h")]) as queues:
        jobs = [queues.enqueue("t", n).id for n in range(5)]
        assert Station(queues, "t", lease_s=3600).ids() == jobs[:1]
    with QueueManager(url) as queues:
        assert Station(queues, "t", lease_s=3600).drain() == jobs[1:]
        assert shelved(queues) == (0, 0)
        assert balanced(queues.status())


def test_a_paused_queue_takes_no_slot_from_the_others_of_its_limit(url: str) -> None:
    with QueueManager(url, limits=[Limit(type="t", concurrency=1)]) as queues:
        first = queues.enqueue("t", queue="high")
        stays = [queues.enqueue("t", queue="high").id for _ in range(3)]
        runs = [queues.enqueue("t", queue="low").id for _ in range(3)]
        station = Station(queues, "t", lease_s=3600)
        (lease,) = station.take()
        assert lease.record.id == first.id
        queues.pause("high")
        assert station.end(lease)
        assert station.drain() == runs
        queues.resume("high")
        assert station.drain() == stays
        assert shelved(queues) == (0, 0)


def test_jobs_on_a_shelf_that_somebody_deleted_hold_up_nobody(url: str) -> None:
    with QueueManager(url, limits=[Limit(type="t", concurrency=1)]) as queues:
        jobs = [queues.enqueue("t", n).id for n in range(6)]
        station = Station(queues, "t", lease_s=3600)
        (lease,) = station.take()
        with queues.backend.engine().begin() as conn:  # type: ignore[attr-defined]
            conn.execute(text("DELETE FROM eventperf_jobs WHERE id = :id"), {"id": jobs[1]})
        assert station.end(lease)
        done = list[str]()
        for _ in range(3):
            done += station.drain()
        assert done == jobs[2:]
        assert shelved(queues) == (0, 0)


def test_a_job_that_ends_beside_a_claim_has_its_shelf_looked_at(url: str) -> None:
    """The claim has counted it as running and is about to say that the shelf is looked at later."""
    if url.startswith("sqlite"):
        pytest.skip("one writer at a time")
    with QueueManager(url, limits=[Limit(type="t", concurrency=1)]) as queues:
        queues.enqueue_many("t", range(3))
        station = Station(queues, "t", lease_s=3600)
        (lease,) = station.take()
        engine = queues.backend.engine()  # type: ignore[attr-defined]
        with engine.begin() as conn:
            conn.execute(text("UPDATE eventperf_shelves SET at = 0"))
        end = threading.Thread(target=station.end, args=(lease,))
        with engine.begin() as conn:
            conn.execute(text("UPDATE eventperf_shelves SET at = 1e12"))
            end.start()
            end.join(0.5)  # it waits for this transaction, or has not come so far
        end.join(60)
        with engine.begin() as conn:
            assert conn.execute(text("SELECT at FROM eventperf_shelves")).scalar_one() == 0
        assert len(station.take()) == 1
