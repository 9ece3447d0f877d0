"""A query gives a finite, fresh number or says why there is none; against a small real HTTP server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.backends.prometheus import PrometheusMetrics, PrometheusQuery, PrometheusUnavailable
from eventperf.testing import FakeClock

pytestmark = pytest.mark.integration


class Prometheus:
    """Serves ``answer`` to every query and remembers what was asked."""

    def __init__(self) -> None:
        self.answer: Any = {}
        self.status = 200
        self.delay_s = 0.0
        self.hang_up = 0
        self.said: dict[str, str] = {}
        self.asked: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(parse_qs(urlsplit(self.path).query))
                outer.headers.append(dict(self.headers))
                if outer.hang_up:
                    outer.hang_up -= 1
                    self.close_connection = True
                    return
                time.sleep(outer.delay_s)
                body = outer.answer if isinstance(outer.answer, bytes) else json.dumps(outer.answer).encode()
                self.send_response_only(outer.status)
                for name, value in {"Date": self.date_time_string(), **outer.said}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def vector(self, *values: str, at: float | None = None) -> None:
        result = [{"metric": {"n": str(n)}, "value": [at or time.time(), v]} for n, v in enumerate(values)]
        self.answer = {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    prometheus = Prometheus()
    thread = threading.Thread(target=prometheus.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield prometheus
    prometheus.server.shutdown()
    thread.join()
    prometheus.server.server_close()


@pytest.fixture
def query(prometheus: Prometheus) -> Iterator[PrometheusQuery]:
    query = PrometheusQuery(prometheus.url, "sum(rate(http_requests_total[1m]))", timeout=0.5, max_age=60)
    yield query
    query.close()


def test_one_series_is_a_number(prometheus: Prometheus, query: PrometheusQuery) -> None:
    prometheus.vector("412.5")
    assert query.ask().value == 412.5
    assert prometheus.asked[0]["query"] == ["sum(rate(http_requests_total[1m]))"]
    assert prometheus.asked[0]["lookback_delta"] == ["60s"]


def test_a_scalar_is_a_number(prometheus: Prometheus, query: PrometheusQuery) -> None:
    prometheus.answer = {"status": "success", "data": {"resultType": "scalar", "result": [time.time(), "7"]}}
    assert query.ask().value == 7.0


@pytest.mark.parametrize(
    ("values", "reason"),
    [(("NaN",), "NaN"), (("+Inf",), "infinite"), ((), "empty"), (("1", "2"), "2 series")],
)
def test_what_is_no_number_is_missing_with_its_reason(
    prometheus: Prometheus, query: PrometheusQuery, values: tuple[str, ...], reason: str
) -> None:
    prometheus.vector(*values)
    answer = query.ask()
    assert answer.value is None
    assert reason in answer.reason


def test_a_matrix_and_a_partial_answer_are_missing(prometheus: Prometheus, query: PrometheusQuery) -> None:
    prometheus.answer = {"status": "success", "data": {"resultType": "matrix", "result": []}}
    assert query.ask().value is None
    prometheus.vector("5")
    prometheus.answer["warnings"] = ["store 2 did not answer"]
    assert query.ask().reason == "partial: store 2 did not answer"
    prometheus.vector("5")
    prometheus.answer["isPartial"] = True
    assert query.ask().reason.startswith("partial: isPartial")
    prometheus.answer["isPartial"] = False
    assert query.ask().value == 5.0


@pytest.mark.parametrize("value", [True, "1_000", None, "", ["5"]])
def test_what_only_python_takes_for_a_number_is_none(
    prometheus: Prometheus, query: PrometheusQuery, value: Any
) -> None:
    prometheus.vector(value)
    assert query.ask().value is None


def test_an_evaluation_time_that_stands_still_is_stale(prometheus: Prometheus) -> None:
    clock = FakeClock()
    query = PrometheusQuery(prometheus.url, "up", max_age="1m", clock=clock)
    at = time.time()
    prometheus.vector("5", at=at)
    assert query.ask().value == 5.0
    clock.advance(61)
    still = "stale: the time of its evaluation stands still, something answers for it"
    assert query.ask().reason == still
    prometheus.vector("6", at=at + 1)
    assert query.ask().value == 6.0
    query.close()


def http_date(at: float) -> str:
    return formatdate(at, usegmt=True)


@pytest.mark.parametrize(
    ("evaluated", "headers", "is_old"),
    [
        (0, {}, False), (-50, {}, False), (-4000, {}, True), (-70, {}, True), (4000, {}, False),
        # both clocks of the far side are an hour behind ours: the answer is fresh there
        (-3600, {"Date": http_date(time.time() - 3600)}, False),
        # a cache hands out what it was given long ago, with the date of then and its age
        (-3600, {"Date": http_date(time.time() - 3600), "Age": "3600"}, True),
        (-10, {"Age": "10"}, False), (0, {"Date": "once upon a time"}, False),
        (-4000, {"Date": "once upon a time"}, True), (-4000, {"Age": "old"}, True),
    ],
)  # fmt: skip
def test_a_result_that_was_evaluated_long_before_it_was_sent_is_refused_with_its_age(
    prometheus: Prometheus, query: PrometheusQuery, evaluated: int, headers: dict[str, str], is_old: bool
) -> None:
    prometheus.vector("5", at=time.time() + evaluated)
    prometheus.said = headers
    answer = query.ask()
    assert (answer.value is None) == is_old, answer
    if is_old:
        assert "max_age is 60 s" in answer.reason
        assert "a cache or a proxy answers" in answer.reason


@pytest.mark.parametrize("at", ["NaN", "Infinity", '"yesterday"'])
def test_a_result_without_a_time_is_refused(prometheus: Prometheus, query: PrometheusQuery, at: str) -> None:
    text = '{"status":"success","data":{"resultType":"scalar","result":[%s,"7"]}}'
    prometheus.answer = (text % at).encode()
    assert query.ask().value is None


@pytest.mark.parametrize(
    ("status", "answer"),
    [(503, b"no"), (400, {"status": "error", "error": "parse error"}), (200, b"<html>"), (200, [1])],
)
def test_an_error_instead_of_an_answer_is_raised(
    prometheus: Prometheus, query: PrometheusQuery, status: int, answer: Any
) -> None:
    prometheus.status, prometheus.answer = status, answer
    with pytest.raises(PrometheusUnavailable) as caught:
        query.ask()
    assert caught.value.status == status


def test_a_slow_server_costs_the_timeout_and_no_more(prometheus: Prometheus, query: PrometheusQuery) -> None:
    prometheus.vector("1")
    prometheus.delay_s = 20.0
    started = time.monotonic()
    with pytest.raises(PrometheusUnavailable):
        query.ask()
    assert time.monotonic() - started < 15
    prometheus.delay_s = 0.0
    assert query.ask().value == 1.0


def test_a_closed_idle_connection_is_replaced_but_not_endlessly(
    prometheus: Prometheus, query: PrometheusQuery
) -> None:
    prometheus.vector("1")
    query.ask()
    prometheus.hang_up = 1
    assert query.ask().value == 1.0
    prometheus.hang_up = 100
    with pytest.raises(PrometheusUnavailable):
        query.ask()


def test_nobody_listening_is_unavailable(prometheus: Prometheus) -> None:
    query = PrometheusQuery("http://127.0.0.1:1", "up", timeout=0.5)
    with pytest.raises(PrometheusUnavailable):
        query.ask()


def test_passwords_are_sent_but_not_shown(prometheus: Prometheus) -> None:
    prometheus.vector("1")
    query = PrometheusQuery(prometheus.url.replace("//", "//scaler:s3cret@"), "up")
    assert query.ask().value == 1.0
    assert prometheus.headers[-1]["Authorization"].startswith("Basic ")
    assert "s3cret" not in repr(query)
    query.close()


@pytest.mark.parametrize(("url", "text"), [("prometheus:9090", "up"), ("http://p:9090", " ")])
def test_what_cannot_work_is_refused(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError):
        PrometheusQuery(url, text)


def test_metrics_fail_one_by_one(prometheus: Prometheus) -> None:
    prometheus.vector("42")
    source = PrometheusMetrics(prometheus.url, {"rps": "sum(a)", "backlog": "sum(b)"}, timeout=0.5)
    assert {name: s.value for name, s in source.read().items()} == {"rps": 42.0, "backlog": 42.0}
    prometheus.vector("NaN")
    assert source.read()["rps"].error == "NaN"
    prometheus.status = 500
    assert all(s.value is None and s.error for s in source.read().values())
    source.close()


def test_no_query_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        PrometheusMetrics("http://p:9090", {})
