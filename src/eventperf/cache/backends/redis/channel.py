"""The channel on which this process hears what others write: one small connection per master.

With ``coherence="tracking"`` the servers themselves tell us of every write under our prefixes (CLIENT
TRACKING in broadcast mode, RESP3), whoever wrote. With ``"bus"`` our processes tell each other by
publish/subscribe. Either way the same connection wakes callers who wait for a load of another process.
One daemon thread reads all connections; when one of them breaks or falls silent beyond the heartbeat,
process memory is emptied and stays off until all are back.

A server that knows neither RESP3 nor CLIENT TRACKING (an old one, or a proxy in front of a new one) is
followed as with ``"bus"``; a user who is not allowed to track gets no process memory at all, since others may
write without telling. ``mode`` says which it is.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventperf._core.extras import require
from eventperf.cache.keys import Space

from .resp3 import INCOMPLETE, Reader, ReplyError, pack

if TYPE_CHECKING:
    from eventperf.cache.engine.state import Core

_log = logging.getLogger("eventperf.cache")

HEARTBEAT_S = 0.4
SILENCE_S = 1.5
RETRY_S = 0.1
TOPOLOGY_S = 1.0


UNTRACKED = "bus (no CLIENT TRACKING)"
REFUSED = "none (CLIENT TRACKING not permitted)"


class _Ear:
    """One connection to one master."""

    def __init__(self, connection: Any, name: Any, resp: int) -> None:
        self.connection = connection
        self.name = name
        self.resp = resp
        self.socket: socket.socket = connection._sock
        self.reader = Reader()
        self.heard = time.monotonic()
        self.asked = 0.0
        self.masters: frozenset[Any] | None = None

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

    @property
    def holds_back(self) -> bool:
        """Whether TLS has deciphered bytes that a selector cannot see."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0


