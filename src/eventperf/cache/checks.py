"""Checks of arguments that every part of the room makes, before anything is done."""

from __future__ import annotations

from typing import Any, Final

from eventperf._core.errors import ConfigurationError

INT64: Final = range(-(2**63), 2**63)
"""What a counter can hold, and what can be added to one: the whole numbers of 64 bits."""


def check_amount(value: object, *, argument: str = "amount") -> int:
    """Return ``value`` if a counter can be told to add it.

    Raises:
        ConfigurationError: No whole number, or one beyond 64 bits.
    """
    # A subclass may add as it likes: the plain number is taken out of it.
    if isinstance(value, bool) or not isinstance(value, int) or int(value) not in INT64:
        raise ConfigurationError(argument, value, "a whole number of at most 64 bits")
    return int(value)


def check_count(value: object, *, argument: str, low: int, high: int) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigurationError(argument, value, f"a whole number from {low:,} to {high:,}")
    return value


def check_bool(value: object, *, argument: str) -> bool:
    """Return ``value`` if it is true or false, and no stand-in for it: ``"false"`` would be true."""
    if type(value) is not bool:
        raise ConfigurationError(argument, value, (True, False))
    return value


def check_call(value: Any, *, argument: str, allowed: str) -> Any:
    """Return ``value`` if it can be called."""
    if not callable(value):
        raise ConfigurationError(argument, value, allowed)
    return value
