"""The Flask extension: managers from arguments or configuration, and the worker's contexts."""

from __future__ import annotations

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
