"""What a burst leaves is said, with counts and reasons."""

from __future__ import annotations

import logging
import signal
from typing import Any

import pytest

from eventperf.queues import Exponential, Limit, QueueManager


def _queues() -> QueueManager:
    queues = QueueManager("memory://", limits=[Limit(type="mail", rate=2, per="1h")])

    @queues.job("mail")
    async def mail(ctx: Any, data: Any) -> None: ...

    @queues.job("flaky", queue="low", backoff=Exponential("1h"))
    async def flaky(ctx: Any, data: Any) -> None:
        raise ConnectionError("away")

    return queues


def _said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [r for r in caplog.records if "the burst is over" in r.getMessage()]


def test_a_burst_says_what_it_leaves(caplog: pytest.LogCaptureFixture) -> None:
    queues = _queues()
    queues.enqueue_many("mail", range(5))
    queues.enqueue("flaky")
    queues.enqueue("mail", queue="high")
    queues.pause("high")
    with caplog.at_level(logging.INFO, "eventperf.queues"):
        queues.worker().run(burst=True)
    (record,) = _said(caplog)
    said = record.getMessage()
    assert record.levelno == logging.WARNING
    assert "high 1 waiting (paused), 0 delayed; normal 3 waiting, 0 delayed; low 0 waiting, 1 delayed" in said
    assert "critical" not in said


def test_delayed_jobs_alone_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    queues = _queues()
    queues.enqueue("mail", delay="1h")
    with caplog.at_level(logging.INFO, "eventperf.queues"):
        queues.worker(["normal"]).run(burst=True)
    assert [r.levelno for r in _said(caplog)] == [logging.INFO]


@pytest.mark.parametrize("chosen", [None, ["high"]])
def test_a_burst_that_leaves_nothing_of_its_own_says_nothing(
    caplog: pytest.LogCaptureFixture, chosen: list[str] | None
) -> None:
    queues = _queues()
    if chosen:
        queues.enqueue("mail", queue="low")
    else:
        queues.enqueue("mail")
    with caplog.at_level(logging.INFO, "eventperf.queues"):
        queues.worker(chosen).run(burst=True)
    assert _said(caplog) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "own"])
def test_a_hangup_that_the_program_has_decided_on_is_left_alone(handler: Any) -> None:
    queues, found = QueueManager("memory://"), list[Any]()

    @queues.job("look")
    async def look(ctx: Any, data: Any) -> None:
        found.append(signal.getsignal(signal.SIGHUP))

    before = signal.signal(signal.SIGHUP, handler)
    try:
        look.enqueue(None)
        queues.worker().run(burst=True)
        assert found == [handler]
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
