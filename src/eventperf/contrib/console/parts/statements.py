"""The statements that cost most, what they cost lately, and the loops that send too many."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from eventperf._core.clock import Clock
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import View, age, concealed, empty, listing

if TYPE_CHECKING:
    from eventperf.dbopt import DatabaseOptimizer, NPlusOne, SlowQuery

_FRESH_S: Final = 30.0
_STATEMENTS: Final = 25
_LATELY: Final = 20  # readings: ten minutes of a page that is looked at
_LOOPS: Final = 50
_TREND: Final = 1.5


class Statements:
    """The ranking, read at most twice a minute however many pages are open.

    Attributes:
        last: As it was read last.
    """

    def __init__(self, optimizer: DatabaseOptimizer, clock: Clock) -> None:
        self._optimizer, self._clock = optimizer, clock
        self._mu = threading.Lock()
        self._read: dict[bool, tuple[float, list[SlowQuery]]] = {}
        self._past: deque[tuple[float, dict[str, tuple[int, float]]]] = deque(maxlen=_LATELY)
        self.last: list[SlowQuery] = []

    def slowest(self, *, redact: bool = True) -> list[SlowQuery]:
        """Return what costs most."""
        with self._mu:
            now = self._clock.monotonic()
            at, slow = self._read.get(redact, (0.0, []))
            if redact not in self._read or now - at >= _FRESH_S:
                slow = self._optimizer.slow_queries(limit=_STATEMENTS, redact=redact)
                self._read[redact] = (now, slow)
                if not self._past or now - self._past[-1][0] >= _FRESH_S:
                    self._past.append((now, {q.fingerprint: (q.calls, q.total_s or 0.0) for q in slow}))
            self.last = slow
            return slow

    def ranking(self, view: View) -> Html:
        """Return the table of statements."""
        shows = view.may("view.sql", None)
        slow = self.slowest(redact=not shows)
        if not slow:
            return empty(say("no_slow"))
        total = sum(q.total_s or 0.0 for q in slow) or 1.0
        since, lately = self._lately(slow)
        rows = [
            (
                _statement(q.sample), f"{q.calls:,}", _time(q.total_s), f"{(q.total_s or 0.0) / total:.0%}",
                _time(q.mean_s), _time(q.max_s), _trend(q.mean_s, lately.get(q.fingerprint)),
            )
            for q in slow
        ]  # fmt: skip
        last = say("mean_of_last", age=age(since)) if since else say("lately")
        columns = [*heads("statement calls total share mean longest"), last]
        what = say("by_time" if shows else "by_time_hidden")
        return listing(what, columns, rows, range(1, 7), [0])

    def _lately(self, slow: Sequence[SlowQuery]) -> tuple[float, Mapping[str, float]]:
        """Return since when there are readings, and the mean time of what ran since, by fingerprint."""
        with self._mu:
            at, before = self._past[0] if self._past else (0.0, {})
            since = self._clock.monotonic() - at if len(self._past) > 1 else 0.0
        if not since:
            return 0.0, {}
        found = {}
        for q in slow:
            calls, spent = before.get(q.fingerprint, (0, 0.0))
            if q.calls > calls and (q.total_s or 0.0) >= spent:  # else its figures were reset meanwhile
                found[q.fingerprint] = ((q.total_s or 0.0) - spent) / (q.calls - calls)
        return since, found

    def loops(self, view: View) -> Html:
        """Return the loops that send one statement a row, with the line of code."""
        found = self._optimizer.n_plus_one()
        if not found:
            return empty(say("no_loops"))
        shows = view.may("view.sql", None)
        rows = [_loop(loop, shows) for loop in found[:_LOOPS]]
        columns = heads("where transactions statements most total fix")
        return listing(say("loops_told"), columns, rows, range(1, 5), [0, 5])


def _loop(loop: NPlusOne, shows: bool) -> tuple[object, ...]:
    statement = tag("pre", loop.statement[:4_000]) if shows else concealed(say("what_statements"))
    where = tag("details", tag("summary", tag("code", loop.caller)), statement)
    return where, f"{loop.runs:,}", f"{loop.queries:,}", f"{loop.most:,}", age(loop.total_s), loop.fix


def _statement(sample: str) -> Html:
    if len(sample) <= 160:
        return tag("code", sample)
    return tag("details", tag("summary", tag("code", f"{sample[:150]}…")), tag("pre", sample))


def _time(seconds: float | None) -> str:
    return say("none") if seconds is None else age(seconds)


def _trend(mean: float | None, lately: float | None) -> object:
    """Return the time of late, marked where it is far from the mean of all."""
    if lately is None:
        return say("none")
    if mean and lately > _TREND * mean:
        return tag("span", f"{age(lately)} ", say("slower"), class_="bad")
    if mean and lately * _TREND < mean:
        return tag("span", f"{age(lately)} ", say("faster"), class_="good")
    return markup(age(lately))
