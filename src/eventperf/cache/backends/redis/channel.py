"""What one cache hears of the writes of others, through the ears that all caches on its server share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from eventperf.cache.protocols import BusState, Listener

from .ear import REFUSED, UNTRACKED
from .ears import MOST_PREFIXES, Ears, Member


class Hears(Protocol):
    """A server that many caches hear together."""

    def ears_for(self, member: Member, *, tracks: bool) -> Ears: ...


class Mouth(Protocol):
    """What a channel needs of its store: a way to speak, and a server."""

    channel: str

    @property
    def server(self) -> Hears: ...

    def publish(self, message: bytes, /) -> None: ...

    async def apublish(self, message: bytes, /) -> None: ...


class Channel:
    """Follows the writes of other processes for one cache; started on first use in each process."""

    connected: bool

    def __init__(self, store: Mouth, coherence: str, *, wants_l1: bool) -> None:
        self._store = store
        self._asked_for = coherence
        self._wants_l1 = wants_l1
        self.name: str = store.channel
        self.prefixes: list[str] = []
        self.label: str = coherence
        self._closed = False
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's ears."""
        self._mu = threading.RLock()
        self._telling = threading.RLock()
        self._ears: Ears | None = None
        self._listener: Listener | None = None
        self.serial: int = 0
        self.connected = False

    # -- which keys ----------------------------------------------------------------------------------

    def follow(self, prefixes: Sequence[str], /) -> None:
        """Tell of keys that begin like these too; waits a moment until the servers do.

        Past ``MOST_PREFIXES`` everything is followed, so that further namespaces cost nothing at all.
        """
        is_told = self._wants_l1 and self._asked_for == "tracking"  # the bus carries every namespace
        if not is_told or len(self.prefixes) > MOST_PREFIXES:
            return
        self.prefixes = [*self.prefixes, *prefixes][: MOST_PREFIXES + 1]
        ears = self._ears
        if ears is not None and ears.join(self) and self.connected:
            ears.wait(lambda: self.follows(prefixes[0]) or not self.connected)

    def follows(self, prefix: str, /) -> bool:
        """Whether keys that begin like this are told of by now."""
        ears = self._ears
        return self._asked_for != "tracking" or (ears is not None and ears.follows(prefix))

    # -- beginning and end ---------------------------------------------------------------------------

    def start(self, listener: Listener, /) -> None:
        """Start listening, if this process does not yet."""
        if self._ears is not None or self._closed:
            return
        with self._mu:
            if self._ears is not None:
                return
            self._listener = listener
            ears = self._ears = self._store.server.ears_for(self, tracks=self._asked_for == "tracking")
        ears.wait(lambda: self.connected)

    def publish(self, message: bytes, /) -> None:
        """Tell the other processes of this namespace."""
        self._store.publish(message)

    async def apublish(self, message: bytes, /) -> None:
        """Tell the other processes of this namespace."""
        await self._store.apublish(message)

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        ears = self._ears
        if ears is not None:
            ears.leave(self)
            self.on_way(None)

    # -- what the ears say (Member) ------------------------------------------------------------------

    def on_keys(self, outers: Sequence[str] | None, /) -> None:
        """Outer keys of our namespaces were written; ``None`` for anything at all."""
        if self._listener is not None:
            self._listener.on_keys(outers)

    def on_word(self, outer: str, /) -> None:
        """Another process wrote this key, or its load of it has ended."""
        if self._listener is not None:
            self._listener.on_word(outer)

    def on_way(self, way: str | None, /) -> None:
        """Writes are told in this way from now on; not at all for ``None``."""
        with self._telling:
            connected = way is not None and not self._closed
            label = str(way) if connected and self._asked_for == "tracking" else self.label
            if (self.connected, self.label) == (connected, label):
                return
            self.connected, self.label = connected, label
            told = {UNTRACKED: "bus", REFUSED: "none"}.get(label, label)
            if self._listener is not None:
                self._listener.on_state(BusState(connected, told, label))
