"""What cached functions answered by themselves: each counts its own hits, so nobody adds up entries."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

_FEW = 64


class Tallies:
    """Counts of living functions, and the sum of those that are gone."""

    def __init__(self) -> None:
        self.after_fork()
        self._gone = 0
        self._open: dict[Callable[[], int], tuple[int, weakref.ref[object]]] = {}
        self._look_at = _FEW

    def after_fork(self) -> None:
        """A thread of the parent may have held the lock."""
        self._mu = threading.RLock()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, served: Callable[[], int], owner: object) -> None:
        """Count what ``served`` tells from now on, while ``owner`` lives."""
        with self._mu:
            self._open[served] = (served(), weakref.ref(owner))
            if len(self._open) > self._look_at:
                for other in [other for other, (_, alive) in self._open.items() if alive() is None]:
                    self._fold(other)
                self._look_at = max(_FEW, 2 * len(self._open))

    def fold(self, served: Callable[[], int]) -> None:
        """Count no more of it."""
        with self._mu:
            if served in self._open:
                self._fold(served)

    def _fold(self, served: Callable[[], int]) -> None:
        start, _ = self._open.pop(served)
        self._gone += served() - start

    def total(self) -> int:
        """Return the sum."""
        with self._mu:
            return self._gone + sum(served() - start for served, (start, _) in self._open.items())
