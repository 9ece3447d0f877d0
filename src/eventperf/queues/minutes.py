"""Throughput, failures, waits and run times by the minute, in buckets of bounded size. Pure.

Times go into buckets that grow by a quarter of an octave, as in HdrHistogram: a percentile read from them is
at most 9 % beside the true one, and histograms of minutes, queues and types add up exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, floor, log2
from typing import Final

MINUTE_S: Final = 60.0
KEPT_MINUTES: Final = 1_440
"""A day of minutes is kept."""

MAX_SERIES: Final = 200
"""Pairs of queue and type with minutes of their own; later ones share the series of :data:`OTHERS`."""

OTHERS: Final = "(others)"

_FIRST_S: Final = 1e-4
_PER_OCTAVE: Final = 4
LAST_BUCKET: Final = 127  # 4 days


def bucket_of(seconds: float) -> int:
    """Return the bucket of a time.

    >>> [bucket_of(t) for t in (0, 0.0001, 0.001, 1.0, 3600, 1e9)]
    [0, 1, 14, 54, 101, 127]
    """
    if seconds < _FIRST_S:
        return 0
    return min(LAST_BUCKET, 1 + floor(_PER_OCTAVE * log2(seconds / _FIRST_S)))


def middle_of(bucket: int) -> float:
    """Return the time that stands for a bucket, its geometric middle."""
    return 0.0 if bucket <= 0 else float(_FIRST_S * 2.0 ** ((bucket - 0.5) / _PER_OCTAVE))


@dataclass(slots=True)
class Histogram:
    """Times by bucket."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, bucket: int, by: int = 1) -> None:
        """Count ``by`` times in ``bucket``."""
        self.counts[bucket] = self.counts.get(bucket, 0) + by

    def merge(self, other: Histogram) -> None:
        """Add another's counts."""
        counts = self.counts
        for bucket, by in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + by

    @property
    def count(self) -> int:
        """How many times it holds."""
        return sum(self.counts.values())

    def percentile(self, percent: float) -> float | None:
        """Return the time that ``percent`` of all stay within, in seconds; ``None`` when there are none.

        >>> h = Histogram()
        >>> for ms in range(1, 101):
        ...     h.add(bucket_of(ms / 1000))
        >>> 0.045 < h.percentile(50) < 0.055, Histogram().percentile(50)
        (True, None)
        """
        want, seen = ceil(self.count * percent / 100), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= want:
                return middle_of(bucket)
        return None


@dataclass(slots=True, kw_only=True)
class Interval:
    """What one queue and type did in one step of time.

    Attributes:
        at: When the step began, seconds since the epoch by the store's clock.
        completed: Runs that completed; ``failed``: jobs that failed for good; ``retried``: runs that failed
            and are tried again; ``cancelled``: jobs cancelled while they ran; ``crashed``: runs whose worker
            died, counted when that was noticed (how long they ran nobody can tell).
        wait: From when a job could run until its first run began.
        run: How long runs took.
    """

    at: float
    queue: str
    type: str
    completed: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    crashed: int = 0
    wait: Histogram = field(default_factory=Histogram)
    run: Histogram = field(default_factory=Histogram)

    def merge(self, other: Interval) -> None:
        """Add what another did."""
        self.completed += other.completed
        self.failed += other.failed
        self.retried += other.retried
        self.cancelled += other.cancelled
        self.crashed += other.crashed
        self.wait.merge(other.wait)
        self.run.merge(other.run)


COUNTS: Final = ("completed", "failed", "retried", "cancelled", "crashed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What queues did between ``since`` and ``until`` in steps of ``step_s`` seconds, empty ones left out."""

    since: float
    until: float
    step_s: float
    intervals: list[Interval]

    def by(self, *fields: str) -> dict[tuple[str, ...], Interval]:
        """Return sums over time by ``"queue"``, ``"type"`` or both; with none, one sum under ``()``."""
        sums: dict[tuple[str, ...], Interval] = {}
        for one in self.intervals:
            key = tuple(str(getattr(one, name)) for name in fields)
            if key not in sums:
                queue = one.queue if "queue" in fields else ""
                sums[key] = Interval(at=self.since, queue=queue, type=one.type if "type" in fields else "")
            sums[key].merge(one)
        return sums


def stepped(minutes: Iterable[Interval], since: float, until: float, step_s: float) -> Metrics:
    """Return ``minutes`` summed in steps, of which the first begins with the minute of ``since``."""
    start = since // MINUTE_S * MINUTE_S
    found: dict[tuple[float, str, str], Interval] = {}
    for one in minutes:
        at = start + (one.at - start) // step_s * step_s
        key = at, one.queue, one.type
        if key not in found:
            found[key] = Interval(at=at, queue=one.queue, type=one.type)
        found[key].merge(one)
    ordered = sorted(found.values(), key=lambda one: (one.at, one.queue, one.type))
    return Metrics(since=start, until=until, step_s=step_s, intervals=ordered)


class Minutes:
    """Minutes in this process: what the memory store keeps, and what others send in sums."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, str, str], Interval] = {}
        self._series: set[tuple[str, str]] = set()
        self._first, self._last = 1 << 62, 0

    def add(
        self, now: float, queue: str, type_: str, kind: str, run_s: float | None, wait_s: float | None
    ) -> None:
        """Count the end of one run; ``kind`` is one of :data:`COUNTS`."""
        one = self._of(int(now // MINUTE_S), queue, type_)
        setattr(one, kind, getattr(one, kind) + 1)
        if run_s is not None:
            one.run.add(bucket_of(run_s))
        if wait_s is not None:
            one.wait.add(bucket_of(wait_s))

    def join(self, minutes: Iterable[Interval]) -> None:
        """Add what was counted elsewhere."""
        for one in minutes:
            self._of(int(one.at // MINUTE_S), one.queue, one.type).merge(one)

    def _of(self, minute: int, queue: str, type_: str) -> Interval:
        if (queue, type_) not in self._series:
            if len(self._series) >= MAX_SERIES:
                queue = type_ = OTHERS
            self._series.add((queue, type_))
        if minute > self._last:
            self._last = minute
            if self._first <= minute - KEPT_MINUTES:
                self.found = {key: one for key, one in self.found.items() if key[0] > minute - KEPT_MINUTES}
                self._first = min((key[0] for key in self.found), default=minute)
        one = self.found.get((minute, queue, type_))
        if one is None:
            one = self.found[minute, queue, type_] = Interval(at=minute * MINUTE_S, queue=queue, type=type_)
            self._first = min(self._first, minute)
        return one

    def since(self, at: float) -> list[Interval]:
        """Return the minutes from that of ``at`` on."""
        first = int(at // MINUTE_S)
        return [one for key, one in self.found.items() if key[0] >= first]


def counts_of(found: Mapping[str, int]) -> Histogram:
    """Return a histogram from buckets that came as text."""
    return Histogram({int(bucket): int(by) for bucket, by in found.items()})
