"""What was learned outlives the process without a volume: in files, Redis, one server or a cluster."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventperf._core.errors import BackendUnavailable, ConfigurationError
from eventperf.cli.scale.state import open_state
from eventperf.scaling import (
    Alert,
    AutoScaler,
    CallableMetrics,
    FileState,
    LearnedState,
    PredictivePolicy,
    RedisState,
    ScalingDecision,
    SimulatedTarget,
    StateStore,
)
from eventperf.testing import FakeClock
from eventperf.testing.scaling import StateStoreSuite

pytestmark = pytest.mark.integration

DAY_S = 86400.0


class TestFileState(StateStoreSuite):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], StateStore]:
        return lambda: FileState(tmp_path / "state")


class TestRedisState(StateStoreSuite):
    @pytest.fixture
    def reopen(self, redis_url: str, request: pytest.FixtureRequest) -> Callable[[], StateStore]:
        return lambda: RedisState(redis_url, namespace=request.node.nodeid)


class TestRedisClusterState(StateStoreSuite):
    @pytest.fixture
    def reopen(self, redis_cluster_url: str, request: pytest.FixtureRequest) -> Callable[[], StateStore]:
        return lambda: RedisState(redis_cluster_url, namespace=request.node.nodeid)


def _scaler(clock: FakeClock, state: LearnedState, **options: Any) -> AutoScaler:
    def rate() -> float:
        at = clock.time() % DAY_S
        return 2000.0 if 43_200 <= at < 44_400 else 200.0

    return AutoScaler(
        options.pop("target", None) or SimulatedTarget(8), CallableMetrics(rps=rate),
        PredictivePolicy(capacity_rps=40, startup=60), min_replicas=2, max_replicas=200, clock=clock,
        state=state, **options,
    )  # fmt: skip


def _pass(scaler: AutoScaler, clock: FakeClock, seconds: float) -> list[ScalingDecision]:
    made = []
    for _ in range(int(seconds / 60.0)):
        clock.advance(60.0)
        made.append(scaler.tick())
    return made


@pytest.fixture(params=["file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    if request.param == "file":
        return FileState(tmp_path / "state")
    return RedisState(request.getfixturevalue("redis_url"), namespace=request.node.nodeid)


def test_a_leader_that_dies_without_a_word_leaves_its_shapes_and_the_next_one_is_ready(
    store: StateStore,
) -> None:
    clock = FakeClock()
    target = SimulatedTarget(8)
    first = _scaler(clock, LearnedState(store, clock=clock), target=target)
    _pass(first, clock, 3 * DAY_S - clock.time() % DAY_S + 42_000)  # killed here: nothing is closed
    learned = first._memory
    second = _scaler(clock, LearnedState(store, clock=clock), target=target)
    other = _scaler(clock, LearnedState(FileState("/nonexistent"), clock=clock), target=SimulatedTarget(8))
    for _ in range(19):  # to a minute before noon
        clock.advance(60.0)
        made, knows_nothing = second.tick(), other.tick()
    assert second._memory["season"]["leaps"] == learned["season"]["leaps"]
    assert made.after >= 50, "ready before noon, for the leap of the days before"
    assert knows_nothing.after < 20


def test_changes_are_kept_at_once_so_that_limits_hold_across_leaders(store: StateStore) -> None:
    clock = FakeClock()
    first = _scaler(clock, LearnedState(store, every="1h", clock=clock), target=SimulatedTarget(2))
    made = _pass(first, clock, 120)
    applied = [d for d in made if d.applied]
    assert applied
    record = LearnedState(store).recall("simulated")
    assert record is not None
    assert record.after == applied[-1].after


def test_who_leads_no_longer_writes_over_nothing(store: StateStore) -> None:
    clock, leads = FakeClock(), [True]
    old = _scaler(clock, LearnedState(store, clock=clock, guard=lambda: leads[0]), target=SimulatedTarget(8))
    _pass(old, clock, 300)
    leads[0] = False
    new = _scaler(clock, LearnedState(store, clock=clock), target=SimulatedTarget(8))
    made = _pass(new, clock, 300)
    old.tick()
    old.close()
    record = LearnedState(store).recall("simulated")
    assert record is not None
    assert record.at == made[-1].at


def test_shadow_and_leader_keep_states_of_their_own(store: StateStore) -> None:
    clock = FakeClock()
    shadow = _scaler(clock, LearnedState(store, clock=clock), dry_run=True)
    _pass(shadow, clock, 120)
    assert LearnedState(store).recall("simulated") is None
    assert LearnedState(store).recall("simulated", dry_run=True) is not None


def test_a_store_that_is_away_is_one_alert_and_scaling_goes_on() -> None:
    clock, told = FakeClock(), list[Alert]()
    state = LearnedState(RedisState("redis://127.0.0.1:1/0"), clock=clock)
    scaler = _scaler(clock, state, target=SimulatedTarget(2), alerts=[told.append])
    made = _pass(scaler, clock, 600)
    assert made[-1].after > 2
    assert [a.kind for a in told] == ["state_failed"]
    assert "127.0.0.1:1" in told[0].text
    with pytest.raises(BackendUnavailable):
        state.store.load("x")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not packed", zlib.compress(b"{}"), zlib.compress(b"[1]"), zlib.compress(b"\xff"),
        zlib.compress(b" " * (9 << 20)), zlib.compress(b'{"target":"simulated","observation":{"state":1}}'),
    ],
)  # fmt: skip
def test_what_is_no_state_is_told_and_left(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileState(tmp_path)
    clock = FakeClock()
    scaler = _scaler(clock, LearnedState(store, clock=clock))
    scaler.tick()
    (name,) = os.listdir(tmp_path)
    store.save(name, data)
    again = _scaler(clock, LearnedState(store, clock=clock))
    assert again.tick().error is None
    assert "cannot be read" in caplog.text


def test_a_state_of_a_learning_policy_is_small(tmp_path: Path) -> None:
    clock = FakeClock()
    scaler = _scaler(clock, LearnedState(FileState(tmp_path), clock=clock))
    _pass(scaler, clock, 2 * DAY_S)
    (name,) = os.listdir(tmp_path)
    assert (tmp_path / name).stat().st_size < 20_000
    assert (tmp_path / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("hostile", ["../../etc/x", "a/b\nc", "*", "\udc80", "", "x" * 500, "ä" * 90])
def test_any_name_of_a_target_is_a_name_in_the_store(tmp_path: Path, hostile: str) -> None:
    state = LearnedState(FileState(tmp_path / "in"))
    scaler = _scaler(FakeClock(), state, target=SimulatedTarget(2, name=hostile or " "))
    scaler.tick()
    assert len(os.listdir(tmp_path / "in")) == 1
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize(
    "wrong", ["configmap:", "configmap:Not_A_Name", "http://h/x", "postgresql://h/x", ""]
)
def test_a_place_that_is_none_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="--state"):
        open_state(wrong, argument="--state")
