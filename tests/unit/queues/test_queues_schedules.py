"""Cron slots, around clock changes and odd dates; the scheduler under a clock that jumps."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from eventperf.queues import QueueManager
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.schedules import Cron, Every, Schedule
from eventperf.queues.working.scheduler import Scheduler
from eventperf.testing import FakeClock

PARIS = ZoneInfo("Europe/Paris")


def slots(cron: Cron, start: datetime, n: int) -> list[str]:
    at, found = start.timestamp(), []
    for _ in range(n):
        after = cron.after(at)
        assert after is not None
        at = after
        found.append(datetime.fromtimestamp(at, cron.zone).strftime("%m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/20 9-10 * * *", ["11-21 09:00", "11-21 09:20", "11-21 09:40", "11-21 10:00"]),
        ("0 12 * * mon-fri", ["11-23 12:00", "11-24 12:00"]),
        ("0 0 1 * *", ["12-01 00:00", "01-01 00:00"]),
        ("5 4 * * sun,7", ["11-22 04:05", "11-29 04:05"]),
        ("0 0 13 * fri", ["11-27 00:00", "12-04 00:00", "12-11 00:00", "12-13 00:00"]),
        ("0 0 */10 * mon", ["12-21 00:00"]),
        ("@hourly", ["11-21 01:00", "11-21 02:00"]),
        ("30 6 29 feb *", ["02-29 06:30"]),
        ("15/15 0 * * *", ["11-21 00:15", "11-21 00:30", "11-21 00:45", "11-22 00:15"]),
    ],
)
def test_slots_of_expressions(text: str, expected: list[str]) -> None:
    start = datetime(2026, 11, 21, tzinfo=timezone.utc)  # a Saturday
    assert slots(Cron(text), start, len(expected)) == [f"{slot}+0000" for slot in expected]


def test_a_skipped_local_time_runs_after_the_gap_and_a_doubled_one_once() -> None:
    cron = Cron("30 2 * * *", PARIS)
    assert slots(cron, datetime(2026, 3, 28, 12, tzinfo=PARIS), 2) == ["03-29 03:30+0200", "03-30 02:30+0200"]
    assert slots(cron, datetime(2026, 10, 24, 12, tzinfo=PARIS), 2) == [
        "10-25 02:30+0200",
        "10-26 02:30+0100",
    ]


def test_every_hour_follows_real_time_through_clock_changes() -> None:
    cron = Cron("0 * * * *", PARIS)
    for start in (datetime(2026, 3, 28, 22, tzinfo=PARIS), datetime(2026, 10, 24, 22, tzinfo=PARIS)):
        at = start.timestamp()
        for _ in range(8):
            after = cron.after(at)
            assert after == at + 3600
            at = after


def test_before_is_the_last_slot() -> None:
    cron, at = Cron("0 9 * * *"), datetime(2026, 11, 21, 9, tzinfo=timezone.utc).timestamp()
    assert cron.before(at) == at
    assert cron.before(at - 1) == at - 86400
    assert Cron("0 9 1 1 *").before(at) is None, "too long ago to matter"


def test_every_is_aligned_on_all_hosts() -> None:
    every = Every(300.0)
    assert (every.after(301.5), every.after(600.0), every.before(600.0), every.before(601)) == (
        600,
        900,
        600,
        600,
    )


class JumpyStore:
    """A store whose clock the test moves; it fires every slot once, as stores must."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.fired = list[float]()
        self.fail = 0

    async def time(self) -> float:
        return self.now

    async def fire(self, name: str, slot: float, job: Any, *, late: bool = False) -> bool:
        if self.fail:
            self.fail -= 1
            raise StoreUnavailable("down")
        if self.fired and self.fired[-1] >= slot:
            return False
        self.fired.append(slot)
        return True


def test_steps_of_the_hosts_clock_move_nothing_and_lost_stores_are_waited_for() -> None:
    queues = QueueManager("memory://", clock=FakeClock())
    queues.cron("n", 0.1, "t")
    base: Schedule = queues.schedules["n"]

    async def main() -> list[float]:
        store = JumpyStore()
        store.fail = 2
        anystore: Any = store
        task = asyncio.create_task(Scheduler(anystore, [base]).run())
        while len(store.fired) < 5:
            await asyncio.sleep(0.01)
            store.now += 0.1
            if len(store.fired) == 3:
                store.now -= 0.05  # the store's own clock steps back
        task.cancel()
        await asyncio.wait([task])
        return store.fired

    fired = asyncio.run(main())
    assert fired == sorted(set(fired))
