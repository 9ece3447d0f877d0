"""Jobs that wait for other jobs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import JobSpec, JobState, QueueManager
from eventperf.queues.protocols import Outcome

from .tools import Make, Station, StoreTests, balanced, has, run_until


class FlowTests(StoreTests):
    """Chains, batches, and jobs that enter with another's completion."""

    @pytest.fixture
    def flows(self, make: Make, queues: QueueManager) -> QueueManager:
        if not has(make, "flows", lambda queues: queues.chain([JobSpec(type="t"), JobSpec(type="t")])):
            pytest.skip("asking for flows is refused, as it must")
        return queues

    def test_chain_runs_link_by_link(self, flows: QueueManager) -> None:
        a, b, c = flows.chain(
            [JobSpec(type="t", data=n, queue=q) for n, q in enumerate(("low", "high", "low"))]
        )
        station = Station(flows, "t")
        assert c.info().state is JobState.DELAYED
        assert c.info().due_at is None
        order = []
        while leases := station.take():
            assert len(leases) == 1
            order.append(leases[0].record.id)
            assert station.end(leases[0])
        assert order == [a.id, b.id, c.id]
        assert balanced(flows.status())

    def test_chain_waits_for_a_dead_link_until_its_replay(self, flows: QueueManager) -> None:
        a, b = flows.chain([JobSpec(type="t"), JobSpec(type="t")])
        station = Station(flows, "t")
        assert station.end(station.take()[0], "dead", error="x")
        assert station.take() == []
        assert flows.retry(a.id)
        assert station.drain() == [a.id, b.id]

    def test_cancelled_link_cancels_the_rest(self, flows: QueueManager) -> None:
        a, b, c = flows.chain([JobSpec(type="t")] * 3)
        assert a.cancel()
        assert b.info().state is c.info().state is JobState.CANCELLED
        assert a.id in (b.info().error or "")
        assert Station(flows, "t").take() == []
        assert balanced(flows.status())

    def test_purged_dead_link_cancels_the_rest(self, flows: QueueManager) -> None:
        _, b = flows.chain([JobSpec(type="t")] * 2)
        station = Station(flows, "t")
        assert station.end(station.take()[0], "dead", error="x")
        assert flows.purge("normal", "failed") == 1
        assert b.info().state is JobState.CANCELLED
        assert balanced(flows.status())

    def test_batch_runs_its_last_job_once_after_all(self, flows: QueueManager) -> None:
        *jobs, last = flows.batch([JobSpec(type="t", data=n) for n in range(1500)], then=JobSpec(type="end"))
        station, seen = Station(flows, "t", "end", lease_s=30), list[str]()
        while leases := station.take(400):
            seen += [x.record.id for x in leases]
            if leases[0].record.id == jobs[0].id:
                assert station.end(leases[0], "dead", error="x")
                leases = leases[1:]
            done = [Outcome(lease.record.id, lease.token, "done") for lease in leases]
            assert all(station.store.finish(done))
        assert seen == [j.id for j in (*jobs, last)], "failed ones have ended, too"
        assert flows.retry(jobs[0].id)
        assert station.drain() == [jobs[0].id], "a replay does not call back again"

    def test_batch_on_success_waits_for_replays(self, flows: QueueManager) -> None:
        a, b, last = flows.batch([JobSpec(type="t")] * 2, then=JobSpec(type="t"), when="success")
        station = Station(flows, "t")
        one, two = station.take()
        assert station.end(one, "dead", error="x")
        assert station.end(two)
        assert station.take() == []
        assert flows.replay("normal") == 1
        assert station.drain() == [a.id, last.id]
        assert b.info().state is JobState.COMPLETED

    def test_after_names_any_job(self, flows: QueueManager) -> None:
        first = flows.enqueue("t")
        second = flows.enqueue("t", after=[first])
        station = Station(flows, "t")
        assert station.drain() == [first.id, second.id]
        third = flows.enqueue("t", after=[first, second.id])
        assert station.drain() == [third.id], "those it names have ended already"
        gone = flows.enqueue("t", delay=60)
        assert gone.cancel()
        assert flows.enqueue("t", after=[gone]).info().state is JobState.CANCELLED
        waits = flows.enqueue("t", after=[flows.enqueue("t", delay=60)])
        assert waits.cancel()
        assert balanced(flows.status())

    def test_ends_and_newcomers_at_once_leave_nobody_waiting(self, flows: QueueManager) -> None:
        batches = [flows.batch([JobSpec(type="t")] * 4, then=JobSpec(type="t")) for _ in range(12)]
        first = [job for *jobs, _ in batches for job in jobs]
        late, seen = list[str](), list[str]()

        def work(n: int) -> None:
            station, end = Station(flows, "t", lease_s=60), time.monotonic() + 60
            while len(seen) < 12 * 5 + len(first) and time.monotonic() < end:
                for lease in station.take(3):
                    seen.append(lease.record.id)
                    assert station.end(lease)

        def follow() -> None:
            for job in first:
                late.append(flows.enqueue("t", after=[job]).id)

        with ThreadPoolExecutor(5) as pool:
            for done in [pool.submit(follow), *(pool.submit(work, n) for n in range(4))]:
                done.result(90)
        assert Counter(seen) == Counter([job.id for jobs in batches for job in jobs] + late)
        assert balanced(flows.status())

    def test_links_see_what_came_before(self, flows: QueueManager) -> None:
        @flows.job("double")
        async def double(ctx: Any, data: int) -> int:
            return data * 2

        @flows.job("total")
        def total(ctx: Any, data: None) -> int:
            return sum(ctx.inputs())

        *_, last = flows.batch([JobSpec(type="double", data=n) for n in range(5)], then=JobSpec(type="total"))
        run_until(flows, lambda: last.info().is_finished)
        assert last.result(0) == 20

    def test_async_twins(self, flows: QueueManager) -> None:
        async def main() -> tuple[int, int]:
            a = await flows.achain([JobSpec(type="t")] * 2)
            b = await flows.abatch([JobSpec(type="t")] * 3, then=JobSpec(type="t"))
            await flows.aclose()
            return len(a), len(b)

        assert asyncio.run(main()) == (2, 4)
        assert len(Station(flows, "t").drain()) == 6

    def test_then_enters_with_the_completion_or_not_at_all(self, queues: QueueManager) -> None:
        ids = dict[str, str]()

        @queues.job("order", attempts=1)
        async def order(ctx: Any, data: str) -> None:
            ids[data] = ctx.then("mail", data)
            if data == "bad":
                raise ValueError

        good, bad = order.enqueue("good"), order.enqueue("bad")
        run_until(queues, lambda: good.info().is_finished and bad.info().is_finished)
        (lease,) = Station(queues, "mail").take()
        assert lease.record.id == ids["good"]
        assert queues.codec.decode(lease.record.payload) == "good"

    def test_flow_that_cannot_work_is_refused(self, flows: QueueManager) -> None:
        for specs in ([], [JobSpec(type="t")], [JobSpec(type="t"), JobSpec(type="t", delay=1)]):
            with pytest.raises(ConfigurationError):
                flows.chain(specs)
        for options in ({"after": "x"}, {"after": ["a"], "delay": 1}, {"after": ["a"], "after_when": "x"}):
            with pytest.raises(ConfigurationError):
                flows.enqueue("t", **options)
        assert sum(s.enqueued for s in flows.status()) == 0
