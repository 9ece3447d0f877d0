"""Whether the store takes what a worker's loops ask and tell it; the log hears of an outage once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from eventperf._core.logs import logger

_log = logger("eventperf.queues")

RENEWING, CLAIMING, REPORTING = "renew its leases", "claim jobs", "report outcomes"


class Contact:
    """What the loops of one worker find of their store.

    An outage lasts from the first that is refused something until all have got through again.

    Args:
        worker: Its id, for the log.
        on_change: Called with false at its beginning and with true at its end, from any thread.
    """

    def __init__(self, worker: str, on_change: Callable[[bool], object]) -> None:
        self._worker = worker
        self._on_change = on_change
        self._mu = threading.Lock()
        self._refused: set[str] = set()
        self._since = 0.0

    @property
    def is_lost(self) -> bool:
        """Whether some loop is refused just now."""
        return bool(self._refused)

    def can(self, what: str) -> bool:
        """Tell whether this is not refused just now."""
        return what not in self._refused

    def refused(self, what: str, error: Exception) -> None:
        """Note that the store did not take it."""
        with self._mu:
            is_first, is_news = not self._refused, what not in self._refused
            self._refused.add(what)
            if is_first:
                self._since = time.monotonic()
                _log.warning("worker %s lost its store and keeps trying: %s", self._worker, error)
                self._on_change(False)
            elif is_news:
                _log.debug("worker %s cannot %s either: %s", self._worker, what, error)

    def taken(self, what: str) -> None:
        """Note that it did."""
        if what not in self._refused:
            return
        with self._mu:
            self._refused.discard(what)
            if not self._refused:
                away_s = time.monotonic() - self._since
                _log.warning("worker %s has its store again after %.1f s", self._worker, away_s)
                self._on_change(True)
