"""Days that forecasting policies live through, and what they decide.

``python tests/scaling_days.py`` writes it anew: every number of replicas, and from time to time the reason
and the memory, in six digits. A change of it is a change of behaviour: it is made on purpose, and the diff is
read.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eventperf.scaling import (
    Behavior,
    Calendar,
    CalendarEvent,
    CalendarPolicy,
    LatencyPolicy,
    Observation,
    PredictivePolicy,
    Sample,
    TargetState,
    decide,
)

FOLDER = Path(__file__).with_name("unit") / "scaling" / "days"
_HOUR, _DAY = 3600.0, 86_400.0
Ticks = Iterator[tuple[float, dict[str, Sample]]]
Load = Callable[[float], float]


def ticks(
    load: Load, *, until_s: float, step_s: float = 30.0, begin_s: float = 0.0, age_s: float = 15.0
) -> Ticks:
    """Yield the time and what is measured; the noise is the same in each run."""
    draw = random.Random(3)
    t = begin_s
    while t < until_s:
        rate = load(t - age_s) * (1.0 + 0.04 * (draw.random() - 0.5))
        yield t, {"rps": Sample(value=rate, age_s=age_s)}
        t += step_s


def quiet(t: float) -> float:
    return 400.0 + 60.0 * math.sin(t / 900.0)


def leaping(t: float) -> float:
    """Leaps at 40 minutes, and higher at 70: it rises within a minute and fades."""
    leaps = sum(
        size * math.exp(-(t - s) / 300.0) for s, size in ((2400.0, 900.0), (4200.0, 1500.0)) if t >= s
    )
    return quiet(t) + leaps


def ramping(t: float) -> float:
    return 200.0 + max(0.0, min(t - 900.0, 1800.0)) * 0.6 - max(0.0, min(t - 4500.0, 1500.0)) * 0.5


def swinging(t: float) -> float:
    return 500.0 + (250.0 if int(t // 420.0) % 2 else 0.0)


def lunch(t: float) -> float:
    """Leaps every day at noon, and at ten on every second."""
    at, day = t % _DAY, int(t // _DAY)
    extra = 900.0 * math.exp(-(at - 12 * _HOUR) / 500.0) if 12 * _HOUR <= at < 13 * _HOUR else 0.0
    extra += (
        500.0 * math.exp(-(at - 10 * _HOUR) / 300.0) if day % 2 and 10 * _HOUR <= at < 11 * _HOUR else 0.0
    )
    return 150.0 + 100.0 * math.sin(2 * math.pi * (at / _DAY - 0.3)) + extra


OPENINGS = [
    CalendarEvent(at=n * 3 * _HOUR, kind="opening" if n % 3 else "rush", expected=size)
    for n, size in enumerate((800, 1500, 1200, None, 2500, 900, 1800), 1)
] + [CalendarEvent(at=7.5 * _HOUR, kind="said", rps=900.0)]


def opening(t: float) -> float:
    extra = 0.0
    for event in OPENINGS:
        if 0 <= t - event.at < _HOUR:
            extra += (event.expected or 600) * 0.5 * math.exp(-(t - event.at) / 700.0)
    return 200.0 + extra


def odd(t: float) -> float:
    """A reading of ten times the load now and then, a dip of one tick, and none at all for a while."""
    if int(t) % 1230 == 735:
        return 4000.0
    return 30.0 if int(t) % 1500 == 1035 else quiet(t)


def spoiled(found: Ticks) -> Ticks:
    """Without a rate for some minutes, with CPU and a backlog at times, and a gap of ten minutes."""
    for t, samples in found:
        if 3600 <= t < 4200:
            continue
        if 1800 <= t < 2100:
            samples = {"rps": Sample(error="no answer")}
        if t % 240 < 60:
            samples["backlog"] = Sample(value=900.0 if t > 1500 else 0.0)
        yield t, samples


def with_cpu(found: Ticks, each: float = 40.0, replicas: Sequence[int] = (12,)) -> Ticks:
    """With the CPU that so many replicas would show, each of which carries so much."""
    for n, (t, samples) in enumerate(found):
        rate = samples["rps"].value
        if rate is not None:
            share = rate / (each * replicas[min(n // 40, len(replicas) - 1)])
            samples["cpu"] = Sample(value=min(1.0, share), age_s=10.0)
        yield t, samples


DAYS: Mapping[str, Callable[[], tuple[LatencyPolicy, Ticks, Sequence[CalendarEvent]]]] = {
    "leaps": lambda: (LatencyPolicy(capacity_rps=40), ticks(leaping, until_s=7800.0), ()),
    "ramp": lambda: (
        LatencyPolicy(
            capacity_rps=25, wait="250ms", share=0.01, concurrency=2, startup="2m", safety=0.95, hedge=4
        ),
        ticks(ramping, until_s=9000.0, step_s=20.0),
        (),
    ),
    "swings": lambda: (LatencyPolicy(capacity_rps=40), ticks(swinging, until_s=9000.0), ()),
    "odd readings": lambda: (
        LatencyPolicy(drain="20s"),
        spoiled(with_cpu(ticks(odd, until_s=6000.0, step_s=15.0), replicas=(12, 14, 11))),
        (),
    ),
    "days": lambda: (PredictivePolicy(capacity_rps=30), ticks(lunch, until_s=3.6 * _DAY, step_s=285.0), ()),
    "calendar": lambda: (
        CalendarPolicy(capacity_rps=40, safety=0.98),
        ticks(opening, until_s=23 * _HOUR, begin_s=_HOUR, step_s=60.0),
        OPENINGS,
    ),
}


def lived(name: str) -> list[list[Any]]:
    """Return what is decided in one of the days: rows of time, replicas from there on, and what is kept."""
    policy, found, events = DAYS[name]()
    calendar, memory, replicas = Calendar(list(events)), dict[str, Any](), 12
    changes: tuple[Any, ...] = ()
    rows: list[list[Any]] = []
    kept_every = 300 if events or isinstance(policy, PredictivePolicy) else 60
    for n, (t, samples) in enumerate(found):
        seen = Observation(
            at_s=t, state=TargetState(replicas=replicas, ready=replicas), min_replicas=1, max_replicas=150,
            samples=samples, memory=memory, calendar=calendar.around(t), changes=changes[-3:],
        )  # fmt: skip
        decision = decide(seen, policy, Behavior(), at=t, target="t")
        memory = dict(decision.memory)
        row: list[Any] = [t, decision.after]
        if n % kept_every == kept_every - 1:
            row += [decision.reason, rounded(memory)]
        if decision.after != replicas or len(row) > 2:
            rows.append(row)
        replicas = decision.after
    return rows


def rounded(value: Any) -> Any:
    """Return plain JSON in six digits: what is beyond differs from machine to machine."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") + 0.0
    if isinstance(value, Mapping):
        return {str(key): rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value]


def differing(found: Any, written: Any) -> str:
    """Return where two of them differ by more than their last digits; empty where they do not."""
    if isinstance(found, dict) and isinstance(written, dict):
        if found.keys() != written.keys():
            return f"keys {sorted(found)} for {sorted(written)}"
        pairs: Any = [(f".{key}", found[key], written[key]) for key in found]
    elif isinstance(found, list) and isinstance(written, list):
        if len(found) != len(written):
            return f"{len(found)} for {len(written)}: {str(found)[:80]} for {str(written)[:80]}"
        pairs = [(f"[{n}]", *pair) for n, pair in enumerate(zip(found, written, strict=True))]
    elif isinstance(found, float) and isinstance(written, (int, float)):
        return "" if math.isclose(found, written, rel_tol=1e-5, abs_tol=1e-9) else f" {found} for {written}"
    else:
        return "" if found == written else f" {str(found)[:200]} for {str(written)[:200]}"
    return next((f"{at}{what}" for at, one, two in pairs if (what := differing(one, two))), "")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DAYS:
        text = ",\n".join(json.dumps(row) for row in lived(name))
        (FOLDER / f"{name}.json").write_text(f"[\n{text}\n]\n")
