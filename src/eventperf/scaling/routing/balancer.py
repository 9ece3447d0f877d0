"""Spreading requests over endpoints: two random choices, the better of them by measured latency.

Sources: M. Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS 2001); the
peak-EWMA cost of Twitter's Finagle: a latency average that jumps up at once and decays, times the requests
in flight; start-time fair queueing for weighted turns (Goyal, Vin, Cheng, SIGCOMM 1996). No I/O: the caller
makes the request inside :meth:`Balancer.pick`.
"""

from __future__ import annotations

import heapq
import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from random import Random
from types import TracebackType
from typing import Generic, TypeVar

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.scaling.errors import ScalingError

from .health import SHARE_STEP, Ejection, Endpoint, Pool

E = TypeVar("E", bound=Hashable)
_STRATEGIES = ("p2c-ewma", "least-connections", "round-robin", "random")
_SAME = 1.2  # costs this close are one cost: else the one measured longest ago always won
_TRIES = 16
_TROUBLE = 100.0
_USUAL_STEP = 0.02  # of the newest answer in the usual time of all
_log = logger("eventperf.scaling.balancer")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStats:
    """One endpoint now: ``latency_s`` is its peak-sensitive mean, ``ejected_s`` how long it stays out."""

    in_flight: int
    latency_s: float
    requests: int
    failures: int
    ejected_s: float


