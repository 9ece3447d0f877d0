"""The conformance suite of :class:`~eventperf.queues.protocols.JobStore`.

A backend proves itself in a few lines::

    class TestMyStore(JobStoreSuite):
        @pytest.fixture
        def make(self, my_url):
            def build(**options):
                return QueueManager(my_url, **options)
            return build

Times are real here: leases are short, and upper bounds are those the guarantees name.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import (
    Exponential,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobSpec,
    JobState,
    NonRetryable,
    PayloadError,
    PayloadTooLarge,
    QueueManager,
    QueueStatus,
    ResultTimeout,
    Retry,
    UnknownQueue,
)
from eventperf.queues.protocols import Claimed, JobStore, Outcome, WorkerCard

__all__ = ["JobStoreSuite", "Make", "Station", "balanced"]

Make = Callable[..., QueueManager]

LEASE_S = 0.6


class Station:
    """A worker reduced to its calls on the store, for tests that decide every step themselves."""

    def __init__(
        self,
        queues: QueueManager,
        *types: str,
        room: dict[str, int] | None = None,
        lease_s: float = LEASE_S,
        name: str | None = None,
    ) -> None:
        self.store: JobStore = queues.backend.sync()
        self.room: dict[str, int] = room or dict.fromkeys(queues.queues, 1000)
        self.id: str = name or f"w-{uuid4().hex[:8]}"
        self.card: WorkerCard = WorkerCard(
            id=self.id, types=frozenset(types), room_by_queue=self.room, slots=1000, lease_s=lease_s
        )
        self.store.enter(self.card)
        self._backend = queues.backend

    def wait(self, timeout_s: float) -> bool:
        """Wait as a worker's thread does, on a face of its own."""
        return self._backend.waiter(self.card).wait(self.id, timeout_s)

    def claim(self, n: int = 1000) -> Claimed:
        return self.store.claim(self.id, self.room, n)

    def take(self, n: int = 1000) -> list[Any]:
        return self.claim(n).leases

    def ids(self, n: int = 1000) -> list[str]:
        return [lease.record.id for lease in self.take(n)]

    def end(self, lease: Any, kind: Any = "done", **facts: Any) -> bool:
        return self.store.finish([Outcome(lease.record.id, lease.token, kind, **facts)])[0]

    def drain(self) -> list[str]:
        """Run everything that is ready, one at a time, and return the ids in their order."""
        found = []
        while leases := self.take(1):
            found.append(leases[0].record.id)
            assert self.end(leases[0])
        return found


def balanced(rows: Sequence[QueueStatus]) -> bool:
    """Tell whether every job that came in is in exactly one state."""
    return all(
        r.enqueued + r.replayed - r.completed - r.failed - r.cancelled == r.waiting + r.delayed + r.active
        for r in rows
    )


