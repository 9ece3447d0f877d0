"""Connections to Redis: one client per process and per event loop, pipelines per node of a cluster."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._redis.connect import Wanted, close, open_client
from eventperf._redis.url import is_cluster, parse
from eventperf.cache.keys.patterns import glob, widened

from .patience import LARGE, LEAST_S, Timeout
from .replies import Misfit, fit, good, is_other_type, scanned

T = TypeVar("T")

Command = tuple[Any, ...]

SCAN_COUNT = 500
SLOW_TIMEOUT_S = 5.0
ASYNC_S = 120.0


class Links:
    """Opens clients on first use in each process and loop; those of the host are used as they are."""

    def __init__(
        self, url: str | None, client: Any, async_client: Any, timeout: Timeout, max_connections: int
    ) -> None:
        self._parsed = parse(url) if url else None
        self._given, self._given_async = client, async_client
        self._timeout = timeout
        self._large: dict[int, Any] = {}
        self._max = max_connections
        known = client if client is not None else async_client
        self.is_cluster: bool = (
            is_cluster(self._parsed)
            if self._parsed is not None
            else type(known).__name__ == "RedisCluster" or hasattr(known, "nodes_manager")
        )
        self._mu = threading.RLock()
        self._client: Any = None
        self._slow: dict[Any, Any] = {}
        self._pid = os.getpid()
        self._hanging_up: set[Any] = set()
        self._loops: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._endings: weakref.WeakKeyDictionary[Any, list[Callable[[], None]]] = weakref.WeakKeyDictionary()

    # -- opening -------------------------------------------------------------------------------------

    def client(self, size: int = 0) -> Any:
        """Return this process's client; for a command of ``size`` bytes one that gives it the time."""
        if size > LARGE and self._given is None:
            return self._client_for(size)
        if self._client is not None and self._pid == os.getpid():
            return self._client
        with self._mu:
            if self._pid != os.getpid():
                self._client, self._pid = None, os.getpid()
                self._slow, self._large = {}, {}
                self._loops = weakref.WeakKeyDictionary()
            if self._client is None:
                self._client = self._given if self._given is not None else self._open()
            return self._client

    def _client_for(self, size: int) -> Any:
        """Return a client with a time-out of so many whole seconds, a power of two, as the size needs."""
        least = 1 << max(0, math.ceil(math.log2(self._timeout.for_bytes(size))))
        self.client()  # forgets what belongs to the parent of a fork
        with self._mu:
            found = self._large.get(least)
            if found is None:
                found = self._large[least] = self._open(float(least))
            return found

    def patient(self) -> Any:
        """Return a client for what is no cache: a command may take as long as it takes (``BLPOP``)."""
        if self._given is not None:
            return self._given
        self.client()  # forgets what belongs to the parent of a fork
        with self._mu:
            found = self._large.get(0)
            if found is None:
                assert self._parsed is not None
                wanted = self._wanted(SLOW_TIMEOUT_S, asynchronous=False)
                wanted.settings["socket_timeout"] = None
                found = self._large[0] = open_client(self._parsed, wanted, asynchronous=False)
            return found

    def renew(self) -> None:
        """Open new connections from now on; those in use end with their command."""
        with self._mu:
            if self._client is not self._given:
                self._client = None

    def async_client(self) -> Any:
        """Return the client of the running loop."""
        import asyncio

        if self._given_async is not None:
            return self._given_async
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None or self._pid != os.getpid():
            self.client_pid_check()
            client = self._open_async()
            # An ending loop (asyncio.run) closes its asynchronous generators; this one closes the client.
            guard = self._until_the_loop_ends(loop, client)
            with contextlib.suppress(StopIteration):
                guard.__anext__().send(None)
            found = self._loops[loop] = (client, guard, asyncio.Semaphore(self._max * 4))
        return found[0]

    async def aexecute(self, *command: Any) -> Any:
        """Run one command for a task; on a cluster it waits while as many as there are connections run."""
        client = self.async_client()
        async with self._room():
            return await client.execute_command(*command)

    def _room(self) -> Any:
        """Return what keeps a cluster's tasks from asking for a connection too many, which is an error."""
        import asyncio

        if not self.is_cluster or self._given_async is not None:
            return contextlib.nullcontext()
        return self._loops[asyncio.get_running_loop()][2]

    def at_loop_end(self, loop: Any, close: Callable[[], None]) -> None:
        """Call ``close`` when the connections of ``loop`` are closed."""
        self._endings.setdefault(loop, []).append(close)

    async def _until_the_loop_ends(self, loop: Any, client: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            for close in self._endings.pop(loop, ()):
                close()
            await getattr(client, "aclose", client.close)()  # redis-py 5.0.0 has only the older name
            if not self.is_cluster:
                await client.connection_pool.disconnect()

    def after_fork(self) -> None:
        """Make a lock that no thread of the parent holds."""
        self._mu = threading.RLock()

    def client_pid_check(self) -> None:
        """Forget what belongs to the parent process after a fork."""
        with self._mu:
            if self._pid != os.getpid():
                self._client, self._pid = None, os.getpid()
                self._slow, self._large = {}, {}
                self._loops = weakref.WeakKeyDictionary()

    def _wanted(self, timeout_s: float | None = None, *, asynchronous: bool) -> Wanted:
        package = "redis.asyncio.retry" if asynchronous else "redis.retry"
        retry = require(package, extra="cache", needed_by="RedisStore")
        backoff = require("redis.backoff", extra="cache", needed_by="RedisStore")
        errors = require("redis.exceptions", extra="cache", needed_by="RedisStore")
        once = retry.Retry(backoff.NoBackoff(), 1, supported_errors=(errors.ConnectionError,))
        timeout_s = timeout_s or self._timeout.seconds
        connect_s = sentinel_s = max(timeout_s, LEAST_S)
        if asynchronous:
            timeout_s = connect_s = ASYNC_S  # ours counts without the delays of the loop
        return Wanted(
            extra="cache",
            needed_by="RedisStore",
            connections=self._max,
            # Tasks wait for room (see _room); a few more for what the client asks by itself.
            cluster_connections=self._max * 4 + 8 if asynchronous else self._max,
            sentinel_timeout_s=sentinel_s,
            settings={
                "socket_timeout": timeout_s,
                "socket_connect_timeout": connect_s,
                "protocol": 2,  # commands need no more, and every server speaks it; the channel asks for 3
            },
            of_pool={"retry": once},
        )

    def _open(self, timeout_s: float | None = None) -> Any:
        if self._parsed is None:
            raise ConfigurationError("client", None, "a sync client beside async_client=, for sync calls")
        return open_client(self._parsed, self._wanted(timeout_s, asynchronous=False), asynchronous=False)

    def _open_async(self) -> Any:
        if self._parsed is None:
            raise ConfigurationError("async_client", None, "an async client beside client=, for async calls")
        return open_client(self._parsed, self._wanted(asynchronous=True), asynchronous=True)

    # -- carrying several commands -------------------------------------------------------------------

    def run(self, commands: Sequence[Command], size: int = 0) -> list[Any]:
        """Send commands of any keys, one pipeline per node; an error takes its command's place."""
        client = self.client(size)
        if not self.is_cluster:
            return _pipeline(client, commands)
        out: list[Any] = [None] * len(commands)
        for node, places in self._by_node(client, commands):
            replies = _pipeline(client.get_redis_connection(node), [commands[i] for i in places])
            for i, reply in zip(places, replies, strict=True):
                out[i] = reply
        for i, reply in enumerate(out):
            if _moved(reply):
                out[i] = client.execute_command(*commands[i])
        return out

    def _by_node(self, client: Any, commands: Sequence[Command]) -> list[tuple[Any, list[int]]]:
        groups: dict[str, tuple[Any, list[int]]] = {}  # by name: nodes of redis-py 5 cannot be hashed
        slots: dict[int, Any] = {}
        for i, command in enumerate(commands):
            slot = client.keyslot(key_of(command))
            node = slots.get(slot)
            if node is None:
                node = slots[slot] = client.nodes_manager.get_node_from_slot(slot)
            groups.setdefault(node.name, (node, []))[1].append(i)
        return list(groups.values())

    async def arun(self, commands: Sequence[Command]) -> list[Any]:
        """The same for tasks."""
        client = self.async_client()
        if self.is_cluster:
            await client.initialize()
            pipe = client.pipeline()
        else:
            pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        async with self._room():
            return list(await pipe.execute(raise_on_error=False))

    # -- every master --------------------------------------------------------------------------------

    def masters(self) -> list[Any]:
        """Return a client per master, with a timeout fit for long commands."""
        return self._nodes(SLOW_TIMEOUT_S)

    def _nodes(self, timeout_s: float) -> list[Any]:
        client = self.client()
        redis = require("redis", extra="cache", needed_by="RedisStore")
        nodes = (
            [client.get_redis_connection(n) for n in client.get_primaries()] if self.is_cluster else [client]
        )
        out = []
        for node in nodes:
            pool = node.connection_pool
            kwargs = {**pool.connection_kwargs, "socket_timeout": timeout_s}
            if timeout_s != SLOW_TIMEOUT_S:
                kwargs["socket_connect_timeout"] = timeout_s
            at = (kwargs.get("host"), kwargs.get("port"), kwargs.get("path"), timeout_s)
            slow = self._slow.get(at)
            if slow is None:
                made = redis.ConnectionPool(
                    connection_class=pool.connection_class, max_connections=4, **kwargs
                )
                slow = self._slow[at] = redis.Redis(connection_pool=made)
            out.append(slow)
        return out

    def look_around(self) -> None:
        """Ask a cluster anew who its masters are; in a process that uses only tasks nobody else does.

        A new client takes the place of the old one: where redis-py looks around by itself, it hangs up on
        whoever is using that client at the moment.
        """
        old = self._client
        if (
            not self.is_cluster
            or self._parsed is None
            or old in (None, self._given)
            or self._pid != os.getpid()
        ):
            return
        redis = require("redis", extra="cache", needed_by="RedisStore")
        # Nobody answers yet: whoever asked tries again. (One of these is no RedisError.)
        with contextlib.suppress(redis.RedisError, redis.exceptions.RedisClusterException, OSError):
            fresh = self._open()
            if {n.name for n in fresh.get_primaries()} == {n.name for n in old.get_primaries()}:
                fresh.close()
                return
            with self._mu:
                taken = self._client is old and self._pid == os.getpid()
                if taken:
                    self._client = fresh  # the old one closes when the last call on it has ended
            if not taken:
                fresh.close()

    def ping(self) -> float:
        """Ask every master for a sign of life; return the longest round trip, in seconds."""
        longest = 0.0
        for node in self._nodes(self._timeout.probe_s):
            node.execute_command("PING")  # opens the connection
            started = time.monotonic()
            reply = node.execute_command("PING")
            if reply is not True:
                node.connection_pool.disconnect()
                raise Misfit("PING", reply)
            longest = max(longest, time.monotonic() - started)
        return longest

    def delete_pattern(self, pattern: str, *, dry_run: bool = False) -> int:
        """SCAN and UNLINK on every master, all masters at the same time."""
        return sum(self._on_masters(lambda node: self._sweep(node, pattern, dry_run)))

    def _sweep(self, node: Any, pattern: str, dry_run: bool) -> int:
        count = 0
        for found in _scan(node, pattern):
            if dry_run:
                count += len(found)
            else:
                commands = [("UNLINK", key) for key in found] if self.is_cluster else [("UNLINK", *found)]
                count += sum(map(good, self._on_node(node, commands)))
        return count

    def keys(self, pattern: str) -> list[str]:
        """SCAN on every master, all masters at the same time; entries only."""
        found = {key for part in self._on_masters(lambda node: self._entries(node, pattern)) for key in part}
        return list(found)

    def _entries(self, node: Any, pattern: str) -> set[str]:
        out: set[str] = set()
        for found in _scan(node, pattern):
            heads = self._on_node(node, [("GETRANGE", key, 0, 2) for key in found])
            for key, head in zip(found, heads, strict=True):
                if not is_other_type(head) and good(head) == b"E1V":
                    out.add(key.decode("utf-8", "replace"))
        return out

    def _on_node(self, node: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to commands about a node's keys, from elsewhere where they have moved."""
        replies = [fit(c, reply) for c, reply in zip(commands, _pipeline(node, commands), strict=True)]
        strays = [n for n, reply in enumerate(replies) if _moved(reply)]
        for n, reply in zip(strays, self.run([commands[n] for n in strays]), strict=True) if strays else ():
            replies[n] = reply
        return replies

    def _on_masters(self, ask: Callable[[Any], T]) -> list[T]:
        masters = self.masters()
        if len(masters) == 1:
            return [ask(masters[0])]
        with ThreadPoolExecutor(len(masters), "eventperf-scan") as pool:
            return list(pool.map(ask, masters))

    # -- closing -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what was opened here; clients of the host stay open."""
        with self._mu:
            client, self._client = self._client, None
            slow, self._slow = self._slow, {}
            large, self._large = self._large, {}
        if self._pid != os.getpid():
            return
        for other in slow.values():
            other.connection_pool.disconnect()
        for other in large.values():
            close(other)
        if client is not None and client is not self._given:
            close(client)

    def hang_up_here(self, loop: Any) -> None:
        """End the connections of a loop that nobody uses now; those of a cluster all. New ones are opened."""
        found = self._loops.get(loop)
        if found is None or self._given_async is not None:
            return
        task = loop.create_task(_hang_up(found[0], self.is_cluster))
        self._hanging_up.add(task)  # a loop keeps its tasks weakly
        task.add_done_callback(self._hanging_up.discard)

    async def aclose_here(self) -> None:
        """Close what belongs to the running loop."""
        import asyncio

        found = self._loops.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found[1].aclose()


async def _hang_up(client: Any, is_cluster: bool) -> None:
    with contextlib.suppress(Exception):  # they are given up, however they end
        if is_cluster:
            for node in client.get_nodes():
                await node.disconnect()
        else:
            await client.connection_pool.disconnect(inuse_connections=False)


def _pipeline(client: Any, commands: Sequence[Command]) -> list[Any]:
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    return list(pipe.execute(raise_on_error=False))


def key_of(command: Command) -> Any:
    """Return the key that a command is about, the first of several."""
    return command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]


def _moved(reply: Any) -> bool:
    return isinstance(reply, Exception) and type(reply).__name__ in (
        "MovedError",
        "AskError",
        "TryAgainError",
    )


def _scan(node: Any, pattern: str) -> Iterator[list[bytes]]:
    """Yield the keys of a node that match, by the hundreds: as text, where the server compares bytes."""
    cursor: Any = 0
    wide = widened(pattern)
    matches = glob(pattern) if wide != pattern else None
    while True:
        cursor, found = scanned(node.execute_command("SCAN", cursor, "MATCH", wide, "COUNT", SCAN_COUNT))
        if matches is not None:
            found = [key for key in found if matches(key.decode("utf-8", "replace"))]
        if found:
            yield found
        if cursor == 0:
            return
