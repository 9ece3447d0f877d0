"""The largest of several policies. Pure."""

from __future__ import annotations

from dataclasses import replace

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import Observation, Recommendation
from eventperf.scaling.protocols import Policy


class MaxOf:
    """The largest of several policies; while any of them is blind, nothing goes down.

    >>> from eventperf.scaling import ThresholdPolicy
    >>> MaxOf(ThresholdPolicy())
    MaxOf(ThresholdPolicy(cpu_high=0.7, memory_high=0.8, cpu_low=0.3, memory_low=0.4, rate_low=0.5, \
factor=2.0, baseline_rps=None))
    """

    __slots__ = ("policies",)

    def __init__(self, *policies: Policy) -> None:
        if not policies or not all(callable(getattr(p, "decide", None)) for p in policies):
            raise ConfigurationError("policies", policies, "one or more policies")
        self.policies: tuple[Policy, ...] = policies

    def decide(self, observation: Observation, /) -> Recommendation:
        parts = [dict(observation.memory.get(str(i), {})) for i in range(len(self.policies))]
        found = [
            policy.decide(replace(observation, memory=part) if part or observation.memory else observation)
            for policy, part in zip(self.policies, parts, strict=True)
        ]
        best = max(found, key=lambda r: r.replicas)
        blind = {name: why for r in found for name, why in r.blind.items()}
        warnings = {name: text for r in found for name, text in r.warnings.items()}
        replicas, reason = best.replicas, best.reason
        if blind and replicas < observation.state.replicas:
            replicas, reason = observation.state.replicas, "not every metric can be trusted"
        return Recommendation(
            replicas=replicas,
            reason=reason,
            metric=best.metric,
            blind=blind,
            warnings=warnings,
            memory={str(i): r.memory for i, r in enumerate(found) if r.memory},
            paced=all(r.paced for r in found),
            forecast=max((r.forecast for r in found if r.forecast), key=lambda f: f[1], default=None),
        )

    def __repr__(self) -> str:
        return f"MaxOf({', '.join(map(repr, self.policies))})"
