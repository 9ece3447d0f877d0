"""What needs people is told, once; what people set is left; every number that is accepted works."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    Alert,
    AutoScaler,
    Behavior,
    Calendar,
    CallableMetrics,
    DecisionLog,
    LatencyPolicy,
    MaxOf,
    Observation,
    PodSample,
    Policy,
    QueueMetrics,
    Rules,
    Sample,
    SimulatedTarget,
    TargetState,
    TargetTracking,
    TargetUnavailable,
    ThresholdPolicy,
)
from eventperf.testing.clock import FakeClock

FREE = Behavior(up=Rules(), down=Rules())


class Stage:
    """A scaler with everything it says, driven tick by tick."""

    def __init__(self, target: SimulatedTarget, rps: Callable[[], Any], **options: Any) -> None:
        self.clock, self.told = FakeClock(), list[Alert]()
        options = {"max_replicas": 50, "policy": TargetTracking(rps=40), **options}
        self.scaler = AutoScaler(
            target, CallableMetrics(rps=rps), clock=self.clock, alerts=[self.told.append], **options
        )

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.decision = self.scaler.tick()
            self.clock.advance(15)

    def kinds(self) -> list[tuple[str, bool]]:
        return [(a.kind, a.recovered) for a in self.told]


class Flaky(SimulatedTarget):
    """Answers as the pattern says, over and over."""

    def __init__(self, pattern: str) -> None:
        super().__init__(10)
        self._pattern, self._looks = pattern, 0

    def read(self) -> TargetState:
        self._looks += 1
        if self._pattern[self._looks % len(self._pattern)] == "-":
            raise TargetUnavailable("no answer")
        return super().read()


@given(pattern=st.text("+-", min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_fault_that_comes_and_goes_is_one_episode(pattern: str) -> None:
    stage = Stage(Flaky(pattern), lambda: 400.0)
    stage.run(240)
    assert len(stage.told) <= 3
    assert ("-" in pattern) == bool(stage.told)


def test_a_fault_that_is_over_is_told_as_over_at_once_the_first_time_and_later_after_a_calm() -> None:
    values: list[float | None] = [400.0, None, 400.0, None, *[400.0] * 60]
    stage = Stage(SimulatedTarget(10), lambda: values.pop(0))
    stage.run(4)
    assert stage.kinds() == [("blind", False), ("blind", True), ("blind", False)]
    stage.run(39)
    assert len(stage.told) == 3
    stage.run(5)
    assert stage.kinds()[3:] == [("blind", True)]


class Stuck(SimulatedTarget):
    """Of which only so many ever become ready."""

    most = 4

    def read(self) -> TargetState:
        wanted = super().read().replicas
        return TargetState(replicas=wanted, ready=min(wanted, self.most), starting=max(0, wanted - self.most))


def test_replicas_that_never_become_ready_are_told_after_ten_minutes_and_when_they_are() -> None:
    target = Stuck(4)
    stage = Stage(target, lambda: 400.0)
    stage.run(38)
    assert stage.told == []
    stage.run(6)
    assert stage.kinds() == [("not_ready", False)]
    assert "6 of 10" in stage.told[0].text
    target.most = 10
    stage.run(1)
    assert stage.kinds()[-1] == ("not_ready", True)


def test_replicas_that_become_ready_one_by_one_are_no_matter() -> None:
    target = Stuck(4)
    stage = Stage(target, lambda: 400.0)
    for ready in range(4, 10):
        target.most = ready
        stage.run(30)
    assert stage.told == []


@pytest.mark.parametrize("answer", [None, [{"at": 1}], 7, ConnectionError("the database is gone")])
def test_a_calendar_that_cannot_be_read_is_told_once_and_when_it_is_back(answer: object) -> None:
    now = answer

    def source() -> Any:
        if isinstance(now, Exception):
            raise now
        return now

    stage = Stage(SimulatedTarget(10), lambda: 400.0, calendar=Calendar(source))
    stage.run(10)
    assert stage.kinds() == [("calendar_unreadable", False)]
    now = []
    stage.run(10)
    assert stage.kinds() == [("calendar_unreadable", False), ("calendar_unreadable", True)]


def test_a_log_that_cannot_be_written_is_told() -> None:
    stage = Stage(SimulatedTarget(2), lambda: 400.0, log=DecisionLog("/no/such/folder/log.jsonl"))
    stage.run(1)
    assert stage.kinds() == [("log_failed", False)]
    assert "/no/such/folder" in stage.told[0].text


def test_a_log_that_fails_is_over_when_a_record_is_stored_and_not_before(tmp_path: Path) -> None:
    load = [400.0]
    stage = Stage(SimulatedTarget(2), lambda: load[0], log=DecisionLog(tmp_path / "none" / "log.jsonl"))
    stage.run(20)
    assert stage.kinds() == [("log_failed", False)], "ticks that write nothing end nothing"
    (tmp_path / "none").mkdir()
    load[0] = 4000.0
    stage.run(2)
    assert stage.kinds() == [("log_failed", False), ("log_failed", True)]


def test_who_is_overruled_again_and_again_tries_less_often_until_its_number_stands() -> None:
    target = SimulatedTarget(3)
    stage, set_by_us = Stage(target, lambda: 400.0), 0
    for _ in range(240):
        stage.run(1)
        set_by_us += stage.decision.applied
        target.scale(3)
    assert 10 <= set_by_us <= 25, "every five minutes in the end, not at each of 240 ticks"
    assert stage.kinds() == [("fought_over", False)]
    stage.run(60)
    assert target.read().replicas == 10
    assert stage.kinds() == [("fought_over", False), ("fought_over", True)]
    for _ in range(3):  # one change by people now and then is answered at once
        target.scale(5)
        stage.run(1)
        assert target.read().replicas == 10
        stage.run(20)


def test_two_live_targets_of_one_name_in_one_log_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    log, one, other = DecisionLog(), SimulatedTarget(2), SimulatedTarget(2)

    def make(target: SimulatedTarget, **options: Any) -> AutoScaler:
        source = CallableMetrics(rps=lambda: 1.0)
        return AutoScaler(target, source, TargetTracking(rps=1), max_replicas=9, log=log, **options)

    with caplog.at_level(logging.WARNING, "eventperf.scaling"):
        first, shadow = make(one), make(one, dry_run=True)
        assert not caplog.records
        second = make(other)
        assert "simulated" in caplog.text
        caplog.clear()
        for scaler in (first, second, shadow):
            scaler.close()
        make(other)
    assert not caplog.records


# -- what people set ------------------------------------------------------------------------------------


def test_zero_by_hand_pauses_until_somebody_scales_it_up_also_across_a_restart() -> None:
    target, log = SimulatedTarget(5), DecisionLog()
    stage = Stage(target, lambda: 480.0, min_replicas=2, log=log, behavior=FREE)
    stage.run(1)
    assert target.read().replicas == 12
    target.scale(0)
    stage.run(20)
    assert target.read().replicas == 0
    assert stage.kinds() == [("paused", False)]
    assert stage.decision.limits == (("paused", 0),)
    assert stage.scaler.replay(stage.decision) == stage.decision
    stage.scaler.close()
    again = Stage(target, lambda: 480.0, min_replicas=2, log=log, behavior=FREE)
    again.run(5)
    assert target.read().replicas == 0
    target.scale(3)
    again.run(1)
    assert target.read().replicas == 12
    assert again.kinds() == [("paused", False), ("paused", True)]


def test_a_pool_that_begins_with_none_is_started() -> None:
    target = SimulatedTarget(0)
    Stage(target, lambda: 0.0, min_replicas=2).run(1)
    assert target.read().replicas == 2


# -- numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [int, float, Decimal, Fraction])
def test_what_is_a_number_in_python_is_a_reading_in_every_source(make: Callable[[Any], Any]) -> None:
    class Queue:
        class Now:
            depth, arrival_rate, run_s, slots = make(300), make(18), make(1), make(6)

        def backlog(self) -> Any:
            return self.Now

    assert CallableMetrics(rps=lambda: make(300)).read()["rps"] == Sample(value=300.0)
    assert CallableMetrics(rps=lambda: Sample(value=make(300))).read()["rps"].value == 300.0
    found = QueueMetrics(Queue()).read()
    assert {n: s.value for n, s in found.items()} == {"backlog": 300.0, "rps": 18.0, "cpu": 3.0}
    assert TargetTracking(rps=make(50)).targets == {"rps": 50.0}


@pytest.mark.parametrize("wrong", ["300", True, b"3", [3], object()])
def test_what_is_no_number_is_a_missing_reading_with_its_type(wrong: Any) -> None:
    assert "not a number" in str(CallableMetrics(rps=lambda: wrong).read()["rps"].error)
    assert "not a number" in str(Sample(value=wrong).fault(60.0))


@given(
    target=st.one_of(st.floats(1e-300, 10.0), st.floats(0.0001, 2.0)),
    value=st.one_of(st.floats(0, 1e308), st.integers(0, 10**400), st.just(float("nan"))),
    replicas=st.integers(0, 40), usages=st.lists(st.none() | st.integers(0, 10**15), max_size=4),
    request=st.sampled_from([None, 0, 1, 1000]), per_pod=st.booleans(),
)  # fmt: skip
@settings(deadline=None)
def test_no_target_and_no_reading_raises(
    target: float, value: float, replicas: int, usages: list[int | None], request: int | None, per_pod: bool
) -> None:
    pods = tuple(PodSample(usage=u, request=request) for u in usages) if per_pod else None
    for name in ("cpu", "memory", "rps", "backlog"):
        policies: list[Policy] = [
            TargetTracking(**{name: target}), LatencyPolicy(), LatencyPolicy(capacity_rps=max(target, 1e-6)),
            ThresholdPolicy(), MaxOf(TargetTracking(**{name: target}), ThresholdPolicy()),
        ]  # fmt: skip
        seen = Observation(
            at_s=0.0, state=TargetState(replicas=replicas, ready=replicas), min_replicas=0, max_replicas=40,
            samples={name: Sample(value=value, pods=pods)}, baseline_rps=target,
        )  # fmt: skip
        for policy in policies:
            wish = policy.decide(seen)
            assert type(wish.replicas) is int
            assert 0 <= Behavior().apply(wish.replicas, seen)[0] <= 40


def test_an_absurd_reading_is_named() -> None:
    stage = Stage(SimulatedTarget(4), lambda: 1e308, policy=LatencyPolicy(capacity_rps=40))
    stage.run(1)
    assert stage.decision.blind == {"rps": "not plausible: 1e+308"}
    assert stage.decision.error is None


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf"), "50", True])
def test_targets_that_are_none_are_refused(target: Any) -> None:
    with pytest.raises(ConfigurationError, match="rps"):
        TargetTracking(rps=target)


@pytest.mark.parametrize(
    "policy", [TargetTracking(rps=40), LatencyPolicy(), LatencyPolicy(capacity_rps=40), ThresholdPolicy()]
)
@pytest.mark.parametrize("metric", ["rps", "backlog"])
def test_a_minimum_of_zero_is_left_when_work_comes(policy: Policy, metric: str) -> None:
    if metric == "backlog" and isinstance(policy, TargetTracking):
        policy = TargetTracking(backlog=40)
    clock, target = FakeClock(), SimulatedTarget(0)
    source = CallableMetrics(**{metric: lambda: 100.0})
    scaler = AutoScaler(target, source, policy, min_replicas=0, max_replicas=50, clock=clock)
    for _ in range(4):
        scaler.tick()
        clock.advance(15)
    assert target.read().replicas >= 1


def test_usage_alone_never_goes_to_zero_as_nothing_would_bring_it_back() -> None:
    source = CallableMetrics(cpu=lambda: 0.0)
    scaler = AutoScaler(
        SimulatedTarget(3), source, TargetTracking(cpu=0.7), min_replicas=0, max_replicas=9, behavior=FREE
    )
    assert scaler.tick().after == 1