class Balancer(Generic[E]):
    """Chooses an endpoint per request and learns from how the request went.

    Equally fast endpoints get requests in proportion to their weights, with every strategy. One that fails
    costs more at once, and is put out after ``eject_after`` failures in a row or when ``eject_share`` of its
    requests fail: for ``eject_for``, twice as long each further time, at most five minutes. One request then
    tells whether it is back, so that the dead cost at most about one request in a hundred. While a single
    endpoint is in, it gets the requests; when none is, each is tried in turn. A choice costs the same for
    five endpoints and for five thousand.

    Args:
        endpoints: A list, a mapping of endpoint to weight, or a function that returns either; a function is
            asked again every ``refresh``.
        strategy: ``"p2c-ewma"``; the others are there to compare with.
        decay: Time constant of the latency average.
        slow_start: A new or returned endpoint gets its full share only after this time; 0 gives it at once.
        max_ejected: The largest share of endpoints that may be out; what fails beyond it only costs more.
        panic_below: While a smaller share than this is in, all are used, as the few could not carry the load
            of all (Envoy's panic threshold, there 0.5). With 0 those that are in get everything; should
            that be too much for them they fail too, and then all are used.

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
        eject_share: float = 0.5,
        eject_for: Duration = 5.0,
        max_ejected: float = 1.0,
        panic_below: float = 0.0,
        slow_start: Duration = 10.0,
        refresh: Duration = 5.0,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        if strategy not in _STRATEGIES:
            raise ConfigurationError("strategy", strategy, _STRATEGIES)
        self._decay_s = seconds(decay, name="decay")
        self._slow_s = seconds(slow_start, name="slow_start", zero=True)
        self._refresh_s = seconds(refresh, name="refresh")
        self._clock, self._random = clock or SystemClock(), random or Random()
        self._mu = threading.Lock()
        self._pool: Pool[E] = Pool(
            Ejection.checked(eject_after, eject_share, eject_for, max_ejected, panic_below)
        )
        self._takes_turns = strategy in ("round-robin", "least-connections")
        self._counts_flight = strategy == "least-connections"
        self._compares = strategy == "p2c-ewma"
        self._turns: _Turns[E] = _Turns(self._counts_flight)
        self._lot: _Lot[E] = _Lot((), 0)
        self._flying, self._usual_s = 0, 0.0
        self._asked_at, self._told = -math.inf, False
        self._source = endpoints if callable(endpoints) else None
        if not callable(endpoints):
            self._adopt(_weights(endpoints), self._clock.monotonic())
            if not self._pool.known:
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
                    ejected_s=0.0 if e.state == "in" else max(0.0, e.out_until - now),
                )
                for name, e in self._pool.known.items()
            }  # fmt: skip

    # -- choosing ------------------------------------------------------------------------------------

    def _take(self, only: Callable[[E], bool] | None = None) -> tuple[Endpoint[E], float]:
        self._ask()
        now = self._clock.monotonic()
        with self._mu:
            endpoint = self._chosen_of(only, now) if only is not None else self._chosen(now)
            busy = self._busy(endpoint, self._turns.total) if self._counts_flight else 1.0
            served = busy / (endpoint.weight * self._warm(endpoint, now))
            endpoint.turn = max(endpoint.turn, self._turns.now) + served
            endpoint.in_flight += 1
            self._flying += 1
            endpoint.requests += 1
            self._enter(endpoint)
            return endpoint, now

    def _enter(self, endpoint: Endpoint[E]) -> None:
        if self._takes_turns and endpoint.state == "in":
            self._turns.push(endpoint)
            if len(self._turns) > 4 * len(self._pool.inside) + 64:
                self._turns.refill(self._pool.inside.values())

    def _chosen(self, now: float) -> Endpoint[E]:
        pool = self._pool
        probed = pool.probe(now)
        if probed is not None:
            return probed
        if not pool.inside:
            doubtful = pool.doubtful()
            if doubtful is None:
                raise ScalingError("the balancer has no endpoints")
            return doubtful
        if pool.panics:
            return self._drawn(_Lot(tuple(pool.known.values()), -1), now)
        if self._takes_turns:
            return self._turns.pop()
        if self._lot.version != pool.version:
            self._lot = _Lot(tuple(pool.inside.values()), pool.version)
        return self._drawn(self._lot, now)

    def _chosen_of(self, only: Callable[[E], bool], now: float) -> Endpoint[E]:
        """Choose among those that will do: a few, so going through them is no matter."""
        fit = tuple(e for e in self._pool.inside.values() if only(e.name))
        if not fit:
            raise ScalingError("no endpoint will do for this request")
        probed = self._pool.probe(now)
        if probed is not None:
            if only(probed.name):
                return probed
            self._pool.left(probed)
        if self._takes_turns:
            return min(fit, key=self._turns.key)
        return self._drawn(_Lot(fit, -1), now)

    def _drawn(self, lot: _Lot[E], now: float) -> Endpoint[E]:
        one = self._draw(lot, now)
        if not self._compares or len(lot.members) == 1:
            return one
        for _ in range(_TRIES):
            other = self._draw(lot, now)
            if other is not one:
                break
        else:
            return one
        costs = self._cost(one, now, lot.total), self._cost(other, now, lot.total)
        return other if costs[1] * _SAME < costs[0] else one

    def _draw(self, lot: _Lot[E], now: float) -> Endpoint[E]:
        """Draw one by weight; one that is new is put back at first, most often."""
        for _ in range(_TRIES):
            endpoint = lot.draw(self._random.random())
            warm = self._warm(endpoint, now)
            if warm >= 1.0 or self._random.random() < warm:
                break
        return endpoint

    def _warm(self, endpoint: Endpoint[E], now: float) -> float:
        age = now - endpoint.since_s
        return 1.0 if age >= self._slow_s else max(0.1, age / self._slow_s)

    def _cost(self, endpoint: Endpoint[E], now: float, weights: float) -> float:
        # An endpoint never measured is taken as fast, so that it is tried; those in flight hold it back. What
        # fails costs a hundred usual answers: it is often quicker than any answer.
        faded = math.exp(-(now - endpoint.at_s) / self._decay_s)
        latency_s = endpoint.latency_s + _TROUBLE * endpoint.trouble * max(self._usual_s, endpoint.latency_s)
        return (latency_s * faded + 1e-4) * self._busy(endpoint, weights)

    def _busy(self, endpoint: Endpoint[E], weights: float) -> float:
        """Compare the requests in flight with the endpoint's share of all; up to that is no matter."""
        fair = self._flying * endpoint.weight / weights
        return max(1.0, (1.0 + endpoint.in_flight) / (1.0 + fair))

    # -- learning ------------------------------------------------------------------------------------

    def _done(self, endpoint: Endpoint[E], began: float, failed: bool | None) -> None:
        now = self._clock.monotonic()
        with self._mu:
            endpoint.in_flight -= 1
            self._flying -= 1
            was = self._pool.version
            if failed is None:
                self._pool.left(endpoint)
            else:
                self._learn(endpoint, now - began, now, failed)
                if failed:
                    self._pool.failed(endpoint, now)
                else:
                    self._pool.succeeded(endpoint, began, now)
            if self._counts_flight or was != self._pool.version:
                self._enter(endpoint)

    def _learn(self, endpoint: Endpoint[E], took: float, now: float, failed: bool) -> None:
        """Enter one request in what the endpoint costs; what was before fades by the time since."""
        keep = math.exp(-(now - endpoint.at_s) / self._decay_s)
        endpoint.at_s, faded = now, endpoint.trouble * keep
        endpoint.trouble = faded + SHARE_STEP * (float(failed) - faded)
        if failed:
            return
        mean = endpoint.latency_s * keep + took * (1.0 - keep)
        endpoint.latency_s = max(mean, took)
        self._usual_s += _USUAL_STEP * (took - self._usual_s)

    # -- the list of endpoints -----------------------------------------------------------------------

    def _ask(self) -> None:
        now = self._clock.monotonic()
        if self._source is None or now - self._asked_at < self._refresh_s:
            return
        self._asked_at = now
        try:
            found = _weights(self._source())
        except Exception as error:
            if not self._pool.known:
                raise ScalingError(f"endpoints could not be read: {error}") from error
            if not self._told:
                _log.warning("endpoints cannot be read, the last known ones serve on: %s", error)
            self._told = True
            return
        self._told = False
        self._adopt(found, now)

    def _adopt(self, found: dict[E, float], now: float) -> None:
        with self._mu:
            for endpoint in self._pool.adopt(found, now):
                endpoint.turn = self._turns.now
            if self._takes_turns:
                self._turns.weigh(self._pool.inside.values())


