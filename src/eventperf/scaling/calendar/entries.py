"""Dated events that draw load: what the application knows, and when it came to know it."""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Any

from eventperf._core.cron import Cron, time_zone
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import CalendarEvent

from .files import dated, open_file

BEFORE_S, AFTER_S = 7200.0, 4 * 3600.0
"""An observation holds the events from ``AFTER_S`` ago to ``BEFORE_S`` ahead, and those that still last."""

MOST_ENTRIES = 100
"""More entries than these near one time are summed by kind and five minutes, so that records stay small."""

_SLOT_S = 300.0
_KEEP_S = 60.0

Source = Callable[[], Iterable[CalendarEvent]]


class Calendar:
    """Events by date, handed to policies with every observation.

    Entries may come, move and go while the scaler runs: give a function instead of a list, and it is asked
    once per ``refresh_s``. What it raises keeps the last answer, and is told in ``error``. Calendars add up:
    ``Calendar.cron(...) + Calendar.from_file("events.ics")``.

    Args:
        events: :class:`CalendarEvent` objects, or a function that returns them.
        refresh_s: How long an answer of the function counts.

    >>> talk = CalendarEvent(at=36_000, kind="registration_open", expected=800)
    >>> [e.kind for e in Calendar([talk]).around(35_000)]
    ['registration_open']
    """

    def __init__(self, events: Iterable[CalendarEvent] | Source, *, refresh_s: Duration = 60.0) -> None:
        refresh_s = seconds(refresh_s, name="refresh_s", zero=True)
        if not callable(events) and not isinstance(events, Iterable):
            raise ConfigurationError(
                "events", events, "CalendarEvent objects, or a function that returns them"
            )
        self._parts: tuple[_Dated | _Recurring, ...] = (_Dated(events, refresh_s),)
        self._kept: tuple[float, float, tuple[CalendarEvent, ...]] = (math.inf, -math.inf, ())
        self.refresh_s: float = refresh_s

    @property
    def error(self) -> str | None:
        """Why a source gave nothing new, ``None`` while all is well."""
        told = [p.error for p in self._parts if isinstance(p, _Dated) and p.error]
        return "; ".join(told) or None

    @classmethod
    def from_dicts(cls, entries: Iterable[Mapping[str, Any]]) -> Calendar:
        """Read plain data: ``at``, ``kind`` and, where known, the other fields of :class:`CalendarEvent`.

        Times are seconds since the epoch, datetimes with a zone or texts of them in ISO 8601.

        Raises:
            ConfigurationError: An entry has no date or kind, or a number that is none.
        """
        return cls([dated("calendar", number, entry) for number, entry in enumerate(entries)])

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, refresh_s: float = 60.0) -> Calendar:
        """Read a TOML, JSON or iCalendar (``.ics``) file, and again whenever it changes.

        Raises:
            ConfigurationError: It cannot be read, or holds something that is no calendar.
        """
        name = os.fspath(path)
        events, recurring = open_file(name)
        calendar = cls(events, refresh_s=refresh_s)
        for number, options in enumerate(recurring):
            if not isinstance(options, Mapping):
                raise ConfigurationError(f"{name}: cron[{number}]", options, "a table with cron")
            try:
                calendar = calendar + cls.cron(**options)
            except TypeError as error:
                text = str(error).removeprefix("Calendar.cron() ")
                raise ConfigurationError(f"{name}: cron[{number}]", options, text) from None
        return calendar

    @classmethod
    def cron(
        cls,
        cron: str,
        *,
        kind: str | None = None,
        replicas: int | None = None,
        min_replicas: int | None = None,
        rps: float | None = None,
        expected: float | None = None,
        duration: Duration | None = None,
        timezone: str | tzinfo = "UTC",
    ) -> Calendar:
        """Say an event that comes again, by a cron expression in a time zone.

        Args:
            kind: What its shape is learned under; the expression itself when not given.
            duration: How long ``replicas`` and ``min_replicas`` hold; a quarter of an hour when not given.

        Raises:
            ConfigurationError: The expression, the zone or a number is none.

        >>> opening = Calendar.cron("0 9 * * mon-fri", min_replicas=40, duration="2h", timezone="Asia/Seoul")
        >>> nine_in_seoul = 1_799_712_000  # a Tuesday
        >>> [(e.min_replicas, e.until - e.at) for e in opening.around(nine_in_seoul - 600)]
        [(40, 7200.0)]
        """
        dates = Cron(cron, time_zone(timezone))
        length_s = None if duration is None else seconds(duration, name="duration")
        event = CalendarEvent(
            at=0.0, kind=kind or cron, expected=expected, replicas=replicas, min_replicas=min_replicas,
            rps=rps,
        )  # fmt: skip
        made = cls(())
        made._parts = (_Recurring(dates, event, length_s),)
        return made

    def __add__(self, other: Calendar) -> Calendar:
        if not isinstance(other, Calendar):
            return NotImplemented
        made = Calendar((), refresh_s=min(self.refresh_s, other.refresh_s))
        made._parts = (*self._parts, *other._parts)
        return made

    def around(self, now_s: float) -> tuple[CalendarEvent, ...]:
        """Return the events near ``now_s`` that are known by then, oldest first."""
        since, until, kept = self._kept
        if since <= now_s < until and not any(p.is_due(now_s) for p in self._parts):
            return kept
        near = [e for part in self._parts for e in part.near(now_s)]
        known = [e for e in near if e.known_at <= now_s]
        until = min([now_s + _KEEP_S, *(e.known_at for e in near if e.known_at > now_s)])
        known.sort(key=_order)
        kept = tuple(known) if len(known) <= MOST_ENTRIES else _summed(known, now_s)
        self._kept = (now_s, until, kept)
        return kept


