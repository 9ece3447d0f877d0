"""Days that forecasting policies live through, and what they decide.

``python tests/scaling_days.py`` writes it anew: every number of replicas, and from time to time the reason
and the memory, in six digits. A change of it is a change of behaviour: it is made on purpose, and the diff is
read.
"""

from __future__ import annotations

import functools
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
    Change,
    LatencyPolicy,
    Observation,
    PredictivePolicy,
    Sample,
    TargetState,
    decide,
)
from eventperf.scaling.policies.forecast import seasons, shapes
from eventperf.scaling.policies.forecast.outlook import Outlook, look_ahead

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


def odd_rates(seed: int, ticks: int = 24) -> Iterator[tuple[float, float]]:
    """Yield times and rates that leap, leap and stay, dip for one tick, climb, or come after a gap."""
    draw = random.Random(seed)
    t, rate, held, climb = 1000.0 * seed, draw.choice([0.0, 3.0, 80.0, 2000.0]), 0.0, 1.0
    for _ in range(ticks):
        t += draw.choice([15.0, 30.0, 30.0, 30.0, 60.0] + ([400.0] if draw.random() < 0.1 else [30.0]))
        move = draw.random()
        if held:
            shown, held = held, 0.0
            rate = shown if draw.random() < 0.7 else rate
        elif move < 0.1:
            shown = held = rate * draw.choice([1.5, 2.5, 6.0, 12.0]) + 5.0
        elif move < 0.15:
            shown = rate * 0.3
        else:
            climb = draw.choice([1.0, 1.0, 1.05, 1.3, 0.9]) if move < 0.3 else climb
            rate = shown = min(max(rate, 1e-4) * climb * (1.0 + 0.06 * (draw.random() - 0.5)), 5000.0)
        yield t, shown


def looks() -> list[list[Any]]:
    """Return the whole outlook at each tick of short odd loads, and the memory at their ends."""
    rows: list[list[Any]] = []
    for seed in range(18):
        memory: dict[str, Any] = {}
        for t, rate in odd_rates(seed):
            memory, found = look_ahead(
                memory, at_s=t, rate=rate, ahead_s=60.0 + 5.0 * seed, past_s=20.0,
                safety=(0.9, 0.985, 0.998)[seed % 3],
            )  # fmt: skip
            rows.append([t, rate, *(getattr(found, name) for name in Outlook.__slots__)])
        rows.append([memory])
    return [rounded(row) for row in rows]


def steps() -> list[list[Any]]:
    """Return number and reason at each tick of short odd loads, with CPU, backlogs, replicas that start."""
    rows: list[list[Any]] = []
    for seed in range(24):
        draw, memory, replicas, ready = random.Random(seed), dict[str, Any](), seed % 5 * 4, seed % 4 * 4
        changes: list[Change] = []
        policy = LatencyPolicy(
            capacity_rps=None if seed % 2 else 40.0, hedge=(1, 4, 16)[seed % 3], concurrency=1 + seed % 4,
            startup=30.0 * (seed % 4),
        )  # fmt: skip
        for t, rate in odd_rates(seed):
            samples = {} if draw.random() < 0.03 else {"rps": Sample(value=rate, age_s=10.0)}
            if draw.random() < 0.1:
                samples["rps"] = Sample(error="no answer")
            if draw.random() < 0.8:
                share = rate / (45.0 * max(1, ready)) if draw.random() < 0.9 else 0.97
                samples["cpu"] = Sample(value=min(1.0, share))
            if draw.random() < 0.2:
                samples["backlog"] = Sample(value=draw.choice([0.0, 40.0, 4000.0]))
            seen = Observation(
                at_s=t, state=TargetState(replicas=replicas, ready=ready, starting=max(0, replicas - ready)),
                min_replicas=0, max_replicas=200, samples=samples, memory=memory, changes=tuple(changes[-2:]),
            )  # fmt: skip
            found = policy.decide(seen)
            rows.append([t, found.replicas, found.reason, found.metric, dict(found.blind), found.paced])
            memory = dict(found.memory)
            if found.replicas != replicas:
                changes.append(Change(at_s=t, delta=found.replicas - replicas))
            ready = min(found.replicas, replicas if draw.random() < 0.8 else ready)
            replicas = found.replicas
        rows.append([{key: value for key, value in memory.items() if key != "load"}])
    return [rounded(row) for row in rows]


def shaped() -> list[list[Any]]:
    """Return what is learned of events and leaps, slot by slot: kinds that overlap, change, and are said."""
    rows: list[list[Any]] = []
    for seed in range(6):
        draw, known, doubts = random.Random(seed), dict[str, Any](), dict[str, Any]()
        state = seasons.start(seed * 300.0)
        for number in range(1, 70):
            events = [
                CalendarEvent(
                    at=300.0 * (number - draw.choice([-7, -3, 0, 0, 1, 5, 36, 37])),
                    kind=draw.choice(["a", "b"]),
                    expected=draw.choice([None, 50.0, 900.0]), rps=80.0 if draw.random() < 0.05 else None,
                )
                for _ in range(draw.choice([0, 1, 1, 2]))
            ]  # fmt: skip
            reference = draw.choice([0.05, 20.0, 300.0])
            found = shapes.features(number, reference, events)
            said = shapes.explained(known, found)
            leap = draw.choice([0.0, 40.0, 400.0]) * (1.0 + number // 40 * 4)
            doubts = dict(shapes.learn_doubt(doubts, known, found, reference, leap, said))
            more = shapes.surplus(doubts, known, found, 0.9)
            if found:
                known = shapes.learn(known, found, reference, leap, said, number)
            at = 300.0 * number * (1 if seed % 2 else 61)
            state = seasons.roll(
                state, time_s=at, measured_s=at - 30.0,
                rate=None if draw.random() < 0.05 else reference + leap,
                last_rate=reference, lead_s=120.0, quantile=0.8, events=events if seed % 3 else None,
            )  # fmt: skip
            ready = seasons.reserves(state, time_s=at, soon_s=690.0, rate=reference, quantile=0.9)
            rows.append([number, found, said, more, *ready])
        rows += [[known, doubts], [state]]
    return [rounded(row) for row in rows]


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


WRITTEN: Mapping[str, Callable[[], list[list[Any]]]] = {
    **{name: functools.partial(lived, name) for name in DAYS}, "looks": looks, "shapes": shaped,
    "steps": steps,
}  # fmt: skip


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, make in WRITTEN.items():
        text = ",\n".join(json.dumps(row) for row in make())
        (FOLDER / f"{name}.json").write_text(f"[\n{text}\n]\n")
