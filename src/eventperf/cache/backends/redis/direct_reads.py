"""Reads from Redis, and single commands of tasks, with less in between: packed by hand, parsed by hiredis.

Connections are made by redis-py, so that URLs, TLS, users and databases mean what they mean elsewhere; only
``GET``, ``MGET`` and the commands of tasks then go over them directly. Threads take a connection each from a
small stock and ask all nodes of a cluster before they read the first answer. The tasks of a loop share one
connection per node: what they ask for in one turn of the loop leaves in one write. Anything but a plain
answer (a moved slot, a server that is loading) is asked for again through redis-py, which knows what to do.

Longer than the rest: a protocol for threads and one for tasks, which share the packing and the doubts.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventperf._core.extras import require
from eventperf.cache.values.envelope import OTHER_TYPE

from .patience import BYTES_PER_S, Patience, Timeout
from .replies import Garbage, Misfit, fit
from .resp3 import pack

if TYPE_CHECKING:
    from .links import Links

_GET: Final = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
_ROUND: Final = 4096  # keys asked for before the first answer is read
_RUN: Final = 500  # keys in one command, or commands that may take the time of one
REDO: Final[Any] = object()
"""The place of an answer that redis-py has to fetch."""


def _get(key: str) -> bytes:
    data = key.encode()
    return _GET % (len(data), data)


def _mget(keys: Sequence[str]) -> bytes:
    out = [b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1)]
    for key in keys:
        data = key.encode()
        out.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(out)


def _hiredis() -> Any:
    """Return hiredis, or ``None``: then there are no direct reads."""
    try:
        import hiredis
    except ImportError:
        return None
    return hiredis


def _reader(hiredis: Any) -> Any:
    return hiredis.Reader(protocolError=Garbage)


def allowed_s(timeout_s: float, count: int, size: int) -> float:
    """Return how long so many answers may take of which ``size`` bytes have come.

    >>> allowed_s(0.5, 1, 0), allowed_s(0.5, 1000, 2_000_000)
    (0.5, 3.5)
    """
    return timeout_s * (1 + count // _RUN) + size / BYTES_PER_S


class _Link:
    """One connection of a thread for the time of a read."""

    __slots__ = ("connection", "reader", "sock", "used")

    def __init__(self, connection: Any, reader: Any) -> None:
        self.connection: Any = connection
        self.sock: Any = connection._sock
        self.reader: Any = reader
        self.used: bool = False

    def receive(self, count: int) -> list[Any]:
        """Return so many replies, all of them in the time that they may take together."""
        reader, recv = self.reader, self.sock.recv
        out: list[Any] = []
        started, size = time.monotonic(), 0
        timeout_s = self.sock.gettimeout()
        try:
            while True:
                data = recv(262144)
                if not data:
                    raise ConnectionError("closed by the server")
                reader.feed(data)
                while len(out) < count:
                    reply = reader.gets()
                    if reply is False:
                        break
                    out.append(reply)
                if len(out) == count:
                    self.used = True
                    return out
                size += len(data)
                self._wait_no_longer(started, timeout_s, count, size)
        finally:
            if size:
                self.sock.settimeout(timeout_s)

    def _wait_no_longer(self, started: float, timeout_s: float | None, count: int, size: int) -> None:
        """Let the next bytes come only while the whole answer is in time: a line that drips is silent too."""
        if timeout_s is not None:
            left = started + allowed_s(timeout_s, count, size) - time.monotonic()
            if left <= 0:
                raise TimeoutError("no whole answer in time")
            self.sock.settimeout(min(left, timeout_s))

    def close(self) -> None:
        self.connection.disconnect()


class _Asked(NamedTuple):
    """What one node is asked: its name, redis-py's pool for it, the commands and how many they are."""

    at: Any
    pool: Any
    data: bytes
    replies: int


