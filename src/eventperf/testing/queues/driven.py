"""The job store suite: what producers and operators see while real workers run the jobs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from eventperf.queues import Exponential, JobCancelled, JobFailed, JobState, QueueManager, Unsupported
from eventperf.queues.errors import PayloadError

from .tools import LEASE_S, Make, Report, StoreTests, run_until, until

__all__ = ["DrivenTests"]


class DrivenTests(StoreTests):
    """Every backend, also those that leave the running of jobs to workers of another system."""

    def test_jobs_move_through_their_states(self, queues: QueueManager) -> None:
        gate = threading.Event()

        @queues.job("t")
        def t(ctx: Any, data: Report) -> dict[str, Any]:
            ctx.progress(0.25)
            assert gate.wait(20)
            return {"title": data.title, "raw": b"\x00\xff"}

        job = t.enqueue(Report(1, "expo"), headers={"trace": "abc"})
        later = t.enqueue(Report(2), delay=60)
        info = job.info()
        assert (info.state, info.type, info.queue) == (JobState.WAITING, "t", "normal")
        assert info.headers == {"trace": "abc"}
        due = later.info().due_at
        assert due is not None
        assert 50 < due - time.time() < 70

        def moved() -> bool:
            if not gate.is_set() and job.info().progress == 0.25:
                assert job.info().state is JobState.ACTIVE
                row = next(s for s in queues.status() if s.name == "normal")
                assert (row.waiting, row.delayed, row.active) == (0, 1, 1), row
                assert queues.backlog().workers == 1
                gate.set()
            return job.info().is_finished

        run_until(queues, moved)
        done = job.info()
        assert (done.state, done.attempt) == (JobState.COMPLETED, 1)
        assert done.started_at is not None
        assert done.finished_at is not None
        assert 0 <= done.finished_at - done.started_at < 20
        assert job.result(0) == {"title": "expo", "raw": b"\x00\xff"}
        row = next(s for s in queues.status() if s.name == "normal")
        assert (row.delayed, row.active, row.completed, row.enqueued) == (1, 0, 1, 2)
        assert queues.backlog().arrival_rate > 0

    def test_same_id_is_stored_and_run_once(self, queues: QueueManager) -> None:
        runs: list[int] = []

        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            runs.append(data)

        for n in range(3):
            assert t.enqueue(n, id="receipt-7").id == "receipt-7"
        queues.worker().run(burst=True)
        t.enqueue(9, id="receipt-7")
        queues.worker().run(burst=True)
        assert runs == [0]

    def test_delayed_jobs_run_in_time_and_never_early(self, queues: QueueManager) -> None:
        ran: list[float] = []

        @queues.job("t")
        async def t(ctx: Any, data: None) -> None:
            ran.append(time.time())

        asked = time.time()
        job = t.enqueue(None, delay=0.4)
        run_until(queues, lambda: job.info().is_finished)
        assert 0.399 <= ran[0] - asked < 3

    def test_passed_deadline_means_no_run(self, queues: QueueManager) -> None:
        @queues.job("t")
        async def t(ctx: Any, data: None) -> None:
            raise AssertionError("must not run")

        job = t.enqueue(None, deadline=0.05)
        time.sleep(0.1)
        run_until(queues, lambda: job.info().is_finished)
        with pytest.raises(JobFailed):
            job.result(0)

    def test_waiting_and_delayed_jobs_are_cancelled_at_once(self, queues: QueueManager) -> None:
        @queues.job("t")
        async def t(ctx: Any, data: None) -> None:
            raise AssertionError("must not run")

        jobs = [t.enqueue(None), t.enqueue(None, delay=60)]
        assert all(job.cancel() for job in jobs)
        assert not queues.cancel("nobody")
        assert [job.info().state for job in jobs] == [JobState.CANCELLED] * 2
        queues.worker().run(burst=True)
        with pytest.raises(JobCancelled):
            jobs[0].result(0)
        assert sum(s.cancelled for s in queues.status()) == 2

    def test_waiting_jobs_are_listed_and_purged(self, queues: QueueManager) -> None:
        ids = [job.id for job in queues.enqueue_many("t", range(3), queue="low")]
        delayed = queues.enqueue("t", queue="low", delay=60)
        store = queues.backend.sync()
        assert {i.id for i in store.listing("low", JobState.WAITING)} == set(ids)
        assert [i.id for i in store.listing("low", JobState.DELAYED)] == [delayed.id]
        assert len(store.listing("low", JobState.WAITING, offset=1, limit=1)) == 1
        assert queues.purge("low") == 3
        assert queues.purge("low", "delayed") == 1
        assert all(s.waiting == s.delayed == 0 for s in queues.status())

    def test_slots_of_a_worker_are_shared_by_its_queues(self, queues: QueueManager) -> None:
        running, most = 0, 0

        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.03)
            running -= 1

        for name in queues.queues:
            queues.enqueue_many("t", range(4), queue=name)
        queues.worker(concurrency=3).run(burst=True)
        assert most == 3
        assert sum(s.completed for s in queues.status()) == 16

    def test_burst_leaves_nothing_that_could_run_now(self, queues: QueueManager) -> None:
        """Jobs that end while the worker asks for more must not look like the end of the work."""

        @queues.job("t", queue="low", attempts=1)
        def t(ctx: Any, data: int) -> None:
            if data % 2:
                raise ValueError("odd")

        for _ in range(3):
            queues.enqueue_many("t", range(60))
            queues.worker().run(burst=True)
            row = next(s for s in queues.status() if s.name == "low")
            assert (row.waiting, row.active, row.completed, row.failed % 30) == (0, 0, row.failed, 0)

    def test_type_without_a_handler_waits_for_a_newer_worker(self, make: Make) -> None:
        with make() as old:

            @old.job("known")
            async def known(ctx: Any, data: None) -> None: ...

            jobs = [old.enqueue("new", 1), old.enqueue("known")]
            run_until(old, lambda: jobs[1].info().is_finished)
            assert not jobs[0].info().is_finished

            @old.job("new")
            async def new(ctx: Any, data: int) -> int:
                return data + 1

            run_until(old, lambda: jobs[0].info().is_finished)
            assert jobs[0].result(0) == 2

    def test_type_nobody_knows_fails_after_its_grace(self, make: Make) -> None:
        with make(unknown_grace=0.3) as queues:

            @queues.job("known")
            async def known(ctx: Any, data: None) -> None: ...

            job = queues.enqueue("gone")
            run_until(queues, lambda: job.info().is_finished, lease=0.8)
            assert "gone" in (job.info().error or "")

    def test_two_workers_run_every_job_once(self, queues: QueueManager) -> None:
        runs: list[int] = []

        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            runs.append(data)
            await asyncio.sleep(0.002)

        queues.enqueue_many("t", range(200))
        other = queues.worker(concurrency=5, lease=LEASE_S)
        thread = threading.Thread(target=other.run)
        thread.start()
        try:
            run_until(queues, lambda: sum(s.completed for s in queues.status()) == 200)
        finally:
            other.stop()
            thread.join(20)
        assert sorted(runs) == list(range(200))

    def test_steps_that_are_done_are_not_done_again(self, queues: QueueManager) -> None:
        charged: list[int] = []

        @queues.job("pay", attempts=2, backoff=Exponential(0.01, jitter=0))
        def pay(ctx: Any, data: int) -> None:
            with ctx.once("charge") as todo:
                if todo:
                    charged.append(data)
            if ctx.attempt == 1:
                raise ValueError("after the charge")

        job = pay.enqueue(5)
        run_until(queues, lambda: job.info().is_finished)
        assert job.info().state is JobState.COMPLETED
        assert charged == [5]

    def test_what_the_backend_lacks_is_refused_at_enqueue(self, queues: QueueManager) -> None:
        has = queues.backend.capabilities
        asked: dict[str, dict[str, Any]] = {
            "priorities": {"priority": 5},
            "unique": {"unique_key": "k"},
            "fairness": {"fairness_key": "k"},
            "flows": {"after": ["some-id"]},
        }
        for capability, options in asked.items():
            if capability not in has:
                with pytest.raises(Unsupported, match=capability):
                    queues.enqueue("t", **options)
        calls: dict[str, Callable[[], object]] = {
            "pause": lambda: queues.pause("low"),
            "dead_letter": lambda: queues.dead("low"),
        }
        for capability, call in calls.items():
            if capability not in has:
                with pytest.raises(Unsupported, match=capability):
                    call()
            else:
                call()
        assert sum(s.waiting for s in queues.status()) == 0

    def test_data_without_an_encoding_is_refused(self, queues: QueueManager) -> None:
        with pytest.raises(PayloadError, match="data"):
            queues.enqueue("t", object())
        until(lambda: sum(s.enqueued for s in queues.status()) == 0)
