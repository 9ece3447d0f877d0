"""Decision time of each policy beside its floors, a sweep of their safety, and 35 days of backtest."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import scaling_frontier
import scaling_weeks

from eventperf.scaling import (
    Behavior,
    Calendar,
    CalendarEvent,
    CalendarPolicy,
    LatencyPolicy,
    Observation,
    PodModel,
    PredictivePolicy,
    Sample,
    TargetState,
    TargetTracking,
    ThresholdPolicy,
    Trace,
    backtest,
)
from eventperf.scaling.deciding import decide

STEP_S = 15.0
TOLERANCE = Behavior().tolerance


def event_days(days: int, seed: int = 1) -> tuple[Trace, list[CalendarEvent]]:
    """A daily wave with noise and three openings a day of very different size.

    The calendar knows nine of ten, with sizes off by a third; one burst in two days is in no calendar.
    """
    random, bursts, events = Random(seed), list[tuple[float, float]](), list[CalendarEvent]()
    for day in range(days):
        for hour in random.sample((9, 10, 12, 14, 18, 20), 3):
            at, size = day * 86400.0 + hour * 3600.0, 300.0 * random.paretovariate(1.3)
            bursts.append((at, min(size, 4000.0)))
            if random.random() < 0.9:
                said = bursts[-1][1] / 0.06 * random.lognormvariate(0.0, 0.3)
                events.append(CalendarEvent(at=at, kind="opening", expected=said, id=f"{day}-{hour}"))
        if day % 2:
            bursts.append((day * 86400.0 + random.uniform(0.0, 86400.0), 1500.0))
    bursts.sort()
    rates, near = list[float](), list[tuple[float, float]]()
    for step in range(int(days * 86400 / STEP_S)):
        t = step * STEP_S
        while bursts and bursts[0][0] <= t:
            near.append(bursts.pop(0))
        near = [b for b in near if t - b[0] < 5400.0]
        rate = 500.0 - 300.0 * math.cos(2.0 * math.pi * t / 86400.0)
        rate += sum(
            size * (1.0 - math.exp(-(t - at) / 20.0)) * math.exp(-(t - at) / 500.0) for at, size in near
        )
        rates.append(max(0.0, random.gauss(rate, math.sqrt(rate / STEP_S))))
    return Trace(tuple(rates), STEP_S), events


def sweep(days: int) -> list[dict[str, Any]]:
    """Late requests and cost for settings of the safety, beside the HPA at several targets."""
    trace, events = event_days(days)
    rows = []
    tried: list[tuple[str, Any]] = [
        (f"HPA rps {share:.0%}", TargetTracking(rps=40.0 * share)) for share in (0.8, 0.7, 0.6, 0.5)
    ]
    for kind in (LatencyPolicy, PredictivePolicy, CalendarPolicy):
        tried += [(f"{kind.__name__} {safety}", kind(safety=safety)) for safety in (0.97, 0.985, 0.995)]
    for lag in (30.0, 5.0):
        for name, policy in tried:
            score = backtest(
                policy, trace, pod=PodModel(lag=lag), interval=STEP_S, calendar=events, compare=False,
                min_replicas=2, max_replicas=400,
            ).score  # fmt: skip
            rows.append({
                "policy": name, "lag_s": lag, "late_percent": 100 * score.violations, "cost": score.cost,
                "flaps_per_day": score.flaps / days,
            })  # fmt: skip
    return rows


def _observation(at: float, memory: Any, calendar: Calendar) -> Observation:
    rps = 900.0 + 200.0 * math.sin(at / 600.0)
    values = {"rps": rps, "cpu": rps / 1600.0, "memory": 0.5, "backlog": 0.0}
    return Observation(
        at_s=at,
        state=TargetState(replicas=40, ready=40, starting=0),
        min_replicas=2,
        max_replicas=400,
        samples={name: Sample(value=value, age_s=30.0) for name, value in values.items()},
        changes=(),
        recommendations=(),
        tolerance=TOLERANCE,
        memory=memory,
        time_s=at,
        calendar=calendar.around(at),
    )


def _times(call: Callable[[int], object], rounds: int) -> dict[str, float]:
    taken = []
    for i in range(rounds):
        start = time.perf_counter_ns()
        call(i)
        taken.append((time.perf_counter_ns() - start) / 1000.0)
    taken = sorted(taken[rounds // 10 :])
    return {"p50_us": taken[len(taken) // 2], "p99_us": taken[int(0.99 * len(taken))]}


def _policy_times(policy: Any, rounds: int) -> dict[str, float]:
    """Time the whole decision, in CPU: what is observed put together, policy, behavior and record.

    An opening in each half hour is in the calendar: some thirty entries are near at any time.
    """
    behavior, taken = Behavior(), list[float]()
    calendar = Calendar(
        [
            CalendarEvent(at=1800.0 * n, kind="opening", expected=300.0 + 100.0 * (n % 7))
            for n in range(rounds * 15 // 1800 + 10)
        ]
    )
    memory: Any = {}
    for i in range(rounds):
        start = time.thread_time_ns()
        seen = _observation(15.0 * i, memory, calendar)
        decision = decide(seen, policy, behavior, at=seen.at_s, target="bench")
        taken.append((time.thread_time_ns() - start) / 1000.0)
        memory = decision.memory
    taken = sorted(taken[rounds // 10 :])
    return {"p50_us": taken[len(taken) // 2], "p99_us": taken[int(0.99 * len(taken))]}


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Return microseconds per decision, floors first."""
    cpu = [0.5 + 0.3 * math.sin(i / 40.0) for i in range(rounds)]
    policies = {
        "TargetTracking": TargetTracking(cpu=0.7),
        "ThresholdPolicy": ThresholdPolicy(),
        "LatencyPolicy": LatencyPolicy(),
        "PredictivePolicy": PredictivePolicy(),
        "CalendarPolicy": CalendarPolicy(),
    }
    result = {
        "floor: empty call": _times(lambda i: None, rounds),
        "floor: HPA formula": _times(lambda i: min(400, max(2, math.ceil(40 * cpu[i] / 0.7))), rounds),
    }
    return result | {name: _policy_times(policy, rounds) for name, policy in policies.items()}


