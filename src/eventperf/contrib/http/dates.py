"""Dates as HTTP writes them; any other text is none, and so of no use to keep an answer by."""

from __future__ import annotations

import re
from calendar import timegm
from datetime import date
from functools import lru_cache
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = "mon|tue|wed|thu|fri|sat|sun"
_LONG_DAYS: Final = "mon|tues|wednes|thurs|fri|satur|sun"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS: Final = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        rf"(?:{_DAYS}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        rf"(?:{_LONG_DAYS})day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        rf"(?:{_DAYS}) {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


@lru_cache(maxsize=256)
def moment(text: str) -> float | None:
    """Return the time of an HTTP date, in any of its three forms; ``None`` for any other text.

    Capitals or not is all the same; a zone by another name than GMT is none (RFC 9110, 5.6.7; RFC 9111, 4.2).

    >>> moment("Sun, 06 Nov 1994 08:49:37 GMT"), moment("Sun Nov  6 08:49:37 1994"), moment("tomorrow")
    (784111777.0, 784111777.0, None)
    """
    for form in _FORMS if len(text) < 40 else ():
        if found := form.fullmatch(text):
            return _seconds(**found.groupdict())
    return None


def _seconds(year: str, month: str, day: str, hour: str, minute: str, second: str) -> float | None:
    number = _MONTHS.index(month.lower()) + 1
    full = int(year) if len(year) == 4 else _century(int(year))
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60:
        return None
    try:
        there = date(full, number, int(day))
    except ValueError:
        return None
    return float(timegm((there.year, there.month, there.day, int(hour), int(minute), int(second))))


def _century(year: int) -> int:
    """Return the year that two digits mean: none that is more than 50 years ahead."""
    this = date.today().year
    full = this - this % 100 + year
    return full - 100 if full > this + 50 else full
