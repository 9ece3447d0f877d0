"""Pure decisions: whether a new index stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Measurement

_NOISE_S = 0.001
#: What an index gains must be so many times what one query loses by it.
OUTWEIGHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One query measured before and after.

    Attributes:
        fingerprint: The query's name.
        calls: Its weight.
        before: As it was.
        after: As it is.
    """

    fingerprint: str
    calls: int
    before: Measurement
    after: Measurement

    @property
    def plan_changed(self) -> bool:
        """Whether the plan is another one; equal plans differ by noise alone."""
        return self.before.plan != self.after.plan

    @property
    def speedup(self) -> float:
        """How many times faster it is now."""
        return self.before.seconds / max(self.after.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an index stays, and why."""

    keep: bool
    reason: str
    speedup: float | None = None


def is_slower(compared: Compared, limits: Limits) -> bool:
    """Tell whether a new plan made a query slower, beyond noise."""
    before, after = compared.before.seconds, compared.after.seconds
    return compared.plan_changed and after > before * limits.max_regression and after - before > _NOISE_S


def judge(name: str, compared: Iterable[Compared], limits: Limits) -> Verdict:
    """Decide on one new index from what was measured.

    A query counts for or against the index only when its plan uses it now: unchanged plans swing by
    40 % and more between two runs of the same statement.
    """
    every = list(compared)
    if not every:
        return Verdict(True, "not measured: no parameters are known for the queries it serves")
    mine = [c for c in every if name in c.after.indexes]
    if not mine:
        return Verdict(False, "no measured query's plan uses it")
    before = sum(c.calls * c.before.seconds for c in mine)
    after = sum(c.calls * c.after.seconds for c in mine)
    speedup = before / max(after, 1e-9)
    slower = [c for c in mine if is_slower(c, limits)]
    loss = sum(c.calls * (c.after.seconds - c.before.seconds) for c in slower)
    if slower and before - after < OUTWEIGHS * loss:
        worst = max(slower, key=lambda c: 1 / c.speedup)
        return Verdict(False, f"query {worst.fingerprint} became {1 / worst.speedup:.1f}x slower", speedup)
    if speedup < limits.min_speedup:
        return Verdict(False, f"its queries are only {speedup:.2f}x faster", speedup)
    return Verdict(True, f"its queries are {speedup:.1f}x faster", speedup)


def measured_faster(compared: Mapping[str, Compared], limits: Limits) -> int:
    """Return how many queries have a new plan and really are faster."""
    return sum(1 for c in compared.values() if c.plan_changed and c.speedup >= limits.min_speedup)
