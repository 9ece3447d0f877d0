"""What happened, for ``DatabaseOptimizer.on``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advised:
    """Advice was given.

    Attributes:
        indexes: How many indexes were advised.
        rewrites: How many better forms of statements.
        gain: Share of the workload's cost that the indexes save; planned, not measured.
        level: How well it is proved.
        is_complete: ``False`` when time was up before all was looked at.
        seconds: How long it took.
    """

    indexes: int
    rewrites: int
    gain: float
    level: str
    is_complete: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class IndexChanged:
    """``apply`` or ``revert`` was done with one index.

    Attributes:
        outcome: ``created``, ``reverted``, ``failed`` or ``skipped``.
        name: The index.
        table: Its table.
        reason: Why.
        speedup: How many times faster its queries are, where that was measured.
        seconds: Time the statement took.
    """

    outcome: str
    name: str
    table: str
    reason: str
    speedup: float | None
    seconds: float


DatabaseEvent = Advised | IndexChanged

__all__ = ["Advised", "DatabaseEvent", "IndexChanged"]