class Reads:
    """Direct reads for threads.

    Args:
        links: Where connections come from.
        at_most: Connections per node; a caller beyond that goes through redis-py, and waits there.
    """

    def __init__(self, links: Links, at_most: int) -> None:
        self._links, self._at_most = links, at_most
        self._hiredis = _hiredis()
        self._forget()

    def _forget(self) -> None:
        self._mu = threading.Lock()
        self._pid = os.getpid()
        self._free: dict[Any, deque[_Link]] = {}
        self._made: dict[Any, int] = {}

    def _take(self, at: Any, pool: Any, *, fresh: bool = False) -> _Link | None:
        free = self._free.get(at)
        if free is None:
            free = self._free.setdefault(at, deque())
        if not fresh:
            try:
                return free.pop()
            except IndexError:
                pass
        with self._mu:
            made = self._made.get(at, 0)
            if made >= self._at_most:
                return None
            self._made[at] = made + 1
        try:
            connection = pool.connection_class(**pool.connection_kwargs)
            connection.connect()
            if not isinstance(connection._sock, socket.socket):
                raise ConnectionError("not a socket")
            return _Link(connection, _reader(self._hiredis))
        except BaseException:
            self._unmake(at)
            raise

    def _unmake(self, at: Any) -> None:
        with self._mu:
            self._made[at] = self._made.get(at, 1) - 1

    def _drop(self, at: Any, link: _Link) -> None:
        self._unmake(at)
        link.close()

    def _back(self, at: Any, link: _Link, pid: int) -> None:
        free = self._free.get(at)
        if free is None or pid != self._pid:
            self._drop(at, link)  # closed or forked meanwhile
        else:
            free.append(link)

    def _ask(self, asked: Sequence[_Asked]) -> list[list[Any] | None]:
        """Ask several nodes at once; ``None`` in place of the answers of a node without room for us."""
        if self._pid != os.getpid():
            self._forget()
        pid = self._pid
        links: list[_Link | None] = []
        try:
            for one in asked:
                links.append(self._take(one.at, one.pool))  # noqa: PERF401 - kept on failure, to be dropped
            for n, one in enumerate(asked):
                self._send(links, n, one)
            out = [self._receive(links, n, one) for n, one in enumerate(asked)]
        except BaseException:
            for one, link in zip(asked, links, strict=False):
                if link is not None:
                    self._drop(one.at, link)  # answers may be on their way: not to be used again
            raise
        for one, link in zip(asked, links, strict=True):
            if link is not None:
                self._back(one.at, link, pid)
        return out

    def _send(self, links: list[_Link | None], n: int, one: _Asked) -> None:
        link = links[n]
        if link is None:
            return
        try:
            link.sock.sendall(one.data)
        except TimeoutError:
            raise
        except OSError:
            if (again := self._renew(links, n, one)) is not None:
                again.sock.sendall(one.data)

    def _receive(self, links: list[_Link | None], n: int, one: _Asked) -> list[Any] | None:
        link = links[n]
        if link is None:
            return None
        try:
            return link.receive(one.replies)
        except TimeoutError:
            raise
        except OSError:
            again = self._renew(links, n, one)
            if again is None:
                return None
            again.sock.sendall(one.data)
            return again.receive(one.replies)

    def _renew(self, links: list[_Link | None], n: int, one: _Asked) -> _Link | None:
        """Replace a connection that the server closed while it lay idle; a new one gets no second chance."""
        link = links[n]
        assert link is not None
        links[n] = None
        self._drop(one.at, link)
        if not link.used:
            raise ConnectionError("closed by the server")
        while stock := self._free.get(one.at):  # its neighbours are as old
            self._drop(one.at, stock.pop())
        links[n] = self._take(one.at, one.pool, fresh=True)
        return links[n]

    def get(self, key: str) -> Any:
        """Return the bytes of ``key``, ``None``, or ``REDO``."""
        if self._hiredis is None:
            return REDO
        client = self._links.client()
        at, pool = None, None
        if self._links.is_cluster:
            at, pool = _primary(client, key)
        else:
            pool = client.connection_pool
        replies = self._ask([_Asked(at, pool, _get(key), 1)])[0]
        return REDO if replies is None else _plain(replies[0])

    def get_many(self, keys: Sequence[str]) -> list[Any]:
        """Return bytes, ``None`` or ``REDO`` for each key, in order; one round trip per node."""
        if self._hiredis is None:
            return [REDO] * len(keys)
        client = self._links.client()
        if not self._links.is_cluster:
            return self._of_one(client.connection_pool, keys)
        out: list[Any] = []
        for start in range(0, len(keys), _ROUND):
            out += self._by_node(client, keys[start : start + _ROUND])
        return out

    def _of_one(self, pool: Any, keys: Sequence[str]) -> list[Any]:
        out: list[Any] = []
        for start in range(0, len(keys), _RUN):
            part = keys[start : start + _RUN]
            replies = self._ask([_Asked(None, pool, _mget(part), 1)])[0]
            out += _row(REDO if replies is None else replies[0], len(part))
        return out

    def _by_node(self, client: Any, keys: Sequence[str]) -> list[Any]:
        groups: dict[Any, tuple[Any, list[int], list[bytes]]] = {}
        node_of = _node_finder(client)
        for n, key in enumerate(keys):
            data = key.encode()
            node = node_of(data)
            group = groups.get(node.name)
            if group is None:
                group = groups[node.name] = (client.get_redis_connection(node).connection_pool, [], [])
            group[1].append(n)
            group[2].append(_GET % (len(data), data))
        asked = [_Asked(at, pool, b"".join(parts), len(parts)) for at, (pool, _, parts) in groups.items()]
        out: list[Any] = [REDO] * len(keys)
        for (_, places, _), replies in zip(groups.values(), self._ask(asked), strict=True):
            for n, reply in zip(places, replies or (), strict=False):
                out[n] = _plain(reply)
        return out

    def close(self) -> None:
        """Close the stock; connections in use close when they come back."""
        if self._pid != os.getpid():
            return
        with self._mu:
            stocks, self._free = self._free, {}
        for at, stock in stocks.items():
            while stock:
                self._drop(at, stock.pop())


