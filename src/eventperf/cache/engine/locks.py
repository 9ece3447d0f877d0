"""Locks of this process, where there is no second tier: the same leases, in a table."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from eventperf.cache.protocols import Grant

_FEW: Final = 1_000


class Locks:
    """Who holds which name, and until when."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.after_fork()

    def after_fork(self) -> None:
        """A child holds nothing."""
        self._mu = threading.RLock()
        self._held: dict[str, tuple[str, float]] = {}
        self._look_at = _FEW

    def take(self, name: str, token: str, lease_s: float) -> Grant:
        """Ask for a name; one holder at a time, until its lease ends."""
        now = self._now()
        with self._mu:
            _, until = self._held.get(name, ("", 0.0))
            if until > now:
                return Grant("held", until - now)
            if len(self._held) >= self._look_at:
                self._held = {other: held for other, held in self._held.items() if held[1] > now}
                self._look_at = max(_FEW, 2 * len(self._held))
            self._held[name] = (token, now + lease_s)
            return Grant("granted")

    def renew(self, name: str, token: str, lease_s: float) -> bool:
        """Hold it so much longer from now; false when it is somebody else's, or nobody's."""
        now = self._now()
        with self._mu:
            holder, until = self._held.get(name, ("", 0.0))
            if holder != token or until <= now:
                return False
            self._held[name] = (token, now + lease_s)
            return True

    def give_back(self, name: str, token: str) -> None:
        """Let the next one have it."""
        with self._mu:
            if self._held.get(name, ("", 0.0))[0] == token:
                del self._held[name]
