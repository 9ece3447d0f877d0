"""One server, or cluster, as this process talks to it: connections, time-outs and ears for all its caches.

Stores that are given the same URL (credentials and options included), the same time-out and the same number
of connections share one of these; the last that closes ends its connections. Verbs are commands; what differs
is only who carries them: ``do`` and ``many`` for threads, ``ado`` and ``amany`` for tasks.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from eventperf._core.errors import EventPerfError
from eventperf._core.extras import require
from eventperf._core.urls import redact
from eventperf._redis.answers import Misread
from eventperf._redis.patience import within
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.values.envelope import OTHER_TYPE

from .coalesce import Coalescer
from .cures import cure_of
from .direct import REDO
from .direct_plain import Direct
from .direct_tasks import AsyncDirect
from .ears import Ears, Member
from .given import Given
from .links import Links, key_of
from .parts import Command, parts, runs
from .patience import LARGE, Patience, Timeout, weight
from .replies import Misfit, fit, good, is_other_type, script


class OfLoop:
    """What one event loop has of a server, and which stores use it there."""

    def __init__(self, direct: AsyncDirect | None, coalescer: Coalescer) -> None:
        self.direct = direct
        self.coalescer = coalescer
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()


class Server:
    """The connections behind the stores of one server; use :func:`server_for`."""

    def __init__(self, given: Given) -> None:
        self._given = given  # keeps the host's clients, whose identities are in the table below
        self._redis = require("redis", extra="cache", needed_by="RedisStore")
        url = given.url
        self.url: str = redact(url) if url else "redis (client of the host)"
        self.timeout: Timeout = Timeout(given.timeout, self.url)
        # Connections of the host's own client are its business.
        direct = given.max_connections // 2 if url else 0
        rest = given.max_connections - direct
        self.links: Links = Links(url, given.client, given.async_client, self.timeout, rest)
        self._direct: Direct | None = Direct(self.links, direct) if direct else None
        self._loops: weakref.WeakKeyDictionary[Any, OfLoop] = weakref.WeakKeyDictionary()
        self._stores: weakref.WeakSet[Any] = weakref.WeakSet()
        self.timeout.on_change(self._renew)
        self.trouble: tuple[type[BaseException], ...] = (
            self._redis.RedisError,
            self._redis.exceptions.RedisClusterException,  # no RedisError: what an unreachable cluster raises
            OSError,
            TimeoutError,
            Misread,
        )
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's locks and ears; its connections are told by their process."""
        self._mu = threading.RLock()
        self._ears: dict[bool, Ears] = {}
        self.timeout.after_fork()
        self.links.after_fork()

    # -- who shares it -------------------------------------------------------------------------------

    def enter(self, store: object) -> None:
        """Count a store among those that share the connections."""
        self._stores.add(store)

    def here(self, loop: asyncio.AbstractEventLoop, store: object) -> OfLoop:
        """Return what ``loop`` has of this server, and count the store among those that use it there."""
        self.links.client_pid_check()
        for other in [other for other in list(self._loops) if other.is_closed()]:
            self._loops.pop(other, None)
        found = self._loops.get(loop)
        if found is None:
            direct = AsyncDirect(self.links, self.timeout) if self._direct is not None else None
            found = self._loops[loop] = OfLoop(direct, Coalescer(self._aget_many))
            if direct is not None:
                self.links.at_loop_end(loop, direct.close)
        found.users.add(store)
        return found

    def leave(self, store: object) -> None:
        """End the connections, unless another store uses them."""
        with _mu:
            self._stores.discard(store)
            if self._stores:
                return
            key = self._given.shared_by
            if _servers.get(key) is self:
                del _servers[key]
        self._close()

    async def aleave(self, store: object) -> None:
        """The same, and end the connections of the running loop unless another store uses them there."""
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is not None:
            found.users.discard(store)
        if found is None or not found.users:
            self._loops.pop(loop, None)
            if found is not None and found.direct is not None:
                found.direct.close()
                await asyncio.sleep(0)  # hanging up takes a turn of the loop
            await self.links.aclose_here()
        self.leave(store)

    def _close(self) -> None:
        with self._mu:
            ears, self._ears = self._ears, {}
        for one in ears.values():
            one.close()
        if self._direct is not None:
            self._direct.close()
        self.links.close()

    def _renew(self) -> None:
        """Open connections anew: those there are have another time-out."""
        self.links.renew()
        if self._direct is not None:
            self._direct.close()

    def ears_for(self, member: Member, *, tracks: bool) -> Ears:
        """Return the ears that hear for ``member`` from now on."""
        with self._mu:
            ears = self._ears.get(tracks)
            if ears is None or not ears.join(member):
                ears = self._ears[tracks] = Ears(self, tracks=tracks)
                ears.join(member)
            return ears

    # -- what the driver says ------------------------------------------------------------------------

    def _lost(self, error: BaseException) -> StoreUnavailable:
        """Say what an error of the driver means: no answer, or one that refuses (now, or each time)."""
        if isinstance(error, Misread):
            self._distrust()
        errors = self._redis.exceptions
        # An answer that refuses; or redis-py refuses to send what we gave it, and the server was not asked.
        refused = isinstance(error, (errors.ResponseError, errors.DataError))
        # NOPERM has a class of its own; a command that is not there has only its text.
        never = isinstance(error, errors.NoPermissionError) or (
            refused and "unknown command" in str(error).lower()
        )
        reason = f"{type(error).__name__}: {error}"[:200]
        cure = cure_of(reason, self.url)
        return StoreUnavailable(self.url, f"{reason}; {cure}" if cure else reason, not refused, never)

    def _distrust(self) -> None:
        """Hang up: what comes over these connections may be the answers to something else."""
        self._renew()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        here = self._loops.get(loop)
        if here is not None and here.direct is not None:
            here.direct.close()
        self.links.hang_up_here(loop)

    def _may_redo(self, error: BaseException) -> None:
        """Raise, unless redis-py may know better: where the masters of a cluster are now."""
        errors = self._redis.exceptions
        final = isinstance(error, (TimeoutError, errors.TimeoutError, errors.ResponseError, Misread))
        if final or not self.links.is_cluster:
            raise self._lost(error) from error

    @contextmanager
    def edge(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except self.trouble as error:
            raise self._lost(error) from error
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            if isinstance(error, EventPerfError):
                raise
            # What redis-py stumbles over when it reads a reply.
            raise self._lost(Misfit("a command", error)) from error

    # -- carrying commands ---------------------------------------------------------------------------

    def do(self, *command: Any) -> Any:
        """Run one command, in the time that it may take as a whole."""
        with self.edge():
            reply = self._straight(command)
            if reply is REDO:
                size = weight(command)
                with within(self.timeout.for_bytes(size)):
                    reply = self.links.client(size).execute_command(*command)
            return good(fit(command, reply))

    def _straight(self, command: Command) -> Any:
        """Return the answer to a command that took the short way; ``REDO`` where redis-py is to ask."""
        if self._direct is None:
            return REDO
        try:
            return self._settled(self._direct.run(command, key_of(command)))
        except self.trouble as error:
            self._may_redo(error)
            return REDO

    def _settled(self, reply: Any) -> Any:
        """Return an answer; ``REDO`` for an error: nothing was done, and redis-py knows what it means."""
        if not isinstance(reply, Exception):
            return reply
        text = str(reply)
        return self._redis.exceptions.NoScriptError(text) if text.startswith("NOSCRIPT") else REDO

    async def ado(self, *command: Any) -> Any:
        """The same for a task, without counting the time for which its loop was busy."""
        with self.edge():
            size = weight(command)
            async with Patience(self.timeout.for_bytes(size)):
                reply = REDO if size > LARGE else await self._piped(command)
                return good(fit(command, await self.links.aexecute(*command) if reply is REDO else reply))

    async def _piped(self, command: Command) -> Any:
        """Return the answer to a command that went with others over the one connection of this loop."""
        here = self._loops.get(asyncio.get_running_loop())
        if here is None or here.direct is None:
            return REDO
        try:
            reply = await here.direct.run(command, key_of(command))
        except self.trouble as error:
            self._may_redo(error)
            return REDO
        return self._settled(reply)

    def many(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in parts, so that a server at work on many is not taken for a silent one."""
        out: list[Any] = []
        with self.edge():
            for part, size in parts(commands):
                out += map(fit, part, self._part(part, size))
        return out

    def _part(self, part: list[Command], size: int) -> list[Any]:
        """Return the answers to commands, errors as redis-py has them."""
        replies: list[Any] = [REDO] * len(part)
        if self._direct is not None:
            try:
                replies = self._direct.run_many(part, [key_of(command) for command in part])
            except self.trouble as error:
                self._may_redo(error)
        replies = list(map(self._settled, replies))
        again = [n for n, reply in enumerate(replies) if reply is REDO]
        if again:
            with within(self.timeout.for_bytes(size, len(again))):
                asked = self.links.run([part[n] for n in again], size)
            for n, reply in zip(again, asked, strict=True):
                replies[n] = reply
        return replies

    async def amany(self, commands: Sequence[Command]) -> list[Any]:
        """The same for tasks."""
        out: list[Any] = []
        with self.edge():
            for part, size in parts(commands):
                async with Patience(self.timeout.for_bytes(size, len(part))):
                    out += map(fit, part, await self.links.arun(part))
        return out

    def run_script(self, name: str, key: str, *args: Any) -> Any:
        """Run a script for one key; its text travels only where the server has forgotten it."""
        text, digest = script(name)
        try:
            return self.do("EVALSHA", digest, 1, key, *args)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, self._redis.exceptions.NoScriptError):
                raise
        return self.do("EVAL", text, 1, key, *args)

    async def arun_script(self, name: str, key: str, *args: Any) -> Any:
        """The same for tasks."""
        text, digest = script(name)
        try:
            return await self.ado("EVALSHA", digest, 1, key, *args)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, self._redis.exceptions.NoScriptError):
                raise
        return await self.ado("EVAL", text, 1, key, *args)

    def run_scripts(self, name: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run one script for several keys in one round trip per node."""
        if len(calls) == 1:
            return [self.run_script(name, *calls[0])]
        text, digest = script(name)
        replies = self.many([("EVALSHA", digest, 1, *call) for call in calls])
        again = [i for i, reply in enumerate(replies) if self._no_script(reply)]
        if again:
            for i, reply in zip(again, self.many([("EVAL", text, 1, *calls[i]) for i in again]), strict=True):
                replies[i] = reply
        return self.checked(replies)

    async def arun_scripts(self, name: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The same for tasks."""
        if len(calls) == 1:
            return [await self.arun_script(name, *calls[0])]
        text, digest = script(name)
        replies = await self.amany([("EVALSHA", digest, 1, *call) for call in calls])
        again = [i for i, reply in enumerate(replies) if self._no_script(reply)]
        if again:
            retried = await self.amany([("EVAL", text, 1, *calls[i]) for i in again])
            for i, reply in zip(again, retried, strict=True):
                replies[i] = reply
        return self.checked(replies)

    def _no_script(self, reply: Any) -> bool:
        return isinstance(reply, self._redis.exceptions.NoScriptError)

    def checked(self, replies: list[Any]) -> list[Any]:
        """Return replies that are all good; raise the first that is not."""
        for reply in replies:
            if isinstance(reply, BaseException):
                raise self._lost(reply) from reply
        return replies

    # -- reading -------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        """Return the bytes of ``key``, or ``None``."""
        reply: bytes | None
        if self._direct is not None:
            try:
                reply = self._direct.get(key)
            except self.trouble as error:
                self._may_redo(error)
                reply = REDO
            if reply is not REDO:
                return reply
        try:
            reply = self.do("GET", key)
        except StoreUnavailable as error:
            if not is_other_type(error.__cause__):
                raise
            return OTHER_TYPE
        return reply

    async def aget(self, here: OfLoop, key: str) -> bytes | None:
        """The same for tasks."""
        if here.direct is not None:
            reply: bytes | None
            try:
                reply = await here.direct.get(key)
            except self.trouble as error:
                self._may_redo(error)
                reply = REDO
            if reply is not REDO:
                return reply
        return await here.coalescer.get(key)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes of several keys, in order, in one round trip per node."""
        if not keys:
            return []
        if self._direct is None:
            return self._get_many(keys)
        try:
            found = self._direct.get_many(keys)
        except self.trouble as error:
            self._may_redo(error)
            found = [REDO] * len(keys)
        if REDO in found:
            places = [n for n, reply in enumerate(found) if reply is REDO]
            for n, reply in zip(places, self._get_many([keys[n] for n in places]), strict=True):
                found[n] = reply
        return found

    def _get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not self.links.is_cluster:
            return [reply for part in runs(keys) for reply in self.do("MGET", *part)]
        return self._values(self.many([("GET", key) for key in keys]))

    def _values(self, replies: list[Any]) -> list[bytes | None]:
        return self.checked([OTHER_TYPE if is_other_type(reply) else reply for reply in replies])

    async def aget_many(self, here: OfLoop, keys: Sequence[str]) -> list[bytes | None]:
        """The same for tasks."""
        if not keys:
            return []
        if here.direct is None:
            return await self._aget_many(keys)
        try:
            found = await here.direct.get_many(keys)
        except self.trouble as error:
            self._may_redo(error)
            found = [REDO] * len(keys)
        if REDO in found:
            places = [n for n, reply in enumerate(found) if reply is REDO]
            again = await self._aget_many([keys[n] for n in places])
            for n, reply in zip(places, again, strict=True):
                found[n] = reply
        return found

    async def _aget_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not self.links.is_cluster:
            return [reply for part in runs(keys) for reply in await self.ado("MGET", *part)]
        return self._values(await self.amany([("GET", key) for key in keys]))


_mu = threading.RLock()
_servers: weakref.WeakValueDictionary[tuple[Any, ...], Server] = weakref.WeakValueDictionary()


def server_for(store: object, given: Given) -> Server:
    """Return the server of what was given, shared with the other stores that were given the same."""
    with _mu:
        found = _servers.get(given.shared_by)
        if found is None:
            found = _servers[given.shared_by] = Server(given)
        found.enter(store)
        return found


def _after_fork() -> None:
    global _mu
    _mu = threading.RLock()
    for server in list(_servers.values()):
        server.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
