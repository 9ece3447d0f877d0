"""A Redis that is not there when a worker starts, and one that is frozen when somebody calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import QueueManager, StoreUnavailable
from eventperf.queues.backends.redis import backend, client
from eventperf.queues.working.health import Pulse
from faults import Worker, stopped, wait_until

pytestmark = pytest.mark.integration


def test_worker_waits_for_a_store_that_is_away_at_its_start(
    private_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis()
    server.kill9()
    with QueueManager(server.url) as queues:

        @queues.job("t")
        async def t(ctx: Any, data: int) -> int:
            return data

        with pytest.raises(StoreUnavailable):
            queues.worker().run()
        worker = queues.worker(grace=5)
        pulse = Pulse(worker)
        thread = threading.Thread(target=worker.run, kwargs={"wait_for_store": True})
        thread.start()
        try:
            wait_until(lambda: "waits for its store" in caplog.text, 30)
            report = pulse.report()
            assert (report.is_live, report.is_ready) == (True, False)
            server.start()
            wait_until(lambda: pulse.report().is_ready, 60)
            assert t.enqueue(7).result(30) == 7
        finally:
            worker.stop()
            thread.join(30)
        assert not thread.is_alive()
    assert caplog.text.count("waits for its store") == 1


def test_stop_ends_the_wait_for_a_store(
    private_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis()
    server.kill9()
    with QueueManager(server.url) as queues:
        worker = queues.worker()
        thread = threading.Thread(target=worker.run, kwargs={"wait_for_store": True})
        thread.start()
        wait_until(lambda: "waits for its store" in caplog.text, 30)
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


JOBS = """
import sys
sys.argv = ["eventperf", "queue", "worker", "jobs_of_nobody:queues", *sys.argv[2:]]
import types
from eventperf.queues import QueueManager
module = types.ModuleType("jobs_of_nobody")
module.queues = QueueManager({url!r})
module.queues.job("t")(lambda ctx, data: None)
sys.modules["jobs_of_nobody"] = module
from eventperf.cli.main import main
sys.exit(main())
"""


def test_command_waits_and_a_burst_says_in_a_line_why_it_cannot(private_redis: Callable[..., Any]) -> None:
    server = private_redis()
    server.kill9()
    program = JOBS.format(url=server.url)
    with Worker(program, "unused") as waits:
        waits.wait_for("waits for its store", 30)
        waits.terminate()
        assert waits.wait() == 0
        assert "Traceback" not in waits.output
    with Worker(program, "unused", "--burst") as burst:
        assert burst.wait() == 2
        wait_until(lambda: "does not answer" in burst.output, 30)
        assert "Traceback" not in burst.output


def test_frozen_redis_is_asked_once_by_each_caller(
    redis_server: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (backend, client):
        monkeypatch.setattr(module, "COMMAND_TIMEOUT_S", 0.5)
    asked: list[str] = []
    for face in (backend.RedisStore, backend.AsyncRedisStore):
        monkeypatch.setattr(face, "_run", _counted(face._run, asked))

    async def ask() -> list[BaseException | Any]:
        calls = [queues.aenqueue("t"), queues.aenqueue("t"), queues.astatus()]
        return await asyncio.gather(*calls, return_exceptions=True)

    with QueueManager(redis_url, namespace=uuid4().hex) as queues:
        job = queues.enqueue("t")
        with stopped(redis_server):
            asked.clear()
            for call in (lambda: queues.enqueue("t"), lambda: job.result(0.1)):
                with pytest.raises(StoreUnavailable):
                    call()
            assert asked.count("push") == 1, "one time-out, not two"
            answers = asyncio.run(ask())
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
        assert job.info().id == job.id, "and it goes on"


def _counted(run: Any, asked: list[str]) -> Any:
    def counted(self: Any, name: str, args: Any) -> Any:
        asked.append(name)
        return run(self, name, args)

    return counted
