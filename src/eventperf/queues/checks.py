"""Checks of names and numbers that every part of the room makes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError

MAX_SPAN_S: Final = 1e9
"""Durations are at most this long, 31 years: what every store, thread and event loop can wait."""

MAX_COUNT: Final = 2**31 - 1
"""Whole numbers are at most this large where nothing else bounds them: what every store can keep."""

_HALF: Final = re.compile(r"[\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def check_name(value: object, *, argument: str) -> str:
    """Return ``value`` if it can name a queue, a job type or a namespace.

    Raises:
        ConfigurationError: Not text, empty, over 200 characters, or with control characters, braces, or a
            blank at its end.
    """
    allowed = "1 to 200 printable characters without braces, commas or '|', the last one no blank"
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise ConfigurationError(argument, value, allowed)
    if any(c in "{}|," for c in value) or value[-1] == " ":  # MariaDB takes "a " for "a"
        raise ConfigurationError(argument, value, allowed)
    return value


def check_int(value: object, *, argument: str, low: int, high: int = MAX_COUNT) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        is_open = high == MAX_COUNT and not (isinstance(value, int) and value > high)
        allowed = f"of at least {low}" if is_open else f"from {low} to {high}"
        raise ConfigurationError(argument, value, f"a whole number {allowed}")
    return value


def check_number(value: object, *, argument: str, low: float, high: float) -> float:
    """Return ``value`` if it is a number from ``low`` to ``high``; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigurationError(argument, value, f"a number from {low:g} to {high:g}")
    return value


def check_bool(value: object, *, argument: str) -> bool:
    """Return ``value`` if it is true or false, and no stand-in for it."""
    if not isinstance(value, bool):
        raise ConfigurationError(argument, value, (True, False))
    return value


def check_span(value: Duration, *, argument: str, zero: bool = False) -> float:
    """Return a duration in seconds if it is one that can be waited for."""
    return seconds(value, name=argument, zero=zero, maximum=MAX_SPAN_S)


def check_text(value: object, argument: str) -> str:
    """Return ``value`` if it is text of 1 to 500 characters that no store reads as its own separators."""
    allowed = "text of 1 to 500 characters, none a control character, the last one no blank"
    if not isinstance(value, str) or not 0 < len(value) <= 500 or _CONTROL.search(value) or value[-1] == " ":
        raise ConfigurationError(argument, value, allowed)  # MariaDB takes "a " for "a"
    return value


def check_ids(ids: object, *, argument: str = "ids") -> list[str]:
    """Return ``ids`` if they are a list of what :func:`check_text` takes: ids that a job can have."""
    return [check_text(one, argument) for one in check_list(ids, argument=argument, of="job ids")]


def has_half(text: str) -> bool:
    """Tell whether ``text`` has half of a character (a lone surrogate), which no store can write."""
    return _HALF.search(text) is not None


def check_list(value: object, *, argument: str, of: str) -> list[Any]:
    """Return the items of ``value`` if it has any to give: a text's letters and a mapping's keys are none."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigurationError(argument, value, f"a list of {of}")
    return list(value)


def check_hook(fn: Callable[..., Any], decorator: str) -> Callable[..., Any]:
    """Return ``fn`` if it can be called with a worker's state."""
    allowed = "a function of one argument, the worker's state"
    if not callable(fn):
        raise ConfigurationError(decorator, fn, allowed)
    try:
        inspect.signature(fn).bind({})
    except TypeError:
        raise ConfigurationError(decorator, fn, allowed) from None
    except ValueError:  # a built-in without a signature
        return fn
    return fn
