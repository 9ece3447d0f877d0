"""Waiting for jobs to end: one question to the store for all tasks of a loop that wait."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from .errors import JobNotFound
from .job import JobInfo
from .protocols import Backend

_BATCH = 500
_FIRST_S, _MOST_S = 0.002, 0.1

_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Watch]] = WeakKeyDictionary()


async def ended(backend: Backend, job_id: str, timeout_s: float) -> JobInfo | None:
    """Return where a job stands once it has ended; ``None`` if it has not within ``timeout_s``.

    Raises:
        JobNotFound: The store knows nothing of it.
    """
    watches = _loops.setdefault(asyncio.get_running_loop(), {})
    watch = watches.get(id(backend))
    if watch is None:  # it holds its backend, whose id is therefore its own until the last waiter has gone
        watch = watches[id(backend)] = _Watch(backend)
    mine = watch.add(job_id)
    try:
        await asyncio.wait([mine], timeout=timeout_s)
        return mine.result() if mine.done() else await _now(backend, job_id)
    finally:
        watch.drop(job_id, mine)
        if watch.is_idle and watches.get(id(backend)) is watch:
            del watches[id(backend)]
            watch.close()


async def _now(backend: Backend, job_id: str) -> JobInfo | None:
    """Look once more: a wait of no time is an answer too."""
    info = (await backend.aio().fetch([job_id]))[0]
    if info is None:
        raise JobNotFound(job_id)
    return info if info.is_finished else None


class _Watch:
    """Looks at all jobs that tasks of one loop wait for, as often as the newest of them would."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: dict[str, set[asyncio.Future[JobInfo]]] = {}
        self._came = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._look())

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def add(self, job_id: str) -> asyncio.Future[JobInfo]:
        future: asyncio.Future[JobInfo] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(future)
        self._came.set()
        return future

    def drop(self, job_id: str, future: asyncio.Future[JobInfo]) -> None:
        future.cancel()
        left = self._waiting.get(job_id)
        if left is not None:
            left.discard(future)
            if not left:
                del self._waiting[job_id]

    def close(self) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        pause = _FIRST_S
        while True:
            if self._came.is_set():
                self._came.clear()
                pause = _FIRST_S
            ids = list(self._waiting)
            for start in range(0, len(ids), _BATCH):
                await self._ask(ids[start : start + _BATCH])
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _MOST_S)

    async def _ask(self, ids: list[str]) -> None:
        """Tell those who wait for ``ids``; an error is theirs, each of whom would have met it alone."""
        try:
            found = await self._backend.aio().fetch(ids)
        except Exception as error:
            for job_id in ids:
                for future in self._waiting.pop(job_id, ()):
                    if not future.done():
                        future.set_exception(error)
            return
        for job_id, info in zip(ids, found, strict=True):
            if info is not None and not info.is_finished:
                continue
            for future in self._waiting.pop(job_id, ()):
                if future.done():
                    continue
                if info is None:
                    future.set_exception(JobNotFound(job_id))
                else:
                    future.set_result(info)
