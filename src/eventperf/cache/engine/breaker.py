"""A circuit breaker: after the first silence nobody waits for the server again until it has answered."""

from __future__ import annotations

import threading
from collections.abc import Callable

from eventperf.cache.errors import StoreUnavailable


class Breaker:
    """Opens on the first command that gets no answer; a probe of its own closes it.

    Callers never probe: while it is open they are refused at once. A daemon thread asks the server every
    ``every_s`` until it answers, then calls ``on_close`` (replay of what could not be said) and closes.
    """

    is_open: bool

    def __init__(
        self,
        probe: Callable[[], None],
        on_change: Callable[[str, str], None],
        on_close: Callable[[], None],
        *,
        every_s: float = 0.2,
    ) -> None:
        self._probe, self._on_change, self._on_close = probe, on_change, on_close
        self._every_s = every_s
        self._mu = threading.Lock()
        self._stop = threading.Event()
        self.is_open = False

    def trip(self, reason: str = "") -> None:
        """Refuse callers from now on, and start asking for a sign of life."""
        with self._mu:
            if self.is_open or self._stop.is_set():
                return
            self.is_open = True
        self._on_change("open", reason)
        try:
            threading.Thread(target=self._ask, name="eventperf-cache-probe", daemon=True).start()
        except RuntimeError:
            self.is_open = False  # the interpreter is shutting down

    def _ask(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._probe()
                self._on_close()
            except StoreUnavailable as error:
                if error.silent:
                    continue  # a refusal is a sign of life
            with self._mu:
                self.is_open = False
            self._on_change("closed", "")
            return

    def after_fork(self) -> None:
        """Forget the parent's probe."""
        self._mu = threading.Lock()
        self._stop = threading.Event()
        self.is_open = False

    def close(self) -> None:
        """End the probe."""
        self._stop.set()
