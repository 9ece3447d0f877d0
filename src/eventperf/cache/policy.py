"""Pure decisions: no clock, no I/O, no randomness of their own.

Whether a value is fresh, may be served stale, may stand in for a failed load or should be refreshed early
is decided here and nowhere else. (A hit in process memory compares ``now < entry.soft`` in its own line: it
is :func:`is_fresh` without the call, and a test holds the two together.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError

from .checks import check_life
from .options import CacheOptions

SAME_END_S: Final = 0.05
"""Entries stored one after another may share an end that is so much, or a thousandth of their life, early."""


def is_fresh(soft: float, now: float = 0.0) -> bool:
    """Tell whether a value that is fresh until ``soft`` is fresh ``now`` (or: with so much left)."""
    return now < soft


def is_kept(hard: float, now: float = 0.0) -> bool:
    """Tell whether a value that may be kept until ``hard`` is of any use ``now``."""
    return now < hard


def may_serve_stale(soft_left: float, options: CacheOptions) -> bool:
    """Tell whether a value may be handed out while it is refreshed: within stale-while-revalidate."""
    longest = options.in_seconds.stale_while_revalidate
    return longest > 0 and soft_left > -longest


def may_stand_in(soft_left: float, options: CacheOptions) -> bool:
    """Tell whether an old value may stand in for a failed load: within the grace."""
    grace = options.in_seconds.grace
    return grace > 0 and soft_left > -grace


def old_is_of_use(options: CacheOptions) -> bool:
    """Tell whether a caller can do anything with an old value before its refresh has ended."""
    return options.soft_timeout is not None or options.in_seconds.stale_while_revalidate > 0


def is_early(soft_left: float, load_s: float, options: CacheOptions, u: float) -> bool:
    """Tell whether this reader should refresh a fresh value before its end."""
    return bool(options.early_beta) and soft_left <= early_by(load_s, options.early_beta, u)


def longest_life(options: CacheOptions, ttl_s: float) -> float:
    """Return how long a value can be of any use, in seconds."""
    return ttl_s + options.in_seconds.grace + options.in_seconds.stale_while_revalidate


def lifetime(options: CacheOptions, ttl_s: float, u: float) -> tuple[float, float]:
    """Return how long a value is fresh and how long it may be kept, in seconds.

    Args:
        options: Jitter, grace and stale-while-revalidate come from here.
        ttl_s: The TTL asked for; may be infinite.
        u: A uniform draw in [0, 1) for the jitter, which only ever shortens.
    """
    soft = ttl_s * (1.0 - options.jitter_ratio * u) if options.jitter_ratio and ttl_s != math.inf else ttl_s
    lives = options.in_seconds
    return soft, soft + max(lives.grace, lives.stale_while_revalidate)


def early_by(load_s: float, beta: float, u: float) -> float:
    """Return by how many seconds before its expiry an entry should be refreshed in this process.

    The published rule draws once per read; here one draw is made per stored entry and process, which keeps
    the hit free of it and spreads the refreshes of many processes with the same distribution.

    Args:
        load_s: Seconds the last load took.
        beta: Eagerness; 1.0 is the published optimum, 0 switches it off.
        u: A uniform draw in (0, 1], handed in so that tests are exact.

    Source: Vattani et al., "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
    """
    if not beta or not load_s:
        return 0.0
    return -load_s * beta * math.log(u)


def result_ttl(options: CacheOptions, ttl_s: float, value: Any) -> float | None:
    """Return the TTL of a loaded value, or ``None`` when it must not be stored."""
    if options.cache_if is not None and not options.cache_if(value):
        return None
    if options.ttl_of is not None:
        return _said_by(options.ttl_of, value)
    if value is None and options.in_seconds.negative_ttl is not None:
        return options.in_seconds.negative_ttl
    return ttl_s


def _said_by(ttl_of: Callable[[Any], Duration | None], value: Any) -> float | None:
    try:
        said = ttl_of(value)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise ConfigurationError("ttl", text, "a function that takes every result, also None") from error
    return None if said is None or said == 0 else check_life(said)


def l1_life(
    options: CacheOptions, soft_left: float, hard_left: float, second_tier: bool
) -> tuple[float, float]:
    """Return for how long process memory may serve an entry as fresh, and keep it, in seconds."""
    if not second_tier:
        return soft_left, hard_left
    cap = options.in_seconds.l1_ttl
    return min(cap, soft_left), min(cap, hard_left)


def same_end(last: float, soft: float, life_s: float) -> bool:
    """Tell whether an entry that ends at ``soft`` may end at ``last`` instead, to share its number."""
    return 0.0 <= soft - last < min(SAME_END_S, life_s / 1000)


def tag_changed_since(version: str, server_s: float) -> bool:
    """Tell whether a load that got its lease at ``server_s`` may miss an invalidation of a tag.

    Args:
        version: The tag's version: ``i`` and the time of the invalidation, ``s`` and the time until which
            loads are not to be stored, ``c`` for a record that was only created.
        server_s: The store's time of the lease.
    """
    if version[:1] not in ("i", "s"):
        return False
    try:
        return int(version[1:14]) / 1000 >= math.floor(server_s * 1000) / 1000
    except ValueError:
        return True


def tag_settles(version: str, server_s: float) -> bool:
    """Tell whether loads of a tag are not to be stored: ``server_s`` is before the end it names."""
    return version[:1] == "s" and tag_changed_since(version, server_s)
