"""Pure decisions: whether a new index stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from eventperf._core.durations import show
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
        after: With every new index in place: what the verdict rests on.
        reverted: Once more when some of them were taken back; ``None`` where none was.
    """

    fingerprint: str
    calls: int
    before: Measurement
    after: Measurement
    reverted: Measurement | None = None

    @property
    def left(self) -> Measurement:
        """What is left of it when all is done."""
        return self.reverted or self.after

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
    40 % and more between two runs of the same statement. Below a millisecond so do changed ones: a difference
    within the spread of the repeats shows nothing.
    """
    every = list(compared)
    if not every:
        return Verdict(True, "not measured: no parameters are known for the queries it serves")
    mine = [c for c in every if name in c.after.indexes]
    if not mine:
        return Verdict(False, "no measured query's plan uses it")
    if _is_noise(mine):
        return Verdict(False, f"too noisy to judge: {_noise(mine)}; it was not shown to help")
    before = sum(c.calls * c.before.seconds for c in mine)
    after = sum(c.calls * c.after.seconds for c in mine)
    speedup = before / max(after, 1e-9)
    slower = [c for c in mine if is_slower(c, limits)]
    loss = sum(c.calls * (c.after.seconds - c.before.seconds) for c in slower)
    if slower and before - after < OUTWEIGHS * loss:
        worst = max(slower, key=lambda c: 1 / c.speedup)
        return Verdict(False, f"query {worst.fingerprint} became {1 / worst.speedup:.1f}x slower", speedup)
    if speedup < limits.min_speedup:
        least = f"; min_speedup is {limits.min_speedup:g}"
        said = f"{1 / speedup:.2f}x slower" if speedup < 1 else f"only {speedup:.2f}x faster{least}"
        return Verdict(False, f"its queries are {said}", speedup)
    return Verdict(True, f"its queries are {speedup:.1f}x faster", speedup)


def _is_noise(mine: Sequence[Compared]) -> bool:
    """Tell whether all the difference is below a millisecond and within the spread of the repeats."""
    difference = abs(sum(c.calls * (c.before.seconds - c.after.seconds) for c in mine))
    spread = sum(c.calls * max(c.before.spread, c.after.spread) for c in mine)
    return difference <= spread and difference < _NOISE_S * sum(c.calls for c in mine)


def _noise(mine: Sequence[Compared]) -> str:
    weight = sum(c.calls for c in mine) or 1
    before = sum(c.calls * c.before.seconds for c in mine) / weight
    after = sum(c.calls * c.after.seconds for c in mine) / weight
    spread = sum(c.calls * max(c.before.spread, c.after.spread) for c in mine) / weight
    return f"{show(before)} before, {show(after)} after, and repeats of one query differ by {show(spread)}"


def measured_faster(compared: Mapping[str, Compared], limits: Limits) -> int:
    """Return how many queries have a new plan that stays, and really are faster."""
    final = [replace(c, after=c.left) for c in compared.values()]
    return sum(1 for c in final if c.plan_changed and c.speedup >= limits.min_speedup)


def together(found: Sequence[Measurement]) -> Measurement:
    """Return the measurements of one query's samples as one; each sample may have a plan of its own."""
    return Measurement(
        seconds=sum(m.seconds for m in found) / len(found),
        plan="\n".join(dict.fromkeys(m.plan for m in found)),
        indexes=frozenset().union(*(m.indexes for m in found)),
        runs=sum(m.runs for m in found),
        capped=any(m.capped for m in found),
        spread=sum(m.spread for m in found) / len(found),
    )
