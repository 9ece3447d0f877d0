"""Cron: when a schedule is due. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo

from eventperf._core.cron import Cron, time_zone
from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError

from .checks import check_span
from .job import NewJob

__all__ = ["Cron", "Every", "Schedule", "parse_when"]


@dataclass(frozen=True, slots=True)
class Every:
    """Slots at whole multiples of ``step_s`` since the epoch, the same on every host."""

    step_s: float

    def after(self, moment: float) -> float:
        """Return the first slot later than ``moment``."""
        near = moment // self.step_s
        return next(slot for n in (0, 1, 2) if (slot := self._slot(near + n)) > moment)

    def before(self, moment: float) -> float:
        """Return the last slot not later than ``moment``."""
        near = moment // self.step_s
        return next(slot for n in (1, 0, -1) if (slot := self._slot(near + n)) <= moment)

    def _slot(self, number: float) -> float:
        return round(number * self.step_s, 3)  # whole milliseconds: equal on all hosts and in every store


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job that is enqueued again and again.

    Attributes:
        when: Its slots.
        catch_up_s: A slot that nobody fired in time still fires when it is at most this old.
        make: Builds the job of one slot.
    """

    name: str
    when: Cron | Every
    catch_up_s: float
    make: Callable[[], NewJob]


def parse_when(when: str | Duration, zone: str | tzinfo) -> Cron | Every:
    """Return the slots that ``when`` asks for: a cron expression, or a duration for every so often."""
    found = time_zone(zone)  # which a duration does not need, and which may be wrong all the same
    if isinstance(when, str) and (len(when.split()) > 1 or when.startswith("@")):
        return Cron(when, found)
    step_s = check_span(when, argument="when")
    if step_s < 0.1:
        raise ConfigurationError("when", when, "at least 0.1 s")
    return Every(step_s)
