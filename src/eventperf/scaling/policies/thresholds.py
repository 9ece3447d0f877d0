"""Policies by rule: the asked thresholds made sound. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import Change, Observation, Recommendation


def check_share(value: float, argument: str, *, low: float = 0.0, high: float = 1.0) -> None:
    """Refuse what is not a number above ``low`` and at most ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value <= high:
        raise ConfigurationError(argument, value, f"a number above {low:g} and at most {high:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdPolicy:
    """Double when hot, halve when cold: the simplest rule, without its usual accidents.

    Up, by ``factor``, when CPU or memory is above its high mark; down, by ``factor``, only when CPU,
    memory and the request rate are all below their low marks. Compared with the textbook rule:

    * nothing happens while pods of the last step are still starting;
    * a step down is taken only if the load, spread over fewer replicas, stays under the high marks;
    * memory that did not fall after a step made for it gets no further step, and a warning;
    * a metric that is missing, stale or not a number never lets anything go down;
    * the request rate is compared per replica, with what is usual at this hour; without a source of
      request rates CPU and memory alone decide.

    Attributes:
        cpu_high: Share of the CPU request; ``memory_high``, ``cpu_low`` and ``memory_low`` likewise.
        rate_low: Share of the usual request rate per replica below which a target is cold.
        baseline_rps: The usual rate per replica, when it should not be learned.
    """

    cpu_high: float = 0.7
    memory_high: float = 0.8
    cpu_low: float = 0.3
    memory_low: float = 0.4
    rate_low: float = 0.5
    factor: float = 2.0
    baseline_rps: float | None = None

    def __post_init__(self) -> None:
        for name in ("cpu_high", "memory_high", "cpu_low", "memory_low", "rate_low"):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value > 10:
                raise ConfigurationError(name, value, f"a share, so that {value / 100:g} is {value:g} %")
            check_share(value, name, high=10.0)
        for metric in ("cpu", "memory"):
            low, high = getattr(self, f"{metric}_low"), getattr(self, f"{metric}_high")
            if low >= high:
                raise ConfigurationError(f"{metric}_low", low, f"less than {metric}_high, which is {high:g}")
        check_share(self.factor, "factor", low=1.0, high=100.0)
        if self.baseline_rps is not None:
            check_share(self.baseline_rps, "baseline_rps", high=math.inf)

    def decide(self, observation: Observation, /) -> Recommendation:
        current, blind = observation.state.replicas, observation.faults()
        warnings = self._memory_warning(observation)
        hot = self._hot(observation, bool(warnings))
        if current == 0:
            load = (observation.value("rps") or 0.0) + (observation.value("backlog") or 0.0)
            least = max(observation.min_replicas, 1 if load > 0 else 0)
            return Recommendation(replicas=least, reason=f"nothing runs, load {load:g}", blind=blind)
        if hot is not None:
            name, value, mark = hot
            reason = f"{name} {value:.0%} is above {mark:.0%}"
            if observation.state.starting:
                reason += f", but {observation.state.starting} replicas are still starting"
                return Recommendation(
                    replicas=current, reason=reason, metric=name, blind=blind, warnings=warnings
                )
            wanted = max(current + 1, math.ceil(current * self.factor))
            return Recommendation(replicas=wanted, reason=reason, metric=name, blind=blind, warnings=warnings)
        reason, wanted = self._cold(observation, blind)
        return Recommendation(replicas=wanted, reason=reason, blind=blind, warnings=warnings)

    def _hot(self, observation: Observation, memory_stuck: bool) -> tuple[str, float, float] | None:
        for name, mark in (("cpu", self.cpu_high), ("memory", self.memory_high)):
            value = observation.value(name)
            if value is not None and value > mark and not (name == "memory" and memory_stuck):
                return name, value, mark
        return None

    def _memory_warning(self, observation: Observation) -> Mapping[str, str]:
        last = last_step(observation)
        now = observation.value("memory")
        if last is None or last.delta < 0 or last.cause != "memory" or now is None or now <= self.memory_high:
            return {}
        if observation.state.starting or now < last.level * 0.95:
            return {}
        text = f"memory stayed at {now:.0%} after {last.delta} more replicas: more of them will not help"
        return {"memory_not_falling": text}

    def _cold(self, observation: Observation, blind: Mapping[str, str]) -> tuple[str, int]:
        current, cpu, memory = (
            observation.state.replicas,
            observation.value("cpu"),
            observation.value("memory"),
        )
        if blind or (cpu is None and memory is None):
            return "not every metric can be trusted", current
        if observation.state.starting:
            return f"{observation.state.starting} replicas are still starting", current
        for name, value, mark in (("cpu", cpu, self.cpu_low), ("memory", memory, self.memory_low)):
            if value is not None and value >= mark:
                return f"{name} {value:.0%} is not below {mark:.0%}", current
        busy = self._busy(observation)
        if busy is not None:
            return busy, current
        wanted = max(1, math.ceil(current / self.factor))
        for value, mark in ((cpu, self.cpu_high), (memory, self.memory_high)):
            if value is not None:
                wanted = max(wanted, math.ceil(value * current / (mark * 0.9)))
        return "cpu, memory and request rate are low", min(wanted, current)

    def _busy(self, observation: Observation) -> str | None:
        rps = observation.value("rps")
        if rps is None:
            return None
        baseline = self.baseline_rps if self.baseline_rps is not None else observation.baseline_rps
        if baseline is None:
            return "the usual request rate is not known yet"
        each = rps / observation.state.replicas
        if each >= baseline * self.rate_low:
            share = f"{self.rate_low:.0%} of the usual {baseline:.3g}"
            return f"{each:.3g} requests/s per replica are not below {share}"
        return None


def last_step(observation: Observation) -> Change | None:
    """Return the last change of replicas, ``None`` when there was none lately."""
    return observation.changes[-1] if observation.changes else None
