"""The second tier on Redis, Valkey or a Redis Cluster, for threads and for tasks.

Verbs are commands; what differs is only who carries them: ``_do`` and ``_many`` for threads, ``_ado`` and
``_amany`` for tasks. Scripts touch one key each, so that everything works on a cluster as it stands.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import struct
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.urls import redact
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.protocols import Grant, InvalidationBus

from .channel import Channel
from .coalesce import Coalescer
from .cures import cure_of
from .direct_reads import REDO, AsyncReads, Reads
from .given import check_given
from .links import Links
from .patience import Patience, Timeout, weight

Command = tuple[Any, ...]

_STATES: Final = {1: "granted", 0: "held", 2: "present", 3: "settling"}
TAG_LIFE_S: Final = 7 * 86400
PART_MAX: Final = 500
PART_BYTES: Final = 1 << 18


@cache
def script(name: str) -> tuple[str, str]:
    """Return a script's text and its digest."""
    text = files("eventperf.cache.backends.redis").joinpath(f"lua/{name}.lua").read_text()
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def life_ms(ttl_s: float) -> int:
    """Return a life in whole milliseconds; 0 stands for ever."""
    return 0 if ttl_s == math.inf else max(1, math.ceil(ttl_s * 1000))


class RedisStore:
    """Bytes under text keys on a Redis server or cluster.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://h1:7000,h2:7001`` or
            ``redis+sentinel://h1:26379,h2:26379/SERVICE``.
        client: A ``redis.Redis`` or ``redis.RedisCluster`` of the host's own; it stays the host's.
        async_client: The same for tasks; it belongs to the loop that made it.
        timeout: How long the server may be silent before it counts as away; ``"auto"`` follows the measured
            round trips, between 50 ms and 1 s. Large values are given the time they need on top.
        max_connections: Connections per process (and per event loop) and node at most; callers beyond
            that wait for a free one, they do not fail.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        async_client: Any = None,
        timeout: Duration | str = "auto",
        max_connections: int = 32,
    ) -> None:
        if url is None and client is None and async_client is None:
            raise ConfigurationError("url", url, "a redis:// or redis+cluster:// URL, or client=")
        self._redis = require("redis", extra="cache", needed_by="RedisStore")
        check_given(url, client, async_client)
        self.url: str = redact(url) if url else "redis (client of the host)"
        self.timeout: Timeout = Timeout(timeout, self.url)
        direct = max_connections // 2 if url else 0  # connections of the host's own client are its business
        self._links = Links(url, client, async_client, self.timeout, max_connections - direct)
        self._reads: Reads | None = Reads(self._links, direct) if direct else None
        self._areads: weakref.WeakKeyDictionary[Any, AsyncReads] = weakref.WeakKeyDictionary()
        self.timeout.on_change(self._renew)
        self.channel: str = "eventperf"
        self._coalescers: weakref.WeakKeyDictionary[Any, Coalescer] = weakref.WeakKeyDictionary()
        self._trouble: tuple[type[BaseException], ...] = (
            self._redis.RedisError,
            self._redis.exceptions.RedisClusterException,  # no RedisError: what an unreachable cluster raises
            OSError,
            TimeoutError,
        )

    def __repr__(self) -> str:
        return f"RedisStore({self.url!r})"

    @property
    def links(self) -> Links:
        """The connections behind this store."""
        return self._links

    def _lost(self, error: BaseException) -> StoreUnavailable:
        """Say what an error of the driver means: no answer, or one that refuses (now, or each time)."""
        errors = self._redis.exceptions
        refused = isinstance(error, errors.ResponseError)
        # NOPERM has a class of its own; a command that is not there has only its text.
        never = isinstance(error, errors.NoPermissionError) or (
            refused and "unknown command" in str(error).lower()
        )
        reason = f"{type(error).__name__}: {error}"[:200]
        cure = cure_of(reason, self.url)
        return StoreUnavailable(self.url, f"{reason}; {cure}" if cure else reason, not refused, never)

    def _may_redo(self, error: BaseException) -> None:
        """Raise, unless redis-py may know better: where the masters of a cluster are now."""
        errors = self._redis.exceptions
        final = isinstance(error, (TimeoutError, errors.TimeoutError, errors.ResponseError))
        if final or not self._links.is_cluster:
            raise self._lost(error) from error

    @contextmanager
    def _edge(self) -> Iterator[None]:
        try:
            yield
        except self._trouble as error:
            raise self._lost(error) from error

    # -- carrying commands ---------------------------------------------------------------------------

    def _do(self, *command: Any) -> Any:
        with self._edge():
            return self._links.client(weight(command)).execute_command(*command)

    async def _ado(self, *command: Any) -> Any:
        with self._edge():
            async with Patience(self.timeout.for_bytes(weight(command))):
                return await self._links.aexecute(*command)

    def _many(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in parts, so that a server at work on many is not taken for a silent one."""
        out: list[Any] = []
        with self._edge():
            for part, size in _parts(commands):
                out += self._links.run(part, size)
        return out

    async def _amany(self, commands: Sequence[Command]) -> list[Any]:
        out: list[Any] = []
        with self._edge():
            for part, size in _parts(commands):
                async with Patience(self.timeout.for_bytes(size)):
                    out += await self._links.arun(part)
        return out

    def _renew(self) -> None:
        """Open connections anew: those there are have another time-out."""
        self._links.renew()
        if self._reads is not None:
            self._reads.close()

    def _script(self, name: str, key: str, *args: Any) -> Any:
        text, digest = script(name)
        try:
            return self._do("EVALSHA", digest, 1, key, *args)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, self._redis.exceptions.NoScriptError):
                raise
        return self._do("EVAL", text, 1, key, *args)

    async def _ascript(self, name: str, key: str, *args: Any) -> Any:
        text, digest = script(name)
        try:
            return await self._ado("EVALSHA", digest, 1, key, *args)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, self._redis.exceptions.NoScriptError):
                raise
        return await self._ado("EVAL", text, 1, key, *args)

    def _scripts(self, name: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run one script for several keys in one round trip per node."""
        if len(calls) == 1:
            return [self._script(name, *calls[0])]
        text, digest = script(name)
        replies = self._many([("EVALSHA", digest, 1, *call) for call in calls])
        again = [i for i, reply in enumerate(replies) if self._no_script(reply)]
        if again:
            for i, reply in zip(
                again, self._many([("EVAL", text, 1, *calls[i]) for i in again]), strict=True
            ):
                replies[i] = reply
        return self._checked(replies)

    async def _ascripts(self, name: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        if len(calls) == 1:
            return [await self._ascript(name, *calls[0])]
        text, digest = script(name)
        replies = await self._amany([("EVALSHA", digest, 1, *call) for call in calls])
        again = [i for i, reply in enumerate(replies) if self._no_script(reply)]
        if again:
            retried = await self._amany([("EVAL", text, 1, *calls[i]) for i in again])
            for i, reply in zip(again, retried, strict=True):
                replies[i] = reply
        return self._checked(replies)

    def _no_script(self, reply: Any) -> bool:
        return isinstance(reply, self._redis.exceptions.NoScriptError)

    def _checked(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, BaseException):
                raise self._lost(reply) from reply
        return replies

    # -- reading -------------------------------------------------------------------------------------

    def get(self, key: str, /) -> bytes | None:
        """Return the bytes of ``key``, or ``None``."""
        reply: bytes | None
        if self._reads is not None:
            try:
                reply = self._reads.get(key)
            except self._trouble as error:
                self._may_redo(error)
                reply = REDO
            if reply is not REDO:
                return reply
        reply = self._do("GET", key)
        return reply

    async def aget(self, key: str, /) -> bytes | None:
        loop = asyncio.get_running_loop()
        if self._reads is not None:
            direct = self._areads.get(loop) or self._direct(loop)
            reply: bytes | None
            try:
                reply = await direct.get(key)
            except self._trouble as error:
                self._may_redo(error)
                reply = REDO
            if reply is not REDO:
                return reply
        found = self._coalescers.get(loop)
        if found is None:
            found = self._coalescers[loop] = Coalescer(self._aget_many)
        return await found.get(key)

    def _direct(self, loop: asyncio.AbstractEventLoop) -> AsyncReads:
        self._links.client_pid_check()
        for other in [other for other in self._areads if other.is_closed()]:
            del self._areads[other]
        made = self._areads[loop] = AsyncReads(self._links, self.timeout)
        self._links.at_loop_end(loop, made.close)
        return made

    def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """Return the bytes of several keys, in order, in one round trip per node."""
        if not keys:
            return []
        if self._reads is None:
            return self._get_many(keys)
        try:
            found = self._reads.get_many(keys)
        except self._trouble as error:
            self._may_redo(error)
            found = [REDO] * len(keys)
        if REDO in found:
            places = [n for n, reply in enumerate(found) if reply is REDO]
            for n, reply in zip(places, self._get_many([keys[n] for n in places]), strict=True):
                found[n] = reply
        return found

    def _get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not self._links.is_cluster:
            return [reply for part in _runs(keys) for reply in self._do("MGET", *part)]
        return self._checked(self._many([("GET", key) for key in keys]))

    async def aget_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        if not keys:
            return []
        if self._reads is None:
            return await self._aget_many(keys)
        loop = asyncio.get_running_loop()
        direct = self._areads.get(loop) or self._direct(loop)
        try:
            found = await direct.get_many(keys)
        except self._trouble as error:
            self._may_redo(error)
            found = [REDO] * len(keys)
        if REDO in found:
            places = [n for n, reply in enumerate(found) if reply is REDO]
            again = await self._aget_many([keys[n] for n in places])
            for n, reply in zip(places, again, strict=True):
                found[n] = reply
        return found

    async def _aget_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not self._links.is_cluster:
            return [reply for part in _runs(keys) for reply in await self._ado("MGET", *part)]
        return self._checked(await self._amany([("GET", key) for key in keys]))

    # -- writing -------------------------------------------------------------------------------------

    def set_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None:
        """Keep bytes; items are ``(key, bytes, ttl in seconds)``."""
        if len(items) == 1:
            self._do(*_set(*items[0]))
        elif items:
            self._checked(self._many([_set(*item) for item in items]))

    async def aset_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None:
        if len(items) == 1:
            await self._ado(*_set(*items[0]))
        elif items:
            self._checked(await self._amany([_set(*item) for item in items]))

    def delete(self, keys: Sequence[str], /) -> int:
        """Delete keys; return how many there were."""
        if not keys:
            return 0
        if len(keys) == 1 or not self._links.is_cluster:
            return sum(int(self._do("UNLINK", *part)) for part in _runs(keys))
        return sum(self._checked(self._many([("UNLINK", key) for key in keys])))

    async def adelete(self, keys: Sequence[str], /) -> int:
        if not keys:
            return 0
        if len(keys) == 1 or not self._links.is_cluster:
            return sum([int(await self._ado("UNLINK", *part)) for part in _runs(keys)])
        return sum(self._checked(await self._amany([("UNLINK", key) for key in keys])))

    def touch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool:
        """Give an entry a new life; tell whether it was there."""
        return bool(self._script("touch", key, struct.pack(">dd", soft, hard), life_ms(ttl_s)))

    async def atouch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool:
        return bool(await self._ascript("touch", key, struct.pack(">dd", soft, hard), life_ms(ttl_s)))

    def incr(self, key: str, amount: int, /, *, ttl_s: float) -> int:
        """Add to a counter; atomic."""
        return int(self._script("incr", key, amount, life_ms(ttl_s)))

    async def aincr(self, key: str, amount: int, /, *, ttl_s: float) -> int:
        return int(await self._ascript("incr", key, amount, life_ms(ttl_s)))

    def add(self, key: str, amount: int | None, /) -> tuple[int, int, int]:
        """Add to the number that an entry is; return state, sum and rest of its life (see ``add.lua``)."""
        state, total, left = self._script("add", key, "" if amount is None else amount)
        return int(state), int(total), int(left)

    async def aadd(self, key: str, amount: int | None, /) -> tuple[int, int, int]:
        state, total, left = await self._ascript("add", key, "" if amount is None else amount)
        return int(state), int(total), int(left)

    def put_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool:
        """Write an entry unless there is one, or one with these times; tell whether it was written."""
        return bool(self._script("put_new", key, blob, life_ms(ttl_s), times))

    async def aput_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool:
        return bool(await self._ascript("put_new", key, blob, life_ms(ttl_s), times))

    def keys(self, pattern: str, /) -> list[str]:
        """Return the keys of entries that match, by SCAN on every master at the same time."""
        with self._edge():
            return self._links.keys(pattern)

    async def akeys(self, pattern: str, /) -> list[str]:
        return await asyncio.to_thread(self.keys, pattern)

    def delete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int:
        """Delete what matches, by SCAN and UNLINK on every master at the same time; return the count."""
        with self._edge():
            return self._links.delete_pattern(pattern, dry_run=dry_run)

    async def adelete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int:
        # The scan is long and chatty; the threads of the sync form keep it off the loop.
        return await asyncio.to_thread(self.delete_pattern, pattern, dry_run=dry_run)

    # -- leases --------------------------------------------------------------------------------------

    def acquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: set[str]
    ) -> list[Grant]:
        """Ask for the lease of each key; one winner per key among all processes until the lease ends."""
        return [_grant(reply) for reply in self._scripts("acquire", _acquires(keys, token, lease_s, force))]

    async def aacquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: set[str]
    ) -> list[Grant]:
        replies = await self._ascripts("acquire", _acquires(keys, token, lease_s, force))
        return [_grant(reply) for reply in replies]

    def store_many(self, token: str, items: Sequence[tuple[str, bytes, float]], /) -> list[bool]:
        """Keep each value whose lease still stands; the others were invalidated or taken over."""
        return [bool(reply) for reply in self._scripts("store", self._stores(token, items))]

    async def astore_many(self, token: str, items: Sequence[tuple[str, bytes, float]], /) -> list[bool]:
        return [bool(reply) for reply in await self._ascripts("store", self._stores(token, items))]

    def _stores(self, token: str, items: Iterable[tuple[str, bytes, float]]) -> list[tuple[Any, ...]]:
        return [(key, token, blob, life_ms(ttl_s), self.channel) for key, blob, ttl_s in items]

    def release_many(self, token: str, keys: Sequence[str], /) -> None:
        """Give leases back after a failed load, so that the next caller need not wait for their end."""
        self._scripts("release", [(key, token, self.channel) for key in keys])

    async def arelease_many(self, token: str, keys: Sequence[str], /) -> None:
        await self._ascripts("release", [(key, token, self.channel) for key in keys])

    def renew_many(self, token: str, keys: Sequence[str], /, *, lease_s: float) -> None:
        """Keep leases alive while a long load goes on."""
        self._scripts("renew", [(key, token, life_ms(lease_s)) for key in keys])

    def settle(self, keys: Sequence[str], /, *, settle_s: float) -> None:
        """Delete keys and refuse to store loads of them for ``settle_s`` seconds."""
        blob = b"E1T0" + b"0" * 29 + b"-"
        self.set_many([(key, blob, settle_s) for key in keys])

    async def asettle(self, keys: Sequence[str], /, *, settle_s: float) -> None:
        blob = b"E1T0" + b"0" * 29 + b"-"
        await self.aset_many([(key, blob, settle_s) for key in keys])

    # -- tags ----------------------------------------------------------------------------------------

    def tag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]:
        """Return the version of each tag record, creating those that are missing."""
        return [r[0].decode() for r in self._scripts("tag", _tags(keys, salt, life_s))]

    async def atag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]:
        return [r[0].decode() for r in await self._ascripts("tag", _tags(keys, salt, life_s))]

    def bump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None:
        """Invalidate everything that carries one of the tags: one write per tag."""
        self._scripts("tag", _bumps(keys, salt, settle_s))

    async def abump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None:
        await self._ascripts("tag", _bumps(keys, salt, settle_s))

    # -- life ----------------------------------------------------------------------------------------

    def bus(self, *, coherence: str, wants_l1: bool, channel: str) -> InvalidationBus:
        """Return what tells one cache of the writes of others; nothing is opened yet."""
        if not self.channel.endswith(":x:bus"):
            self.channel = channel
        return Channel(self, coherence, wants_l1=wants_l1)

    def publish(self, message: bytes, /) -> None:
        """Tell the other processes of this namespace."""
        self._do("PUBLISH", self.channel, message)

    async def apublish(self, message: bytes, /) -> None:
        await self._ado("PUBLISH", self.channel, message)

    def ping(self) -> None:
        """Ask for a sign of life from every master, patiently enough to measure a long line."""
        with self._edge():
            self.timeout.measured(self._links.ping())

    def close(self) -> None:
        """Close the connections this store opened."""
        if self._reads is not None:
            self._reads.close()
        self._links.close()

    async def aclose(self) -> None:
        """Close them, those of this loop included."""
        direct = self._areads.pop(asyncio.get_running_loop(), None)
        if direct is not None:
            direct.close()
            await asyncio.sleep(0)  # hanging up takes a turn of the loop
        if self._reads is not None:
            self._reads.close()
        await self._links.aclose()


def _runs(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), PART_MAX):
        yield keys[start : start + PART_MAX]


def _parts(commands: Sequence[Command]) -> Iterator[tuple[list[Command], int]]:
    """Yield commands in parts of bounded number and bytes, with their bytes."""
    part: list[Command] = []
    size = 0
    for command in commands:
        more = weight(command)
        if part and (len(part) >= PART_MAX or size + more > PART_BYTES):
            yield part, size
            part, size = [], 0
        part.append(command)
        size += more
    if part:
        yield part, size


def _set(key: str, blob: bytes, ttl_s: float) -> Command:
    life = life_ms(ttl_s)
    return ("SET", key, blob, "PX", life) if life else ("SET", key, blob)


def _acquires(keys: Sequence[str], token: str, lease_s: float, force: set[str]) -> list[tuple[Any, ...]]:
    lease = life_ms(lease_s)
    return [(key, token, lease, "1" if key in force else "0") for key in keys]


def _grant(reply: Any) -> Grant:
    return Grant(_STATES[int(reply[0])], int(reply[1]) / 1000)


def _tags(keys: Sequence[str], salt: str, life_s: float) -> list[tuple[Any, ...]]:
    # Records outlive what refers to them: one that is gone counts as invalidated.
    life = 0 if life_s == math.inf else int(max(TAG_LIFE_S, 2 * life_s if life_s < 1e9 else 0))
    return [(key, "c", salt, life, 0) for key in keys]


def _bumps(keys: Sequence[str], salt: str, settle_s: float) -> list[tuple[Any, ...]]:
    return [(key, "s" if settle_s else "i", salt, TAG_LIFE_S, life_ms(settle_s)) for key in keys]
