"""What a handler is given beside its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf.queues.checks import check_number, check_text
from eventperf.queues.engine import Engine
from eventperf.queues.errors import JobCancelled, LeaseLost, QueueError
from eventperf.queues.job import JobInfo, Lease, NewJob
from eventperf.queues.options import EnqueueOptions
from eventperf.queues.protocols import AsyncJobStore, JobStore

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on


class JobContext:
    """The running job, from inside its handler.

    Attributes:
        token: Fencing token: grows with each claim of the job; hand it to storage that can refuse
            older writers.
        attempt: This try, from 1; crashes of workers are counted apart in ``crashes``.
    """

    __slots__ = (
        "_astore",
        "_engine",
        "_lease",
        "_steps",
        "_store",
        "attempt",
        "cancelled",
        "crashes",
        "followers",
        "lost",
        "token",
        "worker",
    )

    def __init__(
        self,
        lease: Lease,
        worker: str,
        engine: Engine,
        astore: AsyncJobStore,
        store: Callable[[], JobStore],
    ) -> None:
        self._lease = lease
        self._engine = engine
        self._astore = astore
        self._store = store  # asked for when a thread first needs it: it may open a connection
        self._steps: set[str] | None = None
        self.worker: str = worker
        self.token: int = lease.token
        self.attempt: int = lease.attempt
        self.crashes: int = lease.crashes
        self.cancelled: bool = False
        self.lost: bool = False
        self.followers: list[NewJob] = []

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._lease.record.id

    @property
    def type(self) -> str:
        """The job's type."""
        return self._lease.record.type

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._lease.record.queue

    @property
    def attempts(self) -> int:
        """Tries allowed in all."""
        return self._lease.record.attempts

    @property
    def headers(self) -> Mapping[str, str]:
        """What travels with the job: trace, tenant, request id."""
        return self._lease.record.headers or {}

    @property
    def fairness_key(self) -> str:
        """The key given at enqueue, or empty."""
        return self._lease.record.key

    @property
    def idempotency_key(self) -> str:
        """The same text in every run of this job, for the remote side to recognise a repetition by."""
        return f"{self._lease.record.type}:{self._lease.record.id}"

    @property
    def deadline_at(self) -> float | None:
        """When it must not start any more, by the store's clock; for handing on to what it calls."""
        return self._lease.record.deadline_at

    @property
    def state(self) -> dict[str, Any]:
        """What the functions of ``queues.on_startup`` have made for this worker, shared by all its jobs."""
        return self._engine.state

    @property
    def after(self) -> tuple[str, ...]:
        """Ids of the jobs it has waited for (chains, batches), or of the one that made it by ``then``."""
        flow = self._lease.record.flow
        return tuple(flow["after"]) if flow else ()

    def inputs(self) -> list[Any]:
        """Return the results of the jobs in :attr:`after`, for threads; coroutines use :meth:`ainputs`.

        ``None`` stands for no result: returned nothing, failed, or kept no longer (``result_ttl``).
        """
        return self._results(self._store().fetch(self.after))

    async def ainputs(self) -> list[Any]:
        """Asynchronous twin of :meth:`inputs`."""
        return self._results(await self._astore.fetch(self.after))

    def _results(self, infos: Sequence[JobInfo | None]) -> list[Any]:
        decode = self._engine.codec.decode
        return [None if i is None or i.result is None else decode(i.result) for i in infos]

    def then(self, type: str, data: Any = None, **options: Unpack[EnqueueOptions]) -> str:
        """Enqueue a job in the same step that records this one's completion, or not at all; return its id.

        Options are those of :meth:`QueueManager.enqueue`. A run that fails, or finishes too late, leaves
        nothing behind. :attr:`after` of the new job names this one.
        """
        job = self._engine.follow(type, data, options, self.job_id)
        self.followers.append(job)
        return job.record.id

    def check(self) -> None:
        """Stop here if going on is useless; for long loops in threads.

        Raises:
            JobCancelled: Cancellation was asked for, or the time-out passed.
            LeaseLost: Another worker owns the job by now.
        """
        if self.lost:
            raise LeaseLost(self.job_id)
        if self.cancelled:
            raise JobCancelled(self.job_id)

    def progress(self, ratio: float) -> None:
        """Record progress (0 to 1), for threads; coroutines use :meth:`aprogress`."""
        if not self._store().note(self.job_id, self.token, progress=_ratio(ratio)):
            self.lost = True

    async def aprogress(self, ratio: float) -> None:
        """Asynchronous twin of :meth:`progress`."""
        if not await self._astore.note(self.job_id, self.token, progress=_ratio(ratio)):
            self.lost = True

    def once(self, step: str) -> Once:
        """Guard a step with an effect: skip it when an earlier run of this job has done it.

        ``with ctx.once("charge") as todo: if todo: ...`` (``async with`` in coroutines). The step is
        recorded when the block ends without an error; a crash between effect and record repeats it,
        which is what ``idempotency_key`` is for. A job may have ten thousand steps.

        Raises:
            ConfigurationError: A name that no store could record, or one step too many: before the effect.
        """
        return Once(self, check_text(step, "step"))