def _plain(reply: Any) -> Any:
    if reply is None or type(reply) is bytes:
        return reply
    if not isinstance(reply, Exception):
        raise Misfit("GET", reply)
    return OTHER_TYPE if is_other_type(reply) else REDO


def _row(reply: Any, count: int) -> list[Any]:
    """Return the values of an ``MGET``, or so many ``REDO``."""
    if reply is REDO or isinstance(reply, Exception):
        return [REDO] * count
    return list(fit(("MGET", *range(count)), reply))


def is_other_type(reply: object) -> bool:
    """Tell whether an answer says that a key holds no bytes but something else."""
    return isinstance(reply, Exception) and str(reply).startswith("WRONGTYPE")


def _node_finder(client: Any) -> Any:
    """Return a function from a key's bytes to its primary node."""
    slot_of = require("redis.crc", extra="cache", needed_by="RedisStore").key_slot
    manager = client.nodes_manager
    slots = getattr(manager, "slots_cache", {})

    def node_of(key: bytes) -> Any:
        slot = slot_of(key)
        nodes = slots.get(slot)
        return nodes[0] if nodes else manager.get_node_from_slot(slot)

    return node_of


def _primary(client: Any, key: str) -> tuple[Any, Any]:
    node = _node_finder(client)(key.encode())
    return node.name, client.get_redis_connection(node).connection_pool


class _Batch:
    """Several answers that one future waits for; stands in the queue as often as there are answers."""

    __slots__ = ("_count", "_future", "_replies")

    def __init__(self, future: asyncio.Future[Any], count: int) -> None:
        self._future, self._count = future, count
        self._replies: list[Any] = []

    def done(self) -> bool:
        return self._future.done()

    def set_result(self, reply: Any) -> None:
        self._replies.append(reply)
        if len(self._replies) == self._count:
            self._future.set_result(self._replies)

    def set_exception(self, error: Exception) -> None:
        self._future.set_exception(error)


