"""Sizing to a latency goal: a queueing model on a cautious forecast, capacity learned on the way. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import Observation, Recommendation

from .forecast.outlook import Outlook, look_ahead
from .queueing import late_share, replicas_about, replicas_for

__all__ = ["LatencyPolicy", "Reserve", "late_share", "replicas_for"]

_TURN_S = 600.0  # a reversal sooner than this is a flap
_TURNS, _TURNS_S, _CALM_S = 3, 7200.0, 1800.0  # so many steps down taken back in two hours: a rest from them
_PEAK_S = 300.0
_SLOT_S = 15.0
_BEYOND = 1.3  # of the highest load seen: what is covered at most
_FIRST_RISE, _KNOWN_RISE, _SEEN_RISE, _NEXT_RISE = 2.0, 4.0, 8.0, 6.0
"""What a burst may start, in multiples of the highest load seen: at its first reading; of what was seen
before it; of that, to a load that was seen before; and once confirmed."""
_DEAD_BAND, _TURN_BAND = 0.04, 0.2
_TRIM_AFTER_S, _TRIM_SHARE, _TRIM_ROOM = 60.0, 0.75, 1.1
_STEEP = 1.3
_BLIND_CPU = 0.95
_FIRST_READINGS = 9


@dataclass(frozen=True, slots=True)
class Reserve:
    """Load to be ready for beyond what can be seen in the present.

    Attributes:
        now: Requests per second that replicas started now shall be able to carry.
        soon: The same for the next minutes: nothing goes below it in the meantime.
        why: In words, empty when there is no reserve.
    """

    now: float = 0.0
    soon: float = 0.0
    why: str = ""


class LatencyPolicy:
    """As many replicas as keep waiting times within a goal, started before they are needed.

    Sizes with a queueing model for a forecast of the load at the time when a replica started now will serve:
    the last minute's trend, trusted as far as trends have come true, and raised by a quantile of the past
    hours' errors. When the load leaves its usual noise, ``hedge`` times as many new replicas are asked for,
    and those that are not needed go as soon as enough of them serve. It paces itself: after a step up nothing
    goes down for ten minutes but such a surplus, so :class:`~eventperf.scaling.Behavior` adds limits only
    where you set them.

    Needs ``rps``; ``cpu`` teaches what one replica can carry and stands in, upwards only, while ``rps`` is
    missing; ``backlog`` adds what waits already. Its memory goes out with each recommendation and comes back
    with the next observation, so it stays a pure function.

    Args:
        wait: The longest acceptable wait before a request is served.
        share: Share of requests that may wait longer.
        concurrency: Requests one replica serves at once.
        capacity_rps: Requests per second of one replica; learned from ``cpu`` and ``rps`` when not given.
        startup: Until most new replicas serve.
        window: Over which the metric source averages ``rps``.
        safety: Quantile of past forecast errors that is covered: the knob between cost and late requests.
        hedge: How many times the new replicas a burst seems to need are started, so that enough of them
            are quick; 1 starts what is needed. ``max_replicas`` bounds it.
        drain: Time in which a backlog shall be gone.

    >>> LatencyPolicy(wait="400ms", capacity_rps=40)
    LatencyPolicy(wait_s=0.4, concurrency=4, capacity_rps=40, startup_s=75, safety=0.985, hedge=16)
    """

    __slots__ = (
        "capacity_rps", "concurrency", "drain_s", "hedge", "safety", "share", "startup_s", "wait_s",
        "window_s",
    )  # fmt: skip

    def __init__(
        self,
        *,
        wait: Duration = 0.4,
        share: float = 0.001,
        concurrency: int = 4,
        capacity_rps: float | None = None,
        startup: Duration = 75.0,
        window: Duration = 30.0,
        safety: float = 0.985,
        hedge: float = 16.0,
        drain: Duration = 10.0,
    ) -> None:
        self.wait_s: float = seconds(wait, name="wait")
        self.startup_s: float = seconds(startup, name="startup", zero=True)
        self.window_s: float = seconds(window, name="window", zero=True)
        self.drain_s: float = seconds(drain, name="drain")
        for name, value in (("share", share), ("safety", safety)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
                raise ConfigurationError(name, value, "a number between 0 and 1")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError("concurrency", concurrency, "a whole number from 1")
        if capacity_rps is not None and not 0 < capacity_rps < math.inf:
            raise ConfigurationError("capacity_rps", capacity_rps, "a number above 0, or None to learn it")
        if isinstance(hedge, bool) or not isinstance(hedge, (int, float)) or not 1 <= hedge <= 100:
            raise ConfigurationError("hedge", hedge, "a number from 1 to 100")
        self.share: float = share
        self.safety: float = safety
        self.hedge: float = hedge
        self.concurrency: int = concurrency
        self.capacity_rps: float | None = capacity_rps

    def _covered(self, observation: Observation) -> float:
        """Return the quantile of forecast errors that is covered now."""
        return self.safety

    def decide(self, observation: Observation, /) -> Recommendation:
        old, rate = observation.memory, observation.value("rps")
        faults = observation.faults()
        blind = {name: why for name, why in faults.items() if name in ("rps", "cpu", "backlog")}
        if rate is None:
            blind.setdefault("rps", "no source for this metric")
            return self._without_rate(observation, blind)
        past_s = observation.samples["rps"].age_s + self.window_s / 2.0
        seen, outlook = look_ahead(
            old.get("load", {}), at_s=observation.at_s, rate=rate, past_s=past_s,
            ahead_s=past_s + self.startup_s, safety=self._covered(observation),
        )  # fmt: skip
        memory = {**old, "load": seen}
        learned, first = self._capacity(observation, outlook.rate, old)
        memory = {name: kept for name, kept in memory.items() if name != "first"}
        memory |= {"capacity": learned, "first": first} if first else {"capacity": learned}
        reserve = self._reserve(observation, memory, outlook.rate, measured=not outlook.doubted)
        capacity = self.capacity_rps or learned
        if capacity is None:
            return self._unlearned(observation, blind, memory)
        return self._choose(observation, blind, memory, outlook, reserve, capacity)

    def _reserve(
        self, observation: Observation, memory: dict[str, Any], rate: float, *, measured: bool
    ) -> Reserve:
        """Load to be ready for that the present does not show; a hook for policies that know more."""
        return Reserve()

    @staticmethod
    def _is_unsteady(memory: Mapping[str, Any], now: float) -> bool:
        turns = memory.get("turns", ())
        return len(turns) >= _TURNS and now - turns[-1] < _CALM_S and now - turns[-_TURNS] < _TURNS_S

    def _size(self, rate: float, capacity: float) -> int:
        return replicas_about(rate, _rounded(capacity), self.concurrency, self.wait_s, self.share)

    def _choose(
        self, observation: Observation, blind: Mapping[str, str], memory: dict[str, Any],
        outlook: Outlook, reserve: Reserve, capacity: float,
    ) -> Recommendation:  # fmt: skip
        now, current = observation.at_s, observation.state.replicas
        backlog = observation.value("backlog") or 0.0
        waiting = backlog / self.drain_s
        since_up, since_down = now - memory.get("up_s", -math.inf), now - memory.get("down_s", -math.inf)
        trigger = outlook.trigger if since_down >= _TURN_S else outlook.guard
        least = self._size(outlook.expected * trigger + waiting, capacity)
        most_rps = max(_BEYOND * outlook.high, outlook.expected)
        least = min(least, self._size(most_rps + waiting, capacity))
        covered = min(outlook.expected * outlook.cover, most_rps)
        wanted = self._size(covered + waiting, capacity)
        level = self._size(min(outlook.rate * outlook.cover, most_rps) + waiting, capacity)
        kept = self._size(reserve.now, capacity) if reserve.now else 0
        memory["peaks"] = _peaks(memory.get("peaks", ()), int(now // _SLOT_S), level)

        number, note = current, ""
        band = _DEAD_BAND if since_down >= _TURN_S else _TURN_BAND
        if least > current or kept * (1.0 - band) > current:
            number = max(kept, wanted if least > current else 0)
            hedged = outlook.burst and wanted > current * _STEEP and least > current
            if hedged:
                more = wanted + int((self.hedge - 1.0) * (wanted - current))
                usual = _SEEN_RISE if outlook.rate <= outlook.known else _KNOWN_RISE
                bound = max(_FIRST_RISE * outlook.high, usual * outlook.known)
                bound = max(bound, _NEXT_RISE * outlook.high) if outlook.confirmed else bound
                most = min(self._size(bound, capacity), max(wanted, observation.max_replicas))
                number = max(number, min(more, most))
                note = f"; a burst: {number} started so that {wanted} serve soon"
            elif number == kept:
                note = f"; {reserve.why}"
            if since_down < min(_TURN_S, since_up) and not memory.get("trimmed"):
                memory["turns"] = [*(t for t in memory.get("turns", ()) if now - t < _TURNS_S), now]
            memory["up_s"], memory["hedged"] = now, hedged
        else:
            number, note = self._fewer(observation, memory, reserve, capacity, least, kept)
        if number < current:
            if blind:
                number, note = current, ""
            else:
                memory["trimmed"] = memory.get("hedged", False)
                memory["down_s"], memory["hedged"] = now, False
        return Recommendation(
            replicas=number, reason=_reason(outlook, capacity, note, backlog), metric="rps", blind=blind,
            memory=memory, paced=True, forecast=(self.startup_s, max(covered, reserve.now)),
        )  # fmt: skip

    def _fewer(
        self, observation: Observation, memory: Mapping[str, Any], reserve: Reserve, capacity: float,
        least: int, kept: int,
    ) -> tuple[int, str]:  # fmt: skip
        """Return how many are enough by now, and a note; the present number when it is too early to say."""
        now, current = observation.at_s, observation.state.replicas
        since_up, hedged = now - memory.get("up_s", -math.inf), memory.get("hedged")
        if self._is_unsteady(memory, now) and not hedged:
            return current, "; the last steps down were taken back, none for a while"
        if since_up >= _TURN_S and (now - memory["load"]["began"] >= _TURN_S or hedged):
            soon = self._size(reserve.soon, capacity) if reserve.soon else 0
            lowest = max(*(p[1] for p in memory["peaks"]), least, soon)
            return (lowest if lowest < current * (1.0 - _DEAD_BAND) else current), ""
        if since_up >= _TRIM_AFTER_S and hedged:
            first = int(now // _SLOT_S) - _TRIM_AFTER_S // _SLOT_S
            peak = max(p[1] for p in memory["peaks"] if p[0] >= first)
            lowest = max(math.ceil(peak * _TRIM_ROOM), least, kept)
            if lowest < current * _TRIM_SHARE and observation.state.ready >= lowest:
                return lowest, "; enough of those started for a burst serve"
        return current, ""

    def _without_rate(self, observation: Observation, blind: Mapping[str, str]) -> Recommendation:
        """Blind: nothing goes down; CPU and what was due anyway may still ask for more."""
        state, cpu = observation.state, observation.value("cpu")
        memory, number, reason = dict(observation.memory), state.replicas, "the load is not known"
        capacity = self.capacity_rps or memory.get("capacity")
        recent = memory.get("load", {}).get("recent")
        if capacity is not None and recent:
            reserve = self._reserve(observation, memory, recent[-1][1], measured=False)
            load = reserve.now
            if cpu is not None and state.ready:
                # A saturated CPU does not tell how much more would have come.
                guess = cpu * state.ready * capacity * (1.5 if cpu >= _BLIND_CPU else 1.1)
                load, reason = max(load, guess), f"the load is not known, cpu is at {cpu:.0%}"
            kept = self._size(load, capacity) if load else 0
            if kept > number:
                number = kept
                memory["up_s"], memory["hedged"] = observation.at_s, False
        if not number and observation.value("backlog"):
            number, reason = 1, "jobs wait and nothing runs"
        return Recommendation(replicas=number, reason=reason, blind=blind, memory=memory, paced=True)

    def _unlearned(
        self, observation: Observation, blind: Mapping[str, str], memory: Mapping[str, Any]
    ) -> Recommendation:
        """Until it is known what a replica can carry: 70 % CPU upwards, nothing downwards."""
        state, cpu = observation.state, observation.value("cpu")
        wanted, reason = state.replicas, "what one replica can carry is not known yet"
        if not wanted and (observation.value("rps") or observation.value("backlog")):
            wanted, reason = 1, f"{reason}, and of none it is never learned"
        if cpu is not None and cpu > 0.7 and not state.starting:
            wanted = max(wanted, math.ceil(state.ready * cpu / 0.7))
            reason += f"; cpu {cpu:.0%} is above 70%"
        return Recommendation(
            replicas=wanted, reason=reason, metric="rps", blind=blind, memory=memory, paced=True
        )

    def _capacity(
        self, observation: Observation, rate: float, memory: Mapping[str, Any]
    ) -> tuple[float | None, list[float]]:
        """Return what one replica can carry, and the first readings that said so.

        The median of the first nine, then a mean that one odd reading of either metric moves by 5 %.
        """
        old, first = memory.get("capacity"), memory.get("first", [])
        cpu, ready = observation.value("cpu"), observation.state.ready
        if cpu is None or not ready or rate <= 0 or not 0.2 <= cpu <= 0.95:
            return old, first
        seen = rate / (ready * cpu)
        if old is None:
            return seen, [seen]
        if observation.state.starting:
            return old, first
        if observation.changes and observation.at_s - observation.changes[-1].at_s < 120.0:
            return old, first  # the metrics are means over a time with another number of replicas
        if first:
            first = [*first, seen]
            return median(first), first if len(first) < _FIRST_READINGS else []
        return old + 0.05 * (min(max(seen, 0.5 * old), 2.0 * old) - old), []

    def __repr__(self) -> str:
        capacity = "None" if self.capacity_rps is None else f"{self.capacity_rps:g}"
        return (
            f"{type(self).__name__}(wait_s={self.wait_s:g}, "
            f"concurrency={self.concurrency}, capacity_rps={capacity}, startup_s={self.startup_s:g}, "
            f"safety={self.safety:g}, hedge={self.hedge:g})"
        )


def _reason(outlook: Outlook, capacity: float, note: str, backlog: float) -> str:
    waiting = f", {backlog:.4g} waiting" if backlog else ""
    return (
        f"{outlook.rate:.4g} requests/s now, at most {outlook.expected * outlook.cover:.4g} expected "
        f"when a new replica serves, {capacity:.3g} each{note}{waiting}"
    )


@lru_cache(maxsize=256)
def _rounded(capacity: float) -> float:
    """Three digits of what was learned are enough, and let sizes be remembered."""
    return float(f"{capacity:.3g}")


def _peaks(peaks: Sequence[list[int]], slot: int, level: int) -> list[list[int]]:
    """Return the highest level of each slot that still counts, this one's included."""
    before = [peak for peak in peaks if slot - _PEAK_S / _SLOT_S <= peak[0] < slot]
    same = [peak[1] for peak in peaks[-1:] if peak[0] == slot]
    return [*before, [slot, max([level, *same])]]
