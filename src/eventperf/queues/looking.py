"""Finding jobs, changing those that wait, and what the queues did: what consoles are built on."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from eventperf._core.clock import Clock
from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError, EventPerfError

from .checks import check_int, check_list, check_name, check_span, check_text, has_half
from .codec import Codec
from .errors import JobNotFound, JobNotWaiting, UnknownQueue
from .job import JobInfo, JobPage, JobState, WorkerInfo
from .jobtype import JobType
from .minutes import KEPT_MINUTES, MINUTE_S, Metrics, stepped
from .options import MAX_PRIORITY, QueueConfig
from .producing.spec import JobSpec, delay_of
from .protocols import AsyncJobStore, Backend, Change, Found, JobQuery, JobStore

MAX_PAGE: Final = 1_000
"""Jobs of one page at most."""

_STATES: Final = (
    JobState.ACTIVE, JobState.WAITING, JobState.DELAYED, JobState.FAILED, JobState.COMPLETED,
    JobState.CANCELLED,
)  # fmt: skip


class Looking:
    """Looking jobs up and changing them before they run."""

    queues: Mapping[str, QueueConfig]
    types: Mapping[str, JobType]
    codec: Codec
    clock: Clock
    _backend: Backend

    def needs(self, capability: str) -> None:
        """Raise :class:`Unsupported` unless the backend declares ``capability``."""
        raise NotImplementedError

    def _store(self) -> JobStore:
        return self._backend.sync()

    def _astore(self) -> AsyncJobStore:
        return self._backend.aio()

    def _queue(self, name: str, argument: str = "queue") -> str:
        if not isinstance(name, str) or name not in self.queues:
            raise UnknownQueue(argument, name, self.queues)
        return name

    def _chosen(self, queues: Sequence[str] | None) -> list[str]:
        """Return the names of ``queues``, each once; all when it is not given."""
        if queues is None:
            return list(self.queues)
        if isinstance(queues, str):
            raise ConfigurationError("queues", queues, f"a list of names, such as [{queues!r}]")
        names = check_list(queues, argument="queues", of="names")
        return list(dict.fromkeys(self._queue(name, "queues") for name in names))

    # -- finding -----------------------------------------------------------------------------------

    def jobs(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        type: str | None = None,
        tag: str | None = None,
        text: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Return jobs that fit all that is asked for, a page at a time.

        Running jobs come first, then those that wait (next to run first), delayed ones by their time, dead,
        completed and cancelled ones (newest first, as many as are kept listed). With ``tag`` the newest job
        comes first, whatever its state. A page costs the same however many jobs there are: one call looks at
        2,000 jobs at most, so that a rare ``type`` or ``text`` may need several.

        Args:
            text: Part of the id, the error or the encoded payload.
            limit: Jobs a page, at most 1000.
            cursor: That of the page before.

        Raises:
            ConfigurationError: A filter that cannot be, or a cursor of something else.
            Unsupported: The backend cannot search.
        """
        query = self._query(state, queue, type, tag, text, limit, cursor)
        store: Any = self._store()
        with _judged(cursor):
            return _page(store.find(query), query, self._backend.name)

    async def ajobs(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        type: str | None = None,
        tag: str | None = None,
        text: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Asynchronous twin of :meth:`jobs`."""
        query = self._query(state, queue, type, tag, text, limit, cursor)
        store: Any = self._astore()
        with _judged(cursor):
            return _page(await store.find(query), query, self._backend.name)

    def _query(
        self,
        state: JobState | str | None,
        queue: str | None,
        type: str | None,
        tag: str | None,
        text: str | None,
        limit: int,
        cursor: str | None,
    ) -> JobQuery:
        self.needs("search")
        if state is not None and (not isinstance(state, str) or state not in _STATES):
            raise ConfigurationError("state", state, [one.value for one in _STATES])
        if text is not None and (not isinstance(text, str) or not 0 < len(text) <= 200):
            raise ConfigurationError("text", text, "1 to 200 characters")
        if text is not None and (has_half(text) or "\0" in text):
            raise ConfigurationError("text", text, "text that a job can contain")
        query = JobQuery(
            states=_STATES if state is None else (JobState(state),),
            queues=tuple(self.queues) if queue is None else (self._queue(queue),),
            type=None if type is None else check_name(type, argument="type"),
            tag=None if tag is None else check_name(tag, argument="tag"),
            text=text,
            limit=check_int(limit, argument="limit", low=1, high=MAX_PAGE),
        )
        if cursor is None:
            return query
        return replace(query, after=_read(cursor, query, self._backend.name))

    # -- changing ----------------------------------------------------------------------------------

    def update(
        self,
        id: str,
        *,
        delay: Duration | None = None,
        at: datetime | float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        data: Any = ...,
    ) -> None:
        """Change a job that waits or is delayed, all at once or not at all.

        Args:
            delay: From now; 0 lets it run at once. ``at`` instead names the time.
            data: The new payload, checked as at enqueue; where its type is not declared it is only encoded.

        Raises:
            JobNotFound: No record of it.
            JobNotWaiting: It runs or has ended; nothing has changed.
            ConfigurationError: Nothing to change, or what cannot be.
            Unsupported: The backend cannot change jobs.
        """
        check_text(id, "id")
        change = self._change(delay, at, priority, queue, data is not ...)
        store: Any = self._store()
        if data is not ...:
            change = self._with_data(change, store.fetch([id])[0], id, data)
        _changed(id, store.update(id, change))

    async def aupdate(
        self,
        id: str,
        *,
        delay: Duration | None = None,
        at: datetime | float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        data: Any = ...,
    ) -> None:
        """Asynchronous twin of :meth:`update`."""
        check_text(id, "id")
        change = self._change(delay, at, priority, queue, data is not ...)
        store: Any = self._astore()
        if data is not ...:
            change = self._with_data(change, (await store.fetch([id]))[0], id, data)
        _changed(id, await store.update(id, change))

    def _change(
        self,
        delay: Duration | None,
        at: datetime | float | None,
        priority: int | None,
        queue: str | None,
        has_data: bool,
    ) -> Change:
        self.needs("update")
        if priority is not None:
            check_int(priority, argument="priority", low=0, high=MAX_PRIORITY)
        timed = delay is not None or at is not None
        if not timed and priority is None and queue is None and not has_data:
            raise ConfigurationError("update()", "nothing", "delay, at, priority, queue or data")
        return Change(
            delay_s=delay_of(JobSpec(type="update", delay=delay, at=at), self.clock.time())
            if timed
            else None,
            priority=priority,
            queue=None if queue is None else self._queue(queue),
        )

    def _with_data(self, change: Change, info: JobInfo | None, id: str, data: Any) -> Change:
        if info is None:
            raise JobNotFound(id)
        kind = self.types.get(info.type)
        if kind is None:  # nobody here knows its shape: it is of the version that it was
            return replace(change, payload=self.codec.encode(data))
        return replace(change, payload=self.codec.encode(data, kind.shape), version=kind.version)

    # -- who follows whom --------------------------------------------------------------------------

    def children(self, id: str, *, limit: int = 50) -> list[JobInfo]:
        """Return jobs that wait or waited for job ``id``, up to ``limit``.

        ``job_info(id).after`` is the way back. They are known for as long as that job is kept; those
        that are kept no longer themselves are left out.

        Raises:
            Unsupported: The backend does not remember them.
        """
        self.needs("children")
        store: Any = self._store()
        found: list[JobInfo] = store.children(*_of(id, limit))
        return found

    async def achildren(self, id: str, *, limit: int = 50) -> list[JobInfo]:
        """Asynchronous twin of :meth:`children`."""
        self.needs("children")
        store: Any = self._astore()
        found: list[JobInfo] = await store.children(*_of(id, limit))
        return found

    # -- who runs them -----------------------------------------------------------------------------

    def workers(self) -> list[WorkerInfo]:
        """Return the live workers: what they serve, how much they run, where and which version they are.

        Raises:
            Unsupported: The backend does not list them.
        """
        self.needs("roster")
        store: Any = self._store()
        found: list[WorkerInfo] = store.roster()
        return found

    async def aworkers(self) -> list[WorkerInfo]:
        """Asynchronous twin of :meth:`workers`."""
        self.needs("roster")
        store: Any = self._astore()
        found: list[WorkerInfo] = await store.roster()
        return found

    # -- what they did -----------------------------------------------------------------------------

    def metrics(self, since: Duration = "1h", step: Duration = "1m") -> Metrics:
        """Return throughput, failures, waits and run times by queue and type, in steps of whole minutes.

        The store keeps a day of minutes. Percentiles are at most 9 % beside the true ones.

        Args:
            since: How far back, at most a day.
            step: Length of an interval, rounded up to whole minutes.

        Raises:
            Unsupported: The backend keeps no minutes.
        """
        since_s, step_s = self._span(since, step)
        store: Any = self._store()
        now, minutes = store.minutes(since_s)
        return stepped(minutes, now - since_s, now, step_s)

    async def ametrics(self, since: Duration = "1h", step: Duration = "1m") -> Metrics:
        """Asynchronous twin of :meth:`metrics`."""
        since_s, step_s = self._span(since, step)
        store: Any = self._astore()
        now, minutes = await store.minutes(since_s)
        return stepped(minutes, now - since_s, now, step_s)

    def _span(self, since: Duration, step: Duration) -> tuple[float, float]:
        self.needs("metrics")
        since_s, step_s = check_span(since, argument="since"), check_span(step, argument="step")
        if since_s > KEPT_MINUTES * MINUTE_S:
            raise ConfigurationError("since", since, "at most a day")
        return since_s, max(1.0, -(-step_s // MINUTE_S)) * MINUTE_S


def _of(id: str, limit: int) -> tuple[str, int]:
    return check_text(id, "id"), check_int(limit, argument="limit", low=1, high=MAX_PAGE)


def _page(found: Found, query: JobQuery, backend: str) -> JobPage:
    if found.after is None:
        return JobPage(jobs=found.jobs)
    text = json.dumps(list(found.after), separators=(",", ":")).encode()
    packed = base64.urlsafe_b64encode(_mark(query, backend, text) + text)
    return JobPage(jobs=found.jobs, cursor=packed.decode().rstrip("="))


def _read(cursor: object, query: JobQuery, backend: str) -> list[Any]:
    text = cursor if isinstance(cursor, str) else ""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        data = b""
    if len(data) <= _MARK or data[:_MARK] != _mark(query, backend, data[_MARK:]):
        raise ConfigurationError("cursor", cursor, _OF_BEFORE)
    with _judged(text):
        found = json.loads(data[_MARK:])
        if not isinstance(found, list):
            raise TypeError(f"{type(found).__name__} is no place")
    return list(found)


_OF_BEFORE: Final = "the cursor of the page before, with the same filters"


@contextmanager
def _judged(cursor: str | None) -> Iterator[None]:
    """Take what fails on the way to a cursor's place for its fault: anybody can make one with its mark."""
    try:
        yield
    except EventPerfError:
        raise
    except Exception as error:
        if cursor is None:
            raise
        raise ConfigurationError("cursor", cursor, _OF_BEFORE) from error


_MARK: Final = 6


def _mark(query: JobQuery, backend: str, text: bytes) -> bytes:
    """Return what only a cursor of this search begins with."""
    asked = (backend, [s.value for s in query.states], *query.queues, query.type, query.tag, query.text)
    return hashlib.blake2b(repr(asked).encode() + text, digest_size=_MARK).digest()


def _changed(id: str, found: JobState | None) -> None:
    if found is None:
        raise JobNotFound(id)
    if found not in (JobState.WAITING, JobState.DELAYED):
        raise JobNotWaiting(id, found.value)
