"""Why this number and not another: answered from a decision's record alone."""

from __future__ import annotations

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import METRICS, ScalingDecision


def why_not(decision: ScalingDecision, replicas: int) -> str:
    """Return why ``decision`` came out as it did and not at ``replicas``; from the record alone.

    Names the step that crossed the number: the policy with its measured figures, or the limit that moved it,
    and what had come out without that limit.

    >>> from eventperf.scaling import AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
    >>> decision = AutoScaler(SimulatedTarget(2), CallableMetrics(rps=lambda: 300), TargetTracking(rps=50),
    ...                       max_replicas=4).tick()
    >>> print(why_not(decision, 6))
    why 4 and not 6: max 4 took the 6 replicas that were wanted to 4
    >>> print(why_not(decision, 3))
    why 4 and not 3: the policy wanted 6. rps: 300 in all, target 50 per replica
      rps: 300 is 100 per replica on 3 and 75 on 4
    """
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        raise ConfigurationError("replicas", replicas, "a whole number from 0")
    if replicas == decision.after:
        return f"{decision.after} it is. {decision.reason}"
    head = f"why {decision.after} and not {replicas}: "
    if decision.error and not decision.limits and decision.wanted == decision.before:
        return f"{head}{decision.reason} ({decision.error})"
    return "\n".join([head + _crossing(decision, replicas), *_loads(decision, replicas)])


def _crossing(decision: ScalingDecision, replicas: int) -> str:
    """Name the last step that brought the number to the side of ``replicas`` where it ended."""
    steps = [("", decision.wanted), *decision.limits]
    above = decision.after > replicas
    crossed = 0
    for at, (_, number) in enumerate(steps):
        here = number > replicas if above else number < replicas
        before = at > 0 and (steps[at - 1][1] > replicas if above else steps[at - 1][1] < replicas)
        if here and not before:
            crossed = at
    if crossed == 0:
        return f"the policy wanted {decision.wanted}. {decision.reason}"
    (name, after), number = steps[crossed], steps[crossed - 1][1]
    wanted = "that were wanted" if crossed == 1 else f"it had come to (wanted: {decision.wanted})"
    return f"{name} took the {number} replicas {wanted} to {after}"


def _loads(decision: ScalingDecision, replicas: int) -> list[str]:
    """Say what each trusted metric would be per replica on both numbers."""
    seen = decision.observation
    if seen is None or not replicas or not decision.after or decision.metric == "":
        return []
    lines = []
    for name in METRICS:
        value = seen.value(name)
        if value is None or (decision.after < replicas and name != decision.metric):
            continue
        if name in ("rps", "backlog"):
            pair = f"{value / replicas:.4g} per replica on {replicas} and {value / decision.after:.4g}"
            lines.append(f"  {name}: {value:.4g} is {pair} on {decision.after}")
        elif seen.state.ready:
            there, here = (value * seen.state.ready / n for n in (replicas, decision.after))
            lines.append(
                f"  {name}: {value:.0%} on the {seen.state.ready} that serve would be about {there:.0%} on "
                f"{replicas} and {here:.0%} on {decision.after}"
            )
    return lines if decision.limits == () or _crossing(decision, replicas).startswith("the policy") else []
