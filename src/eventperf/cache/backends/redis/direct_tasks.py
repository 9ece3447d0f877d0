"""Commands of tasks, sent directly: the tasks of a loop share one connection per node.

What they ask for in one turn of the loop leaves in one write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventperf._redis.answers import Answers, Misread

from .direct import (
    GET,
    REDO,
    RUN,
    allowed_s,
    find_hiredis,
    node_finder,
    pack_get,
    pack_mget,
    packed,
    plain_of,
    reader_of,
    row_of,
)
from .patience import Patience, Timeout

if TYPE_CHECKING:
    from .links import Links


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
        self._answers = Answers()
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
        try:
            self._answers.look(data)
        except Misread as error:
            self._fail(error)
            return
        reader.feed(data)
        while waiting:
            try:
                reply = reader.gets()
            except Misread as error:
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


class AsyncDirect:
    """Direct commands for the tasks of one loop."""

    def __init__(self, links: Links, timeout: Timeout) -> None:
        self._links, self._timeout = links, timeout
        self._hiredis = find_hiredis()
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
        command = pack_get(key)
        try:
            reply = await pipe.ask(command)
        except ConnectionError:
            pipe = await self._pipe_of(key)  # it had been idle, or the server restarted: once more
            reply = await pipe.ask(command)
        return plain_of(reply)

    async def run(self, command: Sequence[Any], key: str) -> Any:
        """Return the answer to one command about ``key``, an error as it is; or ``REDO``."""
        if self._hiredis is None:
            return REDO
        pipe = self._only
        if pipe is None or not pipe.is_alive:
            pipe = await self._pipe_of(key)
        data = packed(command)
        if not data:
            return REDO
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
            for start in range(0, len(keys), RUN):
                part = keys[start : start + RUN]
                command = pack_mget(part)
                try:
                    found = await pipe.ask(command)
                except ConnectionError:
                    pipe = await self._pipe_of(keys[0])
                    found = await pipe.ask(command)
                out += row_of(found, len(part))
            return out
        client = self._links.async_client()
        await client.initialize()
        node_of = node_finder(client)
        groups: dict[str, tuple[Any, list[int], list[bytes]]] = {}
        for n, key in enumerate(keys):
            data = key.encode()
            node = node_of(data)
            group = groups.get(node.name)
            if group is None:
                group = groups[node.name] = (node, [], [])
            group[1].append(n)
            group[2].append(GET % (len(data), data))
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
                    out[n] = plain_of(reply)
            elif not isinstance(replies, ConnectionError):  # a lost connection: redis-py asks again
                raise replies
        return out

    async def _pipe_of(self, key: str) -> _Pipe:
        client = self._links.async_client()
        if not self._links.is_cluster:
            self._only = await self._open(None, client.connection_pool)
            return self._only
        await client.initialize()
        node = node_finder(client)(key.encode())
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
                pipe = self._pipes[at] = _Pipe(connection, reader_of(self._hiredis), self._timeout)
            return pipe
        finally:
            del self._opening[at]

    def close(self) -> None:
        """Hang up everywhere."""
        pipes, self._pipes, self._only = self._pipes, {}, None
        for pipe in pipes.values():
            pipe._fail(ConnectionError("the cache was closed"))
