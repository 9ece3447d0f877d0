"""How a policy did in a backtest."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one policy did.

    Attributes:
        violations: Share of requests that waited too long.
        replica_minutes: Paid; ``cost`` relative to the oracle.
        actions: Changes of replicas; ``flaps``: reversals within ten minutes.
        replicas: Replicas asked for, one figure per step of the trace; ``late``: share of the step's
            requests that waited too long.
    """

    name: str
    violations: float
    replica_minutes: float
    cost: float
    actions: int
    flaps: int
    replicas: tuple[int, ...] = field(repr=False)
    late: tuple[float, ...] = field(repr=False, default=())
