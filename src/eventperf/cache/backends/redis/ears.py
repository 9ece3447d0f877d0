"""How this process hears what others write: one thread, and one small connection per master, for all caches.

With ``coherence="tracking"`` the servers themselves tell us of every write under our prefixes (CLIENT
TRACKING in broadcast mode, RESP3), whoever wrote. With ``"bus"`` our processes tell each other by
publish/subscribe. Either way the same connection wakes callers who wait for a load of another process.
When one of the connections breaks or falls silent beyond the heartbeat, the process memory of every cache
that listens is emptied and stays off until all are back.

A server that knows neither RESP3 nor CLIENT TRACKING (an old one, or a proxy in front of a new one) is
followed as with ``"bus"``; a user who is not allowed to track gets no process memory at all, since others may
write without telling.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from eventperf._core.logs import logger

from .ear import HEARTBEAT_S, REFUSED, ROUND_TRIP, UNTRACKED, Ear, address, text_of, tracking, words_of
from .resp3 import INCOMPLETE, ReplyError, pack

if TYPE_CHECKING:
    from .links import Links
    from .patience import Timeout

_log = logger("eventperf.cache")

RETRY_S: Final = 0.1
TOPOLOGY_S: Final = 1.0
MOST_PREFIXES: Final = 16
"""With more, a server would compare every write of anybody with each: it is then asked to tell of all."""
PATIENCE_S: Final = 0.25
"""A moment's patience saves the first callers their second trip."""

_FOLLOWED, _BYE = "followed:", "bye"


class Mouth(Protocol):
    """The server that is heard."""

    url: str
    timeout: Timeout
    links: Links


class Member(Protocol):
    """Who hears with us: one cache.

    Attributes:
        name: The channel on which its processes speak; it begins with the namespace and a colon.
        prefixes: Keys to be told of, at most one more than ``MOST_PREFIXES``.
        serial: The number of its last request.
    """

    name: str
    prefixes: list[str]
    serial: int

    def on_keys(self, outers: Sequence[str] | None, /) -> None: ...

    def on_word(self, outer: str, /) -> None: ...

    def on_way(self, way: str | None, /) -> None:
        """Writes are told in this way from now on; not at all for ``None``."""


