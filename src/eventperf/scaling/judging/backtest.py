"""Judge a policy on a recorded load before it drives anything: the very objects that run live. No I/O.

The model: a fluid queue in front of identical replicas that need time to start and are paid for from the
moment they are asked for. Requests that wait longer than the goal are violations. Metrics reach the policy
late, as they do in life.
"""

from __future__ import annotations

import csv
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.behavior import Behavior
from eventperf.scaling.calendar import Calendar
from eventperf.scaling.deciding import decide
from eventperf.scaling.model import CalendarEvent, Change, Observation, Sample, TargetState
from eventperf.scaling.policies.queueing import late_share, replicas_for
from eventperf.scaling.policies.thresholds import ThresholdPolicy
from eventperf.scaling.policies.tracking import TargetTracking
from eventperf.scaling.protocols import Policy

from .plot import scores_file, scores_page
from .score import Score

_FLAP_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodModel:
    """What one replica is taken to be.

    Attributes:
        rps: Requests per second it can serve; ``concurrency`` of them at once.
        startup: Shortest and longest time until it serves.
        wait: A request that waits longer violates the goal.
        lag: Age of the metrics a policy sees.
    """

    rps: float = 40.0
    concurrency: int = 4
    startup: tuple[float, float] = (30.0, 90.0)
    wait: float = 0.4
    lag: float = 30.0

    def __post_init__(self) -> None:
        if isinstance(self.rps, bool) or not 0 < self.rps < math.inf:
            raise ConfigurationError("rps", self.rps, "a number above 0")
        if isinstance(self.concurrency, bool) or self.concurrency < 1:
            raise ConfigurationError("concurrency", self.concurrency, "a whole number from 1")
        if len(self.startup) != 2 or not 0 <= self.startup[0] <= self.startup[1] < math.inf:
            raise ConfigurationError("startup", self.startup, "shortest and longest time in seconds")
        for name, value in (("wait", self.wait), ("lag", self.lag)):
            if not 0 <= value < math.inf:
                raise ConfigurationError(name, value, "seconds from 0")


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded load: requests per second, one figure per ``step_s``."""

    rates: tuple[float, ...]
    step_s: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "step_s", seconds(self.step_s, name="step"))
        if not self.rates or not all(0 <= r < math.inf for r in self.rates):
            raise ConfigurationError("rates", f"{len(self.rates)} figures", "one or more finite rates from 0")

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], *, step: Duration = 60.0) -> Trace:
        """Read the last column of a CSV file as requests per second; a heading is skipped.

        Raises:
            ConfigurationError: The file cannot be read or holds something that is no rate.
        """
        rates: list[float] = []
        try:
            with open(path, newline="", encoding="utf-8") as file:
                for number, row in enumerate(csv.reader(file), 1):
                    if not row or row[0].startswith("#"):
                        continue
                    try:
                        rates.append(float(row[-1]))
                    except ValueError:
                        if rates or number > 2:
                            text = f"{os.fspath(path)} line {number}: {row[-1]!r}"
                            raise ConfigurationError("trace", text, "requests per second") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError("trace", os.fspath(path), f"a readable CSV file ({error})") from error
        return cls(tuple(rates), seconds(step, name="step"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestReport:
    """A policy beside what it should be compared with; the policy's own score comes first."""

    trace: Trace = field(repr=False)
    pod: PodModel
    scores: tuple[Score, ...]

    @property
    def score(self) -> Score:
        """The judged policy."""
        return self.scores[0]

    def __getitem__(self, name: str) -> Score:
        return next(s for s in self.scores if s.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the curves."""
        names = ("name", "violations", "replica_minutes", "cost", "actions", "flaps")
        return {"scores": [{n: getattr(s, n) for n in names} for s in self.scores]}

    def to_html(self) -> str:
        """Return one self-contained page: scores, and load, replicas, oracle and violations over time."""
        return scores_page(self._load(), self.trace.step_s, self.scores)

    def plot(self) -> str:
        """Return one self-contained SVG: replicas of each policy over the load, in replicas of work."""
        return scores_file(self._load(), self.trace.step_s, self.scores)

    def _load(self) -> list[float]:
        return [rate / self.pod.rps for rate in self.trace.rates]


def backtest(
    policy: Policy,
    trace: Trace | Sequence[float],
    *,
    pod: PodModel | None = None,
    behavior: Behavior | None = None,
    min_replicas: int = 1,
    max_replicas: int = 1000,
    interval: Duration = 60.0,
    calendar: Calendar | Sequence[CalendarEvent] | None = None,
    compare: bool = True,
    progress: Callable[[str, float], object] | None = None,
    seed: int = 1,
) -> BacktestReport:
    """Run ``policy`` over ``trace`` and compare it with an oracle, a static peak, the HPA and thresholds.

    The oracle knows the future: the fewest replicas that keep the goal at every step, started in time.

    Args:
        interval: Time between two decisions, at least one step of the trace is simulated for each.
        calendar: Dated events, in seconds from the begin of the trace, for policies that read them.
        progress: Called with the name of a policy and the share of its trace that is done.
        seed: Of the start-up times; equal seeds give equal reports.

    >>> report = backtest(TargetTracking(rps=20), [100.0] * 60)
    >>> report.score.violations < 0.001, report["oracle"].cost
    (True, 1.0)
    """
    model = pod or PodModel()
    load = trace if isinstance(trace, Trace) else Trace(tuple(float(r) for r in trace))
    if not callable(getattr(policy, "decide", None)):
        raise ConfigurationError("policy", policy, "an object with decide()")
    if not 0 <= min_replicas <= max_replicas or max_replicas < 1:
        raise ConfigurationError(
            "max_replicas", max_replicas, f"at least 1 and min_replicas ({min_replicas})"
        )
    every = max(1, round(seconds(interval, name="interval") / load.step_s))
    limits = behavior or Behavior()
    known: dict[float, int] = {}
    needs = [
        known.get(rate) or known.setdefault(rate, max(min_replicas, _need(rate, model, max_replicas)))
        for rate in load.rates
    ]
    plan = _oracle(needs, math.ceil(model.startup[1] / load.step_s))
    perfect = _Run(model, load, plan[0], 0, max_replicas, seed).play(
        "oracle", lambda run, t: plan[run.step], 1
    )
    paid = perfect.replica_minutes

    dates = calendar if calendar is None or isinstance(calendar, Calendar) else Calendar(calendar)

    def score(name: str, judged: Policy) -> Score:
        run = _Run(model, load, plan[0], min_replicas, max_replicas, seed)
        return run.play(name, _Driver(judged, limits, dates), every, progress)

    scores = [score("policy", policy)]
    if compare:
        fixed = max(needs)
        still = _Run(model, load, fixed, 0, max_replicas, seed).play(
            "static peak", lambda run, t: fixed, every
        )
        scores += [
            score("HPA cpu 70 %", TargetTracking(cpu=0.7)),
            score("HPA rps 70 %", TargetTracking(rps=0.7 * model.rps)),
            score("thresholds", ThresholdPolicy()),
            still,
        ]
    scores.append(perfect)
    judged = tuple(replace(s, cost=s.replica_minutes / paid) for s in scores)
    return BacktestReport(trace=load, pod=model, scores=judged)


def _need(rate: float, pod: PodModel, most: int) -> int:
    found = replicas_for(
        rate, capacity_rps=pod.rps, concurrency=pod.concurrency, wait_s=pod.wait, share=0.001
    )
    return min(most, found)


def _oracle(needs: Sequence[int], ahead: int) -> list[int]:
    """The largest need from each step to ``ahead`` steps later, in one pass."""
    plan, window = [0] * len(needs), deque[int]()
    for i in range(len(needs) - 1, -1, -1):
        while window and needs[window[-1]] <= needs[i]:
            window.pop()
        window.append(i)
        while window[0] > i + ahead:
            window.popleft()
        plan[i] = needs[window[0]]
    return plan


class _Run:
    """One policy's day: the queue and the replicas."""

    def __init__(self, pod: PodModel, load: Trace, first: int, low: int, high: int, seed: int) -> None:
        self.pod, self.load, self.low, self.high = pod, load, low, high
        self.random = Random(seed)
        self.ready, self.starting = first, list[float]()
        self.queue, self.step = 0.0, 0
        self.seen: list[tuple[float, float, float]] = []  # cpu, rps, backlog of each past step

    @property
    def replicas(self) -> int:
        return self.ready + len(self.starting)

    def play(
        self,
        name: str,
        choose: Callable[[_Run, float], int],
        every: int,
        progress: Callable[[str, float], object] | None = None,
    ) -> Score:
        step_s = self.load.step_s
        late = total = paid = 0.0
        actions = flaps = direction = 0
        turned = -math.inf
        curve, shares = list[int](), list[float]()
        mark = max(1, len(self.load.rates) // 100)
        for step, rate in enumerate(self.load.rates):
            self.step = step
            now = step * step_s
            if progress is not None and step % mark == 0:
                progress(name, step / len(self.load.rates))
            if step % every == 0:
                before = self.replicas
                after = min(self.high, max(self.low, choose(self, now)))
                if after != before:
                    actions += 1
                    sign = 1 if after > before else -1
                    flaps += direction == -sign and now - turned < _FLAP_S
                    direction, turned = sign, now
                    self._scale(after, now)
            share = self._serve(rate, now)
            shares.append(share)
            late += share * rate * step_s
            total += rate * step_s
            paid += self.replicas * step_s / 60.0
            curve.append(self.replicas)
        if progress is not None:
            progress(name, 1.0)
        return Score(
            name=name, violations=late / total if total else 0.0, replica_minutes=paid, cost=1.0,
            actions=actions, flaps=flaps, replicas=tuple(curve), late=tuple(shares),
        )  # fmt: skip

    def _scale(self, after: int, now: float) -> None:
        while self.replicas < after:
            self.starting.append(now + self.random.uniform(*self.pod.startup))
        self.starting.sort()
        while self.replicas > after:  # those that still start go first
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1

    def _serve(self, rate: float, now: float) -> float:
        """Advance one step; return the share of its requests that waited too long."""
        step_s, pod = self.load.step_s, self.pod
        up = [at for at in self.starting if at < now + step_s]
        self.starting = self.starting[len(up) :]
        # Within the step those replicas serve only from when they are up.
        mean = self.ready + sum((now + step_s - at) / step_s for at in up)
        self.ready += len(up)
        capacity, queue = mean * pod.rps, self.queue
        if capacity <= 0:
            self.seen.append((1.0, rate, queue))
            return 1.0 if rate else 0.0
        after = max(0.0, queue + (rate - capacity) * step_s)
        after = min(after, capacity * 10.0)  # clients give up after ten seconds
        low, high = sorted((queue / capacity, after / capacity))
        if high > 0:
            late = 0.0 if high <= pod.wait else 1.0 if low >= pod.wait else (high - pod.wait) / (high - low)
        else:
            late = late_share(rate, capacity, max(1, int(mean * pod.concurrency)), pod.wait)
        self.seen.append((min(1.0, (queue / step_s + rate) / capacity), rate, after))
        self.queue = after
        return late


class _Driver:
    """A policy with its behavior, fed as :class:`AutoScaler` feeds it."""

    def __init__(self, policy: Policy, behavior: Behavior, calendar: Calendar | None) -> None:
        self.policy, self.behavior, self.calendar = policy, behavior, calendar
        self.past_s = behavior.memory_s
        self.changes: deque[Change] = deque()
        self.wishes: deque[tuple[float, int]] = deque()
        self.memory: Any = {}

    def __call__(self, run: _Run, now: float) -> int:
        keep = max(3600.0, self.past_s)
        while self.changes and now - self.changes[0].at_s > keep:
            self.changes.popleft()
        while self.wishes and now - self.wishes[0][0] > self.past_s:
            self.wishes.popleft()
        observation = Observation(
            at_s=now,
            state=TargetState(replicas=run.replicas, ready=run.ready, starting=len(run.starting)),
            min_replicas=run.low,
            max_replicas=run.high,
            samples=self._samples(run),
            changes=tuple(self.changes),
            recommendations=tuple(self.wishes),
            tolerance=self.behavior.tolerance,
            memory=self.memory,
            time_s=now,
            calendar=() if self.calendar is None else self.calendar.around(now),
        )
        decision = decide(observation, self.policy, self.behavior, at=now, target="backtest")
        self.memory = decision.memory
        self.wishes.append((now, decision.wanted))
        if decision.after != decision.before:
            self.changes.append(
                Change(at_s=now, delta=decision.after - decision.before, cause=decision.metric)
            )
        return decision.after

    @staticmethod
    def _samples(run: _Run) -> dict[str, Sample]:
        late = int(run.pod.lag // run.load.step_s)
        if len(run.seen) <= late:
            return {name: Sample(error="nothing measured yet") for name in ("cpu", "rps", "backlog")}
        cpu, rps, backlog = run.seen[-1 - late]
        values: Iterable[tuple[str, float]] = (("cpu", cpu), ("rps", rps), ("backlog", backlog))
        return {name: Sample(value=value, age_s=run.pod.lag) for name, value in values}
