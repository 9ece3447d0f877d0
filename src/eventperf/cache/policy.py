"""Pure decisions: no clock, no I/O, no randomness of their own."""

from __future__ import annotations

import math
from typing import Any, Final

from .options import CacheOptions

FRESH: Final = "fresh"
STALE: Final = "stale"
MISS: Final = "miss"


def judge(soft_until: float, hard_until: float, now: float) -> str:
    """Tell what a value is worth at ``now``: fresh, stale (usable while refreshing) or a miss."""
    if now < soft_until:
        return FRESH
    return STALE if now < hard_until else MISS


def lifetime(options: CacheOptions, ttl_s: float, u: float) -> tuple[float, float]:
    """Return how long a value is fresh and how long it may be kept, in seconds.

    Args:
        options: Jitter, grace and stale-while-revalidate come from here.
        ttl_s: The TTL asked for; may be infinite.
        u: A uniform draw in [0, 1) for the jitter, which only ever shortens.
    """
    soft = ttl_s * (1.0 - options.jitter_ratio * u) if options.jitter_ratio and ttl_s != math.inf else ttl_s
    return soft, soft + max(_s(options.grace), _s(options.stale_while_revalidate))


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
    if value is None and options.negative_ttl is not None:
        return _s(options.negative_ttl)
    return ttl_s


def l1_life(
    options: CacheOptions, soft_left: float, hard_left: float, second_tier: bool
) -> tuple[float, float]:
    """Return for how long process memory may serve an entry as fresh, and keep it, in seconds."""
    if not second_tier:
        return soft_left, hard_left
    cap = _s(options.l1_ttl)
    return min(cap, soft_left), min(cap, hard_left)


def _s(value: Any) -> float:
    """Options keep durations as seconds; this says so to the type checker."""
    return float(value)