class Ears:
    """Hears for many caches; its thread runs while there are any.

    A member is told of what is written in its namespaces alone. It says what it wants by requests, which are
    numbered: one is fulfilled when every master has confirmed its number.
    """

    def __init__(self, server: Mouth, *, tracks: bool) -> None:
        self._server = server
        self._wants_tracking = tracks
        self._changed = threading.Condition()
        self._members: weakref.WeakSet[Any] = weakref.WeakSet()
        self._rooms: dict[str, weakref.WeakSet[Any]] = {}
        self._everywhere: weakref.WeakSet[Any] = weakref.WeakSet()
        self._new: list[Any] = []
        self._serial = 0
        self._ended = False
        self._fails = False
        self._thread: threading.Thread | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._pid = os.getpid()
        # What follows is written by the thread alone.
        self.way: str | None = None
        self._is_odd_told = False
        self._confirmed = 0
        self._prefixes: dict[str, int] = {}
        self._names: set[str] = set()
        self._view: set[Any] = set()
        self._ears: list[Ear] = []

    # -- members -------------------------------------------------------------------------------------

    def join(self, member: Member) -> bool:
        """Hear for ``member`` too, also for what it wants beyond before; false when this has ended."""
        with self._changed:
            if self._ended:
                return False
            self._serial += 1
            member.serial = self._serial
            self._members.add(member)
            self._new.append(member)
            if len(member.prefixes) > MOST_PREFIXES:
                self._everywhere.add(member)
            for head in _heads(member):
                self._rooms.setdefault(head, weakref.WeakSet()).add(member)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="eventperf-cache-channel", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    self._fails = True
                    return True  # no new threads at interpreter shutdown: reads go to the second tier
                self._thread = thread
        self._ring()
        return True

    def wait(self, is_done: Callable[[], bool]) -> None:
        """Wait a moment until a member has what it wants, unless the server cannot be heard anyway."""
        with self._changed:
            self._changed.wait_for(lambda: is_done() or self._fails or self._ended, PATIENCE_S)

    def follows(self, prefix: str) -> bool:
        """Whether keys that begin like this are told of by now."""
        if self.way != "tracking" or len(self._prefixes) > MOST_PREFIXES:
            return True  # the bus carries every namespace; or all keys are followed
        return self._prefixes.get(prefix, self._serial + 1) <= self._confirmed

    def leave(self, member: Member) -> None:
        """Hear for it no more; with the last one the connections end."""
        with self._changed:
            self._members.discard(member)
            self._everywhere.discard(member)
            for head in _heads(member):
                self._rooms.get(head, self._everywhere).discard(member)
            self._ended = self._ended or not self._members
        if self._ended:
            self.close()

    def close(self) -> None:
        """Hear nothing any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(2.0)

    def _ring(self) -> None:
        """Interrupt the thread's sleep."""
        bell = self._bell
        if bell is not None:
            try:
                bell[1].send(b"!")
            except OSError:
                return  # it rings already, or the thread is ending

    def _is_wanted(self) -> bool:
        with self._changed:
            self._ended = self._ended or not self._members  # forgotten, all of them, without a word
            return not self._ended

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = RETRY_S
        bell = self._bell = socket.socketpair()
        for end in bell:
            end.setblocking(False)
        try:
            while self._is_wanted():
                ears: list[Ear] = []
                try:
                    ears = self._open_all()
                    pause = RETRY_S
                    self._confirm(self._confirmed)
                    while self._is_wanted():
                        ears = self._listen(ears)
                except Exception as error:  # whatever breaks: process memory stops, we try again
                    _log.debug("cache channel: %s: %s", type(error).__name__, error)
                finally:
                    self._deaf()
                    for ear in ears:
                        ear.close()
                if self._is_wanted():
                    self._sleep(pause)
                    pause = min(0.5, pause * 1.5)
                    self._server.links.look_around()
        finally:
            self._bell = None
            for end in bell:
                end.close()

    def _sleep(self, pause_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended, pause_s)

    def _open_all(self) -> list[Ear]:
        """Connect to every master, and ask for all that every member wants."""
        with self._changed:
            members, serial = list(self._members), self._serial
            self._new.clear()
        prefixes = dict.fromkeys((prefix for one in members for prefix in one.prefixes), serial)
        names = {one.name for one in members}
        everything = len(prefixes) > MOST_PREFIXES
        ways: list[str] = []
        ears: list[Ear] = []
        try:
            self._view = self._known()
            for node in self._server.links.masters():
                ear = Ear(node)
                ears.append(ear)
                if self._wants_tracking:
                    ways.append(ear.track(None if everything else list(prefixes)))
                ear.ask("SUBSCRIBE", *names)
                ear.confirmed = serial
                ear.socket.setblocking(False)
        except BaseException:
            for ear in ears:
                ear.close()
            raise
        way = next((way for way in (REFUSED, UNTRACKED) if way in ways), "tracking" if ways else "bus")
        if way in (REFUSED, UNTRACKED) and way != self.way and prefixes:
            _log.warning(
                "cache at %s: coherence is %s: %s", self._server.url, way,
                "process memory stays off" if way == REFUSED else "writes of other clients are not heard",
            )  # fmt: skip
        self.way, self._prefixes, self._names, self._ears = way, prefixes, names, ears
        self._confirmed = serial
        return ears

    def _listen(self, ears: list[Ear]) -> list[Ear]:
        """Hear until other ears are needed; return them."""
        with selectors.DefaultSelector() as selector:
            for ear in ears:
                selector.register(ear.socket, selectors.EVENT_READ, ear)
            if self._bell is not None:
                selector.register(self._bell[0], selectors.EVENT_READ, None)
            checked = time.monotonic()
            while self._is_wanted():
                for key, _ in selector.select(HEARTBEAT_S / 2):
                    if key.data is None:
                        self._bell_rang()
                    else:
                        self._hear(key.data)
                if self._new and not self._ask_more(ears):
                    return self._follow_all(ears)
                now = time.monotonic()
                for ear in ears:
                    ear.heartbeat(now)
                if now - checked > TOPOLOGY_S / len(ears):
                    checked = now
                    self._tidy(ears)
                    if self._server.links.is_cluster:
                        self._check_masters(ears)
        return ears

    def _bell_rang(self) -> None:
        try:
            if self._bell is not None:
                self._bell[0].recv(4096)
        except BlockingIOError:
            return

    # -- what is asked for ---------------------------------------------------------------------------

    def _ask_more(self, ears: list[Ear]) -> bool:
        """Ask every master for what the new members want; false when it is to be all keys."""
        with self._changed:
            new, self._new = self._new, []
            serial = self._serial
        more = list(dict.fromkeys(p for one in new for p in one.prefixes if p not in self._prefixes))
        everything = len(self._prefixes) > MOST_PREFIXES
        if self.way == "tracking" and not everything and len(self._prefixes) + len(more) > MOST_PREFIXES:
            return False
        if not everything:
            self._prefixes = {**self._prefixes, **dict.fromkeys(more[: MOST_PREFIXES + 1], serial)}
        names = {one.name for one in new} - self._names
        self._names |= names
        # What answers PING comes after everything that was written before the prefixes counted.
        asked = pack("PING", f"{_FOLLOWED}{serial}")
        if names:
            asked = pack("SUBSCRIBE", *names) + asked
        told = pack(*tracking(more)) if more and not everything else b""
        for ear in ears:
            ear.send(told + asked if ear.tracks else asked)
        return True

    def _follow_all(self, ears: list[Ear]) -> list[Ear]:
        """Change over to connections that follow every key; the old ones are heard to their end first."""
        fresh = self._open_all()
        try:
            for ear in ears:
                ear.socket.setblocking(True)
                ear.socket.sendall(pack("PING", _BYE))
                while not ear.said_bye:
                    self._hear(ear, once=True)
        except BaseException:
            for ear in fresh:
                ear.close()
            raise
        finally:
            for ear in ears:
                ear.close()
        self._confirm(self._confirmed)
        return fresh

    def _tidy(self, ears: list[Ear]) -> None:
        """Forget the namespaces of those who left."""
        with self._changed:
            for head in [head for head, room in self._rooms.items() if not room]:
                del self._rooms[head]
            gone = self._names - {one.name for one in self._members}
        self._names -= gone
        if gone:
            for ear in ears:
                ear.send(pack("UNSUBSCRIBE", *gone))

    # -- what is told to members ---------------------------------------------------------------------

    def _confirm(self, serial: int) -> None:
        """Tell those whose requests up to this number are fulfilled by now."""
        self._confirmed = serial
        with self._changed:
            self._fails = False
            members = [one for one in self._members if one.serial <= serial]
        for one in members:
            one.on_way(self.way)
        with self._changed:
            self._changed.notify_all()

    def _deaf(self) -> None:
        """Tell all that nothing is heard now."""
        with self._changed:
            self._fails = True
            members = list(self._members)
        for one in members:
            one.on_way(None)
        with self._changed:
            self._changed.notify_all()

    def _room(self, outer: str) -> Iterable[Any]:
        """Return who wants to hear of a namespace, by a key or a channel of it."""
        with self._changed:
            room = self._rooms.get(outer.partition(":")[0])
            return {*room, *self._everywhere} if room is not None else list(self._everywhere)

    def _all(self) -> list[Any]:
        with self._changed:
            return list(self._members)

    def _written(self, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            for one in self._all():
                one.on_keys(None)
            return
        by_head: dict[str, list[str]] = {}
        for outer in map(text_of, keys):
            by_head.setdefault(outer.partition(":")[0], []).append(outer)
        for outers in by_head.values():
            for one in self._room(outers[0]):
                one.on_keys(outers)

    def _said(self, channel: str, text: str) -> None:
        # Scripts say one key as it is; we say a list. Namespaces are quoted, so no key begins like one.
        words = words_of(text)
        if words is None and not self._is_odd_told:
            self._is_odd_told = True
            text = f"{text[:80]!r} comes from no cache and counts as a write of anything"
            _log.warning("cache channel %s: %s; keep other programs off it", channel, text)
        for one in self._room(channel):
            for word in ("*",) if words is None else words:
                if word.startswith("*"):
                    one.on_keys(None)
                else:
                    one.on_word(word)

    # -- what is heard -------------------------------------------------------------------------------

    def _hear(self, ear: Ear, *, once: bool = False) -> None:
        while data := ear.recv():
            ear.heard = time.monotonic()
            ear.feed(data)
            while (message := ear.reader.gets()) is not INCOMPLETE:
                if isinstance(message, ReplyError):
                    raise message
                if isinstance(message, list) and message:
                    self._told(ear, message)
                elif isinstance(message, bytes):
                    self._answered(ear, message.decode("ascii", "replace"))
            ear.heard = time.monotonic()  # what took long was our own work
            if once or not ear.holds_back:
                return

    def _told(self, ear: Ear, message: Sequence[Any]) -> None:
        if isinstance(message[0], list):
            ear.masters_are(message)
        elif message[0] == b"invalidate":
            self._written(message[1])
        elif message[0] == b"message":
            self._said(text_of(message[1]), text_of(message[2]))
        elif message[0] == b"pong" and len(message) > 1 and message[1]:  # RESP2, while subscribed
            self._answered(ear, text_of(message[1]))

    def _answered(self, ear: Ear, text: str) -> None:
        if text == _BYE:
            ear.said_bye = True
        elif text.startswith(ROUND_TRIP):
            self._server.timeout.measured(max(0.0, time.monotonic() - float(text[len(ROUND_TRIP) :])))
        elif text.startswith(_FOLLOWED):
            ear.confirmed = int(text[len(_FOLLOWED) :])
            serial = min(other.confirmed for other in self._ears)
            if serial > self._confirmed:
                self._confirm(serial)

    def _known(self) -> set[Any]:
        return {address(node) for node in self._server.links.masters()}

    def _check_masters(self, ears: list[Ear]) -> None:
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


def _heads(member: Member) -> set[str]:
    """Return the namespaces that a member wants to hear of, as keys and channels begin."""
    return {name.partition(":")[0] for name in (member.name, *member.prefixes)}
