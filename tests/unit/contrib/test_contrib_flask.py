"""The Flask extension: managers from arguments or configuration, and the worker's contexts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import QueueManager

flask = pytest.importorskip("flask")
from eventperf.contrib.flask import EventPerf  # noqa: E402


def test_each_job_has_an_application_context_of_its_own() -> None:
    queues = QueueManager("memory://")
    seen: list[tuple[str, bool]] = []

    @queues.job("plain")
    def plain(ctx: Any, data: str) -> None:
        seen.append((flask.current_app.name, "mark" in flask.g))
        flask.g.mark = data

    @queues.job("coroutine")
    async def coroutine(ctx: Any, data: str) -> None:
        seen.append((flask.current_app.name, "mark" in flask.g))
        flask.g.mark = data

    app = flask.Flask("shop")
    ep = EventPerf(app, queues=queues)
    for n in range(2):
        ep.queues.enqueue("plain", str(n))
        ep.queues.enqueue("coroutine", str(n))
    result = app.test_cli_runner().invoke(args=["eventperf", "worker", "--burst"])
    assert result.exit_code == 0, result.output
    assert seen == [("shop", False)] * 4


def test_status_prints_exact_counts() -> None:
    queues = QueueManager("memory://")
    app = flask.Flask("shop")
    EventPerf(app, queues=queues)
    queues.enqueue_many("anything", [1, 2, 3], queue="low")
    result = app.test_cli_runner().invoke(args=["eventperf", "status"])
    assert result.exit_code == 0, result.output
    (low,) = (line.split() for line in result.output.splitlines() if line.startswith("low"))
    assert low == ["low", "3", "0", "0", "0", "0", "0"]


def test_an_unknown_queue_is_one_sentence() -> None:
    app = flask.Flask("shop")
    EventPerf(app, queues=QueueManager("memory://"))
    result = app.test_cli_runner().invoke(args=["eventperf", "worker", "--queue", "nope"])
    assert result.exit_code == 1
    assert "nope" in result.output
    assert "Traceback" not in result.output


def test_managers_come_from_the_configuration_of_each_app() -> None:
    ep = EventPerf()
    apps = []
    for name in ("one", "two"):
        app = flask.Flask(name)
        app.config.update(EVENTPERF_QUEUES_URL="memory://", EVENTPERF_QUEUES_OPTIONS={"namespace": name})
        ep.init_app(app)
        apps.append(app)
    for app in apps:
        with app.app_context():
            assert ep.queues.namespace == app.name
    with pytest.raises(ConfigurationError, match="application context"):
        _ = ep.queues


def test_a_single_app_needs_no_context() -> None:
    app = flask.Flask("only")
    app.config["EVENTPERF_QUEUES_URL"] = "memory://"
    ep = EventPerf(app)
    assert ep.queues.status()
    with pytest.raises(ConfigurationError, match="EVENTPERF_CACHE_URL"):
        _ = ep.cache


SHOP = """
from flask import Flask, current_app
from eventperf.contrib.flask import EventPerf
from eventperf.queues import QueueManager

queues = QueueManager("sqlite:///jobs.db")

@queues.job("heavy", cpu=True)
def heavy(ctx, data):
    return current_app.name

def create_app():
    app = Flask("shop")
    EventPerf(app, queues=queues)
    return app
"""


def test_processes_build_the_application_first(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    job_id = python("-c", "import shop; print(shop.heavy.enqueue(1).id)").strip()
    python("-m", "flask", "--app", "shop:create_app", "eventperf", "worker", "--burst")
    assert python("-c", f"import shop; print(shop.queues.result({job_id!r}))").strip() == "shop"


def heavy(ctx: Any, data: Any) -> None:
    return None


def test_application_that_no_process_can_build_is_refused() -> None:
    from click.testing import CliRunner
    from flask.cli import FlaskGroup

    queues = QueueManager("memory://")
    queues.job("heavy", cpu=True)(heavy)
    app = flask.Flask("shop")
    EventPerf(app, queues=queues)
    group = FlaskGroup(create_app=lambda: app)
    done = CliRunner().invoke(group, ["eventperf", "worker", "--burst"])
    assert done.exit_code == 1
    assert "name it with --app" in done.output
