"""A policy that knows what is dated: openings, starts, ends. Pure."""

from __future__ import annotations

from eventperf.scaling.model import Observation

from .seasonal import PredictivePolicy

_EVENT_DOUBT = 0.6


class CalendarPolicy(PredictivePolicy):
    """:class:`PredictivePolicy`, and ready for dated events: openings, starts, ends.

    It learns what events of each kind bring, per expected person, in each five minutes from half an hour
    before to three hours after their date, and how far that is off. An entry that is missing, moved,
    cancelled or of the wrong size costs replicas or is met as any burst is; it never stops the policy from
    following the load. Events without ``expected`` are learned as a share of the load at the time.

    Where events are near, bursts come that no entry tells of: ``safety`` leaves a third
    less uncovered then, 0.985 becoming 0.99.

    Needs ``Observation.calendar``, which :class:`AutoScaler` fills in from ``calendar=``.

    >>> CalendarPolicy(wait="300ms").wait_s
    0.3
    """

    __slots__ = ()
    _reads_calendar = True

    def _covered(self, observation: Observation) -> float:
        return 1.0 - (1.0 - self.safety) * (_EVENT_DOUBT if observation.calendar else 1.0)
