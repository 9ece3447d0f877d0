"""The second tier on Redis, Valkey or a Redis Cluster, for threads and for tasks.

Verbs are commands; who carries them is a ``Server``, which all stores of one server share. Scripts touch one
key each, so that everything works on a cluster as it stands.
"""

from __future__ import annotations

import asyncio
import math
import struct
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.cache.checks import check_count
from eventperf.cache.errors import CounterOverflow, StoreUnavailable
from eventperf.cache.protocols import Grant, InvalidationBus

from .channel import Channel
from .given import Given, check_given
from .links import Links
from .parts import Command, runs
from .patience import Timeout
from .server import OfLoop, Server, server_for

_STATES: Final = {1: "granted", 0: "held", 2: "present", 3: "settling"}
TAG_LIFE_S: Final = 7 * 86400
CONNECTIONS_MOST: Final = 65_535


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
        max_connections: Connections per process (and per event loop) and node at most, 1 to 65,535;
            callers beyond that wait for a free one, they do not fail. Stores with the same URL, time-out
            and number share them.
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
        check_given(url, client, async_client)
        check_count(max_connections, argument="max_connections", low=1, high=CONNECTIONS_MOST)
        fixed = "auto" if timeout == "auto" else seconds(timeout, name="timeout", maximum=60)
        self._server = server_for(self, Given(url, client, async_client, fixed, max_connections))
        self.url: str = self._server.url
        self.channel: str = "eventperf"
        self._loops: weakref.WeakKeyDictionary[Any, OfLoop] = weakref.WeakKeyDictionary()
        self._told: list[weakref.WeakMethod[Callable[[str], None]]] = []

    def __repr__(self) -> str:
        return f"RedisStore({self.url!r})"

    @property
    def server(self) -> Server:
        """The connections behind this store, shared with others that were given the same."""
        return self._server

    @property
    def links(self) -> Links:
        """The clients of redis-py behind this store."""
        return self._server.links

    @property
    def timeout(self) -> Timeout:
        """How long the server may be silent."""
        return self._server.timeout

    def _here(self) -> OfLoop:
        """Return what the running loop has of the server."""
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None:
            for other in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)
            found = self._loops[loop] = self._server.here(loop, self)
        return found

    def _joined(self) -> Server:
        """Return the server, having said that the running loop uses it for us."""
        self._here()
        return self._server

    def on_foreign(self, told: Callable[[str], None], /) -> None:
        """Call ``told`` with each key that held something else and was taken over; held weakly."""
        self._told = [*(one for one in self._told if one() is not None), weakref.WeakMethod(told)]

    def _taken(self, keys: Sequence[str], flags: Iterable[Any]) -> None:
        for key, flag in zip(keys, flags, strict=True):
            if flag:
                for one in self._told:
                    if (told := one()) is not None:
                        told(key)

    # -- reading -------------------------------------------------------------------------------------

    def get(self, key: str, /) -> bytes | None:
        """Return the bytes of ``key``, or ``None``."""
        return self._server.get(key)

    async def aget(self, key: str, /) -> bytes | None:
        return await self._server.aget(self._here(), key)

    def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """Return the bytes of several keys, in order, in one round trip per node."""
        return self._server.get_many(keys)

    async def aget_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        return await self._server.aget_many(self._here(), keys)

    # -- writing -------------------------------------------------------------------------------------

    def set_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None:
        """Keep bytes; items are ``(key, bytes, ttl in seconds)``."""
        if len(items) == 1:
            self._server.do(*_set(*items[0]))
        elif items:
            self._server.checked(self._server.many([_set(*item) for item in items]))

    async def aset_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None:
        if len(items) == 1:
            await self._joined().ado(*_set(*items[0]))
        elif items:
            self._server.checked(await self._joined().amany([_set(*item) for item in items]))

    def delete(self, keys: Sequence[str], /) -> int:
        """Delete keys; return how many there were."""
        if not keys:
            return 0
        if len(keys) == 1 or not self._server.links.is_cluster:
            return sum(int(self._server.do("UNLINK", *part)) for part in runs(keys))
        return sum(self._server.checked(self._server.many([("UNLINK", key) for key in keys])))

    async def adelete(self, keys: Sequence[str], /) -> int:
        if not keys:
            return 0
        if len(keys) == 1 or not self._server.links.is_cluster:
            return sum([int(await self._joined().ado("UNLINK", *part)) for part in runs(keys)])
        return sum(self._server.checked(await self._joined().amany([("UNLINK", key) for key in keys])))

    def touch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool:
        """Give an entry a new life; tell whether it was there."""
        return bool(self._server.run_script("touch", key, struct.pack(">dd", soft, hard), life_ms(ttl_s)))

    async def atouch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool:
        return bool(
            await self._joined().arun_script("touch", key, struct.pack(">dd", soft, hard), life_ms(ttl_s))
        )

    def incr(self, key: str, amount: int, /, *, ttl_s: float) -> int:
        """Add to a counter; atomic."""
        return self._counted(key, amount, self._server.run_script("incr", key, amount, life_ms(ttl_s)))

    async def aincr(self, key: str, amount: int, /, *, ttl_s: float) -> int:
        reply = await self._joined().arun_script("incr", key, amount, life_ms(ttl_s))
        return self._counted(key, amount, reply)

    def _counted(self, key: str, amount: int, reply: Any) -> int:
        value, state = reply
        if state == 2:
            raise CounterOverflow(key, amount)
        self._taken([key], [state])
        return int(value)

    def add(self, key: str, amount: int | None, /) -> tuple[int, int, int]:
        """Add to the number that an entry is; return state, sum and rest of its life (see ``add.lua``)."""
        state, total, left = self._server.run_script("add", key, "" if amount is None else amount)
        return int(state), int(total), int(left)

    async def aadd(self, key: str, amount: int | None, /) -> tuple[int, int, int]:
        state, total, left = await self._joined().arun_script("add", key, "" if amount is None else amount)
        return int(state), int(total), int(left)

    def put_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool:
        """Write an entry unless there is one, or one with these times; tell whether it was written."""
        return bool(self._server.run_script("put_new", key, blob, life_ms(ttl_s), times))

    async def aput_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool:
        return bool(await self._joined().arun_script("put_new", key, blob, life_ms(ttl_s), times))

    def keys(self, pattern: str, /) -> list[str]:
        """Return the keys of entries that match, by SCAN on every master at the same time."""
        with self._server.edge():
            return self._server.links.keys(pattern)

    async def akeys(self, pattern: str, /) -> list[str]:
        return await asyncio.to_thread(self.keys, pattern)

    def delete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int:
        """Delete what matches, by SCAN and UNLINK on every master at the same time; return the count."""
        with self._server.edge():
            return self._server.links.delete_pattern(pattern, dry_run=dry_run)

    async def adelete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int:
        # The scan is long and chatty; the threads of the sync form keep it off the loop.
        return await asyncio.to_thread(self.delete_pattern, pattern, dry_run=dry_run)

    # -- leases --------------------------------------------------------------------------------------

    def acquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: set[str]
    ) -> list[Grant]:
        """Ask for the lease of each key; one winner per key among all processes until the lease ends."""
        return self._grants(keys, self._server.run_scripts("acquire", _acquires(keys, token, lease_s, force)))

    async def aacquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: set[str]
    ) -> list[Grant]:
        replies = await self._joined().arun_scripts("acquire", _acquires(keys, token, lease_s, force))
        return self._grants(keys, replies)

    def _grants(self, keys: Sequence[str], replies: Sequence[Any]) -> list[Grant]:
        self._taken(keys, [reply[2] for reply in replies])
        return [_grant(reply) for reply in replies]

    def store_many(self, token: str, items: Sequence[tuple[str, bytes, float]], /) -> list[bool]:
        """Keep each value whose lease still stands; the others were invalidated or taken over."""
        return [bool(reply) for reply in self._server.run_scripts("store", self._stores(token, items))]

    async def astore_many(self, token: str, items: Sequence[tuple[str, bytes, float]], /) -> list[bool]:
        return [
            bool(reply) for reply in await self._joined().arun_scripts("store", self._stores(token, items))
        ]

    def _stores(self, token: str, items: Iterable[tuple[str, bytes, float]]) -> list[tuple[Any, ...]]:
        return [(key, token, blob, life_ms(ttl_s), self.channel) for key, blob, ttl_s in items]

    def release_many(self, token: str, keys: Sequence[str], /) -> None:
        """Give leases back after a failed load, so that the next caller need not wait for their end."""
        self._server.run_scripts("release", [(key, token, self.channel) for key in keys])

    async def arelease_many(self, token: str, keys: Sequence[str], /) -> None:
        await self._joined().arun_scripts("release", [(key, token, self.channel) for key in keys])

    def renew_many(self, token: str, keys: Sequence[str], /, *, lease_s: float) -> None:
        """Keep leases alive while a long load goes on."""
        self._server.run_scripts("renew", [(key, token, life_ms(lease_s)) for key in keys])

    def shorten(self, key: str, /, *, lease_s: float) -> None:
        """Give whoever leads there so long to renew, where its lease says more."""
        self._server.run_script("shorten", key, life_ms(lease_s))

    async def ashorten(self, key: str, /, *, lease_s: float) -> None:
        await self._joined().arun_script("shorten", key, life_ms(lease_s))

    def settle(self, keys: Sequence[str], /, *, settle_s: float) -> None:
        """Delete keys and refuse to store loads of them for ``settle_s`` seconds."""
        blob = b"E1T0" + b"0" * 29 + b"-"
        self.set_many([(key, blob, settle_s) for key in keys])

    async def asettle(self, keys: Sequence[str], /, *, settle_s: float) -> None:
        blob = b"E1T0" + b"0" * 29 + b"-"
        await self.aset_many([(key, blob, settle_s) for key in keys])

    def server_time(self, key: str, /) -> float | None:
        """Return the time of the node that has ``key``, in seconds; ``None`` where it may not be asked."""
        try:
            return float(self._server.run_script("time", key)) / 1000
        except StoreUnavailable as error:
            if not error.permanent:
                raise
            return None

    async def aserver_time(self, key: str, /) -> float | None:
        try:
            return float(await self._joined().arun_script("time", key)) / 1000
        except StoreUnavailable as error:
            if not error.permanent:
                raise
            return None

    def board(
        self, key: str, name: str, note: bytes, life_s: float, most: int, /
    ) -> list[tuple[float, bytes]]:
        """Leave a note beside those of other processes; return all that live."""
        found = self._server.run_script("board", key, name, note, life_ms(life_s), most)
        return [(int(age) / 1000, text) for age, text in found]

    # -- tags ----------------------------------------------------------------------------------------

    def tag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]:
        """Return the version of each tag record, creating those that are missing."""
        return self._versions(keys, self._server.run_scripts("tag", _tags(keys, salt, life_s)))

    async def atag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]:
        return self._versions(keys, await self._joined().arun_scripts("tag", _tags(keys, salt, life_s)))

    def _versions(self, keys: Sequence[str], replies: Sequence[Any]) -> list[str]:
        self._taken(keys, [reply[2] for reply in replies])
        return [reply[0].decode() for reply in replies]

    def bump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None:
        """Invalidate everything that carries one of the tags: one write per tag."""
        self._versions(keys, self._server.run_scripts("tag", _bumps(keys, salt, settle_s)))

    async def abump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None:
        self._versions(keys, await self._joined().arun_scripts("tag", _bumps(keys, salt, settle_s)))

    # -- life ----------------------------------------------------------------------------------------

    def bus(self, *, coherence: str, wants_l1: bool, channel: str) -> InvalidationBus:
        """Return what tells one cache of the writes of others; nothing is opened yet."""
        if not self.channel.endswith(":x:bus"):
            self.channel = channel
        return Channel(self, coherence, wants_l1=wants_l1)

    def publish(self, message: bytes, /) -> None:
        """Tell the other processes of this namespace."""
        self._server.do("PUBLISH", self.channel, message)

    async def apublish(self, message: bytes, /) -> None:
        await self._joined().ado("PUBLISH", self.channel, message)

    def ping(self) -> None:
        """Ask for a sign of life from every master, patiently enough to measure a long line."""
        with self._server.edge():
            self.timeout.measured(self._server.links.ping())

    def close(self) -> None:
        """Close the connections, unless other stores of this process share them."""
        self._server.leave(self)

    async def aclose(self) -> None:
        """Close them, those of this loop included."""
        self._loops.pop(asyncio.get_running_loop(), None)
        await self._server.aleave(self)


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
