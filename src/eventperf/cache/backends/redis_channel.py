"""The channel on which this process hears what others write: one small connection per master.

With ``coherence="tracking"`` the servers themselves tell us of every write under our prefixes (CLIENT
TRACKING in broadcast mode, RESP3), whoever wrote. With ``"bus"`` our processes tell each other by
publish/subscribe. Either way the same connection wakes callers who wait for a load of another process.
One daemon thread reads all connections; when one of them breaks or falls silent beyond the heartbeat,
process memory is emptied and stays off until all are back.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventperf.cache.keys import Space

from .resp3 import INCOMPLETE, Push, Reader, ReplyError, pack

if TYPE_CHECKING:
    from eventperf.cache.core import Core

_log = logging.getLogger("eventperf.cache")

HEARTBEAT_S = 0.4
SILENCE_S = 1.5
RETRY_S = 0.1
TOPOLOGY_S = 1.0


class _Ear:
    """One connection to one master."""

    def __init__(self, connection: Any, name: Any) -> None:
        self.connection = connection
        self.name = name
        self.socket: socket.socket = connection._sock
        self.reader = Reader()
        self.heard = time.monotonic()
        self.asked = 0.0


class Channel:
    """Follows the writes of other processes for one cache; started on first use in each process."""

    connected: bool

    def __init__(self, store: Any, coherence: str, *, wants_l1: bool) -> None:
        self._store = store
        self._asked_for = coherence
        self._wants_l1 = wants_l1
        self._prefixes: list[str] = []
        self.mode = coherence
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's thread and connections."""
        self._mu = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._up = threading.Event()
        self._again = False
        self.connected = False

    @property
    def hears(self) -> bool:
        """Whether a waiter would be woken."""
        return self.connected

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
                ears = self._open_all()
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
            self._stop.wait(pause)
            pause = min(0.5, pause * 1.5)

    def _set(self, core: Core, connected: bool) -> None:
        if self.connected == connected:
            return
        self.connected = connected
        if self._asked_for != "ttl":
            core.channel_state(connected)
        if connected:
            self._up.set()

    def _open_all(self) -> list[_Ear]:
        ears: list[_Ear] = []
        self._again = False
        try:
            for node in self._store.links.masters():
                ears.append(self._open(node))  # noqa: PERF401 - what is open so far is hung up on failure
        except BaseException:
            for ear in ears:
                _hang_up(ear)
            raise
        return ears

    def _open(self, node: Any) -> _Ear:
        pool = node.connection_pool
        options = {**pool.connection_kwargs, "protocol": 3, "socket_timeout": SILENCE_S}
        connection = pool.connection_class(**options)
        connection.connect()
        ear = _Ear(connection, (options.get("host"), options.get("port")))
        if self._asked_for == "tracking" and self._wants_l1:
            prefixes = [part for prefix in self._prefixes for part in ("PREFIX", prefix)]
            self._ask(ear, "CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
        self._ask(ear, "SUBSCRIBE", self._store.channel)
        ear.socket.setblocking(False)
        return ear

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
            elif not isinstance(reply, Push) or reply[0] == b"subscribe":
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
                if self._store.links.is_cluster and now - checked > TOPOLOGY_S:
                    checked = now
                    self._check_masters(ears)

    def _hear(self, core: Core, ear: _Ear) -> None:
        try:
            data = ear.socket.recv(262144)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            raise ConnectionError("closed by the server")
        ear.heard = time.monotonic()
        ear.reader.feed(data)
        while True:
            # TLS may hold decrypted bytes back that select cannot see; recv until it would block.
            message = ear.reader.gets()
            if message is INCOMPLETE:
                return
            if isinstance(message, Push):
                self._told(core, message)
            elif isinstance(message, ReplyError):
                raise message

    def _told(self, core: Core, message: Sequence[Any]) -> None:
        if message[0] == b"invalidate":
            keys = message[1]
            core.told(None if keys is None else [_text(key) for key in keys])
        elif message[0] == b"message":
            for key in _text(message[2]).split("\n"):
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

    def _check_masters(self, ears: list[_Ear]) -> None:
        """Open anew when the cluster has other masters than those we listen to."""
        now = {_at(node) for node in self._store.links.masters()}
        if now != {ear.name for ear in ears}:
            raise ConnectionError("the masters of the cluster have changed")


def _at(node: Any) -> Any:
    options = node.connection_pool.connection_kwargs
    return options.get("host"), options.get("port")


def _text(key: Any) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def _hang_up(ear: _Ear) -> None:
    try:
        ear.connection.disconnect()
    except (OSError, ValueError):
        return  # it is gone, which is what was wanted
