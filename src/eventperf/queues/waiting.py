"""Waiting for jobs to end: one question for all tasks of a loop, and no wait beyond the caller's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from itertools import islice
from typing import TypeVar
from weakref import WeakKeyDictionary

from .errors import JobNotFound, StoreUnavailable
from .job import JobInfo
from .protocols import Backend, BoundedStore, EndsStore

T = TypeVar("T")

LOOK_S = 2.0
"""How long a look may take in any case: a wait of no time is an answer too."""

_BATCH = 500
_FIRST_S, _MOST_S = 0.002, 0.1
_LAST_LOOK_S = 0.5
_CHECK_S, _CHECKED = 1.0, 5  # how many jobs are looked at in full beside those that ended, and how often

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
        began = time.monotonic()
        await asyncio.wait([mine], timeout=timeout_s)
        if mine.done():
            return mine.result()
        left_s = max(LOOK_S - (time.monotonic() - began), _LAST_LOOK_S)
        if not isinstance(backend, BoundedStore):
            return await _now(backend, job_id)
        try:
            return await asyncio.wait_for(_now(backend, job_id), left_s)
        except asyncio.TimeoutError:
            raise _silent(backend, max(timeout_s, LOOK_S)) from None
    finally:
        watch.drop(job_id, mine)
        if watch.is_idle and watches.get(id(backend)) is watch:
            del watches[id(backend)]
            watch.close()


def within(backend: Backend, patience_s: float, look: Callable[[], T]) -> T:
    """Call ``look`` for a caller that has so much patience left, two seconds at least.

    In a thread, where the store's own time-outs are longer than that; a call that hangs ends by these.

    Raises:
        StoreUnavailable: It has not answered meanwhile.
    """
    patience_s = max(patience_s, LOOK_S)
    if not isinstance(backend, BoundedStore) or patience_s >= backend.answer_s:
        return look()
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(look())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="eventperf-look", daemon=True).start()
    try:
        return answer.result(patience_s)
    except FutureTimeout:
        if answer.done():  # its own
            raise
        raise _silent(backend, patience_s) from None


def _silent(backend: Backend, waited_s: float) -> StoreUnavailable:
    return StoreUnavailable(f"{backend.name} has not answered for {waited_s:g} s")


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
        self._new: list[str] = []
        self._check_at = 0.0
        self._came = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._look())

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def add(self, job_id: str) -> asyncio.Future[JobInfo]:
        future: asyncio.Future[JobInfo] = asyncio.get_running_loop().create_future()
        if job_id not in self._waiting:
            self._waiting[job_id] = set()
            self._new.append(job_id)
        self._waiting[job_id].add(future)
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
            await self._turn()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _MOST_S)

    async def _turn(self) -> None:
        """Ask once for all: what each job is, or where the store can tell, only which of them have ended.

        The latter says nothing of jobs that are not there any more: newcomers and a few of the others, by
        turns, are looked at in full.
        """
        store = self._backend.aio()
        if not isinstance(store, EndsStore):
            await self._ask(store.fetch, list(self._waiting), knows_all=True)
            return
        full, self._new = [job_id for job_id in self._new if job_id in self._waiting], []
        now = asyncio.get_running_loop().time()
        if now >= self._check_at:
            self._check_at = now + _CHECK_S
            for job_id in list(islice(self._waiting, _CHECKED)):
                self._waiting[job_id] = self._waiting.pop(job_id)  # to the end of the line
                full.append(job_id)
        await self._ask(store.fetch, list(dict.fromkeys(full)), knows_all=True)
        await self._ask(store.ended, list(self._waiting), knows_all=False)

    async def _ask(
        self,
        question: Callable[[Sequence[str]], Awaitable[list[JobInfo | None]]],
        ids: list[str],
        *,
        knows_all: bool,
    ) -> None:
        """Tell those who wait for ``ids``; an error is theirs, each of whom would have met it alone."""
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            try:
                found = await question(part)
            except Exception as error:
                for job_id in part:
                    self._tell(job_id, error)
                continue
            for job_id, info in zip(part, found, strict=True):
                if info is not None and info.is_finished:
                    self._tell(job_id, info)
                elif info is None and knows_all:
                    self._tell(job_id, JobNotFound(job_id))

    def _tell(self, job_id: str, answer: JobInfo | Exception) -> None:
        for future in self._waiting.pop(job_id, ()):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
