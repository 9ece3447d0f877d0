"""What was learned outlives the process without a volume: in files, Redis, one server or a cluster."""

from __future__ import annotations

import contextlib
import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from eventperf._core.errors import BackendUnavailable, ConfigurationError
from eventperf.cli.main import main
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
    SqlState,
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


class TestSqlState(StateStoreSuite):
    @pytest.fixture(params=["sqlite", "postgres", "mariadb"])
    def reopen(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], StateStore]]:
        url = f"sqlite:///{tmp_path / 'state.db'}"
        if request.param != "sqlite":
            url = str(request.getfixturevalue(f"{request.param}_url"))
        table, opened = f"state_{uuid.uuid4().hex[:12]}", list[SqlState]()

        def reopen() -> StateStore:
            opened.append(SqlState(url, table=table))
            return opened[-1]

        yield reopen
        with contextlib.suppress(sa.exc.SQLAlchemyError), opened[0]._open().begin() as connection:
            connection.execute(sa.text(f"DROP TABLE {table}"))
        for store in opened:
            store.close()


def _scaler(clock: FakeClock, state: LearnedState, **options: Any) -> AutoScaler:
    def rate() -> float:
        at = clock.time() % DAY_S
        return 2000.0 if 43_200 <= at < 44_400 else 200.0

    return AutoScaler(
        options.pop("target", None) or SimulatedTarget(8), CallableMetrics(rps=rate),
        PredictivePolicy(capacity_rps=40, startup=60), min_replicas=2, max_replicas=200, clock=clock,
        state=state, **options,
    )  # fmt: skip


def _pass(
    scaler: AutoScaler, clock: FakeClock, seconds: float, *, step: float = 60.0
) -> list[ScalingDecision]:
    made = []
    for _ in range(int(seconds / step)):
        clock.advance(step)
        made.append(scaler.tick())
    return made


