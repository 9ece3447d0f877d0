"""Keeps the leases of long loads alive, so that a lease can be short and a load long."""

from __future__ import annotations

import threading
import time
from typing import Any

from eventperf.cache.errors import CacheError


class Keeper:
    """Renews each lease at a third of its life; its daemon thread runs only while loads are long.

    A paused or killed process stops renewing, so that its leases end and others take over.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's loads."""
        self._wake = threading.Condition(threading.Lock())
        self._leases: dict[str, tuple[str, float, float]] = {}
        self._running = False

    def keep(self, outer: str, token: str, lease_s: float) -> None:
        """Renew the lease of ``outer`` until :meth:`drop`."""
        with self._wake:
            self._leases[token] = (outer, lease_s, time.monotonic() + lease_s / 3)
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
                lease = min((lease for _, lease, _ in self._leases.values()), default=1.0)
                idle = 0 if self._leases else idle + 1
                if idle > 10:
                    self._running = False
                    return
            time.sleep(min(1.0, lease / 6))
            now = time.monotonic()
            with self._wake:
                due = [(token, *rest) for token, rest in self._leases.items() if rest[2] <= now]
                for token, outer, lease, _ in due:
                    self._leases[token] = (outer, lease, now + lease / 3)
            for token, outer, lease, _ in due:
                try:
                    self._store.renew_many(token, [outer], lease_s=lease)
                except CacheError:
                    break  # the server is away; nothing can be stored under these leases anyway