class _Lot(Generic[E]):
    """Endpoints to draw from by weight, each draw in O(log n)."""

    __slots__ = ("_sums", "members", "total", "version")

    def __init__(self, members: Sequence[Endpoint[E]], version: int) -> None:
        self.members, self.version = members, version
        self._sums = list(accumulate(e.weight for e in members))
        self.total = self._sums[-1] if self._sums else 0.0

    def draw(self, u: float) -> Endpoint[E]:
        """Return the endpoint at ``u`` in [0, 1) of all weights."""
        return self.members[min(bisect_right(self._sums, u * self.total), len(self.members) - 1)]


class _Turns(Generic[E]):
    """Whose turn it is: the least busy endpoint, if that counts, and then the one furthest behind its share.

    Where weights differ, being busy lengthens the time to the next turn instead: an endpoint with a ninth of
    the weight must not get every second request for being idle.

    A heap with an entry for each change of an endpoint; outdated entries are passed over when they come up.
    """

    def __init__(self, counts_flight: bool) -> None:
        self._counts_flight = counts_flight
        self._are_equal = True
        self.total = 1.0
        self._heap: list[tuple[tuple[int, float], int, Endpoint[E]]] = []
        self._order = count()
        self.now = 0.0

    def key(self, endpoint: Endpoint[E]) -> tuple[int, float]:
        """Return what endpoints are compared by, smallest first."""
        return (endpoint.in_flight if self._counts_flight and self._are_equal else 0), endpoint.turn

    def push(self, endpoint: Endpoint[E]) -> None:
        """Enter ``endpoint`` as it is now."""
        heapq.heappush(self._heap, (self.key(endpoint), next(self._order), endpoint))

    def weigh(self, endpoints: Collection[Endpoint[E]]) -> None:
        """Take note of the weights of all, and enter them anew."""
        weights = [e.weight for e in endpoints]
        self.total = sum(weights) or 1.0
        self._are_equal = len(set(weights)) < 2
        self.refill(endpoints)

    def refill(self, endpoints: Iterable[Endpoint[E]]) -> None:
        """Enter these and forget all else."""
        self._heap = [(self.key(e), next(self._order), e) for e in endpoints]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def pop(self) -> Endpoint[E]:
        """Take out the next one; at least one that is in has been entered."""
        while True:
            key, _, endpoint = heapq.heappop(self._heap)
            if endpoint.state == "in" and key == self.key(endpoint):
                self.now = max(self.now, endpoint.turn)
                return endpoint


def _weights(endpoints: Iterable[E] | dict[E, float]) -> dict[E, float]:
    found = dict(endpoints) if isinstance(endpoints, dict) else dict.fromkeys(endpoints, 1.0)
    for name, weight in found.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            raise ConfigurationError(f"weight of {name!r}", weight, "a number above 0")
    return found


class Pick(Generic[E]):
    """One request's endpoint; enter it with ``with`` or ``async with``, once."""

    __slots__ = ("_balancer", "_began", "_endpoint", "_only")

    def __init__(self, balancer: Balancer[E], only: Callable[[E], bool] | None = None) -> None:
        self._balancer, self._only = balancer, only
        self._endpoint: Endpoint[E] | None = None
        self._began = 0.0

    def __enter__(self) -> E:
        if self._endpoint is not None:
            raise ScalingError("a pick is for one request; call pick() again")
        self._endpoint, self._began = self._balancer._take(self._only)
        return self._endpoint.name

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
