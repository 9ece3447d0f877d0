"""A round asks everyone once, survives whoever fails, and never overlaps another."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.fleet import Fleet, FleetTick


class Scaler:
    def __init__(self, name: int, *, fails: bool = False, blocks: threading.Event | None = None) -> None:
        self.name, self.fails, self.blocks = name, fails, blocks
        self.ticks = 0

    def tick(self) -> int:
        self.ticks += 1
        if self.blocks is not None:
            self.blocks.wait(20)
        if self.fails:
            raise ValueError(self.name)
        return self.name


class Leader:
    def __init__(self, lead: bool = True, after: int | None = None) -> None:
        self.lead, self.left = lead, after

    @property
    def is_leader(self) -> bool:
        if self.left is not None:
            self.left -= 1
            return self.left >= 0
        return self.lead


@pytest.mark.parametrize("workers", [1, 4])
def test_everyone_is_asked_once_and_one_failure_is_alone(workers: int) -> None:
    scalers = [Scaler(n, fails=n == 3) for n in range(20)]
    with Fleet(scalers, workers=workers) as fleet:
        report = fleet.tick()
    assert report.decisions == tuple(n for n in range(20) if n != 3)
    ((index, error),) = report.errors
    assert (index, type(error)) == (3, ValueError)
    assert {s.ticks for s in scalers} == {1}


def test_who_does_not_lead_asks_nobody() -> None:
    scalers = [Scaler(n) for n in range(5)]
    report = Fleet(scalers, leader=Leader(False)).tick()
    assert (report.skipped, report.decisions) == (5, ())
    assert not any(s.ticks for s in scalers)


def test_lost_leadership_ends_the_round() -> None:
    report = Fleet([Scaler(n) for n in range(10)], leader=Leader(after=4), workers=1).tick()
    assert len(report.decisions) == 3
    assert report.skipped == 7


def test_targets_with_a_guard_ask_the_leader_before_they_write() -> None:
    class Target:
        guard = None

    scaler, leader = Scaler(1), Leader(True)
    scaler.target = Target()  # type: ignore[attr-defined]
    Fleet([scaler], leader=leader)
    guard = scaler.target.guard  # type: ignore[attr-defined]
    assert guard() is True
    leader.lead = False
    assert guard() is False


def test_shared_state_is_refreshed_once_per_round() -> None:
    class State:
        refreshed = 0

        def refresh(self) -> None:
            self.refreshed += 1

    class Target:
        state = State()

    scalers = [Scaler(n) for n in range(6)]
    for scaler in scalers:
        scaler.target = Target()  # type: ignore[attr-defined]
    fleet = Fleet(scalers, workers=1)
    fleet.tick()
    fleet.tick()
    assert Target.state.refreshed == 2


def test_rounds_do_not_overlap() -> None:
    gate = threading.Event()
    scaler = Scaler(1, blocks=gate)
    with Fleet([scaler], workers=1) as fleet:
        threads = [threading.Thread(target=fleet.tick) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        assert scaler.ticks == 1
        gate.set()
        for thread in threads:
            thread.join()
    assert scaler.ticks == 3


def test_run_keeps_its_interval_and_stops_when_told() -> None:
    stop, seen = threading.Event(), []
    with Fleet([Scaler(1)], workers=1) as fleet:

        def count(_: FleetTick[int]) -> None:
            seen.append(1)
            if len(seen) == 5:
                stop.set()

        fleet.hooks.subscribe(count, FleetTick)
        fleet.run(interval=0.01, stop=stop)
    assert len(seen) == 5


def test_a_slow_round_drops_the_starts_it_missed() -> None:
    from eventperf.testing import FakeClock

    clock, starts = FakeClock(), []
    stop = threading.Event()

    class Slow:
        def tick(self) -> None:
            starts.append(clock.monotonic())
            clock.advance(37.0 if len(starts) == 1 else 15.0)
            if len(starts) == 3:
                stop.set()

    fleet = Fleet([Slow()], workers=1, clock=clock)
    fleet._pause = lambda due, _: clock.advance(max(0.0, due - clock.monotonic()))  # type: ignore[method-assign]
    fleet.run(interval=15, stop=stop)
    assert [s - starts[0] for s in starts] == [0.0, 45.0, 60.0]


def test_a_task_can_be_closed() -> None:
    async def main() -> int:
        async with Fleet([Scaler(1)], workers=1) as fleet:
            task = asyncio.create_task(fleet.arun(interval=0.01))
            await asyncio.sleep(0.1)
            fleet.close()
            await task
            scaler = fleet.scalers[0]
            assert isinstance(scaler, Scaler)
            return scaler.ticks

    assert asyncio.run(main()) >= 2


def test_no_workers_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        Fleet([], workers=0)


def test_the_collector_rests_for_a_second_at_most_and_works_again() -> None:
    from eventperf.testing import FakeClock

    clock, seen = FakeClock(), []

    class Slow:
        def tick(self) -> None:
            seen.append(gc.isenabled())
            clock.advance(0.4)
            if len(seen) == 5:
                raise ValueError

    assert gc.isenabled()
    Fleet([Slow() for _ in range(5)], workers=1, clock=clock).tick()
    assert seen == [False, False, False, True, True]
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        Fleet([Scaler(1)], workers=1).tick()
        assert not gc.isenabled()
    finally:
        gc.enable()