@pytest.fixture(params=["file", "redis", "sql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    if request.param == "file":
        yield FileState(tmp_path / "state")
    elif request.param == "redis":
        yield RedisState(request.getfixturevalue("redis_url"), namespace=request.node.nodeid)
    else:
        with contextlib.closing(SqlState(f"sqlite:///{tmp_path / 'state.db'}")) as kept:
            yield kept


@dataclass(frozen=True)
class Left:
    """What a leader that was killed at 11:40 of its fourth day has left."""

    lived_s: float
    kept: dict[str, bytes]
    learned: Any


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    clock, folder = FakeClock(), tmp_path_factory.mktemp("left")
    begun_s = clock.time()
    first = _scaler(clock, LearnedState(FileState(folder), every="1h", clock=clock))
    _pass(first, clock, DAY_S - clock.time() % DAY_S, step=300.0)
    for _ in range(3):  # nights in long steps
        _pass(first, clock, 39_600, step=300.0)
        _pass(first, clock, 7200.0)
        _pass(first, clock, DAY_S - 46_800, step=300.0)
    _pass(first, clock, 39_600, step=300.0)
    _pass(first, clock, 2400.0)  # killed here: nothing is closed
    kept = {file.name: file.read_bytes() for file in folder.iterdir()}
    return Left(clock.time() - begun_s, kept, first._memory)


def test_a_leader_that_dies_without_a_word_leaves_its_shapes_and_the_next_one_is_ready(
    store: StateStore, left: Left
) -> None:
    clock = FakeClock()
    clock.advance(left.lived_s)
    for name, data in left.kept.items():
        store.save(name, data)
    second = _scaler(clock, LearnedState(store, clock=clock), target=SimulatedTarget(8))
    other = _scaler(clock, LearnedState(FileState("/nonexistent"), clock=clock), target=SimulatedTarget(8))
    while (clock.time() + 60.0) % DAY_S < 43_200:  # to a minute before noon
        clock.advance(60.0)
        made, knows_nothing = second.tick(), other.tick()
    assert second._memory["season"]["leaps"] == left.learned["season"]["leaps"]
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


def test_a_state_of_a_learning_policy_is_small_and_its_owner_s_alone(left: Left, tmp_path: Path) -> None:
    ((name, data),) = left.kept.items()
    assert len(data) < 20_000, "after more than three days"
    FileState(tmp_path).save(name, data)
    assert (tmp_path / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("hostile", ["../../etc/x", "a/b\nc", "*", "\udc80", "", "x" * 500, "ä" * 90])
def test_any_name_of_a_target_is_a_name_in_the_store(tmp_path: Path, hostile: str) -> None:
    state = LearnedState(FileState(tmp_path / "in"))
    scaler = _scaler(FakeClock(), state, target=SimulatedTarget(2, name=hostile or " "))
    scaler.tick()
    assert len(os.listdir(tmp_path / "in")) == 1
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("wrong", ["configmap:", "configmap:Not_A_Name", "http://h/x", "mongodb://h/x", ""])
def test_a_place_that_is_none_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="--state"):
        open_state(wrong, argument="--state")


class Stuck:
    """A store that can be told to give no answer."""

    def __init__(self, store: StateStore) -> None:
        self._store, self.is_away = store, False

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            raise BackendUnavailable("away")
        return getattr(self._store, name)


def test_a_target_that_people_hold_is_left_alone_by_every_scaler_and_the_one_that_follows(
    store: StateStore,
) -> None:
    clock, told = FakeClock(), list[Alert]()
    target = SimulatedTarget(2)
    first = _scaler(clock, LearnedState(store, clock=clock), target=target, alerts=[told.append])
    LearnedState(store).freeze("simulated")
    assert not _pass(first, clock, 300)[-1].applied
    assert target.read().replicas == 2
    assert [a.kind for a in told] == ["frozen"]
    second = _scaler(clock, LearnedState(store, clock=clock), target=target)  # the first was killed
    made = _pass(second, clock, 300)
    assert not any(d.applied for d in made)
    assert made[-1].wanted > 2, "what is decided is still told"
    LearnedState(store).freeze("simulated", on=False)
    assert _pass(second, clock, 60)[-1].applied
    assert target.read().replicas > 2
    assert not LearnedState(store).is_frozen("another")


def test_a_store_that_is_away_changes_nothing_about_what_is_held(tmp_path: Path) -> None:
    clock, told = FakeClock(), list[Alert]()
    store = Stuck(FileState(tmp_path))
    scaler = _scaler(clock, LearnedState(store, clock=clock), target=SimulatedTarget(2), alerts=[told.append])
    LearnedState(store).freeze("simulated")
    _pass(scaler, clock, 60)
    store.is_away = True
    assert not _pass(scaler, clock, 300)[-1].applied
    assert "state_failed" in [a.kind for a in told]
    store.is_away = False
    LearnedState(store).freeze("simulated", on=False)
    assert _pass(scaler, clock, 60)[-1].applied


def test_what_is_held_in_redis_stays_held_however_long(redis_url: str, redis_client: Any) -> None:
    store = RedisState(redis_url, namespace="held", ttl_s=60)
    LearnedState(store).freeze("web")
    _scaler(FakeClock(), LearnedState(store), target=SimulatedTarget(2)).tick()
    lasts = {key.endswith(b".frozen"): redis_client.ttl(key) for key in redis_client.keys("held:*")}
    assert lasts[True] == -1
    assert 0 < lasts[False] <= 60


@pytest.mark.parametrize("kind", ["file", "redis", "sql"])
def test_the_command_holds_what_is_no_workload_of_a_cluster(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "state") if kind == "file" else f"sqlite:///{tmp_path / 'state.db'}"
    if kind == "redis":
        where = request.getfixturevalue("redis_url")
    name = f"workers-{uuid.uuid4().hex[:6]}"
    clock, state = FakeClock(), open_state(where, argument="state")
    scaler = _scaler(clock, state, target=SimulatedTarget(2, name=name))
    assert main(["scale", "freeze", name, "--state", where]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{name}: frozen\n"
    assert "spelt" in shown.err, "nothing is known of this name yet"
    assert not _pass(scaler, clock, 120)[-1].applied
    assert main(["scale", "freeze", name, "--state", where]) == 0
    assert "spelt" not in capsys.readouterr().err
    assert main(["scale", "unfreeze", name, "--state", where]) == 0
    assert _pass(scaler, clock, 60)[-1].applied
    assert main(["scale", "freeze", "--state", where]) == 2
    assert main(["scale", "freeze", name, "--state", where, "--context", "prod"]) == 2
    state.close()
