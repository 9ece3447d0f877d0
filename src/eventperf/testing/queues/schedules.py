"""Times of a clock; middleware; old and new releases side by side."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import JobState, QueueManager
from eventperf.queues.job import JobRecord, NewJob

from .tools import Make, Station, StoreTests, has, run_until, until


class ScheduleTests(StoreTests):
    """Slots fire once over all workers, by the store's clock."""

    @pytest.fixture
    def timed(self, make: Make, queues: QueueManager) -> QueueManager:
        if not has(make, "schedules", lambda queues: queues.cron("n", "@daily", "t")):
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
