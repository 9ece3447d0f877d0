"""The job store suite: what is made before a worker's first job, and what ends its life."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import JobState, QueueManager

from .tools import Make, Station, StoreTests, balanced, needs, run_until, until


async def _listed(queues: QueueManager) -> list[str]:
    found = [one.id for one in await queues.aworkers()]
    await queues.aclose()
    return found


class LifeTests(StoreTests):
    """Workers that retire, and functions around their life."""

    def test_retires_after_so_many_jobs_and_runs_no_more_of_them(self, queues: QueueManager) -> None:
        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            await asyncio.sleep(0.002)

        queues.enqueue_many("t", range(25))
        for done in (10, 20):
            queues.worker(concurrency=4, max_jobs=10).run()
            assert sum(s.completed for s in queues.status()) == done
        queues.worker(concurrency=4, max_jobs=10).run(burst=True)
        rows = queues.status()
        assert (sum(s.completed for s in rows), sum(s.stalled for s in rows)) == (25, 0)
        assert balanced(rows)

    def test_workers_are_listed_with_what_they_serve_and_run(self, make: Make) -> None:
        needs(make, "roster", lambda queues: queues.workers())
        with make(queues={"a": {}, "b": {}}) as queues:
            assert queues.workers() == []
            about: dict[str, str | int | float] = {"host": "web-1", "pid": 4711, "started_at": 1e9}
            about |= {"version": "v1.2", "eventperf_version": "0.2.0"}
            busy = Station(queues, "t", name="busy", about=about)
            Station(queues, "t", name="idle", room={"b": 3})
            queues.enqueue_many("t", [1, 2, 3], queue="a")
            held = busy.take(2)
            first, second = queues.workers()
            assert (first.id, list(first.queues), first.running) == ("busy", ["a", "b"], 2)
            assert (first.host, first.pid, first.version) == ("web-1", 4711, "v1.2")
            assert (first.eventperf_version, first.started_at) == ("0.2.0", 1e9)
            assert (second.id, list(second.queues), second.running, second.host) == ("idle", ["b"], 0, None)
            assert (first.slots, first.lease_s) == (1000, busy.card.lease_s)
            busy.store.renew("busy", [(lease.record.id, lease.token) for lease in held])
            assert queues.workers()[0].version == "v1.2", "a renewal forgets nothing"
            assert asyncio.run(_listed(queues)) == ["busy", "idle"]
            busy.end(held[0])
            assert queues.workers()[0].running == 1
            busy.store.leave("idle")
            assert [one.id for one in queues.workers()] == ["busy"]

    def test_a_worker_says_where_it_runs_and_of_which_version_it_is(self, make: Make) -> None:
        needs(make, "roster", lambda queues: queues.workers())
        with make() as queues:
            seen: list[Any] = []

            @queues.job("look")
            def look(ctx: Any, data: None) -> None:
                seen.extend(queues.workers())

            look.enqueue(None)
            queues.worker(version="abc123").run(burst=True)
            assert [(one.pid, one.version, one.running) for one in seen] == [(os.getpid(), "abc123", 1)]
            assert seen[0].host
            assert seen[0].started_at
            assert queues.workers() == [], "it has said good-bye"

    def test_retiring_hands_nothing_back_whatever_the_grace(self, queues: QueueManager) -> None:
        runs: list[int] = []

        @queues.job("slow")
        async def slow(ctx: Any, data: int) -> None:
            runs.append(data)
            if len(runs) == 2:
                worker.retire()
            await asyncio.sleep(0.8)

        jobs = queues.enqueue_many("slow", range(3))
        worker = queues.worker(concurrency=2, grace=0)
        worker.run()
        assert len(set(runs)) == len(runs) == 2, "two ran to their end, the third was left alone"
        states = [job.info().state for job in jobs]
        assert sorted(s.value for s in states) == ["completed", "completed", "waiting"]

    def test_retires_when_it_is_too_old_or_too_large(
        self, queues: QueueManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "eventperf.queues"):
            queues.worker(max_memory_mb=1).run()
            queues.worker(max_age=0.3).run()
        assert "max_memory_mb" in caplog.text
        assert "max_age" in caplog.text

    def test_stop_ends_a_retirement_after_its_grace(self, queues: QueueManager) -> None:
        @queues.job("long")
        async def long(ctx: Any, data: None) -> None:
            await asyncio.sleep(60)

        job = long.enqueue(None)
        worker = queues.worker(concurrency=2, grace=0.1, max_jobs=1)
        thread = threading.Thread(target=worker.run)
        thread.start()
        until(lambda: job.info().state is JobState.ACTIVE)
        time.sleep(0.2)
        assert thread.is_alive(), "it waits for its job"
        worker.stop()
        thread.join(10)
        assert not thread.is_alive()

    def test_workers_share_what_their_start_made_with_their_jobs(self, queues: QueueManager) -> None:
        told: list[str] = []

        @queues.on_startup
        async def first(state: dict[str, Any]) -> None:
            state["name"] = "first"

        @queues.on_startup
        def second(state: dict[str, Any]) -> None:
            state["name"] += " and second"

        @queues.on_shutdown
        def last(state: dict[str, Any]) -> None:
            told.append(f"last after {state['seen']}")

        @queues.on_shutdown
        async def broken(state: dict[str, Any]) -> None:
            raise RuntimeError("must not keep the others from their turn")

        @queues.on_shutdown
        async def before(state: dict[str, Any]) -> None:
            told.append("before")

        @queues.job("coroutine")
        async def coroutine(ctx: Any, data: None) -> str:
            ctx.state["seen"] = ctx.job_id
            return str(ctx.state["name"])

        @queues.job("thread")
        def plain(ctx: Any, data: None) -> str:
            return str(ctx.state["name"])

        def one_run() -> None:
            jobs = [plain.enqueue(None), coroutine.enqueue(None)]
            run_until(queues, lambda: all(job.info().is_finished for job in jobs))
            assert [job.result(0) for job in jobs] == ["first and second"] * 2
            assert told == ["before", f"last after {jobs[1].id}"]

        one_run()
        told.clear()
        one_run()

    def test_start_that_fails_takes_no_job(self, queues: QueueManager) -> None:
        ended: list[int] = []

        @queues.on_startup
        async def connect(state: dict[str, Any]) -> None:
            raise RuntimeError("no such host")

        @queues.on_shutdown
        async def end(state: dict[str, Any]) -> None:
            ended.append(1)

        @queues.job("t")
        async def t(ctx: Any, data: None) -> None: ...

        job = t.enqueue(None)
        worker = queues.worker()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no such host"):
                worker.run(burst=True)
        assert job.info().state is JobState.WAITING
        assert not ended
        assert sum(s.workers for s in queues.status()) == 0

    def test_stop_cuts_a_start_short(self, queues: QueueManager) -> None:
        begun = threading.Event()

        @queues.on_startup
        async def connect(state: dict[str, Any]) -> None:
            begun.set()
            await asyncio.sleep(60)

        worker = queues.worker()
        thread = threading.Thread(target=worker.run)
        thread.start()
        assert begun.wait(10)
        worker.stop()
        thread.join(10)
        assert not thread.is_alive()

    def test_a_life_that_cannot_be_is_refused(self, queues: QueueManager) -> None:
        for options, argument in (
            ({"max_jobs": 0}, "max_jobs"),
            ({"max_jobs": True}, "max_jobs"),
            ({"max_memory_mb": 0}, "max_memory_mb"),
            ({"max_memory_mb": float("nan")}, "max_memory_mb"),
            ({"max_age": 0}, "max_age"),
            ({"max_age": "soon"}, "max_age"),
        ):
            with pytest.raises(ConfigurationError) as caught:
                queues.worker(**options)
            assert caught.value.argument == argument
        for wrong in (3, lambda: None, lambda a, b: None):
            with pytest.raises(ConfigurationError):
                queues.on_startup(wrong)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError):
                queues.on_shutdown(wrong)  # type: ignore[arg-type]
