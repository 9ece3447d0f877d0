"""The asynchronous face of a store that has only a synchronous one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from eventperf.queues.job import JobInfo, JobState, NewJob, QueueStatus, WorkerInfo
from eventperf.queues.minutes import Interval
from eventperf.queues.protocols import (
    Change,
    Claimed,
    Found,
    JobQuery,
    JobStore,
    Outcome,
    Renewed,
    WorkerCard,
)

T = TypeVar("T")


class AsyncFace:
    """Calls of a synchronous store as coroutines.

    Args:
        store: The store.
        in_threads: Run each call in a thread; needed when the store does I/O, wasteful when it does not.
    """

    def __init__(self, store: JobStore, *, in_threads: bool) -> None:
        self._store = store
        self._in_threads = in_threads

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.to_thread(call) if self._in_threads else call()

    async def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        return await self._do(lambda: self._store.push(jobs))

    async def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return await self._do(lambda: self._store.fetch(ids))

    async def counts(self) -> list[QueueStatus]:
        return await self._do(self._store.counts)

    async def load(self) -> tuple[int, int, float]:
        return await self._do(self._store.load)

    async def listing(
        self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100
    ) -> list[JobInfo]:
        return await self._do(lambda: self._store.listing(queue, state, offset=offset, limit=limit))

    async def cancel(self, ids: Sequence[str], /) -> list[bool]:
        return await self._do(lambda: self._store.cancel(ids))

    async def replay(
        self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None
    ) -> int:
        return await self._do(lambda: self._store.replay(queue, ids, limit=limit))

    async def purge(self, queue: str, state: JobState, /) -> int:
        return await self._do(lambda: self._store.purge(queue, state))

    async def set_paused(self, queue: str, paused: bool, /) -> None:
        await self._do(lambda: self._store.set_paused(queue, paused))

    async def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        await self._do(lambda: self._store.enter(card, held))

    async def leave(self, worker: str, /) -> None:
        await self._do(lambda: self._store.leave(worker))

    async def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        return await self._do(lambda: self._store.claim(worker, room, total))

    async def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        return await self._do(lambda: self._store.finish(outcomes))

    async def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        return await self._do(lambda: self._store.renew(worker, held))

    async def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        return await self._do(lambda: self._store.note(job_id, token, progress=progress, step=step))

    async def steps(self, job_id: str, /) -> frozenset[str]:
        return await self._do(lambda: self._store.steps(job_id))

    async def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        store: Any = self._store  # where the backend declares "schedules"
        return bool(await self._do(lambda: store.fire(name, slot, job, late=late)))

    async def time(self) -> float:
        store: Any = self._store
        return float(await self._do(store.time))

    async def find(self, query: JobQuery, /) -> Found:
        store: Any = self._store  # where the backend declares "search", and so on
        found: Found = await self._do(lambda: store.find(query))
        return found

    async def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        store: Any = self._store
        found: tuple[float, list[Interval]] = await self._do(lambda: store.minutes(span_s))
        return found

    async def roster(self) -> list[WorkerInfo]:
        store: Any = self._store
        found: list[WorkerInfo] = await self._do(store.roster)
        return found

    async def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        store: Any = self._store
        found: list[JobInfo] = await self._do(lambda: store.children(job_id, limit))
        return found

    async def delete(self, queue: str, ids: Sequence[str], /) -> int:
        store: Any = self._store
        return int(await self._do(lambda: store.delete(queue, ids)))

    async def update(self, job_id: str, change: Change, /) -> JobState | None:
        store: Any = self._store
        found: JobState | None = await self._do(lambda: store.update(job_id, change))
        return found

    async def nudge(self, worker: str, /) -> None:
        store: Any = self._store  # where the store is attentive
        store.nudge(worker)

    async def close(self) -> None:
        """Nothing of its own to close: the store belongs to the backend."""
