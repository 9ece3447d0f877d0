"""Sinks tell what happened, with bounded labels and without anything a user typed."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass

import pytest

from eventperf._core.events import Hooks
from eventperf.contrib import _facts
from eventperf.contrib.logging import LoggingSink


@dataclass(frozen=True, slots=True)
class JobFailed:
    queue: str
    job_id: str
    run_s: float


@dataclass(frozen=True, slots=True)
class Loaded:
    namespace: str
    key: str
    load_s: float


SECRET = "alice@example.com"


def told(*sinks: object) -> None:
    hooks = Hooks()
    for sink in sinks:
        hooks.subscribe(sink)  # type: ignore[arg-type]
    hooks.emit(Loaded("shop", f"user:{SECRET}", 0.02))
    hooks.emit(JobFailed("critical", SECRET, 1.5))
    hooks.emit("a plain event")


def test_log_lines_leave_out_what_users_typed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "eventperf"):
        told(LoggingSink())
    assert [r.levelname for r in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert caplog.records[0].eventperf == {"event": "Loaded", "namespace": "shop", "load_s": 0.02}
    assert caplog.records[1].getMessage() == "JobFailed queue='critical' run_s=1.5"
    assert SECRET not in caplog.text


def test_log_lines_hold_everything_on_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "app"):
        told(LoggingSink(logging.getLogger("app"), levels={JobFailed: logging.ERROR}, private=True))
    assert caplog.records[1].levelname == "ERROR"
    assert caplog.text.count(SECRET) == 2


def test_a_level_that_is_off_formats_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "eventperf"):
        told(LoggingSink())
    assert not caplog.records


def test_prometheus_counts_and_times_without_keys() -> None:
    prom = pytest.importorskip("prometheus_client")
    from eventperf.contrib.prometheus import PrometheusSink

    registry = prom.CollectorRegistry()
    sink = PrometheusSink(registry)
    told(sink)
    told(sink)
    text = prom.generate_latest(registry).decode()
    labels = {"room": "test_contrib_sinks", "event": "JobFailed", "queue": "critical"}
    labels |= {name: "" for name in _facts.LABELS if name != "queue"}
    labels["room"] = JobFailed.__module__.split(".")[0]
    assert registry.get_sample_value("eventperf_events_total", labels) == 2
    assert registry.get_sample_value("eventperf_event_seconds_sum", {**labels, "field": "run_s"}) == 3.0
    assert SECRET not in text


def test_prometheus_labels_stay_bounded() -> None:
    prom = pytest.importorskip("prometheus_client")
    from eventperf.contrib.prometheus import PrometheusSink

    registry = prom.CollectorRegistry()
    sink = PrometheusSink(registry)
    for n in range(_facts.MAX_LABEL_VALUES + 50):
        sink(JobFailed(f"queue-{n}", "x", 0.1))
    samples = [
        s
        for m in registry.collect()
        for s in m.samples
        if s.name == "eventperf_events_total" and s.labels["queue"]
    ]
    assert len(samples) == _facts.MAX_LABEL_VALUES + 1
    assert [s.value for s in samples if s.labels["queue"] == _facts.OTHER] == [50]


@dataclass(frozen=True)
class Stats:
    hits: int
    hit_ratio: float
    note: str = "n"


@dataclass(frozen=True)
class Status:
    name: str
    waiting: int
    paused: bool


class Good:
    def stats(self) -> Stats:
        return Stats(7, 0.5)


class Broken:
    def stats(self) -> Stats:
        raise ConnectionError("down")


class Queues:
    def status(self) -> list[Status]:
        return [Status("critical", 3, False), Status("low", 9, True)]


def test_a_scrape_reads_statistics_and_survives_a_broken_source() -> None:
    prom = pytest.importorskip("prometheus_client")
    from eventperf.contrib.prometheus import StatsCollector

    registry = prom.CollectorRegistry()
    StatsCollector(caches={"main": Good(), "bad": Broken()}, queues=Queues(), registry=registry)
    value = registry.get_sample_value
    assert value("eventperf_cache_hits", {"cache": "main"}) == 7
    assert value("eventperf_cache_hits", {"cache": "bad"}) is None
    assert value("eventperf_scrape_failed", {"source": "bad"}) == 1
    assert value("eventperf_scrape_failed", {"source": "main"}) == 0
    assert value("eventperf_queue_waiting", {"queue": "low"}) == 9
    assert value("eventperf_queue_paused", {"queue": "low"}) == 1


def test_opentelemetry_counts_times_and_marks_the_span() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry import trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from eventperf.contrib.opentelemetry import OpenTelemetrySink

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    span = TracerProvider().get_tracer("t").start_span("request")
    with trace.use_span(span):
        told(OpenTelemetrySink(provider.get_meter("t")))
    span.end()
    assert [e.name for e in span.events] == ["eventperf.Loaded", "eventperf.JobFailed", "eventperf.str"]
    data = reader.get_metrics_data()
    metrics = {m.name: m for m in data.resource_metrics[0].scope_metrics[0].metrics}
    counted = {p.attributes["eventperf.event"]: p.value for p in metrics["eventperf.events"].data.data_points}
    assert counted == {"Loaded": 1, "JobFailed": 1, "str": 1}
    assert {p.sum for p in metrics["eventperf.event.duration"].data.data_points} == {0.02, 1.5}
    assert SECRET not in data.to_json()
    provider.shutdown()


@pytest.mark.parametrize(
    ("module", "made", "package", "extra"),
    [
        ("prometheus", "PrometheusSink", "prometheus_client", "prometheus"),
        ("opentelemetry", "OpenTelemetrySink", "opentelemetry", "opentelemetry"),
    ],
)
def test_a_missing_client_is_one_sentence_with_the_cure(
    module: str, made: str, package: str, extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from eventperf.contrib.{module} import {made}\n"
        f"try: {made}()\nexcept ImportError as e: print(e)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f'pip install "eventperf[{extra}]"' in run.stdout, run.stdout + run.stderr
