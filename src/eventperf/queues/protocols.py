"""The edge between the engine and whatever keeps its jobs.

A backend offers the same verbs twice: :class:`JobStore` for plain threads (producers without an event
loop, the heartbeat thread of a worker) and :class:`AsyncJobStore` for one event loop. All verbs take
batches. Times are the store's own clock, so hosts with wrong clocks agree; delays travel as seconds.

What a store keeps, beyond the words of each verb:

* At push it sets ``created_at`` and, from ``deadline_s``, ``deadline_at`` of the record. A job is ``delayed``
  until it is due, then ``waiting``; ``JobInfo.attempt`` counts tries that ended, and the present one.
* A unique key belongs to a type and is held as ``unique_for`` says, also while its job is retried. A replay
  leaves a job alone whose key another one holds by now; it clears attempts, crashes, error and deadline.
* A lease that ran out while its worker has renewed others since has lapsed: the worker lives, no crash is
  counted, and it is not among the ``stalled``.
* A job whose cancellation was asked for never runs again: a retry, a release, a lost lease are its end.
* ``max_crashes`` lost leases, a passed deadline, and a type that no live worker has declared for
  ``unknown_grace_s`` end in the dead letter, with a reason in ``error``. How many dead jobs are kept is
  ``keep_failed``; finished ones stay for ``result_ttl_s``, and ``keep_completed`` of them are listed however
  old they are. Steps and progress end with the job.
* Waiting and delayed jobs that are purged count as cancelled: every job that came in is in one state.

Longer than other files: what a store must do stands in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

from eventperf._core.clock import Clock

from .engine import Engine
from .job import JobInfo, JobState, Lease, NewJob, QueueStatus, WorkerInfo
from .minutes import Interval
from .options import EngineOptions, QueueConfig, WorkerLife

ENGINE: Final = frozenset(
    {"claims", "priorities", "unique", "fairness", "dead_letter", "pause", "then", "whole"}
)
"""What every backend has whose jobs this package's own engine runs; one that drives another system's workers
declares what it has of it, and one in several partitions all but ``"whole"``: what is promised of order, and
of how much is kept or looked at, holds in each of them."""

UNREADABLE: Final = "unreadable record"
"""Begins the reason of jobs in :attr:`Claimed.expired` that are not what was enqueued."""

OutcomeKind = Literal["done", "retry", "dead", "cancelled", "release"]

LOOKED_AT: Final = 2_000
"""Jobs that one call of :meth:`SearchStore.find` looks at, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """What a backend is built with."""

    namespace: str
    queues: Mapping[str, QueueConfig]
    options: EngineOptions
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCard:
    """How a worker introduces itself.

    Attributes:
        types: Job types it has handlers for; it is never given others.
        room_by_queue: Queues it serves and its slots in each.
        slots: Slots in all.
        about: What it tells of itself to people: any of ``host``, ``pid``, ``version``,
            ``eventperf_version`` and ``started_at``.
        spare_s: For so long from its entering its claims take no leases back. It knows, or cannot rule out,
            that the store was away: those who hold jobs must have a chance to renew before they lose them.
    """

    id: str
    types: frozenset[str]
    room_by_queue: Mapping[str, int]
    slots: int
    lease_s: float
    spare_s: float = 0.0
    about: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class WorkerPlan:
    """How one worker is to run.

    Attributes:
        has_own_rooms: Whether each queue has slots of its own; else every queue may fill them all.
        grace_s: How long a graceful stop waits for running jobs; a second signal makes it 0.
        keep_failed: By queue, how many dead jobs the store keeps; ``None`` for all.
        life: After what it stops by itself.
    """

    card: WorkerCard
    has_own_rooms: bool
    grace_s: float
    keep_failed: Mapping[str, int | None]
    life: WorkerLife


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """How one run of a worker is doing.

    Attributes:
        running: Jobs that run; ``begun``: how many it has begun in all.
        hung: Running jobs that are over their time-out and cannot be stopped.
        store_lost: Whether the store does not answer just now.
        stopping: Why it takes no more jobs; empty while it does.
    """

    worker: str
    slots: int
    running: int = 0
    begun: int = 0
    hung: int = 0
    store_lost: bool = False
    stopping: str = ""


@dataclass(slots=True)
class Stalled:
    """A job whose lease ran out: back in its queue, or dead after too many crashes."""

    job_id: str
    type: str
    queue: str
    crashes: int
    dead: bool


