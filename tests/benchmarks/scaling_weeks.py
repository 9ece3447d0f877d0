"""Random weeks of announced openings: CalendarPolicy beside an HPA with perfect cron floors and a KPA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Any

from eventperf.scaling import (
    CalendarEvent,
    CalendarPolicy,
    Observation,
    PodModel,
    Recommendation,
    TargetTracking,
    Trace,
    backtest,
)

STEP_S, DAYS = 15.0, 7
POD_RPS = 40.0
KINDS = {"opening": (20.0, 500.0), "draw": (60.0, 300.0), "start": (300.0, 1500.0)}
"""Seconds in which a kind rises, and in which it fades."""


@dataclass(frozen=True)
class Opening:
    """What happens, and what it brings at its highest."""

    at: float
    kind: str
    rps: float


@dataclass(frozen=True)
class Week:
    """A load, what happens in it, and what the calendar says of that."""

    trace: Trace
    openings: list[Opening]
    calendar: list[CalendarEvent]
    base: float


def week(seed: int) -> Week:
    """A daily wave, two openings a day of 1.2 to 30 times the load; counts off by sigma 0.3, 5 % missing."""
    random = Random(seed)
    base = random.uniform(80.0, 800.0)
    openings, calendar = list[Opening](), list[CalendarEvent]()
    for day in range(DAYS):
        for hour in random.sample(range(8, 22), 2):
            kind = random.choice(list(KINDS))
            size = math.exp(random.uniform(math.log(1.2), math.log(30.0)))
            made = Opening(day * 86400.0 + hour * 3600.0, kind, base * (size - 1.0))
            openings.append(made)
            if random.random() >= 0.05:
                said = made.rps / 0.06 * random.lognormvariate(0.0, 0.3)
                calendar.append(CalendarEvent(at=made.at, kind=kind, expected=said, id=f"{day}-{hour}"))
    rates = list[float]()
    for step in range(int(DAYS * 86400 / STEP_S)):
        t = step * STEP_S
        rate = base * (1.0 - 0.4 * math.cos(2.0 * math.pi * t / 86400.0))
        for o in openings:
            since = t - o.at
            if 0.0 <= since < 3.0 * 3600.0:
                rise, fade = KINDS[o.kind]
                rate += o.rps * (1.0 - math.exp(-since / rise)) * math.exp(-since / fade)
        rates.append(max(0.0, random.gauss(rate, math.sqrt(rate / STEP_S))))
    return Week(Trace(tuple(rates), STEP_S), openings, calendar, 1.4 * base)


class CronHpa:
    """An HPA on 70 % of a replica's rate, and floors of the true size around each listed opening."""

    def __init__(self, listed: list[Opening], base: float) -> None:
        self._hpa, self._listed, self._base = TargetTracking(rps=0.7 * POD_RPS), listed, base

    def decide(self, observation: Observation, /) -> Recommendation:
        wish = self._hpa.decide(observation)
        time_s = observation.time_s or 0.0
        due = [o.rps for o in self._listed if o.at - 180.0 <= time_s < o.at + 600.0]
        floor = math.ceil((self._base + sum(due)) / (0.8 * POD_RPS)) if due else 0
        return wish if wish.replicas >= floor else Recommendation(replicas=floor, reason="a floor")


class Kpa:
    """Knative's autoscaler: 60 s stable, panic above twice the ready capacity, target 70 %."""

    def __init__(self, share: float = 0.7) -> None:
        self._each = share * POD_RPS

    def decide(self, observation: Observation, /) -> Recommendation:
        rate, ready = observation.value("rps") or 0.0, max(1, observation.state.ready)
        past = [*observation.memory.get("past", ())[-3:], rate]
        stable = math.ceil(sum(past) / len(past) / self._each)
        panic = math.ceil(rate / self._each)
        until, most = observation.memory.get("panic", (-1.0, 0))
        if panic / ready >= 2.0:
            until = observation.at_s + 60.0
        most = max(most, stable, panic) if observation.at_s <= until else 0
        number = max(most, stable, math.floor(ready / 2))
        memory = {"past": past, "panic": (until, most)}
        return Recommendation(replicas=number, reason="kpa", metric="rps", memory=memory, paced=True)


def measure(weeks: int) -> list[dict[str, Any]]:
    """Return late requests and cost of each policy, after the first opening of each kind."""
    sums: dict[str, list[float]] = {}
    for seed in range(1, weeks + 1):
        made = week(seed)
        dates = {event.at for event in made.calendar}
        listed = [o for o in made.openings if o.at in dates]
        policies: dict[str, Any] = {
            "HPA 70 % with perfect cron floors": CronHpa(listed, made.base),
            "KPA 70 %": Kpa(),
            "CalendarPolicy": CalendarPolicy(),
        }
        counted = _counted(made)
        for name, policy in policies.items():
            score = backtest(
                policy, made.trace, pod=PodModel(lag=5.0), interval=STEP_S, calendar=made.calendar,
                compare=False, min_replicas=2, max_replicas=2000, seed=seed,
            ).score  # fmt: skip
            late = sum(s * r for s, r, c in zip(score.late, made.trace.rates, counted, strict=True) if c)
            every = sum(r for r, c in zip(made.trace.rates, counted, strict=True) if c)
            row = sums.setdefault(name, [0.0, 0.0, 0.0])
            row[0] += 100.0 * late / every / weeks
            row[1] += score.cost / weeks
            row[2] += score.flaps / DAYS / weeks
    return [{"policy": n, "late_percent": a, "cost": b, "flaps_per_day": c} for n, (a, b, c) in sums.items()]


def _counted(made: Week) -> list[bool]:
    """Leave out the first listed opening of each kind: nobody was told what kind those before it are."""
    firsts = dict[str, float]()
    for event in sorted(made.calendar, key=lambda event: event.at):
        firsts.setdefault(event.kind, event.at)
    spans = [(at - 300.0, at + 5400.0) for at in firsts.values()]
    times = (i * STEP_S for i in range(len(made.trace.rates)))
    return [not any(a <= t < b for a, b in spans) for t in times]
