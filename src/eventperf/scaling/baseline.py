"""What is usual at this hour: a rolling median, so that one wild day does not move it."""

from __future__ import annotations

from collections import deque
from statistics import median

_HOUR_S = 3600.0
_DAY_S = 86400.0


class Baseline:
    """Usual requests per second of one replica by hour of the day, over the last week of samples.

    Before this hour has been seen for a while, the median over all hours stands in; before ten samples
    there is no baseline.
    """

    def __init__(self, *, per_hour: int = 7 * 60) -> None:
        self._hours: dict[int, deque[float]] = {}
        self._per_hour = per_hour

    def add(self, at: float, rps_per_replica: float) -> None:
        """Take one sample; ``at`` is wall-clock seconds since the epoch."""
        hour = int(at % _DAY_S // _HOUR_S)
        if hour not in self._hours:
            self._hours[hour] = deque(maxlen=self._per_hour)
        self._hours[hour].append(rps_per_replica)

    def at(self, at: float) -> float | None:
        """Return the usual rate at this hour, ``None`` while it is not known."""
        samples = self._hours.get(int(at % _DAY_S // _HOUR_S), deque())
        if len(samples) < 10:
            samples = deque(v for hour in self._hours.values() for v in hour)
        return median(samples) if len(samples) >= 10 else None
