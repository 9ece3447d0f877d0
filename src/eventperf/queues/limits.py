"""Rate limits and concurrency caps: what they apply to, and the books a store keeps for them. No I/O."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError

from .checks import check_bool, check_int, check_list, check_name, check_span

Bucket = tuple[str, str, str]
"""Queue, type and key that share one count; empty where a limit does not tell them apart."""

RECHECK_S = 1.0

_FEW = 1_000
"""Keys that are counted without a look at which of them are of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many jobs may start in a time, or run at once, over all workers of a namespace.

    A job is subject to every limit that matches it. Jobs that a limit holds back stay ``waiting`` and let
    others pass; they keep their place.

    Attributes:
        queue: Only jobs of this queue.
        type: Only jobs of this type.
        per_key: Count each ``fairness_key`` by itself; jobs without one are free.
        concurrency: Jobs that run at once.
        rate: Starts within any span of ``per``; exact, by a log of the last starts.
        per: The span, one second by default, at least a millisecond.

    >>> Limit(type="mail", rate=100, per="1m").bucket("low", "mail", "acme")
    ('', 'mail', '')
    """

    queue: str | None = None
    type: str | None = None
    per_key: bool = False
    concurrency: int | None = None
    rate: int | None = None
    per: Duration = 1.0

    def __post_init__(self) -> None:
        for name, value in (("queue", self.queue), ("type", self.type)):
            if value is not None:
                check_name(value, argument=name)
        if self.queue is None and self.type is None and not self.per_key:
            raise ConfigurationError("limit", self, "a queue, a type or per_key=True")
        if self.concurrency is None and self.rate is None:
            raise ConfigurationError("limit", self, "concurrency, rate or both")
        if self.concurrency is not None:
            check_int(self.concurrency, argument="concurrency", low=1)
        if self.rate is not None:
            check_int(self.rate, argument="rate", low=1, high=1_000_000)
        check_bool(self.per_key, argument="per_key")
        if (span := check_span(self.per, argument="per")) < 0.001:
            raise ConfigurationError("per", self.per, "at least a millisecond")
        object.__setattr__(self, "per", span)

    @property
    def per_s(self) -> float:
        """The span in seconds."""
        return check_span(self.per, argument="per")

    @property
    def scope(self) -> Bucket:
        """What it applies to; two limits of one scope would contradict each other."""
        return self.queue or "", self.type or "", "*" if self.per_key else ""

    @property
    def whole_queue(self) -> bool:
        """Whether it counts a queue as a whole, so that it holds nobody back for somebody else."""
        return self.queue is not None and self.type is None and not self.per_key

    def bucket(self, queue: str, type: str, key: str) -> Bucket | None:
        """Return the bucket a job counts in, ``None`` when the limit does not apply to it."""
        if self.queue not in (None, queue) or self.type not in (None, type) or (self.per_key and not key):
            return None
        return self.queue or "", self.type or "", key if self.per_key else ""


def check_limits(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Return ``limits`` if they can work together."""
    seen: set[Bucket] = set()
    for limit in check_list(limits, argument="limits", of="Limit(...)"):
        if not isinstance(limit, Limit):
            raise ConfigurationError("limits", limit, "a list of Limit(...)")
        if limit.scope in seen:
            raise ConfigurationError("limits", limit, "one limit per combination of queue, type and per_key")
        seen.add(limit.scope)
    return tuple(limits)


@dataclass(slots=True)
class _Count:
    running: int = 0
    starts: deque[float] = field(default_factory=deque)


class Ledger:
    """Who runs and who started under the limits, for a store in memory."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits: Sequence[Limit] = limits
        self._places = {limit.scope: place for place, limit in enumerate(limits)}
        self._counts: dict[Bucket, _Count] = {}
        self._most = _FEW

    def matching(self, queue: str, type: str, key: str) -> list[Limit]:
        """Return the limits that a job is subject to, in their order, however many there are."""
        marks = ("", "*") if key else ("",)
        scopes = {(q, t, mark) for q in (queue, "") for t in (type, "") for mark in marks}
        return [self.limits[place] for place in sorted(self._places[s] for s in scopes if s in self._places)]

    def free(self, limit: Limit, bucket: Bucket, now: float) -> float:
        """Return how many jobs may start under ``limit`` now."""
        count = self._counts.get(bucket)
        if count is None:
            return min(limit.concurrency or math.inf, limit.rate or math.inf)
        self._slide(limit, count, now)
        cap = math.inf if limit.concurrency is None else limit.concurrency - count.running
        return min(cap, math.inf if limit.rate is None else limit.rate - len(count.starts))

    @staticmethod
    def _slide(limit: Limit, count: _Count, now: float) -> None:
        while count.starts and count.starts[0] <= now - limit.per_s:
            count.starts.popleft()

    def again_at(self, limit: Limit, bucket: Bucket, now: float) -> float | None:
        """Return when the rate lets the next start through; ``None`` when it does so now."""
        count = self._counts.get(bucket)
        if count is None or limit.rate is None or len(count.starts) < limit.rate:
            return None
        return max(now, count.starts[0] + limit.per_s)

    def start(self, queue: str, type: str, key: str, now: float) -> Bucket | list[Bucket]:
        """Count a start; or return the one bucket, a tuple, that holds the job back."""
        found: list[tuple[Limit, Bucket]] = []
        for limit in self.matching(queue, type, key):
            bucket = limit.queue or "", limit.type or "", key if limit.per_key else ""
            if self.free(limit, bucket, now) <= 0:
                return bucket
            found.append((limit, bucket))
        held = []
        for limit, bucket in found:
            count = self._counts.setdefault(bucket, _Count())
            if limit.rate is not None:
                count.starts.append(now)
            if limit.concurrency is not None:
                count.running += 1
                held.append(bucket)
        if len(self._counts) > self._most:
            self._forget(now)
        return held

    def _forget(self, now: float) -> None:
        """Forget keys of which nothing counts any more: there is one for each tenant that ever came."""
        for bucket, count in list(self._counts.items()):
            limit = self.limit_of(bucket)
            if limit is not None:
                self._slide(limit, count, now)
            if not count.running and not count.starts:
                del self._counts[bucket]
        self._most = max(_FEW, 2 * len(self._counts))

    def end(self, held: Sequence[Bucket]) -> None:
        """Give back what a running job held."""
        for bucket in held:
            count = self._counts[bucket]
            count.running -= 1
            if not count.running and not count.starts:
                del self._counts[bucket]

    def limit_of(self, bucket: Bucket) -> Limit | None:
        """Return the limit that ``bucket`` belongs to."""
        queue, type_, key = bucket
        scope = (queue, type_, "*" if key else "")
        place = self._places.get(scope)
        return None if place is None else self.limits[place]
