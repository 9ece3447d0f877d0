"""One namespace over several hash slots: ordinary Redis stores behind one face.

Every partition is a namespace of its own to the scripts, on one client for all. What is asked of whom is in
``plans.py``, where a job lives in ``routing.py``; here is the I/O.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, TypeVar

from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import BackendURL
from eventperf.queues.backends.redis.backend import AsyncRedisStore, RedisBackend, RedisStore
from eventperf.queues.backends.redis.client import COMMAND_TIMEOUT_S, build_client
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.job import JobInfo, JobState, NewJob, QueueStatus, WorkerInfo
from eventperf.queues.minutes import Interval
from eventperf.queues.protocols import (
    Change,
    Claimed,
    Found,
    JobQuery,
    Outcome,
    Renewed,
    StoreSettings,
    WorkerCard,
)

from .plans import Plan, Plans
from .routing import MAX_PARTITIONS, Routing

T = TypeVar("T")

_THREADS = 8  # as many as a client for threads has connections


class PartitionedBackend:
    """``QueueManager(url, partitions=N)``.

    Raises:
        ConfigurationError: Limits over whole queues or types: one place would have to count their jobs.
    """

    answer_s = COMMAND_TIMEOUT_S
    capabilities: frozenset[str] = (RedisBackend.capabilities - {"whole", "limits"}) | {"key_limits"}

    def __init__(self, url: BackendURL, settings: StoreSettings, count: int) -> None:
        if not 2 <= count <= MAX_PARTITIONS:
            raise ConfigurationError("partitions", count, f"from 1 to {MAX_PARTITIONS}")
        for limit in settings.options.limits:
            if not limit.per_key:
                allowed = (
                    "limits with per_key=True where there are partitions: to count a whole queue or type, "
                    "all of its jobs would have to be in one. Keep these in a QueueManager of their own"
                )
                raise ConfigurationError("limits", limit, allowed)
        self._one = RedisBackend(url, settings)  # which knows what the URL may be
        self._url, self._settings, self._count = url, settings, count
        self.name: str = f"Redis in {count} partitions"
        self.routing: Routing = Routing(settings.namespace, count, bool(settings.options.limits))
        self._mu = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._plans = Plans(self.routing, self._line)
        self._sync: PartitionedStore | None = None
        self._waiters: list[PartitionedStore] = []
        self._aio: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncPartitionedStore] = (
            weakref.WeakKeyDictionary()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._url, self._settings, self._count)

    def _here(self) -> None:
        if self._pid != os.getpid():
            self._open()

    def _line(self) -> tuple[Any, Any]:
        """Return a connection that can subscribe, and the client it belongs to."""
        client = build_client(self._url, waits=True)
        return client.pubsub(), client

    def _settings_of(self) -> list[StoreSettings]:
        spaces = self.routing.spaces()
        return [replace(self._settings, namespace=space) for space in (*spaces, self._settings.namespace)]

    def place(self, jobs: Sequence[NewJob], /, *, together: bool = False, beside: str | None = None) -> None:
        self.routing.place(jobs, together=together, beside=beside)

    def sync(self) -> PartitionedStore:
        with self._mu:
            self._here()
            if self._sync is None:
                self._sync = self._threads(build_client(self._url))
            return self._sync

    def _threads(self, client: Any) -> PartitionedStore:
        stores = [RedisStore(client, settings, self._url) for settings in self._settings_of()]
        return PartitionedStore(stores, self._plans)

    def waiter(self, card: WorkerCard, /) -> PartitionedStore:
        with self._mu:
            self._here()
            store = self._threads(build_client(self._url, waits=True))
            store.adopt(card)
            store.on_close = lambda: self._waiters.remove(store) if store in self._waiters else None
            self._waiters.append(store)
            return store

    def aio(self) -> AsyncPartitionedStore:
        loop = asyncio.get_running_loop()
        with self._mu:
            self._here()
            if loop not in self._aio:
                client = build_client(self._url, asynchronous=True)
                stores = [AsyncRedisStore(client, settings, self._url) for settings in self._settings_of()]
                store = self._aio[loop] = AsyncPartitionedStore(stores, self._plans)
                at = weakref.ref(loop)  # a loop that its own entry held would never leave the table
                store.on_close = lambda: self._aio.pop(at(), None)  # type: ignore[arg-type]
            return self._aio[loop]

    def close(self) -> None:
        with self._mu:
            stores = [store for store in (self._sync, *self._waiters) if store is not None]
            self._sync, self._waiters = None, []
        for store in stores:
            store.close()


def _check(made: str, plans: Plans) -> None:
    """Refuse a namespace that was made with another number of partitions."""
    if made != str(plans.routing.count):
        where = plans.routing.namespace
        allowed = (
            f"{made}, as namespace {where!r} was made with: jobs stay where they are. For another number "
            f"take a new namespace, and let workers with partitions={made} empty the old one"
        )
        raise ConfigurationError("partitions", plans.routing.count, allowed)


class _Face:
    """What both faces have: the partitions' stores, and that of the namespace, which holds their number."""

    def __init__(self, stores: Sequence[Any], plans: Plans) -> None:
        *self._stores, self._root = stores
        for store in self._stores[1:]:
            store.looked = True
        self._plans = plans
        self._is_known = False
        self.on_close: Callable[[], object] = lambda: None


