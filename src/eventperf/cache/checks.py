"""Checks of arguments that every part of the room makes, before anything is done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from eventperf._core.durations import FOREVER, Duration, seconds
from eventperf._core.errors import ConfigurationError

MAX_LIFE_S: Final = 1e9
"""Lives and pauses are at most this long, 31 years, or for ever: what every store and clock can keep."""

INT64: Final = range(-(2**63), 2**63)
"""What a counter can hold, and what can be added to one: the whole numbers of 64 bits."""


TAGS_MOST: Final = 10_000
"""A value carries at most so many tags: each is asked for with it, and a record of its own on the server."""


def check_tags(tags: list[str]) -> list[str]:
    """Return the tags of a value if they are not too many.

    Raises:
        ConfigurationError: They are.
    """
    if len(tags) > TAGS_MOST:
        allowed = f"at most {TAGS_MOST:,} on one value: tag it with what they have in common"
        raise ConfigurationError("tags", f"{len(tags):,} tags", allowed)
    return tags


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


def check_span(value: Duration, *, argument: str, zero: bool = False) -> float:
    """Return a duration in seconds if it is one that every store can keep."""
    return seconds(value, name=argument, zero=zero, maximum=MAX_LIFE_S)


def check_life(value: Duration, *, argument: str = "ttl") -> float:
    """Return how long a value lives, in seconds: for ever too, where that is said."""
    if value is FOREVER or value == math.inf:
        return FOREVER
    try:
        return check_span(value, argument=argument)
    except ConfigurationError as error:
        raise ConfigurationError(argument, value, f"{error.allowed}, or FOREVER") from None


def check_list(value: object, *, argument: str, of: str) -> list[Any]:
    """Return the items of ``value`` if it has any to give: a text's letters and a mapping's keys are none."""
    if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
        raise ConfigurationError(argument, value, f"a list of {of}")
    return list(value)


def check_mapping(value: object, *, argument: str, of: str) -> Mapping[Any, Any]:
    """Return ``value`` if it is a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(argument, value, f"a mapping of {of}")
    return value


def check_loaded(made: object) -> Mapping[Any, Any]:
    """Return what a bulk loader made if it says which value belongs to which key."""
    return check_mapping(made, argument="bulk_loader", of="keys and values as its result, {} for none")


def check_call(value: Any, *, argument: str, allowed: str) -> Any:
    """Return ``value`` if it can be called."""
    if not callable(value):
        raise ConfigurationError(argument, value, allowed)
    return value
