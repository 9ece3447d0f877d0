"""Cron slots, around clock changes and odd dates; the scheduler under a clock that jumps."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import QueueManager
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.schedules import Cron, Every, Schedule, parse_when
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


@pytest.mark.parametrize("step_s", [0.1, 0.3, 1 / 3, 0.7, 1.1, 60.0, 86_400.0])
def test_every_has_the_same_slots_forwards_backwards_and_from_between(step_s: float) -> None:
    every = Every(step_s)
    for start in (0, int(1_795_879_000 / step_s)):
        slots = [round(n * step_s, 3) for n in range(start, start + 200)]
        for slot, later in pairwise(slots):
            between = (slot + later) / 2
            assert (every.after(slot), every.after(between)) == (later, later)
            assert (every.before(slot), every.before(between)) == (slot, slot)


def test_a_moment_before_a_slot_that_was_rounded_up_is_before_it() -> None:
    every = Every(1 / 3)
    assert (every.before(0.6668), every.after(0.6668)) == (0.333, 0.667)
    assert (every.before(0.667), every.after(0.667)) == (0.667, 1.0)


@pytest.mark.parametrize(
    ("when", "slots"),
    [
        ("*/5 9 * * mon", Cron("*/5 9 * * mon", PARIS)),
        ("@daily", Cron("@daily", PARIS)),
        ("10m", Every(600.0)),
        (90, Every(90.0)),
        (timedelta(hours=1), Every(3600.0)),
        (0.1, Every(0.1)),
    ],
)
def test_a_schedule_is_a_cron_expression_in_its_zone_or_a_duration(when: Any, slots: Cron | Every) -> None:
    assert parse_when(when, PARIS) == slots
    assert parse_when(when, "Europe/Paris") == slots


@pytest.mark.parametrize(
    ("when", "argument", "allowed"),
    [
        (0.09, "when", "at least 0.1 s"),
        ("50ms", "when", "at least 0.1 s"),
        ("daily", "when", "timedelta"),
        ("5 minutes", "cron", "five cron fields"),
        ("61 * * * *", "cron", "0 to 59"),
        ("@sometimes", "cron", "minute"),
    ],
)
def test_what_is_neither_is_refused_with_what_was_given(when: Any, argument: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_when(when, "UTC")
    assert (caught.value.argument, caught.value.given) == (argument, when)
    assert allowed in caught.value.allowed


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
