"""QueueManager: the object a host application holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar, overload

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf._core.events import Hooks
from eventperf._core.urls import BackendURL, Registry, parse_url

from .checks import check_hook, check_int, check_name, check_span
from .codec import Codec
from .engine import Engine, Setup
from .enqueuing import Enqueuing
from .errors import Unsupported
from .events import KINDS, JobEvent
from .handle import JobFunction
from .job import NewJob
from .jobtype import JobType, Middleware, WorkerHook
from .limits import Limit
from .options import (
    DEFAULT_QUEUES,
    EngineOptions,
    Order,
    QueueConfig,
    WorkerLife,
    queue_configs,
)
from .producing.spec import Recorder
from .producing.types import job_type, undeclared
from .protocols import Backend, PlacingBackend, StoreSettings
from .schedules import Schedule

if TYPE_CHECKING:
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


class QueueManager(Enqueuing):
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
        partitions: Hash slots that the namespace is spread over, for a Redis Cluster with more jobs than one
            master can take; the same everywhere, and for good. Order is kept in each of them.

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
        partitions: int = 1,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.queues: dict[str, QueueConfig] = queue_configs(queues)
        self.namespace: str = check_name(namespace, argument="namespace")
        self.options: EngineOptions = EngineOptions(
            order=order,
            aging=aging,
            max_crashes=max_crashes,
            unknown_grace_s=check_span(unknown_grace, argument="unknown_grace", zero=True),
            result_ttl_s=check_span(result_ttl, argument="result_ttl", zero=True),
            max_payload_bytes=max_payload_bytes,
            limits=limits,  # type: ignore[arg-type]  # which checks them and makes a tuple of them
            wait_replicas=wait_replicas,
            wait_timeout_s=check_span(wait_timeout, argument="wait_timeout"),
        )
        for limit in self.options.limits:
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
        self._backend = self._open(url, check_int(partitions, argument="partitions", low=1))
        self._placing = self._backend if isinstance(self._backend, PlacingBackend) else None
        if limits:
            has_keys = "key_limits" in self._backend.capabilities
            by_key = has_keys and all(limit.per_key for limit in self.options.limits)
            self.needs("key_limits" if by_key else "limits")
        if wait_replicas:
            self.needs("wait_replicas")
        if order == "weighted":
            self.needs("priorities")

    def needs(self, capability: str) -> None:
        """Raise :class:`Unsupported` unless the backend declares ``capability``."""
        if capability not in self._backend.capabilities:
            raise Unsupported(capability, self._backend.name)

    def _open(self, url: str | Backend, partitions: int) -> Backend:
        if not isinstance(url, str):
            if not hasattr(url, "sync") or not hasattr(url, "aio"):
                raise ConfigurationError("url", url, "a URL such as redis://host:6379/0, or a Backend")
            if partitions > 1:
                raise ConfigurationError("partitions", partitions, "1 with a Backend, which has its own")
            return url
        settings = StoreSettings(
            namespace=self.namespace, queues=self.queues, options=self.options, clock=self.clock
        )
        parsed: BackendURL = parse_url(url)
        factory = backends.resolve(parsed.scheme, given=str(parsed))
        if partitions > 1:
            if not parsed.scheme.startswith("redis"):
                raise ConfigurationError(
                    "partitions", partitions, f"1 with {parsed.scheme}: Redis alone has more"
                )
            from .backends.partitions.backend import PartitionedBackend

            return PartitionedBackend(parsed, settings, partitions)
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
        if check_name(name, argument="job type") not in self.types:
            self._declare(name, None, {"shape": shape, **options})

    def _declare(self, name: str, handler: Callable[..., Any] | None, options: dict[str, Any]) -> None:
        if options.get("queue") is not None:
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
        kind = self.types.get(name) if isinstance(name, str) else None
        return kind if kind is not None else undeclared(check_name(name, argument="type"), self.types)

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
        if not callable(fn):
            raise ConfigurationError("stamp", fn, "a function of no argument that returns headers")
        self._stamps.append(fn)
        return fn

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

    def _follow(self, type: str, data: Any, options: Mapping[str, Any], parent: str) -> NewJob:
        self.needs("then")
        jobs = self._recorded([self.spec(type, data, options)])
        if self._placing is not None:
            self._placing.place(jobs, beside=parent)
        (job,) = jobs
        if job.record.flow is None and "flows" in self._backend.capabilities:
            job.record.flow = {"after": [parent], "when": "ended"}  # it has: this only says whose it is
        return job

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
        version: str | None = None,
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
            version: Of your code, such as a tag or a commit, for :meth:`workers` to show.
        """
        from .working.worker import Worker

        chosen = [self.queues[name] for name in self._chosen(queues)]
        return Worker(
            self.engine(),
            self._backend,
            chosen,
            concurrency,
            lease_s=check_span(lease, argument="lease"),
            grace_s=check_span(grace, argument="grace", zero=True),
            name=name,
            life=WorkerLife(
                max_jobs=max_jobs,
                max_memory_mb=max_memory_mb,
                max_age_s=None if max_age is None else check_span(max_age, argument="max_age"),
            ),
            version=version,
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
