"""Target tracking, exactly as the Kubernetes HorizontalPodAutoscaler computes it. Pure.

Source: Kubernetes documentation, "Horizontal Pod Autoscaling", section "Algorithm details" (autoscaling/v2),
and the cases published with it: integer percent ratios; tolerance; pods without metrics counted at 100 % of
their request (or the target, if larger) on the way down and 0 on the way up; unready pods 0 on the way up;
no change of direction because of either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import (
    METRICS,
    REPLICAS_MAX,
    Observation,
    PodSample,
    Recommendation,
    Sample,
    Tolerance,
    real,
)


@dataclass(frozen=True, slots=True)
class Tracked:
    """One metric's answer.

    Attributes:
        replicas: Wanted by this metric, ``None`` when it cannot be computed.
        text: Figures, or why there are none.
    """

    replicas: int | None
    text: str


def utilization_replicas(
    current: int, pods: Sequence[PodSample], target_percent: float, tolerance: Tolerance, *, cpu: bool = True
) -> Tracked:
    """Return replicas for a resource metric with an average utilisation target.

    Args:
        current: Replicas asked for now.
        pods: Every pod of the target.
        target_percent: Wanted usage in percent of the request; as with the HPA, whole percents are compared,
            unless the target itself is no whole one.
        cpu: Whether unready pods are set aside; memory counts them as they are.
    """
    if all(p.usage is None for p in pods):
        return Tracked(None, "no pod has a metric")
    counted = [p for p in pods if not p.deleting]
    unready = [p for p in counted if p.pending or (p.usage is not None and cpu and not p.ready)]
    missing = [p for p in counted if not p.pending and p.usage is None]
    ready = [p for p in counted if not p.pending and p.usage is not None and (p.ready or not cpu)]
    if any(p.request is None for p in counted):
        return Tracked(None, "a container has no request for this resource")
    if not ready:
        return Tracked(None, "no ready pod has a metric")
    if not sum(p.request or 0 for p in ready):
        return Tracked(None, "the containers request none of this resource")

    def percent(usages: Sequence[tuple[int, int]]) -> float:
        used, asked = sum(u for u, _ in usages) * 100, sum(r for _, r in usages)
        return used // asked if isinstance(target_percent, int) else used / asked

    usages = [(p.usage or 0, p.request or 0) for p in ready]
    measured = percent(usages)
    ratio = measured / target_percent
    text = f"{measured:.4g} % of the request, target {target_percent:g} %"
    rebalance = bool(unready) and ratio > 1
    if not rebalance and not missing:
        return Tracked(current if tolerance.covers(ratio) else _ceil(ratio * len(ready)), text)
    if ratio < 1:
        usages += [(int((p.request or 0) * max(100, target_percent) // 100), p.request or 0) for p in missing]
    elif ratio > 1:
        usages += [(0, p.request or 0) for p in missing]
    if rebalance:
        usages += [(0, p.request or 0) for p in unready]
    cautious = percent(usages) / target_percent
    text += f"; {len(missing)} pods without metrics and {len(unready)} unready counted with caution"
    return Tracked(_cautious(current, ratio, cautious, len(usages), tolerance), text)


def pods_metric_replicas(
    current: int, pods: Sequence[PodSample], target_milli: float, tolerance: Tolerance
) -> Tracked:
    """Return replicas for a custom metric per pod with an average-value target; readiness is no matter."""
    counted = [p for p in pods if not p.deleting]
    known: list[float] = [p.usage for p in counted if not p.pending and p.usage is not None]
    if not known:
        return Tracked(None, "no pod has a metric")
    unready = sum(p.pending for p in counted)
    missing = sum(not p.pending and p.usage is None for p in counted)

    def average() -> float:
        # whole thousandths as the HPA counts them, unless the target is finer than that
        exact = sum(known) / len(known)
        return exact // 1 if isinstance(target_milli, int) else exact

    mean = average()
    ratio = mean / target_milli
    text = f"{mean / 1000:g} per pod, target {target_milli / 1000:g}"
    rebalance = bool(unready) and ratio > 1
    if not rebalance and not missing:
        return Tracked(current if tolerance.covers(ratio) else _ceil(ratio * len(known)), text)
    known += [target_milli if ratio < 1 else 0] * (missing if ratio != 1 else 0)
    known += [0] * (unready if rebalance else 0)
    cautious = average() / target_milli
    return Tracked(_cautious(current, ratio, cautious, len(known), tolerance), text)


def _cautious(current: int, ratio: float, cautious: float, pods: int, tolerance: Tolerance) -> int:
    if tolerance.covers(cautious) or (ratio < 1 < cautious) or (cautious < 1 < ratio):
        return current
    wanted = _ceil(cautious * pods)
    turned = (cautious < 1 and wanted > current) or (cautious > 1 and wanted < current)
    return current if turned else wanted


def total_value_replicas(current: int, ready: int, value: float, target: float, tolerance: Tolerance) -> int:
    """Return replicas for an object or external metric with a total target."""
    ratio = value / target
    if current == 0:
        return _ceil(ratio)
    return current if tolerance.covers(ratio) else _ceil(ratio * ready)


def average_value_replicas(current: int, value: float, target: float, tolerance: Tolerance) -> int:
    """Return replicas for an object or external metric with a target per replica."""
    if current and tolerance.covers(value / (target * current)):
        return current
    return _ceil(value / target)


def _ceil(number: float) -> int:
    """Round up; a number beyond what any API takes is that limit, not an error."""
    return math.ceil(min(number, float(REPLICAS_MAX)))


def _whole(number: float) -> float:
    """Return an int for a whole number, which is then compared as the HPA compares it; others as they are."""
    return (
        round(number) if round(number) >= 1 and math.isclose(number, round(number), rel_tol=1e-9) else number
    )


def combine(current: int, wanted: Sequence[int | None]) -> int:
    """Return the largest wish; a metric that failed (``None``) forbids going down, all failed any change.

    >>> combine(5, [3, None]), combine(5, [7, None]), combine(5, [3, 2])
    (5, 7, 3)
    """
    known = [n for n in wanted if n is not None]
    if not known:
        return current
    best = max(known)
    return current if best < current and len(known) < len(wanted) else best


class TargetTracking:
    """Keep metrics at their targets: the algorithm of the Kubernetes HPA.

    Args:
        cpu: Wanted mean share of the CPU request, for example 0.7; ``memory`` likewise.
        rps: Wanted requests per second of one replica; ``backlog``: wanted waiting jobs per replica
            (``AverageValue`` of an object or external metric).
        totals: Metrics of these that have a target for all replicas together (``Value``): the number of
            replicas changes as the metric does to its target. For a metric of a queue or a wait, say, that
            more replicas make smaller.

    The tolerance is that of the scaler's :class:`~eventperf.scaling.Behavior`.

    >>> from eventperf.scaling import Observation, Sample, TargetState
    >>> seen = Observation(at_s=0.0, state=TargetState(replicas=3, ready=3), min_replicas=1, max_replicas=9,
    ...                    samples={"rps": Sample(value=200.0)})
    >>> TargetTracking(rps=40).decide(seen).replicas
    5
    """

    __slots__ = ("targets", "totals")

    def __init__(
        self,
        *,
        cpu: float | None = None,
        memory: float | None = None,
        rps: float | None = None,
        backlog: float | None = None,
        totals: Sequence[str] = (),
    ) -> None:
        given = {"cpu": cpu, "memory": memory, "rps": rps, "backlog": backlog}
        self.targets: dict[str, float] = {
            name: number
            for name, value in given.items()
            if value is not None and (number := real(value)) is not None
        }
        if all(value is None for value in given.values()):
            raise ConfigurationError("targets", "none", [f"{name}=..." for name in METRICS])
        self.totals: tuple[str, ...] = (totals,) if isinstance(totals, str) else tuple(totals)
        for name in self.totals:
            if name not in ("rps", "backlog") or name not in self.targets:
                raise ConfigurationError("totals", name, "rps or backlog, with a target")
        for name, value in given.items():
            high = 10.0 if name in ("cpu", "memory") else math.inf
            number = self.targets.get(name, math.nan)
            if value is not None and (not 0 < number <= high or math.isinf(number)):
                raise ConfigurationError(name, value, f"a number above 0, at most {high:g}")

    def decide(self, observation: Observation, /) -> Recommendation:
        current = observation.state.replicas
        found = {name: self._track(name, observation) for name in self.targets}
        blind = {name: t.text for name, t in found.items() if t.replicas is None}
        replicas = combine(current, [t.replicas for t in found.values()])
        if current and not replicas and not {"rps", "backlog"} & set(found):
            replicas = 1  # of none there is no usage: nothing would ever start one again
        known = {name: t for name, t in found.items() if t.replicas is not None}
        metric = max(known, key=lambda name: known[name].replicas or 0) if known else ""
        reason = f"{metric}: {known[metric].text}" if metric else "no metric can be trusted"
        return Recommendation(replicas=replicas, reason=reason, metric=metric, blind=blind)

    def _track(self, name: str, observation: Observation) -> Tracked:
        sample = observation.samples.get(name, Sample(error="no source for this metric"))
        target, state, tolerance = self.targets[name], observation.state, observation.tolerance
        if sample.pods is not None and sample.error is None and sample.age_s <= observation.max_age_s:
            if name in ("cpu", "memory"):
                percent = _whole(target * 100)
                return utilization_replicas(
                    state.replicas, sample.pods, percent, tolerance, cpu=name == "cpu"
                )
            return pods_metric_replicas(state.replicas, sample.pods, _whole(target * 1000), tolerance)
        fault = sample.fault(observation.max_age_s)
        value = sample.value
        if fault is not None or value is None:
            return Tracked(None, fault or "no value")
        if name in ("cpu", "memory"):
            goal = _whole(target * 100)
            percent = int(value * 100 + 1e-9) if isinstance(goal, int) else value * 100
            text = f"{percent:.4g} % of the request, target {goal:g} %"
            return Tracked(total_value_replicas(state.replicas, state.ready, percent, goal, tolerance), text)
        if name in self.totals:
            text = f"{value:.4g}, target {target:g} in all"
            return Tracked(total_value_replicas(state.replicas, state.ready, value, target, tolerance), text)
        text = f"{value:.4g} in all, target {target:g} per replica"
        return Tracked(average_value_replicas(state.replicas, value, target, tolerance), text)

    def __repr__(self) -> str:
        totals = f", totals={self.totals}" if self.totals else ""
        return f"TargetTracking({', '.join(f'{n}={v:g}' for n, v in self.targets.items())}{totals})"
