"""Worker processes as a target: scaled on the queue's backlog, drained on the way down, nothing killed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import QueueManager
from eventperf.scaling import (
    AutoScaler,
    Behavior,
    CommandWorker,
    QueueMetrics,
    Rules,
    ScalingError,
    TargetTracking,
    WorkerPoolTarget,
)

pytestmark = pytest.mark.integration

APP = """
import os, sys, time
from eventperf.queues import QueueManager
queues = QueueManager({url!r}, namespace="pool")

def note(line):
    with open({log!r}, "a") as file:
        file.write(line + "\\n")

@queues.job("slow")
def slow(ctx, data):
    note(f"began {{data}} {{os.getpid()}}")
    time.sleep(0.7)
    note(f"ended {{data}} {{os.getpid()}}")
"""


def eventually(holds: Callable[[], object], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_real_workers_follow_the_backlog_and_no_running_job_is_killed(redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    (tmp_path / "pool_app.py").write_text(APP.format(url=redis_url, log=str(log)))
    command = [sys.executable, "-m", "eventperf", "queue", "worker", "pool_app:queues", "--concurrency", "1"]
    jobs = 9

    def lines(kind: str) -> list[str]:
        return [line for line in log.read_text().splitlines() if line.startswith(kind)]

    pool = WorkerPoolTarget(lambda: CommandWorker(command, cwd=tmp_path), replicas=1)
    with QueueManager(redis_url, namespace="pool") as queues:
        for number in range(jobs):
            queues.enqueue("slow", number)
        scaler = AutoScaler(
            pool, QueueMetrics(queues), TargetTracking(backlog=2), min_replicas=1, max_replicas=4,
            behavior=Behavior(up=Rules(), down=Rules()),
        )  # fmt: skip
        assert scaler.tick().after == 4
        eventually(lambda: len({line.split()[2] for line in lines("began")}) == 4)
        pool.scale(1)  # three of them are in the middle of a job
        assert pool.read().replicas == 1
        eventually(lambda: len(lines("ended")) == jobs)
        assert pool.close("60s")
        status = queues.status()
    began, ended = Counter(lines("began")), Counter(lines("ended"))
    assert sum(began.values()) == sum(ended.values()) == jobs  # each once: none was cut off and begun again
    assert {line.split()[1] for line in ended} == {str(number) for number in range(jobs)}
    assert sum(queue.completed for queue in status) == jobs
    assert pool.draining == 0


def test_a_command_that_ends_by_itself_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool = WorkerPoolTarget(lambda: CommandWorker([sys.executable, "-c", "raise SystemExit(3)"]), replicas=2)
    eventually(lambda: pool.read().replicas == 0)
    assert "ended by itself with code 3" in caplog.text
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    pool = WorkerPoolTarget(lambda: CommandWorker(sleeper, env={"A": "b"}), replicas=2)
    assert pool.read().replicas == 2
    assert pool.close("30s")


def test_stopped_before_it_began_it_never_begins(tmp_path: Path) -> None:
    worker = CommandWorker([sys.executable, "-c", "open('ran', 'w')"], cwd=tmp_path)
    worker.stop()
    worker.stop()
    worker.run()
    assert not (tmp_path / "ran").exists()


def test_a_command_that_cannot_be_started_or_fails_says_so() -> None:
    with pytest.raises(OSError, match="nowhere"):
        CommandWorker(["/nowhere/worker"]).run()
    with pytest.raises(ScalingError, match="code 4"):
        CommandWorker([sys.executable, "-c", "raise SystemExit(4)"]).run()
    for wrong in ("celery worker", []):
        with pytest.raises(ConfigurationError, match="command"):
            CommandWorker(wrong)
