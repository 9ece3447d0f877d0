"""arq's worker, mended where it waits; the base of those that run ``arq+redis://`` jobs."""

from __future__ import annotations

import asyncio

from arq import worker as _worker
from redis import exceptions as _redis

from eventperf._core.logs import logger

_log = logger("eventperf.queues")

_LOST = (_redis.ConnectionError, _redis.TimeoutError, OSError)


class Worker(_worker.Worker):
    """arq's worker without its two waits: for a poll when a slot is free, for ever when Redis was away."""

    # No constructor: arq reads the names of its settings from the signature.
    _freed: asyncio.Event | None = None

    async def _poll_iteration(self) -> None:
        try:
            await super()._poll_iteration()
        except _LOST as error:
            if self.burst:
                raise
            _log.warning("arq worker: Redis does not answer, trying again: %s", error)
            for job_id in [job_id for job_id, task in self.tasks.items() if task.done()]:
                del self.tasks[job_id]
            await asyncio.sleep(0.5)
            return
        while self._has_room_again():  # there was more in the queue than there were slots
            await self._slot()
            await super()._poll_iteration()

    def _has_room_again(self) -> bool:
        return self.allow_pick_jobs and not self.burst and self.job_counter >= self.max_jobs

    async def _slot(self) -> None:
        """Wait until a slot is free, at most as long as arq would have slept."""
        freed = self._freed = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(max(self.poll_delay_s, 0.01), freed.set)
        try:
            await freed.wait()  # before Python 3.12 wait_for() may swallow the cancellation of a stop
        finally:
            timer.cancel()

    def _release_sem_dec_counter_on_complete(self) -> None:
        super()._release_sem_dec_counter_on_complete()
        if self._freed is not None:
            self._freed.set()
