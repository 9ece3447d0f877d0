"""What keeps an old value from coming back: loads and reads under way are fenced by invalidations.

A load is a flight (shared with :mod:`eventperf._core.flights`), a read of the second tier a ticket. Whoever
invalidates fences what is under way *before* the deed (it may have read the old value already) and *after*
it (it may have read it while the deed was on its way); whoever wants to keep a value looks at its fences
after it has put it there. Both orders together leave no gap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from eventperf._core.flights import Flight, Flights


class Ticket:
    """A read of the second tier under way; an invalidation that arrives meanwhile fences it."""

    __slots__ = ("fenced",)

    def __init__(self) -> None:
        self.fenced: bool = False


class Guard:
    """Says whether a value may still be kept: nothing that it depends on was fenced."""

    __slots__ = ("_flight", "_ticket")

    def __init__(self, ticket: Ticket | None = None, flight: Flight | None = None) -> None:
        self._ticket, self._flight = ticket, flight

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the load."""
        return self._flight is not None and self._flight.is_awaited

    def outdate(self) -> None:
        """Say that something was written elsewhere while the load ran."""
        if self._flight is not None:
            self._flight.is_outdated = True

    def holds(self, inner_tags: Iterable[str] = ()) -> bool:
        """Tell whether a value with these tags may be kept."""
        if self._ticket is not None and self._ticket.fenced:
            return False
        flight = self._flight
        if flight is None:
            return True
        return not flight.fenced and (not flight.fenced_tags or flight.fenced_tags.isdisjoint(inner_tags))


FREE = Guard()
"""The guard of a value that nothing can outdate."""


class Fences:
    """Loads and reads under way in this process, and keys that may not be stored for a while."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.flights: Flights = Flights()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's reads; its loads forget themselves."""
        self._mu = threading.RLock()
        self._reads: dict[str, list[Ticket]] = {}
        self._settling: dict[str, float] = {}
        self._settled_at = 0.0

    # -- reads ---------------------------------------------------------------------------------------

    def open(self, names: Collection[str]) -> dict[str, Ticket]:
        """Announce reads of the second tier that may end in process memory."""
        tickets = {name: Ticket() for name in names}
        with self._mu:
            for name, ticket in tickets.items():
                self._reads.setdefault(name, []).append(ticket)
        return tickets

    def shut(self, tickets: dict[str, Ticket]) -> None:
        """End them."""
        with self._mu:
            for name, ticket in tickets.items():
                open_ = self._reads.get(name)
                if open_ is not None and ticket in open_:
                    open_.remove(ticket)
                    if not open_:
                        del self._reads[name]

    def fence_reads(self, names: Iterable[str] | None, *, but: Collection[Ticket] = ()) -> None:
        """Reads under way of these names (``None``: of all) must not end in process memory."""
        if not self._reads:
            return
        with self._mu:
            for name in list(self._reads) if names is None else names:
                for ticket in self._reads.get(name, ()):
                    if ticket not in but:
                        ticket.fenced = True

    # -- both ----------------------------------------------------------------------------------------

    def fence(self, locals_: Sequence[str], *, but: Collection[Ticket] = ()) -> None:
        """These keys were written or removed."""
        self.flights.fence(*locals_)
        self.fence_reads(locals_, but=but)

    def fence_tags(self, inner_tags: Sequence[str]) -> None:
        """These tags were invalidated; which reads have them is not known before they end."""
        self.flights.fence_tags(tuple(inner_tags))
        self.fence_reads(None)

    def fence_where(self, matches: Callable[[Any], bool]) -> None:
        """Every key that ``matches`` was removed."""
        self.flights.fence_where(matches)
        self.fence_reads(None)

    # -- settling ------------------------------------------------------------------------------------

    def settle(self, names: Iterable[str], settle_s: float) -> None:
        """Refuse to keep loads of these keys and tags for a while."""
        now = self._now()
        with self._mu:
            if now >= self._settled_at:
                self._settling = {name: end for name, end in self._settling.items() if end > now}
                self._settled_at = now + 1.0  # a crowd of short settles must not look at each other
            for name in names:
                self._settling[name] = max(now + settle_s, self._settling.get(name, 0.0))

    def settles_for(self, names: Iterable[str]) -> float:
        """Return for how long the longest of these still settles."""
        if not self._settling:
            return 0.0
        return max(0.0, *(self._settling.get(name, 0.0) for name in names)) - self._now()

    def is_settling(self, local: str, inner_tags: Iterable[str] = ()) -> bool:
        """Tell whether a load of this key, with these tags, may not be stored yet."""
        if not self._settling:
            return False
        now = self._now()
        names = [local, *map(settling_tag, inner_tags)]
        return any(self._settling.get(name, 0.0) > now for name in names)


def settling_tag(inner_tag: str) -> str:
    """Return the name under which a tag settles; no key has it."""
    return f"\x00tag:{inner_tag}"
