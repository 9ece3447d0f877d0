"""How a cache went while its pages were looked at: readings of its figures, drawn."""

from __future__ import annotations

import threading
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from eventperf._core.clock import Clock
from eventperf._pages.html import Html, tag
from eventperf._pages.svg import NARROW, lines
from eventperf.contrib.console.texts import say

if TYPE_CHECKING:
    from eventperf.cache import CacheStats

_EVERY_S: Final = 15.0
_KEPT: Final = 480  # two hours of a page that is looked at
_LONGEST_S: Final = 120.0  # a longer pause between readings is a gap: nobody looked


class Course:
    """Readings of one cache, at most every 15 seconds, of what its pages read anyway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mu = threading.Lock()
        self._processes = 0
        self._past: deque[tuple[float, int, int, int]] = deque(maxlen=_KEPT)

    def note(self, stats: CacheStats, processes: int) -> None:
        """Take a reading; where processes came or went, or began anew, so do the readings."""
        now, reads = self._clock.monotonic(), stats.hits + stats.misses
        with self._mu:
            is_less = bool(self._past) and (reads < self._past[-1][2] or stats.loads < self._past[-1][3])
            if is_less or processes != self._processes:
                self._past.clear()
                self._processes = processes
            if not self._past or now - self._past[-1][0] >= _EVERY_S:
                self._past.append((now, stats.hits, reads, stats.loads))

    def plots(self, name: str) -> Html:
        """Return hit ratio and loads by time, nothing until there are readings enough."""
        with self._mu:
            past = list(self._past)
        now = self._clock.monotonic()
        ratio, loads = [], []
        for (at, hits, reads, loaded), (until, more_hits, more_reads, more) in pairwise(past):
            if until - at > _LONGEST_S:
                continue
            place = (until - now) / 60
            loads.append((place, (more - loaded) / (until - at)))
            if more_reads > reads:
                ratio.append((place, 100 * (more_hits - hits) / (more_reads - reads)))
        x = say("minutes_from_now")
        drawn = [
            (say("hit_ratio_of_late"), ratio, say("unit_percent")),
            (say("loads_of_late"), loads, say("unit_loads")),
        ]
        shown = [
            tag(
                "div",
                tag("h3", title),
                lines([(name, points)], x=x, y=y, title=say("against", x=x, y=y), width=NARROW),
            )
            for title, points, y in drawn
            if points
        ]
        return tag("div", *shown, class_="multiples") if shown else Html("")
