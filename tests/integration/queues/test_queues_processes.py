"""``cpu=True`` handlers: other processes, killed when they must stop."""

from __future__ import annotations

import os

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import JobFailed, QueueManager
from queues_cpu_jobs import die, queues, spin, square


def test_cpu_jobs_run_elsewhere_and_can_be_killed() -> None:
    jobs = [square.enqueue(n) for n in range(4)]
    endless, dying = spin.enqueue(None), die.enqueue(None)
    queues.worker(concurrency=3).run(burst=True)
    results = [job.result(0) for job in jobs]
    assert [r[0] for r in results] == [0, 1, 4, 9]
    assert os.getpid() not in {r[1] for r in results}
    with pytest.raises(JobFailed, match="timed out"):
        endless.result(0)
    with pytest.raises(JobFailed, match="code 7"):
        dying.result(0)


def test_cpu_handlers_must_be_importable_plain_functions() -> None:
    manager = QueueManager("memory://")
    with pytest.raises(ConfigurationError, match="top level"):
        manager.job("local", cpu=True)(lambda ctx, data: None)
    with pytest.raises(ConfigurationError, match="coroutines"):

        @manager.job("coroutine", cpu=True)
        async def coroutine(ctx: object, data: None) -> None: ...
