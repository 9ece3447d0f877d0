"""The job store suite: real workers."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import (
    Exponential,
    JobEvent,
    JobFailed,
    JobState,
    NonRetryable,
    QueueManager,
    ResultTimeout,
    Retry,
)

from .tools import LEASE_S, Report, StoreTests, run_until, until


class WorkerTests(StoreTests):
    """Handlers of all kinds, stopped in all ways."""

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
        run_until(queues, lambda: job.info().is_finished)
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
        run_until(queues, lambda: third.info().is_finished)
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
            if "pause" in queues.backend.capabilities:
                await queues.apause("low")
                assert [s.name for s in await queues.astatus() if s.paused] == ["low"]
                await queues.aresume("low")
            if "dead_letter" in queues.backend.capabilities:
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
        run_until(queues, lambda: job.info().is_finished)
        assert "timed out after 0.05 s" in (job.info().error or "")

    def test_running_coroutine_is_cancelled_soon(self, queues: QueueManager) -> None:
        started = threading.Event()

        @queues.job("long")
        async def long(ctx: Any, data: None) -> None:
            started.set()
            await asyncio.sleep(60)

        job, asked = long.enqueue(None), list[float]()

        def cancelled() -> bool:
            if started.is_set() and not asked:
                time.sleep(0.5)  # the worker is busy and listens for nothing but messages by now
                asked.append(time.monotonic())
                assert job.cancel()
            return job.info().is_finished

        run_until(queues, cancelled, lease=60)
        assert job.info().state is JobState.CANCELLED

    def test_stop_hands_running_jobs_back(self, queues: QueueManager) -> None:
        started = threading.Event()

        @queues.job("long")
        async def long(ctx: Any, data: None) -> None:
            started.set()
            await asyncio.sleep(60)

        job = long.enqueue(None)
        run_until(queues, started.is_set, grace=0.05)
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
        run_until(queues, started.is_set, grace=10)
        assert job.result(0) == "done"

    def test_blocked_loop_keeps_its_leases(self, queues: QueueManager) -> None:
        started = threading.Event()

        runs: list[str] = []

        @queues.job("blocking")
        async def blocking(ctx: Any, data: None) -> int:
            runs.append(ctx.worker)
            started.set()
            time.sleep(3 * LEASE_S)  # noqa: ASYNC251 - what a careless handler does
            return int(ctx.crashes)

        job = blocking.enqueue(None)
        other = queues.worker(lease=LEASE_S)  # it would take the job if its lease ran out
        thread = threading.Thread(target=other.run)
        thread.start()
        try:
            run_until(queues, lambda: job.info().is_finished, lease=LEASE_S)
        finally:
            other.stop()
            thread.join(20)
        assert len(runs) == 1
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
        run_until(queues, lambda: job.info().is_finished)
        until(lambda: ("failed", "bad") in seen)
        assert [k for k, t in seen if t == "good"] == ["enqueued", "started", "completed"]
        assert [k for k, t in seen if t == "bad"] == ["enqueued", "started", "retried", "started", "failed"]

    def test_listeners_hear_what_they_asked_for(self, queues: QueueManager) -> None:
        heard: dict[str, list[str]] = {"all": [], "class": [], "kinds": [], "other": []}
        queues.on(lambda e: heard["all"].append(e.kind))
        queues.on(lambda e: heard["class"].append(e.kind), JobEvent)
        stop = queues.on(lambda e: heard["kinds"].append(e.kind), "enqueued", "completed")
        queues.on(lambda e: heard["other"].append(e), int)

        @queues.job("good")
        async def good(ctx: Any, data: None) -> None: ...

        job = good.enqueue(None)
        run_until(queues, lambda: job.info().is_finished)
        until(lambda: "worker_stopped" in heard["all"])
        assert heard["kinds"] == ["enqueued", "completed"]
        assert heard["all"] == heard["class"]
        assert heard["other"] == []
        stop()
        good.enqueue(None)
        assert heard["kinds"] == ["enqueued", "completed"]
        for wrong in ((3,), ("failed",), ("never", print), (print, "never"), (print, 3)):
            with pytest.raises(ConfigurationError):
                queues.on(*wrong)

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
