"""Changes of jobs that wait, and jobs that wait for an end of one kind."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import (
    JobInfo,
    JobNotFound,
    JobNotWaiting,
    JobState,
    QueueManager,
)

from .tools import Make, Report, Station, StoreTests, balanced, needs


class UpdateTests(StoreTests):
    """Changing jobs that have not begun."""

    @pytest.fixture
    def changing(self, make: Make) -> Any:
        needs(make, "update", lambda queues: queues.update("x", priority=1))
        with make() as queues:
            queues.declare("report", Report, version=3)
            yield queues

    def test_priority_and_queue_move_a_job(self, changing: QueueManager) -> None:
        first, second, third = changing.enqueue_many("t", [1, 2, 3], fairness_key="k", tags=["x"])
        changing.update(third.id, priority=9)
        changing.update(first.id, queue="low")
        info = first.info()
        assert (info.queue, info.key, list(info.tags), info.state) == ("low", "k", ["x"], JobState.WAITING)
        assert balanced(changing.status())
        assert Station(changing, "t").ids() == [third.id, second.id, first.id]
        assert balanced(changing.status())

    def test_time_of_a_job_can_be_put_off_and_drawn_near(self, changing: QueueManager) -> None:
        waits, late = changing.enqueue("t"), changing.enqueue("t", delay=500)
        changing.update(waits.id, delay=400)
        due = waits.info().due_at
        assert waits.info().state is JobState.DELAYED
        assert due is not None
        assert 390 < due - waits.info().created_at < 420
        changing.update(late.id, delay=0)
        station = Station(changing, "t")
        assert station.ids() == [late.id]
        changing.update(waits.id, at=time.time() - 5)
        assert station.ids() == [waits.id]
        assert balanced(changing.status())

    def test_delayed_job_keeps_its_time_in_another_queue(self, changing: QueueManager) -> None:
        job = changing.enqueue("t", delay=500, headers={"a": "b"})
        due = job.info().due_at
        changing.update(job.id, queue="high", priority=7)
        info = job.info()
        assert info.due_at == pytest.approx(due, abs=0.01)
        assert (info.state, info.queue, info.priority) == (JobState.DELAYED, "high", 7)
        assert dict(info.headers) == {"a": "b"}
        assert balanced(changing.status())

    def test_data_is_checked_and_replaced(self, changing: QueueManager) -> None:
        job = changing.enqueue("report", Report(1))
        with pytest.raises(ConfigurationError):
            changing.update(job.id, data={"event_id": "no number"})
        changing.update(job.id, data=Report(2, "two"), priority=8)
        lease = Station(changing, "report").take()[0]
        assert changing.codec.decode(lease.record.payload, Report) == Report(2, "two")
        assert (lease.record.version, lease.record.priority) == (3, 8)

    def test_unique_key_and_deadline_stay(self, changing: QueueManager) -> None:
        job = changing.enqueue("t", unique_key="one", deadline=300)
        changing.update(job.id, priority=9, queue="high", data=5, delay=0)
        assert changing.enqueue("t", unique_key="one").id == job.id
        lease = Station(changing, "t").take()[0]
        assert lease.record.deadline_at == pytest.approx(job.info().created_at + 300, abs=1)
        assert changing.enqueue("t", unique_key="one").id != job.id

    def test_job_that_waits_for_others_takes_all_but_a_time(self, changing: QueueManager) -> None:
        if "flows" not in changing.backend.capabilities:
            pytest.skip("it has no flows")
        parent = changing.enqueue("t")
        child = changing.enqueue("t", after=[parent])
        with pytest.raises(ConfigurationError, match="waits for others"):
            changing.update(child.id, delay=5)
        changing.update(child.id, queue="high", data="new")
        station = Station(changing, "t")
        assert station.drain() == [parent.id, child.id]
        assert child.info().queue == "high"
        assert balanced(changing.status())

    def test_job_of_an_unknown_type_can_be_moved(self, changing: QueueManager) -> None:
        job, station = changing.enqueue("strange"), Station(changing, "t")
        assert station.take() == []
        changing.update(job.id, queue="high", priority=2)
        assert Station(changing, "strange").ids() == [job.id]
        assert balanced(changing.status())

    def test_job_that_runs_or_has_ended_is_left_alone(self, changing: QueueManager) -> None:
        station = Station(changing, "t")
        for end in ("done", "dead", "cancelled", None):
            job = changing.enqueue("t", "old")
            lease = station.take()[0]
            if end is not None:
                assert station.end(lease, end)
            before = job.info()
            with pytest.raises(JobNotWaiting):
                changing.update(job.id, priority=9, data="new")
            assert job.info() == before
        with pytest.raises(JobNotFound):
            changing.update("nobody", priority=1)
        with pytest.raises(JobNotFound):
            changing.update("nobody", data=1)

    def test_change_that_cannot_be_changes_nothing(self, changing: QueueManager) -> None:
        job = changing.enqueue("t")
        for wrong in ({}, {"priority": -1}, {"priority": 5000}, {"queue": "none"}, {"delay": -1},
                      {"delay": 1, "at": 5}, {"at": "mon"}, {"data": object(), "priority": 3}):  # fmt: skip
            with pytest.raises(ConfigurationError):
                changing.update(job.id, **wrong)
        info = job.info()
        assert (info.state, info.priority) == (JobState.WAITING, 3)

    def test_asynchronous_change_is_the_same(self, changing: QueueManager) -> None:
        async def change() -> JobInfo:
            job = await changing.aenqueue("t", 1)
            await changing.aupdate(job.id, data="two", queue="high")
            info = await job.ainfo()
            await changing.aclose()
            return info

        info = asyncio.run(change())
        assert info.queue == "high"
        assert changing.codec.decode(info.payload or b"") == "two"

    def test_data_of_a_type_nobody_here_declares_keeps_its_version(self, changing: QueueManager) -> None:
        changing.declare("versioned", version=3)
        job = changing.enqueue("versioned", {"n": 1})
        del changing.types["versioned"]
        changing.update(job.id, data={"n": 2}, priority=7)
        (lease,) = Station(changing, "versioned").take()
        assert (lease.record.version, lease.record.priority) == (3, 7)
        assert changing.codec.decode(lease.record.payload) == {"n": 2}


class OutcomeTests(StoreTests):
    """Jobs that wait for an end of one kind."""

    @pytest.fixture
    def flowing(self, make: Make) -> Any:
        needs(make, "flows", lambda queues: queues.enqueue("t", after=["x"]))
        with make() as queues:
            yield queues

    @pytest.mark.parametrize("end", ["done", "dead", "cancelled"])
    @pytest.mark.parametrize("after_when", ["success", "failure", "any"])
    @pytest.mark.parametrize("late", [False, True])
    def test_one_parent(self, flowing: QueueManager, end: str, after_when: str, late: bool) -> None:
        """What becomes of a child, put in before or after its parent has ended."""
        parent, station = flowing.enqueue("t"), Station(flowing, "t")
        lease = station.take()[0]
        if late:
            assert station.end(lease, end)
        child = flowing.enqueue("t", after=[parent], after_when=after_when)
        if not late:
            assert child.info().state is JobState.DELAYED
            assert station.end(lease, end)
        if after_when == "any" or (after_when, end) in {("success", "done"), ("failure", "dead")}:
            want = JobState.WAITING
        else:
            want = JobState.DELAYED if (after_when, end) == ("success", "dead") else JobState.CANCELLED
        assert child.info().state is want
        assert balanced(flowing.status())

    def test_one_failure_of_many_is_enough(self, flowing: QueueManager) -> None:
        parents, station = flowing.enqueue_many("t", range(3), fairness_key="f"), Station(flowing, "t")
        alarm = flowing.enqueue("t", after=parents, after_when="failure")
        calm = flowing.enqueue("t", after=parents[:2], after_when="failure")
        later = flowing.enqueue("t", after=[calm], after_when="any")
        never = flowing.enqueue("t", after=[calm])
        never_again = flowing.enqueue("t", after=[later, calm], after_when="failure")
        for lease, end in zip(station.take(), ("done", "cancelled", "dead"), strict=True):
            assert alarm.info().state is JobState.DELAYED
            assert station.end(lease, end)
        assert (alarm.info().state, calm.info().state) == (JobState.WAITING, JobState.CANCELLED)
        assert "failed" in (calm.info().error or "")
        assert (later.info().state, never.info().state) == (JobState.WAITING, JobState.CANCELLED)
        assert sorted(station.drain()) == sorted([alarm.id, later.id])
        assert never_again.info().state is JobState.CANCELLED
        assert balanced(flowing.status())
