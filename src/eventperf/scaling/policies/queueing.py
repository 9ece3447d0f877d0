"""How many replicas keep waiting times within a goal: the queue behind :class:`LatencyPolicy`. Pure.

Requests meet one queue in front of all replicas. The probability that one has to wait is that of Halfin and
Whitt ("Heavy-traffic limits for queues with many exponential servers", Operations Research 1981), which is
close to Erlang C and needs no recursion; the wait of those that wait is exponential.
"""

from __future__ import annotations

import math
from functools import lru_cache


def late_share(rate: float, capacity: float, servers: int, wait_s: float) -> float:
    """Return the share of requests that wait longer than ``wait_s``.

    Args:
        rate: Requests per second that arrive; ``capacity``: that can be served.
        servers: Requests served at once.

    >>> late_share(90, 100, 10, 0.4) < late_share(98, 100, 10, 0.4) < late_share(100, 100, 10, 0.4)
    True
    """
    if rate >= capacity:
        return 1.0
    idle = 1.0 - rate / capacity
    spread, decay = idle * math.sqrt(servers), idle * capacity * wait_s
    if spread > 6.0 or decay > 12.0:
        return 0.0
    tail = 0.5 * math.erfc(-spread / math.sqrt(2.0))
    delayed = 1.0 / (1.0 + spread * math.sqrt(2.0 * math.pi) * math.exp(spread * spread / 2.0) * tail)
    return delayed * math.exp(-decay)


def replicas_for(rate: float, *, capacity_rps: float, concurrency: int, wait_s: float, share: float) -> int:
    """Return the fewest replicas that keep all but ``share`` of requests from waiting over ``wait_s``.

    >>> replicas_for(400, capacity_rps=40, concurrency=4, wait_s=0.4, share=0.001)
    11
    """

    def is_late(replicas: int) -> bool:
        return late_share(rate, replicas * capacity_rps, replicas * concurrency, wait_s) > share

    low = max(1, math.ceil(rate / capacity_rps))
    if not is_late(low):
        return low
    step = 1
    while is_late(low + step):  # twice as far each time: there may be millions between, for an absurd load
        step *= 2
    low, high = low + step // 2, low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_late(middle) else (low, middle)
    return high


@lru_cache(maxsize=1 << 15)
def _sized(work: int, capacity_rps: float, concurrency: int, wait_s: float, share: float) -> int:
    return replicas_for(
        work * capacity_rps / 64.0,
        capacity_rps=capacity_rps,
        concurrency=concurrency,
        wait_s=wait_s,
        share=share,
    )


def replicas_about(rate: float, capacity_rps: float, concurrency: int, wait_s: float, share: float) -> int:
    """Return :func:`replicas_for` of ``rate`` rounded up to 1/64 of a replica's work; remembered."""
    return _sized(math.ceil(64.0 * rate / capacity_rps), capacity_rps, concurrency, wait_s, share)
