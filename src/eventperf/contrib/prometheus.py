"""Events and statistics of any room as Prometheus metrics (needs ``prometheus-client``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from eventperf._core.extras import require

from ._facts import LABELS, Reader, numbers, plain

__all__ = ["PrometheusSink", "StatsCollector"]

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class PrometheusSink:
    """Count events and time what they carry.

    Two metrics, whatever the room: ``eventperf_events_total`` and ``eventperf_event_seconds`` (a
    histogram, one series per duration field). Labels are the room, the event's name and declared
    names such as the queue; keys, SQL texts and job ids never become labels, and after 500
    different values of a label further ones are told as ``other``.

    Args:
        registry: A ``CollectorRegistry``; the client's default registry when ``None``.

    Raises:
        MissingExtra: ``prometheus-client`` is not installed.
    """

    def __init__(self, registry: Any = None) -> None:
        client = require("prometheus_client", extra="prometheus", needed_by="PrometheusSink")
        where = {} if registry is None else {"registry": registry}
        self._events = client.Counter(
            "eventperf_events", "Events of eventperf by room and kind.", ("room", "event", *LABELS), **where
        )
        self._seconds = client.Histogram(
            "eventperf_event_seconds",
            "Durations carried by events of eventperf.",
            ("room", "event", "field", *LABELS),
            buckets=_BUCKETS,
            **where,
        )
        self._reader = Reader()

    def __call__(self, event: object, /) -> None:
        """Count ``event``."""
        facts = self._reader.read(event)
        self._events.labels(room=facts.room, event=facts.event, **facts.labels).inc()
        for name, value in facts.durations_s.items():
            self._seconds.labels(room=facts.room, event=facts.event, field=name, **facts.labels).observe(
                value
            )


class _HasStats(Protocol):
    def stats(self) -> Any: ...


class _HasStatus(Protocol):
    def status(self) -> Iterable[Any]: ...


class StatsCollector:
    """Read ``cache.stats()`` and ``queues.status()`` when Prometheus scrapes; costs nothing between scrapes.

    Every numeric field of a record becomes a gauge: ``eventperf_cache_<field>`` with the label
    ``cache``, ``eventperf_queue_<field>`` with the label ``queue``. A source that fails is left out of
    that scrape and told in ``eventperf_scrape_failed``.

    Args:
        caches: Cache managers by the name that becomes the label ``cache``.
        queues: A queue manager.
        registry: A ``CollectorRegistry`` to register with; the default one when ``None``.

    Raises:
        MissingExtra: ``prometheus-client`` is not installed.
    """

    def __init__(
        self,
        *,
        caches: dict[str, _HasStats] | None = None,
        queues: _HasStatus | None = None,
        registry: Any = None,
    ) -> None:
        client = require("prometheus_client", extra="prometheus", needed_by="StatsCollector")
        self._gauge = require(
            "prometheus_client.core", extra="prometheus", needed_by="StatsCollector"
        ).GaugeMetricFamily
        self._caches = dict(caches or {})
        self._queues = queues
        (client.REGISTRY if registry is None else registry).register(self)

    def describe(self) -> list[Any]:
        """Return nothing: registering must not open a connection."""
        return []

    def collect(self) -> list[Any]:
        """Return the metric families of one scrape."""
        families: dict[str, Any] = {}
        failed = self._gauge(
            "eventperf_scrape_failed", "1 where a source could not be read.", labels=("source",)
        )
        for name, cache in self._caches.items():
            self._read(families, failed, "cache", name, partial(_one, name, cache))
        if self._queues is not None:
            self._read(families, failed, "queue", "queues", partial(_each, self._queues))
        return [*families.values(), failed]

    def _read(
        self,
        families: dict[str, Any],
        failed: Any,
        label: str,
        source: str,
        read: Callable[[], list[tuple[str, Any]]],
    ) -> None:
        try:
            records = read()
        except Exception:  # one unreachable server must not hide the other sources from the scrape
            failed.add_metric((plain(source),), 1.0)
            return
        failed.add_metric((plain(source),), 0.0)
        for value, record in records:
            for field, number in numbers(record).items():
                name = f"eventperf_{label}_{field}"
                if name not in families:
                    families[name] = self._gauge(name, f"{field} as its module reports it.", labels=(label,))
                families[name].add_metric((value,), number)


def _one(name: str, cache: _HasStats) -> list[tuple[str, Any]]:
    return [(plain(name), cache.stats())]


def _each(queues: _HasStatus) -> list[tuple[str, Any]]:
    return [(plain(status.name), status) for status in queues.status()]
