"""The event day: the real AutoScaler on a simulated fleet whose replicas have the capacity measured here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from eventperf.scaling import AutoScaler, CallableMetrics, ScalingDecision, SimulatedTarget, TargetTracking
from eventperf.testing.clock import FakeClock


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of the simulated day."""

    hour: float
    rps: float
    replicas: int
    ready: int


def run_day(capacity_rps: float, seed: int) -> tuple[list[Minute], list[ScalingDecision]]:
    """Return the day minute by minute, and every decision that changed something.

    Args:
        capacity_rps: Requests per second that one replica serves, as measured.
        seed: Of the noise.
    """
    random, clock = Random(seed), FakeClock()
    now_rps = capacity_rps
    target = SimulatedTarget(2, startup=("30s", "60s"), name="web", clock=clock, random=random)
    per_replica = 0.6 * capacity_rps
    metrics = CallableMetrics(rps=lambda: now_rps)
    day, decisions = [], []
    with AutoScaler(
        target,
        metrics,
        TargetTracking(rps=per_replica),
        min_replicas=2,
        max_replicas=40,
        clock=clock,
        random=random,
    ) as scaler:
        for minute in range(24 * 60):
            hour = minute / 60
            now_rps = capacity_rps * _shape(hour) * random.uniform(0.95, 1.05)
            decision = scaler.tick()
            if decision.action != "none":
                decisions.append(decision)
            state = target.read()
            day.append(Minute(hour, now_rps, state.replicas, state.ready))
            clock.advance(60)
    return day, decisions


def _shape(hour: float) -> float:
    """Load of an event day in replicas' worth: night, registration opens at 10, doors at 18."""

    def bump(at: float, width: float, height: float) -> float:
        return height * math.exp(-(((hour - at) / width) ** 2))

    return 0.5 + bump(13, 4, 1.5) + bump(10.2, 0.5, 5) + bump(18.2, 0.8, 9)
