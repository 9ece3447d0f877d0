"""The job store suite: whatever a handler does or raises, its job ends and the next one runs."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import Exponential, JobEvent, JobFailed, JobNotFound, JobState, QueueManager, Retry

from .tools import StoreTests, balanced, run_until


class _Mute(Exception):
    def __str__(self) -> str:
        raise AttributeError("never set")


def _odd_text() -> None:
    raise FileNotFoundError("list\udce9\x00.csv")


def _mute() -> None:
    raise _Mute


def _stop() -> None:
    next(iter(()))


def _exit() -> None:
    sys.exit(2)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _cancel() -> None:
    raise asyncio.CancelledError


def _odd_class() -> None:
    class Odd(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(f"no {name}")

    raise Odd


def _odd_retry() -> None:
    again = Retry()
    again.delay_s = "soon"  # type: ignore[assignment]
    raise again


class _Broken(logging.Handler):
    """A handler of the application's log that ends what it can."""

    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit(f"no room for {record.name}")


class EndingTests(StoreTests):
    """Ends that nobody foresaw."""

    @pytest.mark.parametrize("is_async", [False, True], ids=["thread", "coroutine"])
    @pytest.mark.parametrize("end", [_odd_text, _mute, _stop, _exit, _interrupt, _cancel, _odd_class])
    def test_any_exception_is_the_end_of_its_job_only(
        self, queues: QueueManager, end: Callable[[], None], is_async: bool
    ) -> None:
        if is_async:

            @queues.job("bad", attempts=1)
            async def bad(ctx: Any, data: None) -> None:
                end()

        else:

            @queues.job("bad", attempts=1)
            def bad_too(ctx: Any, data: None) -> None:
                end()

        @queues.job("good")
        async def good(ctx: Any, data: int) -> int:
            await asyncio.sleep(0.02)
            return data

        jobs = [
            good.enqueue(0),
            queues.enqueue("bad"),
            good.enqueue(1),
            queues.enqueue("bad"),
            good.enqueue(2),
        ]
        run_until(queues, lambda: all(job.info().is_finished for job in jobs))
        infos = [job.info() for job in jobs]
        assert [x.state.value for x in infos] == ["completed", "failed", "completed", "failed", "completed"]
        assert [x.attempt for x in infos] == [1] * 5, "none ran twice, the neighbours neither"
        assert infos[1].error
        assert balanced(queues.status())

    def test_what_ends_a_program_out_of_a_task_of_a_job_is_the_end_of_that_job_only(
        self, queues: QueueManager
    ) -> None:
        async def ends(kind: type[BaseException]) -> None:
            raise kind(3)

        @queues.job("gathers", attempts=1)
        async def gathers(ctx: Any, data: None) -> None:
            await asyncio.gather(ends(SystemExit), asyncio.sleep(0))

        @queues.job("forgets", attempts=1)
        async def forgets(ctx: Any, data: None) -> bool:
            task = asyncio.ensure_future(ends(KeyboardInterrupt))
            await asyncio.wait([task])
            return task.exception() is not None

        @queues.job("good")
        async def good(ctx: Any, data: int) -> int:
            await asyncio.sleep(0.05)
            return data

        jobs = [good.enqueue(1), gathers.enqueue(None), forgets.enqueue(None), good.enqueue(2)]
        run_until(queues, lambda: all(job.info().is_finished for job in jobs))
        assert [job.info().attempt for job in jobs] == [1] * 4
        assert [job.result(0) for job in (jobs[0], *jobs[2:])] == [1, True, 2]
        with pytest.raises(JobFailed, match="SystemExit"):
            jobs[1].result(0)

    def test_a_job_ends_whatever_log_and_listeners_of_the_application_raise(
        self, queues: QueueManager
    ) -> None:
        def listener(event: JobEvent) -> None:
            raise KeyboardInterrupt if event.kind == "started" else SystemExit

        @queues.job("bad", attempts=2, backoff=Exponential(0.01))
        async def bad(ctx: Any, data: None) -> None:
            raise ValueError("no")

        @queues.job("odd", attempts=1)
        async def odd(ctx: Any, data: None) -> None:
            _odd_retry()

        jobs = [bad.enqueue(None), odd.enqueue(None)]
        end, handler, log = queues.on(listener), _Broken(), logging.getLogger("eventperf")
        log.addHandler(handler)
        try:
            run_until(queues, lambda: all(job.info().is_finished for job in jobs))
        finally:
            log.removeHandler(handler)
            end()
        assert (jobs[0].info().attempt, jobs[0].info().error) == (2, "ValueError: no")
        assert [job.info().state for job in jobs] == [JobState.FAILED] * 2
        assert balanced(queues.status())

    def test_handlers_of_every_kind_run(self, queues: QueueManager) -> None:
        class Adds:
            data: str  # of the object, not of its call

            def __init__(self, by: int) -> None:
                self.by = by

            def __call__(self, ctx: Any, data: int) -> int:
                return data + self.by

            async def method(self, ctx: Any, data: int) -> int:
                return data + self.by

        class AddsLater(Adds):
            async def __call__(self, ctx: Any, data: int) -> int:  # type: ignore[override]
                return data + self.by

        async def adds(ctx: Any, data: int, *, by: int) -> int:
            return data + by

        async def hands_on(ctx: Any, data: int) -> Any:
            return adds(ctx, data, by=1)

        async def starts(ctx: Any, data: int) -> Any:
            return asyncio.ensure_future(adds(ctx, data, by=1))

        kinds: list[Callable[..., Any]] = [
            Adds(1), AddsLater(1), Adds(1).method, functools.partial(adds, by=1),
            functools.partial(functools.partial(Adds(1))), lambda ctx, data: adds(ctx, data, by=1),
            hands_on, starts,
        ]  # fmt: skip
        for n, kind in enumerate(kinds):
            queues.job(f"kind-{n}")(kind)
        jobs = [queues.enqueue(f"kind-{n}", 1) for n in range(len(kinds))]
        run_until(queues, lambda: all(job.info().is_finished for job in jobs))
        assert [job.result(0) for job in jobs] == [2] * len(kinds)
        with pytest.raises(ConfigurationError, match="int"):
            queues.enqueue("kind-0", "text")

    @pytest.mark.parametrize("keep_result", [True, False])
    def test_what_nobody_would_go_through_is_not_taken_for_done(
        self, queues: QueueManager, keep_result: bool
    ) -> None:
        @queues.job("maps", keep_result=keep_result)
        async def maps(ctx: Any, data: None) -> Any:
            return map(print, ["never printed"])

        job = maps.enqueue(None)
        run_until(queues, lambda: job.info().is_finished)
        with pytest.raises(JobFailed, match="map: nothing of it has run"):
            job.result(0)

    def test_coroutine_that_goes_on_past_its_time_out_is_named_with_where_it_is(
        self, queues: QueueManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        go_on = threading.Event()

        @queues.job("deaf", attempts=1, timeout=0.1)
        async def deaf(ctx: Any, data: None) -> None:
            while not go_on.is_set():
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue

        def is_told() -> bool:
            if "over its time-out" in caplog.text:
                go_on.set()
            return go_on.is_set()

        job = deaf.enqueue(None)
        with caplog.at_level(logging.WARNING, "eventperf.queues"):
            run_until(queues, is_told)
        said = [r.getMessage() for r in caplog.records if "over its time-out" in r.getMessage()]
        assert len(said) == 1, "once"
        assert job.id in said[0]
        assert "await asyncio.sleep" in said[0]

    def test_wrapper_of_a_coroutine_runs_it(self, queues: QueueManager) -> None:
        async def inner(ctx: Any, data: int) -> int:
            await asyncio.sleep(0)
            return data + 1

        @functools.wraps(inner)
        def plain(ctx: Any, data: int) -> Any:
            return inner(ctx, data)

        del plain.__wrapped__
        queues.job("wrapped")(plain)
        job = queues.enqueue("wrapped", 1)
        run_until(queues, lambda: job.info().is_finished)
        assert job.result(0) == 2

    def test_generator_is_no_result(self, queues: QueueManager) -> None:
        @queues.job("lazy")
        def lazy(ctx: Any, data: None) -> Any:
            return (n for n in range(3))

        job = lazy.enqueue(None)
        run_until(queues, lambda: job.info().is_finished)
        with pytest.raises(JobFailed, match="generator"):
            job.result(0)

    def test_result_that_cannot_be_stored_is_a_failure_unless_it_is_not_wanted(
        self, queues: QueueManager
    ) -> None:
        @queues.job("kept")
        async def kept(ctx: Any, data: None) -> Any:
            return object()

        @queues.job("dropped", keep_result=False)
        async def dropped(ctx: Any, data: None) -> Any:
            return object()

        jobs = [queues.enqueue("kept"), queues.enqueue("dropped")]
        run_until(queues, lambda: all(job.info().is_finished for job in jobs))
        with pytest.raises(JobFailed, match="keep_result=False"):
            jobs[0].result(0)
        assert jobs[1].info().state is JobState.COMPLETED
        assert jobs[1].result(0) is None

    def test_burst_leaves_nothing_of_a_chain(self, queues: QueueManager) -> None:
        if "flows" not in queues.backend.capabilities:
            pytest.skip("chains are refused, as they must")

        @queues.job("step")
        async def step(ctx: Any, data: None) -> None: ...

        for _ in range(5):
            job = queues.enqueue("step")
            for _ in range(3):
                job = queues.enqueue("step", after=[job])
            queues.worker().run(burst=True)
            assert job.info().state is JobState.COMPLETED

    def test_after_a_job_that_is_not_there_stores_nothing(self, queues: QueueManager) -> None:
        if "flows" not in queues.backend.capabilities:
            pytest.skip("chains are refused, as they must")
        with pytest.raises(ConfigurationError, match="nobody"):
            queues.enqueue("t", after=["nobody"])

        async def both() -> list[Any]:
            calls = (
                queues.aenqueue("t", 1),
                queues.aenqueue("t", 2, after=["nobody"]),
                queues.aenqueue("t", 3),
            )
            found = await asyncio.gather(*calls, return_exceptions=True)
            await queues.aclose()
            return list(found)

        first, slip, third = asyncio.run(both())
        assert isinstance(slip, ConfigurationError), "the caller is told"
        assert [job.info().state for job in (first, third)] == [JobState.WAITING] * 2, "and nobody else"
        assert sum(s.enqueued for s in queues.status()) == 2

    def test_waiters_of_many_jobs_each_get_their_own_answer(self, queues: QueueManager) -> None:
        @queues.job("t", attempts=1)
        async def t(ctx: Any, data: int) -> int:
            await asyncio.sleep(0.05)
            if data == 3:
                raise ValueError("three")
            return data

        async def main() -> list[Any]:
            worker = queues.worker(concurrency=20)
            running = asyncio.create_task(worker.arun())
            jobs = await queues.aenqueue_many("t", range(20))
            waits = [job.aresult(10) for job in (*jobs, jobs[0])]
            found = await asyncio.gather(*waits, queues.aresult("nobody", 10), return_exceptions=True)
            worker.stop()
            await running
            await queues.aclose()
            return list(found)

        found = asyncio.run(main())
        assert isinstance(found[3], JobFailed)
        assert isinstance(found[-1], JobNotFound)
        assert [x for n, x in enumerate(found[:-1]) if n != 3] == [n for n in range(20) if n != 3] + [0]
