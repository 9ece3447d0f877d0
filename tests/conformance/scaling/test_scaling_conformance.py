"""The published suites, bound to every target, source and policy that needs no server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eventperf.scaling import (
    CalendarPolicy,
    CallableMetrics,
    CallableTarget,
    LatencyPolicy,
    MaxOf,
    Metrics,
    MetricSource,
    Policy,
    PredictivePolicy,
    ProcessMetrics,
    QueueMetrics,
    ReplicaTarget,
    SimulatedTarget,
    TargetTracking,
    ThresholdPolicy,
)
from eventperf.testing.scaling import MetricSourceSuite, PolicySuite, ReplicaTargetSuite


class TestSimulatedTarget(ReplicaTargetSuite):
    @pytest.fixture
    def target(self) -> ReplicaTarget:
        return SimulatedTarget(2, startup="30s")

    @pytest.fixture
    def change_outside(self, target: ReplicaTarget) -> Callable[[int], None]:
        return target.scale


class TestCallableTarget(ReplicaTargetSuite):
    @pytest.fixture
    def box(self) -> list[int]:
        return [2]

    @pytest.fixture
    def target(self, box: list[int]) -> ReplicaTarget:
        return CallableTarget(lambda: box[0], lambda n: box.__setitem__(0, n))

    @pytest.fixture
    def change_outside(self, box: list[int]) -> Callable[[int], None]:
        return lambda n: box.__setitem__(0, n)


def _broken() -> float:
    raise RuntimeError("down")


class _Queue:
    def backlog(self) -> object:
        return type("Backlog", (), {"depth": 12})()


@pytest.mark.parametrize(
    "made",
    [
        lambda: CallableMetrics(cpu=lambda: 0.4, memory=_broken, rps=lambda: None),
        lambda: Metrics(cpu=lambda: 0.4, backlog=QueueMetrics(_Queue())),
        lambda: ProcessMetrics(memory_bytes=1 << 34),
        lambda: QueueMetrics(_Queue()),
    ],
)
class TestSources(MetricSourceSuite):
    @pytest.fixture
    def source(self, made: Callable[[], MetricSource]) -> MetricSource:
        return made()


@pytest.mark.parametrize(
    "made",
    [
        ThresholdPolicy,
        lambda: TargetTracking(cpu=0.7),
        lambda: TargetTracking(rps=50, memory=0.8),
        lambda: MaxOf(ThresholdPolicy(), TargetTracking(cpu=0.6)),
        LatencyPolicy,
        lambda: PredictivePolicy(capacity_rps=100),
        lambda: CalendarPolicy(capacity_rps=100),
        lambda: MaxOf(CalendarPolicy(), TargetTracking(cpu=0.6)),
    ],
)
class TestPolicies(PolicySuite):
    @pytest.fixture
    def policy(self, made: Callable[[], Policy]) -> Policy:
        return made()
