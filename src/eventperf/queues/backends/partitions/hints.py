"""Which partitions one worker asks next: those that are said to have work, one after another. No I/O."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

_BACK_S, _BACK_MOST_S = 0.1, 2.0
"""How long a partition that does not answer is left alone: at first, and at most."""

_LOOK_S = 0.25
"""An idle worker looks at some partition at most this often, whatever it has heard."""


class Hints:
    """What a worker has heard of each partition, and what its claims there answered.

    A partition is asked when something was heard of it since a claim there left nothing, when something of it
    falls due, and otherwise by turns, so that each is looked at within a lease. Any thread may tell what it
    hears.
    """

    def __init__(self, count: int, lease_s: float, first: int) -> None:
        self._mu = threading.Lock()
        self._count = count
        self._turn = first % count
        self._look_s = max(_LOOK_S, lease_s / count)
        self._look_at = 0.0
        self._heard = [1] * count
        self._done = [0] * count  # what had been heard when a claim left nothing there
        self._due = [math.inf] * count
        self._short: list[frozenset[str]] = [frozenset()] * count  # queues there was no room for
        self._away = [0.0] * count  # until when it is left alone
        self._pause = [_BACK_S] * count

    def hear(self, partition: int | None = None) -> None:
        """Note that there may be work in a partition, or in any."""
        with self._mu:
            for n in range(self._count) if partition is None else (partition,):
                self._heard[n] += 1

    def next(self, now: float, room: Mapping[str, int], asked: set[int]) -> tuple[int, int] | None:
        """Return a partition to ask that is not among ``asked``, and what to say with its answer."""
        with self._mu:
            for step in range(self._count):
                n = (self._turn + step) % self._count
                if n not in asked and now >= self._away[n] and self._has_work(n, now, room):
                    return n, self._heard[n]
            if asked or now < self._look_at:
                return None
            self._look_at = now + self._look_s
            return next(((n, self._heard[n]) for n in self._from_turn() if now >= self._away[n]), None)

    def _from_turn(self) -> list[int]:
        return [(self._turn + step) % self._count for step in range(self._count)]

    def _has_work(self, n: int, now: float, room: Mapping[str, int]) -> bool:
        if self._heard[n] > self._done[n] or self._due[n] <= now:
            return True
        return any(room.get(queue, 0) > 0 for queue in self._short[n])

    def answered(
        self, n: int, heard: int, now: float, *, full: bool, room: Mapping[str, int], next_in_s: float | None
    ) -> bool:
        """Note the answer to a claim: whether it gave all that was asked for, and when more is due.

        Returns:
            Whether the partition answers again after it did not.
        """
        with self._mu:
            is_back = self._away[n] > 0
            self._turn = (n + 1) % self._count
            self._away[n], self._pause[n] = 0.0, _BACK_S
            self._due[n] = math.inf if next_in_s is None else now + next_in_s
            if full:
                self._heard[n] += 1
            else:
                self._done[n] = heard
                self._short[n] = frozenset(queue for queue, free in room.items() if free <= 0)
            return is_back

    def lost(self, n: int, now: float) -> bool:
        """Note that a partition does not answer; true when that is news."""
        with self._mu:
            is_news = self._away[n] == 0.0
            self._turn = (n + 1) % self._count
            self._away[n], self._pause[n] = now + self._pause[n], min(2 * self._pause[n], _BACK_MOST_S)
            self._heard[n] += 1
            return is_news

    def all_lost(self) -> bool:
        """Tell whether none answers."""
        with self._mu:
            return all(self._away)

    def next_in_s(self, now: float) -> float:
        """Return how long a worker that has nothing to do may wait for the next claim."""
        with self._mu:
            at = [now + self._look_s]
            for n in range(self._count):
                at.append(max(self._due[n], self._away[n]))
                if self._away[n] and self._heard[n] > self._done[n]:
                    at.append(self._away[n])
            return max(0.0, min(at) - now)
