"""iCalendar (RFC 5545) files as dated events: what calendars of people and of event platforms export.

Read are events with a start, an end or duration, and the rules of recurrence that such files hold: daily,
weekly, monthly and yearly, with ``INTERVAL``, ``COUNT``, ``UNTIL``, ``BYDAY`` (weekly), ``EXDATE`` and
``RDATE``. One beyond these is refused by name, never half read. ``CATEGORIES`` is the kind, else ``SUMMARY``;
``X-EVENTPERF-KIND``, ``-EXPECTED``, ``-REPLICAS``, ``-MIN-REPLICAS`` and ``-RPS`` say things outright.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any

from eventperf._core.cron import time_zone
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import MOST_TEXT, CalendarEvent

_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_RULES = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "WKST"}
_SAID = {"EXPECTED": float, "REPLICAS": int, "MIN-REPLICAS": int, "RPS": float}
_MOST_DATES = 4000  # of one rule without an end: daily for eleven years
_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)

Line = tuple[str, dict[str, str], str]


def read_ics(text: str, path: str = "calendar.ics") -> list[CalendarEvent]:
    """Return the events of an iCalendar file, recurring ones date by date; cancelled ones are left out.

    Raises:
        ConfigurationError: It is no such file, or holds a rule that is not read.
    """
    if "BEGIN:VCALENDAR" not in text:
        raise ConfigurationError("calendar", path, "an iCalendar file, which begins with BEGIN:VCALENDAR")
    found = list[CalendarEvent]()
    moved: set[tuple[str, float]] = set()
    parts = list(_components(text))
    for lines in parts:
        changed = _first(lines, "RECURRENCE-ID")
        if changed:
            moved.add((_text(lines, "UID"), _moment(changed).timestamp()))
    for number, lines in enumerate(parts):
        try:
            found += _events(lines, moved)
        except ConfigurationError as error:
            place = f"{path}: {_text(lines, 'SUMMARY') or f'event {number + 1}'}"
            raise ConfigurationError(f"{place}: {error.argument}", error.given, error.allowed) from None
        except ValueError as error:
            name = _text(lines, "SUMMARY") or f"event {number + 1}"
            raise ConfigurationError(f"{path}: {name}", str(error), "dates as RFC 5545 has them") from None
    return found


def _components(text: str) -> Iterator[list[Line]]:
    """Yield the lines of each VEVENT, unfolded; components inside it (alarms) are left out."""
    event: list[Line] | None = None
    inside = ""
    for row in re.sub(r"\r?\n[ \t]", "", text).splitlines():
        head, colon, value = row.partition(":")
        while colon and head.count('"') % 2:  # a colon inside a quoted parameter
            more, colon, value = value.partition(":")
            head += ":" + more
        name, *options = head.split(";")
        name = name.upper()
        if inside:
            inside = "" if (name, value.upper()) == ("END", inside) else inside
        elif (name, value.upper()) == ("BEGIN", "VEVENT"):
            event = []
        elif (name, value.upper()) == ("END", "VEVENT") and event is not None:
            yield event
            event = None
        elif name == "BEGIN" and event is not None:
            inside = value.upper()
        elif event is not None:
            pairs = (option.partition("=") for option in options)
            event.append((name, {k.upper(): v.strip('"') for k, _, v in pairs}, value.strip()))


def _first(lines: list[Line], name: str) -> Line | None:
    return next((line for line in lines if line[0] == name), None)


def _text(lines: list[Line], name: str) -> str:
    line = _first(lines, name)
    return re.sub(r"\\([,;\\])", r"\1", line[2]) if line else ""


def _moment(line: Line, value: str | None = None) -> datetime:
    """Return the instant of a date or date-time; one without a zone is taken as UTC."""
    text = line[2] if value is None else value
    zone: tzinfo = time_zone(line[1]["TZID"].lstrip("/")) if "TZID" in line[1] else timezone.utc
    if text.endswith("Z"):
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    form = "%Y%m%d" if len(text) == 8 else "%Y%m%dT%H%M%S"
    return datetime.strptime(text, form).replace(tzinfo=zone)


def _events(lines: list[Line], moved: set[tuple[str, float]]) -> list[CalendarEvent]:
    start = _first(lines, "DTSTART")
    if _text(lines, "STATUS").upper() == "CANCELLED":
        return []
    if start is None:
        raise ConfigurationError("DTSTART", "nothing", "when it begins")
    began, uid = _moment(start), _text(lines, "UID")
    length = _length(lines, began)
    skipped, added = _listed(lines, "EXDATE"), _listed(lines, "RDATE")
    if _first(lines, "RECURRENCE-ID") is None:
        skipped |= {at for name, at in moved if name == uid}
    categories, summary = _text(lines, "CATEGORIES").split(",")[0], _text(lines, "SUMMARY")
    kind = (_text(lines, "X-EVENTPERF-KIND") or categories or summary or "event")[:MOST_TEXT]
    said: dict[str, Any] = {}
    for name, make in _SAID.items():
        value = _text(lines, f"X-EVENTPERF-{name}")
        if value:
            said[name.lower().replace("-", "_")] = _number(name, value, make)
    rule = _text(lines, "RRULE")
    dates = sorted({*(d.timestamp() for d in (_recurring(began, rule) if rule else [began])), *added})
    name, comes_again = uid[: MOST_TEXT - 20], bool(rule or added)
    return [
        CalendarEvent(
            at=at, kind=kind, id=f"{name}/{at:.0f}" if comes_again else name,
            until=at + length if length > 0 else None, **said,
        )
        for at in dates
        if at not in skipped
    ]  # fmt: skip


def _listed(lines: list[Line], name: str) -> set[float]:
    """Return the instants of a property that lists dates."""
    found = [(line, value) for line in lines if line[0] == name for value in line[2].split(",")]
    for line, value in found:
        if line[1].get("VALUE", "").upper() == "PERIOD":
            raise ConfigurationError(name, value, "dates or date-times, no periods")
    return {_moment(line, value).timestamp() for line, value in found}


def _number(name: str, value: str, make: Any) -> Any:
    try:
        return make(value)
    except ValueError:
        raise ConfigurationError(f"X-EVENTPERF-{name}", value, "a number") from None


def _length(lines: list[Line], began: datetime) -> float:
    end, duration = _first(lines, "DTEND"), _text(lines, "DURATION")
    if end is not None:
        return _moment(end).timestamp() - began.timestamp()
    if not duration:
        return 0.0
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ConfigurationError("DURATION", duration, "a duration such as PT2H30M")
    return timedelta(**{k: int(v) for k, v in found.groupdict().items() if v}).total_seconds()


def _recurring(began: datetime, text: str) -> Iterator[datetime]:
    """Yield the dates of a rule, at the same time of the day of its zone."""
    rule = {k.upper(): v.upper() for k, _, v in (part.partition("=") for part in text.split(";") if part)}
    freq, unread = rule.get("FREQ", ""), sorted(set(rule) - _RULES)
    days = [d for d in rule.get("BYDAY", "").split(",") if d]
    if freq not in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY") or unread:
        raise ConfigurationError("RRULE", text, "DAILY to YEARLY with INTERVAL, COUNT, UNTIL, BYDAY")
    if days and (freq not in ("DAILY", "WEEKLY") or not set(days) <= set(_DAYS)):
        raise ConfigurationError("RRULE", text, "BYDAY of weekdays, for weekly and daily rules only")
    for name in ("COUNT", "INTERVAL"):
        if name in rule and not (rule[name].isascii() and rule[name].isdigit() and int(rule[name])):
            raise ConfigurationError("RRULE", text, f"{name} as a whole number from 1")
    most = min(int(rule.get("COUNT", _MOST_DATES)), _MOST_DATES)
    line: Line = ("UNTIL", {}, rule.get("UNTIL", ""))
    last = _moment(line) if line[2] else None
    if last is not None and len(line[2]) == 8:
        last += timedelta(days=1, seconds=-1)
    step, given, tried = int(rule.get("INTERVAL", "1")), 0, 0
    weekdays = {_DAYS.index(d) for d in days} or ({began.weekday()} if freq == "WEEKLY" else set(range(7)))
    while given < most and tried < 7 * _MOST_DATES:
        moment = _stepped(began, freq, step, tried, weekdays)
        tried += 1
        if moment is None or moment < began:
            continue
        if last is not None and moment.timestamp() > last.timestamp():
            return
        given += 1
        yield moment


def _stepped(began: datetime, freq: str, step: int, tried: int, weekdays: set[int]) -> datetime | None:
    """Return the candidate of this number, ``None`` where there is no such day."""
    if freq in ("MONTHLY", "YEARLY"):
        months = began.month - 1 + tried * step * (12 if freq == "YEARLY" else 1)
        try:
            return began.replace(year=began.year + months // 12, month=months % 12 + 1)
        except ValueError:
            return None
    if freq == "DAILY":
        day = began + timedelta(days=tried * step)
        return day if day.weekday() in weekdays else None
    monday: date = began.date() - timedelta(days=began.weekday())
    week, weekday = divmod(tried, 7)
    found = monday + timedelta(days=7 * step * week + weekday)
    return began.replace(year=found.year, month=found.month, day=found.day) if weekday in weekdays else None
