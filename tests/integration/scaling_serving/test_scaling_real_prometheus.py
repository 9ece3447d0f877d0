"""A real Prometheus scrapes what is served, and is read: rates, staleness, redirects. Debian: prometheus."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eventperf.scaling import (
    AutoScaler,
    CallableMetrics,
    HttpAccess,
    PrometheusMetrics,
    Sample,
    ScalingDecision,
    SimulatedTarget,
    TargetTracking,
)
from eventperf.scaling.serving.board import Board
from eventperf.scaling.serving.service import Service

pytestmark = pytest.mark.integration

CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}
scrape_configs:
  - job_name: eventperf
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus:
    """The real one, scraping a port of this machine, below /prom."""

    def __init__(self, folder: Path, scraped: int) -> None:
        program = shutil.which("prometheus")
        if program is None:
            text = "NOT RUN: prometheus is not on the PATH (apt: prometheus)"
            if os.environ.get("CI"):
                pytest.fail(text)
            pytest.skip(text)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(port=scraped))
        self.process = subprocess.Popen(
            [
                program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}", "--web.external-url=http://127.0.0.1/prom",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def sample(self, query: str, *, path: str = "/prom") -> Sample:
        url = f"http://127.0.0.1:{self.port}{path}"
        source = PrometheusMetrics(url, query, name="rps", timeout=2.5)
        try:
            return source.read()["rps"]
        finally:
            source.close()

    def value(self, query: str) -> float | None:
        return self.sample(query).value

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Host(Prometheus):
    """A board that is served, and a Prometheus that scrapes it."""

    def __init__(self, folder: Path) -> None:
        self.board = Board(["prod/deployment/web"])
        self.service = Service(self.board, listen=("127.0.0.1", 0)).start()
        target = SimulatedTarget(2, name="prod/deployment/web")
        load = CallableMetrics(rps=lambda: 300.0)
        self.scaler = AutoScaler(target, load, TargetTracking(rps=50), max_replicas=40, dry_run=True)
        self.scaler.on(self.board.put, ScalingDecision)
        self.scaler.tick()
        super().__init__(folder, self.service.port)

    def close(self) -> None:
        super().close()
        self.service.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    found = Host(tmp_path)
    yield found
    found.close()


class Pods(BaseHTTPRequestHandler):
    """Each answer is that of other pods: the series of the answer before end, as in a rolling update."""

    generation = 0

    def do_GET(self) -> None:
        type(self).generation += 1
        lines = [f'inflight{{pod="web-{self.generation}-{n}"}} 25' for n in range(4)]
        body = "\n".join([*lines, ""]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def eventually(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_what_is_served_is_scraped_read_and_gone_when_the_process_is(host: Host) -> None:
    gauge = 'eventperf_scaling_recommended_replicas{namespace="prod",target="deployment/web"}'
    eventually(lambda: host.value(gauge) == 6.0)
    eventually(
        lambda: host.value(f"rate({gauge.replace('recommended_replicas', 'decision_age_seconds')}[30s])")
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{host.port}/prom/api/v1/targets", timeout=20) as found:
        assert b'"health":"up"' in found.read()
    host.service.close()
    eventually(lambda: host.value(gauge) is None)
    sample = host.sample(gauge)
    assert sample.error, "a series that ended is said to be missing, and is never 0"


def test_an_address_that_redirects_elsewhere_is_an_error_that_names_it(host: Host) -> None:
    eventually(lambda: host.value("up") is not None)
    sample = host.sample("up", path="")
    assert sample.value is None
    assert sample.error


def test_pods_that_come_and_go_are_counted_once_each(tmp_path: Path) -> None:
    pods = ThreadingHTTPServer(("127.0.0.1", 0), Pods)
    thread = threading.Thread(target=pods.serve_forever, daemon=True)
    thread.start()
    prometheus = Prometheus(tmp_path, pods.server_address[1])
    try:
        eventually(lambda: prometheus.value("sum(inflight)") is not None)
        first, seen = Pods.generation, []
        while Pods.generation < first + 5:
            seen.append(prometheus.value("sum(inflight)"))
        assert set(seen) == {100.0}, "the series of pods that are gone are not in the sum"
        several = prometheus.sample("inflight")
        assert several.value is None
        assert "aggregate" in (several.error or ""), "the cure is named"
    finally:
        prometheus.close()
        pods.shutdown()
        pods.server_close()
        thread.join()


class Door(ThreadingHTTPServer):
    """In front of a Prometheus: lets in who has the token, and may ask it about a time that is long past."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        self.token, self.old_s, self.behind = "first", 0.0, behind

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                status, body = 401, b"{}"
                if handler.headers.get("Authorization") == f"Bearer {self.token}":
                    at = time.time() - self.old_s
                    with urllib.request.urlopen(f"{behind}{handler.path}&time={at}", timeout=30) as found:
                        status, body = found.status, found.read()
                handler.send_response(status)
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(handler, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def door(host: Host) -> Iterator[Door]:
    found = Door(f"http://127.0.0.1:{host.port}/prom")
    thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    eventually(lambda: host.value("vector(300)") == 300.0)
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def test_a_token_that_is_rotated_while_the_scaler_runs_counts_at_once(door: Door, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    source = PrometheusMetrics(door.url, "vector(300)", timeout=30, access=HttpAccess(bearer_file=token))
    target = SimulatedTarget(2)
    with AutoScaler(target, source, TargetTracking(rps=50), max_replicas=40) as scaler:
        assert scaler.tick().after == 6
        door.token = "second"  # the server takes the new one alone, and nobody has told us yet
        refused = scaler.tick()
        assert (refused.after, refused.action) == (6, "none"), "blind, it stays where it is"
        assert "HTTP 401: the credentials" in refused.explain()
        (tmp_path / "new").write_text("second\n")
        os.replace(tmp_path / "new", token)
        seen = scaler.tick()
        assert "401" not in seen.explain()
        assert "rps: 300" in seen.explain()
        token.unlink()
        assert "bearer_file" in scaler.tick().explain()


def test_what_prometheus_says_of_long_ago_is_refused_with_its_age(door: Door) -> None:
    source = PrometheusMetrics(door.url, "vector(7)", timeout=30, access=HttpAccess(bearer="first"))
    assert source.read()["rps"].value == 7.0
    door.old_s = 4000.0
    sample = source.read()["rps"]
    assert sample.value is None
    assert "max_age is 60 s; a cache or a proxy answers" in (sample.error or "")
    door.old_s = 0.0
    assert source.read()["rps"].value == 7.0
    source.close()
