"""Hosts whose clocks differ: ends of entries are told in the time of the server, so that all read them alike.

Each process measures how far its own clock is from the server's: before its first write, with each lease, and
when an entry looks as if somebody's clock were wrong. Up to a second counts as none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from eventperf._core.logs import logger
from eventperf.cache.errors import StoreUnavailable

from .effects import Steps, Verb, ask

APART_S: Final = 1.0
KNOWN_S: Final = 600.0
_log = logger("eventperf.cache")


class ServerClock:
    """What one process knows of the clock of one server.

    Attributes:
        ahead_s: By how much the server's clock is ahead of this host's; 0 within a second.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.ahead_s: float = 0.0
        self._known_until: float = float("-inf")
        self._doubts_after: float = float("-inf")

    @property
    def is_known(self) -> bool:
        """Whether it was measured lately."""
        return time.monotonic() < self._known_until

    def may_doubt(self) -> bool:
        """Tell whether what looks odd is a reason to measure: not again within a while."""
        return time.monotonic() >= self._doubts_after

    def heard(self, server_s: float | None, sent_s: float, now_s: float) -> None:
        """Note the time of the server, which it told between two readings of this host's own clock.

        Args:
            server_s: ``None`` where it refuses to tell: then this host's is as good as any.
        """
        at = time.monotonic()
        self._known_until = at + KNOWN_S
        if server_s is None:
            self._doubts_after = at + KNOWN_S
            return
        least, most = server_s - now_s - APART_S, server_s - sent_s + APART_S
        if least <= self.ahead_s <= most:
            return
        before, self.ahead_s = self.ahead_s, 0.0 if least <= 0.0 <= most else (least + most) / 2
        if not before:
            _log.warning(
                "cache at %s: its clock and this host's are %.0f s apart; ends of entries are taken by the "
                "server's: have both follow a time server",
                self._url, abs(self.ahead_s),
            )  # fmt: skip

    def doubted(self) -> None:
        """It was measured because of a doubt: the same doubt is no reason to do it again at once."""
        self._doubts_after = time.monotonic() + KNOWN_S / 10


class Clocks:
    """The wall clock of a cache, and the server's where that is to be asked.

    Args:
        wall: This host's.
        server: What is known of the server's; ``None`` where ``wall`` is all there is.
    """

    def __init__(
        self, wall: Callable[[], float], server: ServerClock | None, verb: Verb[[str], float | None] | None
    ) -> None:
        self._wall = wall
        self._server, self._verb = server, verb

    def now(self) -> float:
        """Return the time that ends of entries are told in."""
        server = self._server
        return self._wall() if server is None else self._wall() + server.ahead_s

    @property
    def own(self) -> Callable[[], float]:
        """This host's own clock."""
        return self._wall

    def heard(self, server_s: float, sent_s: float) -> None:
        """Note the time that came with a lease; ``sent_s`` is :attr:`own` when it was asked for."""
        if self._server is not None:
            self._server.heard(server_s, sent_s, self._wall())

    def is_odd(self, created: float, hard: float, now: float) -> bool:
        """Tell whether an entry that is there says that somebody's clock is wrong."""
        server = self._server
        return (
            server is not None
            and (created > now + APART_S or hard < now - APART_S)  # the server would have dropped it
            and server.may_doubt()
        )

    def learn(self, key: str) -> Steps[None]:
        """Ask the server that has ``key``, unless that was done lately."""
        if self._server is not None and not self._server.is_known:
            yield from self._ask(key)

    def doubt(self, key: str) -> Steps[bool]:
        """Ask the server because of an odd entry; tell whether the time is another one now."""
        if self._server is None:
            return False
        before = self._server.ahead_s
        yield from self._ask(key)
        self._server.doubted()
        return self._server.ahead_s != before

    def server_s(self, key: str) -> Steps[float]:
        """Return the time of the server that has ``key``, as near as can be told."""
        if self._server is not None:
            yield from self._ask(key)
        return self.now()

    def _ask(self, key: str) -> Steps[None]:
        assert self._server is not None
        assert self._verb is not None
        sent_s = self._wall()
        try:
            told = yield from ask(self._verb, key)
        except StoreUnavailable:
            return  # whoever asks on will hear of it
        self._server.heard(told, sent_s, self._wall())
