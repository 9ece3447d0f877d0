"""A policy that knows what comes again. Pure."""

from __future__ import annotations

from typing import Any

from eventperf.scaling.model import Observation

from .forecast import seasons
from .latency import LatencyPolicy, Reserve

_LEAD_SHARE = 1.2  # of the start-up: the slowest replica counts here
_SOON_S = 690.0
_DATED_DOUBT = 0.8  # what a calendar tells comes: covering more of how large it is costs little


class PredictivePolicy(LatencyPolicy):
    """:class:`LatencyPolicy`, and ready for what comes again by the hour, the day and the week.

    It remembers for eight days how far the load leapt in each five minutes of the day, and has replicas
    started for the leap to be expected again at that time: a quantile over the past days, like hours and
    weekdays counting most. A load that only waxes and wanes by the day is followed by its trend, not
    reserved for. Until something has come again, nothing is reserved, nor for what comes on one day in
    several: a reserve stands for ten minutes and more, to save one.

    Needs ``Observation.time_s`` for the time of day, which :class:`AutoScaler` fills in; arguments are those
    of :class:`LatencyPolicy`.

    >>> PredictivePolicy(safety=0.99).safety
    0.99
    """

    __slots__ = ()
    _reads_calendar = False

    def _reserve(
        self, observation: Observation, memory: dict[str, Any], rate: float, *, measured: bool
    ) -> Reserve:
        time_s = observation.at_s if observation.time_s is None else observation.time_s
        sample = observation.samples.get("rps")
        doubt = 1.0 - self._covered(observation)
        recent = memory["load"]["recent"]
        tick_s = recent[-1][0] - recent[-2][0] if len(recent) > 1 else 15.0
        state = seasons.roll(
            memory.get("season") or seasons.start(time_s),
            time_s=time_s,
            measured_s=time_s - (sample.age_s if sample is not None else 0.0),
            rate=rate if measured else None,
            last_rate=rate,
            lead_s=self.startup_s * _LEAD_SHARE + min(tick_s, 60.0),
            quantile=seasons.reserved_quantile(1.0 - self.safety),
            events=observation.calendar if self._reads_calendar else None,
        )
        memory["season"] = state
        now, soon, why = seasons.reserves(
            state, time_s=time_s, soon_s=_SOON_S, rate=rate, quantile=max(0.5, 1.0 - _DATED_DOUBT * doubt)
        )
        return Reserve(now, soon, why)