class Channel:
    """Follows the writes of other processes for one cache; started on first use in each process."""

    connected: bool

    def __init__(self, store: Any, coherence: str, *, wants_l1: bool) -> None:
        self._store = store
        self._asked_for = coherence
        self._wants_l1 = wants_l1
        self._prefixes: list[str] = []
        self.mode: str = coherence
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's thread and connections."""
        self._mu = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._up = threading.Event()
        self._again = False
        self._hush = False
        self._view: set[Any] = set()
        self.connected = False

    @property
    def hears(self) -> bool:
        """Whether a waiter would be woken."""
        return self.connected

    def is_up(self, core: Core) -> bool:
        """Tell whether others' writes are heard and, where that is allowed, process memory is in use."""
        return self.connected and (core.l1_open or core.l1 is None or self._hush)

    def add_prefix(self, space: Space) -> None:
        """Follow another namespace too; the connections are opened anew for it."""
        self._prefixes += [space.outer, space.tag_prefix]
        if not self._store.channel.endswith(":x:bus"):
            self._store.channel = f"{space.tag_prefix[:-2]}x:bus"  # outside every prefix that is followed
        self._again = True

    def ensure(self, core: Core) -> None:
        """Start listening, if this process does not yet."""
        if self._thread is not None or self._stop.is_set():
            return
        with self._mu:
            if self._thread is not None:
                return
            thread = threading.Thread(
                target=self._run, args=(core,), name="eventperf-cache-channel", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return  # no new threads at interpreter shutdown: reads go to the second tier
            self._thread = thread
        self._up.wait(0.25)  # a moment's patience saves the first callers their second trip

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(2.0)

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self, core: Core) -> None:
        pause = RETRY_S
        while not self._stop.is_set():
            ears: list[_Ear] = []
            try:
                ears = self._open_all(core)
                pause = RETRY_S
                self._set(core, True)
                self._listen(core, ears)
            except Exception as error:  # whatever breaks the channel: process memory stops, we try again
                _log.debug("cache channel: %s: %s", type(error).__name__, error)
            finally:
                self._set(core, False)
                self._up.set()
                for ear in ears:
                    _hang_up(ear)
            if not self._stop.wait(pause):
                pause = min(0.5, pause * 1.5)
                self._store.links.look_around()

    def _set(self, core: Core, connected: bool) -> None:
        if self.connected == connected:
            return
        self.connected = connected
        if self._asked_for != "ttl" and not (connected and self._hush):
            core.channel_state(connected)
        if connected:
            self._up.set()

    def _open_all(self, core: Core) -> list[_Ear]:
        ears: list[_Ear] = []
        self._again = self._hush = False
        mode = self._asked_for
        try:
            self._view = self._known()
            for node in self._store.links.masters():
                ear, found = self._open(node)
                ears.append(ear)
                mode = found if mode in (self._asked_for, UNTRACKED) else mode
        except BaseException:
            for ear in ears:
                _hang_up(ear)
            raise
        self._settle_on(core, mode)
        return ears

    def _settle_on(self, core: Core, mode: str) -> None:
        """Follow writes the way that every server allows, and say so when it is not the way asked for."""
        self._hush = mode == REFUSED
        if self._asked_for == "tracking":
            core.coherence = "bus" if mode == UNTRACKED else "tracking"
        if mode != self.mode and mode != self._asked_for:
            _log.warning("cache at %s: coherence is %s", self._store.url, mode)
        self.mode = mode

    def _open(self, node: Any) -> tuple[_Ear, str]:
        pool = node.connection_pool
        connection, resp = self._connect(pool)
        try:
            ear = _Ear(connection, _at(node), resp)
            mode = self._asked_for
            if mode == "tracking" and resp == 2:
                mode = UNTRACKED
            elif mode == "tracking" and self._wants_l1:
                mode = self._track(ear)
            self._ask(ear, "SUBSCRIBE", self._store.channel)
            ear.socket.setblocking(False)
        except BaseException:
            _disconnect(connection)
            raise
        return ear, mode

    def _connect(self, pool: Any) -> tuple[Any, int]:
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

    def _track(self, ear: _Ear) -> str:
        prefixes = [part for prefix in self._prefixes for part in ("PREFIX", prefix)]
        try:
            self._ask(ear, "CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
        except ReplyError as error:
            return REFUSED if str(error).startswith("NOPERM") else UNTRACKED
        return "tracking"

    @staticmethod
    def _ask(ear: _Ear, *command: str) -> None:
        ear.socket.sendall(pack(*command))
        while True:
            reply = ear.reader.gets()
            if reply is INCOMPLETE:
                data = ear.socket.recv(65536)
                if not data:
                    raise ConnectionError("closed by the server")
                ear.reader.feed(data)
            elif isinstance(reply, ReplyError):
                raise reply
            elif not isinstance(reply, list) or reply[0] == b"subscribe":
                return

    def _listen(self, core: Core, ears: list[_Ear]) -> None:
        with selectors.DefaultSelector() as selector:
            for ear in ears:
                selector.register(ear.socket, selectors.EVENT_READ, ear)
            checked = time.monotonic()
            while not self._stop.is_set() and not self._again:
                for key, _ in selector.select(HEARTBEAT_S / 2):
                    self._hear(core, key.data)
                now = time.monotonic()
                for ear in ears:
                    self._heartbeat(ear, now)
                if self._store.links.is_cluster and now - checked > TOPOLOGY_S / len(ears):
                    checked = now
                    self._check_masters(ears)

    def _hear(self, core: Core, ear: _Ear) -> None:
        while data := ear.recv():
            ear.heard = time.monotonic()
            ear.reader.feed(data)
            while (message := ear.reader.gets()) is not INCOMPLETE:
                if isinstance(message, ReplyError):
                    raise message
                if isinstance(message, list) and message:
                    self._told(core, ear, message)
            if not ear.holds_back:
                return

    def _told(self, core: Core, ear: _Ear, message: Sequence[Any]) -> None:
        if isinstance(message[0], list):
            self._masters_are(ear, message)
        elif message[0] == b"invalidate":
            keys = message[1]
            core.told(None if keys is None else [_text(key) for key in keys])
        elif message[0] == b"message":
            text = _text(message[2])
            # Scripts say one key as it is; we say a list. Namespaces are quoted, so no key begins like one.
            for key in json.loads(text) if text.startswith("[") else (text,):
                if key.startswith("*"):
                    core.told(None)
                else:
                    core.told_one(key)

    @staticmethod
    def _heartbeat(ear: _Ear, now: float) -> None:
        if now - ear.heard > SILENCE_S:
            raise ConnectionError("silent beyond the heartbeat")
        if now - max(ear.heard, ear.asked) > HEARTBEAT_S:
            ear.asked = now
            ear.socket.send(pack("PING"))

    def _known(self) -> set[Any]:
        return {_at(node) for node in self._store.links.masters()}

    def _check_masters(self, ears: list[_Ear]) -> None:
        """Open anew when the cluster has other masters than those we listen to.

        What the client has learnt from redirections is looked at here; what it cannot know (nobody asked
        for a key that moved) one of the masters is asked for, each in turn.
        """
        if self._known() != self._view:
            raise ConnectionError("the client knows other masters")
        ear = min(ears, key=lambda ear: ear.asked)
        if ear.resp == 3:
            ear.asked = time.monotonic()
            ear.socket.send(pack("CLUSTER", "SLOTS"))

    @staticmethod
    def _masters_are(ear: _Ear, slots: Sequence[Any]) -> None:
        masters = frozenset((_text(part[2][0]), part[2][1]) for part in slots if len(part) > 2)
        if ear.masters is not None and masters != ear.masters:
            raise ConnectionError("the masters of the cluster have changed")
        ear.masters = masters


def _is_refusal(error: BaseException, kind: type[BaseException]) -> bool:
    """Tell whether the server answered with an error, which some versions of redis-py wrap."""
    return isinstance(error, kind) or isinstance(error.__cause__ or error.__context__, kind)


def _at(node: Any) -> Any:
    options = node.connection_pool.connection_kwargs
    return options.get("host"), options.get("port")


def _text(key: Any) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def _hang_up(ear: _Ear) -> None:
    _disconnect(ear.connection)


def _disconnect(connection: Any) -> None:
    try:
        connection.disconnect()
    except (OSError, ValueError):
        return  # it is gone, which is what was wanted
