"""Running one job: a coroutine on the loop, a function in a thread, a function in a process."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from eventperf.queues.codec import Codec
from eventperf.queues.engine import Setup
from eventperf.queues.errors import NonRetryable
from eventperf.queues.jobtype import JobType

from .context import JobContext, process_context
from .processes import ChildClaim, ProcessPool
from .threads import JobThreads


class Executors:
    """The ways to run a handler; pools are made when a job first needs them.

    Args:
        slots: Threads at most; as many as the worker has slots.
        setup: What a process for jobs does first.
    """

    def __init__(self, codec: Codec, slots: int, setup: Setup | None = None) -> None:
        self._setup = setup
        self._codec = codec
        self._slots = slots
        self._threads: JobThreads | None = None
        self._processes: ProcessPool | None = None
        self._running: dict[str, _Thread] = {}
        self._found: set[Callable[..., Any]] = set()

    async def in_loop(self, fn: Callable[[Any, Any], Any], ctx: JobContext, data: Any) -> Any:
        """Run the coroutine that ``fn`` makes, and whatever awaitable that returns instead of its value."""
        return await ended(fn(ctx, data))

    async def in_thread(self, fn: Callable[[Any, Any], Any], ctx: JobContext, data: Any) -> Any:
        """Run ``fn`` in a thread with this task's context variables.

        A thread cannot be stopped from outside: on cancellation this waits for it to end, with
        ``ctx.cancelled`` set, so that its slot stays taken for as long as it really is. Where ``fn`` only
        made a coroutine (a wrapper written for plain functions does), that is run on the loop.
        """
        where = _Thread()
        self._running[ctx.job_id] = where
        context = contextvars.copy_context()
        where.future = self._thread_pool().submit(context.run, where.call, fn, ctx, data)
        future = asyncio.wrap_future(where.future)
        try:
            made = _value(await _to_the_end(future, lambda: setattr(ctx, "cancelled", True)))
        finally:
            if where.future.done():
                self._running.pop(ctx.job_id, None)
        return await ended(made)

    async def in_process(self, kind: JobType, ctx: JobContext, payload: bytes) -> Any:
        """Run a ``cpu=True`` handler in a process of its own; cancellation kills the process."""
        if self._processes is None:
            self._processes = ProcessPool(self._setup)
        assert kind.handler is not None
        pool, claim, where = self._processes, ChildClaim(), self._place_of(kind.handler)

        def work() -> Any:
            child = pool.take(claim)
            try:
                return child.run(*where, process_context(ctx), payload, kind.shape, kind.keep_result)
            finally:
                pool.give(child)

        def stop() -> None:
            ctx.cancelled = True
            claim.kill()

        run = functools.partial(_Thread().call, work)
        future = asyncio.get_running_loop().run_in_executor(self._thread_pool(), run)
        return _value(await _to_the_end(future, stop))

    def _place_of(self, handler: Callable[..., Any]) -> tuple[str, str]:
        """Return module and name by which a process finds ``handler``.

        Raises:
            NonRetryable: It would find another function: one that a decorator hides under its name.
        """
        if handler not in self._found:
            if not _is_found(handler):
                raise NonRetryable(
                    f"a process would not find this handler as {handler.__module__}.{handler.__qualname__}: "
                    "what has that name is declared with cpu=True, and stands at the top level of a module"
                )
            self._found.add(handler)
        return handler.__module__, handler.__qualname__

    def pids(self) -> list[int]:
        """Return the ids of the processes of ``cpu=True`` jobs."""
        return [] if self._processes is None else self._processes.pids()

    def thread_of(self, job_id: str) -> Future[Any] | None:
        """Return what runs a job in a thread, while it does."""
        where = self._running.get(job_id)
        return None if where is None or where.future is None or where.future.done() else where.future

    def stack(self, job_id: str) -> str:
        """Return where the thread of a job is just now; empty when it is in none."""
        where = self._running.get(job_id)
        return "" if where is None else where.stack()

    def _thread_pool(self) -> JobThreads:
        if self._threads is None:
            self._threads = JobThreads(self._slots)
        return self._threads

    def close(self) -> None:
        """Give the pools back; threads that still run end by themselves, or with the process."""
        if self._processes is not None:
            self._processes.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _is_found(handler: Callable[..., Any]) -> bool:
    """Tell whether ``handler`` stands under its own name, itself or below what was put around it."""
    found: Any = sys.modules.get(handler.__module__)
    for part in handler.__qualname__.split("."):
        found = getattr(found, part, None)
    seen = 0
    while found is not None and seen < 100:
        if found == handler:
            return True
        found, seen = getattr(found, "__wrapped__", None), seen + 1
    return False


class _Thread:
    """A call in a thread: what came of it as a pair, since a future takes no StopIteration."""

    def __init__(self) -> None:
        self.future: Future[Any] | None = None
        self._ident: int | None = None

    def call(self, fn: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
        self._ident = threading.get_ident()
        try:
            return fn(*args), None
        except BaseException as error:
            return None, error
        finally:
            self._ident = None

    def stack(self) -> str:
        frame = sys._current_frames().get(self._ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame))


def _value(answer: tuple[Any, BaseException | None]) -> Any:
    value, error = answer
    if isinstance(error, StopIteration):  # as Python itself does where a coroutine raises it
        raise RuntimeError(f"the handler raised StopIteration({error.value!r})") from error
    if error is not None:
        raise error
    return value


async def ended(made: Any) -> Any:
    """Return a handler's value: one that returns a coroutine or a task has not run before that has."""
    while inspect.isawaitable(made):
        made = await made
    return made


async def _to_the_end(future: asyncio.Future[Any], on_cancel: Callable[[], object]) -> Any:
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        on_cancel()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen: nobody else will ask
        raise
