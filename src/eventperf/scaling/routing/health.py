"""Which endpoints are in: failures put one out, a single request brings it back. Told the time, no I/O.

An endpoint is *in*, *out* for a while after failures, or *back*: its time out is over and one request, the
probe, tells whether it returns. Sources: Envoy's outlier detection (consecutive failures, failures by share,
growing times, a largest share that may be out, a panic threshold), its documentation; the half-open state of
M. Nygard's circuit breaker ("Release It!").
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import Generic, Literal, TypeVar

from eventperf._core.durations import seconds
from eventperf._core.errors import ConfigurationError

E = TypeVar("E", bound=Hashable)

_MAX_OUT_S = 300.0
SHARE_STEP = 0.05  # of the newest request in the share of failures: about the last forty count
_SHARE_LEAST = 20  # requests before a share means something
_CREDIT = 0.01  # a failed probe for each hundred requests: the dead cost at most a hundredth of the traffic


class Endpoint(Generic[E]):
    """One endpoint as the balancer remembers it."""

    __slots__ = (
        "at_s", "failed_in_row", "failure_share", "failures", "in_flight", "latency_s", "name", "out_since",
        "out_until", "outs", "requests", "seen", "since_s", "state", "trouble", "turn", "weight",
    )  # fmt: skip

    def __init__(self, name: E, weight: float, since_s: float, now: float) -> None:
        self.name: E = name
        self.weight: float = weight
        self.since_s: float = since_s
        self.state: Literal["in", "out", "back", "probed", "gone"] = "in"
        self.in_flight: int = 0
        self.requests: int = 0
        self.failures: int = 0
        self.failed_in_row: int = 0
        self.outs: int = 0
        self.seen: int = 0
        self.latency_s: float = 0.0
        self.failure_share: float = 0.0
        self.trouble: float = 0.0  # the share of failures as time forgets it
        self.turn: float = 0.0
        self.at_s: float = now
        self.out_until: float = -math.inf
        self.out_since: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejection:
    """When an endpoint is left alone, and for how long."""

    after: int
    share: float
    for_s: float
    at_most: float
    panic_below: float

    @classmethod
    def checked(
        cls, after: object, share: object, eject_for: object, at_most: object, panic_below: object
    ) -> Ejection:
        """Refuse what makes no sense, by the arguments' public names."""
        if isinstance(after, bool) or not isinstance(after, int) or after < 1:
            raise ConfigurationError("eject_after", after, "a whole number from 1")
        shares = []
        for name, value in (("eject_share", share), ("max_ejected", at_most), ("panic_below", panic_below)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ConfigurationError(name, value, "a share from 0 to 1")
            shares.append(float(value))
        for_s = seconds(eject_for, name="eject_for")  # type: ignore[arg-type]  # any object is judged there
        return cls(after=after, share=shares[0], for_s=for_s, at_most=shares[1], panic_below=shares[2])


class Pool(Generic[E]):
    """All endpoints by name and state. Not thread-safe: the balancer holds its lock around each call."""

    def __init__(self, ejection: Ejection) -> None:
        self._rules = ejection
        self.known: dict[E, Endpoint[E]] = {}
        self.inside: dict[E, Endpoint[E]] = {}
        self.version: int = (
            0  # changes whenever ``inside`` does, so that whatever is built on it is built anew
        )
        self._outside: OrderedDict[E, Endpoint[E]] = OrderedDict()  # in the order of their last use
        self._returns: list[tuple[float, int, Endpoint[E]]] = []
        self._back: OrderedDict[E, Endpoint[E]] = OrderedDict()
        self._order = count()
        self._credit = 1.0

    def adopt(self, found: dict[E, float], now: float) -> list[Endpoint[E]]:
        """Take ``found`` as all there are; returns the new ones."""
        first, made = not self.known, []
        for name in [n for n in self.known if n not in found]:
            gone = self.known.pop(name)
            gone.state = "gone"
            for place in (self.inside, self._outside, self._back):
                place.pop(name, None)
        for name, weight in found.items():
            old = self.known.get(name)
            if old is None:
                endpoint = Endpoint(name, weight, -math.inf if first else now, now)
                self.known[name] = self.inside[name] = endpoint
                made.append(endpoint)
            else:
                old.weight = weight
        self.version += 1
        return made

    def probe(self, now: float) -> Endpoint[E] | None:
        """Return one whose time is over and whose turn it is to be tried, marked as being tried."""
        while self._returns and self._returns[0][0] <= now:
            until, _, endpoint = heapq.heappop(self._returns)
            if endpoint.state == "out" and endpoint.out_until == until:
                del self._outside[endpoint.name]
                endpoint.state = "back"
                self._back[endpoint.name] = endpoint
        self._credit = min(1.0, self._credit + _CREDIT)
        if not self._back or (self.inside and self._credit < 1.0 - 1e-9):
            return None
        _, endpoint = self._back.popitem(last=False)
        self._credit -= 1.0
        endpoint.state = "probed"
        return endpoint

    def doubtful(self) -> Endpoint[E] | None:
        """Return the one longest untried, when none is in: better a doubtful endpoint than none."""
        for place in (self._back, self._outside):
            if place:
                name = next(iter(place))
                place.move_to_end(name)
                return place[name]
        return next(iter(self.known.values()), None)

    @property
    def panics(self) -> bool:
        """Whether so few are in that all are used: the few could not carry the load of all."""
        return len(self.inside) < self._rules.panic_below * len(self.known)

    # -- what came of a request ----------------------------------------------------------------------

    def succeeded(self, endpoint: Endpoint[E], began: float, now: float) -> None:
        """Note a success; one that began while it was out brings an endpoint back."""
        endpoint.failed_in_row = 0
        endpoint.seen += 1
        endpoint.failure_share *= 1.0 - SHARE_STEP
        if endpoint.state in ("in", "gone") or began < endpoint.out_since:
            return
        if endpoint.state == "probed":
            self._credit += 1.0
        self._outside.pop(endpoint.name, None)
        self._back.pop(endpoint.name, None)
        endpoint.state, endpoint.since_s = "in", now
        endpoint.failure_share, endpoint.trouble, endpoint.seen = 0.0, 0.0, 0
        self.inside[endpoint.name] = endpoint
        self.version += 1

    def failed(self, endpoint: Endpoint[E], now: float) -> bool:
        """Note a failure; returns whether it put the endpoint out."""
        endpoint.failures += 1
        endpoint.failed_in_row += 1
        endpoint.seen += 1
        endpoint.failure_share += SHARE_STEP * (1.0 - endpoint.failure_share)
        if endpoint.state == "probed":
            self._put_out(endpoint, now)
            return True
        if endpoint.state != "in":
            return False
        often = endpoint.seen >= _SHARE_LEAST and endpoint.failure_share >= self._rules.share
        if endpoint.failed_in_row < self._rules.after and not often:
            return False
        out = len(self.known) - len(self.inside)
        if out + 1 > self._rules.at_most * len(self.known):
            return False
        self._put_out(endpoint, now)
        return True

    def left(self, endpoint: Endpoint[E]) -> None:
        """Note a request that tells nothing (it was cancelled): a probe is due again."""
        if endpoint.state == "probed":
            self._credit += 1.0
            endpoint.state = "back"
            self._back[endpoint.name] = endpoint

    def _put_out(self, endpoint: Endpoint[E], now: float) -> None:
        if endpoint.state == "in":
            del self.inside[endpoint.name]
            self.version += 1
            if now - endpoint.since_s > _MAX_OUT_S:
                endpoint.outs = 0  # it was well for long: this is another story
        endpoint.state = "out"
        endpoint.out_since = now
        endpoint.out_until = now + min(_MAX_OUT_S, self._rules.for_s * 2.0 ** min(endpoint.outs, 16))
        endpoint.outs += 1
        self._outside[endpoint.name] = endpoint
        heapq.heappush(self._returns, (endpoint.out_until, next(self._order), endpoint))
