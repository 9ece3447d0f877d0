"""A day of an event site under an autoscaler, simulated: doors open at 09:00, 13:00 and 19:00.

The same scaler with a ``KubernetesTarget`` and real metrics runs in production; here a fake clock turns the
day in a moment, and a metrics outage at noon shows that blindness never scales down.
"""

from __future__ import annotations

import math

from eventperf.scaling import AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
from eventperf.testing import FakeClock

PER_REPLICA = 50.0
OUTAGE = range(12 * 60, 12 * 60 + 20)


def requests_per_second(minute: int) -> float:
    """Return a quiet base and a burst of half an hour at each opening."""
    base = 120 + 80 * math.sin(math.pi * minute / 1440)
    bursts = sum(700 * math.exp(-(((minute - opening) / 12) ** 2)) for opening in (540, 780, 1140))
    return base + bursts


def main() -> None:
    clock = FakeClock()
    web = SimulatedTarget(4)
    minute = 0

    def rps() -> float | None:
        return None if minute in OUTAGE else requests_per_second(minute)

    scaler = AutoScaler(
        web,
        CallableMetrics(rps=rps),
        TargetTracking(rps=PER_REPLICA),
        min_replicas=2,
        max_replicas=25,
        clock=clock,
    )
    changes, replica_minutes, short = 0, 0, 0
    for minute in range(1440):
        decision = scaler.tick()
        if decision.after != decision.before:
            changes += 1
            if changes <= 6 or decision.after >= 18:
                print(f"{minute // 60:02}:{minute % 60:02}  {decision.explain()}")
        if minute in OUTAGE:
            assert decision.after >= decision.before, "blind never scales down"
        replica_minutes += decision.after
        short += requests_per_second(minute) > decision.after * PER_REPLICA * 1.2
        clock.advance(60)
    peak = max(math.ceil(requests_per_second(m) / PER_REPLICA) for m in range(1440))
    print(f"{changes} changes; {short} minutes more than 20 % over target")
    print(f"{replica_minutes} replica-minutes; always running the peak of {peak} would be {peak * 1440}")


if __name__ == "__main__":
    main()
