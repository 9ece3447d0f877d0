"""Ten days of an event site under two autoscalers, simulated: one knows the calendar, one only the load.

Three times a day, at hours that change, a registration opens. What an opening brings is in proportion to the
people who wait for it, which the application knows two days before. Both scalers have the same policy and
settings; the calendar is the only difference. In production the target is a ``KubernetesTarget``, and the
calendar is a function that asks your database.
"""

from __future__ import annotations

import math
from random import Random

from eventperf.scaling import (
    AutoScaler,
    CalendarEvent,
    CalendarPolicy,
    CallableMetrics,
    SimulatedTarget,
)
from eventperf.testing import FakeClock

STEP_S, DAY_S, DAYS = 30.0, 86_400.0, 10
PER_REPLICA = 40.0


def openings(start: float) -> list[CalendarEvent]:
    """Return three openings a day, each with the number of people who said they would come."""
    random = Random(7)
    return [
        CalendarEvent(
            at=start + day * DAY_S + (hour + random.randrange(0, 12) * 0.25) * 3600,
            kind="registration_open",
            expected=random.randrange(500, 6000),
            known_at=start + (day - 2) * DAY_S,
            id=f"day-{day}-{hour}",
        )
        for day in range(DAYS)
        for hour in (9, 13, 18)
    ]


def load_at(now: float, start: float, events: list[CalendarEvent]) -> float:
    """Return requests per second: a quiet base, and at each opening a burst that halves in seven minutes."""
    base = 120 + 60 * math.sin(2 * math.pi * (now - start) / DAY_S)
    bursts = 0.0
    for event in events:
        after = now - event.at
        if 0 <= after < 3600:
            bursts += 0.25 * (event.expected or 0) * math.exp(-after / 600)
    return base + bursts


def run(with_calendar: bool) -> tuple[float, float, list[str]]:
    """Return late minutes and replica-hours of the last four days, and the steps before the last doors."""
    clock = FakeClock()
    start = clock.time()
    events = openings(start)
    target = SimulatedTarget(5, startup=60.0, clock=clock)
    scaler = AutoScaler(
        target,
        CallableMetrics(rps=lambda: load_at(clock.time(), start, events)),
        CalendarPolicy(wait="400ms", capacity_rps=PER_REPLICA),
        min_replicas=3,
        max_replicas=80,
        calendar=events if with_calendar else None,
        clock=clock,
    )
    late = used = 0.0
    told: list[str] = []
    doors = events[-1].at
    for _ in range(int(DAYS * DAY_S / STEP_S)):
        decision = scaler.tick()
        now = clock.time()
        if now - start > (DAYS - 4) * DAY_S:  # the days before are for learning
            ready = target.read().ready
            late += (load_at(now, start, events) > ready * PER_REPLICA) * STEP_S / 60
            used += decision.after * STEP_S / 3600
        if -900 < now - doors < 60 and decision.action == "up":
            told.append(f"{(now - doors) / 60:+.1f} min: {decision.before} -> {decision.after}")
        clock.advance(STEP_S)
    return late, used, told


def main() -> None:
    for with_calendar in (False, True):
        late, used, told = run(with_calendar)
        name = "with the calendar" if with_calendar else "without a calendar"
        print(f"{name}: {late:.1f} minutes late in the last four days, {used:.0f} replica-hours")
        print(f"  around the last opening: {'; '.join(told[:6]) or 'nothing before the doors'}")


if __name__ == "__main__":
    main()
