"""What several partitions answer, as one answer. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from heapq import merge
from typing import Any, Final

from eventperf.queues.job import JobInfo, JobState, QueueStatus, WorkerInfo
from eventperf.queues.protocols import Found, JobQuery

_GREATEST: Final = ("workers", "oldest_wait_s")
_SAME: Final = ("name", "priority")
_SUMMED: Final = tuple(f.name for f in fields(QueueStatus) if f.name not in (*_GREATEST, *_SAME, "paused"))


def statuses(parts: Sequence[Sequence[QueueStatus]]) -> list[QueueStatus]:
    """Return one row a queue: sums, and the greatest of what is not summed."""
    return [
        replace(
            rows[0],
            paused=any(row.paused for row in rows),
            **{name: sum(getattr(row, name) for row in rows) for name in _SUMMED},
            **{name: max(getattr(row, name) for row in rows) for name in _GREATEST},
        )
        for rows in zip(*parts, strict=True)
    ]


def load(parts: Sequence[tuple[int, int, float]]) -> tuple[int, int, float]:
    """Return workers and slots, which every partition knows, and the mean run time."""
    runs = [run_s for _, _, run_s in parts if run_s > 0]
    mean_s = sum(runs) / len(runs) if runs else 0.0
    return max(live for live, _, _ in parts), max(slots for _, slots, _ in parts), mean_s


def roster(parts: Iterable[Sequence[WorkerInfo]]) -> list[WorkerInfo]:
    """Return each worker once, with all that it runs."""
    found: dict[str, WorkerInfo] = {}
    for worker in (worker for part in parts for worker in part):
        before = found.get(worker.id)
        if before is None:
            found[worker.id] = worker
        else:
            last = max(before, worker, key=lambda one: one.known_until)
            found[worker.id] = replace(last, running=before.running + worker.running)
    return sorted(found.values(), key=lambda worker: worker.id)


_ORDER: Final[Mapping[JobState, Callable[[JobInfo], Any]]] = {
    JobState.ACTIVE: lambda i: i.started_at or 0.0,
    JobState.WAITING: lambda i: (-i.priority, i.created_at),
    JobState.DELAYED: lambda i: i.due_at or float("inf"),
}


def in_order(
    parts: Iterable[Sequence[JobInfo]], states: Sequence[JobState], queues: Sequence[str]
) -> list[JobInfo]:
    """Return jobs of several partitions by state and what orders it; each partition's stay in their order."""

    at = {state: place for place, state in enumerate(states)}

    def place(info: JobInfo) -> Any:
        by = _ORDER.get(info.state, _newest)
        queue = queues.index(info.queue) if info.queue in queues and info.state not in _BY_TIME else 0
        return at.get(info.state, -1), queue, by(info)

    return list(merge(*parts, key=place))


def _newest(info: JobInfo) -> float:
    return -(info.finished_at or 0.0)


_BY_TIME: Final = (JobState.ACTIVE, JobState.DELAYED)


class Page:
    """A page of jobs that is filled from all partitions in equal shares.

    A cursor is the number of the partition to begin with, and for each where it goes on: nothing where it has
    not begun, ``None`` at its end.
    """

    def __init__(self, query: JobQuery, count: int) -> None:
        self._query = query
        self._turn: int = query.after[0] if query.after else 0
        self._after: list[Any] = list(query.after[1]) if query.after else [[] for _ in range(count)]
        self._left = query.limit
        self._resting: set[int] = set()  # they looked at as many jobs as one call may
        self._jobs: dict[int, list[JobInfo]] = {}

    def asks(self) -> list[tuple[int, JobQuery]]:
        """Return whom to ask for what; nobody when the page is full."""
        count = len(self._after)
        turns = [(self._turn + step) % count for step in range(count)]
        open_ = [n for n in turns if self._after[n] is not None and n not in self._resting]
        if not open_ or self._left <= 0:
            return []
        share = max(1, self._left // len(open_))
        chosen = open_[: self._left // share]
        self._turn = (chosen[-1] + 1) % count
        return [(n, replace(self._query, limit=share, after=self._after[n] or None)) for n in chosen]

    def take(self, n: int, asked: JobQuery, found: Found) -> None:
        """Add what a partition answered."""
        self._jobs.setdefault(n, []).extend(found.jobs)
        self._left -= len(found.jobs)
        self._after[n] = None if found.after is None else list(found.after)
        if len(found.jobs) < asked.limit:
            self._resting.add(n)

    def found(self) -> Found:
        """Return the page."""
        query = self._query
        if query.tag is not None:
            jobs = list(merge(*self._jobs.values(), key=lambda info: -info.created_at))
        else:
            jobs = in_order(self._jobs.values(), query.states, query.queues)
        if all(after is None for after in self._after):
            return Found(jobs)
        return Found(jobs, [self._turn, self._after])
