"""Jobs in Redis, Valkey or a Redis Cluster: every step is one Lua script on keys of one hash tag.

Connections: one for the threads of a process (more while several of them ask at the same time), one per
event loop, and one for each worker's thread that waits and renews; so a producer holds one, a worker two.
Longer than other files: the two faces have the same verbs, one below the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.urls import BackendURL, redact
from eventperf._redis.answers import Misread
from eventperf._redis.connect import close
from eventperf._redis.patience import Patience, within
from eventperf._redis.refusals import is_passing
from eventperf._redis.url import check
from eventperf.queues.errors import QueueError, StoreUnavailable
from eventperf.queues.job import JobInfo, JobState, NewJob, QueueStatus, WorkerInfo
from eventperf.queues.minutes import MINUTE_S, Interval
from eventperf.queues.protocols import (
    ENGINE,
    Change,
    Claimed,
    Found,
    JobQuery,
    Outcome,
    Renewed,
    StoreSettings,
    WorkerCard,
)

from . import wire as wire
from .client import COMMAND_TIMEOUT_S, WAIT_TIMEOUT_S, build_client, lost, warn_of_eviction
from .told import UNTOLD, Told

_PUSH_BATCH = 1000
_PURGE_BATCH = 1000
_MARGIN_S = 0.5
_GARBLED: tuple[type[Exception], ...] = (TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What redis-py stumbles over when it reads an answer."""


