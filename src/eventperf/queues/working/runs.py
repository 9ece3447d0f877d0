"""Running claimed jobs and reporting how they ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from eventperf._core.logs import Lines, logger
from eventperf._core.texts import one_line
from eventperf.queues.engine import Engine
from eventperf.queues.errors import JobTimeout, NonRetryable, PayloadError, Retry
from eventperf.queues.events import JobEvent
from eventperf.queues.job import Lease
from eventperf.queues.jobtype import JobType, Middleware
from eventperf.queues.policy import judge
from eventperf.queues.protocols import UNREADABLE, AsyncJobStore, JobStore, Outcome, OutcomeKind

from . import logs
from .answers import NO_RESULT, check_ran
from .context import JobContext
from .executors import Executors
from .logs import LogTail
from .texts import error_text, is_wordy, safe, stack_text, trace_text
from .timeouts import Timeouts

_log = logger("eventperf.queues")

_ENDS_WITHIN_S = 1.0  # a coroutine, once it was cancelled for its time-out
_STOPS_WITHIN_S = 5.0  # what is interrupted by a stop
_NEWER_DELAY_S = 1.0  # when a job whose payload is too new for this worker is offered again


class Run:
    """One running job."""

    __slots__ = ("ctx", "kind", "lease", "log", "started", "task", "timeout_s", "why")

    def __init__(self, lease: Lease, kind: JobType, ctx: JobContext) -> None:
        self.lease: Lease = lease
        self.kind: JobType = kind
        self.ctx: JobContext = ctx
        self.started: float = time.monotonic()
        self.task: asyncio.Task[None] | None = None
        self.timeout_s: float | None = None
        self.log: LogTail = LogTail()
        self.why: str = ""  # why it was interrupted: timeout, cancel, lost, stop


class Ends(Protocol):
    """Where outcomes go."""

    def add(self, lease: Lease, outcome: Outcome, then: Callable[[], object] | None) -> None:
        """Take ``outcome``; ``then`` is called once the store has accepted it."""
        ...


def _mark(over: Future[None], task: object = None) -> None:
    if not over.done():
        over.set_result(None)


def _shown(error: BaseException) -> BaseException | None:
    """Return what to log with its traceback: not what a handler raises to say something."""
    return None if isinstance(error, (Retry, JobTimeout)) else error


def _say(level: int, text: str, *args: object, error: BaseException, trace: str | None) -> None:
    """Log how a run ended with its traceback; of an error that has a book to tell, the end of it."""
    shown = _shown(error)
    if shown is not None and is_wordy(shown):
        _log.log(level, text + "\n%s", *args, Lines(trace or ""))
    else:
        _log.log(level, text, *args, exc_info=shown)


def _outcome(lease: Lease, kind: OutcomeKind, **facts: Any) -> Outcome:
    return Outcome(lease.record.id, lease.token, kind, **facts)


class Runner:
    """Starts a task per job and turns its end into an outcome.

    Attributes:
        held: Jobs that run or wait for a slot here, id to token.
        leases: These, and ended ones whose outcome the store does not have yet: what must be renewed.
        on_end: Called when a job's slot is free again.
        on_dead: Called with its queue when a job goes to the dead letter.
    """

    def __init__(
        self,
        engine: Engine,
        worker: str,
        store: AsyncJobStore,
        threads_store: Callable[[], JobStore],
        executors: Executors,
        acks: Ends,
    ) -> None:
        self._engine = engine
        self._threads_store = threads_store
        self._worker = worker
        self._store = store
        self._executors = executors
        self._acks = acks
        self._loop = asyncio.get_running_loop()
        self._timeouts = Timeouts(self._loop, lambda job_id: self.interrupt(str(job_id), "timeout"))
        self._runs: dict[str, Run] = {}
        self._deaf: list[Future[None]] = []
        self.held: dict[str, int] = {}
        self.leases: dict[str, int] = {}
        self.mean_run_s: float = 0.0
        self.on_end: Callable[[Run], object] = lambda run: None
        self.on_dead: Callable[[str], object] = lambda queue: None

    @property
    def hung(self) -> int:
        """How many runs are over their time-out and go on all the same."""
        return sum(run.why == "timeout" for run in self._runs.values())

    def start(self, lease: Lease) -> None:
        """Run one claimed job."""
        record = lease.record
        kind = self._engine.types[record.type]
        run = Run(
            lease, kind, JobContext(lease, self._worker, self._engine, self._store, self._threads_store)
        )
        self._runs[record.id] = run
        self.hold(lease)
        timeout_s = record.timeout_s if record.timeout_s is not None else kind.timeout_s
        if timeout_s is not None:
            run.timeout_s = timeout_s
            self._timeouts.add(record.id, timeout_s)
        run.task = self._loop.create_task(self._run(run))

    def hold(self, lease: Lease) -> None:
        """Keep a claimed job's lease from now on."""
        self.held[lease.record.id] = self.leases[lease.record.id] = lease.token

    def adopt(self, lease: Lease) -> bool:
        """Go on with a job under the lease it has by now; false where it does not run here.

        A store that could not be reached may hand a job back to the very worker that runs it.
        """
        run = self._runs.get(lease.record.id)
        if run is None:
            return False
        run.lease.token = run.ctx.token = lease.token
        if run.why == "lost":  # its end is reported again
            run.why = "stop"
        self.hold(lease)
        return True

    def settle(self, lease: Lease) -> None:
        """Stop renewing a lease whose outcome the store has."""
        if self.leases.get(lease.record.id) == lease.token:  # the job may be here again, claimed anew
            del self.leases[lease.record.id]

    def interrupt(self, job_id: str, why: str) -> None:
        """Stop a running job as far as its kind allows."""
        run = self._runs.get(job_id)
        if run is None or run.why or run.task is None:
            return
        run.why = why
        run.ctx.cancelled = True
        run.ctx.lost = run.ctx.lost or why == "lost"
        run.task.cancel()
        if why == "timeout" and (stack := self._executors.stack(job_id)):
            self._say_hung(run, "a thread cannot be stopped", stack)
        elif why == "timeout":
            self._loop.call_later(_ENDS_WITHIN_S, self._look_whether_ended, run)

    def _look_whether_ended(self, run: Run) -> None:
        """Say of a coroutine that caught its cancellation where it goes on."""
        if run.task is not None and self._runs.get(run.lease.record.id) is run:
            self._say_hung(run, "it has caught its cancellation", stack_text(run.task))

    def _say_hung(self, run: Run, why: str, stack: str) -> None:
        record = run.lease.record
        _log.warning(
            "job %s (%s) is over its time-out of %g s, and %s: its slot stays taken until the handler ends. "
            "It is here:\n%s",
            record.id, record.type, run.timeout_s, why, Lines(stack),
        )  # fmt: skip

    def refuse(self, lease: Lease) -> None:
        """Send a job whose record cannot be read to the dead letter, as it is."""
        record = lease.record
        self.leases[record.id] = lease.token
        text = safe(f"{UNREADABLE}: {lease.unreadable}")
        _log.error("%s", one_line(f"job {record.id} of queue {record.queue} goes to the dead letter: {text}"))
        self._acks.add(lease, _outcome(lease, "dead", error=text), None)
        self.on_dead(record.queue)

    def drop(self, lease: Lease, kind: OutcomeKind | None) -> None:
        """Let go of a job that was claimed but never started."""
        self.held.pop(lease.record.id, None)
        if kind is None:
            self.settle(lease)
        else:
            self._acks.add(lease, _outcome(lease, kind), None)

    async def hand_back(self) -> dict[Future[Any], Outcome]:
        """Interrupt what still runs and give it back to its queue.

        Returns:
            What nobody can stop, threads and coroutines that caught their cancellation, with what to report
            once they have ended: their jobs must not start elsewhere before.
        """
        left: dict[Future[Any], Outcome] = {}
        asked = list[Run]()
        for run in list(self._runs.values()):
            job_id = run.lease.record.id
            if (thread := self._executors.thread_of(job_id)) is not None:
                is_over = run.why == "timeout"
                left[thread] = self._interrupted(run) if is_over else self._outcome(run, "release")
                run.ctx.cancelled = True
                run.why = "left"
            elif run.task is not None:
                self.interrupt(job_id, "stop")
                asked.append(run)
        if asked:
            await asyncio.wait([run.task for run in asked if run.task], timeout=_STOPS_WITHIN_S)
        for run in asked:
            if run.task is not None and not run.task.done():
                over = Future[None]()
                left[over] = self._interrupted(run)
                run.why = "left"
                self._deaf.append(over)
                run.task.add_done_callback(partial(_mark, over))
        return left

    def loop_ended(self) -> None:
        """Note that what still ran on this loop does not go on."""
        for over in self._deaf:
            _mark(over)

    def close(self) -> None:
        """Give pools back and drop tasks that wait for threads nobody can stop."""
        for run in list(self._runs.values()):
            if run.task is not None:
                run.task.cancel()
        self._timeouts.close()
        self._executors.close()

    async def _run(self, run: Run) -> None:
        run.started = time.monotonic()
        logs.current.set(run.log)
        try:
            outcome = await self._ended(run)
        except BaseException as trouble:  # what judges and tells of an end calls user code again
            outcome = self._untold(run, trouble)
        self._end(run, outcome)

    async def _ended(self, run: Run) -> Outcome:
        if self._engine.hooks.active:
            self._tell(run, "started")
        try:
            result = await self._call(run, run.lease)
            check_ran(result)
            if run.why and run.why != "timeout":  # it ended in spite of the interruption: it counts as done
                run.why = ""
            outcome = self._outcome(run, "done", result=self._encode(run.kind, result))
            if run.ctx.followers:
                outcome.followers = run.ctx.followers
            return outcome
        except asyncio.CancelledError:
            return self._interrupted(run)
        except BaseException as error:  # SystemExit and the like too: the job's end, not the worker's
            return self._interrupted(run) if run.why in ("cancel", "lost") else self._failed(run, error)

    async def _call(self, run: Run, lease: Lease) -> Any:
        kind, payload = run.kind, lease.record.payload
        if lease.record.version != kind.version:
            payload = self._upcast(kind, lease)
        if kind.mode == "process" and not self._engine.middlewares:
            return await self._executors.in_process(kind, run.ctx, payload)
        try:
            data = self._engine.codec.decode(payload, kind.shape)
        except PayloadError as error:
            raise NonRetryable(f"the payload does not fit {kind.name!r}: {error}") from error
        if not self._engine.middlewares:
            return await self._handle(kind, run.ctx, data)
        return await self._wrapped(kind)(run.ctx, data)

    async def _handle(self, kind: JobType, ctx: JobContext, data: Any) -> Any:
        handler = kind.handler
        assert handler is not None
        if kind.mode == "thread":
            return await self._executors.in_thread(handler, ctx, data)
        if kind.mode == "process":
            return await self._executors.in_process(kind, ctx, self._engine.codec.encode(data, kind.shape))
        return await self._executors.in_loop(handler, ctx, data)

    def _wrapped(self, kind: JobType) -> Callable[[Any, Any], Awaitable[Any]]:
        def around(layer: Middleware, inner: Callable[[Any, Any], Awaitable[Any]]) -> Any:
            return lambda ctx, data: layer(ctx, data, inner)

        call: Any = lambda ctx, data: self._handle(kind, ctx, data)  # noqa: E731
        for layer in reversed(self._engine.middlewares):
            call = around(layer, call)
        return call  # type: ignore[no-any-return]

    def _upcast(self, kind: JobType, lease: Lease) -> bytes:
        """Return the payload in the handler's version; leave newer ones to newer workers."""
        record, codec = lease.record, self._engine.codec
        if record.version > kind.version:
            text = (
                f"payload of {record.type!r} has version {record.version}, this worker knows {kind.version}"
            )
            if self._engine.clock.time() - record.created_at > self._engine.options.unknown_grace_s:
                raise NonRetryable(text)
            raise Retry(_NEWER_DELAY_S, count=False, reason=text)
        steps = self._engine.upcasters.get(record.type, {})
        try:
            data = codec.decode(record.payload)
            for version in range(record.version + 1, kind.version + 1):
                if version in steps:
                    data = steps[version](data)
            return codec.encode(data)
        except Exception as error:
            text = f"the payload of version {record.version} cannot become {kind.version}: {error}"
            raise NonRetryable(text) from error

    def _encode(self, kind: JobType, result: Any) -> bytes | None:
        if result is None or not kind.keep_result:
            return None
        try:
            return self._engine.codec.encode(result, argument="result")
        except PayloadError as error:
            raise NonRetryable(f"it ran, but its result cannot be stored: {error}. {NO_RESULT}") from error

    def _outcome(self, run: Run, kind: OutcomeKind, **facts: Any) -> Outcome:
        run_s = time.monotonic() - run.started
        self.mean_run_s += 0.05 * (run_s - self.mean_run_s)
        return _outcome(run.lease, kind, run_s=run_s, log_tail=run.log.text(), **facts)

    def _interrupted(self, run: Run) -> Outcome:
        if run.why == "timeout":
            return self._failed(run, JobTimeout(run.timeout_s or 0.0))
        if run.why == "cancel":
            return self._outcome(run, "cancelled", error="cancelled while running")
        if run.why in ("stop", "lost", "left"):
            return self._outcome(run, "release")
        return self._failed(run, asyncio.CancelledError("the handler cancelled itself"))

    def _failed(self, run: Run, error: BaseException) -> Outcome:
        lease, kind = run.lease, run.kind
        verdict = judge(
            error,
            attempt=lease.attempt,
            attempts=lease.record.attempts,
            backoff=kind.backoff,
            rules=kind.retry,
            u=self._engine.random.random(),
        )
        text, name = error_text(error), f"job {lease.record.id} ({lease.record.type})"
        trace = trace_text(_shown(error))
        tries = f"attempt {lease.attempt} of {lease.record.attempts}"
        if verdict.retry:
            said = "%s, %s, runs again in %.3g s: %s"
            _say(logging.WARNING, said, name, tries, verdict.delay_s, text, error=error, trace=trace)
            return self._outcome(
                run, "retry", error=text, delay_s=verdict.delay_s, count=verdict.count, traceback=trace
            )
        _say(logging.ERROR, "%s failed for good, %s: %s", name, tries, text, error=error, trace=trace)
        return self._outcome(run, "dead", error=text, traceback=trace)

    def _untold(self, run: Run, trouble: BaseException) -> Outcome:
        """Return the end of a run whose error, or what was to be told of it, could not be dealt with."""
        is_last = run.lease.attempt >= run.lease.record.attempts
        with suppress(BaseException):  # the log may be what fails
            _log.error("job %s: what came of it cannot be told", run.lease.record.id, exc_info=trouble)
        text = f"it failed, and so did telling why: {error_text(trouble)}"
        if is_last:
            return self._outcome(run, "dead", error=text)
        return self._outcome(run, "retry", error=text, delay_s=run.kind.backoff.delay_s(1, 0.5))

    def _end(self, run: Run, outcome: Outcome) -> None:
        job_id = run.lease.record.id
        if run.timeout_s is not None:
            self._timeouts.remove(job_id, run.timeout_s)
        if self._runs.get(job_id) is run:
            del self._runs[job_id]
            self.held.pop(job_id, None)
        if run.why not in ("lost", "left"):
            then = None
            if self._engine.hooks.active:
                kinds = {"done": "completed", "retry": "retried", "dead": "failed", "cancelled": "cancelled"}
                event = kinds.get(outcome.kind)
                if event is not None:
                    then = lambda: self._tell(run, event, outcome)  # noqa: E731
            self._acks.add(run.lease, outcome, then)
            if outcome.kind == "dead":
                self.on_dead(run.lease.record.queue)
        elif run.why == "lost":
            self.settle(run.lease)
        self.on_end(run)

    def _tell(self, run: Run, kind: str, outcome: Outcome | None = None) -> None:
        record = run.lease.record
        with suppress(KeyboardInterrupt):  # out of a listener: no signal is one here
            self._engine.hooks.emit(
                JobEvent(
                    kind=kind,
                    job_id=record.id,
                    type=record.type,
                    queue=record.queue,
                    attempt=run.lease.attempt,
                    run_s=outcome.run_s if outcome else 0.0,
                    error=outcome.error if outcome else None,
                    worker=self._worker,
                )
            )
