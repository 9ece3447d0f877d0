"""QueueManager: the object a host application holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar, overload

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError, UnknownScheme
from eventperf._core.events import Hooks
from eventperf._core.urls import BackendURL, Registry, parse_url

from .codec import Codec
from .errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout, UnknownQueue, Unsupported
from .events import KINDS, JobEvent
from .handle import Job
from .job import Backlog, JobInfo, JobRecord, JobState, NewJob, QueueStatus
from .jobspec import JobSpec, Recorder, check_job_id, new_ids
from .jobtypes import JobFunction, JobType, job_type
from .options import DEFAULT_QUEUES, EngineOptions, Order, QueueConfig, check_name, queue_configs
from .protocols import AsyncJobStore, Backend, JobStore, StoreSettings

if TYPE_CHECKING:
    from .worker import Worker

D = TypeVar("D")
R = TypeVar("R")

backends: Registry = Registry(
    "queues",
    {
        "memory": "eventperf.queues.backends.memory:MemoryBackend",
        "redis": "eventperf.queues.backends.redis:RedisBackend",
        "rediss": "eventperf.queues.backends.redis:RedisBackend",
        "redis+cluster": "eventperf.queues.backends.redis:RedisBackend",
        "rediss+cluster": "eventperf.queues.backends.redis:RedisBackend",
    },
)
"""URL schemes of this room."""

_PUSH_BATCH = 1000


class QueueManager:
    """Queues of background jobs over one store.

    Building it does no I/O and starts nothing; the store is opened by the first call that needs it.
    One manager may be used by any number of threads and event loops at once, and survives a fork.

    Args:
        url: Where the jobs are kept: ``memory://``, ``redis://host:6379/0``, ... or a built backend.
        queues: The queues; :data:`DEFAULT_QUEUES` unless said otherwise.
        namespace: Separates applications on one server; workers and producers must agree on it.
        default_queue: For job types that name none; ``"normal"``, or the only queue there is.
        order: Between queues: ``"strict"`` by priority or ``"weighted"``.
        aging: How often a class of jobs may be passed over; ``None`` lets low classes starve.
        max_crashes: Deaths of its worker after which a job counts as poisonous.
        unknown_grace: How long a job waits whose type no live worker declares.
        result_ttl: How long results can be asked for; completions without a result at most a minute.
        max_payload_bytes: Largest encoded payload.

    >>> queues = QueueManager("memory://")
    >>> @queues.job("greet")
    ... def greet(ctx, data: str) -> str:
    ...     return f"hello {data}"
    >>> job = greet.enqueue("world")
    >>> queues.worker().run(burst=True)
    >>> job.result()
    'hello world'
    """

    def __init__(
        self,
        url: str | Backend = "memory://",
        *,
        queues: Iterable[QueueConfig] | Mapping[str, Mapping[str, int]] = DEFAULT_QUEUES,
        namespace: str = "default",
        default_queue: str | None = None,
        order: Order = "strict",
        aging: int | None = 100,
        max_crashes: int = 3,
        unknown_grace: Duration = "10m",
        result_ttl: Duration = "10m",
        max_payload_bytes: int = 1_048_576,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.queues: dict[str, QueueConfig] = queue_configs(queues)
        self.namespace: str = check_name(namespace, argument="namespace")
        self.options: EngineOptions = EngineOptions(
            order=order,
            aging=aging,
            max_crashes=max_crashes,
            unknown_grace_s=seconds(unknown_grace, name="unknown_grace", zero=True),
            result_ttl_s=seconds(result_ttl, name="result_ttl", zero=True),
            max_payload_bytes=max_payload_bytes,
        )
        self.hooks: Hooks = Hooks()
        self.types: dict[str, JobType] = {}
        self.codec: Codec = Codec(max_payload_bytes)
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or SystemRandom()
        if default_queue is None:
            default_queue = "normal" if "normal" in self.queues else next(iter(self.queues))
        self._recorder = Recorder(self.queues, self._queue(default_queue, "default_queue"), self.codec)
        self._backend = self._open(url)

    def _open(self, url: str | Backend) -> Backend:
        if not isinstance(url, str):
            if not hasattr(url, "sync") or not hasattr(url, "aio"):
                raise ConfigurationError("url", url, "a URL such as redis://host:6379/0, or a Backend")
            return url
        settings = StoreSettings(
            namespace=self.namespace, queues=self.queues, options=self.options, clock=self.clock
        )
        parsed: BackendURL = parse_url(url)
        try:
            factory = backends.resolve(parsed.scheme)
        except UnknownScheme as error:
            raise UnknownScheme("url", str(parsed), [f"{s}://" for s in backends.schemes()]) from error
        built: Backend = factory(parsed, settings)
        return built

    def _queue(self, name: str, argument: str = "queue") -> str:
        if name not in self.queues:
            raise UnknownQueue(argument, name, self.queues)
        return name

    @property
    def backend(self) -> Backend:
        """The store behind this manager."""
        return self._backend

    def _store(self) -> JobStore:
        return self._backend.sync()

    def _astore(self) -> AsyncJobStore:
        return self._backend.aio()

    # -- job types ---------------------------------------------------------------------------------

    def job(
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[[Any, D], R]], JobFunction[D, R]]:
        """Make the decorated ``(ctx, data)`` function the handler of job type ``name``.

        Coroutine functions run on the worker's loop, plain ones in threads, plain ones with ``cpu=True``
        in a process pool. The annotation of ``data`` (dataclass, TypedDict, pydantic model, builtins)
        is checked at enqueue and before the handler runs.

        Args:
            name: The job type; the function's name when not given.
            **options: ``queue``, ``priority``, ``attempts=3``, ``timeout="5m"``, ``backoff``, ``retry``
                (list of :class:`RetryRule`), ``version=1``, ``cpu=False``.

        Raises:
            ConfigurationError: An option that cannot work, or a second handler for the same type.
        """
        if name is not None and not isinstance(name, str):
            raise ConfigurationError("job type", name, "a name: use @queues.job(), with parentheses")

        def decorate(fn: Callable[[Any, D], R]) -> JobFunction[D, R]:
            type_name = fn.__name__ if name is None else name
            known = self.types.get(type_name)
            if known is not None and known.handler is not None:
                raise ConfigurationError("job type", type_name, "one handler per job type")
            self._declare(type_name, fn, options)
            return JobFunction(self, type_name, fn)

        return decorate

    def declare(self, name: str, shape: Any = Any, **options: Any) -> None:
        """Declare job type ``name`` without its handler, so that producers check what they send.

        Args:
            shape: What its payload must fit; options as of :meth:`job`.
        """
        if name not in self.types:
            self._declare(name, None, {"shape": shape, **options})

    def _declare(self, name: str, handler: Callable[..., Any] | None, options: dict[str, Any]) -> None:
        if isinstance(options.get("queue"), str):
            self._queue(options["queue"])
        allowed = ("queue", "priority", "attempts", "timeout", "backoff", "retry", "version", "cpu", "shape")
        for option in options:
            if option not in allowed:
                raise ConfigurationError("option", option, allowed)
        self.types[name] = job_type(name, handler, **options)

    def _kind(self, name: str) -> JobType:
        kind = self.types.get(name)
        return kind if kind is not None else JobType(name=check_name(name, argument="job type"))

    # -- producing ---------------------------------------------------------------------------------

    def enqueue(self, type: str, data: Any = None, *, session: Any = None, **options: Any) -> Job:
        """Enqueue one job.

        Args:
            type: The job type; types unknown here are allowed, their data is then only encoded.
            data: The payload.
            session: Leave with this transaction's commit or not at all, where the backend can.
            **options: ``queue``; ``priority`` 0 to 1000, larger is more urgent; ``delay`` or ``at``;
                ``unique_key`` with ``unique_for`` (``"waiting"``, ``"running"`` or a duration);
                ``deadline`` after which it must not start; ``fairness_key``; ``attempts``;
                ``timeout``; ``headers``; ``id``, to make a repeated call harmless.

        Raises:
            ConfigurationError: An argument that cannot work, data that does not fit the type.
            StoreUnavailable: The store does not answer.
        """
        jobs = self._prepare([self._spec(type, data, options)])
        return self._handles(jobs, self._push(jobs, session))[0]

    async def aenqueue(self, type: str, data: Any = None, *, session: Any = None, **options: Any) -> Job:
        """Asynchronous twin of :meth:`enqueue`."""
        jobs = self._prepare([self._spec(type, data, options)])
        if session is not None:
            return self._handles(jobs, self._push(jobs, session))[0]
        return self._handles(jobs, await self._astore().push(jobs))[0]

    @overload
    def enqueue_many(
        self, type: str, data: Iterable[Any], *, session: Any = None, **options: Any
    ) -> list[Job]: ...
    @overload
    def enqueue_many(self, type: Iterable[JobSpec], *, session: Any = None) -> list[Job]: ...
    def enqueue_many(
        self,
        type: str | Iterable[JobSpec],
        data: Iterable[Any] | None = None,
        *,
        session: Any = None,
        **options: Any,
    ) -> list[Job]:
        """Enqueue many jobs: of one type with the same options, or a list of :class:`JobSpec`.

        One round trip per thousand. Everything is checked before the first is sent.
        """
        jobs = self._prepare_many(type, data, options)
        found: list[Job] = []
        for i in range(0, len(jobs), _PUSH_BATCH):
            part = jobs[i : i + _PUSH_BATCH]
            found += self._handles(part, self._push(part, session))
        return found

    async def aenqueue_many(
        self, type: str | Iterable[JobSpec], data: Iterable[Any] | None = None, **options: Any
    ) -> list[Job]:
        """Asynchronous twin of :meth:`enqueue_many`."""
        jobs = self._prepare_many(type, data, options)
        store, found = self._astore(), []
        for i in range(0, len(jobs), _PUSH_BATCH):
            part = jobs[i : i + _PUSH_BATCH]
            found += self._handles(part, await store.push(part))
        return found

    def _spec(self, type: str, data: Any, options: dict[str, Any]) -> JobSpec:
        try:
            return JobSpec(type=type, data=data, **options)
        except TypeError:
            allowed = [f for f in JobSpec.__slots__ if f not in ("type", "data")]
            wrong = next((o for o in options if o not in allowed), None)
            if wrong is None:
                raise
            raise ConfigurationError("option", wrong, allowed) from None

    def _prepare(self, specs: Sequence[JobSpec]) -> list[NewJob]:
        now, bits = self.clock.time(), self.random.getrandbits
        ids = new_ids(len(specs), bits)
        return [
            self._recorder.one(spec, self._kind(spec.type), check_job_id(spec.id) if spec.id else ids[i], now)
            for i, spec in enumerate(specs)
        ]

    def _prepare_many(
        self, type: str | Iterable[JobSpec], data: Iterable[Any] | None, options: dict[str, Any]
    ) -> list[NewJob]:
        if not isinstance(type, str):
            specs = list(type)
            if data is not None or options or not all(isinstance(s, JobSpec) for s in specs):
                raise ConfigurationError(
                    "type", type, "a job type with a list of data, or a list of JobSpec alone"
                )
            return self._prepare(specs) if specs else []
        if data is None or isinstance(data, (str, bytes, Mapping)):
            raise ConfigurationError("data", data, "a list with the data of each job")
        items = list(data)
        if not items:
            return []
        kind = self._kind(type)
        fields, delay_s, deadline_s = self._recorder.template(
            self._spec(type, None, options), kind, self.clock.time()
        )
        encode, shape = self.codec.encode, kind.shape
        return [
            NewJob(JobRecord(id=i, payload=encode(item, shape), **fields), delay_s, deadline_s)
            for i, item in zip(new_ids(len(items), self.random.getrandbits), items, strict=True)
        ]

    def _push(self, jobs: list[NewJob], session: Any) -> list[str]:
        if session is None:
            return self._store().push(jobs)
        push_in: Callable[[Any, list[NewJob]], list[str]] | None = getattr(self._backend, "push_in", None)
        if push_in is None:
            raise Unsupported("enqueue(session=...)", self._backend.name)
        return push_in(session, jobs)

    def _handles(self, jobs: Sequence[NewJob], ids: Sequence[str]) -> list[Job]:
        if self.hooks.active:
            for new, job_id in zip(jobs, ids, strict=True):
                if job_id == new.record.id:
                    r = new.record
                    self.hooks.emit(JobEvent(kind="enqueued", job_id=r.id, type=r.type, queue=r.queue))
        return [
            Job(self, job_id, new.record.type, job_id != new.record.id)
            for new, job_id in zip(jobs, ids, strict=True)
        ]

    # -- asking ------------------------------------------------------------------------------------

    def status(self) -> list[QueueStatus]:
        """Return exact counts of every queue across all processes; one round trip, no scan."""
        return self._store().counts()

    async def astatus(self) -> list[QueueStatus]:
        """Asynchronous twin of :meth:`status`."""
        return await self._astore().counts()

    def job_info(self, id: str) -> JobInfo:
        """Return where job ``id`` stands.

        Raises:
            JobNotFound: Never enqueued, or finished and no longer retained.
        """
        return _found(id, self._store().fetch([id]))

    async def ajob_info(self, id: str) -> JobInfo:
        """Asynchronous twin of :meth:`job_info`."""
        return _found(id, await self._astore().fetch([id]))

    def result(self, id: str, timeout: Duration = 30.0) -> Any:
        """Wait for job ``id`` and return what its handler returned, as plain data.

        Raises:
            JobFailed: It went to the dead letter.
            JobCancelled: It was cancelled.
            JobNotFound: No record of it.
            ResultTimeout: Not finished within ``timeout``.
        """
        timeout_s = seconds(timeout, name="timeout", zero=True)
        end, pause = time.monotonic() + timeout_s, 0.002
        while not (info := self.job_info(id)).is_finished:
            left = end - time.monotonic()
            if left <= 0:
                raise ResultTimeout(id, timeout_s)
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.1)
        return self._outcome(info)

    async def aresult(self, id: str, timeout: Duration = 30.0) -> Any:
        """Asynchronous twin of :meth:`result`."""
        import asyncio

        timeout_s = seconds(timeout, name="timeout", zero=True)
        end, pause = time.monotonic() + timeout_s, 0.002
        while not (info := await self.ajob_info(id)).is_finished:
            left = end - time.monotonic()
            if left <= 0:
                raise ResultTimeout(id, timeout_s)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.1)
        return self._outcome(info)

    def _outcome(self, info: JobInfo) -> Any:
        if info.state is JobState.FAILED:
            raise JobFailed(info.id, info.error or "unknown")
        if info.state is JobState.CANCELLED:
            raise JobCancelled(info.id)
        return None if info.result is None else self.codec.decode(info.result)

    def backlog(self, queues: Sequence[str] | None = None) -> Backlog:
        """Return depth, rates and waiting time of ``queues`` (all by default): what an autoscaler reads."""
        chosen = [self._queue(q) for q in queues] if queues is not None else list(self.queues)
        return _backlog(self._store().counts(), self._store().load(), chosen)

    async def abacklog(self, queues: Sequence[str] | None = None) -> Backlog:
        """Asynchronous twin of :meth:`backlog`."""
        chosen = [self._queue(q) for q in queues] if queues is not None else list(self.queues)
        store = self._astore()
        return _backlog(await store.counts(), await store.load(), chosen)

    # -- operating ---------------------------------------------------------------------------------

    def cancel(self, id: str) -> bool:
        """Cancel a job: at once when it waits, by asking its worker when it runs.

        A running coroutine is cancelled, a ``cpu=True`` job's process is killed, a job in a thread
        sees ``ctx.cancelled`` and must stop by itself. Returns false for unknown and ended jobs.
        """
        return self._store().cancel([id])[0]

    async def acancel(self, id: str) -> bool:
        """Asynchronous twin of :meth:`cancel`."""
        return (await self._astore().cancel([id]))[0]

    def retry(self, id: str) -> bool:
        """Put one dead job back with fresh attempts; false when it is not in the dead letter."""
        info = self.job_info(id)
        return self._store().replay(info.queue, [id]) == 1

    async def aretry(self, id: str) -> bool:
        """Asynchronous twin of :meth:`retry`."""
        info = await self.ajob_info(id)
        return await self._astore().replay(info.queue, [id]) == 1

    def dead(self, queue: str, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        """Return the dead letter of ``queue``, newest first."""
        return self._store().listing(self._queue(queue), JobState.FAILED, offset=offset, limit=limit)

    async def adead(self, queue: str, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        """Asynchronous twin of :meth:`dead`."""
        return await self._astore().listing(self._queue(queue), JobState.FAILED, offset=offset, limit=limit)

    def replay(self, queue: str, ids: Sequence[str] | None = None, *, limit: int | None = None) -> int:
        """Put dead jobs of ``queue`` back: ``ids``, or all of them, oldest first; return how many."""
        return self._store().replay(self._queue(queue), ids, limit=limit)

    async def areplay(self, queue: str, ids: Sequence[str] | None = None, *, limit: int | None = None) -> int:
        """Asynchronous twin of :meth:`replay`."""
        return await self._astore().replay(self._queue(queue), ids, limit=limit)

    def purge(self, queue: str, state: JobState | str = JobState.WAITING) -> int:
        """Forget all jobs of ``queue`` that are waiting, delayed, failed or completed; return how many."""
        return self._store().purge(self._queue(queue), _purgeable(state))

    async def apurge(self, queue: str, state: JobState | str = JobState.WAITING) -> int:
        """Asynchronous twin of :meth:`purge`."""
        return await self._astore().purge(self._queue(queue), _purgeable(state))

    def pause(self, queue: str) -> None:
        """Stop handing out jobs of ``queue`` in every process; running jobs go on."""
        self._store().set_paused(self._queue(queue), True)

    async def apause(self, queue: str) -> None:
        """Asynchronous twin of :meth:`pause`."""
        await self._astore().set_paused(self._queue(queue), True)

    def resume(self, queue: str) -> None:
        """Hand out jobs of ``queue`` again."""
        self._store().set_paused(self._queue(queue), False)

    async def aresume(self, queue: str) -> None:
        """Asynchronous twin of :meth:`resume`."""
        await self._astore().set_paused(self._queue(queue), False)

    def drain(self, timeout: Duration = "1m") -> bool:
        """Wait until no job waits, is delayed or runs; false when ``timeout`` passed first."""
        end, pause = time.monotonic() + seconds(timeout, name="timeout", zero=True), 0.005
        while any(s.waiting or s.delayed or s.active for s in self.status()):
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)
        return True

    async def adrain(self, timeout: Duration = "1m") -> bool:
        """Asynchronous twin of :meth:`drain`."""
        import asyncio

        end, pause = time.monotonic() + seconds(timeout, name="timeout", zero=True), 0.005
        while any(s.waiting or s.delayed or s.active for s in await self.astatus()):
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.2)
        return True

    # -- working -----------------------------------------------------------------------------------

    def worker(
        self,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        *,
        lease: Duration = 15.0,
        grace: Duration = 30.0,
        name: str | None = None,
    ) -> Worker:
        """Build a worker; nothing starts before it runs.

        Args:
            queues: Queues it serves; all by default.
            concurrency: Its slots in all, lifting the queues' own; by default each queue has its own.
            lease: A job whose worker has died runs again this long after the last sign of life.
            grace: How long a graceful stop waits for running jobs before it hands them back.
            name: Shown in listings; made up when not given.
        """
        from .worker import Worker

        chosen = [self._queue(q) for q in queues] if queues is not None else list(self.queues)
        return Worker(self, chosen, concurrency, lease_s=seconds(lease, name="lease"), grace_s=seconds(
            grace, name="grace", zero=True), name=name)  # fmt: skip

    def on(self, kind: str, fn: Callable[[JobEvent], object]) -> Callable[[], None]:
        """Call ``fn`` with every event of ``kind`` that happens in this process.

        Returns:
            A function that ends the subscription.

        Raises:
            ConfigurationError: No such kind of event.
        """
        if kind not in KINDS:
            raise ConfigurationError("kind", kind, KINDS)

        def deliver(event: JobEvent) -> None:
            if event.kind == kind:
                fn(event)

        return self.hooks.subscribe(deliver, JobEvent)

    def close(self) -> None:
        """Close what this process opened; a later call opens it again."""
        self._backend.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop, and those of this process's threads."""
        await self._astore().close()
        self._backend.close()

    def __enter__(self) -> QueueManager:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> QueueManager:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<QueueManager {self._backend.name} {self.namespace!r}: {', '.join(self.queues)}>"


def _found(id: str, found: list[JobInfo | None]) -> JobInfo:
    if found[0] is None:
        raise JobNotFound(id)
    return found[0]


def _purgeable(state: JobState | str) -> JobState:
    allowed = (JobState.WAITING, JobState.DELAYED, JobState.FAILED, JobState.COMPLETED)
    if state not in allowed:
        raise ConfigurationError("state", state, [s.value for s in allowed])
    return JobState(state)


def _backlog(counts: list[QueueStatus], load: tuple[int, int, float], chosen: list[str]) -> Backlog:
    rows = [row for row in counts if row.name in chosen]
    workers, slots, run_s = load
    return Backlog(
        depth=sum(r.waiting for r in rows),
        arrival_rate=sum(r.arrival_rate for r in rows),
        service_rate=sum(r.service_rate for r in rows),
        oldest_wait_s=max((r.oldest_wait_s for r in rows), default=0.0),
        workers=workers,
        slots=slots,
        active=sum(r.active for r in rows),
        run_s=run_s,
    )
