"""From what a policy wants to what may be done now: stabilisation, rates, cooldown, limits. Pure.

The semantics are those of the Kubernetes HorizontalPodAutoscaler's ``behavior`` (autoscaling/v2), so that
settings can be carried over as they are. Source: Kubernetes documentation, "Horizontal Pod Autoscaling",
and the published algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError

from .model import Change, Observation, Tolerance

Limits = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePolicy:
    """At most ``value`` pods, or percent of the replicas, per ``period`` (seconds, at most 1800)."""

    type: Literal["pods", "percent"]
    value: int
    period: Duration = 15.0

    def __post_init__(self) -> None:
        if self.type not in ("pods", "percent"):
            raise ConfigurationError("type", self.type, ("'pods'", "'percent'"))
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 1:
            raise ConfigurationError("value", self.value, "a whole number of at least 1")
        object.__setattr__(self, "period", seconds(self.period, name="period", maximum=1800))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One direction.

    Attributes:
        window: Seconds of recommendations that are looked back on: going down takes the largest of them,
            going up the smallest.
        policies: Rate policies; ``select`` says which counts: ``"max"`` the most generous, ``"min"`` the
            strictest, ``"disabled"`` forbids this direction.
        cooldown: Seconds without another step in this direction after one.
        up_to: A rise to this many is never held back by the policies.
        implied: These rules are a default, not somebody's choice: they give way to a policy that paces
            itself.
    """

    window: Duration = 0.0
    policies: tuple[RatePolicy, ...] = ()
    select: Literal["max", "min", "disabled"] = "max"
    cooldown: Duration = 0.0
    up_to: int = 0
    implied: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", seconds(self.window, name="window", zero=True, maximum=3600))
        object.__setattr__(self, "cooldown", seconds(self.cooldown, name="cooldown", zero=True))
        object.__setattr__(self, "policies", tuple(self.policies))
        if isinstance(self.up_to, bool) or not isinstance(self.up_to, int) or self.up_to < 0:
            raise ConfigurationError("up_to", self.up_to, "a whole number from 0")
        if self.select not in ("max", "min", "disabled"):
            raise ConfigurationError("select", self.select, ("'max'", "'min'", "'disabled'"))
        for policy in self.policies:
            if not isinstance(policy, RatePolicy):
                raise ConfigurationError("policies", policy, "RatePolicy objects")


