"""Decision time of each scaling policy beside its floors, and the backtest on a synthetic event day."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

from eventperf.scaling import (
    Behavior,
    LatencyPolicy,
    Observation,
    Sample,
    TargetState,
    TargetTracking,
    ThresholdPolicy,
    Trace,
    backtest,
)
from eventperf.scaling.manager import decide


def event_day(minutes: int = 1440) -> Trace:
    """A daily wave with three openings, requests per second for each minute."""
    rates = []
    for minute in range(minutes):
        rate = 600.0 - 400.0 * math.cos(2.0 * math.pi * minute / 1440.0)
        for start in (540, 780, 1140):
            if minute >= start:
                rate += 1800.0 * math.exp(-(minute - start) / 12.0)
        rates.append(rate)
    return Trace(tuple(rates))


def _observation(at: float, memory: Any) -> Observation:
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
        tolerance=Behavior().tolerance,
        memory=memory,
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
    """Time the whole decision: policy, behavior and record; building the observation is not counted."""
    behavior, taken = Behavior(), list[float]()
    memory: Any = {}
    for i in range(rounds):
        seen = _observation(15.0 * i, memory)
        start = time.perf_counter_ns()
        decision = decide(seen, policy, behavior, at=seen.at_s, target="bench")
        taken.append((time.perf_counter_ns() - start) / 1000.0)
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
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    times = measure(max(100, args.rounds))
    start = time.perf_counter()
    scores = backtest(LatencyPolicy(), event_day()).to_dict()["scores"]
    spent = time.perf_counter() - start
    if args.json:
        print(json.dumps({"decision": times, "backtest": scores, "backtest_s": spent}))
        return 0
    print(f"{'decision of one target':24}{'p50 us':>10}{'p99 us':>10}")
    for name, row in times.items():
        print(f"{name:24}{row['p50_us']:10.2f}{row['p99_us']:10.2f}")
    print(f"\n{'synthetic event day':24}{'late %':>10}{'x oracle':>10}{'flaps':>8}   ({spent:.1f} s)")
    for row in scores:
        name = "LatencyPolicy" if row["name"] == "policy" else row["name"]
        print(f"{name:24}{100 * row['violations']:10.3f}{row['cost']:10.2f}{row['flaps']:8}")
    return 0
