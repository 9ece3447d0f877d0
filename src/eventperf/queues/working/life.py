"""The life of a worker: what is made before its first job, what ends it, what is given back at the end."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from random import Random
from typing import Any

from eventperf._core.logs import logger
from eventperf.queues.engine import Engine
from eventperf.queues.jobtype import WorkerHook
from eventperf.queues.options import WorkerLife

_log = logger("eventperf.queues")

_LOOK_S = 1.0


async def start_up(engine: Engine) -> None:
    """Call the functions of ``on_startup`` in their order; what one raises keeps the worker from starting."""
    for hook in engine.startups:
        await _call(hook, engine.state)


class Starting:
    """A start that a stop may cut short."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(work)
        self._cut = False

    def cancel(self) -> None:
        """Cut the start short, from any thread."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._task.cancel)

    async def is_done(self) -> bool:
        """Wait for the start; false when it was cut short."""
        try:
            await self._task
        except asyncio.CancelledError:
            if self._cut:
                return False
            self._task.cancel()
            raise
        return True


async def shut_down(engine: Engine) -> None:
    """Call the functions of ``on_shutdown``, the last declared first; what one raises is logged."""
    for hook in reversed(engine.shutdowns):
        try:
            await _call(hook, engine.state)
        except Exception:
            _log.exception("on_shutdown: %s failed", getattr(hook, "__qualname__", hook))
    engine.state.clear()


async def _call(hook: WorkerHook, state: dict[str, Any]) -> None:
    if inspect.iscoroutinefunction(hook):
        await hook(state)
    elif inspect.isawaitable(made := await asyncio.to_thread(hook, state)):
        await made


class Ageing:
    """Watches one run of a worker and tells once that its life is over.

    Args:
        children: Gives the ids of the processes of ``cpu=True`` jobs.
        on_over: Told why, on the loop.
    """

    def __init__(
        self,
        life: WorkerLife,
        random: Random,
        children: Callable[[], Iterable[int]],
        on_over: Callable[[str], object],
    ) -> None:
        self._life = life
        self._children = children
        self._on_over = on_over
        self._told = False
        self._born = time.monotonic()
        self._spread = 1.0 + 0.1 * random.random()
        self.begun: int = 0

    def room(self, held: int = 0) -> int:
        """Return how many more jobs may be claimed beside ``held`` ones that are yet to begin."""
        most = self._life.max_jobs
        return sys.maxsize if most is None else max(0, most - self.begun - held)

    def begin(self) -> None:
        """Count a job that starts."""
        self.begun += 1
        if self._life.max_jobs is not None:
            self._look(0.0, 0.0)

    async def watch(self) -> None:
        """Look at age and size every second; returns at once where neither has a bound."""
        life = self._life
        while (life.max_age_s is not None or life.max_memory_mb is not None) and not self._told:
            size = 0.0 if life.max_memory_mb is None else memory_mb(self._children())
            self._look((time.monotonic() - self._born) * self._spread, size)
            await asyncio.sleep(min(_LOOK_S, life.max_age_s or _LOOK_S))

    def _look(self, age_s: float, size_mb: float) -> None:
        why = self._life.over(jobs=self.begun, age_s=age_s, memory_mb=size_mb)
        if why and not self._told:
            self._told = True
            self._on_over(why)


def memory_mb(children: Iterable[int] = ()) -> float:
    """Return the resident size of this process and of ``children``, in MiB.

    Elsewhere than on Linux it is the largest size this process has had, and children are not counted.
    """
    if not os.path.exists("/proc/self/statm"):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    pages = 0
    for pid in (os.getpid(), *children):
        with suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:  # it may have ended
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
