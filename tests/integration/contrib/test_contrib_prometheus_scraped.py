"""A real Prometheus scrapes what several gunicorn workers count: one sum, whichever worker answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from eventperf.scaling import PrometheusMetrics
from faults import wait_until
from processes import ServerMissing, free_port
from prometheus_server import PrometheusServer

pytestmark = pytest.mark.integration

APP = """
import os
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from eventperf.cache import CacheManager
from eventperf.contrib.prometheus import PrometheusSink

cache = CacheManager("memory://")
cache.on(PrometheusSink())

@cache.cached(ttl="1m")
def load(path):
    return path

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
        return [generate_latest(registry)]
    load(path + str(os.getpid()))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "prom").mkdir()
    found = f"127.0.0.1:{free_port()}"
    command = [
        sys.executable, "-m", "gunicorn", "--workers", "3", "--bind", found, "--chdir", str(tmp_path),
        "shop:app",
    ]  # fmt: skip
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "prom")}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(found, server), 30, what=(tmp_path / "log").read_text)
        yield found
    finally:
        server.send_signal(signal.SIGQUIT)  # at once
        server.wait(20)


def ask(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "gunicorn ended"
    try:
        return ask(address, "/metrics") is not None
    except OSError:
        return False


def test_what_all_workers_counted_is_scraped_and_outlives_a_worker_that_is_killed(address: str) -> None:
    try:
        server = PrometheusServer(targets=(address,)).start()
    except ServerMissing as error:
        if os.environ.get("CI"):
            pytest.fail(f"NOT RUN: {error}")
        pytest.skip(f"NOT RUN: {error}")
    counted = 'sum(eventperf_events_total{room="cache",event="Loaded"})'
    timed = 'sum(eventperf_event_seconds_count{room="cache",event="Loaded"})'
    with closing(server), closing(PrometheusMetrics(server.url, counted)) as source:

        def seen(query: str) -> float | None:
            with closing(PrometheusMetrics(server.url, query)) as one:
                return one.read()["rps"].value

        workers = {ask(address, f"/{n}") for n in range(60)}
        wait_until(lambda: source.read()["rps"].value == 60.0, 30, what="60 loads")
        assert len(workers) >= 2
        assert seen(timed) == 60.0
        os.kill(int(sorted(workers)[0]), signal.SIGKILL)
        more = {ask(address, f"/again/{n}") for n in range(20)}
        wait_until(lambda: source.read()["rps"].value == 80.0, 30, what="80 loads")
        assert more
        assert seen(f"sum(resets({counted[4:-1]}[1m]))") == 0.0, "it never fell, whichever worker answered"