def until(done: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Return the first true answer of ``done``."""
    end = time.monotonic() + timeout_s
    while not (answer := done()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return answer


@dataclass
class Report:
    """A typed payload."""

    event_id: int
    title: str = "untitled"


class JobStoreSuite:
    """What every backend must do. Subclasses give the fixture ``make``."""

    lacks: frozenset[str] = frozenset()
    """Capabilities the backend declares it does not have; their tests are skipped with this reason."""

    @pytest.fixture
    def make(self) -> Iterator[Make]:
        raise NotImplementedError("a fixture that builds managers on one store")

    @pytest.fixture
    def queues(self, make: Make) -> Iterator[QueueManager]:
        with make() as manager:
            yield manager

    # -- enqueue -----------------------------------------------------------------------------------

    def test_enqueued_job_is_claimed_once_and_completes(self, queues: QueueManager) -> None:
        job = queues.enqueue("t", {"n": 1})
        a, b = Station(queues, "t"), Station(queues, "t")
        (lease,) = a.take()
        assert b.take() == []
        assert (lease.record.id, lease.attempt, lease.crashes) == (job.id, 1, 0)
        assert queues.codec.decode(lease.record.payload) == {"n": 1}
        assert queues.job_info(job.id).state is JobState.ACTIVE
        assert a.end(lease, result=queues.codec.encode("fine"))
        assert job.result(1) == "fine"
        assert job.info().state is JobState.COMPLETED

    def test_record_survives_the_store(self, queues: QueueManager) -> None:
        queues.enqueue(
            "t", [1, "a", None], queue="high", priority=7, fairness_key="acme", timeout=9, attempts=5,
            headers={"trace": "abc"}, deadline=60, unique_key="u", unique_for="running",
        )  # fmt: skip
        (lease,) = Station(queues, "t").take()
        r = lease.record
        assert (r.type, r.queue, r.priority, r.key, r.timeout_s, r.attempts) == ("t", "high", 7, "acme", 9, 5)
        assert (dict(r.headers or {}), r.unique_key, r.unique_for) == ({"trace": "abc"}, "u", "running")
        assert abs(r.deadline_at - r.created_at - 60) < 0.01

    def test_enqueue_many_keeps_order_across_batches(self, queues: QueueManager) -> None:
        jobs = queues.enqueue_many("t", list(range(2500)))
        assert len({j.id for j in jobs}) == 2500
        station, got = Station(queues, "t"), []
        while part := station.take(700):
            got += [queues.codec.decode(lease.record.payload) for lease in part]
        assert got == list(range(2500))

    def test_enqueue_many_takes_mixed_specs(self, queues: QueueManager) -> None:
        specs = [JobSpec(type="a", data=1, queue="low"), JobSpec(type="b", data=2, queue="critical")]
        low, critical = queues.enqueue_many(specs)
        assert Station(queues, "a", "b").ids() == [critical.id, low.id]

    def test_nothing_is_sent_when_one_of_many_is_wrong(self, queues: QueueManager) -> None:
        queues.declare("typed", int)
        with pytest.raises(PayloadError):
            queues.enqueue_many("typed", [1, 2, "three"])
        assert sum(s.enqueued for s in queues.status()) == 0

    def test_repeated_push_of_an_id_is_harmless(self, queues: QueueManager) -> None:
        first = queues.enqueue("t", 1, id="order-17")
        assert queues.enqueue("t", 2, id="order-17") == first
        (lease,) = Station(queues, "t").take()
        assert queues.codec.decode(lease.record.payload) == 1
        assert sum(s.enqueued for s in queues.status()) == 1

    # -- order -------------------------------------------------------------------------------------

    def test_strict_order_between_queues_then_priority_then_fifo(self, queues: QueueManager) -> None:
        low = queues.enqueue("t", queue="low", priority=10)
        n1 = queues.enqueue("t", queue="normal", priority=2)
        n2 = queues.enqueue("t", queue="normal", priority=9)
        n3 = queues.enqueue("t", queue="normal", priority=2)
        c = queues.enqueue("t", queue="critical", priority=0)
        assert Station(queues, "t").drain() == [c.id, n2.id, n1.id, n3.id, low.id]

    def test_priority_is_the_callers_then_the_types_then_the_maps(self, queues: QueueManager) -> None:
        queues.declare("mine", priority=8)
        got = {
            name: queues.enqueue(name, **options).info().priority
            for name, options in {
                "mine": {}, "emergency_alert": {}, "user_report": {}, "data_backup": {}, "other": {},
                "real_time_notification": {"priority": 0},
            }.items()
        }  # fmt: skip
        assert got == {
            "mine": 8, "emergency_alert": 10, "user_report": 5, "data_backup": 1, "other": 3,
            "real_time_notification": 0,
        }  # fmt: skip

    def test_aging_bounds_how_often_a_class_is_passed_over(self, make: Make) -> None:
        with make(aging=10) as queues:
            low = queues.enqueue("t", queue="low")
            queues.enqueue_many("t", range(50), queue="critical")
            assert Station(queues, "t").drain().index(low.id) == 10

    def test_aging_works_across_separate_claims_and_priorities(self, make: Make) -> None:
        with make(aging=7) as queues:
            old = queues.enqueue("t", priority=0)
            queues.enqueue_many("t", range(30), priority=9)
            station, order = Station(queues, "t"), []
            while part := station.take(3):
                order += [lease.record.id for lease in part]
            assert order.index(old.id) == 7

    def test_without_aging_low_classes_wait_for_ever(self, make: Make) -> None:
        with make(aging=None) as queues:
            low = queues.enqueue("t", queue="low")
            queues.enqueue_many("t", range(300), queue="critical")
            assert Station(queues, "t").drain()[-1] == low.id

    def test_weighted_order_serves_by_shares(self, make: Make) -> None:
        shares = {"a": {"weight": 6}, "b": {"weight": 3}, "c": {"weight": 1}}
        with make(queues=shares, order="weighted") as queues:
            for name in shares:
                queues.enqueue_many("t", range(300), queue=name)
            served = [lease.record.queue for lease in Station(queues, "t").take(300)]
            assert {q: served.count(q) for q in shares} == {"a": 180, "b": 90, "c": 30}
            assert served[:10].count("a") == 6, "shares hold over short spans too"

    def test_fairness_keys_take_turns(self, queues: QueueManager) -> None:
        queues.enqueue_many("t", range(200), fairness_key="big")
        small = [job.id for k in ("x", "y") for job in queues.enqueue_many("t", range(5), fairness_key=k)]
        order = Station(queues, "t").drain()
        assert max(order.index(i) for i in small) < 20
        assert [i for i in order if i in small[:5]] == small[:5], "FIFO within a key"

    def test_claims_respect_room_per_queue(self, queues: QueueManager) -> None:
        queues.enqueue_many("t", range(9), queue="critical")
        queues.enqueue_many("t", range(9), queue="low")
        station = Station(queues, "t", room={"critical": 2, "low": 3})
        got = [lease.record.queue for lease in station.take(100)]
        assert got == ["critical"] * 2 + ["low"] * 3

    def test_worker_sees_only_its_queues(self, queues: QueueManager) -> None:
        queues.enqueue("t", queue="critical")
        low = queues.enqueue("t", queue="low")
        assert Station(queues, "t", room={"low": 5}).ids() == [low.id]

    # -- time --------------------------------------------------------------------------------------

    def test_delayed_job_waits_and_never_comes_early(self, queues: QueueManager) -> None:
        start = time.monotonic()
        job = queues.enqueue("t", delay=0.3)
        station = Station(queues, "t")
        first = station.claim()
        assert first.leases == []
        assert 0.1 < (first.next_in_s or 0) <= 0.3
        assert job.info().state is JobState.DELAYED
        until(station.take, 3)
        assert time.monotonic() - start >= 0.299

    def test_at_takes_epoch_seconds_and_past_means_now(self, queues: QueueManager) -> None:
        later = queues.enqueue("t", at=time.time() + 60)
        now = queues.enqueue("t", at=time.time() - 60)
        assert Station(queues, "t").ids() == [now.id]
        assert later.info().state is JobState.DELAYED

    def test_deadline_passed_means_dead_letter_without_a_run(self, queues: QueueManager) -> None:
        job = queues.enqueue("t", deadline=0.05)
        time.sleep(0.1)
        claimed = Station(queues, "t").claim()
        assert claimed.leases == []
        assert [e[0] for e in claimed.expired] == [job.id]
        assert "deadline" in (job.info().error or "")

    # -- leases ------------------------------------------------------------------------------------

    def test_orphan_runs_again_and_late_finisher_is_refused(self, queues: QueueManager) -> None:
        job = queues.enqueue("t")
        dead, live = Station(queues, "t"), Station(queues, "t")
        (old,) = dead.take()
        assert live.take() == []
        (new,) = until(live.take, LEASE_S + 1)
        assert (new.attempt, new.crashes) == (1, 1), "a crash is no attempt"
        assert new.token > old.token
        assert dead.end(old) is False
        assert live.end(new) is True
        assert job.info().state is JobState.COMPLETED
        assert sum(s.completed for s in queues.status()) == 1

    def test_claim_says_when_the_next_lease_ends(self, queues: QueueManager) -> None:
        queues.enqueue("t")
        Station(queues, "t").take()
        wait = Station(queues, "t").claim().next_in_s
        assert wait is not None
        assert 0 < wait <= LEASE_S

    def test_renewed_lease_is_kept(self, queues: QueueManager) -> None:
        queues.enqueue("t")
        busy, idle = Station(queues, "t"), Station(queues, "t")
        (lease,) = busy.take()
        end = time.monotonic() + 2 * LEASE_S
        while time.monotonic() < end:
            assert busy.store.renew(busy.id, [(lease.record.id, lease.token)]).lost == []
            assert idle.take() == []
            time.sleep(LEASE_S / 6)
        assert busy.end(lease)

    def test_renewal_after_the_loss_says_lost(self, queues: QueueManager) -> None:
        job = queues.enqueue("t")
        slow, quick = Station(queues, "t"), Station(queues, "t")
        (lease,) = slow.take()
        until(quick.take, LEASE_S + 1)
        assert slow.store.renew(slow.id, [(job.id, lease.token)]).lost == [job.id]

    def test_crashes_are_counted_apart_and_poison_goes_to_the_dead_letter(self, make: Make) -> None:
        with make(max_crashes=3) as queues:
            job = queues.enqueue("t")
            for crash in range(3):
                (lease,) = until(Station(queues, "t").take, LEASE_S + 1)
                assert (lease.attempt, lease.crashes) == (1, crash)
            until(lambda: Station(queues, "t").claim().stalled or job.info().is_finished, LEASE_S + 1)
            info = job.info()
            assert info.state is JobState.FAILED
            assert info.crashes == 3
            assert "died 3 times" in (info.error or "")

    def test_released_job_goes_back_to_the_head(self, queues: QueueManager) -> None:
        first, second = queues.enqueue_many("t", [1, 2])
        station = Station(queues, "t")
        (lease,) = station.take(1)
        assert station.end(lease, "release")
        (again,) = station.take(1)
        assert (again.record.id, again.attempt, again.crashes) == (first.id, 1, 0)
        assert station.ids() == [second.id]

    def test_finish_twice_counts_once(self, queues: QueueManager) -> None:
        queues.enqueue("t")
        station = Station(queues, "t")
        (lease,) = station.take()
        assert [station.end(lease), station.end(lease)] == [True, False]
        assert sum(s.completed for s in queues.status()) == 1

    # -- failure -----------------------------------------------------------------------------------

    def test_retry_waits_its_delay_and_counts_attempts(self, queues: QueueManager) -> None:
        job = queues.enqueue("t")
        station = Station(queues, "t")
        (lease,) = station.take()
        assert station.end(lease, "retry", delay_s=0.2, error="boom")
        assert job.info().state is JobState.DELAYED
        assert job.info().error == "boom"
        assert station.take() == []
        (again,) = until(station.take, 2)
        assert (again.attempt, again.crashes) == (2, 0)
        assert station.end(again, "retry", count=False)
        (third,) = until(station.take, 2)
        assert third.attempt == 2

    def test_dead_jobs_are_listed_and_replayed(self, queues: QueueManager) -> None:
        jobs = queues.enqueue_many("t", range(3))
        station = Station(queues, "t")
        for lease in station.take():
            assert station.end(lease, "dead", error=f"bad {lease.record.id}")
        listed = queues.dead("normal")
        assert [i.id for i in listed] == [j.id for j in reversed(jobs)]
        assert listed[0].error == f"bad {jobs[2].id}"
        assert queues.retry(jobs[1].id)
        assert not queues.retry(jobs[1].id)
        assert queues.replay("normal") == 2
        leases = station.take()
        assert {lease.record.id for lease in leases} == {j.id for j in jobs}
        assert {lease.attempt for lease in leases} == {1}
        (row,) = (s for s in queues.status() if s.name == "normal")
        assert (row.failed, row.dead, row.replayed) == (3, 0, 3)
        assert balanced(queues.status())

    def test_retention_keeps_the_last_completed_and_failed(self, make: Make) -> None:
        kept = {"q": {"keep_completed": 5, "keep_failed": 3}}
        with make(queues=kept) as queues:
            station = Station(queues, "t")
            done = queues.enqueue_many("t", range(8))
            for lease in station.take():
                assert station.end(lease)
            bad = queues.enqueue_many("t", range(6))
            for lease in station.take():
                assert station.end(lease, "dead", error="x")
            store = queues.backend.sync()
            assert [i.id for i in store.listing("q", JobState.COMPLETED)] == [j.id for j in done[:2:-1]]
            assert [i.id for i in queues.dead("q")] == [j.id for j in bad[:2:-1]]
            (row,) = queues.status()
            assert (row.completed, row.failed, row.dead) == (8, 6, 3)
            with pytest.raises(JobNotFound):
                bad[0].info()

    def test_result_is_gone_after_its_time(self, make: Make) -> None:
        with make(result_ttl=0.2, queues={"q": {"keep_completed": 0}}) as queues:
            job = queues.enqueue("t")
            station = Station(queues, "t")
            assert station.end(station.take()[0], result=queues.codec.encode(5))
            assert job.result(0) == 5
            time.sleep(0.3)
            with pytest.raises(JobNotFound):
                job.result(0)

    # -- dedup -------------------------------------------------------------------------------------

    def test_unique_while_waiting(self, queues: QueueManager) -> None:
        first = queues.enqueue("t", unique_key="k")
        second = queues.enqueue("t", unique_key="k")
        assert (second.id, second.duplicate, first.duplicate) == (first.id, True, False)
        assert not queues.enqueue("other", unique_key="k").duplicate, "keys belong to a type"
        Station(queues, "t").take()
        assert not queues.enqueue("t", unique_key="k").duplicate

    def test_unique_until_it_has_ended(self, queues: QueueManager) -> None:
        first = queues.enqueue("t", unique_key="k", unique_for="running")
        station = Station(queues, "t")
        (lease,) = station.take()
        assert queues.enqueue("t", unique_key="k", unique_for="running").id == first.id
        assert station.end(lease, "retry")
        assert queues.enqueue("t", unique_key="k", unique_for="running").duplicate
        (lease,) = until(station.take, 2)
        assert station.end(lease)
        assert not queues.enqueue("t", unique_key="k", unique_for="running").duplicate

    def test_unique_for_a_time(self, queues: QueueManager) -> None:
        queues.enqueue("t", unique_key="k", unique_for=0.3)
        station = Station(queues, "t")
        assert station.end(station.take()[0])
        assert queues.enqueue("t", unique_key="k", unique_for=0.3).duplicate
        time.sleep(0.35)
        assert not queues.enqueue("t", unique_key="k", unique_for=0.3).duplicate

    def test_unique_inside_one_batch(self, queues: QueueManager) -> None:
        jobs = queues.enqueue_many("t", range(4), unique_key="k")
        assert {j.id for j in jobs} == {jobs[0].id}
        assert [j.duplicate for j in jobs] == [False, True, True, True]

    def test_cancel_frees_the_unique_key(self, queues: QueueManager) -> None:
        first = queues.enqueue("t", unique_key="k", delay=60)
        assert first.cancel()
        assert not queues.enqueue("t", unique_key="k").duplicate

    # -- control -----------------------------------------------------------------------------------

    def test_cancel_waiting_delayed_and_running(self, queues: QueueManager) -> None:
        running = queues.enqueue("t")
        station = Station(queues, "t")
        (lease,) = station.take()
        waiting, delayed = queues.enqueue("t"), queues.enqueue("t", delay=60)
        assert [waiting.cancel(), delayed.cancel(), running.cancel()] == [True, True, True]
        assert waiting.info().state is delayed.info().state is JobState.CANCELLED
        assert station.take() == []
        assert station.store.renew(station.id, [(running.id, lease.token)]).cancel == [running.id]
        assert station.end(lease, "cancelled")
        with pytest.raises(JobCancelled):
            running.result(0)
        assert not running.cancel()
        assert not queues.cancel("nobody")
        assert sum(s.cancelled for s in queues.status()) == 3
        assert balanced(queues.status())

    def test_cancelled_orphan_is_not_run_again(self, queues: QueueManager) -> None:
        job = queues.enqueue("t")
        Station(queues, "t").take()
        assert job.cancel()
        other = Station(queues, "t")
        until(lambda: other.claim().stalled, LEASE_S + 1)
        assert job.info().state is JobState.CANCELLED
        assert other.take() == []

    def test_paused_queue_hands_out_nothing(self, queues: QueueManager) -> None:
        job = queues.enqueue("t", queue="low")
        queues.pause("low")
        station = Station(queues, "t")
        assert station.take() == []
        assert [s.name for s in queues.status() if s.paused] == ["low"]
        queues.resume("low")
        assert station.ids() == [job.id]

    def test_purge_forgets_one_state_of_one_queue(self, queues: QueueManager) -> None:
        jobs = queues.enqueue_many("t", range(3), queue="low")
        keep = queues.enqueue("t", queue="low", delay=60)
        other = queues.enqueue("t", queue="high")
        assert queues.purge("low") == 3
        assert Station(queues, "t").ids() == [other.id]
        assert keep.info().state is JobState.DELAYED
        assert queues.purge("low", "delayed") == 1
        assert balanced(queues.status())
        assert jobs[0].info().state is JobState.CANCELLED

    def test_waiting_jobs_are_listed_in_their_order(self, queues: QueueManager) -> None:
        ids = [queues.enqueue("t", priority=p).id for p in (1, 9, 1)]
        listed = queues.backend.sync().listing("normal", JobState.WAITING, limit=10)
        assert [i.id for i in listed] == [ids[1], ids[0], ids[2]]

    # -- types -------------------------------------------------------------------------------------

    def test_worker_is_never_given_types_it_does_not_know(self, queues: QueueManager) -> None:
        new = queues.enqueue_many("new", range(3))
        old = queues.enqueue("old")
        before = Station(queues, "old")
        assert before.ids() == [old.id]
        assert before.take() == []
        assert sum(s.waiting for s in queues.status()) == 3
        assert Station(queues, "old", "new").ids() == [j.id for j in new]

    def test_type_nobody_knows_waits_its_grace_then_dies_with_a_reason(self, make: Make) -> None:
        with make(unknown_grace=0.3) as queues:
            job = queues.enqueue("gone")
            station = Station(queues, "other")
            assert not station.claim().expired
            assert job.info().state is JobState.WAITING
            until(lambda: station.claim().expired, 3)
            assert "gone" in (job.info().error or "")
            assert [i.id for i in queues.dead("normal")] == [job.id]

    def test_parked_job_can_be_cancelled(self, queues: QueueManager) -> None:
        job = queues.enqueue("new")
        assert Station(queues, "old").take() == []
        assert job.cancel()
        assert Station(queues, "new").take() == []
        assert balanced(queues.status())

    # -- counts ------------------------------------------------------------------------------------

    def test_counts_add_up_in_every_state(self, queues: QueueManager) -> None:
        queues.enqueue_many("t", range(10), queue="low")
        queues.enqueue_many("t", range(4), queue="low", delay=60)
        station = Station(queues, "t")
        leases = station.take(6)
        station.end(leases[0])
        station.end(leases[1], "dead", error="x")
        station.end(leases[2], "retry", delay_s=60)
        (row,) = (s for s in queues.status() if s.name == "low")
        assert (row.waiting, row.delayed, row.active) == (4, 5, 3)
        assert (row.completed, row.failed, row.dead, row.retried, row.enqueued) == (1, 1, 1, 1, 14)
        assert row.workers == 1
        assert balanced(queues.status())

    def test_status_has_rates_and_the_oldest_wait(self, queues: QueueManager) -> None:
        queues.enqueue_many("t", range(20), queue="high", priority=9)
        time.sleep(0.15)
        queues.enqueue("t", queue="high", priority=1)
        (row,) = (s for s in queues.status() if s.name == "high")
        assert 0.1 < row.oldest_wait_s < 5
        assert row.arrival_rate > 0
        backlog = queues.backlog()
        assert backlog.depth == 21
        assert backlog.desired_workers(10) >= 1

    def test_counts_stay_exact_under_concurrent_workers(self, queues: QueueManager) -> None:
        queues.enqueue_many("t", range(600))
        seen: list[str] = []

        def work() -> None:
            station = Station(queues, "t", lease_s=30)
            while leases := station.take(7):
                assert all(station.store.finish([Outcome(x.record.id, x.token) for x in leases]))
                seen.extend(x.record.id for x in leases)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(t.is_alive() for t in threads):
            assert balanced(queues.status())
        for thread in threads:
            thread.join()
        assert len(seen) == len(set(seen)) == 600
        assert sum(s.completed for s in queues.status()) == 600

    # -- notes -------------------------------------------------------------------------------------

    def test_progress_and_steps_need_the_lease(self, queues: QueueManager) -> None:
        job = queues.enqueue("t")
        station = Station(queues, "t")
        (lease,) = station.take()
        assert station.store.note(job.id, lease.token, progress=0.25)
        assert station.store.note(job.id, lease.token, step="charged")
        assert not station.store.note(job.id, lease.token + 1, step="mailed")
        assert job.info().progress == 0.25
        assert station.store.steps(job.id) == {"charged"}
        assert station.end(lease, "retry")
        assert station.store.steps(job.id) == {"charged"}, "steps outlive a failed try"

    # -- waking ------------------------------------------------------------------------------------

    def test_wait_ends_when_work_comes(self, queues: QueueManager) -> None:
        station = Station(queues, "t")
        assert station.take() == []
        woken: list[float] = []
        thread = threading.Thread(target=lambda: woken.append(time.monotonic() if station.wait(10) else 0))
        thread.start()
        time.sleep(0.1)
        sent = time.monotonic()
        queues.enqueue("t")
        thread.join(5)
        assert woken
        assert 0 <= woken[0] - sent < 1

    def test_push_between_claim_and_wait_is_not_missed(self, queues: QueueManager) -> None:
        station = Station(queues, "t")
        assert station.take() == []
        queues.enqueue("t")
        start = time.monotonic()
        assert station.wait(5)
        assert time.monotonic() - start < 1

    def test_wait_gives_up_after_its_time(self, queues: QueueManager) -> None:
        station = Station(queues, "t")
        station.take()
        start = time.monotonic()
        assert not station.wait(0.2)
        assert 0.15 < time.monotonic() - start < 2

    # -- the whole, with real workers --------------------------------------------------------------

    def test_worker_runs_coroutines_and_threads(self, queues: QueueManager) -> None:
        @queues.job("async")
        async def double(ctx: Any, data: int) -> int:
            await asyncio.sleep(0.001)
            return data * 2

        @queues.job("sync", queue="critical")
        def shout(ctx: Any, data: Report) -> str:
            return f"{data.title.upper()} {data.event_id}"

        jobs = [double.enqueue(4), shout.enqueue(Report(7, "expo"))]
        queues.worker().run(burst=True)
        assert [j.result(0) for j in jobs] == [8, "EXPO 7"]

    def test_failing_handler_is_retried_then_dead(self, queues: QueueManager) -> None:
        tries: list[int] = []

        @queues.job("bad", attempts=3, backoff=Exponential(0.01, jitter=0))
        async def bad(ctx: Any, data: None) -> None:
            tries.append(ctx.attempt)
            raise ValueError("no luck")

        job = bad.enqueue(None)
        _run_until(queues, lambda: job.info().is_finished)
        assert tries == [1, 2, 3]
        with pytest.raises(JobFailed, match="ValueError: no luck"):
            job.result(0)

    def test_non_retryable_and_unfit_payload_die_at_once(self, queues: QueueManager) -> None:
        @queues.job("final")
        async def final(ctx: Any, data: None) -> None:
            raise NonRetryable("never")

        @queues.job("typed")
        async def typed(ctx: Any, data: Report) -> None:
            raise AssertionError("must not run")

        @queues.job("again", attempts=2)
        async def again(ctx: Any, data: None) -> int:
            if ctx.attempt == 1:
                raise Retry(0.01)
            return int(ctx.attempt)

        first = final.enqueue(None)
        second = QueueManager(queues.backend).enqueue("typed", {"wrong": 1})
        third = again.enqueue(None)
        _run_until(queues, lambda: third.info().is_finished)
        assert (first.info().attempt, second.info().attempt) == (1, 1)
        assert "never" in (first.info().error or "")
        assert "does not fit" in (second.info().error or "")
        assert third.result(0) == 2

    def test_async_twins_do_the_same(self, queues: QueueManager) -> None:
        @queues.job("t")
        async def t(ctx: Any, data: int) -> int:
            async with ctx.once("step") as todo:
                assert todo
            await ctx.aprogress(0.5)
            return data + 1

        async def main() -> None:
            one = await t.aenqueue(1)
            many = await queues.aenqueue_many("t", [2, 3])
            gone = await t.aenqueue(9, delay=60)
            assert await gone.acancel()
            worker = queues.worker(concurrency=3)
            running = asyncio.create_task(worker.arun())
            assert [await j.aresult(10) for j in (one, *many)] == [2, 3, 4]
            with pytest.raises(ResultTimeout):
                await (await t.aenqueue(5, delay=60)).aresult(0.01)
            assert (await one.ainfo()).state is JobState.COMPLETED
            await queues.apause("low")
            assert [s.name for s in await queues.astatus() if s.paused] == ["low"]
            await queues.aresume("low")
            assert await queues.adead("normal") == []
            assert (await queues.abacklog()).depth == 0
            worker.stop()
            await running
            await queues.aclose()

        asyncio.run(main())

    def test_time_out_stops_a_coroutine(self, queues: QueueManager) -> None:
        @queues.job("slow", timeout=0.05, attempts=1)
        async def slow(ctx: Any, data: None) -> None:
            await asyncio.sleep(30)

        job = slow.enqueue(None)
        _run_until(queues, lambda: job.info().is_finished)
        assert "timed out after 0.05 s" in (job.info().error or "")

    def test_running_coroutine_is_cancelled_soon(self, queues: QueueManager) -> None:
        started = threading.Event()

        @queues.job("long")
        async def long(ctx: Any, data: None) -> None:
            started.set()
            await asyncio.sleep(60)

        job = long.enqueue(None)

        def cancelled() -> bool:
            if started.is_set() and not job.info().is_finished:
                job.cancel()
            return job.info().is_finished

        _run_until(queues, cancelled, lease=30)
        assert job.info().state is JobState.CANCELLED

    def test_stop_hands_running_jobs_back(self, queues: QueueManager) -> None:
        started = threading.Event()

        @queues.job("long")
        async def long(ctx: Any, data: None) -> None:
            started.set()
            await asyncio.sleep(60)

        job = long.enqueue(None)
        _run_until(queues, started.is_set, grace=0.05)
        info = job.info()
        assert (info.state, info.attempt, info.crashes) == (JobState.WAITING, 0, 0)

    def test_stop_lets_running_jobs_finish(self, queues: QueueManager) -> None:
        started = threading.Event()

        @queues.job("short")
        async def short(ctx: Any, data: None) -> str:
            started.set()
            await asyncio.sleep(0.2)
            return "done"

        job = short.enqueue(None)
        _run_until(queues, started.is_set, grace=10)
        assert job.result(0) == "done"

    def test_blocked_loop_keeps_its_leases(self, queues: QueueManager) -> None:
        started = threading.Event()

        @queues.job("blocking")
        async def blocking(ctx: Any, data: None) -> int:
            started.set()
            time.sleep(3 * LEASE_S)  # noqa: ASYNC251 - what a careless handler does
            return int(ctx.crashes)

        job = blocking.enqueue(None)
        other = Station(queues, "blocking")
        stolen: list[Any] = []

        def watch() -> bool:
            if started.is_set():
                stolen.extend(other.take())
            return job.info().is_finished

        _run_until(queues, watch, lease=LEASE_S)
        assert stolen == []
        assert job.result(0) == 0

    def test_events_tell_what_happened(self, queues: QueueManager) -> None:
        seen: list[tuple[str, str]] = []
        for kind in ("enqueued", "started", "completed", "retried", "failed"):
            queues.on(kind, lambda e: seen.append((e.kind, e.type)))

        @queues.job("good")
        async def good(ctx: Any, data: None) -> None: ...

        @queues.job("bad", attempts=2, backoff=Exponential(0, jitter=0))
        async def bad(ctx: Any, data: None) -> None:
            raise ValueError

        job = (good.enqueue(None), bad.enqueue(None))[1]
        _run_until(queues, lambda: job.info().is_finished)
        until(lambda: ("failed", "bad") in seen, 2)
        assert [k for k, t in seen if t == "good"] == ["enqueued", "started", "completed"]
        assert [k for k, t in seen if t == "bad"] == ["enqueued", "started", "retried", "started", "failed"]

    def test_mean_time_to_start_is_short_even_with_full_slots(self, queues: QueueManager) -> None:
        """Peers sleep when their slots are full; 100 jobs of 5 ms on 5 slots need 0.1 s of work."""

        @queues.job("nap")
        async def nap(ctx: Any, data: int) -> None:
            await asyncio.sleep(0.005)

        queues.enqueue_many("nap", range(100))
        start = time.monotonic()
        queues.worker(concurrency=5).run(burst=True)
        assert time.monotonic() - start < 2.5
        assert sum(s.completed for s in queues.status()) == 100

    # -- bad input ---------------------------------------------------------------------------------

    def test_bad_arguments_are_refused_by_name(self, queues: QueueManager) -> None:
        for options, argument in (
            ({"queue": "nope"}, "queue"),
            ({"priority": -1}, "priority"),
            ({"priority": 1.5}, "priority"),
            ({"delay": -3}, "delay"),
            ({"delay": 1, "at": 5.0}, "at"),
            ({"unique_key": ""}, "unique_key"),
            ({"unique_key": "k", "unique_for": "sometimes"}, "unique_for"),
            ({"deadline": 0}, "deadline"),
            ({"fairness_key": 7}, "fairness_key"),
            ({"attempts": 0}, "attempts"),
            ({"headers": {"a": 1}}, "headers"),
            ({"colour": "red"}, "option"),
        ):
            with pytest.raises(ConfigurationError) as caught:
                queues.enqueue("t", **options)
            assert caught.value.argument == argument
        with pytest.raises(UnknownQueue):
            queues.pause("nope")
        with pytest.raises(PayloadTooLarge):
            queues.enqueue("t", "x" * 2_000_000)
        with pytest.raises(PayloadError):
            queues.enqueue("t", object())
        assert sum(s.enqueued for s in queues.status()) == 0


def _run_until(
    queues: QueueManager, done: Callable[[], Any], *, lease: float = 5.0, grace: float = 5.0
) -> None:
    """Run a worker in a thread until ``done``."""
    worker = queues.worker(concurrency=4, lease=lease, grace=grace)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(done, 15)
    finally:
        worker.stop()
        thread.join(20)
    assert not thread.is_alive()