class PartitionedStore(_Face):
    """The face for threads."""

    def __init__(self, stores: Sequence[RedisStore], plans: Plans) -> None:
        super().__init__(stores, plans)
        self._pool: ThreadPoolExecutor | None = None
        self._late: dict[int, Future[Any]] = {}
        self._patience_s = 0.0

    def adopt(self, card: WorkerCard) -> None:
        """Be the face of one worker's thread: it asks all it must ask at the same time."""
        for store in self._stores:
            store.adopt(card)
        self._plans.desk(card)
        self._patience_s = max(1.0, card.lease_s / 4)
        self._is_known = True  # to the face that enters

    def _run(self, plan: Plan[T], *, at_once: bool = False) -> T:
        if not self._is_known:
            _check(self._root.declare(self._plans.routing.count), self._plans)
            self._is_known = True
        answers: Any = None
        while True:
            try:
                asks = plan.send(answers)
            except StopIteration as end:
                found: T = end.value
                return found
            answers = self._together(asks) if at_once else [self._ask(n, call) for n, call in asks]

    def _ask(self, n: int, call: Any) -> Any:
        try:
            return call(self._stores[n])
        except StoreUnavailable as error:
            return error

    def _together(self, asks: Sequence[tuple[int, Any]]) -> list[Any]:
        """Ask all at once; one that hangs holds up no other, and is left alone until it has answered."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="eventperf-partitions")
        self._late = {n: future for n, future in self._late.items() if not future.done()}
        sent = {n: self._pool.submit(self._ask, n, call) for n, call in asks if n not in self._late}
        wait(sent.values(), timeout=self._patience_s)
        self._late |= {n: future for n, future in sent.items() if not future.done()}
        silent = StoreUnavailable(f"it has not answered for {self._patience_s:g} s")
        return [silent if n in self._late else sent[n].result() for n, _ in asks]

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        return self._run(self._plans.push(jobs)) if jobs else []

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        return self._run(self._plans.fire(name, slot, job, late))

    def time(self) -> float:
        return self._run(self._plans.time())

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return self._run(self._plans.fetch(ids)) if ids else []

    def counts(self) -> list[QueueStatus]:
        return self._run(self._plans.counts())

    def load(self) -> tuple[int, int, float]:
        return self._run(self._plans.load())

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        return self._run(self._plans.listing(queue, state, offset, limit))

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        return self._run(self._plans.cancel(ids)) if ids else []

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        return self._run(self._plans.replay(queue, ids, limit)) if ids is None or ids else 0

    def purge(self, queue: str, state: JobState, /) -> int:
        return self._run(self._plans.purge(queue, state))

    def set_paused(self, queue: str, paused: bool, /) -> None:
        self._run(self._plans.set_paused(queue, paused))

    def find(self, query: JobQuery, /) -> Found:
        return self._run(self._plans.find(query))

    def update(self, job_id: str, change: Change, /) -> JobState | None:
        return self._run(self._plans.update(job_id, change))

    def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        return self._run(self._plans.children(job_id, limit))

    def delete(self, queue: str, ids: Sequence[str], /) -> int:
        return self._run(self._plans.delete(queue, ids))

    def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        return self._run(self._plans.minutes(span_s))

    def roster(self) -> list[WorkerInfo]:
        return self._run(self._plans.roster())

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        desk = self._plans.desk(card)
        desk.listen()
        desk.hears()
        self._run(self._plans.enter(card, held))

    def leave(self, worker: str, /) -> None:
        self._run(self._plans.leave(worker))

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        return self._run(self._plans.claim(worker, room, total, exact=True))

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        return self._run(self._plans.finish(outcomes)) if outcomes else []

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        return self._run(self._plans.renew(worker, held), at_once=self._patience_s > 0)

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        store: RedisStore = self._stores[self._plans.routing.of(job_id)]
        return store.note(job_id, token, progress=progress, step=step)

    def steps(self, job_id: str, /) -> frozenset[str]:
        store: RedisStore = self._stores[self._plans.routing.of(job_id)]
        return store.steps(job_id)

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        return self._hear(worker, timeout_s, for_work=True)

    def attend(self, worker: str, timeout_s: float, /) -> bool | str:
        return self._hear(worker, timeout_s, for_work=False)

    def _hear(self, worker: str, timeout_s: float, *, for_work: bool) -> bool | str:
        desk = self._plans.desks[worker]
        desk.listen()
        return desk.wait(timeout_s, for_work=for_work)

    def close(self) -> None:
        self.on_close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        self._root.close()  # whose client is that of all


class AsyncPartitionedStore(_Face):
    """The face for one event loop."""

    async def _run(self, plan: Plan[T]) -> T:
        if not self._is_known:
            _check(await self._root.declare(self._plans.routing.count), self._plans)
            self._is_known = True
        answers: Any = None
        while True:
            try:
                asks = plan.send(answers)
            except StopIteration as end:
                found: T = end.value
                return found
            if len(asks) == 1:
                answers = [await self._ask(*asks[0])]
            else:
                answers = await asyncio.gather(*(self._ask(n, call) for n, call in asks))

    async def _ask(self, n: int, call: Any) -> Any:
        try:
            return await call(self._stores[n])
        except StoreUnavailable as error:
            return error

    async def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        return await self._run(self._plans.push(jobs)) if jobs else []

    async def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        return await self._run(self._plans.fire(name, slot, job, late))

    async def time(self) -> float:
        return await self._run(self._plans.time())

    async def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return await self._run(self._plans.fetch(ids)) if ids else []

    async def ended(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return await self._run(self._plans.ended(ids)) if ids else []

    async def counts(self) -> list[QueueStatus]:
        return await self._run(self._plans.counts())

    async def load(self) -> tuple[int, int, float]:
        return await self._run(self._plans.load())

    async def listing(
        self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100
    ) -> list[JobInfo]:
        return await self._run(self._plans.listing(queue, state, offset, limit))

    async def cancel(self, ids: Sequence[str], /) -> list[bool]:
        return await self._run(self._plans.cancel(ids)) if ids else []

    async def replay(
        self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None
    ) -> int:
        return await self._run(self._plans.replay(queue, ids, limit)) if ids is None or ids else 0

    async def purge(self, queue: str, state: JobState, /) -> int:
        return await self._run(self._plans.purge(queue, state))

    async def set_paused(self, queue: str, paused: bool, /) -> None:
        await self._run(self._plans.set_paused(queue, paused))

    async def find(self, query: JobQuery, /) -> Found:
        return await self._run(self._plans.find(query))

    async def update(self, job_id: str, change: Change, /) -> JobState | None:
        return await self._run(self._plans.update(job_id, change))

    async def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        return await self._run(self._plans.children(job_id, limit))

    async def delete(self, queue: str, ids: Sequence[str], /) -> int:
        return await self._run(self._plans.delete(queue, ids))

    async def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        return await self._run(self._plans.minutes(span_s))

    async def roster(self) -> list[WorkerInfo]:
        return await self._run(self._plans.roster())

    async def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        desk = self._plans.desk(card)
        desk.listen()
        await asyncio.to_thread(desk.hears)
        await self._run(self._plans.enter(card, held))

    async def leave(self, worker: str, /) -> None:
        await self._run(self._plans.leave(worker))

    async def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        return await self._run(self._plans.claim(worker, room, total, exact=False))

    def doubt(self, worker: str, /) -> None:
        """Let the next claim look everywhere."""
        self._plans.desks[worker].hints.hear()

    async def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        return await self._run(self._plans.finish(outcomes)) if outcomes else []

    async def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        return await self._run(self._plans.renew(worker, held))

    async def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        store: AsyncRedisStore = self._stores[self._plans.routing.of(job_id)]
        return await store.note(job_id, token, progress=progress, step=step)

    async def steps(self, job_id: str, /) -> frozenset[str]:
        store: AsyncRedisStore = self._stores[self._plans.routing.of(job_id)]
        return await store.steps(job_id)

    async def nudge(self, worker: str, /) -> None:
        self._plans.desks[worker].nudge()

    async def close(self) -> None:
        self.on_close()
        for store in (*self._stores, self._root):
            await store.close()