def main(argv: list[str]) -> int:
    """Print both tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=7, help="of the synthetic trace (default 7)")
    parser.add_argument("--weeks", type=int, default=4, help="random weeks of openings (default 4; 0: none)")
    parser.add_argument("--frontier", metavar="SVG", help="only draw late requests over cost, beside peers")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.frontier:
        rows = scaling_frontier.measure(args.days)
        Path(args.frontier).write_text(scaling_frontier.drawn(rows))
        for row in rows:
            print(json.dumps(row))
        return 0
    times = measure(max(100, args.rounds))
    rows = sweep(args.days)
    month, events = event_days(35)
    minutes = Trace(tuple(month.rates[:: int(60 / STEP_S)]))
    start = time.process_time()
    scores = backtest(CalendarPolicy(), minutes, calendar=events).to_dict()["scores"]
    spent = time.process_time() - start
    weeks = scaling_weeks.measure(args.weeks) if args.weeks else []
    if args.json:
        print(
            json.dumps(
                {
                    "weeks": weeks,
                    "decision": times,
                    "sweep": rows,
                    "backtest": scores,
                    "backtest_cpu_s": spent,
                }
            )
        )
        return 0
    print(f"{'decision of one target':24}{'p50 us':>10}{'p99 us':>10}")
    for name, row in times.items():
        print(f"{name:24}{row['p50_us']:10.2f}{row['p99_us']:10.2f}")
    print(f"\n{'synthetic event days':26}{'lag s':>6}{'late %':>10}{'x oracle':>10}{'flaps/day':>10}")
    for row in rows:
        print(
            f"{row['policy']:26}{row['lag_s']:6.0f}{row['late_percent']:10.3f}{row['cost']:10.2f}"
            f"{row['flaps_per_day']:10.1f}"
        )
    title = f"{args.weeks} random weeks, lag 5 s"
    print(f"\n{title:40}{'late %':>10}{'x oracle':>10}{'flaps/day':>10}")
    for row in weeks:
        print(f"{row['policy']:40}{row['late_percent']:10.3f}{row['cost']:10.2f}{row['flaps_per_day']:10.1f}")
    print(f"\n35 days at one minute, six policies: {spent:.1f} s of CPU")
    return 0
