"""The job store suite: enqueueing, order, time, leases and failures."""

from __future__ import annotations

import time

import pytest

from eventperf.queues import (
    JobNotFound,
    JobSpec,
    JobState,
    PayloadError,
    QueueManager,
)

from .tools import LEASE_S, Make, Station, StoreTests, balanced, until, whole


class CoreTests(StoreTests):
    """What makes a queue a queue."""

    # -- enqueue -----------------------------------------------------------------------------------

    def test_enqueued_job_is_claimed_once_and_completes(self, queues: QueueManager) -> None:
        job = queues.enqueue("t", {"n": 1})
        a, b = Station(queues, "t", lease_s=30), Station(queues, "t", lease_s=30)
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

    @whole
    def test_enqueue_many_keeps_order_across_batches(self, queues: QueueManager) -> None:
        jobs = queues.enqueue_many("t", list(range(2500)))
        assert len({j.id for j in jobs}) == 2500
        station, got = Station(queues, "t", lease_s=30), []
        while part := station.take(700):
            got += [queues.codec.decode(lease.record.payload) for lease in part]
        assert got == list(range(2500))

    @whole
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

    @whole
    def test_strict_order_between_queues_then_priority_then_fifo(self, queues: QueueManager) -> None:
        low = queues.enqueue("t", queue="low", priority=10)
        n1 = queues.enqueue("t", queue="normal", priority=2)
        n2 = queues.enqueue("t", queue="normal", priority=9)
        n3 = queues.enqueue("t", queue="normal", priority=2)
        c = queues.enqueue("t", queue="critical", priority=0)
        assert Station(queues, "t").drain() == [c.id, n2.id, n1.id, n3.id, low.id]

    def test_priority_is_the_callers_then_the_types_then_the_maps(self, queues: QueueManager) -> None:
        queues.declare("mine", priority=8)
        asked = {
            "mine": None, "emergency_alert": None, "user_report": None, "data_backup": None, "other": None,
            "real_time_notification": 0,
        }  # fmt: skip
        got = {name: queues.enqueue(name, priority=asks).info().priority for name, asks in asked.items()}
        assert got == {
            "mine": 8, "emergency_alert": 10, "user_report": 5, "data_backup": 1, "other": 3,
            "real_time_notification": 0,
        }  # fmt: skip

    @whole
    def test_aging_bounds_how_often_a_class_is_passed_over(self, make: Make) -> None:
        with make(aging=10) as queues:
            low = queues.enqueue("t", queue="low")
            queues.enqueue_many("t", range(50), queue="critical")
            assert Station(queues, "t").drain().index(low.id) == 10

    @whole
    def test_aging_works_across_separate_claims_and_priorities(self, make: Make) -> None:
        with make(aging=7) as queues:
            old = queues.enqueue("t", priority=0)
            queues.enqueue_many("t", range(30), priority=9)
            station, order = Station(queues, "t", lease_s=30), []
            while part := station.take(3):
                order += [lease.record.id for lease in part]
            assert order.index(old.id) == 7

    @whole
    def test_without_aging_low_classes_wait_for_ever(self, make: Make) -> None:
        with make(aging=None) as queues:
            low = queues.enqueue("t", queue="low")
            queues.enqueue_many("t", range(300), queue="critical")
            assert Station(queues, "t").drain()[-1] == low.id

    @whole
    def test_weighted_order_serves_by_shares(self, make: Make) -> None:
        shares = {"a": {"weight": 6}, "b": {"weight": 3}, "c": {"weight": 1}}
        with make(queues=shares, order="weighted") as queues:
            for name in shares:
                queues.enqueue_many("t", range(300), queue=name)
            served = [lease.record.queue for lease in Station(queues, "t").take(300)]
            assert {q: served.count(q) for q in shares} == {"a": 180, "b": 90, "c": 30}
            assert served[:10].count("a") == 6, "shares hold over short spans too"

    @whole
    def test_fairness_keys_take_turns(self, queues: QueueManager) -> None:
        queues.enqueue_many("t", range(200), fairness_key="big")
        small = [job.id for k in ("x", "y") for job in queues.enqueue_many("t", range(5), fairness_key=k)]
        order = Station(queues, "t", lease_s=30).drain()
        assert max(order.index(i) for i in small) < 20
        assert [i for i in order if i in small[:5]] == small[:5], "FIFO within a key"

    @whole
    def test_cancelled_jobs_leave_no_turn_of_their_key_behind(self, queues: QueueManager) -> None:
        for key in ("a", None):
            for kept, gone in (
                (0, (0, 1, 2, 3, 4)),
                (0, (4, 3, 2, 1, 0)),
                (0, (2, 0, 4, 3, 1)),
                (1, (2, 1, 3, 4)),
            ):
                queues.enqueue_many("t", range(5), fairness_key="other")
                mine = queues.enqueue_many("t", range(5), fairness_key=key)
                assert all(queues.cancel(mine[n].id) for n in gone)
                again = queues.enqueue("t", fairness_key=key)
                served = Station(queues, "t", lease_s=30).drain()
                assert served.index(again.id) <= 1 + 2 * kept, f"{key}: {gone} cancelled"

    @whole
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
        station = Station(queues, "t")
        later = queues.enqueue("t", delay=600)
        first = station.claim()
        assert first.leases == []
        assert 0.1 < (first.next_in_s or 0) <= 600
        assert later.info().state is JobState.DELAYED
        start = time.monotonic()
        soon = queues.enqueue("t", delay=0.3)
        assert until(station.ids) == [soon.id]
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

    @whole
    def test_released_job_goes_back_to_the_head(self, queues: QueueManager) -> None:
        first, second = queues.enqueue_many("t", [1, 2])
        station = Station(queues, "t", lease_s=30)
        (lease,) = station.take(1)
        assert station.end(lease, "release")
        (again,) = station.take(1)
        assert (again.record.id, again.attempt, again.crashes) == (first.id, 1, 0)
        assert station.ids() == [second.id]

    def test_finish_twice_counts_once(self, queues: QueueManager) -> None:
        queues.enqueue("t")
        station = Station(queues, "t", lease_s=30)
        (lease,) = station.take()
        assert [station.end(lease), station.end(lease)] == [True, False]
        assert sum(s.completed for s in queues.status()) == 1

    # -- failure -----------------------------------------------------------------------------------

    def test_retry_waits_its_delay_and_counts_attempts(self, queues: QueueManager) -> None:
        job = queues.enqueue("t")
        station = Station(queues, "t", lease_s=30)
        (lease,) = station.take()
        assert station.end(lease, "retry", delay_s=0.2, error="boom")
        assert job.info().state is JobState.DELAYED
        assert job.info().error == "boom"
        assert station.take() == []
        (again,) = until(station.take)
        assert (again.attempt, again.crashes) == (2, 0)
        assert station.end(again, "retry", count=False)
        (third,) = until(station.take)
        assert third.attempt == 2

    @whole
    def test_dead_jobs_are_listed_and_replayed(self, queues: QueueManager) -> None:
        jobs = queues.enqueue_many("t", range(3))
        station = Station(queues, "t", lease_s=30)
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

    @whole
    def test_retention_keeps_the_last_completed_and_failed(self, make: Make) -> None:
        kept = {"q": {"keep_completed": 5, "keep_failed": 3}}
        with make(queues=kept) as queues:
            station = Station(queues, "t", lease_s=30)
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
