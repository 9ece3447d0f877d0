"""The job store suite: dedup, control, types, counts, notes, waking and bad input."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import (
    JobCancelled,
    JobNotFound,
    JobSpec,
    JobState,
    PayloadError,
    PayloadTooLarge,
    QueueManager,
    UnknownQueue,
)
from eventperf.queues.protocols import Outcome

from .tools import LEASE_S, Make, Station, StoreTests, balanced, until, whole


class ControlTests(StoreTests):
    """What people and producers ask of the queues."""

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
        station = Station(queues, "t", lease_s=30)
        (lease,) = station.take()
        assert queues.enqueue("t", unique_key="k", unique_for="running").id == first.id
        assert station.end(lease, "retry")
        assert queues.enqueue("t", unique_key="k", unique_for="running").duplicate
        (lease,) = until(station.take)
        assert station.end(lease)
        assert not queues.enqueue("t", unique_key="k", unique_for="running").duplicate

    def test_unique_for_a_time(self, queues: QueueManager) -> None:
        queues.enqueue("t", unique_key="k", unique_for=1.5)
        station = Station(queues, "t", lease_s=30)
        assert station.end(station.take()[0])
        assert queues.enqueue("t", unique_key="k", unique_for=1.5).duplicate
        until(lambda: not queues.enqueue("t", unique_key="k", unique_for=1.5).duplicate)

    def test_unique_inside_one_batch(self, queues: QueueManager) -> None:
        jobs = queues.enqueue_many("t", range(4), unique_key="k")
        assert {j.id for j in jobs} == {jobs[0].id}
        assert [j.duplicate for j in jobs] == [False, True, True, True]

    def test_an_id_stands_for_one_job_of_one_type(self, queues: QueueManager) -> None:
        first = queues.enqueue("t", 1, id="a-1")
        assert queues.enqueue("t", 1, id="a-1").id == first.id
        for other in (lambda: queues.enqueue("other", 1, id="a-1"), lambda: asyncio.run(self._other(queues))):
            with pytest.raises(ConfigurationError, match="'t'"):
                other()
        (info,) = queues.backend.sync().listing("normal", JobState.WAITING)
        assert (info.id, info.type) == (first.id, "t")

    async def _other(self, queues: QueueManager) -> None:
        try:
            await queues.aenqueue_many([JobSpec(type="t"), JobSpec(type="other", id="a-1", delay=60)])
        finally:
            for job in queues.backend.sync().listing("normal", JobState.WAITING):
                if job.id != "a-1":
                    queues.cancel(job.id)
            await queues.aclose()

    def test_cancel_frees_the_unique_key(self, queues: QueueManager) -> None:
        first = queues.enqueue("t", unique_key="k", delay=60)
        assert first.cancel()
        assert not queues.enqueue("t", unique_key="k").duplicate

    # -- control -----------------------------------------------------------------------------------

    def test_cancel_waiting_delayed_and_running(self, queues: QueueManager) -> None:
        running = queues.enqueue("t")
        station = Station(queues, "t", lease_s=30)
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

    @whole
    def test_waiting_jobs_are_listed_in_their_order(self, queues: QueueManager) -> None:
        ids = [queues.enqueue("t", priority=p).id for p in (1, 9, 1)]
        listed = queues.backend.sync().listing("normal", JobState.WAITING, limit=10)
        assert [i.id for i in listed] == [ids[1], ids[0], ids[2]]

    @whole
    def test_operators_in_tasks_do_the_same(self, queues: QueueManager) -> None:
        station = Station(queues, "t", lease_s=30)
        jobs = queues.enqueue_many("t", range(4))
        for lease in station.take():
            assert station.end(lease, "dead", error="x")

        async def main() -> None:
            assert await queues.aretry(jobs[2].id)
            assert not await queues.aretry(jobs[2].id), "it is out of the dead letter"
            with pytest.raises(JobNotFound):
                await queues.aretry("nobody")
            assert await queues.areplay("normal", limit=1) == 1
            assert await queues.areplay("normal", [jobs[3].id]) == 1
            assert [info.id for info in await queues.adead("normal")] == [jobs[1].id]
            assert not await queues.adrain(0.05), "three wait"
            waiting = asyncio.create_task(queues.adrain(20))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            assert await queues.apurge("normal") == 3
            assert await waiting
            assert await queues.apurge("normal", "failed") == 1
            with pytest.raises(ConfigurationError, match="state"):
                await queues.apurge("normal", "active")
            assert await queues.adrain(0)
            await queues.aclose()

        asyncio.run(main())
        assert balanced(queues.status())
        (row,) = (s for s in queues.status() if s.name == "normal")
        assert (row.replayed, row.dead, row.waiting, row.cancelled) == (3, 0, 0, 3)

    # -- types -------------------------------------------------------------------------------------

    @whole
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
            until(lambda: station.claim().expired)
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
        station = Station(queues, "t", lease_s=30)
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
        station = Station(queues, "t", lease_s=30)
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
