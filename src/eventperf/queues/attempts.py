"""What is kept of each try of a job: how it ended, where, and the last words of its logs. Bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

KEPT: Final = 10
"""Tries kept of a job: the last ones."""

TRACEBACK_BYTES: Final = 4_000
LOG_BYTES: Final = 2_000
"""What is kept of one try's traceback and of its log lines: the end of each."""

Ending = Literal["completed", "retried", "failed", "cancelled", "crashed"]

ENDINGS: Final[Mapping[str, Ending]] = {
    "done": "completed", "retry": "retried", "dead": "failed", "cancelled": "cancelled", "crash": "crashed"
}  # fmt: skip
"""What people read for the outcome a worker reports."""

CRASHED: Final = "its worker gave no sign of life until the lease ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a job.

    Attributes:
        number: Which try it was, from 1; runs that do not count (crashes, ``Retry(count=False)``) share the
            number of the one after them.
        worker: Id of the worker: by default host, process and a random part.
        started_at: Store time, seconds since the epoch.
        seconds: How long it ran. A worker that died cannot tell: for ``"crashed"`` it is the time until the
            end of its lease was noticed, so the run was shorter.
        outcome: ``"completed"``, ``"retried"`` (failed, ran again), ``"failed"`` for good, ``"cancelled"`` or
            ``"crashed"`` (its worker died).
        traceback: The end of it, where the handler raised.
        log_tail: The last lines that the handler logged.
    """

    number: int
    worker: str
    started_at: float
    seconds: float
    outcome: Ending
    error: str | None = None
    traceback: str | None = None
    log_tail: str | None = None


def tail(text: str, most: int) -> str:
    """Return the end of ``text`` in at most ``most`` bytes, whole lines where there are any.

    >>> tail("first\\nsecond\\nthird", 14)
    '...\\nthird'
    """
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data.decode()
    end = data[-(most - 4) :].decode("utf-8", "ignore")
    _, newline, whole = end.partition("\n")
    return f"...\n{whole if newline and whole else end}"


def dumped(attempt: Attempt) -> dict[str, Any]:
    """Return ``attempt`` in few bytes of JSON to be."""
    short = {"e": attempt.error, "t": attempt.traceback, "l": attempt.log_tail}
    return {
        "n": attempt.number, "w": attempt.worker, "s": round(attempt.started_at, 3),
        "d": round(attempt.seconds, 6), "o": attempt.outcome,
    } | {k: v for k, v in short.items() if v}  # fmt: skip


def loaded(found: Iterable[Mapping[str, Any]]) -> tuple[Attempt, ...]:
    """Return the attempts that :func:`dumped` wrote."""
    return tuple(
        Attempt(
            number=one["n"], worker=one["w"], started_at=one["s"], seconds=one["d"], outcome=one["o"],
            error=one.get("e"), traceback=one.get("t"), log_tail=one.get("l"),
        )
        for one in found
    )  # fmt: skip
