"""Who waits here for a load of another process, and what is heard of it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from eventperf._core.flights import OPEN, VALUE, Flight, Flights

from .effects import Steps, wait

CALM_S = 0.1


class Waker:
    """The expectation of one key; shared by all who have it."""

    __slots__ = ("eager", "flight", "pushed", "refs")

    def __init__(self, outer: str) -> None:
        self.flight: Flight = Flight(outer, threading.get_ident())
        self.refs: int = 0
        self.pushed: bool = False
        self.eager: bool = False


class Wakes:
    """Expectations by outer key; one is here for as long as somebody holds it."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's."""
        self._mu = threading.RLock()
        self._flights = Flights()
        self._table: dict[str, Waker] = {}

    def __len__(self) -> int:
        return len(self._table)

    def expect(self, outer: str) -> Waker:
        """Announce that somebody is about to wait; what is heard from now on wakes it."""
        with self._mu:
            waker = self._table.get(outer)
            if waker is None:
                waker = self._table[outer] = Waker(outer)
            waker.refs += 1
            return waker

    def done(self, waker: Waker) -> None:
        """End an expectation."""
        with self._mu:
            waker.refs -= 1
            key = str(waker.flight.key)
            if not waker.refs and self._table.get(key) is waker:
                del self._table[key]

    def park(self, waker: Waker, left_s: float) -> Steps[None]:
        """Wait until the leader in another process has stored, or ``left_s`` have gone by.

        The leader says when it is done. Writes under the key that the server tells of are at first the lease
        itself and the marks of those who wait for it; after ``CALM_S`` they mean that something happened.
        """
        waker.pushed = False
        landed = yield from wait(self._flights, waker.flight, min(left_s, CALM_S))
        waker.eager = True
        if not landed and left_s > CALM_S and not waker.pushed:
            yield from wait(self._flights, waker.flight, left_s - CALM_S)

    def told(self, outers: Iterable[str]) -> None:
        """Somebody wrote these keys: a value, most likely a lease or a mark at first."""
        for outer in outers:
            waker = self._table.get(outer)
            if waker is not None:
                if waker.eager:
                    self.wake(outer)
                else:
                    waker.pushed = True

    def wake(self, outer: str) -> None:
        """A load of ``outer`` has ended somewhere: wake whoever waits for it."""
        if not self._table:
            return
        with self._mu:
            waker = self._table.pop(outer, None)
        if waker is not None and waker.flight.state == OPEN:
            self._flights.land(waker.flight, VALUE)

    def wake_all(self) -> None:
        """Anything may have happened."""
        for outer in list(self._table):
            self.wake(outer)