@dataclass(slots=True)
class Claimed:
    """The answer to a claim.

    Attributes:
        leases: The jobs, in the order they should start.
        next_in_s: When the store next has something to do by itself (a job falls due, a lease ends);
            ``None`` when nothing is scheduled.
        stalled: Orphans found on the way.
        expired: Jobs (id, type, queue, reason) that went to the dead letter without a run.
    """

    leases: list[Lease]
    next_in_s: float | None = None
    stalled: Sequence[Stalled] = ()
    expired: Sequence[tuple[str, str, str, str]] = ()


@dataclass(slots=True)
class Outcome:
    """How a claimed job ended.

    Attributes:
        kind: ``"done"``; ``"retry"`` after ``delay_s``, counting the attempt unless ``count`` is false;
            ``"dead"``; ``"cancelled"``; ``"release"`` hands an unstarted job back to the head of its class.
        followers: Jobs that enter the store in the same step if the outcome is accepted.
        run_s: How long it ran.
        traceback: Of what the handler raised, and ``log_tail``, its last log lines; bounded by the worker.
    """

    job_id: str
    token: int
    kind: OutcomeKind = "done"
    result: bytes | None = None
    error: str | None = None
    delay_s: float = 0.0
    count: bool = True
    run_s: float = 0.0
    followers: Sequence[NewJob] = ()
    traceback: str | None = None
    log_tail: str | None = None


@dataclass(slots=True)
class Renewed:
    """The answer to a renewal: leases that are lost, and jobs whose cancellation was asked for."""

    lost: list[str] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs to find.

    Attributes:
        states: In the order of the answer; ``queues``: likewise, inside a state where its jobs have a
            queue's order.
        text: Part of the id, the error or the encoded payload, as it is written there.
        after: What the call before answered, to go on from there.
    """

    states: Sequence[JobState]
    queues: Sequence[str]
    type: str | None = None
    tag: str | None = None
    text: str | None = None
    limit: int = 50
    after: Sequence[Any] | None = None


@dataclass(slots=True)
class Found:
    """Jobs, and where to go on: plain data, ``None`` at the end."""

    jobs: list[JobInfo]
    after: Sequence[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to change of a job that waits; ``None`` leaves a thing as it is.

    Attributes:
        delay_s: From now; 0 for at once.
        payload: With the ``version`` of its shape; ``None`` leaves that as it was.
    """

    delay_s: float | None = None
    priority: int | None = None
    queue: str | None = None
    payload: bytes | None = None
    version: int | None = None


class ProducerStore(Protocol):
    """Putting jobs in and asking about them."""

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        """Store ``jobs`` in one step and wake workers.

        Returns:
            For each job its own id, or that of the job that holds its unique key. A job whose id is
            already stored is left alone, so the same push may be repeated after a lost reply.
        """
        ...

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        """Return what is known of ``ids``; ``None`` for unknown or no longer kept ones."""
        ...

    def counts(self) -> list[QueueStatus]:
        """Return exact counts of all queues, of one instant, without scanning."""
        ...

    def load(self) -> tuple[int, int, float]:
        """Return live workers, their slots in all, and the mean run time of recent jobs in seconds."""
        ...


class AdminStore(Protocol):
    """What operators do."""

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        """Return jobs of ``queue`` in ``state``: next to run first, finished ones newest first."""
        ...

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        """Cancel waiting jobs now and ask the workers of running ones; false for unknown and ended jobs."""
        ...

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        """Put dead jobs (``ids``, or all, oldest first) back with fresh attempts; return how many."""
        ...

    def purge(self, queue: str, state: JobState, /) -> int:
        """Forget all jobs of ``queue`` that wait, are delayed, failed or completed; return how many."""
        ...

    def set_paused(self, queue: str, paused: bool, /) -> None:
        """Stop or resume handing out jobs of ``queue``; running ones are not touched."""
        ...


class WorkerStore(Protocol):
    """Claiming, keeping and finishing jobs."""

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        """Make a worker known for three of its leases (:meth:`renew` repeats it).

        Jobs this worker holds in the store but not in ``held`` were handed out in replies that never
        reached it; they go back to the head of their class.
        """
        ...

    def leave(self, worker: str, /) -> None:
        """Forget a worker at once."""
        ...

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        """Hand out up to ``total`` jobs, at most ``room[queue]`` of each queue.

        Due jobs become ready, leases that ran out are taken back (none for a while after an outage, see
        :attr:`WorkerCard.spare_s`), then jobs are chosen by
        :mod:`~eventperf.queues.policy`: classes of queue and priority by its ``choose``; inside a class what
        was handed back, then fairness keys in turns, each in its order. Each job goes to exactly one of
        concurrent callers. ``worker`` has entered, and stays known for two leases more.
        """
        ...

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        """Record outcomes; false where the token is no longer the job's current one."""
        ...

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        """Extend the leases ``(job id, token)`` by the worker's lease time, and what is known of it by three.

        Called every third of a lease while the worker holds jobs, once a lease while it holds none.
        """
        ...

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        """Record progress or a step that is done; false when the lease is lost."""
        ...

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        """Block until a job this worker may claim, or a message for it, came; false after ``timeout_s``.

        ``"message"`` asks for a renewal at once: a job this worker runs was cancelled.
        """
        ...


