"""Running one job: a coroutine on the loop, a function in a thread, a function in a process."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from eventperf.queues.codec import Codec
from eventperf.queues.engine import Setup
from eventperf.queues.jobtype import JobType

from .context import JobContext, process_context
from .processes import Child, ProcessPool


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
        self._threads: ThreadPoolExecutor | None = None
        self._processes: ProcessPool | None = None

    async def in_thread(self, fn: Callable[[Any, Any], Any], ctx: JobContext, data: Any) -> Any:
        """Run ``fn`` in a thread with this task's context variables.

        A thread cannot be stopped from outside: on cancellation this waits for it to end, with
        ``ctx.cancelled`` set, so that its slot stays taken for as long as it really is.
        """
        work = contextvars.copy_context().run
        future = asyncio.get_running_loop().run_in_executor(self._thread_pool(), work, fn, ctx, data)
        return await _to_the_end(future, lambda: setattr(ctx, "cancelled", True))

    async def in_process(self, kind: JobType, ctx: JobContext, payload: bytes) -> Any:
        """Run a ``cpu=True`` handler in a process of its own; cancellation kills the process."""
        if self._processes is None:
            self._processes = ProcessPool(self._setup)
        pool, loop, held = self._processes, asyncio.get_running_loop(), []
        handler = kind.handler
        assert handler is not None

        def work() -> Any:
            child: Child = pool.take()
            held.append(child)
            try:
                return child.run(
                    handler.__module__, handler.__qualname__, process_context(ctx), payload, kind.shape
                )
            finally:
                pool.give(child)

        def stop() -> None:
            ctx.cancelled = True
            for child in held:
                child.kill()

        return await _to_the_end(loop.run_in_executor(self._thread_pool(), work), stop)

    def _thread_pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._slots, thread_name_prefix="eventperf-job")
        return self._threads

    def close(self) -> None:
        """Give the pools back; threads that still run end by themselves."""
        if self._processes is not None:
            self._processes.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


async def _to_the_end(future: asyncio.Future[Any], on_cancel: Callable[[], object]) -> Any:
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        on_cancel()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen: nobody else will ask
        raise
