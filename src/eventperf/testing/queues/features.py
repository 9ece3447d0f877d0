"""The job store suite: limits, jobs that wait for others, schedules, middleware and rolling releases."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import JobSpec, JobState, Limit, QueueManager, Unsupported
from eventperf.queues.job import JobRecord, NewJob
from eventperf.queues.protocols import Outcome

from .tools import LEASE_S, Make, Station, StoreTests, balanced, run_until, until


def _has(make: Make, capability: str, ask: Callable[[QueueManager], object]) -> bool:
    """Tell whether the backend declares ``capability``; where it does not, asking for it must be refused."""
    with make() as queues:
        if capability in queues.backend.capabilities:
            return True
        with pytest.raises(Unsupported, match=capability):
            ask(queues)
    return False


class LimitTests(StoreTests):
    """Rates and caps over all workers."""

    @pytest.fixture
    def limited(self, make: Make) -> Callable[..., QueueManager]:
        limits = [Limit(type="t", concurrency=1)]
        if not _has(make, "limits", lambda queues: QueueManager(queues.backend, limits=limits)):
            pytest.skip("asking for limits is refused, as it must")
        return lambda *limits, **options: make(limits=limits, **options)

    def test_cap_of_a_queue_holds_over_all_workers(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(queue="low", concurrency=3)) as queues:
            queues.enqueue_many("t", range(8), queue="low")
            other = queues.enqueue("t")
            a, b = Station(queues, "t"), Station(queues, "t")
            first = a.take(2)
            second = b.take()
            assert [x.record.queue for x in first] == ["normal", "low"], "the cap is of one queue only"
            assert (first[0].record.id, len(second)) == (other.id, 2)
            assert a.take() == b.take() == []
            assert a.end(first[1])
            assert len(b.take()) == 1
            assert balanced(queues.status())

    def test_cap_of_a_type_lets_other_types_pass(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="slow", concurrency=2)) as queues:
            slow = [j.id for j in queues.enqueue_many("slow", range(5))]
            quick = [j.id for j in queues.enqueue_many("quick", range(3))]
            station = Station(queues, "slow", "quick")
            leases = station.take()
            assert [x.record.id for x in leases] == [*slow[:2], *quick]
            assert sum(s.waiting for s in queues.status()) == 3
            assert station.end(leases[0])
            assert station.end(leases[1], "retry")
            assert station.ids() == slow[2:4], "those held back keep their place"
            assert balanced(queues.status())

    def test_cap_per_key_counts_each_tenant_by_itself(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", per_key=True, concurrency=1)) as queues:
            for key in ("a", "b", None):
                queues.enqueue_many("t", range(3), fairness_key=key)
            station = Station(queues, "t")
            leases = station.take()
            assert Counter(x.record.key for x in leases) == {"a": 1, "b": 1, "": 3}
            for _ in range(2):
                mine = [x for x in leases if x.record.key == "a"]
                assert station.end(mine[-1])
                leases += station.take()
            assert Counter(x.record.key for x in leases) == {"a": 3, "b": 1, "": 3}

    def test_caps_are_given_back_by_crashes_cancels_and_hand_backs(
        self, limited: Callable[..., QueueManager]
    ) -> None:
        with limited(Limit(type="t", concurrency=1)) as queues:
            queues.enqueue_many("t", range(4))
            dead, live = Station(queues, "t"), Station(queues, "t", lease_s=30)
            assert len(dead.take()) == 1
            (lease,) = until(live.take, LEASE_S + 2)
            assert live.take() == []
            assert live.end(lease, "release")
            (lease,) = live.take()
            assert queues.cancel(lease.record.id)
            assert live.take() == []
            assert live.end(lease, "cancelled")
            assert len(live.take()) == 1
            live.store.enter(live.card, [])  # that claim was answered into the void
            assert len(live.drain()) == 3
            assert balanced(queues.status())

    def test_held_back_jobs_can_be_cancelled_and_purged(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", concurrency=1)) as queues:
            jobs = queues.enqueue_many("t", range(5))
            station = Station(queues, "t")
            (lease,) = station.take()
            assert jobs[2].cancel()
            assert station.end(lease)
            assert station.ids() == [jobs[1].id]
            assert queues.purge("normal") == 2
            assert balanced(queues.status())

    def test_caps_hold_while_many_claim_at_once(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", concurrency=3), Limit(type="t", per_key=True, concurrency=1)) as queues:
            for n in range(60):
                queues.enqueue("t", n, fairness_key=f"k{n % 5}")
            mu, running, most, done = threading.Lock(), Counter[str](), Counter[str](), list[str]()

            def work() -> None:
                station, end = Station(queues, "t", lease_s=60), time.monotonic() + 60
                while len(done) < 60 and time.monotonic() < end:
                    for lease in station.take(2):
                        with mu:
                            running.update(["all", lease.record.key])
                            for name in running:
                                most[name] = max(most[name], running[name])
                        time.sleep(0.001)
                        with mu:
                            running.subtract(["all", lease.record.key])
                        assert station.end(lease)
                        done.append(lease.record.id)

            with ThreadPoolExecutor(4) as pool:
                for ended in [pool.submit(work) for _ in range(4)]:
                    ended.result(90)
            assert most["all"] <= 3
            assert max(most[f"k{n}"] for n in range(5)) == 1
            assert len(set(done)) == len(done) == 60

    def test_rate_is_never_exceeded_in_any_window(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", rate=5, per=0.4)) as queues:
            queues.enqueue_many("t", range(18))
            station = Station(queues, "t", lease_s=30)
            before, after = list[float](), list[float]()
            end = time.monotonic() + 60
            while len(after) < 18:
                assert time.monotonic() < end
                asked = time.monotonic()
                claimed = station.claim()
                before += [asked] * len(claimed.leases)
                after += [time.monotonic()] * len(claimed.leases)
                time.sleep(min(0.02, max(claimed.next_in_s or 0.02, 0.002)))
            for i in range(len(after) - 5):  # a start lies between the question and the answer
                assert after[i + 5] - before[i] > 0.4 - 0.002
            assert sum(s.waiting for s in queues.status()) == 0

    def test_rate_of_a_queue_says_when_to_come_back(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(queue="low", rate=2, per=30)) as queues:
            queues.enqueue_many("t", range(5), queue="low")
            station = Station(queues, "t", lease_s=60)
            assert len(station.take()) == 2
            assert station.take() == []
            assert 20 < (station.claim().next_in_s or 0) <= 30

    def test_big_tenant_held_back_does_not_hold_up_small_ones(
        self, limited: Callable[..., QueueManager]
    ) -> None:
        with limited(Limit(per_key=True, concurrency=2)) as queues:
            queues.enqueue_many("t", range(3000), fairness_key="big")
            small = [queues.enqueue("t", fairness_key=f"s{n}").id for n in range(20)]
            station = Station(queues, "t", lease_s=30)
            got = station.take(22) + station.take(22)
            assert {x.record.id for x in got} >= {*small}
            assert sum(x.record.key == "big" for x in got) == 2

    def test_workers_obey_limits_to_the_last_job(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", concurrency=2), Limit(queue="low", concurrency=1)) as queues:
            running, most, done = Counter[str](), Counter[str](), list[int]()

            @queues.job("t")
            async def t(ctx: Any, data: int) -> None:
                for name in ("all", ctx.queue):
                    running[name] += 1
                    most[name] = max(most[name], running[name])
                await asyncio.sleep(0.01)
                for name in ("all", ctx.queue):
                    running[name] -= 1
                done.append(data)

            queues.enqueue_many("t", range(20))
            queues.enqueue_many("t", range(20, 30), queue="low")
            run_until(queues, lambda: len(done) == 30)
            assert (most["all"], most["low"]) == (2, 1)
            assert sorted(done) == list(range(30))

    def test_wrong_limits_are_refused(self, make: Make) -> None:
        for wrong in ({}, {"type": "t"}, {"type": "t", "rate": 0}, {"type": "t", "rate": 1, "per": 0}):
            with pytest.raises(ConfigurationError):
                Limit(**wrong)
        with pytest.raises(ConfigurationError):
            make(limits=[Limit(type="t", rate=1), Limit(type="t", concurrency=1)])
        with pytest.raises(ConfigurationError):
            make(limits=[Limit(queue="nope", rate=1)])


class FlowTests(StoreTests):
    """Chains, batches, and jobs that enter with another's completion."""

    @pytest.fixture
    def flows(self, make: Make, queues: QueueManager) -> QueueManager:
        if not _has(make, "flows", lambda queues: queues.chain([JobSpec(type="t"), JobSpec(type="t")])):
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


