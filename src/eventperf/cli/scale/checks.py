"""Whether what a configuration asks for can ever work: policies see what they need, queries are whole."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import CalendarPolicy, LatencyPolicy, MaxOf, Policy, TargetTracking, ThresholdPolicy

REPLACE = "REPLACE ME"
"""What ``scale import`` writes where people have to give a query."""

_PLACEHOLDER = re.compile(r"\$(?:\{(\w+)\}|(\w+))|\{\{\s*([^{}]*?)\s*\}\}")


def filled(query: str, path: str, **values: str) -> str:
    """Fill ``$name`` and ``$namespace`` (or ``${name}``) into a query.

    Raises:
        ConfigurationError: It holds a placeholder that nothing fills in, as those of a dashboard are, or
            is the one that ``scale import`` wrote for a query it could not know.
    """
    if REPLACE in query:
        raise ConfigurationError(path, query, "the PromQL query that stands for what was imported")

    def put(found: re.Match[str]) -> str:
        word = found[1] or found[2] or found[3]
        if word in values and not found[3]:
            return values[word]
        if word.isdigit():  # "$1" of label_replace
            return found[0]
        known = " and ".join(f"${name}" for name in sorted(values))
        raise ConfigurationError(path, found[0], f"a query without other placeholders than {known}")

    return _PLACEHOLDER.sub(put, query)


def unseen(policy: Policy, measured: Collection[str], path: str, *, has_calendar: bool) -> list[str]:
    """Say what a policy needs to see and never will: a metric that is not measured, a calendar not given."""
    found = []
    for part in _parts(policy):
        kind, needs = type(part).__name__, _needs(part, measured)
        given = ", ".join(measured) or "nothing"
        found += [
            f"{path}.metrics.{name} is missing: {kind} needs it{why}, only {given} is measured"
            for name, why in needs.items()
            if name not in measured
        ]
        if isinstance(part, CalendarPolicy) and not has_calendar:
            found.append(f"[calendar] is missing: {kind} of {path} reads it")
    return found


def _needs(policy: Policy, measured: Collection[str]) -> dict[str, str]:
    if isinstance(policy, LatencyPolicy):
        learns = " (or policy.capacity_rps) to learn what a replica can carry"
        return {"rps": ""} | ({"cpu": learns} if policy.capacity_rps is None else {})
    if isinstance(policy, TargetTracking):
        return dict.fromkeys(policy.targets, "")
    if isinstance(policy, ThresholdPolicy) and "memory" not in measured:
        return {"cpu": " (or memory)"}
    return {}


def _parts(policy: Policy) -> Iterator[Policy]:
    if isinstance(policy, MaxOf):
        for part in policy.policies:
            yield from _parts(part)
    else:
        yield policy
