"""Events of any room as OpenTelemetry metrics and span events (needs ``opentelemetry-api``)."""

from __future__ import annotations

from typing import Any

from eventperf._core.extras import require

from ._facts import Reader

__all__ = ["OpenTelemetrySink"]


class OpenTelemetrySink:
    """Count events, time what they carry, and note them on the current span.

    Instruments: counter ``eventperf.events`` and histogram ``eventperf.event.duration`` (seconds).
    Attributes are the room, the event's name and declared names such as the queue; keys, SQL texts
    and job ids never become attributes.

    Args:
        meter: A meter; one named ``eventperf`` of the global provider when ``None``.
        spans: Add each event to the span that is recording, if one is.

    Raises:
        MissingExtra: ``opentelemetry-api`` is not installed.
    """

    def __init__(self, meter: Any = None, *, spans: bool = True) -> None:
        if meter is None:
            metrics = require("opentelemetry.metrics", extra="opentelemetry", needed_by="OpenTelemetrySink")
            meter = metrics.get_meter("eventperf")
        self._trace = (
            require("opentelemetry.trace", extra="opentelemetry", needed_by="OpenTelemetrySink")
            if spans
            else None
        )
        self._events = meter.create_counter(
            "eventperf.events", unit="1", description="Events by room and kind."
        )
        self._seconds = meter.create_histogram(
            "eventperf.event.duration", unit="s", description="Durations carried by events."
        )
        self._reader = Reader()

    def __call__(self, event: object, /) -> None:
        """Count ``event``."""
        facts = self._reader.read(event)
        attributes = {f"eventperf.{name}": value for name, value in facts.labels.items() if value}
        attributes |= {"eventperf.room": facts.room, "eventperf.event": facts.event}
        self._events.add(1, attributes)
        for name, value in facts.durations_s.items():
            self._seconds.record(value, {**attributes, "eventperf.field": name})
        if self._trace is not None:
            span = self._trace.get_current_span()
            if span.is_recording():
                span.add_event(f"eventperf.{facts.event}", attributes)
