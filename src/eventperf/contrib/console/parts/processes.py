"""A cache in all its processes: each beside the others, and their sum."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import age, listing, moment

if TYPE_CHECKING:
    from eventperf.cache import CacheManager, CacheProcess, CacheStats

_FRESH_S: Final = 2.0  # however many pages are open
_MOST: Final = 500


class Processes:
    """What a cache's processes told last, read at most every two seconds.

    Attributes:
        last: As they were read last.
    """

    def __init__(self, cache: CacheManager) -> None:
        self._cache = cache
        self._has_board = hasattr(cache.store, "board")
        self._mu = threading.Lock()
        self._read_at = float("-inf")
        self._is_down = False
        self.last: Sequence[CacheProcess] = ()

    def read(self) -> Sequence[CacheProcess]:
        """Return the processes; this one alone where the second tier does not answer."""
        if not self._has_board:
            return self._cache.fleet()
        with self._mu:
            if time.monotonic() - self._read_at >= _FRESH_S:
                try:
                    self.last, self._is_down = self._cache.fleet(), False
                except EventPerfError:
                    self.last, self._is_down = (), True
                self._read_at = time.monotonic()
            return self.last

    def table(self) -> Html:
        """Return each process and the sum."""
        found = self.read()
        if self._is_down:
            return tag("p", say("fleet_down"), class_="bad")
        if not self._has_board:
            return tag(
                "p", say("fleet_alone" if self._cache.store is None else "fleet_no_board"), class_="muted"
            )
        rows = [_row(one) for one in found[:_MOST]]
        total = type(found[0].stats).summed(one.stats for one in found) if found else None
        if total is not None and len(found) > 1:
            strong = tag("strong", say("fleet_sum", n=f"{len(found):,}"))
            rows.append((strong, "", "", *_figures(total), "", ""))
        columns = heads("host pid version hits reads loads mean failed stores breaker coherence since heard")
        told = tag("p", say("fleet_most", n=f"{_MOST:,}"), class_="muted") if len(found) >= _MOST else ""
        return markup(listing(say("fleet_told"), columns, rows, (1, *range(3, 9))), told)


def _row(one: CacheProcess) -> tuple[object, ...]:
    host = markup(one.host, " ", tag("span", say("this_one"), class_="muted")) if one.is_here else one.host
    heard = say("ago", age=age(one.age_s))
    return (host, one.pid, one.version or say("none"), *_figures(one.stats), moment(one.started_at), heard)


def _figures(stats: CacheStats) -> tuple[object, ...]:
    return (
        f"{stats.hit_ratio:.1%}",
        f"{stats.hits + stats.misses:,}",
        f"{stats.loads:,}",
        age(stats.load_s / stats.loads) if stats.loads else say("none"),
        f"{stats.load_errors:,}",
        f"{stats.stores:,}",
        tag("span", stats.breaker, class_="bad") if stats.breaker == "open" else stats.breaker,
        tag("span", stats.coherence, class_="warn") if "(down)" in stats.coherence else stats.coherence,
    )
