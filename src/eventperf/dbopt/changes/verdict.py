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

    @property
    def is_decided(self) -> bool:
        """Whether more than noise tells the two apart; see :func:`differs`."""
        return differs(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an index stays, and why."""

    keep: bool
    reason: str
    speedup: float | None = None


def differs(one: Measurement, other: Measurement) -> bool:
    """Tell whether the best run of the slower form is above the middle run of the faster one.

    A disturbance only ever makes a run longer: the best run of the slower form is nearest to what it takes,
    whatever happened to its others, and the faster form shows that it is faster by half of its runs.
    """
    fast, slow = sorted((one, other), key=lambda m: (m.seconds, m.spread))
    return slow.seconds > fast.seconds + fast.spread


def is_slower(compared: Compared, limits: Limits) -> bool:
    """Tell whether a new plan made a query slower, beyond noise."""
    before, after = compared.before.seconds, compared.after.seconds
    grew = after > before * limits.max_regression and after - before > _NOISE_S
    return compared.plan_changed and grew and compared.is_decided


def judge(name: str, compared: Iterable[Compared], limits: Limits) -> Verdict:
    """Decide on one new index from what was measured.

    A query counts for or against the index only when its plan uses it now: unchanged plans swing by
    40 % and more between two runs of the same statement. So do changed ones: what :func:`differs` cannot tell
    apart shows neither a gain nor a loss.
    """
    every = list(compared)
    if not every:
        return Verdict(True, "not measured: no parameters are known for the queries it serves")
    mine = [c for c in every if name in c.after.indexes]
    if not mine:
        return Verdict(False, "no measured query's plan uses it")
    whole = _whole(mine)
    if not whole.is_decided:
        return Verdict(False, f"too noisy to judge: {_noise(whole)}; it was not shown to help")
    speedup = whole.speedup
    slower = [c for c in mine if is_slower(c, limits)]
    loss = sum(c.calls * (c.after.seconds - c.before.seconds) for c in slower)
    gain = whole.calls * (whole.before.seconds - whole.after.seconds)
    if slower and gain < OUTWEIGHS * loss:
        worst = max(slower, key=lambda c: 1 / c.speedup)
        return Verdict(False, f"query {worst.fingerprint} became {1 / worst.speedup:.1f}x slower", speedup)
    if speedup < limits.min_speedup:
        least = f"; min_speedup is {limits.min_speedup:g}"
        said = f"{1 / speedup:.2f}x slower" if speedup < 1 else f"only {speedup:.2f}x faster{least}"
        return Verdict(False, f"its queries are {said}", speedup)
    return Verdict(True, f"its queries are {speedup:.1f}x faster", speedup)


def undecided(name: str, compared: Iterable[Compared]) -> list[str]:
    """Return the queries that use an index and should run again, because noise hides what it does to them."""
    mine = [c for c in compared if name in c.after.indexes]
    if not mine or _whole(mine).is_decided:
        return []
    return [c.fingerprint for c in mine if not c.is_decided]


def _whole(mine: Sequence[Compared]) -> Compared:
    """Return the queries of an index as one: a run of it is one call of each, as often as it is called."""

    def mean(found: Sequence[Measurement]) -> Measurement:
        weight = sum(c.calls for c in mine) or 1
        seconds = sum(c.calls * m.seconds for c, m in zip(mine, found, strict=True)) / weight
        spread = sum(c.calls * m.spread for c, m in zip(mine, found, strict=True)) / weight
        return replace(found[0], seconds=seconds, spread=spread)

    before, after = mean([c.before for c in mine]), mean([c.after for c in mine])
    return Compared(fingerprint="", calls=sum(c.calls for c in mine), before=before, after=after)


def _noise(whole: Compared) -> str:
    fast = min(whole.before, whole.after, key=lambda m: m.seconds)
    shown = f"{show(whole.before.seconds)} before, {show(whole.after.seconds)} after"
    return f"{shown}, and repeats of the faster one differ by {show(fast.spread)}"


def measured_faster(compared: Mapping[str, Compared], limits: Limits) -> int:
    """Return how many queries have a new plan that stays, and really are faster."""
    final = [replace(c, after=c.left) for c in compared.values()]
    return sum(1 for c in final if c.plan_changed and c.speedup >= limits.min_speedup and c.is_decided)


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


def calmer(one: Measurement, other: Measurement) -> Measurement:
    """Return what two rounds of one form on one plan amount to: its best run and its calmer middle."""
    best = min(one.seconds, other.seconds)
    middle = min(one.seconds + one.spread, other.seconds + other.spread)
    return replace(other, seconds=best, spread=middle - best, runs=one.runs + other.runs)
