"""Spreading requests over endpoints: two random choices, the better of them by measured latency.

Sources: M. Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS 2001); the
peak-EWMA cost of Twitter's Finagle: a latency average that jumps up at once and decays, times the requests
in flight. No I/O: the caller makes the request inside :meth:`Balancer.pick`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Generic, TypeVar

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.errors import ScalingError

E = TypeVar("E", bound=Hashable)
_STRATEGIES = ("p2c-ewma", "least-connections", "round-robin", "random")
_MAX_EJECTION_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStats:
    """One endpoint now: ``latency_s`` is its peak-sensitive mean, ``ejected_s`` how long it stays out."""

    in_flight: int
    latency_s: float
    requests: int
    failures: int
    ejected_s: float


class _Endpoint:
    __slots__ = (
        "at_s", "ejections", "failed_in_row", "failures", "in_flight",
        "latency_s", "out_until", "requests", "since_s", "weight",
    )  # fmt: skip

    def __init__(self, weight: float, now: float, since_s: float) -> None:
        self.weight, self.at_s, self.since_s = weight, now, since_s
        self.in_flight = self.requests = self.failures = self.failed_in_row = self.ejections = 0
        self.latency_s, self.out_until = 0.0, -math.inf


class Balancer(Generic[E]):
    """Chooses an endpoint per request and learns from how the request went.

    Args:
        endpoints: A list, a mapping of endpoint to weight, or a function that returns either; a function is
            asked again every ``refresh``.
        strategy: ``"p2c-ewma"``; the others are there to compare with.
        decay: Time constant of the latency average.
        eject_after: Failures in a row after which an endpoint is left alone for ``eject_for``, twice as long
            each further time, at most five minutes. Half of the endpoints always stay in.
        slow_start: A new or returned endpoint gets its full share only after this time.

    >>> balancer = Balancer(["a", "b"])
    >>> with balancer.pick() as endpoint:
    ...     endpoint in ("a", "b")
    True
    """

    def __init__(
        self,
        endpoints: Iterable[E] | dict[E, float] | Callable[[], Iterable[E] | dict[E, float]],
        *,
        strategy: str = "p2c-ewma",
        decay: Duration = 10.0,
        eject_after: int = 5,
        eject_for: Duration = 5.0,
        slow_start: Duration = 10.0,
        refresh: Duration = 5.0,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        if strategy not in _STRATEGIES:
            raise ConfigurationError("strategy", strategy, _STRATEGIES)
        if isinstance(eject_after, bool) or not isinstance(eject_after, int) or eject_after < 1:
            raise ConfigurationError("eject_after", eject_after, "a whole number from 1")
        self._decay_s = seconds(decay, name="decay")
        self._eject_for_s = seconds(eject_for, name="eject_for")
        self._slow_s = seconds(slow_start, name="slow_start", zero=True)
        self._refresh_s = seconds(refresh, name="refresh")
        self._eject_after, self._strategy = eject_after, strategy
        self._clock, self._random = clock or SystemClock(), random or Random()
        self._mu = threading.Lock()
        self._known: dict[E, _Endpoint] = {}
        self._turn, self._asked_at = 0, -math.inf
        self._source = endpoints if callable(endpoints) else None
        if not callable(endpoints):
            self._adopt(_weights(endpoints), self._clock.monotonic())
            if not self._known:
                raise ConfigurationError("endpoints", endpoints, "one or more endpoints, or a function")

    def pick(self, *, only: Callable[[E], bool] | None = None) -> Pick[E]:
        """Return a context manager, sync and async, that gives an endpoint and times its use.

        An exception inside counts as a failure of the endpoint, a cancelled task does not.

        Args:
            only: Which endpoints will do for this request. When none of those is in, entering raises
                :class:`ScalingError`: the caller has something better than a doubtful one.
        """
        return Pick(self, only)

    def stats(self) -> dict[E, EndpointStats]:
        """Return what is known of each endpoint."""
        now = self._clock.monotonic()
        with self._mu:
            return {
                name: EndpointStats(
                    in_flight=e.in_flight, latency_s=e.latency_s, requests=e.requests, failures=e.failures,
                    ejected_s=max(0.0, e.out_until - now),
                )
                for name, e in self._known.items()
            }  # fmt: skip

    def _take(self, only: Callable[[E], bool] | None = None) -> tuple[E, _Endpoint, float]:
        self._ask()
        now = self._clock.monotonic()
        with self._mu:
            names = [name for name, e in self._known.items() if e.out_until <= now]
            if only is not None:
                names = [name for name in names if only(name)]
                if not names:
                    raise ScalingError("no endpoint will do for this request")
            if not names:
                names = list(self._known)  # better a doubtful endpoint than none
            if not names:
                raise ScalingError("the balancer has no endpoints")
            name = self._choose(names, now)
            endpoint = self._known[name]
            endpoint.in_flight += 1
            endpoint.requests += 1
            return name, endpoint, now

    def _choose(self, names: list[E], now: float) -> E:
        if len(names) == 1:
            return names[0]
        if self._strategy == "round-robin":
            self._turn += 1
            return names[self._turn % len(names)]
        if self._strategy == "random":
            return self._random.choice(names)
        if self._strategy == "least-connections":
            return min(names, key=lambda n: (self._known[n].in_flight, self._random.random()))
        one, other = self._random.sample(names, 2)
        costs = self._cost(self._known[one], now), self._cost(self._known[other], now)
        if costs[0] == costs[1]:
            return one
        return one if costs[0] < costs[1] else other

    def _cost(self, endpoint: _Endpoint, now: float) -> float:
        age = now - endpoint.since_s
        share = 1.0 if age >= self._slow_s else max(0.1, age / self._slow_s)
        # An endpoint never measured is taken as fast, so that it is tried; those in flight hold it back.
        faded = endpoint.latency_s * math.exp(-(now - endpoint.at_s) / self._decay_s)
        return (faded + 1e-4) * (endpoint.in_flight + 1) / (endpoint.weight * share)

    def _done(self, endpoint: _Endpoint, began: float, failed: bool | None) -> None:
        now = self._clock.monotonic()
        took = now - began
        with self._mu:
            endpoint.in_flight -= 1
            if failed is None:
                return
            if failed:
                endpoint.failures += 1
                endpoint.failed_in_row += 1
                self._maybe_eject(endpoint, now)
                return
            endpoint.failed_in_row = endpoint.ejections = 0
            keep = math.exp(-(now - endpoint.at_s) / self._decay_s)
            mean = endpoint.latency_s * keep + took * (1.0 - keep)
            endpoint.latency_s, endpoint.at_s = max(mean, took), now

    def _maybe_eject(self, endpoint: _Endpoint, now: float) -> None:
        if endpoint.failed_in_row < self._eject_after or endpoint.out_until > now:
            return
        out = sum(e.out_until > now for e in self._known.values())
        if (out + 1) * 2 > len(self._known):
            return
        stay = min(_MAX_EJECTION_S, self._eject_for_s * 2.0 ** min(endpoint.ejections, 16))
        endpoint.ejections += 1
        endpoint.out_until = endpoint.since_s = now + stay
        endpoint.failed_in_row = self._eject_after - 1  # one more failure on return and it is out again

    def _ask(self) -> None:
        now = self._clock.monotonic()
        if self._source is None or now - self._asked_at < self._refresh_s:
            return
        self._asked_at = now
        try:
            found = _weights(self._source())
        except Exception as error:
            if not self._known:
                raise ScalingError(f"endpoints could not be read: {error}") from error
            return  # the last known list serves until the source is back
        self._adopt(found, now)

    def _adopt(self, found: dict[E, float], now: float) -> None:
        with self._mu:
            first = not self._known
            for name in [n for n in self._known if n not in found]:
                del self._known[name]
            for name, weight in found.items():
                if name in self._known:
                    self._known[name].weight = weight
                else:
                    self._known[name] = _Endpoint(weight, now, -math.inf if first else now)


def _weights(endpoints: Iterable[E] | dict[E, float]) -> dict[E, float]:
    found = dict(endpoints) if isinstance(endpoints, dict) else dict.fromkeys(endpoints, 1.0)
    for name, weight in found.items():
        if isinstance(weight, bool) or not 0 < weight < math.inf:
            raise ConfigurationError(f"weight of {name!r}", weight, "a number above 0")
    return found


class Pick(Generic[E]):
    """One request's endpoint; enter it with ``with`` or ``async with``, once."""

    __slots__ = ("_balancer", "_began", "_endpoint", "_only")

    def __init__(self, balancer: Balancer[E], only: Callable[[E], bool] | None = None) -> None:
        self._balancer, self._only = balancer, only
        self._endpoint: _Endpoint | None = None
        self._began = 0.0

    def __enter__(self) -> E:
        if self._endpoint is not None:
            raise ScalingError("a pick is for one request; call pick() again")
        name, self._endpoint, self._began = self._balancer._take(self._only)
        return name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._endpoint is None:
            return
        failed = None if kind is not None and not issubclass(kind, Exception) else kind is not None
        self._balancer._done(self._endpoint, self._began, failed)

    def restart(self) -> None:
        """Measure from now on: what was done so far (opening a connection) is not the endpoint's latency."""
        self._began = self._balancer._clock.monotonic()

    async def __aenter__(self) -> E:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
