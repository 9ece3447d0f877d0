"""Cron expressions: when they are due, in a time zone. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone, tzinfo

from .errors import ConfigurationError

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = {m: i for i, m in enumerate(_MONTH_NAMES, 1)}
_DAYS = {d: i for i, d in enumerate(_DAY_NAMES)}
_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_HORIZON_DAYS = 366 * 9  # 29 February may be eight years away
_EXPECTED = "five cron fields (minute hour day month weekday), a shorthand such as @daily, or a duration"


def _field(text: str, low: int, high: int, names: Mapping[str, int], whole: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, _, step_text = part.partition("/")
        first, _, last = span.partition("-")
        try:
            step = int(step_text) if step_text else 1
            if span == "*":
                a, b = low, high
            else:
                a = names[first] if first in names else int(first)
                b = (names[last] if last in names else int(last)) if last else (high if step_text else a)
        except ValueError as error:
            raise ConfigurationError("cron", whole, _EXPECTED) from error
        if not low <= a <= b <= high or step < 1:
            raise ConfigurationError("cron", whole, f"numbers from {low} to {high} in {text!r}")
        found.update(range(a, b + 1, step))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone.

    Days follow cron's rule: where both day of month and day of week are restricted, either will do. A time
    that a clock change skips runs right after the gap, a time that comes twice runs the first time;
    expressions with ``*`` as the hour follow real time.

    >>> from datetime import datetime, timezone
    >>> at = Cron("30 9 * * mon-fri").after(datetime(2026, 11, 21, tzinfo=timezone.utc).timestamp())
    >>> datetime.fromtimestamp(at, timezone.utc).isoformat()
    '2026-11-23T09:30:00+00:00'
    """

    text: str
    zone: tzinfo = timezone.utc
    _fields: tuple[frozenset[int], ...] = field(init=False, repr=False, compare=False)
    _any_day: tuple[bool, bool] = field(init=False, repr=False, compare=False)
    _every_hour: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = _SHORTHANDS.get(self.text.strip().lower(), self.text).split()
        if len(parts) != 5:
            raise ConfigurationError("cron", self.text, _EXPECTED)
        minute, hour, day, month, weekday = parts
        none: dict[str, int] = {}
        days = frozenset(d % 7 for d in _field(weekday, 0, 7, _DAYS, self.text))
        fields = (
            _field(minute, 0, 59, none, self.text), _field(hour, 0, 23, none, self.text),
            _field(day, 1, 31, none, self.text), _field(month, 1, 12, _MONTHS, self.text), days,
        )  # fmt: skip
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_any_day", (day.startswith("*"), weekday.startswith("*")))
        object.__setattr__(self, "_every_hour", len(fields[1]) == 24)
        if self.after(0.0) is None:
            raise ConfigurationError("cron", self.text, "a date that exists")

    def _matches(self, day: date) -> bool:
        _, _, days, months, weekdays = self._fields
        if day.month not in months:
            return False
        by_day, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        return by_day and by_weekday if any(self._any_day) else by_day or by_weekday

    def after(self, moment: float) -> float | None:
        """Return the first slot later than ``moment`` (both seconds since the epoch)."""
        day = datetime.fromtimestamp(moment, self.zone).date() - timedelta(days=1)
        for _ in range(_HORIZON_DAYS):
            if self._matches(day):
                later = [slot for slot in self._slots(day) if slot > moment]
                if later:
                    return min(later)
            day += timedelta(days=1)
        return None

    def before(self, moment: float) -> float | None:
        """Return the last slot not later than ``moment``, looking back two days at most."""
        day = datetime.fromtimestamp(moment, self.zone).date() + timedelta(days=1)
        for _ in range(4):
            if self._matches(day):
                earlier = [slot for slot in self._slots(day) if slot <= moment]
                if earlier:
                    return max(earlier)
            day -= timedelta(days=1)
        return None

    def _slots(self, day: date) -> list[float]:
        minutes, hours = self._fields[:2]
        folds = (0, 1) if self._every_hour else (0,)
        found = set()
        for fold in folds:
            for hour in hours:
                for minute in minutes:
                    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone, fold=fold)
                    slot = local.timestamp()
                    if self._every_hour:  # in a gap there is no such time: others of that hour are elsewhere
                        back = datetime.fromtimestamp(slot, self.zone)
                        if (back.hour, back.minute) != (hour, minute):
                            continue
                    found.add(slot)
        return sorted(found)


def time_zone(name: str | tzinfo) -> tzinfo:
    """Return the zone of this name.

    Raises:
        ConfigurationError: There is none, or this machine has no data of it.
    """
    if isinstance(name, tzinfo):
        return name
    if not isinstance(name, str):
        raise ConfigurationError("timezone", name, "a name such as 'Europe/Paris', or a tzinfo")
    from zoneinfo import ZoneInfo

    try:
        return timezone.utc if name.upper() == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigurationError("timezone", name, "a name such as 'Europe/Paris'") from error
