"""A worker's loops end when they are told to, also where a client takes the cancellation for a time-out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventperf.queues import QueueManager, StoreUnavailable
from eventperf.queues.working.supervise import ended, supervised


def test_a_loop_that_takes_a_cancellation_for_a_time_out_is_told_again() -> None:
    taken: list[str] = []

    async def retrying() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                taken.append("for a time-out")
                if len(taken) == 3:
                    raise

    async def main() -> bool:
        task = asyncio.create_task(supervised("retrying", retrying))
        await asyncio.sleep(0)
        await ended([task], again_s=0.01)
        return task.cancelled()

    assert asyncio.run(asyncio.wait_for(main(), 30))
    assert len(taken) == 3


def test_a_worker_ends_whose_scheduler_lost_its_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[bool] = []
    asks: list[Any] = []

    async def fire(self: Any, *args: Any, **options: Any) -> bool:
        asks.append(args)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if lost:
                raise
            lost.append(True)
            raise StoreUnavailable("timed out") from None
        return False

    async def main() -> None:
        queues = QueueManager("memory://")
        queues.job("tick")(lambda ctx, data: None)
        queues.cron("often", "1s", "tick", catch_up="1h")
        monkeypatch.setattr(type(queues.backend.aio()), "fire", fire)
        worker = queues.worker(lease=5, grace=1)
        run = asyncio.create_task(worker.arun())
        while not asks:
            await asyncio.sleep(0.01)
        worker.stop()
        await asyncio.wait_for(run, 30)

    asyncio.run(main())
    assert lost
