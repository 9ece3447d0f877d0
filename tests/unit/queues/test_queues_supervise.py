"""A worker's loops end when they are told to, also where a client takes the cancellation for a time-out."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import QueueManager, StoreUnavailable
from eventperf.queues.job import JobRecord, Lease
from eventperf.queues.protocols import Outcome
from eventperf.queues.working.acks import Acks
from eventperf.queues.working.contact import Contact
from eventperf.queues.working.scheduler import Scheduler
from eventperf.queues.working.supervise import ended, supervised
from eventperf.queues.working.threads import JobThreads


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


def test_a_schedule_whose_job_cannot_be_made_or_stored_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Store:
        def __init__(self) -> None:
            self.fired: list[str] = []
            self.enough = asyncio.Event()

        async def time(self) -> float:
            return 1000.5

        async def fire(self, name: str, slot: float, job: Any, *, late: bool) -> bool:
            if name == "refused":
                raise ConfigurationError("after", "gone", "a job that is there")
            self.fired.append(f"{name}{' late' if late else ''}")
            if len(self.fired) == 2:
                self.enough.set()
            return True

    queues, makes = QueueManager("memory://"), 0

    @queues.stamp
    def stamp() -> dict[str, str]:
        nonlocal makes
        makes += 1
        if makes > 3 and makes % 3 == 1:  # the first of three, once they are declared
            raise ValueError("no tenant here")
        return {}

    for name in ("unmade", "refused", "good"):
        queues.cron(name, "1s", "tick")

    async def main() -> list[str]:
        store = Store()
        task = asyncio.create_task(Scheduler(store, list(queues.schedules.values())).run())  # type: ignore[arg-type]
        await asyncio.wait_for(store.enough.wait(), 30)
        await ended([task])
        return store.fired

    with caplog.at_level(logging.ERROR, "eventperf.queues"):
        assert asyncio.run(main()) == ["good late", "good"]
    assert "schedule unmade skips its slot 1001" in caplog.text
    assert "schedule refused skips its slot 1001" in caplog.text


def test_what_a_slow_store_still_takes_is_reported_to_its_end() -> None:
    class Store:
        async def finish(self, outcomes: Sequence[Outcome]) -> list[bool]:
            await asyncio.sleep(0.4)  # three batches take longer than one pause of close()
            return [True] * len(outcomes)

    async def main() -> int:
        settled = list[Lease]()
        contact = Contact("w", lambda up: None)
        acks = Acks(Store(), lambda lease: None, settled.append, contact, lambda lease: None)  # type: ignore[arg-type]
        acks.start()
        for n in range(1500):
            record = JobRecord(id=f"j{n}", type="t", queue="normal", priority=3, payload=b"", attempts=1)
            lease = Lease(record, 1, 1, 0)
            acks.add(lease, Outcome(record.id, 1, "done"), None)
        await acks.close(1.0)
        return len(settled)

    assert asyncio.run(main()) == 1500


def test_a_job_whose_thread_cannot_be_started_is_not_run_later(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, ran = JobThreads(4), list[int]()
    start, go_on = threading.Thread.start, threading.Event()

    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        with pytest.raises(RuntimeError, match="new thread"):
            threads.submit(ran.append, 1)
    first = threads.submit(go_on.wait, 30)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        second = threads.submit(ran.append, 2)
    assert threading.Thread.start is start
    go_on.set()
    wait([first, second], 30)
    assert ran == [2], "by the thread that is there"
    threads.shutdown()
