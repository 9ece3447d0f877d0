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
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf.cache.protocols import BusState, Listener

from .resp3 import INCOMPLETE, Reader, ReplyError, pack

if TYPE_CHECKING:
    from .links import Links
    from .patience import Timeout

_log = logger("eventperf.cache")

HEARTBEAT_S = 0.4
SILENCE_S = 1.5
RETRY_S = 0.1
TOPOLOGY_S = 1.0


MOST_PREFIXES: Final = 16
"""With more, a server would compare every write of anybody with each: it is then asked to tell of all."""

_FOLLOWED, _BYE, _ROUND_TRIP = "followed:", "bye", "at:"
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
        self.tracks: bool = False
        self.followed: int = 0
        self.confirmed: int = 0
        self.said_bye: bool = False

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


class Mouth(Protocol):
    """What a channel needs of its store: connections, and a way to speak."""

    url: str
    channel: str
    timeout: Timeout

    @property
    def links(self) -> Links: ...

    def publish(self, message: bytes, /) -> None: ...

    async def apublish(self, message: bytes, /) -> None: ...


class Channel:
    """Follows the writes of other processes for one cache; started on first use in each process."""

    connected: bool

    def __init__(self, store: Mouth, coherence: str, *, wants_l1: bool) -> None:
        self._store = store
        self._asked_for = coherence
        self._wants_l1 = wants_l1
        self._prefixes: list[str] = []
        self.label: str = coherence
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's thread and connections."""
        self._mu = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._up = threading.Event()
        self._heard_all = threading.Condition(threading.Lock())
        self._followed = 0
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._mode = self._asked_for
        self._view: set[Any] = set()
        self._ears: list[_Ear] = []
        self.connected = False

    # -- which keys ----------------------------------------------------------------------------------

    def follow(self, prefixes: Sequence[str], /) -> None:
        """Tell of keys that begin like these too; waits a moment until the servers do.

        Past ``MOST_PREFIXES`` everything is followed, so that further namespaces cost nothing at all.
        """
        self._prefixes += [prefix for prefix in prefixes if len(self._prefixes) <= MOST_PREFIXES]
        if not self.connected or self.follows(prefixes[0]):
            return
        self._ring()
        with self._heard_all:
            self._heard_all.wait_for(lambda: self.follows(prefixes[0]) or not self.connected, 0.25)

    def follows(self, prefix: str, /) -> bool:
        """Whether keys that begin like this are told of by now."""
        if self._mode != "tracking" or self._followed > MOST_PREFIXES:
            return True  # the bus carries every namespace; or all keys are followed
        return prefix in self._prefixes[: self._followed]

    def _wanted(self) -> list[str]:
        return [] if len(self._prefixes) > MOST_PREFIXES else list(self._prefixes)

    def _ring(self) -> None:
        """Interrupt the thread's sleep."""
        bell = self._bell
        if bell is not None:
            try:
                bell[1].send(b"!")
            except OSError:
                return  # it rings already, or the thread is ending

    # -- beginning and end ---------------------------------------------------------------------------

    def start(self, listener: Listener, /) -> None:
        """Start listening, if this process does not yet."""
        if self._thread is not None or self._stop.is_set():
            return
        with self._mu:
            if self._thread is not None:
                return
            thread = threading.Thread(
                target=self._run, args=(listener,), name="eventperf-cache-channel", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return  # no new threads at interpreter shutdown: reads go to the second tier
            self._thread = thread
        self._up.wait(0.25)  # a moment's patience saves the first callers their second trip

    def publish(self, message: bytes, /) -> None:
        """Tell the other processes of this namespace."""
        self._store.publish(message)

    async def apublish(self, message: bytes, /) -> None:
        """Tell the other processes of this namespace."""
        await self._store.apublish(message)

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(2.0)

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self, listener: Listener) -> None:
        pause = RETRY_S
        bell = self._bell = socket.socketpair()
        for end in bell:
            end.setblocking(False)
        try:
            while not self._stop.is_set():
                ears: list[_Ear] = []
                try:
                    ears = self._open_all()
                    pause = RETRY_S
                    self._say(listener, True)
                    while not self._stop.is_set():
                        ears = self._listen(listener, ears)
                except Exception as error:  # whatever breaks the channel: process memory stops, we try again
                    _log.debug("cache channel: %s: %s", type(error).__name__, error)
                finally:
                    self._say(listener, False)
                    self._up.set()
                    for ear in ears:
                        _disconnect(ear.connection)
                if not self._stop.wait(pause):
                    pause = min(0.5, pause * 1.5)
                    self._store.links.look_around()
        finally:
            self._bell = None
            for end in bell:
                end.close()

    def _say(self, listener: Listener, connected: bool) -> None:
        if self.connected == connected:
            return
        self.connected = connected
        way = {UNTRACKED: "bus", REFUSED: "none"}.get(self._mode, self._mode)
        listener.on_state(BusState(connected, way, self.label))
        with self._heard_all:
            self._heard_all.notify_all()
        if connected:
            self._up.set()

    def _open_all(self) -> list[_Ear]:
        ears: list[_Ear] = []
        mode, followed = self._asked_for, len(self._prefixes)
        try:
            self._view = self._known()
            for node in self._store.links.masters():
                ear, found = self._open(node)
                ear.followed = followed
                ears.append(ear)
                mode = found if mode in (self._asked_for, UNTRACKED) else mode
        except BaseException:
            for ear in ears:
                _disconnect(ear.connection)
            raise
        if mode != self.label and mode != self._asked_for:
            _log.warning(
                "cache at %s: coherence is %s: %s", self._store.url, mode,
                "process memory stays off" if mode == REFUSED else "writes of other clients are not heard",
            )  # fmt: skip
        self.label = self._mode = mode
        self._followed = followed
        for ear in ears:
            ear.confirmed = followed
        self._ears = ears
        return ears

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
        try:
            self._ask(ear, *_tracking(self._wanted()))
            ear.tracks = True
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

    def _listen(self, listener: Listener, ears: list[_Ear]) -> list[_Ear]:
        """Hear until other ears are needed; return them."""
        with selectors.DefaultSelector() as selector:
            for ear in ears:
                selector.register(ear.socket, selectors.EVENT_READ, ear)
            if self._bell is not None:
                selector.register(self._bell[0], selectors.EVENT_READ, None)
            checked = time.monotonic()
            while not self._stop.is_set():
                for key, _ in selector.select(HEARTBEAT_S / 2):
                    if key.data is None:
                        self._bell_rang()
                    else:
                        self._hear(listener, key.data)
                if self._followed < len(self._prefixes) and not self._follow_more(ears):
                    return self._follow_all(listener, ears)
                now = time.monotonic()
                for ear in ears:
                    self._heartbeat(ear, now)
                if self._store.links.is_cluster and now - checked > TOPOLOGY_S / len(ears):
                    checked = now
                    self._check_masters(ears)
        return ears

    def _bell_rang(self) -> None:
        try:
            if self._bell is not None:
                self._bell[0].recv(64)
        except BlockingIOError:
            return

    def _follow_more(self, ears: list[_Ear]) -> bool:
        """Ask every master to tell of the new prefixes too; false when it is to be all of them."""
        wanted = len(self._prefixes)
        tracking = [ear for ear in ears if ear.tracks]
        if tracking and wanted > MOST_PREFIXES:
            return False
        for ear in tracking:
            if ear.followed < wanted:
                new = self._prefixes[ear.followed : wanted]
                ear.followed = wanted
                # What answers PING comes after everything that was written before the prefixes counted.
                ear.socket.sendall(pack(*_tracking(new)) + pack("PING", f"{_FOLLOWED}{wanted}"))
        if not tracking:
            self._are_followed(wanted)
        return True

    def _are_followed(self, count: int) -> None:
        with self._heard_all:
            self._followed = max(self._followed, count)
            self._heard_all.notify_all()

    def _follow_all(self, listener: Listener, ears: list[_Ear]) -> list[_Ear]:
        """Change over to connections that follow every key; the old ones are heard to their end first."""
        fresh = self._open_all()
        try:
            for ear in ears:
                ear.socket.setblocking(True)
                ear.socket.sendall(pack("PING", _BYE))
                while not ear.said_bye:
                    self._hear(listener, ear, once=True)
        finally:
            for ear in ears:
                _disconnect(ear.connection)
        self._are_followed(self._followed)
        return fresh

    def _hear(self, listener: Listener, ear: _Ear, *, once: bool = False) -> None:
        while data := ear.recv():
            ear.heard = time.monotonic()
            ear.reader.feed(data)
            while (message := ear.reader.gets()) is not INCOMPLETE:
                if isinstance(message, ReplyError):
                    raise message
                if isinstance(message, list) and message:
                    self._told(listener, ear, message)
                elif isinstance(message, bytes):
                    self._answered(ear, message.decode("ascii", "replace"))
            if once or not ear.holds_back:
                return

    def _answered(self, ear: _Ear, text: str) -> None:
        if text == _BYE:
            ear.said_bye = True
        elif text.startswith(_ROUND_TRIP):
            self._store.timeout.measured(max(0.0, time.monotonic() - float(text[len(_ROUND_TRIP) :])))
        elif text.startswith(_FOLLOWED):
            ear.confirmed = int(text[len(_FOLLOWED) :])
            self._are_followed(min(other.confirmed for other in self._ears if other.tracks))

    def _told(self, listener: Listener, ear: _Ear, message: Sequence[Any]) -> None:
        if isinstance(message[0], list):
            self._masters_are(ear, message)
        elif message[0] == b"invalidate":
            keys = message[1]
            listener.on_keys(None if keys is None else [_text(key) for key in keys])
        elif message[0] == b"message":
            text = _text(message[2])
            # Scripts say one key as it is; we say a list. Namespaces are quoted, so no key begins like one.
            for key in json.loads(text) if text.startswith("[") else (text,):
                if key.startswith("*"):
                    listener.on_keys(None)
                else:
                    listener.on_word(key)
        elif message[0] == b"pong" and len(message) > 1 and message[1]:  # RESP2, while subscribed
            self._answered(ear, _text(message[1]))

    @staticmethod
    def _heartbeat(ear: _Ear, now: float) -> None:
        if now - ear.heard > SILENCE_S:
            raise ConnectionError("silent beyond the heartbeat")
        if now - max(ear.heard, ear.asked) > HEARTBEAT_S:
            ear.asked = now
            ear.socket.send(pack("PING", f"{_ROUND_TRIP}{now!r}"))

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


def _tracking(prefixes: Sequence[str]) -> list[str]:
    """Return the command that asks to be told of these keys; of all keys without any."""
    return ["CLIENT", "TRACKING", "ON", "BCAST", *(part for one in prefixes for part in ("PREFIX", one))]


def _is_refusal(error: BaseException, kind: type[BaseException]) -> bool:
    """Tell whether the server answered with an error, which some versions of redis-py wrap."""
    return isinstance(error, kind) or isinstance(error.__cause__ or error.__context__, kind)


def _at(node: Any) -> Any:
    options = node.connection_pool.connection_kwargs
    return options.get("host"), options.get("port")


def _text(key: Any) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def _disconnect(connection: Any) -> None:
    try:
        connection.disconnect()
    except (OSError, ValueError):
        return  # it is gone, which is what was wanted
