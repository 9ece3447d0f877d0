"""Durations as people write them: seconds, ``timedelta`` or ``"5m"``; kept as seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

from .errors import ConfigurationError

Duration = int | float | str | timedelta
"""Seconds, a ``timedelta``, or text such as ``"250ms"``, ``"90s"``, ``"5m"``, ``"1h30m"``, ``"7d"``."""

FOREVER: Final = math.inf
"""A duration that never ends; accepted only where an argument says so."""

_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)\s*")


def seconds(
    value: Duration, *, name: str, zero: bool = False, forever: bool = False, maximum: float | None = None
) -> float:
    """Return ``value`` in seconds, or refuse it by ``name``.

    Args:
        value: What the caller wrote.
        name: The argument's name, for the error text.
        zero: Accept 0.
        forever: Accept :data:`FOREVER`.
        maximum: Largest accepted value in seconds.

    Raises:
        ConfigurationError: Not a duration, negative, NaN, or outside what is allowed.

    >>> seconds("1h30m", name="ttl")
    5400.0
    """
    allowed = f"{'zero or ' if zero else ''}a positive number of seconds, a timedelta or text like '5m'"
    if forever:
        allowed += ", or FOREVER"
    if maximum is not None:
        allowed += f", at most {maximum:g} s"
    result = _number(value)
    if result is None or math.isnan(result):
        raise ConfigurationError(name, value, allowed)
    if result == math.inf:
        if not forever:
            raise ConfigurationError(name, value, allowed)
        return result
    if result < 0 or (result == 0 and not zero) or (maximum is not None and result > maximum):
        raise ConfigurationError(name, value, allowed)
    return result


def _number(value: Duration) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:  # a whole number beyond what a float can be
            return math.nan
    if isinstance(value, timedelta):
        return value.total_seconds()
    return _text(value) if isinstance(value, str) else None


def _text(text: str) -> float | None:
    text = text.strip().lower()
    try:
        plain = float(text)
    except ValueError:
        pass
    else:
        return plain if math.isfinite(plain) else None
    total, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    return total if at else None


def show(value_s: float) -> str:
    """Return seconds as short text for people.

    >>> show(0.00042), show(0.25), show(90), show(86400)
    ('420us', '250ms', '1m30s', '1d')
    """
    if value_s == math.inf:
        return "forever"
    if value_s < 0:
        return "-" + show(-value_s)
    if value_s < 1e-3:
        return f"{value_s * 1e6:.0f}us"
    if value_s < 0.9995:  # what would round to 1000 ms is shown as 1s
        return f"{value_s * 1e3:.3g}ms"
    if value_s < 60:
        return f"{value_s:.3g}s"
    rest, out = round(value_s), ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            out += f"{count}{unit}"
    return out