class _Pipe(asyncio.Protocol):
    """One connection of a loop: answers come in the order of the questions."""

    def __init__(self, connection: Any, reader: Any, timeout: Timeout) -> None:
        self._reader = reader
        self._timeout = timeout
        self._late_s = 0.0
        self._writer = connection._writer  # kept: a stream writer closes its transport when it is forgotten
        self._transport = self._writer.transport
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[Any] | _Batch] = deque()
        self._out: list[bytes] = []
        self._heard = 0.0
        self._size = 0
        self._is_first = True
        self._timer: Any = None
        self.is_alive = True
        connection._reader = connection._writer = None  # it is ours from here on
        self._transport.set_protocol(self)

    def ask(self, command: bytes) -> asyncio.Future[Any]:
        """Send a command with whatever else this turn of the loop asks; the answer comes to the future."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._say(command)
        self._waiting.append(answer)
        return answer

    def ask_many(self, commands: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send several commands; the answers come to the future together."""
        answers: asyncio.Future[list[Any]] = self._loop.create_future()
        self._say(commands)
        self._waiting.extend([_Batch(answers, count)] * count)
        return answers

    def _say(self, commands: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
            self._is_first = not self._waiting
            if self._is_first:
                self._heard = self._loop.time()  # a check may be due before the command has even left
        self._out.append(commands)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.is_alive:
            return  # whoever asked has been told
        if self._is_first:
            self._heard = self._loop.time()  # the loop may have been busy since it was asked
            if self._timer is None:
                self._watch(self._timeout.seconds)
        self._transport.write(b"".join(out))

    def _watch(self, pause_s: float) -> None:
        self._due = self._loop.time() + pause_s
        self._timer = self._loop.call_later(pause_s, self._check)

    def _check(self) -> None:
        """Give up when no whole answer came in the time of one; the loop's own delays do not count."""
        self._timer = None
        if not self._waiting:
            return
        now, timeout_s = self._loop.time(), self._timeout.seconds
        if now - self._due > timeout_s / 4 and self._late_s < 20 * timeout_s:
            self._late_s += now - self._due
            self._watch(timeout_s)  # the loop was busy: the answer may lie there, or be on its way still
            return
        self._late_s = 0.0
        left = self._heard + allowed_s(timeout_s, 1, self._size) - now
        if left <= 0:
            self._fail(TimeoutError("no answer in time"))
        else:
            self._watch(left)

    def data_received(self, data: bytes) -> None:
        """Hand answers to whoever waits."""
        reader, waiting = self._reader, self._waiting
        self._size += len(data)
        reader.feed(data)
        while waiting:
            try:
                reply = reader.gets()
            except Misfit as error:
                self._fail(error)
                return
            if reply is False:
                return
            self._heard, self._size = self._loop.time(), 0  # bytes of an answer that is not whole are none
            answer = waiting.popleft()
            if not answer.done():  # a task that was cancelled takes nothing from the others
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server hung up."""
        self._fail(ConnectionError("closed by the server"))

    def _fail(self, error: Exception) -> None:
        self.close()
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)

    def close(self) -> None:
        """Hang up."""
        self.is_alive = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()


class AsyncReads:
    """Direct reads for the tasks of one loop."""

    def __init__(self, links: Links, timeout: Timeout) -> None:
        self._links, self._timeout = links, timeout
        self._hiredis = _hiredis()
        self._pipes: dict[Any, _Pipe] = {}
        self._opening: dict[Any, asyncio.Task[_Pipe]] = {}
        self._only: _Pipe | None = None

    async def get(self, key: str) -> Any:
        """Return the bytes of ``key``, ``None``, or ``REDO``."""
        pipe = self._only
        if pipe is None or not pipe.is_alive:
            if self._hiredis is None:
                return REDO
            pipe = await self._pipe_of(key)
        command = _get(key)
        try:
            reply = await pipe.ask(command)
        except ConnectionError:
            pipe = await self._pipe_of(key)  # it had been idle, or the server restarted: once more
            reply = await pipe.ask(command)
        return _plain(reply)

    async def run(self, command: Sequence[Any], key: str) -> Any:
        """Return the answer to one command about ``key``, an error as it is; or ``REDO``."""
        if self._hiredis is None:
            return REDO
        pipe = self._only
        if pipe is None or not pipe.is_alive:
            pipe = await self._pipe_of(key)
        data = pack(*command)
        try:
            return await pipe.ask(data)
        except ConnectionError:
            pipe = await self._pipe_of(key)  # as redis-py does, once
            return await pipe.ask(data)

    async def get_many(self, keys: Sequence[str]) -> list[Any]:
        """Return bytes, ``None`` or ``REDO`` for each key, in order."""
        if self._hiredis is None:
            return [REDO] * len(keys)
        if not self._links.is_cluster:
            pipe = self._only
            if pipe is None or not pipe.is_alive:
                pipe = await self._pipe_of(keys[0])
            out: list[Any] = []
            for start in range(0, len(keys), _RUN):
                part = keys[start : start + _RUN]
                command = _mget(part)
                try:
                    found = await pipe.ask(command)
                except ConnectionError:
                    pipe = await self._pipe_of(keys[0])
                    found = await pipe.ask(command)
                out += _row(found, len(part))
            return out
        client = self._links.async_client()
        await client.initialize()
        node_of = _node_finder(client)
        groups: dict[str, tuple[Any, list[int], list[bytes]]] = {}
        for n, key in enumerate(keys):
            data = key.encode()
            node = node_of(data)
            group = groups.get(node.name)
            if group is None:
                group = groups[node.name] = (node, [], [])
            group[1].append(n)
            group[2].append(_GET % (len(data), data))
        asked = []
        for name, (node, places, parts) in groups.items():
            pipe = self._pipes.get(name)
            if pipe is None or not pipe.is_alive:
                pipe = await self._open(name, node)
            asked.append((places, pipe.ask_many(b"".join(parts), len(parts))))
        out = [REDO] * len(keys)
        answers = await asyncio.gather(*(answer for _, answer in asked), return_exceptions=True)
        for (places, _), replies in zip(asked, answers, strict=True):
            if isinstance(replies, list):
                for n, reply in zip(places, replies, strict=True):
                    out[n] = _plain(reply)
            elif not isinstance(replies, ConnectionError):  # a lost connection: redis-py asks again
                raise replies
        return out

    async def _pipe_of(self, key: str) -> _Pipe:
        client = self._links.async_client()
        if not self._links.is_cluster:
            self._only = await self._open(None, client.connection_pool)
            return self._only
        await client.initialize()
        node = _node_finder(client)(key.encode())
        pipe = self._pipes.get(node.name)
        return pipe if pipe is not None and pipe.is_alive else await self._open(node.name, node)

    async def _open(self, at: Any, pool: Any) -> _Pipe:
        opening = self._opening.get(at)
        if opening is None:
            # One attempt for all who ask: behind a server that hangs they would wait one after the other.
            opening = self._opening[at] = asyncio.create_task(self._connect(at, pool))
            opening.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(opening)

    async def _connect(self, at: Any, pool: Any) -> _Pipe:
        try:
            pipe = self._pipes.get(at)
            if pipe is None or not pipe.is_alive:
                connection = pool.connection_class(**pool.connection_kwargs)
                async with Patience(self._timeout.seconds):
                    await connection.connect()
                pipe = self._pipes[at] = _Pipe(connection, _reader(self._hiredis), self._timeout)
            return pipe
        finally:
            del self._opening[at]

    def close(self) -> None:
        """Hang up everywhere."""
        pipes, self._pipes, self._only = self._pipes, {}, None
        for pipe in pipes.values():
            pipe._fail(ConnectionError("the cache was closed"))
