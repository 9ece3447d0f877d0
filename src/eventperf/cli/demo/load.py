"""The visitors: an open loop, whose arrivals do not wait for slow answers.

Arrivals are a Poisson process drawn from a seed before anything runs. A request's latency counts from the
moment it arrived, not from the moment a thread was free for it, so that a slow server cannot hide its queue
("coordinated omission").
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .app import BOUNDED_S, Site
from .dataset import CATEGORIES, CITIES, FAMILY, GIVEN, Size, hot

MIX = {
    "event_page": 40,
    "event_list": 14,
    "my_registrations": 16,
    "find_participant": 3,
    "dashboard": 7,
    "busiest_events": 4,
    "register": 11,
    "check_in": 5,
}
"""Shares of requests in percent."""

THREADS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """One visitor's wish, ``at`` seconds after the beginning."""

    at: float
    page: str
    event: int
    person: int
    words: tuple[str, str, str]


@dataclass(slots=True)
class Result:
    """What came of a run.

    Attributes:
        samples: ``(arrival_s, page, latency_s, service_s)`` of every request that was answered.
        errors: Texts of what was raised.
    """

    samples: list[tuple[float, str, float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    took_s: float = 0.0
    statements: int = 0

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return len(self.samples) / self.took_s if self.took_s else 0.0

    def latency(self, share: float) -> float:
        """Return a percentile of the latency in seconds."""
        return percentile([sample[2] for sample in self.samples], share)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of ``values`` do not exceed (nearest rank).

    >>> percentile([1, 2, 3, 4], 0.5), percentile([], 0.5)
    (2, 0.0)
    """
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def schedule(size: Size, rate: float, seconds: float, seed: int, stage: int = 0) -> list[Request]:
    """Draw the arrivals of a run: the same for every stage but for who registers."""
    random, newcomers = Random(seed), Random(seed * 1000 + stage)
    now = 0.0
    found: list[Request] = []
    pages, weights = list(MIX), list(MIX.values())
    old = size.participants * 9 // 10
    while True:
        now += random.expovariate(rate)
        if now >= seconds:
            return found
        page = random.choices(pages, weights)[0]
        person = 1 + int(random.random() * old)
        if page == "register":
            person = old + 1 + int(newcomers.random() * (size.participants - old))
        words = (random.choice(FAMILY), random.choice(GIVEN), random.choice(CITIES))
        found.append(Request(now, page, hot(random.random(), size.events), person, words))


def serve(site: Site, request: Request) -> None:
    """Answer one request, and let the check look at the answer."""
    page, ledger = request.page, site.ledger
    if page == "register":
        site.register(request.event, request.person)
        return
    if page == "check_in":
        site.check_in(request.event, request.person)
        return
    subject = request.person if page == "my_registrations" else request.event
    expected = ledger.expectation(page, subject)
    answer = visit(site, request)
    ledger.judge(page, expected, answer, BOUNDED_S * 1.1)


def visit(site: Site, request: Request) -> dict[str, Any]:
    """Read one page."""
    page = request.page
    if page == "event_list":
        return site.event_list(CATEGORIES[request.event % len(CATEGORIES)])
    if page == "busiest_events":
        return site.busiest_events()
    if page == "find_participant":
        return site.find_participant(*request.words)
    if page == "my_registrations":
        return site.my_registrations(request.person)
    return site.dashboard(request.event) if page == "dashboard" else site.event_page(request.event)


def drive(site: Site, requests: Sequence[Request], *, paced: bool, stop_after_s: float) -> Result:
    """Run ``requests`` on a web server's number of threads.

    Args:
        paced: Open loop, each request at its time; else a closed loop as fast as it goes.
        stop_after_s: Requests not begun by then are given up (a server that cannot keep up must not hold
            the demo for ever); they are counted as errors of a paced run.
    """
    result, lock = Result(), threading.Lock()
    waiting, before = iter(requests), site.db.statements
    began = time.monotonic()

    def answer(request: Request) -> None:
        start = time.monotonic()
        try:
            serve(site, request)
        except Exception as error:
            result.errors.append(f"{request.page}: {type(error).__name__}: {error}"[:200])
            return
        end = time.monotonic()
        arrived = began + request.at if paced else start
        result.samples.append((arrived - began, request.page, end - arrived, end - start))

    def work() -> None:
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                return
            if paced:
                time.sleep(max(0.0, began + request.at - time.monotonic()))
            if time.monotonic() - began <= stop_after_s:
                answer(request)
            elif paced:
                result.errors.append("given up: the server did not keep up")
            else:
                return

    run_threads(work, THREADS)
    result.took_s = time.monotonic() - began
    result.statements = site.db.statements - before
    return result


def run_threads(work: Callable[[], None], number: int) -> None:
    """Run ``work`` in ``number`` threads and wait for all."""
    threads = [threading.Thread(target=work, name=f"visitor-{i}", daemon=True) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
