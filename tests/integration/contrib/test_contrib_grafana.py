"""The dashboards of ``examples/grafana``: what they ask for is exposed, and a real Prometheus answers it."""

from __future__ import annotations

import json
import os
import re
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from eventperf.cache import CacheManager
from eventperf.cache.stats import BreakerChanged, Invalidated, Loaded, LoadFailed, StoreTrouble
from eventperf.contrib.prometheus import PrometheusSink, StatsCollector
from eventperf.dbopt.events import Advised, IndexChanged
from eventperf.queues import QueueManager
from eventperf.queues.events import KINDS, JobEvent
from eventperf.scaling import Alert, AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
from eventperf.scaling.leader import LeaderChanged
from eventperf.scaling.serving.board import Board
from faults import wait_until
from processes import ServerMissing
from prometheus_server import PrometheusServer

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[3] / "examples/grafana"
FILES = sorted(FOLDER.glob("*.json"))
SELECTOR = re.compile(r"(eventperf_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)="([^"]*)"')


class Everything:
    """The metrics of an application that uses every room; each look at them counts every event once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.cache, self.queues = CacheManager(), QueueManager("memory://")
        StatsCollector(caches={"shop": self.cache}, queues=self.queues, registry=self.registry)
        self.sink = PrometheusSink(self.registry)
        self.board = Board(["prod/deployment/web"])
        target = SimulatedTarget(2, name="prod/deployment/web")
        load = CallableMetrics(rps=lambda: 300.0)
        self.scaler = AutoScaler(target, load, TargetTracking(rps=50), max_replicas=9)
        self._mu = threading.Lock()

    def text(self) -> str:
        with self._mu:
            decision = self.scaler.tick()
            self.board.put(decision)
            error = OSError("away")
            for event in (
                Loaded("k", 0.1), LoadFailed("k", error, True), StoreTrouble(error), BreakerChanged("open"),
                Invalidated(("k",)), Advised(1, 0, 0.5, "planned", True, 2.0),
                IndexChanged("created", "i", "t", "", 2.0, 0.5), decision, LeaderChanged("a", "a", True),
                Alert(kind="blind", target="prod/deployment/web", text="", at=0.0),
                *(JobEvent(kind=k, type="mail", queue="high", run_s=0.2, wait_s=0.1) for k in KINDS),
            ):  # fmt: skip
                self.sink(event)
            self.cache.get_or_load("k", lambda: 1)
            return generate_latest(self.registry).decode() + self.board.metrics()

    def close(self) -> None:
        self.cache.close()
        self.queues.close()
        self.scaler.close()


@pytest.fixture(scope="module")
def everything() -> Iterator[Everything]:
    with closing(Everything()) as made:
        yield made


def queries(file: Path) -> list[str]:
    board = json.loads(file.read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_there_is_a_dashboard_for_every_room() -> None:
    assert [f.stem for f in FILES] == ["cache", "database", "queues", "scaling"]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_metric_and_label_that_a_dashboard_names_is_exposed(file: Path, everything: Everything) -> None:
    lines = everything.text().splitlines()
    for query in queries(file):
        found = SELECTOR.findall(query)
        assert found, query
        for metric, selector in found:
            wanted = [f'{label}="{value}"' for label, value in MATCHER.findall(selector)]
            same = [x for x in lines if x.startswith(f"{metric}{{") and all(w in x for w in wanted)]
            assert same, f"nothing exposes {metric}{{{selector}}}: {query}"
            grouped = re.search(r"by \(([^)]*)\)", query)
            for label in grouped[1].split(", ") if grouped else ():
                assert f'{label}="' in same[0], f"{metric} has no label {label}: {query}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_dashboard_is_one_that_grafana_reads(file: Path) -> None:
    board: dict[str, Any] = json.loads(file.read_text())
    assert board["uid"] == f"eventperf-{file.stem}"
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])
    assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]}) == len(board["panels"])
    source = board["templating"]["list"][0]
    assert source["type"] == "datasource"
    assert {p["datasource"]["uid"] for p in board["panels"]} == {f"${{{source['name']}}}"}
    assert all(p["description"] and p["fieldConfig"]["defaults"]["unit"] for p in board["panels"])


@pytest.fixture(scope="module")
def prometheus(everything: Everything) -> Iterator[PrometheusServer]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = everything.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    page = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    try:
        server = PrometheusServer(targets=(f"127.0.0.1:{page.server_port}",)).start()
    except ServerMissing as error:
        if os.environ.get("CI"):
            pytest.fail(f"NOT RUN: {error}")
        pytest.skip(f"NOT RUN: {error}")
    try:
        with closing(server):
            yield server
    finally:
        page.shutdown()
        page.server_close()


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_real_prometheus_answers_every_query(file: Path, prometheus: PrometheusServer) -> None:
    def answer(query: str) -> list[Any]:
        asked = query.replace("$__rate_interval", "1m").replace("$__range", "5m")
        url = f"{prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': asked})}"
        with urllib.request.urlopen(url, timeout=10) as got:
            told = json.load(got)
        assert told["status"] == "success", told
        return list(told["data"]["result"])

    for query in queries(file):
        wait_until(lambda query=query: answer(query), 30, what=f"an answer to {query}")  # type: ignore[misc]
