"""Enqueueing: the part of a manager that producers use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any, overload

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf._core.events import Hooks

from .checks import check_list, check_name, check_span
from .events import JobEvent
from .handle import Job
from .job import JobInfo, JobRecord, NewJob
from .jobtype import JobType
from .operating import Operations
from .options import EnqueueOptions
from .producing import outbox
from .producing.spec import JobSpec, Recorder, check_flow, check_when, new_ids
from .protocols import PlacingBackend, TransactionalBackend
from .schedules import Schedule, parse_when

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on

_PUSH_BATCH = 1000


class Enqueuing(Operations):
    """From what a producer asks for to jobs in the store: one, many, chains, batches."""

    namespace: str
    hooks: Hooks
    random: Random
    schedules: dict[str, Schedule]
    _recorder: Recorder
    _stamps: list[Callable[[], Mapping[str, str]]]
    _placing: PlacingBackend | None

    def _kind(self, name: str) -> JobType:
        raise NotImplementedError

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
                all ended and one of them dead, else it is cancelled; ``id``, which makes repetition
                harmless (the store is asked once more whether that job is of this type).

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
        jobs = self._prepare_chain(check_list(specs, argument="specs", of="JobSpec"))
        return self._handles(jobs, self._push(jobs, None))

    async def achain(self, specs: Iterable[JobSpec]) -> list[Job]:
        """Asynchronous twin of :meth:`chain`."""
        jobs = self._prepare_chain(check_list(specs, argument="specs", of="JobSpec"))
        return self._handles(jobs, await self._apush(jobs, None))

    def batch(self, specs: Iterable[JobSpec], *, then: JobSpec, when: str = "ended") -> list[Job]:
        """Enqueue up to 10,000 jobs and one that runs after them, all in one step; it is the last returned.

        Args:
            then: Runs once all have ended in any way, or with ``when="success"`` once all have completed,
                with ``"failure"`` once all have ended and one of them is dead
                (dead ones are waited for until they are replayed; a cancelled one cancels it).
        """
        jobs = self._prepare_batch(check_list(specs, argument="specs", of="JobSpec"), then, when)
        return self._handles(jobs, self._push(jobs, None))

    async def abatch(self, specs: Iterable[JobSpec], *, then: JobSpec, when: str = "ended") -> list[Job]:
        """Asynchronous twin of :meth:`batch`."""
        jobs = self._prepare_batch(check_list(specs, argument="specs", of="JobSpec"), then, when)
        return self._handles(jobs, await self._apush(jobs, None))

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
        catch_up_s = check_span(catch_up, argument="catch_up", zero=True)
        self.schedules[name] = Schedule(name=name, when=when_, catch_up_s=catch_up_s, make=make)

    def _prepare_chain(self, specs: list[JobSpec]) -> list[NewJob]:
        self.needs("flows")
        jobs = self._together(check_flow(specs))
        for before, job in pairwise(jobs):
            job.record.flow = {"after": [before.record.id], "when": "success"}
        return jobs

    def _prepare_batch(self, specs: list[JobSpec], then: JobSpec, when: str) -> list[NewJob]:
        self.needs("flows")
        when = check_when(when)
        if not isinstance(then, JobSpec):
            raise ConfigurationError("then", then, "a JobSpec")
        jobs = self._together(check_flow([*specs, then]))
        jobs[-1].record.flow = {"after": [j.record.id for j in jobs[:-1]], "when": when}
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
            made = stamp()
            if not isinstance(made, Mapping):
                name = getattr(stamp, "__qualname__", stamp)
                raise ConfigurationError("stamp", made, f"a mapping of headers, which {name} has to return")
            found.update(made)
        if not isinstance(spec.headers, (Mapping, type(None))):
            raise ConfigurationError("headers", spec.headers, "a mapping of text to text")
        return replace(spec, headers={**found, **(spec.headers or {})})

    def prepare(self, specs: Sequence[JobSpec]) -> list[NewJob]:
        """Check ``specs`` and return them as jobs ready to be stored."""
        return self._placed(self._recorded(specs))

    def _together(self, specs: Sequence[JobSpec]) -> list[NewJob]:
        return self._placed(self._recorded(specs), together=True)

    def _placed(self, jobs: list[NewJob], *, together: bool = False) -> list[NewJob]:
        if self._placing is not None:
            self._placing.place(jobs, together=together)
        return jobs

    def _recorded(self, specs: Sequence[JobSpec]) -> list[NewJob]:
        if self._stamps:
            specs = [self._stamped(spec) for spec in specs]
        for spec in specs:
            self._check_backend(spec)
        now, bits = self.clock.time(), self.random.getrandbits
        ids = new_ids(len(specs), bits)
        return [self._recorder.one(spec, self._kind(spec.type), ids[i], now) for i, spec in enumerate(specs)]

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
            either = "a job type with a list of data, or a list of JobSpec alone"
            if isinstance(type, (bytes, Mapping)) or not isinstance(type, Iterable):
                raise ConfigurationError("type", type, either)
            specs = list(type)
            if data is not None or options or not all(isinstance(s, JobSpec) for s in specs):
                raise ConfigurationError("type", type, either)
            return self.prepare(specs) if specs else []
        data = check_list(data, argument="data", of="the data of each job")
        if options.get("id") is not None:
            raise ConfigurationError("id", options["id"], "nothing here: JobSpec(id=...) names each job")
        items = data
        kind, spec = self._kind(type), self.spec(type, None, options)
        if self._stamps:
            spec = self._stamped(spec)
        self._check_backend(spec)
        fields, delay_s, deadline_s = self._recorder.template(spec, kind, self.clock.time())
        encode, shape = self.codec.encode, kind.shape
        return self._placed(
            [
                NewJob(JobRecord(id=i, payload=encode(item, shape), **fields), delay_s, deadline_s)
                for i, item in zip(new_ids(len(items), self.random.getrandbits), items, strict=True)
            ]
        )

    def _push(self, jobs: list[NewJob], session: Any, using: Any = None) -> list[str]:
        if session is None and using is None:
            store, named = self._store(), _named(jobs)
            ids = store.push(jobs)
            if named:
                _check_types(named, store.fetch(list(named)))
            return ids
        if using is not None:
            return outbox.write_django(using, jobs, self.namespace, self.clock.time())
        if isinstance(self._backend, TransactionalBackend):
            return self._backend.push_in(session, jobs)
        return outbox.write(session, jobs, self.namespace, self.clock.time())

    async def _apush(self, jobs: list[NewJob], session: Any) -> list[str]:
        if session is None:
            store, named = self._astore(), _named(jobs)
            ids = await store.push(jobs)
            if named:
                _check_types(named, await store.fetch(list(named)))
            return ids
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


def _named(jobs: Sequence[NewJob]) -> dict[str, str]:
    """Return the types of jobs by the ids that their callers gave."""
    return {new.record.id: new.record.type for new in jobs if new.named}


def _check_types(named: Mapping[str, str], found: Sequence[JobInfo | None]) -> None:
    for (job_id, type_), info in zip(named.items(), found, strict=True):
        if info is not None and info.type != type_:
            allowed = f"an id that no job of another type has: it is a {info.type!r}, and stays as it is"
            raise ConfigurationError("id", job_id, allowed)