def _ratio(value: float) -> float:
    return float(check_number(value, argument="progress", low=0, high=1))


MAX_STEPS = 10_000
"""Steps of one job at most: each is written beside those before it."""


class Once:
    """The guard :meth:`JobContext.once` returns."""

    __slots__ = ("_ctx", "_step", "_todo")

    def __init__(self, ctx: JobContext, step: str) -> None:
        self._ctx = ctx
        self._step = step
        self._todo = True

    def __enter__(self) -> bool:
        ctx = self._ctx
        if ctx._steps is None:
            ctx._steps = set(ctx._store().steps(ctx.job_id))
        return self._begin(ctx._steps)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None and self._todo:
            self._done(self._ctx._store().note(self._ctx.job_id, self._ctx.token, step=self._step))

    async def __aenter__(self) -> bool:
        ctx = self._ctx
        if ctx._steps is None:
            ctx._steps = set(await ctx._astore.steps(ctx.job_id))
        return self._begin(ctx._steps)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None and self._todo:
            self._done(await self._ctx._astore.note(self._ctx.job_id, self._ctx.token, step=self._step))

    def _begin(self, done: set[str]) -> bool:
        self._todo = self._step not in done
        if self._todo and len(done) >= MAX_STEPS:
            raise ConfigurationError("step", self._step, f"at most {MAX_STEPS:,} steps a job")
        return self._todo

    def _done(self, accepted: bool) -> None:
        if not accepted:
            self._ctx.lost = True
            raise LeaseLost(self._ctx.job_id)
        assert self._ctx._steps is not None
        self._ctx._steps.add(self._step)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessContext:
    """What a ``cpu=True`` handler is given: facts only, it has no way back to the store."""

    job_id: str
    type: str
    queue: str
    token: int
    attempt: int
    attempts: int
    crashes: int
    headers: Mapping[str, str]
    idempotency_key: str
    fairness_key: str = ""

    @property
    def state(self) -> dict[str, Any]:
        """Not here: raises an error that says so."""
        raise QueueError(
            "ctx.state is the worker's, and a cpu=True job runs in another process: make what it needs "
            "in its module, or declare it without cpu=True"
        )


def process_context(ctx: JobContext) -> ProcessContext:
    """Return the part of ``ctx`` that can cross to another process."""
    return ProcessContext(
        job_id=ctx.job_id, type=ctx.type, queue=ctx.queue, token=ctx.token, attempt=ctx.attempt,
        attempts=ctx.attempts, crashes=ctx.crashes, headers=dict(ctx.headers),
        idempotency_key=ctx.idempotency_key, fairness_key=ctx.fairness_key,
    )  # fmt: skip
