"""The largest values that this process made for the second tier: a bounded list, kept on the way."""

from __future__ import annotations

import threading
from typing import Final

KEPT: Final = 50


class Sizes:
    """Keys by the size they had last; costs one look into a small dict where a value is no large one."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """A thread of the parent may have held the lock."""
        self._mu = threading.RLock()
        self._known: dict[str, int] = {}
        self._least = -1

    def note(self, outer: str, size: int) -> None:
        """Remember the size of a value, if it is among the largest or its key was."""
        if size <= self._least and outer not in self._known:
            return
        with self._mu:
            self._known[outer] = size
            if len(self._known) > KEPT:
                smallest = min(self._known, key=self._known.__getitem__)
                self._least = self._known.pop(smallest)

    def top(self, most: int) -> list[tuple[str, int]]:
        """Return keys and sizes, the largest first."""
        with self._mu:
            return sorted(self._known.items(), key=lambda pair: -pair[1])[:most]
