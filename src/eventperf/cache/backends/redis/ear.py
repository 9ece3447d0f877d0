"""One connection on which one master tells this process what is written there."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

from eventperf._core.extras import require
from eventperf._core.objects import read_json
from eventperf._redis.answers import Answers, Misread
from eventperf._redis.bounded import plain_socket

from .resp3 import INCOMPLETE, Reader, ReplyError, pack

HEARTBEAT_S: Final = 0.4
SILENCE_S: Final = 1.5
UNTRACKED: Final = "bus (no CLIENT TRACKING)"
REFUSED: Final = "none (CLIENT TRACKING not permitted)"
ROUND_TRIP: Final = "at:"

_NOBODY: Final = "\x00nobody:"
"""No key begins like this: asking to be told of no prefix at all would be asking to be told of all keys."""


class Ear:
    """An open connection, what it was asked for and what the server has confirmed.

    Args:
        node: A client of redis-py for the master, whose options the connection takes over.
    """

    def __init__(self, node: Any) -> None:
        self.name: Any = address(node)
        connection, resp = _connect(node.connection_pool)
        self.connection: Any = connection
        self.resp: int = resp
        self.socket: socket.socket = plain_socket(connection)
        self.answers: Answers = Answers()
        self.reader: Reader = Reader()
        self.heard: float = time.monotonic()
        self.asked: float = 0.0
        self.masters: frozenset[Any] | None = None
        self.tracks: bool = False
        self.confirmed: int = 0
        self.said_bye: bool = False

    def track(self, prefixes: Sequence[str] | None) -> str:
        """Ask to be told of writes under ``prefixes`` (``None``: of all); return how writes are told now."""
        if self.resp == 2:
            return UNTRACKED
        try:
            self.ask(*tracking(prefixes))
        except ReplyError as error:
            return REFUSED if str(error).startswith("NOPERM") else UNTRACKED
        self.tracks = True
        return "tracking"

    def ask(self, *command: str) -> None:
        """Send a command and wait for its answer; only before anything else is heard here."""
        self.socket.sendall(pack(*command))
        while True:
            reply = self.reader.gets()
            if reply is INCOMPLETE:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionError("closed by the server")
                self.feed(data)
            elif isinstance(reply, ReplyError):
                raise reply
            elif not isinstance(reply, list) or reply[0] == b"subscribe":
                return

    def send(self, data: bytes) -> None:
        """Send all of ``data``, however much, to a socket that does not block otherwise."""
        self.socket.settimeout(SILENCE_S)
        try:
            self.socket.sendall(data)
        finally:
            self.socket.setblocking(False)

    def recv(self) -> bytes:
        """Return what has arrived, ``b""`` for nothing yet.

        Raises:
            ConnectionError: The server hung up.
        """
        try:
            data = self.socket.recv(262144)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            return b""
        if not data:
            raise ConnectionError("closed by the server")
        return data

    def feed(self, data: bytes) -> None:
        """Give bytes to the reader.

        Raises:
            ConnectionError: They announce more than anything that a server says.
        """
        try:
            self.answers.look(data)
        except Misread as error:
            raise ConnectionError(str(error)) from error
        self.reader.feed(data)

    @property
    def holds_back(self) -> bool:
        """Whether TLS has deciphered bytes that a selector cannot see."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def heartbeat(self, now: float) -> None:
        """Ask a silent server for a sign of life; what answers tells the round trip.

        Raises:
            ConnectionError: It was asked, and stayed silent.
        """
        if now - self.heard > SILENCE_S:
            raise ConnectionError("silent beyond the heartbeat")
        if now - max(self.heard, self.asked) > HEARTBEAT_S:
            self.asked = now
            self.socket.send(pack("PING", f"{ROUND_TRIP}{now!r}"))

    def masters_are(self, slots: Sequence[Any]) -> None:
        """Compare an answer to ``CLUSTER SLOTS`` with the one before.

        Raises:
            ConnectionError: The cluster has other masters now.
        """
        masters = frozenset((text_of(part[2][0]), part[2][1]) for part in slots if len(part) > 2)
        if self.masters is not None and masters != self.masters:
            raise ConnectionError("the masters of the cluster have changed")
        self.masters = masters

    def close(self) -> None:
        """Hang up."""
        try:
            self.connection.disconnect()
        except (OSError, ValueError):
            return  # it is gone, which is what was wanted


def _connect(pool: Any) -> tuple[Any, int]:
    """Connect with RESP3, or with RESP2 where the server has no other."""
    errors = require("redis.exceptions", extra="cache", needed_by="RedisStore")
    options = {**pool.connection_kwargs, "socket_timeout": SILENCE_S}
    connection = pool.connection_class(**{**options, "protocol": 3})
    try:
        connection.connect()
        return connection, 3
    except (errors.AuthenticationError, errors.NoPermissionError):
        raise
    except (errors.ResponseError, errors.ConnectionError) as error:
        if not _is_refusal(error, errors.ResponseError):
            raise
    connection = pool.connection_class(**{**options, "protocol": 2})
    connection.connect()
    return connection, 2


def _is_refusal(error: BaseException, kind: type[BaseException]) -> bool:
    """Tell whether the server answered with an error, which some versions of redis-py wrap."""
    return isinstance(error, kind) or isinstance(error.__cause__ or error.__context__, kind)


def tracking(prefixes: Sequence[str] | None) -> list[str]:
    """Return the command that asks to be told of writes under these prefixes; of all for ``None``."""
    named = [] if prefixes is None else prefixes or [_NOBODY]
    return ["CLIENT", "TRACKING", "ON", "BCAST", *(part for one in named for part in ("PREFIX", one))]


def address(node: Any) -> Any:
    """Return host and port of a client."""
    options = node.connection_pool.connection_kwargs
    return options.get("host"), options.get("port")


def text_of(key: Any) -> str:
    """Return a key as text, whatever bytes it is."""
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def words_of(text: str) -> Sequence[str] | None:
    """Return the words of a message, ``None`` for one that is none of ours."""
    if not text.startswith("["):
        return (text,)
    try:
        words = read_json(text)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None
