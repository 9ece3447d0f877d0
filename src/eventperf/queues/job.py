"""What a job is: the record that travels, what a worker holds, and what people are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from typing import Any

from eventperf._core.durations import Duration

from .attempts import Attempt


class JobState(str, Enum):
    """Where a job stands; every stored job is in exactly one state."""

    WAITING = "waiting"
    DELAYED = "delayed"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True, kw_only=True)
class JobRecord:
    """The part of a job that never changes after enqueue.

    Attributes:
        payload: Encoded data; the store never looks inside.
        attempts: Total tries allowed.
        timeout_s: Longest run; ``None`` leaves it to the job type.
        deadline_at: Store time after which it must not start any more.
        unique_key: Dedup key, and ``unique_for``: ``"waiting"`` holds it until a worker takes the job,
            ``"running"`` until the job has ended, a number for so many seconds.
        key: Fairness key (tenant, customer).
        version: Version of the payload's shape.
        flow: What it waits for: ``{"after": [job ids], "when": "success", "failure" or "ended"}``.
        tags: Words to find it by.
    """

    id: str
    type: str
    queue: str
    priority: int
    payload: bytes
    attempts: int = 3
    timeout_s: float | None = None
    deadline_at: float | None = None
    unique_key: str | None = None
    unique_for: str | float = "waiting"
    key: str = ""
    version: int = 1
    headers: Mapping[str, str] | None = None
    flow: Mapping[str, Any] | None = None
    tags: Sequence[str] = ()
    created_at: float = 0.0


@dataclass(slots=True)
class NewJob:
    """One record on its way in, with the wait before it may run and its life in seconds.

    Attributes:
        named: Whether its id was given by the caller, so that there may be one already.
    """

    record: JobRecord
    delay_s: float = 0.0
    deadline_s: float | None = None
    named: bool = False


@dataclass(slots=True)
class Lease:
    """A claimed job: the right to run and finish it until the lease ends.

    Attributes:
        token: Fencing token; grows with every claim, and a finish with an older one is refused.
        attempt: This try, from 1; crashes are counted apart.
        unreadable: Why the record, whose ``payload`` is its bytes then, is not what was enqueued: no worker
            runs such a job, it goes to the dead letter. Empty for all others.
    """

    record: JobRecord
    token: int
    attempt: int
    crashes: int = 0
    unreadable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job as people see it.

    Times are the store's clock, seconds since the epoch; ``None`` when it has not happened.

    Attributes:
        attempt: How often it was tried.
        attempts: The last runs with their tracebacks and logs, oldest first; empty in listings, and where
            the backend does not declare ``"attempts"``.
        after: Ids of the jobs it waits or waited for, and ``after_when``, which end of theirs lets it run:
            ``"success"``, ``"failure"`` or ``"ended"``; the job whose handler asked for it by ``ctx.then``.
    """

    id: str
    type: str
    queue: str
    state: JobState
    priority: int = 0
    attempt: int = 0
    crashes: int = 0
    created_at: float = 0.0
    due_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    progress: float | None = None
    error: str | None = None
    result: bytes | None = field(default=None, repr=False)
    payload: bytes | None = field(default=None, repr=False)
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    attempts: Sequence[Attempt] = ()
    after: Sequence[str] = ()
    after_when: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it ended: completed, failed for good or cancelled."""
        return self.state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


def parents(flow: object) -> dict[str, Any]:
    """Return what :class:`JobInfo` says of a record's ``flow``, as far as that is what it should be.

    >>> parents({"after": ["a"], "when": "success"})
    {'after': ('a',), 'after_when': 'success'}
    >>> parents({"after": 7})
    {}
    """
    after = flow.get("after") if isinstance(flow, Mapping) else None
    if not isinstance(after, (list, tuple)) or not isinstance(flow, Mapping):
        return {}
    return {"after": tuple(map(str, after)), "after_when": str(flow.get("when", ""))}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some of the jobs that were asked for.

    Attributes:
        jobs: At most as many as asked for. A search for a type or a text may hand back fewer, even none,
            since one call looks at a bounded number of jobs only.
        cursor: Where the next call goes on; ``None`` at the end.
    """

    jobs: list[JobInfo]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A live worker as people see it.

    Attributes:
        queues: Names of those it serves.
        slots: Jobs it may run at once; ``running``, those that it holds now.
        lease_s: How long it may be silent before its jobs go to others.
        known_until: When it stops being listed unless it is heard of again, by the store's clock.
        host, pid, version, eventperf_version, started_at: As it told: where it runs, the version of the
            application's code (``worker(version=...)``) and of this package, and since when, by its own
            clock. ``None`` of a worker that did not tell, as those of older releases.
    """

    id: str
    queues: Sequence[str]
    slots: int
    running: int
    lease_s: float
    known_until: float
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    eventperf_version: str | None = None
    started_at: float | None = None

    @classmethod
    def told(cls, about: object, **facts: Any) -> WorkerInfo:
        """Return a worker with what it tells of itself, as far as that is what it should be.

        >>> facts = {"id": "w", "queues": [], "slots": 2, "running": 1, "lease_s": 15.0, "known_until": 1e9}
        >>> WorkerInfo.told({"host": "web-1", "pid": "many"}, **facts).host
        'web-1'
        """
        known = about if isinstance(about, Mapping) else {}
        for name in ("host", "version", "eventperf_version"):
            if isinstance(text := known.get(name), str):
                facts[name] = text[:200]
        pid, at = known.get("pid"), known.get("started_at")
        if type(pid) is int:
            facts["pid"] = pid
        if isinstance(at, float) and isfinite(at):
            facts["started_at"] = at
        return cls(**facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue across all processes, every count exact and read in O(1).

    ``completed``, ``failed``, ``cancelled`` and ``enqueued`` count since the start of the store; the
    other counts are now. ``stalled`` counts leases that ended because their worker had died, ``lapsed``
    those of a worker that lives and no longer knew of the job (no crash is counted), ``trimmed`` dead jobs
    that were dropped because of ``keep_failed``. Rates are per second over the last minute. At any instant
    ``enqueued - (completed + failed + cancelled) + replayed = waiting + delayed + active``.
    """

    name: str
    priority: int
    waiting: int = 0
    delayed: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    stalled: int = 0
    lapsed: int = 0
    dead: int = 0
    trimmed: int = 0
    enqueued: int = 0
    replayed: int = 0
    paused: bool = False
    workers: int = 0
    oldest_wait_s: float = 0.0
    arrival_rate: float = 0.0
    service_rate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What an autoscaler needs to know of the queues.

    Attributes:
        depth: Jobs that could run now.
        arrival_rate: Jobs per second that came over the last minute.
        service_rate: Jobs per second that finished over the last minute.
        oldest_wait_s: How long the oldest of them has waited.
        workers: Live workers; ``slots``: jobs they can run at once, together.
        run_s: Mean run time of a job; 0 when none has finished.
    """

    depth: int
    arrival_rate: float
    service_rate: float
    oldest_wait_s: float
    workers: int = 0
    slots: int = 0
    active: int = 0
    run_s: float = 0.0

    def desired_workers(self, slo: Duration, *, slots_per_worker: int | None = None) -> int:
        """Return how many workers keep up with arrivals and empty the backlog within ``slo`` seconds.

        By Little's law arrivals alone keep ``arrival_rate * run_s`` slots busy; the backlog needs
        ``depth * run_s / slo`` more. With no finished job to measure it holds the present number, and
        asks for one worker when there is work and none.

        >>> Backlog(depth=600, arrival_rate=50, service_rate=40, oldest_wait_s=9, workers=1, slots=10,
        ...         run_s=0.2).desired_workers(60)
        2
        """
        from math import ceil

        from .checks import check_int, check_span

        slo_s = check_span(slo, argument="slo")
        if slots_per_worker is not None:
            check_int(slots_per_worker, argument="slots_per_worker", low=1)
        if not self.depth and not self.active and not self.arrival_rate:
            return 0
        if not self.run_s:
            return max(1, self.workers)
        per = slots_per_worker or (self.slots / self.workers if self.workers else 10)
        need = (self.arrival_rate * self.run_s + self.depth * self.run_s / slo_s) / per
        return max(1, ceil(need - 1e-9))
