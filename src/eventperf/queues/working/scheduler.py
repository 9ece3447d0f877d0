"""The task of a worker that fires schedules; the store lets every slot through once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventperf._core.logs import logger
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.schedules import Schedule

if TYPE_CHECKING:
    from eventperf.queues.protocols import AsyncJobStore

_log = logger("eventperf.queues")


class Scheduler:
    """Fires schedules from one worker; the store lets every slot through once.

    Time is the store's, carried forward by the monotonic clock and asked for again at least every
    minute, so a step of this host's clock moves nothing.
    """

    def __init__(self, store: AsyncJobStore, schedules: Sequence[Schedule]) -> None:
        self._store: Any = store
        self._schedules = schedules
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Fire until cancelled."""
        await self._catch_up()
        while True:
            now = await self._now()
            due = {s.name: s.when.after(now) for s in self._schedules}
            first = min((at for at in due.values() if at is not None), default=None)
            if first is None or first - now > 60.0:
                await asyncio.sleep(60.0)
                continue
            end = self._loop.time() + first - now
            await asyncio.sleep(max(0.0, end - self._loop.time()))
            for schedule in self._schedules:
                if due[schedule.name] == first:
                    await self._fire(schedule, first, late=False)

    async def _catch_up(self) -> None:
        now = await self._now()
        for schedule in self._schedules:
            slot = schedule.when.before(now)
            if slot is not None and now - slot <= schedule.catch_up_s:
                await self._fire(schedule, slot, late=True)

    async def _now(self) -> float:
        while True:
            try:
                return float(await self._store.time())
            except StoreUnavailable:
                await asyncio.sleep(0.5)

    async def _fire(self, schedule: Schedule, slot: float, *, late: bool) -> None:
        """Fire one slot; what cannot be made or stored is said, and the schedules beside it go on."""
        pause = 0.05
        try:
            job = schedule.make()
        except Exception:  # a stamp of the application's
            _log.exception("schedule %s skips its slot %s: no job can be made", schedule.name, slot)
            return
        while True:
            try:
                if await self._store.fire(schedule.name, slot, job, late=late):
                    _log.info("schedule %s fired for %s", schedule.name, slot)
                return
            except StoreUnavailable:  # nobody else can reach it either; the store fires a slot once
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
            except Exception:
                _log.exception("schedule %s skips its slot %s: the store refuses it", schedule.name, slot)
                return