class RedisBackend:
    """The Redis engine behind a URL: ``redis://``, ``rediss://``, ``redis+cluster://h1:7000,h2:7001``,
    ``redis+sentinel://h1:26379,h2:26379/SERVICE``."""

    name = "Redis"
    answer_s = COMMAND_TIMEOUT_S
    capabilities: frozenset[str] = ENGINE | {
        "shared", "limits", "flows", "schedules", "wait_replicas", "attempts", "search", "metrics", "update",
        "roster", "children", "delete",
    }  # fmt: skip

    def __init__(self, url: BackendURL, settings: StoreSettings) -> None:
        require("redis", extra="queues", needed_by="the Redis queue backend")
        self._url = check(url)
        self._settings = settings
        self._mu = threading.Lock()
        self._pid = os.getpid()
        self._sync: RedisStore | None = None
        self._waiters: list[RedisStore] = []
        self._aio: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncRedisStore] = (
            weakref.WeakKeyDictionary()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as what it was made from."""
        return type(self), (self._url, self._settings)

    def _here(self) -> None:
        """Forget the parent's connections after a fork, without closing them."""
        if self._pid != os.getpid():
            self._pid, self._sync, self._waiters = os.getpid(), None, []
            self._aio = weakref.WeakKeyDictionary()

    def sync(self) -> RedisStore:
        with self._mu:
            self._here()
            if self._sync is None:
                self._sync = RedisStore(build_client(self._url), self._settings, self._url)
            return self._sync

    def waiter(self, card: WorkerCard, /) -> RedisStore:
        with self._mu:
            self._here()
            store = RedisStore(build_client(self._url, waits=True), self._settings, self._url, WAIT_TIMEOUT_S)
            store.adopt(card)
            store.on_close = lambda: self._waiters.remove(store) if store in self._waiters else None
            self._waiters.append(store)
            return store

    def aio(self) -> AsyncRedisStore:
        loop = asyncio.get_running_loop()
        with self._mu:
            self._here()
            if loop not in self._aio:
                client = build_client(self._url, asynchronous=True)
                store = self._aio[loop] = AsyncRedisStore(client, self._settings, self._url)
                at = weakref.ref(loop)  # a loop that its own entry held would never leave the table
                store.on_close = lambda: self._aio.pop(at(), None)  # type: ignore[arg-type]
            return self._aio[loop]

    def close(self) -> None:
        with self._mu:
            stores = [s for s in (self._sync, *self._waiters) if s is not None]
            self._sync, self._waiters = None, []
        for store in stores:
            store.close()


class _Shared:
    """What both faces know: settings, scripts, workers' cards and which errors mean what."""

    def __init__(self, client: Any, settings: StoreSettings, url: BackendURL) -> None:
        errors: Any = require("redis.exceptions", extra="queues", needed_by="the Redis queue backend")
        self._client = client
        self._settings = settings
        self._url = url
        self._prefix = wire.prefix(settings)
        self._cards: dict[str, WorkerCard] = {}
        self._spares: dict[str, float] = {}
        self._told: dict[str, Told] = {}
        self._quiet: dict[str, QueueStatus] = {}
        self.on_close: Callable[[], object] = lambda: None
        self.looked = False
        self._noscript: type[Exception] = errors.NoScriptError
        self._down: tuple[type[Exception], ...] = (
            errors.ConnectionError,
            errors.TimeoutError,
            errors.ClusterDownError,
            errors.RedisClusterException,
            errors.ReadOnlyError,
            OSError,
            asyncio.TimeoutError,
            Misread,
        )
        self._late: tuple[type[Exception], ...] = (
            errors.TimeoutError, TimeoutError, asyncio.TimeoutError, Misread
        )  # fmt: skip
        self._refused: tuple[type[Exception], ...] = (errors.RedisError, *self._down)
        self._unanswered: tuple[type[Exception], ...] = (*self._refused, *_GARBLED)

    def _error(self, error: Exception) -> QueueError:
        if isinstance(error, self._down) or is_passing(error):
            return lost(self._url, error)
        why = str(error)[:500]
        if "WRONGTYPE" in why:
            why += ". If the namespace is kept in partitions, say partitions= as its other processes do"
        return QueueError(f"Redis at {redact(self._url.text)} refused a command: {why}")

    def _was_cut(self, error: StoreUnavailable) -> bool:
        """Tell whether a connection broke: the next may do, where one more wait or refusal would not help."""
        cause = error.__cause__
        return isinstance(cause, Exception) and not isinstance(cause, self._late) and not is_passing(cause)

    def _wait_args(self) -> tuple[Any, ...]:
        o = self._settings.options
        return "WAIT", o.wait_replicas, int(o.wait_timeout_s * 1000)

    def _mark_args(self) -> tuple[Any, ...]:
        """A write: a push whose jobs were all known made none, and Valkey's WAIT answers at once then."""
        return "SET", f"{self._prefix}wt", "", "PX", 1000

    def _home(self) -> dict[str, Any]:
        """Say which node of a cluster a command without a key is for: the one that has all keys."""
        find = getattr(self._client, "get_node_from_key", None)
        return {} if find is None else {"target_nodes": find(self._prefix)}

    def _card(self, worker: str) -> WorkerCard:
        return self._cards[worker]

    def _known(self, worker: str = "") -> Told:
        """Return the settings of a worker, or without one the store's: gathered once."""
        told = self._told.get(worker)
        if told is None:
            card = self._cards[worker] if worker else None
            told = self._told[worker] = Told.of(self._settings, card)
        return told

    def _meet(self, card: WorkerCard) -> None:
        self._cards[card.id] = card
        self._spares[card.id] = time.monotonic() + card.spare_s
        self._told.pop(card.id, None)

    def _part(self, worker: str) -> None:
        self._cards.pop(worker, None)
        self._spares.pop(worker, None)
        self._told.pop(worker, None)

    def _claim_args(self, worker: str, told: Told, room: Mapping[str, int], total: int) -> list[Any]:
        spare_s = max(0.0, self._spares[worker] - time.monotonic())
        return wire.claim_args(
            self._settings, told, self._cards[worker], room, min(total, _PUSH_BATCH), spare_s
        )

    def _ttl(self) -> int:
        return int(min(self._settings.options.result_ttl_s, 60.0) * 1000)


_SHAS: dict[str, str] = {}


def _sha(name: str) -> str:
    sha = _SHAS.get(name)
    if sha is None:
        sha = _SHAS[name] = hashlib.sha1(wire.script(name).encode(), usedforsecurity=False).hexdigest()
    return sha


def _wake_keys(prefix: str, card: WorkerCard, group: str | None) -> list[str]:
    queues = [f"{prefix}k:{q}" for q in card.room_by_queue] if group is None else [f"{prefix}g:{group}"]
    return [f"{prefix}W:{card.id}", *queues, *(f"{prefix}K:{t}" for t in card.types)]


class RedisStore(_Shared):
    """The face for threads; calls of several threads take turns on one connection.

    Args:
        whole_s: How long a call may take as a whole, whatever the server sends meanwhile.
    """

    def __init__(
        self, client: Any, settings: StoreSettings, url: BackendURL, whole_s: float | None = None
    ) -> None:
        super().__init__(client, settings, url)
        self._whole_s = COMMAND_TIMEOUT_S if whole_s is None else whole_s

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Do within the time of one call what the server is asked here, and turn its errors into ours."""
        try:
            with within(self._whole_s):
                yield
        except self._refused as error:
            raise self._error(error) from error
        except _GARBLED as error:
            if isinstance(error, UnicodeError):  # of what was to be sent
                raise
            raise lost(self._url, Misread(f"an answer that no Redis gives: {error}")) from error

    def _run(self, name: str, args: Sequence[Any]) -> Any:
        with self._call():
            try:
                answer = self._client.execute_command("EVALSHA", _sha(name), 1, self._prefix, *args)
            except self._noscript:
                answer = self._client.execute_command("EVAL", wire.script(name), 1, self._prefix, *args)
            wire.check_answer(name, args, answer)
            return answer

    def _run_told(self, name: str, told: Told, args: Sequence[Any]) -> Any:
        reply = self._run(name, args)
        if reply == UNTOLD:
            self._run("learn", told.args)
            reply = self._run(name, args)
        return reply

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        args = wire.push_args(jobs)
        try:
            answer = self._run("push", args)
        except StoreUnavailable as error:  # of an idle connection that the server had closed
            if not self._was_cut(error):
                raise
            answer = self._run("push", args)  # ids make this harmless
        self._replicated()
        self._look_at_server()
        return wire.pushed(answer, jobs)

    def _replicated(self) -> None:
        o = self._settings.options
        if o.wait_replicas:
            with self._call():
                # In one pipeline, so on one connection: WAIT asks about the writes of its own.
                find = getattr(self._client, "get_redis_connection", None)
                node = self._client if find is None else find(self._home()["target_nodes"])
                pipe = node.pipeline(transaction=False)
                pipe.execute_command(*self._mark_args())
                pipe.execute_command(*self._wait_args())
                got = pipe.execute()[1]
            wire.check_replicated(got, o)

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        return bool(self._run("fire", wire.fire_args(name, slot, job, late)) == 1)

    def time(self) -> float:
        return wire.seconds_of(self._run("time", []))

    def declare(self, partitions: int, /) -> str:
        """Return how many partitions the namespace has: so many if it is new."""
        return str(self._run("declare", [partitions]).decode())

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return wire.infos(ids, self._run("fetch", ids)) if ids else []

    def counts(self) -> list[QueueStatus]:
        return wire.statuses(self._settings, self._run("counts", []), self._quiet)

    def load(self) -> tuple[int, int, float]:
        return wire.load(self._run("counts", []))

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        found = self._run("admin", ["list", queue, state.value, offset, limit])
        if state is JobState.COMPLETED:
            return wire.listed(found)
        return wire.briefly(self.fetch(wire.texts(found)))

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        return wire.cancelled(self._run("admin", ["cancel", self._ttl(), *ids]), ids) if ids else []

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        if ids is not None and not ids:
            return 0
        return int(self._run("admin", ["replay", queue, -1 if limit is None else limit, *(ids or ())]))

    def purge(self, queue: str, state: JobState, /) -> int:
        total, at = 0, 0
        while True:
            args = ["purge", queue, state.value, self._ttl(), _PURGE_BATCH, at]
            n, more, at = wire.purged(self._run("admin", args))
            total += n
            if not more:
                return total

    def find(self, query: JobQuery, /) -> Found:
        return wire.found(self._run("find", wire.find_args(query)))

    def update(self, job_id: str, change: Change, /) -> JobState | None:
        return wire.updated(self._run("update", wire.update_args(job_id, change)), change)

    def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        return wire.kin(self._run("children", [job_id, limit]))

    def delete(self, queue: str, ids: Sequence[str], /) -> int:
        parts = wire.portions(ids)
        return sum(int(self._run("delete", [queue, *part])) for part in parts)

    def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        now = self.time()
        return wire.measured(self._run("measured", [int((now - span_s) // MINUTE_S)]))

    def roster(self) -> list[WorkerInfo]:
        return wire.roster(self._run("roster", []))

    def set_paused(self, queue: str, paused: bool, /) -> None:
        self._run("admin", ["pause", queue, int(paused)])

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        self._meet(card)
        group = self._known(card.id).group
        self._run("enter", [*wire.card_args(card, group), *held])
        if group is not None:
            self._run("join", wire.join_args(card, group))

    def leave(self, worker: str, /) -> None:
        self._run("leave", [worker])
        self._part(worker)

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        told = self._known(worker)
        args = self._claim_args(worker, told, room, total)
        return wire.claimed(self._run_told("claim", told, args))

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        if not outcomes:
            return []
        told = self._known()
        args = wire.finish_args(self._settings, told, outcomes)
        return [x == 1 for x in self._run_told("finish", told, args)]

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        flat = [x for pair in held for x in pair]
        card, group = self._card(worker), self._known(worker).group
        reply = self._run("renew", [*wire.card_args(card, group), *flat])
        if group is not None and reply[2]:
            self._run("join", wire.join_args(card, group))
        return wire.renewed(reply)

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        return bool(self._run("note", [job_id, token, "" if progress is None else progress, step or ""]) == 1)

    def steps(self, job_id: str, /) -> frozenset[str]:
        return frozenset(wire.texts(self._run("steps", [job_id])))

    def adopt(self, card: WorkerCard) -> None:
        """Know a worker that introduced itself on another connection."""
        self._meet(card)

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        return self._pop(_wake_keys(self._prefix, self._card(worker), self._known(worker).group), timeout_s)

    def attend(self, worker: str, timeout_s: float, /) -> bool | str:
        return self._pop([f"{self._prefix}W:{worker}"], timeout_s)

    def _pop(self, keys: list[str], timeout_s: float) -> bool | str:
        with self._call():
            found = self._client.blpop(keys, timeout=max(0.01, min(timeout_s, COMMAND_TIMEOUT_S)))
        return False if found is None else "message" if found[1] == b"c" else True

    def _look_at_server(self) -> None:
        if not self.looked:
            self.looked = True
            try:
                with within(self._whole_s):
                    warn_of_eviction(self._client.info("memory"))
            except self._unanswered:  # not allowed to ask, or down: the next command will tell
                return

    def close(self) -> None:
        self.on_close()
        close(self._client)


class AsyncRedisStore(_Shared):
    """The face for one event loop; pushes of one turn of the loop travel together."""

    def __init__(self, client: Any, settings: StoreSettings, url: BackendURL) -> None:
        super().__init__(client, settings, url)
        self._waiting: list[tuple[Sequence[NewJob], asyncio.Future[list[str]]]] = []
        self._pusher: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """Do within the time of one call what the server is asked here, and turn its errors into ours."""
        try:
            async with Patience(COMMAND_TIMEOUT_S):
                yield
        except self._refused as error:
            raise self._error(error) from error
        except _GARBLED as error:
            if isinstance(error, UnicodeError):  # of what was to be sent
                raise
            raise lost(self._url, Misread(f"an answer that no Redis gives: {error}")) from error

    async def _run(self, name: str, args: Sequence[Any]) -> Any:
        async with self._call():
            run = self._client.execute_command
            try:
                answer = await run("EVALSHA", _sha(name), 1, self._prefix, *args)
            except self._noscript:
                answer = await run("EVAL", wire.script(name), 1, self._prefix, *args)
            wire.check_answer(name, args, answer)
            return answer

    async def _run_told(self, name: str, told: Told, args: Sequence[Any]) -> Any:
        reply = await self._run(name, args)
        if reply == UNTOLD:
            await self._run("learn", told.args)
            reply = await self._run(name, args)
        return reply

    async def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()
        self._waiting.append((jobs, future))
        if self._pusher is None:
            self._pusher = loop.create_task(self._push_all())
        bound = loop.call_later(COMMAND_TIMEOUT_S + _MARGIN_S, self._give_up, future)
        try:
            ids = await future
        finally:
            bound.cancel()
        await self._look_at_server()
        return ids

    def _give_up(self, future: asyncio.Future[list[str]]) -> None:
        """Let a caller go that waited behind others of a silent server; ids let it come again."""
        if not future.done():
            where, waited_s = redact(self._url.text), COMMAND_TIMEOUT_S
            future.set_exception(StoreUnavailable(f"Redis at {where} has not answered for {waited_s:g} s"))

    async def _push_all(self) -> None:
        while self._waiting:
            batch: list[tuple[Sequence[NewJob], asyncio.Future[list[str]]]] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0][0]) <= _PUSH_BATCH):
                batch.append(self._waiting.pop(0))
                size += len(batch[-1][0])
            try:
                ids = await self._push_together([job for jobs, _ in batch for job in jobs])
                await self._replicated()
            except ConfigurationError as error:
                if len(batch) == 1:
                    self._answer(batch, None, error)
                else:  # one caller's slip is not the others'
                    await self._push_apart(batch)
            except BaseException as error:
                self._answer(batch, None, error)
                if not isinstance(error, Exception):
                    self._pusher = None
                    raise
            else:
                self._answer(batch, ids, None)
        self._pusher = None

    async def _push_together(self, jobs: Sequence[NewJob]) -> list[str]:
        args = wire.push_args(jobs)
        try:
            return wire.pushed(await self._run("push", args), jobs)
        except StoreUnavailable as error:  # of an idle connection that the server had closed
            if not self._was_cut(error):
                raise
            return wire.pushed(await self._run("push", args), jobs)  # ids make this harmless

    async def _push_apart(self, batch: Sequence[tuple[Sequence[NewJob], asyncio.Future[list[str]]]]) -> None:
        for one in batch:
            try:
                ids = await self._push_together(one[0])
                await self._replicated()
            except Exception as error:
                self._answer([one], None, error)
            else:
                self._answer([one], ids, None)

    async def _replicated(self) -> None:
        o = self._settings.options
        if o.wait_replicas:
            async with self._call():
                await self._client.execute_command(*self._mark_args())
                got = await self._client.execute_command(*self._wait_args(), **self._home())
            wire.check_replicated(got, o)

    async def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        return bool(await self._run("fire", wire.fire_args(name, slot, job, late)) == 1)

    async def time(self) -> float:
        return wire.seconds_of(await self._run("time", []))

    async def declare(self, partitions: int, /) -> str:
        """Return how many partitions the namespace has: so many if it is new."""
        return str((await self._run("declare", [partitions])).decode())

    async def _look_at_server(self) -> None:
        if not self.looked:
            self.looked = True
            try:
                async with Patience(COMMAND_TIMEOUT_S):
                    warn_of_eviction(await self._client.info("memory"))
            except self._unanswered:  # not allowed to ask, or down
                return

    @staticmethod
    def _answer(
        batch: list[tuple[Sequence[NewJob], asyncio.Future[list[str]]]],
        ids: list[str] | None,
        error: BaseException | None,
    ) -> None:
        at = 0
        for jobs, future in batch:
            if not future.done():
                if ids is not None:
                    future.set_result(ids[at : at + len(jobs)])
                elif isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()
            at += len(jobs)

    async def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return wire.infos(ids, await self._run("fetch", ids)) if ids else []

    async def ended(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return wire.infos(ids, await self._run("ended", ids)) if ids else []

    async def counts(self) -> list[QueueStatus]:
        return wire.statuses(self._settings, await self._run("counts", []), self._quiet)

    async def load(self) -> tuple[int, int, float]:
        return wire.load(await self._run("counts", []))

    async def listing(
        self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100
    ) -> list[JobInfo]:
        found = await self._run("admin", ["list", queue, state.value, offset, limit])
        if state is JobState.COMPLETED:
            return wire.listed(found)
        return wire.briefly(await self.fetch(wire.texts(found)))

    async def cancel(self, ids: Sequence[str], /) -> list[bool]:
        return wire.cancelled(await self._run("admin", ["cancel", self._ttl(), *ids]), ids) if ids else []

    async def replay(
        self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None
    ) -> int:
        if ids is not None and not ids:
            return 0
        return int(await self._run("admin", ["replay", queue, -1 if limit is None else limit, *(ids or ())]))

    async def purge(self, queue: str, state: JobState, /) -> int:
        total, at = 0, 0
        while True:
            args = ["purge", queue, state.value, self._ttl(), _PURGE_BATCH, at]
            n, more, at = wire.purged(await self._run("admin", args))
            total += n
            if not more:
                return total

    async def find(self, query: JobQuery, /) -> Found:
        return wire.found(await self._run("find", wire.find_args(query)))

    async def update(self, job_id: str, change: Change, /) -> JobState | None:
        return wire.updated(await self._run("update", wire.update_args(job_id, change)), change)

    async def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        return wire.kin(await self._run("children", [job_id, limit]))

    async def delete(self, queue: str, ids: Sequence[str], /) -> int:
        parts = wire.portions(ids)
        return sum([int(await self._run("delete", [queue, *part])) for part in parts])

    async def roster(self) -> list[WorkerInfo]:
        return wire.roster(await self._run("roster", []))

    async def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        now = wire.seconds_of(await self._run("time", []))
        return wire.measured(await self._run("measured", [int((now - span_s) // MINUTE_S)]))

    async def set_paused(self, queue: str, paused: bool, /) -> None:
        await self._run("admin", ["pause", queue, int(paused)])

    async def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        self._meet(card)
        group = self._known(card.id).group
        await self._run("enter", [*wire.card_args(card, group), *held])
        await self._look_at_server()
        if group is not None:
            await self._run("join", wire.join_args(card, group))

    async def leave(self, worker: str, /) -> None:
        await self._run("leave", [worker])
        self._part(worker)

    async def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        told = self._known(worker)
        args = self._claim_args(worker, told, room, total)
        return wire.claimed(await self._run_told("claim", told, args))

    async def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        if not outcomes:
            return []
        told = self._known()
        args = wire.finish_args(self._settings, told, outcomes)
        return [x == 1 for x in await self._run_told("finish", told, args)]

    async def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        flat = [x for pair in held for x in pair]
        card, group = self._card(worker), self._known(worker).group
        reply = await self._run("renew", [*wire.card_args(card, group), *flat])
        if group is not None and reply[2]:
            await self._run("join", wire.join_args(card, group))
        return wire.renewed(reply)

    async def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        args = [job_id, token, "" if progress is None else progress, step or ""]
        return bool(await self._run("note", args) == 1)

    async def nudge(self, worker: str, /) -> None:
        key = f"{self._prefix}W:{worker}"
        async with self._call():
            await self._client.rpush(key, "n")
            await self._client.pexpire(key, 60_000)

    async def steps(self, job_id: str, /) -> frozenset[str]:
        return frozenset(wire.texts(await self._run("steps", [job_id])))

    async def close(self) -> None:
        if self._pusher is not None:
            await asyncio.wait([self._pusher])
        pool = getattr(self._client, "connection_pool", None)
        self.on_close()
        await self._client.aclose()
        if pool is not None:
            await pool.disconnect()
