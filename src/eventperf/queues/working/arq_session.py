"""One run of a worker over arq's queues: an arq worker for each queue, this package's runner for each job."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any

from arq import func
from arq.connections import ArqRedis
from arq.constants import retry_key_prefix
from arq.worker import Function, JobExecutionFailed, Retry
from redis.asyncio import ConnectionPool

from eventperf._core.logs import logger
from eventperf.queues.backends.arq.store import ArqPlace, ArqStore
from eventperf.queues.backends.arq.worker import Worker as _ArqWorker
from eventperf.queues.backends.faces import AsyncFace
from eventperf.queues.engine import Engine
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.events import JobEvent
from eventperf.queues.job import Lease
from eventperf.queues.protocols import Outcome, WorkerFacts, WorkerPlan

from .contact import Contact
from .executors import Executors
from .heartbeat import Heartbeat
from .life import Ageing
from .runs import Runner
from .scheduler import Scheduler

_log = logger("eventperf.queues")

_EVER_S = 10 * 365 * 86_400  # time-outs and tries are the runner's; arq must not add its own
_UNKNOWN_PAUSE_S = 1.0
_COUNTED: Mapping[str, str] = {
    "done": "completed",
    "dead": "failed",
    "cancelled": "cancelled",
    "retry": "retried",
}

_extras: ContextVar[Mapping[str, Any]] = ContextVar("eventperf_arq_extras", default={})  # noqa: B039 - read only


class _QueueWorker(_ArqWorker):
    """arq's worker of one queue, which shares its slots with those of the other queues."""

    def __init__(self, free: Callable[[], int], room: int, **settings: Any) -> None:
        self._free = free
        self._room = room
        super().__init__(max_jobs=room, **settings)

    @property
    def max_jobs(self) -> int:
        return min(self._room, self.job_counter + max(0, self._free()))

    @max_jobs.setter
    def max_jobs(self, value: int) -> None:
        self._room = value


class _Functions(dict[str, Any]):
    """Handlers by type; a type without one gets ``unknown``, where arq would fail the job at once."""

    def __init__(self, known: Mapping[str, Any], unknown: Callable[[str], Function]) -> None:
        super().__init__(known)
        self._unknown = unknown

    def __missing__(self, name: str) -> Function:
        return self._unknown(name)


class _Ends:
    """Hands each run's outcome to the arq task that waits for it."""

    def __init__(self, settle: Callable[[Lease], object]) -> None:
        self._settle = settle
        self.waiting: dict[str, asyncio.Future[Outcome]] = {}
        self.accepted: dict[str, tuple[Lease, Outcome, Callable[[], object] | None]] = {}

    def add(self, lease: Lease, outcome: Outcome, then: Callable[[], object] | None) -> None:
        self._settle(lease)
        self.accepted[outcome.job_id] = lease, outcome, then
        future = self.waiting.pop(outcome.job_id, None)
        if future is not None and not future.done():
            future.set_result(outcome)


