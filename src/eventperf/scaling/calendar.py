"""Dated events that draw load: what the application knows, and when it came to know it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eventperf._core.errors import ConfigurationError

from .model import CalendarEvent

BEFORE_S, AFTER_S = 7200.0, 4 * 3600.0
"""An observation holds the events from ``AFTER_S`` ago to ``BEFORE_S`` ahead."""

Source = Callable[[], Iterable[CalendarEvent]]


class Calendar:
    """Events by date, handed to policies with every observation.

    Entries may come, move and go while the scaler runs: give a function instead of a list, and it is asked
    once per ``refresh_s``. What it raises keeps the last answer.

    Args:
        events: :class:`CalendarEvent` objects, or a function that returns them.
        refresh_s: How long an answer of the function counts.

    >>> talk = CalendarEvent(at=36_000, kind="registration_open", expected=800)
    >>> [e.kind for e in Calendar([talk]).around(35_000)]
    ['registration_open']
    """

    def __init__(self, events: Iterable[CalendarEvent] | Source, *, refresh_s: float = 60.0) -> None:
        self._source: Source | None = events if callable(events) else None
        self._events: tuple[CalendarEvent, ...] = ()
        self._dates: list[float] = []
        self._next_s = -math.inf
        self.refresh_s: float = refresh_s
        self.error: str | None = None
        if not callable(events):
            self._take(events)

    @classmethod
    def from_dicts(cls, entries: Iterable[Mapping[str, Any]]) -> Calendar:
        """Read plain data: ``at``, ``kind`` and, where known, ``expected``, ``known_at`` and ``id``.

        Raises:
            ConfigurationError: An entry has no date or kind, or a number that is none.
        """
        made = []
        for entry in entries:
            try:
                made.append(CalendarEvent(**entry))
            except TypeError as error:
                raise ConfigurationError(
                    "calendar", entry, f"at, kind, expected, known_at, id ({error})"
                ) from None
        return cls(made)

    def around(self, now_s: float) -> tuple[CalendarEvent, ...]:
        """Return the events near ``now_s`` that are known by then, oldest first."""
        if self._source is not None and now_s >= self._next_s:
            self._next_s = now_s + self.refresh_s
            try:
                self._take(self._source())
                self.error = None
            except Exception as error:
                self.error = f"{type(error).__name__}: {error}"
        low = bisect_left(self._dates, now_s - AFTER_S)
        high = bisect_right(self._dates, now_s + BEFORE_S)
        return tuple(e for e in self._events[low:high] if e.known_at <= now_s)

    def _take(self, events: Iterable[CalendarEvent]) -> None:
        found = tuple(sorted(events, key=lambda e: (e.at, e.kind, e.id)))
        self._dates = [e.at for e in found]
        self._events = found
