"""The load: a seeded schedule of arrivals, driven open-loop by the thread pool of a web server.

Latency counts from the moment a request was due, so that a server which falls behind cannot hide it
(coordinated omission).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from .dataset import CATEGORIES, FAMILY, GIVEN, Size, hot

MIX = {
    "event page": 34,
    "event list": 16,
    "my registrations": 14,
    "participant search": 8,
    "organiser dashboard": 8,
    "top events": 6,
    "check-in": 7,
    "register": 6,
    "export": 1,
}
"""Requests of each kind among a hundred."""

Request = tuple[str, tuple[Any, ...]]


class Requests:
    """An endless, seeded stream of requests; writes never repeat, so that every one must succeed."""

    def __init__(self, size: Size, seed: int, open_check_ins: Sequence[tuple[int, int]]) -> None:
        self._random = Random(seed)
        self._size = size
        self._new = size.participants * 9 // 10
        self._turn = count()
        self._open = iter(open_check_ins)

    def draw(self) -> Request:
        """Return the next request."""
        u = self._random.random
        kind = self._random.choices(list(MIX), list(MIX.values()))[0]
        event_id = hot(u(), self._size.events)
        if kind == "check-in":
            found = next(self._open, None)
            if found is not None:
                return kind, (*found, 1 + int(u() * 8))
            kind = "register"
        if kind == "register":
            # A second lap meets another event, so the unique key of event and participant holds.
            lap, place = divmod(next(self._turn), self._size.participants - self._new)
            return kind, (
                1 + (place * 7 + lap) % self._size.events if lap else event_id,
                self._new + 1 + place,
            )
        if kind in ("event page", "organiser dashboard", "export"):
            return kind, (event_id,)
        if kind == "event list":
            return kind, (CATEGORIES[int(u() * len(CATEGORIES))], int(u() * 7))
        if kind == "my registrations":
            return kind, (1 + int(self._size.participants * u() ** 3),)
        if kind == "participant search":
            return kind, (FAMILY[int(len(FAMILY) * u() ** 2)], GIVEN[int(len(GIVEN) * u() ** 2)])
        return kind, ()


@dataclass(slots=True)
class Done:
    """One finished request; times in seconds, ``due`` since the phase began."""

    endpoint: str
    due: float
    latency: float
    queries: int
    query_s: float
    error: str | None = None


@dataclass(slots=True)
class Measured:
    """One phase."""

    name: str
    rate: float
    wall_s: float
    done: list[Done] = field(repr=False)

    @property
    def errors(self) -> int:
        """Requests that raised."""
        return sum(d.error is not None for d in self.done)

    @property
    def sustained(self) -> float:
        """Requests finished per second, until the last one was."""
        return len(self.done) / self.wall_s

    @property
    def queries_per_request(self) -> float:
        """Statements sent per request."""
        return sum(d.queries for d in self.done) / max(1, len(self.done))

    def latency_ms(self, share: float) -> float:
        """Return a quantile of the latency in milliseconds."""
        return quantile([d.latency for d in self.done], share) * 1e3

    def query_ms(self, endpoint: str) -> float:
        """Return the mean time in the database per request of one endpoint, in milliseconds."""
        times = [d.query_s for d in self.done if d.endpoint == endpoint]
        return 1e3 * sum(times) / len(times) if times else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all do not exceed (nearest rank).

    >>> quantile([3, 1, 2, 4], 0.5), quantile([], 0.5)
    (2, 0.0)
    """
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[max(0, min(len(ranked) - 1, -int(-share * len(ranked) // 1) - 1))]


def arrivals(rate: float, duration_s: float, random: Random) -> list[float]:
    """Return the due times of a Poisson process."""
    times, now = [], random.expovariate(rate)
    while now < duration_s:
        times.append(now)
        now += random.expovariate(rate)
    return times


Handler = Callable[[str, tuple[Any, ...]], None]


def drive(
    name: str,
    handler: Handler,
    meter: Callable[[], tuple[int, float]],
    due: Sequence[float],
    requests: Sequence[Request],
    *,
    threads: int,
    stop_after_s: float | None = None,
) -> Measured:
    """Send every request at its due time (all zero: as fast as it goes) and measure it."""
    turn, done, began = count(), [], time.perf_counter()

    def work() -> None:
        meter()
        while (i := next(turn)) < len(due):
            wait = due[i] - (time.perf_counter() - began)
            if wait > 0:
                time.sleep(wait)
            elif stop_after_s is not None and -wait > stop_after_s:
                return
            endpoint, arguments = requests[i]
            error = None
            try:
                handler(endpoint, arguments)
            except Exception as caught:  # a failed request is counted and shown, the load goes on
                error = f"{type(caught).__name__}: {caught}"
            latency = time.perf_counter() - began - due[i]
            done.append(Done(endpoint, due[i], latency, *meter(), error))

    pool = [threading.Thread(target=work, name=f"web-{i}", daemon=True) for i in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    wall_s = max(time.perf_counter() - began, 1e-9)
    return Measured(name, len(due) / due[-1] if due and due[-1] else len(done) / wall_s, wall_s, done)
