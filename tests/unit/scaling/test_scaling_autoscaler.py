"""The loop: what it does, survives, tells, and can replay."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    Alert,
    AutoScaler,
    Behavior,
    CallableMetrics,
    CallableTarget,
    DecisionLog,
    Rules,
    Sample,
    ScalingDecision,
    SimulatedTarget,
    TargetConflict,
    TargetTracking,
    ThresholdPolicy,
)
from eventperf.testing import FakeClock

AT_ONCE = Behavior(up=Rules(), down=Rules())


class Host:
    """A simulated service: a fixed capacity per replica, and a load that the test sets."""

    def __init__(self, replicas: int = 2, *, startup: float = 30.0, **options: object) -> None:
        self.clock = FakeClock()
        self.load, self.memory = 100.0, 0.5
        self.target = SimulatedTarget(replicas, startup=startup, clock=self.clock)
        self.alerts: list[Alert] = []
        self.broken: set[str] = set()
        settings = {"policy": ThresholdPolicy(), "max_replicas": 32, "behavior": AT_ONCE, **options}
        policy = settings.pop("policy")
        self.scaler = AutoScaler(
            self.target, CallableMetrics(cpu=self._cpu, memory=self._memory, rps=self._rps), policy,  # type: ignore[arg-type]
            alerts=[self.alerts.append], clock=self.clock, **settings,  # type: ignore[arg-type]
        )  # fmt: skip

    def _cpu(self) -> float:
        self._check("cpu")
        return min(1.0, self.load / (100 * max(1, self.target.read().ready)))

    def _memory(self) -> float:
        self._check("memory")
        return self.memory

    def _rps(self) -> float:
        self._check("rps")
        return self.load

    def _check(self, name: str) -> None:
        if name in self.broken:
            raise ConnectionError(f"{name} is down")

    def tick(self, seconds: float = 15.0) -> ScalingDecision:
        self.clock.advance(seconds)
        return self.scaler.tick()


def test_a_hot_target_doubles_once_and_waits_for_its_pods() -> None:
    host = Host(4)
    host.load = 390
    assert host.tick().after == 8
    assert host.tick().action == "none"  # 4 of 8 are still starting: the textbook rule doubles again
    host.clock.advance(30)
    assert host.tick().action == "none"
    assert host.target.read().ready == 8


def test_going_down_waits_until_everything_is_low_and_stays_whole() -> None:
    host = Host(5, policy=ThresholdPolicy(baseline_rps=80))
    host.load, host.memory = 50, 0.2
    decision = host.tick()
    assert (decision.before, decision.after) == (5, 3)  # ceil(5 / 2), never 2.5
    host.memory = 0.45
    assert host.tick().action == "none"


def test_the_baseline_is_learned() -> None:
    host = Host(4)
    host.load, host.memory = 240, 0.2
    for _ in range(20):
        host.tick()
    host.load = 40
    assert host.tick().action == "down"


def test_memory_that_does_not_fall_gets_one_step_and_one_alert() -> None:
    host = Host(2)
    host.load, host.memory = 20, 0.9
    assert host.tick().after == 4
    host.clock.advance(60)
    for _ in range(5):
        assert host.tick().action == "none"
    assert [a.kind for a in host.alerts] == ["memory_not_falling"]


@pytest.mark.parametrize("broken", [{"cpu"}, {"memory"}, {"rps"}, {"cpu", "memory", "rps"}])
def test_blind_never_scales_down_and_tells_once(broken: set[str]) -> None:
    host = Host(6, policy=ThresholdPolicy(baseline_rps=80))
    host.load, host.memory, host.broken = 10, 0.1, broken
    for _ in range(4):
        assert host.tick().action == "none"
    assert [a.kind for a in host.alerts] == ["blind"]
    host.broken = set()
    assert host.tick().action == "down"
    assert [(a.kind, a.recovered) for a in host.alerts] == [("blind", False), ("blind", True)]


def test_a_metric_source_that_raises_does_not_end_the_loop() -> None:
    class Broken:
        def read(self) -> dict[str, Sample]:
            raise OSError("no route")

    scaler = AutoScaler(SimulatedTarget(3), Broken(), TargetTracking(cpu=0.7), max_replicas=5)
    decision = scaler.tick()
    assert decision.action == "none"
    assert "no route" in decision.explain() or "no source" in decision.explain()


def test_a_target_that_fails_is_told_once_and_tried_again() -> None:
    box, broken = [2], [True]

    def scale(n: int) -> None:
        if broken[0]:
            raise TimeoutError("API does not answer")
        box[0] = n

    alerts: list[Alert] = []
    scaler = AutoScaler(
        CallableTarget(lambda: box[0], scale), CallableMetrics(rps=lambda: 300), TargetTracking(rps=50),
        max_replicas=10, behavior=AT_ONCE, alerts=[alerts.append],
    )  # fmt: skip
    first, second = scaler.tick(), scaler.tick()
    assert not first.applied
    assert "API does not answer" in (first.error or "")
    assert second.after == 6
    broken[0] = False
    assert scaler.tick().applied
    assert [(a.kind, a.recovered) for a in alerts] == [("scale_failed", False), ("scale_failed", True)]


def test_an_unreadable_target_is_no_reason_to_die() -> None:
    def read() -> int:
        raise ConnectionResetError("gone")

    alerts: list[Alert] = []
    scaler = AutoScaler(
        CallableTarget(read, print), CallableMetrics(rps=lambda: 1), TargetTracking(rps=1), max_replicas=2,
        alerts=[alerts.append],
    )  # fmt: skip
    assert scaler.tick().action == "none"
    assert [a.kind for a in alerts] == ["target_unreadable"]


def test_somebody_elses_change_is_taken_as_the_truth_and_told() -> None:
    host = Host(4, policy=TargetTracking(rps=25))
    host.tick()
    host.target.scale(9)
    decision = host.tick()
    assert decision.before == 9
    assert "fought_over" in {a.kind for a in host.alerts}


def test_a_conflict_writes_nothing() -> None:
    def scale(n: int) -> None:
        raise TargetConflict("changed by somebody else")

    scaler = AutoScaler(
        CallableTarget(lambda: 1, scale),
        CallableMetrics(rps=lambda: 100),
        TargetTracking(rps=10),
        max_replicas=4,
    )
    decision = scaler.tick()
    assert not decision.applied
    assert decision.error == "changed by somebody else"


def test_pinned_at_max_is_told_after_five_minutes() -> None:
    host = Host(4, policy=TargetTracking(rps=10), max_replicas=4)
    host.load = 400
    host.tick()
    assert not host.alerts
    host.tick(301)
    assert [a.kind for a in host.alerts] == ["pinned_at_max"]


def test_broken_alerts_and_logs_change_nothing(tmp_path: Path) -> None:
    def sink(alert: Alert) -> None:
        raise RuntimeError("pager is down")

    target = SimulatedTarget(1)
    log = DecisionLog(tmp_path / "no such folder" / "log.jsonl")
    scaler = AutoScaler(
        target, CallableMetrics(rps=lambda: 40), TargetTracking(rps=10), max_replicas=9, behavior=AT_ONCE,
        alerts=[sink], log=log,
    )  # fmt: skip
    assert scaler.tick().applied
    assert target.read().replicas == 4


def test_a_policy_that_fails_keeps_the_replicas() -> None:
    class Broken:
        def decide(self, observation: object) -> None:
            raise ZeroDivisionError

    scaler = AutoScaler(SimulatedTarget(3), CallableMetrics(cpu=lambda: 0.5), Broken(), max_replicas=5)  # type: ignore[arg-type]
    decision = scaler.tick()
    assert decision.after == 3
    assert "ZeroDivisionError" in (decision.error or "")


def test_dry_run_and_frozen_change_nothing() -> None:
    shadow = Host(2, policy=TargetTracking(rps=10), dry_run=True)
    decision = shadow.tick()
    assert (decision.after, decision.applied, shadow.target.read().replicas) == (10, False, 2)
    assert "dry run" in decision.explain()
    frozen = Host(2, policy=TargetTracking(rps=10))
    frozen.scaler.frozen = True
    assert frozen.tick().binding == "frozen"
    assert frozen.target.read().replicas == 2


def test_every_decision_replays_from_its_record(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    host = Host(
        2, policy=TargetTracking(rps=30, cpu=0.6), log=DecisionLog(path, steady=True), behavior=Behavior()
    )
    for load in (100, 400, 900, 900, 20, 20, 20, 700):
        host.load = load
        host.tick(40)
    records = list(DecisionLog.read(path))
    assert len(records) == 8
    assert records == list(host.scaler.log)
    for record in records:
        assert host.scaler.replay(record) == record


def test_explain_names_the_binding_limit() -> None:
    host = Host(2, policy=TargetTracking(rps=10), max_replicas=5)
    host.load = 140
    decision = host.tick()
    assert decision.binding == "max 5"
    assert "max 5: 14 -> 5" in decision.explain()


def test_run_stops_when_told() -> None:
    ticks = threading.Event()
    scaler = AutoScaler(
        SimulatedTarget(1), CallableMetrics(rps=lambda: 1), TargetTracking(rps=1), max_replicas=2
    )
    scaler.hooks.subscribe(lambda event: ticks.set(), ScalingDecision)
    thread = threading.Thread(target=scaler.run, kwargs={"interval": 0.01})
    thread.start()
    assert ticks.wait(5)
    scaler.close()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("max_replicas", {"min_replicas": 5, "max_replicas": 3}),
        ("min_replicas", {"min_replicas": -1, "max_replicas": 3}),
        ("max_replicas", {"max_replicas": 2.5}),
        ("max_age", {"max_replicas": 3, "max_age": -1}),
        ("alerts", {"max_replicas": 3, "alerts": [1]}),
    ],
)
def test_wrong_arguments_are_named(argument: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        AutoScaler(SimulatedTarget(1), CallableMetrics(cpu=lambda: 1.0), ThresholdPolicy(), **options)  # type: ignore[arg-type]
    assert raised.value.argument == argument


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_high": 0.2},
        {"memory_low": 0.9},
        {"factor": 1.0},
        {"cpu_high": float("nan")},
        {"baseline_rps": 0},
    ],
)
def test_wrong_thresholds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        ThresholdPolicy(**wrong)
