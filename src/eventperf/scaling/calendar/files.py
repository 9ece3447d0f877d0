"""Calendars in files: TOML, JSON and iCalendar. Read again when a file changes."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import CalendarEvent

_TIMES = ("at", "until", "known_at")


def open_file(path: str) -> tuple[Callable[[], list[CalendarEvent]], list[dict[str, Any]]]:
    """Read a file once, so that what is wrong is said now.

    Returns:
        Its dated events, read again whenever it changes; and the options of its recurring ones.
    """
    _, recurring = _read(path)
    return _Watched(path), recurring


def event_of(entry: Mapping[str, Any]) -> CalendarEvent:
    """Make an event of plain data."""
    try:
        return CalendarEvent(**entry)
    except TypeError as error:
        raise ConfigurationError(
            "calendar", dict(entry),
            "at, kind, expected, known_at, id, replicas, min_replicas, rps, until "
            f"({str(error).removeprefix('CalendarEvent.__init__() ')})",
        ) from None  # fmt: skip


class _Watched:
    """The dated events of a file; parsed again only when the file has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[float, int] | None = None
        self._events: list[CalendarEvent] = []

    def __call__(self) -> list[CalendarEvent]:
        found = os.stat(self._path)
        stamp = (found.st_mtime, found.st_size)
        if stamp != self._stamp:
            self._events, self._stamp = _read(self._path)[0], stamp
        return self._events


def _read(path: str) -> tuple[list[CalendarEvent], list[dict[str, Any]]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("calendar", path, f"a file to read ({error})") from None
    kind = Path(path).suffix.lower()
    if kind == ".ics":
        from .ics import read_ics

        return read_ics(text, path), []
    try:
        data = _toml()(text) if kind == ".toml" else json.loads(text)
    except ValueError as error:
        raise ConfigurationError("calendar", path, f"a TOML, JSON or .ics file ({error})") from None
    if isinstance(data, list):
        data = {"events": data}
    if not isinstance(data, dict) or not data or set(data) - {"events", "cron"}:
        raise ConfigurationError("calendar", path, "a list of events, or tables [[events]] and [[cron]]")
    for name, found in data.items():
        if not isinstance(found, list):
            raise ConfigurationError(f"{path}: {name}", found, f"a list of tables, each [[{name}]]")
    return [dated(path, n, e) for n, e in enumerate(data.get("events", ()))], data.get("cron", [])


def dated(path: str, number: int, entry: object) -> CalendarEvent:
    """Make an event of plain data, whose times may be dates.

    Raises:
        ConfigurationError: What is wrong, by its place.
    """
    place = f"{path}: events[{number}]"
    if not isinstance(entry, Mapping):
        raise ConfigurationError(place, entry, "a table with at and kind")
    try:
        return event_of({k: seconds_at(v) if k in _TIMES else v for k, v in entry.items()})
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}.{error.argument}", error.given, error.allowed) from None
    except ValueError as error:
        raise ConfigurationError(place, dict(entry), f"a date with a time zone ({error})") from None


def seconds_at(value: object) -> Any:
    """Return seconds since the epoch of a date such as ``2026-11-28T19:00:00+01:00``; numbers stay.

    >>> seconds_at("2026-11-28T19:00:00+09:00")
    1795860000.0
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=timezone.utc).timestamp()
    return value


def _toml() -> Any:
    for name in ("tomllib", "tomli"):  # the standard library has it from Python 3.11 on
        try:
            return importlib.import_module(name).loads
        except ModuleNotFoundError:
            continue
    raise ConfigurationError(
        "calendar", "TOML on Python 3.10", 'tomli ("pip install tomli"), or the same file as .json'
    )