PLAIN_UP = Rules(
    policies=(RatePolicy(type="percent", value=100, period=10.0),), up_to=4, implied=True
)  # one doubling a look, as an HPA without ``behavior``; its looks are 15 s apart, ours spread by 5 %
HPA_UP = Rules(
    policies=(RatePolicy(type="pods", value=4), RatePolicy(type="percent", value=100)), implied=True
)
HPA_DOWN = Rules(window=300.0, policies=(RatePolicy(type="percent", value=100),), implied=True)
_FREE = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """How fast a target may follow its policy; the defaults are those of Kubernetes.

    With nothing set they are those of an HPA without ``behavior``: up to twice as many, but at least 4, per
    step; a goal that four more replicas reach is reached in one. With one direction or a tolerance set, the
    other direction has the defaults of ``behavior`` in autoscaling/v2: 4 pods or 100 % in 15 s, whichever
    is more.

    A policy that paces itself (:class:`~eventperf.scaling.LatencyPolicy` and those built on it) is bound by
    the rules you set, and not by the defaults.

    >>> Behavior(down=Rules(window="10m")).down.window
    600.0
    """

    up: Rules = PLAIN_UP
    down: Rules = HPA_DOWN
    tolerance: Tolerance = field(default_factory=Tolerance)

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            if not isinstance(getattr(self, name), Rules):
                raise ConfigurationError(name, getattr(self, name), "a Rules object")
        for name in ("up", "down"):
            share = getattr(self.tolerance, name)
            if not 0 <= share < 1:
                raise ConfigurationError(f"tolerance.{name}", share, "a share from 0 up to, not including, 1")

        if self.up is PLAIN_UP and (self.down is not HPA_DOWN or self.tolerance != Tolerance()):
            object.__setattr__(self, "up", HPA_UP)

    @classmethod
    def from_hpa(cls, manifest: Mapping[str, Any]) -> Behavior:
        """Return the behavior of a HorizontalPodAutoscaler (autoscaling/v2) or of a KEDA ScaledObject.

        What is not set has the defaults of Kubernetes; ``eventperf scale import`` carries over the rest.

        Raises:
            ConfigurationError: A rule that Kubernetes would refuse too, by its path in the manifest.

        >>> hpa = {"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}}
        >>> Behavior.from_hpa(hpa).down.window
        60.0
        """
        spec = _part(manifest, "spec", "spec")
        keda = _part(_part(spec, "advanced", "advanced"), "horizontalPodAutoscalerConfig", "advanced")
        given = _part(spec, "behavior", "behavior") or _part(keda, "behavior", "behavior")
        if not given:
            return cls()
        up, down = (_part(given, name, f"behavior.{name}") for name in ("scaleUp", "scaleDown"))
        return cls(
            up=_rules_of(up, HPA_UP, "behavior.scaleUp"),
            down=_rules_of(down, HPA_DOWN, "behavior.scaleDown"),
            tolerance=Tolerance(
                up=_tolerance_of(up, "behavior.scaleUp"), down=_tolerance_of(down, "behavior.scaleDown")
            ),
        )

    @property
    def memory_s(self) -> float:
        """How far back changes and recommendations matter."""
        spans = [float(r) for rules in (self.up, self.down) for r in (rules.window, rules.cooldown)]  # type: ignore[arg-type]
        spans += [float(p.period) for rules in (self.up, self.down) for p in rules.policies]  # type: ignore[arg-type]
        return max(spans)

    def apply(self, wanted: int, observation: Observation, *, paced: bool = False) -> tuple[int, Limits]:
        """Return how many replicas may be asked for now, and the limits that made the difference.

        Args:
            paced: Whether the policy bounds its own reversals; rules left at their defaults then rest.
        """
        up = _FREE if paced and self.up.implied else self.up
        down = _FREE if paced and self.down.implied else self.down
        steps: list[tuple[str, int]] = []

        def step(name: str, before: int, after: int) -> int:
            if after != before:
                steps.append((name, after))
            return after

        current, low, high = observation.state.replicas, observation.min_replicas, observation.max_replicas
        if current > high:
            return high, ((f"max {high}", high),)  # above the maximum: back at once, as the HPA does
        number = step("stabilisation window", wanted, _stabilised(wanted, observation, up, down))
        number = step("cooldown", number, _cooled(number, observation, up, down))
        clamped = min(max(number, low), high)
        number = step(f"max {high}" if number > high else f"min {low}", number, clamped)
        if number > current:
            top = max(current, rate_limit_up(current, observation.changes, observation.at_s, up))
            if up is PLAIN_UP:
                near = rate_limit_up(current, observation.changes, observation.at_s, HPA_UP)
                top = max(top, number) if number <= near else top
            # A target below its minimum is lifted to it at once: the minimum is a promise, not a wish.
            number = step("scale-up rate", number, min(number, max(top, min(low, number))))
        elif number < current:
            floor = min(current, rate_limit_down(current, observation.changes, observation.at_s, down))
            number = step("scale-down rate", number, max(number, floor))
        return number, tuple(steps)


