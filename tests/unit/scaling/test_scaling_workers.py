"""WorkerPoolTarget: started late, drained before it stops, replaced when it died."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import AutoScaler, QueueMetrics, ReplicaTarget, TargetTracking, WorkerPoolTarget
from eventperf.testing.scaling import ReplicaTargetSuite


class Busy:
    """A worker with one job that ends when ``job_done`` is set."""

    def __init__(self) -> None:
        self.stopped, self.job_done, self.finished = threading.Event(), threading.Event(), False

    def run(self) -> None:
        self.stopped.wait()
        self.job_done.wait()
        self.finished = True

    def stop(self) -> None:
        self.stopped.set()


class Idle(Busy):
    def __init__(self) -> None:
        super().__init__()
        self.job_done.set()


class TestWorkerPoolTarget(ReplicaTargetSuite):
    @pytest.fixture
    def target(self) -> Iterator[ReplicaTarget]:
        pool = WorkerPoolTarget(Idle, replicas=2)
        yield pool
        assert pool.close()


def test_scaling_down_waits_for_the_running_job() -> None:
    made: list[Busy] = []

    def make() -> Busy:
        made.append(Busy())
        return made[-1]

    pool = WorkerPoolTarget(make, replicas=2)
    assert pool.read().replicas == 2
    pool.scale(1)
    assert (pool.read().replicas, pool.draining) == (1, 1)
    assert not made[1].finished
    for worker in made:
        worker.job_done.set()
    assert pool.close()
    assert all(worker.finished for worker in made)


def test_nothing_runs_before_it_is_asked() -> None:
    made: list[Busy] = []
    WorkerPoolTarget(lambda: made.append(Idle()) or made[-1], replicas=3)
    assert not made


def test_a_worker_that_died_no_longer_counts() -> None:
    class Broken(Idle):
        def run(self) -> None:
            raise RuntimeError("no such queue")

    pool = WorkerPoolTarget(Broken, replicas=1)
    deadline = time.monotonic() + 20
    while pool.read().replicas and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pool.read().replicas == 0


def test_a_backlog_starts_workers() -> None:
    class Queue:
        def backlog(self) -> object:
            return type("Backlog", (), {"depth": 35})()

    pool = WorkerPoolTarget(Idle, replicas=1)
    AutoScaler(pool, QueueMetrics(Queue()), TargetTracking(backlog=10), max_replicas=8).tick()
    assert pool.read().replicas == 4
    assert pool.close()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigurationError, match="worker"):
        WorkerPoolTarget(3)  # type: ignore[arg-type]
