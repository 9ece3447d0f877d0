"""One daemon thread per process takes entries out of the fast tables when their time has come.

It is what lets a hit of a cached function do without reading the clock.
"""

from __future__ import annotations

import os
import threading
import time
import weakref

from eventperf.cache.protocols import Sweeps

_IDLE_S = 3600.0


class Sweeper:
    """Sleeps until the next bucket of any watched store comes up."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Start over: the thread does not exist in a forked child."""
        self._wake = threading.Condition(threading.Lock())
        self._stores: weakref.WeakSet[Sweeps] = weakref.WeakSet()
        self._next = float("inf")
        self._running = False

    def watch(self, store: Sweeps) -> bool:
        """Sweep ``store`` in time; False when no thread can be started (interpreter shutdown)."""
        due = store.next_due()
        if due is None and self._running and store in self._stores:
            return True
        with self._wake:
            self._stores.add(store)
            if not self._running:
                try:
                    threading.Thread(target=self._run, name="eventperf-cache-sweeper", daemon=True).start()
                except RuntimeError:
                    return False
                self._running = True
            if due is not None and due < self._next:
                self._next = due
                self._wake.notify()
        return True

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            with self._wake:
                stores = list(self._stores)
                self._next = now + _IDLE_S
            for store in stores:
                due = store.sweep(now)
                if due is not None:
                    with self._wake:
                        self._next = min(self._next, due)
            del stores
            with self._wake:
                pause = self._next - time.monotonic()
                if pause > 0:
                    self._wake.wait(pause)


SWEEPER = Sweeper()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SWEEPER.after_fork)