def _part(holder: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    """Return a mapping inside of a manifest; what is absent or null is empty."""
    found = holder.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise ConfigurationError(path, found, "a mapping")
    return found or {}


def _rules_of(given: Mapping[str, Any], default: Rules, path: str) -> Rules:
    """Read one direction; each part that is missing is the default's."""
    if not given:
        return replace(default, implied=False)
    kinds: dict[object, Literal["pods", "percent"]] = {"Pods": "pods", "Percent": "percent"}
    selects: dict[object, Literal["max", "min", "disabled"]] = {
        "Max": "max",
        "Min": "min",
        "Disabled": "disabled",
    }
    policies = list(default.policies)
    if given.get("policies") is not None:
        policies = []
        if not isinstance(given["policies"], list):
            raise ConfigurationError(f"{path}.policies", given["policies"], "a list")
        for number, policy in enumerate(given["policies"]):
            at = f"{path}.policies[{number}]"
            if not isinstance(policy, Mapping):
                raise ConfigurationError(at, policy, "a mapping")
            kind = kinds.get(str(policy.get("type")))
            if kind is None:
                raise ConfigurationError(f"{at}.type", policy.get("type"), tuple(kinds))
            value: Any = policy.get("value")
            policies.append(RatePolicy(type=kind, value=value, period=policy.get("periodSeconds", 15)))
    select = selects.get(str(given.get("selectPolicy") or "Max"))
    if select is None:
        raise ConfigurationError(f"{path}.selectPolicy", given.get("selectPolicy"), tuple(selects))
    window = given.get("stabilizationWindowSeconds")
    return Rules(window=default.window if window is None else window, policies=tuple(policies), select=select)


def _tolerance_of(given: Mapping[str, Any], path: str) -> float:
    """Read a tolerance: a quantity, such as ``0.05`` or ``50m``."""
    found = given.get("tolerance")
    text = "0.1" if found is None else str(found)
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        raise ConfigurationError(f"{path}.tolerance", text, "a quantity such as 0.05 or 50m") from None


def _stabilised(wanted: int, observation: Observation, up: Rules, down: Rules) -> int:
    now, current = observation.at_s, observation.state.replicas
    up_s, down_s = float(up.window), float(down.window)  # type: ignore[arg-type]
    lowest = min([wanted, *(n for t, n in observation.recommendations if now - t < up_s)])
    highest = max([wanted, *(n for t, n in observation.recommendations if now - t < down_s)])
    return min(max(current, lowest), highest)


def _cooled(number: int, observation: Observation, up: Rules, down: Rules) -> int:
    current = observation.state.replicas
    rules, sign = (up, 1) if number > current else (down, -1)
    if number == current or not rules.cooldown:
        return number
    since = [observation.at_s - c.at_s for c in observation.changes if c.delta * sign > 0]
    return current if since and min(since) < float(rules.cooldown) else number  # type: ignore[arg-type]


def _net(changes: Sequence[Change], now: float, period: float) -> int:
    """Net replicas added within ``period``: opposite changes cancel out."""
    return sum(c.delta for c in changes if now - c.at_s < period)


def rate_limit_up(current: int, changes: Sequence[Change], now: float, rules: Rules) -> int:
    """Return the most replicas the rate policies allow; without policies there is no bound."""
    if rules.select == "disabled":
        return current
    limits: list[int] = []
    for policy in rules.policies:
        start = current - _net(changes, now, float(policy.period))  # type: ignore[arg-type]
        grown = start + policy.value if policy.type == "pods" else math.ceil(start * (1 + policy.value / 100))
        limits.append(grown)
    if not limits:
        return 2**31 - 1
    return max(rules.up_to, min(limits) if rules.select == "min" else max(limits))


def rate_limit_down(current: int, changes: Sequence[Change], now: float, rules: Rules) -> int:
    """Return the fewest replicas the rate policies allow; without policies there is no bound."""
    if rules.select == "disabled":
        return current
    limits = []
    for policy in rules.policies:
        start = current - _net(changes, now, float(policy.period))  # type: ignore[arg-type]
        shrunk = start - policy.value if policy.type == "pods" else int(start * (1 - policy.value / 100))
        limits.append(shrunk)
    if not limits:
        return 0
    return max(limits) if rules.select == "min" else min(limits)
