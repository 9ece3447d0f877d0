"""QueueManager: the object a host application holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo
from itertools import pairwise
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar, overload

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError, UnknownScheme
from eventperf._core.events import Hooks
from eventperf._core.urls import BackendURL, Registry, parse_url

from .checks import check_hook, check_int, check_name
from .codec import Codec
from .engine import Engine, Setup
from .errors import Unsupported
from .events import KINDS, JobEvent
from .handle import Job, JobFunction
from .job import JobRecord, NewJob
from .jobtype import JobType, Middleware, WorkerHook
from .limits import Limit
from .operating import Operations
from .options import (
    DEFAULT_QUEUES,
    EngineOptions,
    EnqueueOptions,
    Order,
    QueueConfig,
    WorkerLife,
    queue_configs,
)
from .producing import outbox
from .producing.spec import JobSpec, Recorder, check_flow, check_job_id, check_when, new_ids
from .producing.types import job_type, undeclared
from .protocols import Backend, StoreSettings, TransactionalBackend
from .schedules import Schedule, parse_when

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on

    from .working.worker import Worker

D = TypeVar("D")
R = TypeVar("R")

backends: Registry = Registry(
    "queues",
    {
        "memory": "eventperf.queues.backends.memory.backend:MemoryBackend",
        "redis": "eventperf.queues.backends.redis.backend:RedisBackend",
        "rediss": "eventperf.queues.backends.redis.backend:RedisBackend",
        "redis+cluster": "eventperf.queues.backends.redis.backend:RedisBackend",
        "rediss+cluster": "eventperf.queues.backends.redis.backend:RedisBackend",
        "redis+sentinel": "eventperf.queues.backends.redis.backend:RedisBackend",
        "rediss+sentinel": "eventperf.queues.backends.redis.backend:RedisBackend",
        "arq+redis": "eventperf.queues.backends.arq.backend:ArqBackend",
        "arq+rediss": "eventperf.queues.backends.arq.backend:ArqBackend",
        "postgresql+psycopg": "eventperf.queues.backends.sql.backend:SqlBackend",
        "mysql+pymysql": "eventperf.queues.backends.sql.backend:SqlBackend",
        "mariadb+pymysql": "eventperf.queues.backends.sql.backend:SqlBackend",
        "sqlite": "eventperf.queues.backends.sql.backend:SqlBackend",
    },
)
"""URL schemes of this room."""

_PUSH_BATCH = 1000


class QueueManager(Operations):
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
        limits: Rate limits and concurrency caps over all workers, see :class:`Limit`; the same everywhere.
        wait_replicas: Replicas that must have a job before ``enqueue`` returns (Redis: ``WAIT``), and
            ``wait_timeout``, after which it raises :class:`StoreUnavailable`.

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
        limits: Sequence[Limit] = (),
        wait_replicas: int = 0,
        wait_timeout: Duration = "1s",
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
            limits=tuple(limits),
            wait_replicas=wait_replicas,
            wait_timeout_s=seconds(wait_timeout, name="wait_timeout"),
        )
        for limit in limits:
            if limit.queue is not None:
                self._queue(limit.queue, "limits")
        self.hooks: Hooks = Hooks()
        self.types: dict[str, JobType] = {}
        self.upcasters: dict[str, dict[int, Callable[[Any], Any]]] = {}
        self.codec: Codec = Codec(max_payload_bytes)
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or SystemRandom()
        if default_queue is None:
            default_queue = "normal" if "normal" in self.queues else next(iter(self.queues))
        self._recorder = Recorder(self.queues, self._queue(default_queue, "default_queue"), self.codec)
        self.process_setup: Setup | None = None  # of cpu=True jobs; the helpers of web frameworks set it
        self.schedules: dict[str, Schedule] = {}
        self.middlewares: list[Middleware] = []
        self.startups: list[WorkerHook] = []
        self.shutdowns: list[WorkerHook] = []
        self._stamps: list[Callable[[], Mapping[str, str]]] = []
        self._backend = self._open(url)
        if limits:
            self.needs("limits")
        if wait_replicas:
            self.needs("wait_replicas")
        if order == "weighted":
            self.needs("priorities")

    def needs(self, capability: str) -> None:
        """Raise :class:`Unsupported` unless the backend declares ``capability``."""
        if capability not in self._backend.capabilities:
            raise Unsupported(capability, self._backend.name)

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

    @property
    def backend(self) -> Backend:
        """The store behind this manager."""
        return self._backend

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
                (list of :class:`RetryRule`), ``version=1``, ``cpu=False``, ``keep_result=True``.

        Raises:
            ConfigurationError: An option that cannot work, or a second handler for the same type.
        """
        if name is not None and not isinstance(name, str):
            raise ConfigurationError("job type", name, "a name: use @queues.job(), with parentheses")

        def decorate(fn: Callable[[Any, D], R]) -> JobFunction[D, R]:
            type_name = getattr(fn, "__name__", repr(fn)) if name is None else name
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
        allowed = (
            "queue",
            "priority",
            "attempts",
            "timeout",
            "backoff",
            "retry",
            "version",
            "cpu",
            "shape",
            "keep_result",
        )
        for option in options:
            if option not in allowed:
                raise ConfigurationError("option", option, allowed)
        self.types[name] = job_type(name, handler, **options)

    def _kind(self, name: str) -> JobType:
        kind = self.types.get(name)
        return kind if kind is not None else undeclared(check_name(name, argument="job type"), self.types)

    def upcast(self, name: str, *, to: int) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Make the decorated function turn payloads of version ``to - 1`` into version ``to``.

        It gets and returns plain data (dicts, lists, text, numbers). Jobs of older releases pass all steps
        from their version to the ``version=`` of the handler before they are checked against its type.
        """
        check_name(name, argument="job type")
        check_int(to, argument="to", low=2)

        def decorate(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
            if self.upcasters.setdefault(name, {}).setdefault(to, step) is not step:
                raise ConfigurationError("to", to, f"one upcaster of {name!r} per version")
            return step

        return decorate

    def middleware(self, fn: Middleware) -> Middleware:
        """Wrap every handler here: ``async def fn(ctx, data, proceed)``; the first added is outermost.

        ``await proceed(ctx, data)`` runs what is inside and returns its result. It runs on the worker's loop,
        whatever kind the handler is; what it raises counts as the job's failure. For ``cpu=True`` jobs
        ``data`` goes to the other process again and must be of the payload's type.
        """
        if not inspect.iscoroutinefunction(fn):
            raise ConfigurationError("middleware", fn, "a coroutine function (ctx, data, proceed)")
        self.middlewares.append(fn)
        return fn

    def on_startup(self, fn: WorkerHook) -> WorkerHook:
        """Call ``fn(state)`` in every worker before its first claim, in the order of declaration.

        ``state`` is a dict of that worker: what is put into it handlers find in ``ctx.state``. Coroutine
        functions run on the worker's loop, plain ones in a thread. What one raises keeps the worker from
        starting; no function of :meth:`on_shutdown` is called then. ``cpu=True`` jobs run in processes of
        their own and have no state.
        """
        self.startups.append(check_hook(fn, "on_startup"))
        return fn

    def on_shutdown(self, fn: WorkerHook) -> WorkerHook:
        """Call ``fn(state)`` in every worker after its last job, the last declared first.

        What one raises is logged and keeps no other from being called.
        """
        self.shutdowns.append(check_hook(fn, "on_shutdown"))
        return fn

    def stamp(self, fn: Callable[[], Mapping[str, str]]) -> Callable[[], Mapping[str, str]]:
        """Add what ``fn()`` returns to the headers of every job enqueued here (trace, tenant, request id)."""
        self._stamps.append(fn)
        return fn

    def cron(
        self,
        name: str,
        when: str | Duration,
        type: str,
        data: Any = None,
        *,
        timezone: str | tzinfo = "UTC",
        catch_up: Duration = 60.0,
        **options: Unpack[EnqueueOptions],
    ) -> None:
        """Enqueue a job again and again; every slot once over all workers, by the store's clock.

        Declare it where the workers are set up: whatever worker runs fires it.

        Args:
            name: Of the schedule; the store remembers its last slot under it.
            when: ``"30 9 * * mon-fri"``, ``"@daily"``, or a duration such as ``"5m"`` for its multiples.
            timezone: Of a cron expression. A time that a clock change skips runs right after the gap, one
                that comes twice runs once.
            catch_up: How late a slot may still fire that came while no worker ran; older ones are skipped.
            **options: As of :meth:`enqueue`.

        Raises:
            ConfigurationError: An expression that is wrong or never comes, or options that cannot work.
            Unsupported: The backend has no schedules.
        """
        self.needs("schedules")
        if check_name(name, argument="name") in self.schedules:
            raise ConfigurationError("name", name, "one schedule per name")
        spec = self.spec(type, data, options)

        def make() -> NewJob:
            return self.prepare([spec])[0]

        make()
        when_ = parse_when(when, timezone)
        catch_up_s = seconds(catch_up, name="catch_up", zero=True)
        self.schedules[name] = Schedule(name=name, when=when_, catch_up_s=catch_up_s, make=make)

    # -- producing ---------------------------------------------------------------------------------

    def enqueue(
        self,
        type: str,
        data: Any = None,
        *,
        session: Any = None,
        using: Any = None,
        **options: Unpack[EnqueueOptions],
    ) -> Job:
        """Enqueue one job.

        Args:
            type: The job type; types unknown here are allowed, their data is then only encoded.
            data: The payload.
            session: Leave with the commit of this SQLAlchemy session or connection, or not at all: stored
                at once where the jobs are in the same database, else by way of its
                :mod:`~eventperf.queues.outbox`.
            using: The same for Django's database of this alias; always by way of the outbox.
            **options: ``queue``; ``priority`` 0 to 1000, larger is more urgent; ``delay`` or ``at``;
                ``unique_key`` with ``unique_for`` (``"waiting"``, ``"running"`` or a duration);
                ``deadline`` after which it must not start; ``fairness_key``; ``attempts``;
                ``timeout``; ``headers``; ``tags``, up to ten words to find it by; ``after``, jobs or ids that
                must have completed before: with ``after_when="any"`` ended in any way, with ``"failure"``
                all ended and one of them dead, else it is cancelled; ``id``, which makes repetition harmless.

        Raises:
            ConfigurationError: An argument that cannot work, data that does not fit the type.
            StoreUnavailable: The store does not answer.
        """
        jobs = self.prepare([self.spec(type, data, options)])
        return self._handles(jobs, self._push(jobs, session, using))[0]

    async def aenqueue(
        self, type: str, data: Any = None, *, session: Any = None, **options: Unpack[EnqueueOptions]
    ) -> Job:
        """Asynchronous twin of :meth:`enqueue`."""
        jobs = self.prepare([self.spec(type, data, options)])
        return self._handles(jobs, await self._apush(jobs, session))[0]

    @overload
    def enqueue_many(
        self,
        type: str,
        data: Iterable[Any],
        *,
        session: Any = None,
        using: Any = None,
        **options: Unpack[EnqueueOptions],
    ) -> list[Job]: ...
    @overload
    def enqueue_many(
        self, type: Iterable[JobSpec], *, session: Any = None, using: Any = None
    ) -> list[Job]: ...
    def enqueue_many(
        self,
        type: str | Iterable[JobSpec],
        data: Iterable[Any] | None = None,
        *,
        session: Any = None,
        using: Any = None,
        **options: Unpack[EnqueueOptions],
    ) -> list[Job]:
        """Enqueue many jobs: of one type with the same options, or a list of :class:`JobSpec`.

        One round trip per thousand. Everything is checked before the first is sent.
        """
        jobs = self._prepare_many(type, data, options)
        found: list[Job] = []
        for i in range(0, len(jobs), _PUSH_BATCH):
            part = jobs[i : i + _PUSH_BATCH]
            found += self._handles(part, self._push(part, session, using))
        return found

    async def aenqueue_many(
        self,
        type: str | Iterable[JobSpec],
        data: Iterable[Any] | None = None,
        *,
        session: Any = None,
        **options: Unpack[EnqueueOptions],
    ) -> list[Job]:
        """Asynchronous twin of :meth:`enqueue_many`."""
        jobs = self._prepare_many(type, data, options)
        found: list[Job] = []
        for i in range(0, len(jobs), _PUSH_BATCH):
            part = jobs[i : i + _PUSH_BATCH]
            found += self._handles(part, await self._apush(part, session))
        return found

    def chain(self, specs: Iterable[JobSpec]) -> list[Job]:
        """Enqueue jobs that run one after another, each once the one before has completed.

        One step stores them all. While a link is in the dead letter the rest waits for its replay; when it is
        cancelled, purged or falls out of retention, the rest is cancelled. ``ctx.after`` names the job
        before.
        """
        jobs = self._prepare_chain(list(specs))
        return self._handles(jobs, self._push(jobs, None))

    async def achain(self, specs: Iterable[JobSpec]) -> list[Job]:
        """Asynchronous twin of :meth:`chain`."""
        jobs = self._prepare_chain(list(specs))
        return self._handles(jobs, await self._astore().push(jobs))

    def batch(self, specs: Iterable[JobSpec], *, then: JobSpec, when: str = "ended") -> list[Job]:
        """Enqueue up to 10,000 jobs and one that runs after them, all in one step; it is the last returned.

        Args:
            then: Runs once all have ended in any way, or with ``when="success"`` once all have completed,
                with ``"failure"`` once all have ended and one of them is dead
                (dead ones are waited for until they are replayed; a cancelled one cancels it).
        """
        jobs = self._prepare_batch(list(specs), then, when)
        return self._handles(jobs, self._push(jobs, None))

    async def abatch(self, specs: Iterable[JobSpec], *, then: JobSpec, when: str = "ended") -> list[Job]:
        """Asynchronous twin of :meth:`batch`."""
        jobs = self._prepare_batch(list(specs), then, when)
        return self._handles(jobs, await self._astore().push(jobs))

    def _prepare_chain(self, specs: list[JobSpec]) -> list[NewJob]:
        self.needs("flows")
        jobs = self.prepare(check_flow(specs))
        for before, job in pairwise(jobs):
            job.record.flow = {"after": [before.record.id], "when": "success"}
        return jobs

    def _prepare_batch(self, specs: list[JobSpec], then: JobSpec, when: str) -> list[NewJob]:
        self.needs("flows")
        jobs = self.prepare(check_flow([*specs, then]))
        jobs[-1].record.flow = {"after": [j.record.id for j in jobs[:-1]], "when": check_when(when)}
        return jobs

    def spec(self, type: str, data: Any, options: Mapping[str, Any]) -> JobSpec:
        """Return what :meth:`enqueue` is asked for as a :class:`JobSpec`, refusing unknown options."""
        try:
            return JobSpec(type=type, data=data, **options)
        except TypeError:
            allowed = [f for f in JobSpec.__slots__ if f not in ("type", "data")]
            wrong = next((o for o in options if o not in allowed), None)
            if wrong is None:
                raise
            raise ConfigurationError("option", wrong, allowed) from None

    def _stamped(self, spec: JobSpec) -> JobSpec:
        found: dict[str, str] = {}
        for stamp in self._stamps:
            found.update(stamp())
        return replace(spec, headers={**found, **(spec.headers or {})})

    def prepare(self, specs: Sequence[JobSpec]) -> list[NewJob]:
        """Check ``specs`` and return them as jobs ready to be stored."""
        if self._stamps:
            specs = [self._stamped(spec) for spec in specs]
        for spec in specs:
            self._check_backend(spec)
        now, bits = self.clock.time(), self.random.getrandbits
        ids = new_ids(len(specs), bits)
        return [
            self._recorder.one(spec, self._kind(spec.type), check_job_id(spec.id) if spec.id else ids[i], now)
            for i, spec in enumerate(specs)
        ]

    def _check_backend(self, spec: JobSpec) -> None:
        """Refuse what the backend would ignore."""
        if spec.after:
            self.needs("flows")
        if spec.priority is not None:
            self.needs("priorities")
        if spec.unique_key is not None:
            self.needs("unique")
        if spec.fairness_key is not None:
            self.needs("fairness")
        if spec.tags:
            self.needs("search")

    def _prepare_many(
        self, type: str | Iterable[JobSpec], data: Iterable[Any] | None, options: Mapping[str, Any]
    ) -> list[NewJob]:
        if not isinstance(type, str):
            specs = list(type)
            if data is not None or options or not all(isinstance(s, JobSpec) for s in specs):
                raise ConfigurationError(
                    "type", type, "a job type with a list of data, or a list of JobSpec alone"
                )
            return self.prepare(specs) if specs else []
        if data is None or isinstance(data, (str, bytes, Mapping)):
            raise ConfigurationError("data", data, "a list with the data of each job")
        items = list(data)
        if not items:
            return []
        kind, spec = self._kind(type), self.spec(type, None, options)
        if self._stamps:
            spec = self._stamped(spec)
        self._check_backend(spec)
        fields, delay_s, deadline_s = self._recorder.template(spec, kind, self.clock.time())
        encode, shape = self.codec.encode, kind.shape
        return [
            NewJob(JobRecord(id=i, payload=encode(item, shape), **fields), delay_s, deadline_s)
            for i, item in zip(new_ids(len(items), self.random.getrandbits), items, strict=True)
        ]

    def _push(self, jobs: list[NewJob], session: Any, using: Any = None) -> list[str]:
        if session is None and using is None:
            return self._store().push(jobs)
        if using is not None:
            return outbox.write_django(using, jobs, self.namespace, self.clock.time())
        if isinstance(self._backend, TransactionalBackend):
            return self._backend.push_in(session, jobs)
        return outbox.write(session, jobs, self.namespace, self.clock.time())

    async def _apush(self, jobs: list[NewJob], session: Any) -> list[str]:
        if session is None:
            return await self._astore().push(jobs)
        if isinstance(self._backend, TransactionalBackend):
            return await self._backend.apush_in(session, jobs)
        return await outbox.awrite(session, jobs, self.namespace, self.clock.time())

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

    # -- working -----------------------------------------------------------------------------------

    def engine(self) -> Engine:
        """Return what a worker is handed of this manager."""
        return Engine(
            types=self.types,
            codec=self.codec,
            hooks=self.hooks,
            clock=self.clock,
            random=self.random,
            options=self.options,
            middlewares=self.middlewares,
            upcasters=self.upcasters,
            schedules=self.schedules,
            follow=self._follow,
            process_setup=self.process_setup,
            startups=self.startups,
            shutdowns=self.shutdowns,
        )

    def _follow(self, type: str, data: Any, options: Mapping[str, Any]) -> NewJob:
        self.needs("then")
        return self.prepare([self.spec(type, data, options)])[0]

    def worker(
        self,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        *,
        lease: Duration = 15.0,
        grace: Duration = 30.0,
        name: str | None = None,
        max_jobs: int | None = None,
        max_memory_mb: float | None = None,
        max_age: Duration | None = None,
    ) -> Worker:
        """Build a worker; nothing starts before it runs.

        Args:
            queues: Queues it serves; all by default.
            concurrency: Its slots in all, lifting the queues' own; by default each queue has its own.
            lease: A job whose worker has died runs again this long after the last sign of life.
            grace: How long a graceful stop waits for running jobs before it hands them back.
            name: Shown in listings; made up when not given.
            max_jobs: Retire after so many jobs: claim no more, let those that run end, return from
                ``run()`` for whatever started it to start it anew. Nothing is handed back for it.
            max_memory_mb: Retire when the process, with those of its ``cpu=True`` jobs, is larger (MiB).
            max_age: Retire after this time, up to a tenth earlier by chance.
        """
        from .working.worker import Worker

        if isinstance(queues, str):
            raise ConfigurationError("queues", queues, f"a list of names, such as [{queues!r}]")
        names = [self._queue(q) for q in queues] if queues is not None else list(self.queues)
        chosen = [self.queues[name] for name in names]
        return Worker(
            self.engine(),
            self._backend,
            chosen,
            concurrency,
            lease_s=seconds(lease, name="lease"),
            grace_s=seconds(grace, name="grace", zero=True),
            name=name,
            life=WorkerLife(
                max_jobs=max_jobs,
                max_memory_mb=max_memory_mb,
                max_age_s=None if max_age is None else seconds(max_age, name="max_age"),
            ),
        )

    @overload
    def on(self, kind: str, fn: Callable[[JobEvent], object], /) -> Callable[[], None]: ...
    @overload
    def on(self, listener: Callable[[Any], object], /, *types: type[Any] | str) -> Callable[[], None]: ...
    def on(self, listener: Any, /, *types: Any) -> Callable[[], None]:
        """Call a listener with every event that happens in this process.

        Either ``on("failed", fn)``, one kind, or as every manager of the package has it: ``on(fn)`` for all,
        ``on(fn, JobEvent)`` for classes, ``on(fn, "failed", "stalled")`` for kinds.

        Returns:
            A function that ends the subscription.

        Raises:
            ConfigurationError: No such kind of event, or nothing that can be called.
        """
        if isinstance(listener, str):
            listener, types = (types[0] if len(types) == 1 else None), (listener,)
        if not callable(listener):
            raise ConfigurationError("listener", listener, "a function of one argument, the event")
        kinds = {t for t in types if isinstance(t, str)}
        classes = tuple(t for t in types if isinstance(t, type))
        for wrong in (t for t in types if t not in KINDS and t not in classes):
            raise ConfigurationError("kind", wrong, KINDS)

        def deliver(event: Any) -> None:
            if getattr(event, "kind", None) in kinds or isinstance(event, classes):
                listener(event)

        return self.hooks.subscribe(deliver if kinds else listener, *(() if kinds else classes))

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
