"""Checks of names and numbers that every part of the room makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from eventperf._core.errors import ConfigurationError


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


def check_int(value: object, *, argument: str, low: int, high: int | None = None) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``."""
    allowed = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        raise ConfigurationError(argument, value, allowed)
    return value


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
