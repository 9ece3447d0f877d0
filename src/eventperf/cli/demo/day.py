"""An event day for the autoscaler: a simulated target, and a load curve from the platform's own data."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from sqlalchemy import Engine, text

from eventperf.scaling import AutoScaler, CallableMetrics, ScalingDecision, SimulatedTarget, TargetTracking
from eventperf.testing import FakeClock

from .dataset import DAY, NOW

TICK_S = 15.0
TARGET_SHARE = 0.7
PEAK_REPLICAS = 18


@dataclass(slots=True)
class Day:
    """What the scaler did in 24 simulated hours.

    Attributes:
        points: ``(hour, load in requests/s, capacity in requests/s, replicas)`` once a minute.
        decisions: Those that changed the number of replicas.
        short_minutes: Minutes with more load than ready capacity; ``static_minutes`` for the mean number
            of replicas standing still, the same cost.
    """

    capacity_rps: float
    points: list[tuple[float, float, float, int]] = field(default_factory=list)
    decisions: list[ScalingDecision] = field(default_factory=list)
    short_minutes: float = 0.0
    static_minutes: float = 0.0

    @property
    def mean_replicas(self) -> float:
        """Mean replicas over the day."""
        return sum(point[3] for point in self.points) / max(1, len(self.points))


def curve(engine: Engine) -> list[float]:
    """Return the load of each hour relative to the peak: when the platform's next events begin."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT starts_at FROM events WHERE starts_at > :now AND starts_at < :until"),
            {"now": NOW, "until": NOW + 7 * DAY},
        )
        starts = Counter(int(row[0] - NOW) % DAY // 3600 for row in rows)
    most = max(starts.values(), default=1)
    usual = [0.25 + 0.2 * math.sin((hour - 9) / 24 * 2 * math.pi) for hour in range(24)]
    levels = [usual[hour] + 0.35 * starts[hour] / most for hour in range(24)]
    return [level / max(levels) for level in levels]


def simulate(engine: Engine, capacity_rps: float, seed: int) -> Day:
    """Run the real scaler over a simulated day on a clock turned by hand.

    Args:
        capacity_rps: What one replica sustains, as measured in this run.
    """
    clock, random, hours = FakeClock(), Random(seed), curve(engine)
    target = SimulatedTarget(2, startup=(20, 60), name="web (simulated)", clock=clock, random=random)
    now_rps = [0.0]
    scaler = AutoScaler(
        target,
        CallableMetrics(rps=lambda: now_rps[0]),
        TargetTracking(rps=capacity_rps * TARGET_SHARE),
        min_replicas=2,
        max_replicas=40,
        clock=clock,
        random=random,
    )
    day, peak = Day(capacity_rps), capacity_rps * TARGET_SHARE * PEAK_REPLICAS
    loads: list[float] = []
    for tick in range(int(DAY / TICK_S)):
        hour = tick * TICK_S / 3600
        at, share = int(hour) % 24, hour % 1
        level = hours[at] * (1 - share) + hours[(at + 1) % 24] * share
        now_rps[0] = peak * level * random.uniform(0.95, 1.05)
        decision = scaler.tick()
        if decision.applied:
            day.decisions.append(decision)
        state = target.read()
        day.short_minutes += (now_rps[0] > state.ready * capacity_rps) * TICK_S / 60
        loads.append(now_rps[0])
        if tick % 4 == 0:
            day.points.append((hour, now_rps[0], state.ready * capacity_rps, state.replicas))
        clock.advance(TICK_S)
    static = math.floor(day.mean_replicas) * capacity_rps
    day.static_minutes = sum(load > static for load in loads) * TICK_S / 60
    return day