def _order(event: CalendarEvent) -> tuple[float, str, str]:
    return event.at, event.kind, event.id


class _Dated:
    """Events of a list, or of a function that is asked again and again."""

    def __init__(self, events: Iterable[CalendarEvent] | Source, refresh_s: float) -> None:
        self._source: Source | None = events if callable(events) else None
        self._events: tuple[CalendarEvent, ...] = ()
        self._long: tuple[CalendarEvent, ...] = ()
        self._dates: list[float] = []
        self._asked_s = math.inf
        self._refresh_s = refresh_s
        self.error: str | None = None
        if not callable(events):
            self._take(events)

    def is_due(self, now_s: float) -> bool:
        return self._source is not None and not 0 <= now_s - self._asked_s < self._refresh_s

    def near(self, now_s: float) -> list[CalendarEvent]:
        if self._source is not None and self.is_due(now_s):
            self._asked_s = now_s
            try:
                self._take(self._source())
                self.error = None
            except Exception as error:
                self.error = f"{type(error).__name__}: {error}"
        low = bisect_left(self._dates, now_s - AFTER_S)
        high = bisect_right(self._dates, now_s + BEFORE_S + _KEEP_S)
        lasting = [e for e in self._long if e.at < now_s - AFTER_S and now_s < e.ends]
        return [*lasting, *self._events[low:high]]

    def _take(self, events: Iterable[CalendarEvent]) -> None:
        found = list(events)
        for event in found:
            if not isinstance(event, CalendarEvent):
                raise ConfigurationError("calendar", event, "CalendarEvent objects")
        found.sort(key=_order)
        self._dates = [e.at for e in found]
        self._long = tuple(e for e in found if e.ends - e.at > AFTER_S)
        self._events = tuple(found)


class _Recurring:
    """The dates of a cron expression near a time."""

    def __init__(self, cron: Cron, event: CalendarEvent, length_s: float | None) -> None:
        self._cron, self._event, self._length_s = cron, event, length_s

    def is_due(self, now_s: float) -> bool:
        return False

    def near(self, now_s: float) -> list[CalendarEvent]:
        found, at = list[CalendarEvent](), now_s - max(AFTER_S, self._length_s or 0.0)
        for _ in range(10 * MOST_ENTRIES):
            after = self._cron.after(at)
            if after is None or after > now_s + BEFORE_S + _KEEP_S:
                break
            at = after
            until = None if self._length_s is None else at + self._length_s
            found.append(replace(self._event, at=at, until=until))
        return found


def _summed(known: Sequence[CalendarEvent], now_s: float) -> tuple[CalendarEvent, ...]:
    """Return few entries that say what many say: sums of persons, the largest of what is said."""
    sums: dict[tuple[str, float, bool], list[float]] = {}
    floors: dict[float, CalendarEvent] = {}
    for event in known:
        width = _SLOT_S if event.at > now_s - 3600.0 else 6.0 * _SLOT_S
        slot = math.floor(event.at / width) * width
        said = max(event.replicas or 0, event.min_replicas or 0)
        if said and now_s < event.ends:
            held = floors.get(slot)
            if held is None or said > max(held.replicas or 0, held.min_replicas or 0):
                floors[slot] = event
        if event.replicas is None:
            pair = sums.setdefault((event.kind, slot, event.rps is not None), [0.0, 0.0])
            pair[0] += (event.expected or 0.0) if event.rps is None else event.rps
            pair[1] += event.expected is not None or event.rps is not None
    largest = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))[: MOST_ENTRIES * 3 // 4]
    highest = sorted(floors.values(), key=lambda e: (-e.floor(e.at), _order(e)))[: MOST_ENTRIES // 4]
    made = [replace(e, expected=None, rps=None, replicas=e.floor(e.at), min_replicas=None) for e in highest]
    for (kind, slot, outright), (amount, counted) in largest:
        number = amount if counted else None
        made.append(
            CalendarEvent(
                at=slot,
                kind=kind,
                known_at=min(now_s, slot),
                expected=None if outright else number,
                rps=number if outright else None,
            )
        )
    return tuple(sorted(made, key=_order))
