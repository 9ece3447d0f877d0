"""Commands of threads, sent directly: each takes a connection from a small stock for the time of a call.

All nodes of a cluster are asked before the first answer is read.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventperf._redis.answers import Answers
from eventperf._redis.bounded import plain_socket

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
    primary_of,
    reader_of,
    row_of,
)
from .patience import LARGE

if TYPE_CHECKING:
    from .links import Links

_ROUND: Final = 4096  # keys asked for before the first answer is read


class _Link:
    """One connection of a thread for the time of a call."""

    __slots__ = ("_started", "_timeout_s", "answers", "connection", "reader", "sock", "used")

    def __init__(self, connection: Any, reader: Any) -> None:
        self.connection: Any = connection
        self.sock: Any = plain_socket(connection)
        self.answers: Answers = Answers()
        self.reader: Any = reader
        self.used: bool = False
        self._timeout_s: float | None = self.sock.gettimeout()
        self._started = 0.0

    def send(self, data: bytes) -> None:
        """Send a question; what is large is given the time that it needs on its way."""
        self._started = time.monotonic()
        if len(data) <= LARGE or self._timeout_s is None:
            self.sock.sendall(data)
            return
        end, rest = self._started + allowed_s(self._timeout_s, 1, len(data)), memoryview(data)
        try:
            while rest:
                # A step at a time: over TLS the time-out would hold for each record, not for all of them.
                self._wait_until(end)
                rest = rest[self.sock.send(rest[:LARGE]) :]
        finally:
            self.sock.settimeout(self._timeout_s)

    def receive(self, count: int, sent: int, *, anew: bool = False) -> list[Any]:
        """Return so many replies, all in the time that question and answers may take together.

        Args:
            count: How many replies belong to the question.
            sent: The bytes of the question.
            anew: Another node was waited for first: the time begins now.
        """
        reader, sock, look = self.reader, self.sock, self.answers.look
        out: list[Any] = []
        size = sent if sent > LARGE else 0
        is_bounded = bool(size)
        if anew:
            self._started = time.monotonic()
        try:
            while True:
                if is_bounded:
                    self._wait_no_longer(count, size, is_large=sent > LARGE)
                data = sock.recv(262144)
                if not data:
                    raise ConnectionError("closed by the server")
                look(data)
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
                is_bounded = True
        finally:
            if is_bounded:
                sock.settimeout(self._timeout_s)

    def _wait_no_longer(self, count: int, size: int, *, is_large: bool) -> None:
        """Let the next bytes come only while the whole answer is in time: a line that drips is silent too.

        After a large question the answer may be quiet for longer: much of it is still on its way.
        """
        if self._timeout_s is not None:
            end = self._started + allowed_s(self._timeout_s, count, size)
            self._wait_until(end, math.inf if is_large else self._timeout_s)

    def _wait_until(self, end: float, at_most: float = math.inf) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole answer in time")
        self.sock.settimeout(min(left, at_most))

    def close(self) -> None:
        self.connection.disconnect()


class _Asked(NamedTuple):
    """What one node is asked: its name, redis-py's pool for it, the commands and how many they are."""

    at: Any
    pool: Any
    data: bytes
    replies: int


class Direct:
    """Direct commands for threads.

    Args:
        links: Where connections come from.
        at_most: Connections per node; a caller beyond that goes through redis-py, and waits there.
    """

    def __init__(self, links: Links, at_most: int) -> None:
        self._links, self._at_most = links, at_most
        self._hiredis = find_hiredis()
        self._forget()

    def _forget(self) -> None:
        self._mu = threading.RLock()
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
            if not isinstance(plain_socket(connection), socket.socket):
                raise ConnectionError("not a socket")
            return _Link(connection, reader_of(self._hiredis))
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
            link.send(one.data)
        except TimeoutError:
            raise
        except OSError:
            if (again := self._renew(links, n, one)) is not None:
                again.send(one.data)

    def _receive(self, links: list[_Link | None], n: int, one: _Asked) -> list[Any] | None:
        link = links[n]
        if link is None:
            return None
        try:
            return link.receive(one.replies, len(one.data), anew=n > 0)
        except TimeoutError:
            raise
        except OSError:
            again = self._renew(links, n, one)
            if again is None:
                return None
            again.send(one.data)
            return again.receive(one.replies, len(one.data))

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

    def _one(self, key: str, data: bytes) -> Any:
        """Return the answer to one command about ``key``, an error as it is; or ``REDO``."""
        client = self._links.client()
        at = None
        if self._links.is_cluster:
            at, pool = primary_of(client, key)
        else:
            pool = client.connection_pool
        replies = self._ask([_Asked(at, pool, data, 1)])[0]
        return REDO if replies is None else replies[0]

    def run(self, command: Sequence[Any], key: str) -> Any:
        """Return the answer to one command about ``key``, an error as it is; or ``REDO``."""
        return REDO if self._hiredis is None or not (data := packed(command)) else self._one(key, data)

    def run_many(self, commands: Sequence[Sequence[Any]], keys: Sequence[str]) -> list[Any]:
        """Return the answers to commands about ``keys``, errors as they are, or ``REDO``, in order."""
        data = [packed(command) for command in commands]
        if self._hiredis is None or not all(data):
            return [REDO] * len(commands)
        client = self._links.client()
        if self._links.is_cluster:
            return self._by_node(client, list(zip(map(str.encode, keys), data, strict=True)))
        replies = self._ask([_Asked(None, client.connection_pool, b"".join(data), len(data))])[0]
        return [REDO] * len(commands) if replies is None else replies

    def get(self, key: str) -> Any:
        """Return the bytes of ``key``, ``None``, or ``REDO``."""
        if self._hiredis is None:
            return REDO
        reply = self._one(key, pack_get(key))
        return reply if reply is REDO else plain_of(reply)

    def get_many(self, keys: Sequence[str]) -> list[Any]:
        """Return bytes, ``None`` or ``REDO`` for each key, in order; one round trip per node."""
        if self._hiredis is None:
            return [REDO] * len(keys)
        client = self._links.client()
        if not self._links.is_cluster:
            return self._of_one(client.connection_pool, keys)
        out: list[Any] = []
        for start in range(0, len(keys), _ROUND):
            part = [key.encode() for key in keys[start : start + _ROUND]]
            replies = self._by_node(client, [(key, GET % (len(key), key)) for key in part])
            out += [reply if reply is REDO else plain_of(reply) for reply in replies]
        return out

    def _of_one(self, pool: Any, keys: Sequence[str]) -> list[Any]:
        out: list[Any] = []
        for start in range(0, len(keys), RUN):
            part = keys[start : start + RUN]
            replies = self._ask([_Asked(None, pool, pack_mget(part), 1)])[0]
            out += row_of(REDO if replies is None else replies[0], len(part))
        return out

    def _by_node(self, client: Any, questions: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        """Return the answers to commands, each given with its key, in order; one round trip per node."""
        groups: dict[Any, tuple[Any, list[int], list[bytes]]] = {}
        node_of = node_finder(client)
        for n, (key, data) in enumerate(questions):
            node = node_of(key)
            group = groups.get(node.name)
            if group is None:
                group = groups[node.name] = (client.get_redis_connection(node).connection_pool, [], [])
            group[1].append(n)
            group[2].append(data)
        asked = [_Asked(at, pool, b"".join(parts), len(parts)) for at, (pool, _, parts) in groups.items()]
        out: list[Any] = [REDO] * len(questions)
        for (_, places, _), replies in zip(groups.values(), self._ask(asked), strict=True):
            for n, reply in zip(places, replies or (), strict=False):
                out[n] = reply
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
