"""Probes, metrics and the recommendation over HTTP, against hostile and slow clients too."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventperf.scaling import AutoScaler, CallableMetrics, ScalingDecision, SimulatedTarget, TargetTracking
from eventperf.scaling.serving import pages
from eventperf.scaling.serving.board import Board
from eventperf.scaling.serving.service import Service
from eventperf.testing import FakeClock
from eventperf.testing.kubernetes import KubernetesServer

pytestmark = pytest.mark.integration


class Host:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.scalers = []
        names = ["prod/deployment/web", 'dev/we"ird\n\\name']
        self.board = Board(names, interval_s=15.0, clock=self.clock)
        for name in names:
            scaler = AutoScaler(
                SimulatedTarget(2, name=name, clock=self.clock), CallableMetrics(rps=lambda: 300.0),
                TargetTracking(rps=50), max_replicas=40, dry_run=True, clock=self.clock,
            )  # fmt: skip
            scaler.on(self.board.put, ScalingDecision)
            self.scalers.append(scaler)
        self.service = Service(self.board, listen=("127.0.0.1", 0)).start()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.service.port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def send(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=20) as sock:
            sock.sendall(data)
            found = b""
            try:
                while part := sock.recv(65536):
                    found += part
            except ConnectionResetError:
                pass
            return found


@pytest.fixture
def host() -> Iterator[Host]:
    found = Host()
    yield found
    found.service.close()


def test_ready_when_every_target_was_decided_about_and_well_while_it_goes_on(host: Host) -> None:
    assert host.get("/healthz") == (200, "ok\n")
    assert host.get("/readyz")[0] == 503
    host.scalers[0].tick()
    status, text = host.get("/readyz")
    assert status == 503
    assert "we" in text
    host.scalers[1].tick()
    assert host.get("/readyz") == (200, "ok\n")
    host.clock.advance(121)
    assert host.get("/healthz") == (503, "nothing was decided for 121 s\n")
    host.scalers[0].tick()
    assert host.get("/healthz")[0] == 200


def test_the_recommendation_is_what_a_metrics_api_trigger_reads(host: Host) -> None:
    host.scalers[0].tick()
    status, text = host.get("/recommendation?target=deployment/web&namespace=prod")
    answer = json.loads(text)
    assert (status, answer["replicas"], answer["current"]) == (200, 6, 2)
    assert "target 50 per replica" in answer["reason"]
    assert host.get("/recommendation?namespace=prod") == (status, text)
    status, text = host.get("/recommendation?target=other")
    assert status == 404
    assert "prod/deployment/web" in json.loads(text)["error"]
    assert host.get("/recommendation")[0] == 404, "several targets, and none is named"
    host.clock.advance(61)
    status, text = host.get("/recommendation?target=deployment/web")
    assert (status, json.loads(text)["error"]) == (503, "prod/deployment/web: the last decision is 61 s old")


def test_prometheus_reads_the_gauges_whatever_the_names(host: Host) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    for scaler in host.scalers:
        scaler.tick()
    status, text = host.get("/metrics")
    assert status == 200
    found = {
        (sample.name, sample.labels["target"]): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["eventperf_scaling_recommended_replicas", "deployment/web"] == 6.0
    assert found["eventperf_scaling_recommended_replicas", 'we"ird\n\\name'] == 6.0
    host.clock.advance(100)
    assert "recommended_replicas{" not in host.get("/metrics")[1], "what is too old is a gap, not a number"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"GET //[ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /recommendation?" + b"a=1&" * 100 + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"\xff\xfe\x00 x\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused(host: Host, data: bytes, status: bytes) -> None:
    assert host.send(data).split(b" ")[1] == status
    assert host.get("/healthz")[0] == 200


def test_a_header_without_end_is_cut_and_slow_clients_hold_nobody_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000) == b""
    monkeypatch.setattr(pages, "_DEADLINE_S", 1.0)
    slow = [socket.create_connection(("127.0.0.1", host.service.port)) for _ in range(150)]
    for sock in slow:
        sock.sendall(b"G")
    assert host.get("/healthz") == (200, "ok\n")
    for sock in slow:  # one byte a time does not extend the deadline
        sock.settimeout(20)
        assert sock.recv(10) == b""
        sock.close()


def test_head_is_answered_without_a_body_and_many_ask_at_once(host: Host) -> None:
    answer = host.send(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 3" in answer
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(host.get("/metrics")[0])) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [200] * 40


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what a stopped loop leaves
def test_serving_that_ends_is_started_anew_on_the_same_port(host: Host) -> None:
    port, loop = host.service.port, host.service._loop
    assert loop is not None
    loop.call_soon_threadsafe(loop.stop)
    end = time.monotonic() + 20
    while True:
        try:
            if host.get("/healthz")[0] == 200 and host.service._loop is not loop:
                break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert host.service.port == port


def test_the_command_serves_what_it_decides_and_changes_nothing(tmp_path: Path) -> None:
    with KubernetesServer(usage="140m") as cluster:
        cluster.create_deployment("web", replicas=2)
        config = tmp_path / "scale.json"
        target = {
            "name": "deployment/web", "max_replicas": 30, "metrics": {"cpu": "kubernetes"},
            "policy": {"type": "target-tracking", "cpu": 0.7},
        }  # fmt: skip
        data = {
            "scaler": {"interval": 0.5, "namespace": "default"}, "targets": [target],
            "kubernetes": {"kubeconfig": str(cluster.kubeconfig(tmp_path / "kubeconfig"))},
        }  # fmt: skip
        config.write_text(json.dumps(data))
        ports = [free_port(), free_port()]
        command = [sys.executable, "-m", "eventperf", "scale", "serve", "--config", str(config)]
        addresses = ["--listen", f"127.0.0.1:{ports[0]}", "--grpc", f"127.0.0.1:{ports[1]}"]
        process = subprocess.Popen([*command, *addresses], stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{ports[0]}/recommendation"
            end = time.monotonic() + 60
            answer: dict[str, object] = {}
            while answer.get("replicas") != 4:
                assert time.monotonic() < end, answer
                try:
                    with urllib.request.urlopen(url, timeout=5) as found:
                        answer = json.load(found)
                except OSError:
                    time.sleep(0.1)
            with socket.create_connection(("127.0.0.1", ports[1]), timeout=5):
                pass
            assert cluster.replicas("deployments", "web") == 2
            assert not cluster.list("leases", group="coordination.k8s.io"), "every process decides by itself"
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
