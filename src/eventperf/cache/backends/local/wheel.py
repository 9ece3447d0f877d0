"""Which entries expire when: buckets of a twentieth of a second, in a heap."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection

from eventperf.cache.entry import Entry

TICKS_PER_S = 20


class Wheel:
    """Buckets by time. Not safe for threads by itself: the store's lock guards it.

    An entry comes up at the start of the bucket of its soft end (never late, at most a tick early: the
    store then takes it from the fast tables and looks at the clock on each read), and again after its
    hard end, to be dropped.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[Entry]] = {}
        self._heap: list[int] = []
        self._count = 0
        self.dead: int = 0

    def add(self, entry: Entry) -> None:
        """File ``entry`` under its soft end."""
        if entry.soft != math.inf:
            self._file(entry, int(entry.soft * TICKS_PER_S))
        elif entry.hard != math.inf:
            self.add_end(entry)

    def add_end(self, entry: Entry) -> None:
        """File ``entry`` under its hard end."""
        if entry.hard != math.inf:
            self._file(entry, int(entry.hard * TICKS_PER_S) + 1)

    def _file(self, entry: Entry, tick: int) -> None:
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = [entry]
            heapq.heappush(self._heap, tick)
        else:
            bucket.append(entry)
        self._count += 1

    def due(self, now: float) -> list[Entry]:
        """Take out what has come up at ``now``."""
        tick, out = int(now * TICKS_PER_S), []
        while self._heap and self._heap[0] <= tick:
            out += self._buckets.pop(heapq.heappop(self._heap))
        self._count -= len(out)
        return out

    def next_due(self) -> float | None:
        """Return when the next bucket comes up."""
        return self._heap[0] / TICKS_PER_S if self._heap else None

    def compact(self, living: Collection[Entry]) -> None:
        """Throw dead entries away once they are the greater part."""
        if self.dead < 1024 or self.dead * 2 < max(self._count, len(living)):
            return
        self._buckets, self._heap, self._count, self.dead = {}, [], 0, 0
        for entry in list(living):  # what it makes may run a destructor, which may write
            self.add(entry)