class ArqSession:
    """From the first look at the queues to the last job's end."""

    def __init__(self, plan: WorkerPlan, engine: Engine, place: ArqPlace, store: ArqStore) -> None:
        self._plan = plan
        self._engine = engine
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._card = plan.card
        self._store = AsyncFace(store, in_threads=True)
        self._sync = store
        self._over = asyncio.Event()
        self._stopping = ""
        self._give_up_at = math.inf
        self._contact = Contact(self._card.id, lambda up: self.call(self._store_is, up))
        self._ends = _Ends(lambda lease: self._runner.settle(lease))
        executors = Executors(engine.codec, self._card.slots, engine.process_setup)
        self._ageing = Ageing(plan.life, engine.random, executors.pids, self.retire)
        self._runner = Runner(engine, self._card.id, self._store, lambda: store, executors, self._ends)
        self._heart = Heartbeat(
            store,
            self._card,
            self._runner.leases,
            poll_s=self._card.lease_s / 3,
            on_wake=lambda: None,
            on_renewed=lambda answer, sent: None,  # arq has no tokens: whoever ends first has ended the job
            contact=self._contact,
        )
        self._pool: Any = ArqRedis(
            pool_or_conn=ConnectionPool.from_url(place.url.text),
            job_serializer=place.wire.dumps,
            job_deserializer=self._read,
        )
        self._workers = [self._queue_worker(*item) for item in self._card.room_by_queue.items()]

    def call(self, fn: Any, *args: Any) -> None:
        """Call ``fn`` on this run's loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:  # the loop closed while the thread was on its way out
            _log.debug("worker %s: its loop is closed", self._card.id)

    def stop(self) -> None:
        """Begin the graceful stop."""
        self._stopping = self._stopping or "stopped"
        self._give_up_at = min(self._give_up_at, time.monotonic() + self._plan.grace_s)
        self._over.set()

    def retire(self, why: str) -> None:
        """Let every job end, then stop."""
        if not self._stopping:
            _log.info("worker %s retires when its jobs have ended: %s", self._card.id, why)
            self._stopping = why
            self._over.set()

    def facts(self) -> WorkerFacts:
        """Tell how the run is doing."""
        return WorkerFacts(
            worker=self._card.id,
            slots=self._card.slots,
            running=len(self._runner.held),
            begun=self._ageing.begun,
            hung=self._runner.hung,
            store_lost=self._contact.is_lost,
            stopping=self._stopping,
        )

    def _store_is(self, up: bool) -> None:
        self._emit("store_back" if up else "store_lost")

    def _emit(self, kind: str) -> None:
        if self._engine.hooks.active:
            self._engine.hooks.emit(JobEvent(kind=kind, worker=self._card.id))

    def _read(self, blob: bytes) -> dict[str, Any]:
        found = self._place.wire.loads(blob)
        _extras.set(found.get("ep") or {})  # each job is read in a task of its own, which then runs it
        return found

    # -- arq's workers -----------------------------------------------------------------------------

    def _queue_worker(self, queue: str, room: int) -> _QueueWorker:
        made = _QueueWorker(
            self._free,
            room,
            functions=[self._function(name, queue, self._handle) for name in self._card.types or ("none",)],
            queue_name=self._place.keys[queue],
            redis_pool=self._pool,
            handle_signals=False,
            job_timeout=_EVER_S,
            max_tries=2**31,
            keep_result=max(1.0, self._engine.options.result_ttl_s),
            poll_delay=self._place.poll_s,
            allow_abort_jobs=True,
            job_serializer=self._place.wire.dumps,
            job_deserializer=self._read,
            after_job_end=self._ended,
            log_results=False,
        )
        made.in_progress_timeout_s = self._card.lease_s  # the heartbeat renews it, whatever a job takes
        known = made.functions if self._card.types else {}
        made.functions = _Functions(known, lambda name: self._function(name, queue, self._unknown))
        return made

    def _free(self) -> int:
        if self._stopping:
            return 0
        running = sum(worker.job_counter for worker in self._workers)
        return min(self._card.slots - running, self._ageing.room(max(0, running - len(self._runner.held))))

    def _function(
        self, name: str, queue: str, run: Callable[[str, str, Any, Any], Coroutine[Any, Any, Any]]
    ) -> Function:
        async def call(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
            return await run(name, queue, ctx, (args, kwargs))

        return func(call, name=name)

    async def _unknown(self, name: str, queue: str, ctx: Any, call: Any) -> None:
        """Leave a job to workers that know its type, for as long as the manager allows."""
        age_s = self._engine.clock.time() - ctx["enqueue_time"].timestamp()
        left_s = self._engine.options.unknown_grace_s - age_s
        if left_s <= 0:
            raise JobExecutionFailed(f"no worker knows the job type {name!r}")
        await self._pool.decr(retry_key_prefix + ctx["job_id"])
        raise Retry(defer=max(0.01, min(_UNKNOWN_PAUSE_S, left_s)))

    async def _handle(self, name: str, queue: str, ctx: Any, call: Any) -> Any:
        kind = self._engine.types[name]
        record = self._place.wire.record(ctx, kind, queue, call, _extras.get())
        if ctx["job_try"] > record.attempts:  # a try that a crash ended counts to arq like any other
            raise JobExecutionFailed(f"{record.attempts} tries were begun and did not end")
        ends = self._ends.waiting[record.id] = self._loop.create_future()
        self._runner.start(Lease(record, token=int(self._loop.time() * 1000), attempt=ctx["job_try"]))
        self._ageing.begin()
        try:
            outcome = await asyncio.shield(ends)
        except asyncio.CancelledError:  # arq was asked to abort the job
            self._runner.interrupt(record.id, "cancel")
            outcome = await ends
        return await self._conclude(outcome)

    async def _conclude(self, outcome: Outcome) -> Any:
        """Say an outcome in arq's words."""
        if outcome.kind == "done":
            return None if outcome.result is None else self._engine.codec.decode(outcome.result)
        if outcome.kind == "dead":
            raise JobExecutionFailed(outcome.error)
        if outcome.kind == "release" or not outcome.count:
            await self._pool.decr(retry_key_prefix + outcome.job_id)
        if outcome.kind == "retry":
            raise Retry(defer=outcome.delay_s or None)
        raise asyncio.CancelledError  # ends an aborted job; any other runs again

    async def _ended(self, ctx: dict[Any, Any]) -> None:
        """What follows once Redis has the outcome."""
        lease, outcome, then = self._ends.accepted.pop(ctx["job_id"], (None, None, None))
        if lease is None or outcome is None:
            return
        counted = _COUNTED.get(outcome.kind)
        if counted is not None:
            await asyncio.to_thread(
                self._sync.ended, lease.record.queue, outcome.job_id, counted, outcome.run_s, outcome.error
            )
        if then is not None:
            then()

    # -- the run -----------------------------------------------------------------------------------

    async def run(self, burst: bool) -> None:
        """Work until :meth:`stop`; with ``burst`` until nothing is left to do now."""
        try:
            await self._store.enter(self._card)
        except BaseException:
            await self._pool.aclose(close_connection_pool=True)
            raise
        self._heart.start()
        self._emit("worker_started")
        tasks = [self._loop.create_task(worker.async_run()) for worker in self._workers]
        over = self._loop.create_task(self._idle() if burst else self._over.wait())
        ageing = self._loop.create_task(self._ageing.watch())
        helpers: list[asyncio.Task[Any]] = [over]
        if self._engine.schedules and not burst:
            schedules = list(self._engine.schedules.values())
            helpers.append(self._loop.create_task(Scheduler(self._store, schedules).run()))
        try:
            await asyncio.wait([*tasks, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, *helpers):
                if task.done():
                    task.result()
        finally:
            await self._close([*tasks, *helpers, ageing])

    def _jobs(self) -> list[asyncio.Task[Any]]:
        return [task for worker in self._workers for task in worker.tasks.values() if not task.done()]

    async def _idle(self) -> None:
        """Return when no job runs here and none could."""
        queues = self._card.room_by_queue
        while not self._over.is_set():
            if not self._jobs():
                rows = await self._store.counts()
                if not any(row.waiting for row in rows if row.name in queues) and not self._jobs():
                    return
            await asyncio.sleep(self._place.poll_s / 2)

    async def _close(self, tasks: list[asyncio.Task[Any]]) -> None:
        for worker in self._workers:
            worker.allow_pick_jobs = False
        try:
            if not self._stopping:
                self.stop()
            while (running := self._jobs()) and (left := self._give_up_at - time.monotonic()) > 0:
                await asyncio.wait(running, timeout=min(0.25, left))
            await self._runner.hand_back()
            if running := self._jobs():
                await asyncio.wait(running, timeout=5.0)
            while tasks:  # again and again: arq's own waits may swallow a cancellation
                for task in tasks:
                    task.cancel()
                tasks = list((await asyncio.wait(tasks, timeout=1.0))[1])
            await asyncio.to_thread(self._heart.close)  # before: a renewal would sign on again
            try:
                await self._store.leave(self._card.id)
            except StoreUnavailable:
                _log.warning("worker %s could not sign off; it is forgotten after its leases", self._card.id)
        finally:
            self._heart.close()
            await asyncio.to_thread(self._heart.join, 2.0)
            self._runner.close()
            await self._pool.aclose(close_connection_pool=True)
            self._emit("worker_stopped")
