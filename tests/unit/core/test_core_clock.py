from __future__ import annotations

import asyncio
import threading

import pytest

from eventperf._core.clock import Clock, SystemClock
from eventperf.errors import ConfigurationError
from eventperf.testing import FakeClock
from faults import wait_until


def test_both_clocks_fit_the_protocol():
    clocks: list[Clock] = [SystemClock(), FakeClock()]
    for clock in clocks:
        assert isinstance(clock.monotonic(), float)
        assert clock.time() > 1_600_000_000


def test_system_clock_sleeps_at_least_as_long_as_asked():
    clock = SystemClock()
    start = clock.monotonic()
    clock.sleep(0.01)
    asyncio.run(clock.asleep(0.01))
    assert clock.monotonic() - start >= 0.02


def test_time_stands_still_until_advanced():
    clock = FakeClock(monotonic=10.0, time=1000.0)
    assert (clock.monotonic(), clock.time()) == (10.0, 1000.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (12.5, 1002.5)


def test_wall_steps_leave_monotonic_alone():
    clock = FakeClock(monotonic=10.0, time=1000.0)
    clock.step_wall(-100)
    assert (clock.monotonic(), clock.time()) == (10.0, 900.0)


def test_time_never_goes_back():
    with pytest.raises(ConfigurationError, match="step_wall"):
        FakeClock().advance(-1)


def test_threads_wake_at_their_deadline_in_order():
    clock, woke = FakeClock(monotonic=0.0), []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        woke.append(seconds)

    threads = [threading.Thread(target=sleep, args=(s,)) for s in (3.0, 1.0, 2.0)]
    for thread in threads:
        thread.start()
    wait_until(lambda: clock.sleepers == 3)
    clock.advance(0.5)
    assert woke == []
    for number in (1, 2, 3):
        clock.advance(1.0)
        wait_until(lambda n=number: len(woke) == n)
    assert woke == [1.0, 2.0, 3.0]
    for thread in threads:
        thread.join(5)
    assert clock.sleepers == 0


def test_tasks_wake_and_a_cancelled_one_harms_nobody():
    async def main() -> None:
        clock = FakeClock(monotonic=0.0)
        kept = asyncio.create_task(clock.asleep(5))
        dropped = asyncio.create_task(clock.asleep(5))
        await asyncio.sleep(0)
        assert clock.sleepers == 2
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        clock.advance(5)
        await asyncio.wait_for(kept, 5)

    asyncio.run(main())


def test_advancing_after_a_loop_is_closed_is_harmless():
    clock = FakeClock()

    async def leave_asleep() -> None:
        task = asyncio.create_task(clock.asleep(1))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave_asleep())
    clock.advance(2)
    assert clock.sleepers == 0


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_at_all_does_not_park(seconds):
    clock = FakeClock()
    clock.sleep(seconds)
    asyncio.run(clock.asleep(seconds))
    assert clock.sleepers == 0
