"""What is usual at this hour: a rolling median, so that one wild day does not move it."""

from __future__ import annotations

from array import array
from statistics import median

_HOUR_S = 3600.0
_DAY_S = 86400.0
_FEW = 10
_SMALL = 100


class _Hour:
    """The samples of one hour of the day: as they come until there are enough, then spread over a week."""

    __slots__ = ("next", "samples", "stored_at")

    def __init__(self) -> None:
        self.samples = array("f")
        self.next = 0
        self.stored_at = 0.0


class Baseline:
    """Usual requests per second of one replica by hour of the day, over the last week.

    Before this hour has been seen for a while, the median over all hours stands in; before ten samples
    there is no baseline. Takes 6 KB when full: thousands of targets have one each.
    """

    def __init__(self, *, per_hour: int = 56) -> None:
        self._hours: dict[int, _Hour] = {}
        self._per_hour = per_hour
        self._every_s = 7 * _HOUR_S / per_hour
        self._everything: tuple[int, float] | None = None

    def add(self, at: float, rps_per_replica: float) -> None:
        """Take one sample; ``at`` is wall-clock seconds since the epoch."""
        number = int(at % _DAY_S // _HOUR_S)
        hour = self._hours.get(number)
        if hour is None:
            hour = self._hours[number] = _Hour()
        if len(hour.samples) < self._per_hour:
            hour.samples.append(rps_per_replica)
        elif abs(at - hour.stored_at) >= self._every_s:
            hour.samples[hour.next] = rps_per_replica
            hour.next = (hour.next + 1) % self._per_hour
        else:
            return
        hour.stored_at = at

    def at(self, at: float) -> float | None:
        """Return the usual rate at this hour, ``None`` while it is not known."""
        number = int(at % _DAY_S // _HOUR_S)
        hour = self._hours.get(number)
        if hour is not None and len(hour.samples) >= _FEW:
            return float(median(hour.samples))
        if self._everything is not None and self._everything[0] == number:
            return self._everything[1]
        every = [value for other in self._hours.values() for value in other.samples]
        if len(every) < _FEW:
            return None
        found = float(median(every))
        if len(every) > _SMALL:  # not again for each tick of an hour that begins
            self._everything = (number, found)
        return found
