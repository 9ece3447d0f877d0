"""Keeps the leases of long loads alive, so that a lease can be short and a load long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from eventperf.cache.errors import CacheError


class Renew(Protocol):
    """Renews the leases of a token."""

    def __call__(self, token: str, keys: list[str], /, *, lease_s: float) -> None: ...


@dataclass(slots=True)
class _Lease:
    renew: Renew
    keys: list[str]
    lease_s: float
    due: float
    is_wanted: Callable[[], bool]


class Keeper:
    """Renews each lease at a third of its life; its daemon thread runs only while loads are long.

    A paused or killed process stops renewing, so that its leases end and others take over; and so does a
    load that nobody wants any more.
    """

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's loads."""
        self._wake = threading.Condition()
        self._leases: dict[str, _Lease] = {}
        self._running = False

    def __len__(self) -> int:
        return len(self._leases)

    def keep(
        self,
        renew: Renew,
        outers: Collection[str],
        token: str,
        lease_s: float,
        is_wanted: Callable[[], bool],
    ) -> None:
        """Renew the leases of ``outers`` until :meth:`drop`, or until nobody wants the load."""
        with self._wake:
            due = time.monotonic() + lease_s / 3
            self._leases[token] = _Lease(renew, list(outers), lease_s, due, is_wanted)
            if not self._running:
                try:
                    threading.Thread(target=self._run, name="eventperf-cache-lease", daemon=True).start()
                except RuntimeError:
                    return  # no new threads at interpreter shutdown; the lease lasts as long as it lasts
                self._running = True

    def drop(self, token: str) -> None:
        """The load is over."""
        with self._wake:
            self._leases.pop(token, None)

    def _run(self) -> None:
        idle = 0
        while True:
            with self._wake:
                shortest = min((lease.lease_s for lease in self._leases.values()), default=1.0)
                idle = 0 if self._leases else idle + 1
                if idle > 10:
                    self._running = False
                    return
            time.sleep(min(1.0, shortest / 6))
            for token, lease in self._due():
                try:
                    lease.renew(token, lease.keys, lease_s=lease.lease_s)
                except CacheError:
                    continue  # the server is away; nothing can be stored under this lease anyway

    def _due(self) -> list[tuple[str, _Lease]]:
        now = time.monotonic()
        with self._wake:
            due = [(token, lease) for token, lease in self._leases.items() if lease.due <= now]
            for token, lease in due:
                lease.due = now + lease.lease_s / 3
                if not lease.is_wanted():
                    del self._leases[token]
            return [(token, lease) for token, lease in due if token in self._leases]
