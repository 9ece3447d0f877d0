"""Sizing to a latency goal: a queueing model on a cautious forecast, capacity learned on the way. Pure.

The number of replicas is the smallest for which an M/M/c queue keeps its waits, with the delay probability of
Halfin and Whitt ("Heavy-traffic limits for queues with many exponential servers", Operations Research 1981).
The load it must carry is a forecast for the time when a replica started now will serve, raised by how much
the last hours' forecasts fell short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError

from .model import Observation, Recommendation

_SLOT_S = 15.0
_TREND_SLOTS = 4
_ERRORS = 480
_BAND = 0.9
_MOST_SHORTFALL = 1.3  # a load this erratic is cheaper to follow than to cover


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
    low = max(1, math.ceil(rate / capacity_rps))
    while late_share(rate, low * capacity_rps, low * concurrency, wait_s) > share:
        low += 1
    return low


class LatencyPolicy:
    """As many replicas as keep waiting times within a goal, started before they are needed.

    Needs ``rps``; ``cpu`` teaches what one replica can carry, ``backlog`` adds what waits already. Its memory
    goes out with each recommendation and comes back with the next observation, so it stays a pure function.

    Args:
        wait: The longest acceptable wait before a request is served.
        share: Share of requests that may wait longer.
        concurrency: Requests one replica serves at once.
        capacity_rps: Requests per second of one replica; learned from ``cpu`` and ``rps`` when not given.
        startup: Until a new replica serves.
        safety: Quantile of past forecast shortfalls that is covered.
        drain: Time in which a backlog shall be gone.

    >>> LatencyPolicy(wait="400ms", capacity_rps=40)
    LatencyPolicy(wait_s=0.4, share=0.001, concurrency=4, capacity_rps=40, startup_s=60, safety=0.98)
    """

    __slots__ = ("capacity_rps", "concurrency", "drain_s", "safety", "share", "startup_s", "wait_s")

    def __init__(
        self,
        *,
        wait: Duration = 0.4,
        share: float = 0.001,
        concurrency: int = 4,
        capacity_rps: float | None = None,
        startup: Duration = 60.0,
        safety: float = 0.98,
        drain: Duration = 30.0,
    ) -> None:
        self.wait_s: float = seconds(wait, name="wait")
        self.startup_s: float = seconds(startup, name="startup", zero=True)
        self.drain_s: float = seconds(drain, name="drain")
        for name, value in (("share", share), ("safety", safety)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
                raise ConfigurationError(name, value, "a number between 0 and 1")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError("concurrency", concurrency, "a whole number from 1")
        if capacity_rps is not None and not 0 < capacity_rps < math.inf:
            raise ConfigurationError("capacity_rps", capacity_rps, "a number above 0, or None to learn it")
        self.share: float = share
        self.safety: float = safety
        self.concurrency: int = concurrency
        self.capacity_rps: float | None = capacity_rps

    def decide(self, observation: Observation, /) -> Recommendation:
        memory, current = observation.memory, observation.state.replicas
        rate = observation.value("rps")
        faults = observation.faults()
        blind = {name: why for name, why in faults.items() if name in ("rps", "cpu", "backlog")}
        if rate is None:
            blind.setdefault("rps", "no source for this metric")
            return Recommendation(
                replicas=current, reason="the load is not known", blind=blind, memory=memory
            )
        memory = self._learn(observation, rate)
        capacity = self.capacity_rps or memory["capacity"]
        if capacity is None:
            return self._unlearned(observation, blind, memory)
        coming = memory["forecast"] * memory["shortfall"]
        waiting = observation.value("backlog") or 0.0
        load = coming + waiting / self.drain_s
        wanted = replicas_for(
            load,
            capacity_rps=capacity,
            concurrency=self.concurrency,
            wait_s=self.wait_s,
            share=self.share,
        )
        if current * _BAND <= wanted < current:
            wanted = current  # a reversal costs more than the few replicas it would save
        reason = (
            f"{rate:.4g} requests/s now, {coming:.4g} expected at most when a new replica serves, "
            f"{capacity:.3g} each"
        )
        if waiting:
            reason += f", {waiting:.4g} waiting"
        return Recommendation(replicas=wanted, reason=reason, metric="rps", blind=blind, memory=memory)

    def _unlearned(
        self, observation: Observation, blind: Mapping[str, str], memory: Mapping[str, Any]
    ) -> Recommendation:
        """Until it is known what a replica can carry: 70 % CPU upwards, nothing downwards."""
        state, cpu = observation.state, observation.value("cpu")
        wanted, reason = state.replicas, "what one replica can carry is not known yet"
        if cpu is not None and cpu > 0.7 and not state.starting:
            wanted = max(wanted, math.ceil(state.ready * cpu / 0.7))
            reason += f"; cpu {cpu:.0%} is above 70%"
        return Recommendation(replicas=wanted, reason=reason, metric="rps", blind=blind, memory=memory)

    def _learn(self, observation: Observation, rate: float) -> Mapping[str, Any]:
        old = observation.memory
        capacity = self._capacity(observation, rate, old.get("capacity"))
        slot = int(observation.at_s // _SLOT_S)
        if old and slot == old["slot"]:
            return {**old, "capacity": capacity}
        rates = [*old.get("rates", []), rate][-(_TREND_SLOTS + 1) :]
        horizon_s = observation.samples["rps"].age_s + self.startup_s + _SLOT_S
        forecast = _forecast(rates, horizon_s)
        steps = max(1, round(horizon_s / _SLOT_S))
        said = [*old.get("said", []), forecast][-(steps + 1) :]
        errors = old.get("errors", [])
        if len(said) > steps and said[0] > 0:
            errors = [*errors, round(rate / said[0], 4)][-_ERRORS:]
        shortfall = old.get("shortfall", 1.15)
        if len(errors) >= 20 and (slot % 4 == 0 or errors[-1] > shortfall):
            quantile = sorted(errors)[min(len(errors) - 1, int(self.safety * len(errors)))]
            shortfall = min(_MOST_SHORTFALL, max(1.0, quantile))
        return {
            "slot": slot, "rates": rates, "said": said, "errors": errors,
            "forecast": forecast, "shortfall": shortfall, "capacity": capacity,
        }  # fmt: skip

    def _capacity(self, observation: Observation, rate: float, old: float | None) -> float | None:
        cpu, ready = observation.value("cpu"), observation.state.ready
        if cpu is None or not ready or rate <= 0 or not 0.2 <= cpu <= 0.95:
            return old
        if old is None:
            return rate / (ready * cpu)
        if observation.state.starting:
            return old
        if observation.changes and observation.at_s - observation.changes[-1].at_s < 120.0:
            return old  # the metrics are means over a time with another number of replicas
        seen = rate / (ready * cpu)
        return old + 0.05 * (seen - old)

    def __repr__(self) -> str:
        capacity = "None" if self.capacity_rps is None else f"{self.capacity_rps:g}"
        return (
            f"LatencyPolicy(wait_s={self.wait_s:g}, share={self.share:g}, concurrency={self.concurrency}, "
            f"capacity_rps={capacity}, startup_s={self.startup_s:g}, safety={self.safety:g})"
        )


def _forecast(rates: list[float], horizon_s: float) -> float:
    """Extend the last minute's rise, less what chance explains; a fall is not trusted ahead of time."""
    last = rates[-1]
    if len(rates) < 2:
        return last
    rise = last - rates[0]
    noise = 2.0 * math.sqrt(max(last, 1.0) / 15.0)  # Poisson, two means of half a minute
    if rise <= noise:
        return last
    return last + (rise - noise) * horizon_s / ((len(rates) - 1) * _SLOT_S)