class ScheduleTests(StoreTests):
    """Slots fire once over all workers, by the store's clock."""

    @pytest.fixture
    def timed(self, make: Make, queues: QueueManager) -> QueueManager:
        if not _has(make, "schedules", lambda queues: queues.cron("n", "@daily", "t")):
            pytest.skip("asking for schedules is refused, as it must")
        return queues

    def test_slot_fires_once_and_never_an_older_one(self, timed: QueueManager) -> None:
        store: Any = timed.backend.sync()
        now = store.time()
        assert abs(now - time.time()) < 60

        def fire(name: str, slot: float, **facts: bool) -> bool:
            record = JobRecord(
                id=f"{name}-{slot}-{time.monotonic()}", type="t", queue="low", priority=1, payload=b""
            )
            return bool(store.fire(name, slot, NewJob(record), **facts))

        assert fire("a", now)
        assert not fire("a", now)
        assert not fire("a", now - 60)
        assert fire("a", now + 60)
        assert not fire("b", now, late=True), "a new schedule owes nothing of the time before it"
        assert not fire("b", now)
        assert fire("b", now + 1, late=True)
        assert len(Station(timed, "t").ids()) == 3

    def test_many_at_once_fire_a_slot_once(self, timed: QueueManager) -> None:
        store: Any = timed.backend.sync()
        now = store.time()

        def fire(n: int) -> bool:
            record = JobRecord(id=f"{n}", type="t", queue="low", priority=1, payload=b"")
            return bool(store.fire("crowd", now + n // 8, NewJob(record)))

        with ThreadPoolExecutor(8) as pool:
            fired = list(pool.map(fire, range(80)))
        assert 1 <= sum(fired) <= 10, "a slot fires once, and an older one not at all"
        assert len(Station(timed, "t").ids()) == sum(fired)
        assert not store.fire("crowd", now + 9, NewJob(JobRecord(
            id="late", type="t", queue="low", priority=1, payload=b"")))  # fmt: skip

    def test_workers_together_fire_every_slot_once(self, timed: QueueManager) -> None:
        slots = list[float]()

        @timed.job("tick")
        async def tick(ctx: Any, data: str) -> None:
            slots.append(time.time())

        timed.cron("often", 0.2, "tick", "x")
        began = time.monotonic()
        workers = [timed.worker(concurrency=2, lease=5) for _ in range(2)]
        threads = [threading.Thread(target=worker.run) for worker in workers]
        for thread in threads:
            thread.start()
        until(lambda: len(slots) >= 10, 30)
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(20)
        passed = (time.monotonic() - began) / 0.2
        enqueued = sum(s.enqueued for s in timed.status())
        assert 10 <= enqueued <= passed + 2, "one firing a slot, not one a worker"

    def test_wrong_schedules_are_refused(self, timed: QueueManager) -> None:
        for when in ("60 * * * *", "* * *", "0 0 31 2 *", "x y z a b", 0, "0 0 * * fri-mon"):
            with pytest.raises(ConfigurationError):
                timed.cron("n", when, "t")
        with pytest.raises(ConfigurationError):
            timed.cron("n", "@daily", "t", timezone="Mars/Olympus")
        timed.cron("n", "@daily", "t")
        with pytest.raises(ConfigurationError):
            timed.cron("n", "@daily", "t")


class ReleaseTests(StoreTests):
    """Middleware, and old and new releases side by side."""

    def test_middleware_wraps_every_kind_of_handler(self, queues: QueueManager) -> None:
        seen = list[str]()

        @queues.middleware
        async def outer(ctx: Any, data: Any, proceed: Any) -> Any:
            seen.append(f"in {ctx.type} {ctx.headers.get('trace')}")
            result = await proceed(ctx, data)
            seen.append(f"out {result}")
            return result

        @queues.middleware
        async def inner(ctx: Any, data: int, proceed: Any) -> Any:
            return await proceed(ctx, data + 1)

        @queues.stamp
        def trace() -> dict[str, str]:
            return {"trace": "abc"}

        @queues.job("a")
        async def a(ctx: Any, data: int) -> int:
            return data * 10

        @queues.job("b")
        def b(ctx: Any, data: int) -> int:
            return data * 100

        one = a.enqueue(1)
        queues.worker().run(burst=True)
        (two,) = queues.enqueue_many("b", [1], headers={"trace": "mine"})
        queues.worker().run(burst=True)
        assert (one.result(0), two.result(0)) == (20, 200)
        assert seen == ["in a abc", "out 20", "in b mine", "out 200"]

    def test_old_payloads_are_upcast_step_by_step(self, make: Make) -> None:
        with make() as old, make() as new:
            old.declare("greet", dict[str, str])
            job = old.enqueue("greet", {"name": "Ada L"})
            new = _same_store(old, new)

            @new.upcast("greet", to=2)
            def split(data: dict[str, str]) -> dict[str, Any]:
                return {"names": data["name"].split()}

            @new.upcast("greet", to=3)
            def count(data: dict[str, Any]) -> dict[str, Any]:
                return {**data, "n": len(data["names"])}

            @new.job("greet", version=3)
            async def greet(ctx: Any, data: dict[str, Any]) -> str:
                return f"{data['names']} {data['n']}"

            fresh = greet.enqueue({"names": ["x"], "n": 9})
            new.worker().run(burst=True)
            assert (job.result(0), fresh.result(0)) == ("['Ada', 'L'] 2", "['x'] 9")

    def test_payload_that_cannot_be_upcast_dies_with_a_reason(self, make: Make) -> None:
        with make() as old, make() as new:
            job = old.enqueue("greet", 5)
            new = _same_store(old, new)

            @new.upcast("greet", to=2)
            def split(data: Any) -> Any:
                return data["name"]

            @new.job("greet", version=2)
            async def greet(ctx: Any, data: str) -> str:
                return data

            new.worker().run(burst=True)
            info = new.job_info(job.id)
            assert info.state is JobState.FAILED
            assert "version 1 cannot become 2" in (info.error or "")

    def test_newer_payload_waits_for_a_newer_worker(self, make: Make) -> None:
        with make() as new, make() as old:
            new.declare("greet", str, version=2)
            job = new.enqueue("greet", "hi")
            old = _same_store(new, old)

            @old.job("greet")
            async def greet(ctx: Any, data: str) -> str:
                return data

            run_until(old, lambda: job.info().error)
            info = job.info()
            assert info.state is JobState.DELAYED
            assert "version 2" in (info.error or "")

            @new.job("greet", version=2)
            async def newer(ctx: Any, data: str) -> str:
                return f"{data} {ctx.attempt}"

            run_until(new, lambda: job.info().is_finished)
            assert job.result(0) == "hi 1", "it was no attempt"


def _same_store(first: QueueManager, second: QueueManager) -> QueueManager:
    """Return a manager like ``second`` on the store of ``first``: memory is shared by the backend only."""
    return second if "shared" in first.backend.capabilities else QueueManager(first.backend)