@runtime_checkable
class AttentiveStore(Protocol):
    """What a store may add so that a busy worker hears of cancellations before its next renewal."""

    def attend(self, worker: str, timeout_s: float, /) -> bool | str:
        """Like ``wait``, for messages and nudges only; jobs that came are left alone.

        The asynchronous face has ``await nudge(worker)``, which ends a running call.
        """
        ...


@runtime_checkable
class BoundedStore(Protocol):
    """What a backend may add whose calls fail by themselves after a time, however the server behaves.

    Attributes:
        answer_s: That time; a caller with less patience is not made to wait for it.
    """

    answer_s: float


@runtime_checkable
class EndsStore(Protocol):
    """What an asynchronous face may add that can tell cheaply which of many jobs have ended."""

    async def ended(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        """Return what is known of those that have ended; ``None`` for all others, unknown ones too."""
        ...


@runtime_checkable
class HintedStore(Protocol):
    """What an asynchronous face may add whose claims follow hints, so that an empty one is no proof."""

    def doubt(self, worker: str, /) -> None:
        """Let the next claim look everywhere."""
        ...


class ScheduleStore(Protocol):
    """What a store adds that declares the capability ``"schedules"``; its asynchronous face has the same."""

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        """Push ``job`` unless the schedule ``name`` has fired for ``slot`` (store time) or a later one.

        A schedule seen for the first time does not fire for a ``late`` slot, it only takes note of it.
        """
        ...

    def time(self) -> float:
        """Return the store's clock, seconds since the epoch."""
        ...


class SearchStore(Protocol):
    """What a store adds that declares the capability ``"search"``; its asynchronous face has the same."""

    def find(self, query: JobQuery, /) -> Found:
        """Return jobs of ``query``, looking at :data:`LOOKED_AT` at most, without their attempts.

        Running ones come by their start or the end of their lease, waiting ones next to run first, delayed
        ones by their time, ended ones newest first; with a tag, the newest job first whatever its state.
        Jobs that move meanwhile may come twice or not at all, others come once.
        """
        ...


class MetricStore(Protocol):
    """What a store adds that declares the capability ``"metrics"``; its asynchronous face has the same."""

    def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        """Return the store's time and the minutes of the last ``span_s`` seconds, by queue and type."""
        ...


class RosterStore(Protocol):
    """What a store adds that declares the capability ``"roster"``; its asynchronous face has the same."""

    def roster(self) -> list[WorkerInfo]:
        """Return the live workers, by their ids; a store may keep what a card tells to itself."""
        ...


class UpdateStore(Protocol):
    """What a store adds that declares the capability ``"update"``; its asynchronous face has the same."""

    def update(self, job_id: str, change: Change, /) -> JobState | None:
        """Change a job that waits or is delayed, in one step; it goes to the end of its new class.

        Returns:
            The state it was found in, ``None`` for an unknown job; in any other state nothing has changed.

        Raises:
            ConfigurationError: A time for a job that waits for others.
        """
        ...


class KinStore(Protocol):
    """What a store adds that declares the capability ``"children"``; its asynchronous face has the same."""

    def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        """Return jobs that wait or waited for a job, without their attempts: those there are of some.

        A store remembers them for as long as it keeps the job, 1,000 of them at least.
        """
        ...


class DeleteStore(Protocol):
    """What a store adds that declares the capability ``"delete"``; its asynchronous face has the same."""

    def delete(self, queue: str, ids: Sequence[str], /) -> int:
        """Forget those of ``ids`` that have ended in ``queue``, listed ones too; return how many.

        Jobs that wait for a dead one are cancelled, as by a purge.
        """
        ...


class JobStore(ProducerStore, AdminStore, WorkerStore, Protocol):
    """Everything a backend keeps, for plain threads; safe to share between them."""

    def steps(self, job_id: str, /) -> frozenset[str]:
        """Return the steps recorded for an unfinished job."""
        ...

    def close(self) -> None:
        """Give back connections; a later call opens them again."""
        ...


class AsyncJobStore(Protocol):
    """The same verbs for tasks of one event loop. Waiting is left to the worker's thread."""

    async def push(self, jobs: Sequence[NewJob], /) -> list[str]: ...
    async def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]: ...
    async def counts(self) -> list[QueueStatus]: ...
    async def load(self) -> tuple[int, int, float]: ...
    async def listing(
        self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100
    ) -> list[JobInfo]: ...
    async def cancel(self, ids: Sequence[str], /) -> list[bool]: ...
    async def replay(
        self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None
    ) -> int: ...
    async def purge(self, queue: str, state: JobState, /) -> int: ...
    async def set_paused(self, queue: str, paused: bool, /) -> None: ...
    async def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None: ...
    async def leave(self, worker: str, /) -> None: ...
    async def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed: ...
    async def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]: ...
    async def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed: ...
    async def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool: ...
    async def steps(self, job_id: str, /) -> frozenset[str]: ...
    async def close(self) -> None: ...


