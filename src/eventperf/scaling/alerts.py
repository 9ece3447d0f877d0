"""Telling people once: an alert when something begins, a notice when it is over, silence in between."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .protocols import AlertSink

_log = logging.getLogger("eventperf.scaling")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something an operator should know.

    Attributes:
        kind: Stable name: ``blind``, ``pinned_at_max``, ``fought_over``, ``scale_failed``,
            ``target_unreadable``, ``memory_not_falling``.
        at: Wall-clock seconds since the epoch.
        recovered: Whether this is the notice that it is over.
    """

    kind: str
    target: str
    text: str
    at: float
    recovered: bool = False


class Episodes:
    """Which conditions are open for one target; only their beginnings and ends are told."""

    def __init__(self, target: str, sinks: Sequence[AlertSink]) -> None:
        self._target = target
        self._sinks = tuple(sinks)
        self.open: dict[str, str] = {}

    def update(self, conditions: Mapping[str, str], at: float) -> list[Alert]:
        """Take what holds now and tell what changed since the last call."""
        told = [
            Alert(kind=kind, target=self._target, text=text, at=at)
            for kind, text in conditions.items()
            if kind not in self.open
        ]
        told += [
            Alert(kind=kind, target=self._target, text=text, at=at, recovered=True)
            for kind, text in self.open.items()
            if kind not in conditions
        ]
        self.open = dict(conditions)
        for alert in told:
            self._tell(alert)
        return told

    def _tell(self, alert: Alert) -> None:
        level = logging.INFO if alert.recovered else logging.WARNING
        state = "recovered" if alert.recovered else "alert"
        _log.log(level, "%s %s: %s: %s", alert.target, state, alert.kind, alert.text)
        for sink in self._sinks:
            try:
                sink(alert)
            except Exception:
                _log.exception("alert sink %r failed on %s", sink, alert.kind)
