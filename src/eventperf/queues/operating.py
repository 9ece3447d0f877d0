"""Asking about jobs and operating queues: the part of a manager that people and dashboards use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError

from .checks import check_ids, check_int, check_span, check_text
from .errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout
from .job import Backlog, JobInfo, JobState, QueueStatus
from .looking import Looking


class Operations(Looking):
    """Status, results, dead letter, pause: everything that is neither producing nor working."""

    def status(self) -> list[QueueStatus]:
        """Return exact counts of every queue across all processes; one round trip, no scan."""
        return self._store().counts()

    async def astatus(self) -> list[QueueStatus]:
        """Asynchronous twin of :meth:`status`."""
        return await self._astore().counts()

    def job_info(self, id: str) -> JobInfo:
        """Return where job ``id`` stands.

        Raises:
            JobNotFound: Never enqueued, or finished and no longer retained.
        """
        return _found(id, self._store().fetch([check_text(id, "id")]))

    async def ajob_info(self, id: str) -> JobInfo:
        """Asynchronous twin of :meth:`job_info`."""
        return _found(id, await self._astore().fetch([check_text(id, "id")]))

    def result(self, id: str, timeout: Duration = 30.0) -> Any:
        """Wait for job ``id`` and return what its handler returned, as plain data.

        Raises:
            JobFailed: It went to the dead letter.
            JobCancelled: It was cancelled.
            JobNotFound: No record of it.
            ResultTimeout: Not finished within ``timeout``.
            StoreUnavailable: The store has not answered within ``timeout``, or two seconds.
        """
        from .waiting import within

        timeout_s = check_span(timeout, argument="timeout", zero=True)
        end, pause = time.monotonic() + timeout_s, 0.002
        look = partial(self.job_info, check_text(id, "id"))
        while not (info := within(self._backend, end - time.monotonic(), look)).is_finished:
            left = end - time.monotonic()
            if left <= 0:
                raise ResultTimeout(id, timeout_s)
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.1)
        return self._outcome(info)

    async def aresult(self, id: str, timeout: Duration = 30.0) -> Any:
        """Asynchronous twin of :meth:`result`."""
        from .waiting import ended

        timeout_s = check_span(timeout, argument="timeout", zero=True)
        info = await ended(self._backend, check_text(id, "id"), timeout_s)
        if info is None:
            raise ResultTimeout(id, timeout_s)
        return self._outcome(info)

    def _outcome(self, info: JobInfo) -> Any:
        if info.state is JobState.FAILED:
            raise JobFailed(info.id, info.error or "unknown")
        if info.state is JobState.CANCELLED:
            raise JobCancelled(info.id)
        return None if info.result is None else self.codec.decode(info.result)

    def backlog(self, queues: Sequence[str] | None = None) -> Backlog:
        """Return depth, rates and waiting time of ``queues`` (all by default): what an autoscaler reads."""
        chosen = self._chosen(queues)
        return _backlog(self._store().counts(), self._store().load(), chosen)

    async def abacklog(self, queues: Sequence[str] | None = None) -> Backlog:
        """Asynchronous twin of :meth:`backlog`."""
        chosen, store = self._chosen(queues), self._astore()
        return _backlog(await store.counts(), await store.load(), chosen)

    # -- operating ---------------------------------------------------------------------------------

    def cancel(self, id: str) -> bool:
        """Cancel a job: at once when it waits, by asking its worker when it runs.

        A running coroutine is cancelled, a ``cpu=True`` job's process is killed, a job in a thread
        sees ``ctx.cancelled`` and must stop by itself. Returns false for unknown and ended jobs.
        """
        return self._store().cancel([check_text(id, "id")])[0]

    async def acancel(self, id: str) -> bool:
        """Asynchronous twin of :meth:`cancel`."""
        return (await self._astore().cancel([check_text(id, "id")]))[0]

    def retry(self, id: str) -> bool:
        """Put one dead job back with fresh attempts; false when it is not in the dead letter."""
        info = self.job_info(id)
        return self._store().replay(info.queue, [id]) == 1

    async def aretry(self, id: str) -> bool:
        """Asynchronous twin of :meth:`retry`."""
        info = await self.ajob_info(id)
        return await self._astore().replay(info.queue, [id]) == 1

    def dead(self, queue: str, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        """Return the dead letter of ``queue``, newest first."""
        self._queue(queue)
        _check_page(offset, limit)
        return self._store().listing(queue, JobState.FAILED, offset=offset, limit=limit)

    async def adead(self, queue: str, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        """Asynchronous twin of :meth:`dead`."""
        self._queue(queue)
        _check_page(offset, limit)
        return await self._astore().listing(queue, JobState.FAILED, offset=offset, limit=limit)

    def replay(self, queue: str, ids: Sequence[str] | None = None, *, limit: int | None = None) -> int:
        """Put dead jobs of ``queue`` back with fresh attempts; return how many.

        A job stays where it is whose ``unique_key`` a newer one holds.

        Args:
            ids: Which; all of them, oldest first, by default. Those that are not in this dead letter are
                left out.
            limit: How many at most.
        """
        return self._store().replay(self._queue(queue), _chosen_ids(ids, limit), limit=limit)

    async def areplay(self, queue: str, ids: Sequence[str] | None = None, *, limit: int | None = None) -> int:
        """Asynchronous twin of :meth:`replay`."""
        return await self._astore().replay(self._queue(queue), _chosen_ids(ids, limit), limit=limit)

    def purge(self, queue: str, state: JobState | str = JobState.WAITING) -> int:
        """Forget all jobs of ``queue`` that are waiting, delayed, failed or completed; return how many."""
        return self._store().purge(self._queue(queue), _purgeable(state))

    async def apurge(self, queue: str, state: JobState | str = JobState.WAITING) -> int:
        """Asynchronous twin of :meth:`purge`."""
        return await self._astore().purge(self._queue(queue), _purgeable(state))

    def delete(self, *ids: str) -> int:
        """Forget these jobs now, if they have ended (completed, dead or cancelled); return how many.

        Others stay: :meth:`cancel` ends them first. What waits for a dead one is cancelled, as by
        :meth:`purge`.

        Raises:
            Unsupported: The backend cannot.
        """
        self.needs("delete")
        store: Any = self._store()
        asked = check_ids(list(ids))
        by_queue = _by_queue(store.fetch(asked) if asked else [])
        return sum(store.delete(queue, some) for queue, some in by_queue.items())

    async def adelete(self, *ids: str) -> int:
        """Asynchronous twin of :meth:`delete`."""
        self.needs("delete")
        store: Any = self._astore()
        asked = check_ids(list(ids))
        by_queue = _by_queue(await store.fetch(asked) if asked else [])
        return sum([await store.delete(queue, some) for queue, some in by_queue.items()])

    def pause(self, queue: str) -> None:
        """Stop handing out jobs of ``queue`` in every process; running jobs go on."""
        self._store().set_paused(self._queue(queue), True)

    async def apause(self, queue: str) -> None:
        """Asynchronous twin of :meth:`pause`."""
        await self._astore().set_paused(self._queue(queue), True)

    def resume(self, queue: str) -> None:
        """Hand out jobs of ``queue`` again."""
        self._store().set_paused(self._queue(queue), False)

    async def aresume(self, queue: str) -> None:
        """Asynchronous twin of :meth:`resume`."""
        await self._astore().set_paused(self._queue(queue), False)

    def drain(self, timeout: Duration = "1m") -> bool:
        """Wait until no job waits, is delayed or runs; false when ``timeout`` passed first."""
        end, pause = time.monotonic() + check_span(timeout, argument="timeout", zero=True), 0.005
        while any(s.waiting or s.delayed or s.active for s in self.status()):
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)
        return True

    async def adrain(self, timeout: Duration = "1m") -> bool:
        """Asynchronous twin of :meth:`drain`."""
        import asyncio

        end, pause = time.monotonic() + check_span(timeout, argument="timeout", zero=True), 0.005
        while any(s.waiting or s.delayed or s.active for s in await self.astatus()):
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.2)
        return True


def _found(id: str, found: list[JobInfo | None]) -> JobInfo:
    if found[0] is None:
        raise JobNotFound(id)
    return found[0]


def _by_queue(found: Sequence[JobInfo | None]) -> dict[str, list[str]]:
    by_queue: dict[str, list[str]] = {}
    for info in found:
        if info is not None and info.is_finished:
            by_queue.setdefault(info.queue, []).append(info.id)
    return by_queue


def _check_page(offset: int, limit: int) -> None:
    check_int(offset, argument="offset", low=0)
    check_int(limit, argument="limit", low=1)


def _chosen_ids(ids: Sequence[str] | None, limit: int | None) -> list[str] | None:
    if limit is not None:
        check_int(limit, argument="limit", low=0)
    return None if ids is None else check_ids(ids)


def _purgeable(state: JobState | str) -> JobState:
    allowed = (JobState.WAITING, JobState.DELAYED, JobState.FAILED, JobState.COMPLETED)
    if not isinstance(state, str) or state not in allowed:
        raise ConfigurationError("state", state, [s.value for s in allowed])
    return JobState(state)


def _backlog(counts: list[QueueStatus], load: tuple[int, int, float], chosen: list[str]) -> Backlog:
    rows = [row for row in counts if row.name in chosen]
    workers, slots, run_s = load
    return Backlog(
        depth=sum(r.waiting for r in rows),
        arrival_rate=sum(r.arrival_rate for r in rows),
        service_rate=sum(r.service_rate for r in rows),
        oldest_wait_s=max((r.oldest_wait_s for r in rows), default=0.0),
        workers=workers,
        slots=slots,
        active=sum(r.active for r in rows),
        run_s=run_s,
    )
