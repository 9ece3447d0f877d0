"""Pure decisions: who is served next, and what becomes of a job that failed. No clock, no I/O.

The Lua of the Redis engine makes the same choices; the reference model of the tests checks both
against this file's rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .checks import MAX_SPAN_S, check_number
from .errors import NonRetryable, Retry
from .options import DEFAULT_PRIORITY, PRIORITY_BY_TYPE, Exponential, RetryRule


@dataclass(slots=True)
class Lane:
    """One class of waiting jobs, a queue and a job priority, as the choice sees it.

    Attributes:
        rank: The queue's priority.
        weight: The queue's share under weighted order.
        level: The jobs' priority.
        skipped: How often another class was served while this one had a job ready.
    """

    queue: str
    rank: int
    weight: int
    level: int
    skipped: int = 0


def choose(lanes: Sequence[Lane], order: str, aging: int | None, credit: dict[str, int]) -> Lane:
    """Return the class that is served next, and account for it.

    Strict order is by queue priority, then job priority; a class passed over ``aging`` times comes
    first. Weighted order spreads services over queues by smooth weighted round robin (nginx's), then
    picks the highest level inside the queue.

    Args:
        lanes: Classes that have a job ready and a free slot; not empty.
        order: ``"strict"`` or ``"weighted"``.
        aging: Bound on how often a class is passed over; ``None`` for no bound.
        credit: Round-robin state by queue, kept between calls.
    """
    if len(lanes) == 1:
        best = lanes[0]
    else:
        best = _starved(lanes, aging) or (
            _weighted(lanes, credit) if order == "weighted" else max(lanes, key=_strict)
        )
        for lane in lanes:
            lane.skipped += 1
    best.skipped = 0
    return best


def _strict(lane: Lane) -> tuple[int, str, int]:
    return lane.rank, lane.queue, lane.level


def _starved(lanes: Sequence[Lane], aging: int | None) -> Lane | None:
    if aging is None:
        return None
    worst = max(lanes, key=lambda lane: (lane.skipped, -lane.rank, lane.queue, -lane.level))
    return worst if worst.skipped >= aging else None


def _weighted(lanes: Sequence[Lane], credit: dict[str, int]) -> Lane:
    weights = {lane.queue: lane.weight for lane in lanes}
    total = sum(weights.values())
    for queue, weight in weights.items():
        credit[queue] = credit.get(queue, 0) + weight
    queue = max(weights, key=lambda q: (credit[q], q))
    credit[queue] -= total
    return max((lane for lane in lanes if lane.queue == queue), key=lambda lane: lane.level)


def job_priority(
    asked: int | None, of_type: int | None, type_: str, table: Mapping[str, int] = PRIORITY_BY_TYPE
) -> int:
    """Return the priority of a job: the caller's, else its type's own, else the table's, else 3.

    >>> job_priority(None, None, "emergency_alert"), job_priority(0, 9, "x"), job_priority(None, None, "x")
    (10, 0, 3)
    """
    if asked is not None:
        return asked
    return of_type if of_type is not None else table.get(type_, DEFAULT_PRIORITY)


_MOST_MEMBERS: Final = 1000
"""Of a group of exceptions no more are looked at."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a failed try: run again after ``delay_s``, or the dead letter."""

    retry: bool
    delay_s: float = 0.0
    count: bool = True


def judge(
    error: BaseException,
    *,
    attempt: int,
    attempts: int,
    backoff: Exponential,
    rules: Sequence[RetryRule],
    u: float,
) -> Verdict:
    """Decide after ``error`` in try ``attempt`` of ``attempts``; ``u`` is uniform in [0, 1)."""
    error = _meant(error)
    if isinstance(error, NonRetryable):
        return Verdict(False)
    if isinstance(error, Retry):
        asked = error.delay_s
        if not error.count:
            return Verdict(True, backoff.delay_s(1, u) if asked is None else _wait(asked), False)
        return Verdict(attempt < attempts, backoff.delay_s(attempt, u) if asked is None else _wait(asked))
    for rule in rules:
        if isinstance(error, rule.on):
            attempts = attempts if rule.attempts is None else rule.attempts
            backoff = rule.backoff or backoff
            break
    return Verdict(attempt < attempts, backoff.delay_s(attempt, u))


def _meant(error: BaseException) -> BaseException:
    """Return what an exception group comes down to: NonRetryable among its members, else its only one."""
    members = getattr(error, "exceptions", None)
    if not isinstance(members, tuple) or not members:
        return error
    found, left = list[BaseException](), list[Any](members)
    while left and len(found) < _MOST_MEMBERS:
        one = left.pop()
        inner = getattr(one, "exceptions", None)
        if isinstance(inner, tuple):
            left += inner
        elif isinstance(one, BaseException):
            found.append(one)
    final = next((one for one in found if isinstance(one, NonRetryable)), None)
    return final or (found[0] if len(found) == 1 else error)


def _wait(asked: float) -> float:
    """Return a wait that a store can keep: a handler may have put anything into its ``Retry``."""
    return check_number(asked, argument="delay_s", low=0, high=MAX_SPAN_S)
