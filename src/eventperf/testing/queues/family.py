"""Whose children jobs are, and forgetting jobs one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import JobInfo, JobNotFound, JobSpec, JobState, QueueManager

from .tools import Make, Station, StoreTests, balanced, needs, run_until


def _ids(found: list[JobInfo]) -> list[str]:
    return sorted(info.id for info in found)


class KinTests(StoreTests):
    """Links between jobs that wait for others, both ways, before and after their ends."""

    @pytest.fixture
    def kin(self, make: Make) -> Iterator[QueueManager]:
        needs(make, "children", lambda queues: queues.children("x"))
        with make() as queues:
            yield queues

    def test_links_of_a_chain_lead_both_ways_before_and_after_its_end(self, kin: QueueManager) -> None:
        a, b, c = kin.chain([JobSpec(type="t")] * 3)
        for drained in (False, True):
            assert (a.info().after, a.info().after_when) == ((), None)
            assert (b.info().after, b.info().after_when) == ((a.id,), "success")
            assert [_ids(kin.children(one.id)) for one in (a, b, c)] == [[b.id], [c.id], []]
            if not drained:
                assert Station(kin, "t").drain() == [a.id, b.id, c.id]

    def test_a_batch_and_its_last_job(self, kin: QueueManager) -> None:
        *jobs, last = kin.batch([JobSpec(type="t")] * 5, then=JobSpec(type="t"))
        assert set(last.info().after) == {job.id for job in jobs}
        station = Station(kin, "t")
        (lease,) = station.take(1)
        assert station.end(lease, "dead", error="x")
        assert len(station.drain()) == 5
        for job in jobs:
            assert _ids(kin.children(job.id)) == [last.id]
        assert [info.state for info in kin.children(jobs[0].id)] == [JobState.COMPLETED]

    def test_children_are_bounded_and_without_their_runs(self, kin: QueueManager) -> None:
        parent = kin.enqueue("t")
        children = [kin.enqueue("t", after=[parent]).id for _ in range(7)]
        assert len(kin.children(parent.id, limit=3)) == 3
        Station(kin, "t").drain()
        found = kin.children(parent.id)
        assert _ids(found) == sorted(children)
        assert {info.state for info in found} == {JobState.COMPLETED}
        assert all(info.attempts == () for info in found)

    @pytest.mark.parametrize("end", ["done", "dead", "cancelled"])
    def test_children_that_came_when_their_parent_had_ended(self, kin: QueueManager, end: str) -> None:
        parent, station = kin.enqueue("t"), Station(kin, "t")
        assert station.end(station.take()[0], end)
        late = kin.enqueue("t", after=[parent], after_when="any")
        assert _ids(kin.children(parent.id)) == [late.id]

    def test_a_job_made_by_another_s_handler_is_its_child(self, kin: QueueManager) -> None:
        made = list[str]()

        @kin.job("order")
        async def order(ctx: Any, data: None) -> None:
            made.append(ctx.then("mail", 7))
            made.append(ctx.then("mail", 8, delay=60))

        job = order.enqueue(None)
        run_until(kin, lambda: job.info().is_finished)
        assert _ids(kin.children(job.id)) == sorted(made)
        assert [kin.job_info(id).after for id in made] == [(job.id,)] * 2
        assert kin.job_info(made[0]).state is JobState.WAITING, "it waits for nobody"
        assert kin.job_info(made[1]).state is JobState.DELAYED
        assert balanced(kin.status())

    def test_nobody_s_children_are_none(self, kin: QueueManager) -> None:
        assert kin.children("nobody") == []
        with pytest.raises(ConfigurationError, match="limit"):
            kin.children("nobody", limit=0)


class DeleteTests(StoreTests):
    """Forgetting ended jobs by their ids."""

    @pytest.fixture
    def deleting(self, make: Make) -> Iterator[QueueManager]:
        needs(make, "delete", lambda queues: queues.delete("x"))
        with make() as queues:
            yield queues

    @pytest.mark.parametrize("end", ["done", "dead", "cancelled"])
    def test_an_ended_job_is_forgotten_and_listed_no_more(self, deleting: QueueManager, end: str) -> None:
        gone, stays = deleting.enqueue_many("t", range(2), tags=["x"])
        station = Station(deleting, "t")
        for lease in station.take():
            assert station.end(lease, end)
        assert deleting.delete(gone.id) == 1
        with pytest.raises(JobNotFound):
            gone.info()
        assert [info.id for info in deleting.jobs().jobs] == [stays.id]
        assert [info.id for info in deleting.jobs(tag="x").jobs] == [stays.id]
        assert deleting.delete(gone.id) == 0
        assert balanced(deleting.status())
        assert sum(s.dead for s in deleting.status()) == (1 if end == "dead" else 0)

    def test_jobs_that_wait_or_run_stay(self, deleting: QueueManager) -> None:
        runs, station = deleting.enqueue("t"), Station(deleting, "t")
        (lease,) = station.take()
        waits, late = deleting.enqueue("t"), deleting.enqueue("t", delay=60)
        assert deleting.delete(runs.id, waits.id, late.id, "nobody") == 0
        assert station.end(lease)
        assert station.ids() == [waits.id]
        assert late.info().state is JobState.DELAYED
        assert balanced(deleting.status())

    def test_a_job_may_come_again_under_its_id_once_it_was_deleted(self, deleting: QueueManager) -> None:
        station = Station(deleting, "t")
        for end in ("done", "dead", "cancelled"):
            job = deleting.enqueue("t", id="[a]1", unique_key="[a]k", unique_for=600)
            (lease,) = station.take()
            assert station.end(lease, end)
            assert deleting.delete(job.id) == 1
        assert deleting.enqueue("t", id="[a]1").info().state is JobState.WAITING
        assert balanced(deleting.status())

    def test_what_waits_for_a_dead_job_ends_with_it(self, deleting: QueueManager) -> None:
        if "flows" not in deleting.backend.capabilities:
            pytest.skip("it has no flows")
        a, b, c = deleting.chain([JobSpec(type="t")] * 3)
        station = Station(deleting, "t")
        assert station.end(station.take()[0], "dead", error="x")
        assert deleting.delete(a.id) == 1
        assert b.info().state is c.info().state is JobState.CANCELLED
        assert balanced(deleting.status())

    def test_more_than_a_portion_of_several_queues(self, deleting: QueueManager) -> None:
        jobs = [
            *deleting.enqueue_many("t", range(120), queue="low"),
            *deleting.enqueue_many("t", range(120), queue="high"),
        ]
        assert all(deleting.backend.sync().cancel([job.id for job in jobs]))
        keep = jobs.pop()
        assert deleting.delete(*(job.id for job in jobs)) == 239
        assert [info.id for info in deleting.jobs().jobs] == [keep.id]
        assert balanced(deleting.status())

    def test_async_twins_of_links_and_deletion(self, deleting: QueueManager) -> None:
        async def main() -> None:
            parent = await deleting.aenqueue("t")
            if "children" in deleting.backend.capabilities:
                child = await deleting.aenqueue("t", after=[parent])
                assert [info.id for info in await deleting.achildren(parent.id)] == [child.id]
            assert await deleting.adelete(parent.id) == 0
            assert await deleting.acancel(parent.id)
            assert await deleting.adelete(parent.id) == 1
            assert await deleting.adelete() == 0
            await deleting.aclose()

        asyncio.run(main())
