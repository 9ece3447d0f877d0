"""From an observation to a decision: the policy's wish, then what the behavior allows. Pure."""

from __future__ import annotations

from dataclasses import replace

from .behavior import Behavior
from .model import Observation, ScalingDecision
from .protocols import Policy


def decide(
    observation: Observation, policy: Policy, behavior: Behavior, *, at: float, target: str
) -> ScalingDecision:
    """Decide one tick. Pure: equal arguments give equal decisions, live, in shadow and in replay.

    A policy that fails is treated as blind: the number of replicas stays, within the limits.
    """
    current = observation.state.replicas
    wish = policy.decide(observation)
    floor, event = observation.floor()
    limits: tuple[tuple[str, int], ...]
    if observation.paused:
        after, limits = 0, (("paused", 0),)
    else:
        after, limits = behavior.apply(wish.replicas, _floored(observation, floor), paced=wish.paced)
    if wish.blind and after < current <= observation.max_replicas:
        after, limits = current, (*limits, ("blind", current))
    if observation.state.frozen and after != current:
        after, limits = current, (*limits, ("frozen", current))
    return ScalingDecision(
        at=at,
        target=target,
        before=current,
        wanted=wish.replicas,
        after=after,
        reason=f"{wish.reason}; the calendar asks for {floor} for {event}" if event else wish.reason,
        metric=wish.metric,
        limits=limits,
        blind=wish.blind,
        warnings=wish.warnings,
        memory=wish.memory,
        observation=observation,
        forecast=wish.forecast,
    )


def _floored(observation: Observation, floor: int) -> Observation:
    """Lift the minimum, for the time being, to what the calendar says outright."""
    if floor <= observation.min_replicas:
        return observation
    return replace(observation, min_replicas=min(floor, observation.max_replicas))