class Backend(Protocol):
    """One store reached from threads and from event loops; built without I/O, opened on first use.

    Attributes:
        name: Shown in errors, for example ``"Redis"``.
        capabilities: :data:`ENGINE`, or what of it there is (``"claims"``: :class:`WorkerStore`, without
            which it is a :class:`HostBackend`), and features beyond it: ``"limits"``
            (``EngineOptions.limits`` is obeyed; ``"key_limits"``: those with ``per_key`` alone),
            ``"flows"`` (a record's ``flow`` names jobs it waits for:
            ``{"after": [ids], "when": "success", "failure" or "ended"}``), ``"schedules"``
            (:class:`ScheduleStore`), ``"wait_replicas"``, ``"transactional_enqueue"``, ``"attempts"`` (a
            job's info has them), ``"search"`` (:class:`SearchStore`), ``"metrics"`` (:class:`MetricStore`),
            ``"update"`` (:class:`UpdateStore`), ``"roster"`` (:class:`RosterStore`), ``"children"``
            (:class:`KinStore`), ``"delete"`` (:class:`DeleteStore`).
    """

    name: str
    capabilities: frozenset[str]

    def sync(self) -> JobStore:
        """Return the face for threads of this process."""
        ...

    def waiter(self, card: WorkerCard, /) -> JobStore:
        """Return a face for the thread of one worker, which may block without holding up other threads."""
        ...

    def aio(self) -> AsyncJobStore:
        """Return the face for the running event loop."""
        ...

    def close(self) -> None:
        """Close what this process opened."""
        ...


class Session(Protocol):
    """One run of a worker."""

    async def run(self, burst: bool) -> None: ...
    def stop(self) -> None:
        """Begin the graceful stop: what still runs after the plan's grace is handed back."""
        ...

    def retire(self, why: str) -> None:
        """Claim no more, let every job end however long it takes, then stop."""
        ...

    def facts(self) -> WorkerFacts:
        """Tell how the run is doing; on its loop."""
        ...

    def call(self, fn: Any, *args: Any) -> None:
        """Call ``fn`` on the run's loop, from any thread."""
        ...


@runtime_checkable
class HostBackend(Protocol):
    """A backend whose jobs another system's workers run, inside this package's ``Worker``."""

    def session(self, plan: WorkerPlan, engine: Engine, /) -> Session:
        """Return one run of the worker that ``plan`` describes, on the running event loop."""
        ...


@runtime_checkable
class TransactionalBackend(Protocol):
    """A backend that stores jobs in the caller's own database transaction (``"transactional_enqueue"``)."""

    def push_in(self, session: Any, jobs: Sequence[NewJob], /) -> list[str]:
        """Store ``jobs`` in the transaction of ``session``; they are there with its commit or not at all."""
        ...

    async def apush_in(self, session: Any, jobs: Sequence[NewJob], /) -> list[str]:
        """Asynchronous twin of :meth:`push_in`."""
        ...


@runtime_checkable
class PlacingBackend(Protocol):
    """A backend in whose ids stands where a job lives."""

    def place(self, jobs: Sequence[NewJob], /, *, together: bool = False, beside: str | None = None) -> None:
        """Give jobs the ids they must have, before anybody is told of them.

        Args:
            together: They are stored in one step.
            beside: In that of this job's end.

        Raises:
            ConfigurationError: They must live in more places than one.
        """
        ...


class BackendFactory(Protocol):
    """What a URL scheme resolves to."""

    def __call__(self, url: Any, settings: StoreSettings, /) -> Backend: ...
