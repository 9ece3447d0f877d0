"""A scaler that starts goes on from the last record: what was learned, what was changed, what was wanted."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf.scaling import (
    AutoScaler,
    CallableMetrics,
    DecisionLog,
    LatencyPolicy,
    Observation,
    PredictivePolicy,
    Recommendation,
    ScalingDecision,
    SimulatedTarget,
    SqlDecisionLog,
)
from eventperf.scaling.records import tail
from eventperf.testing import FakeClock

DAY_S = 86400.0


def _rate(clock: FakeClock) -> float:
    """A leap at noon of each day."""
    at = clock.time() % DAY_S
    return 2000.0 if 43_200 <= at < 44_400 else 200.0


def _scaler(log: DecisionLog, clock: FakeClock, policy: Any = None, **options: Any) -> AutoScaler:
    return AutoScaler(
        options.pop("target", None) or SimulatedTarget(8),
        CallableMetrics(rps=lambda: _rate(clock)),
        policy or PredictivePolicy(capacity_rps=40, startup=60),
        min_replicas=2, max_replicas=200, log=log, clock=clock, **options,
    )  # fmt: skip


def _pass(scaler: AutoScaler, clock: FakeClock, seconds: float, step: float = 60.0) -> list[ScalingDecision]:
    made = []
    for _ in range(int(seconds / step)):
        clock.advance(step)
        made.append(scaler.tick())
    return made


@pytest.fixture(params=["file", "sql"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A function that opens the log as a new process would."""
    if request.param == "file":
        return lambda: DecisionLog(tmp_path / "decisions.jsonl")
    return lambda: SqlDecisionLog(f"sqlite:///{tmp_path / 'decisions.db'}")


def test_leaps_are_remembered_over_a_restart_and_a_reboot(reopen: Any) -> None:
    clock = FakeClock(time=20_000 * DAY_S)
    with reopen() as log:
        _pass(_scaler(log, clock), clock, 3 * DAY_S)

    rebooted = FakeClock(monotonic=5.0, time=clock.time() + 600)
    with reopen() as log:
        made = _pass(_scaler(log, rebooted), rebooted, 0.55 * DAY_S)
        known = [d for d in made if rebooted.time() and d.at % DAY_S < 43_200 and "leapt before" in d.reason]
        assert known, "replicas are started before the leap"
        assert all(a.observation.at_s < b.observation.at_s for a, b in pairwise(made))  # type: ignore[union-attr]

    with DecisionLog() as empty:
        other = FakeClock(monotonic=5.0, time=clock.time() + 600)
        assert not any("leapt before" in d.reason for d in _pass(_scaler(empty, other), other, 0.49 * DAY_S))


def test_what_was_wanted_lately_still_counts(reopen: Any) -> None:
    clock = FakeClock(time=20_000 * DAY_S + 43_200)
    target = SimulatedTarget(8)
    with reopen() as log:
        up = _pass(_scaler(log, clock, target=target), clock, 600)
    assert any(d.action == "up" for d in up)
    clock.advance(700)  # the leap is over, the scaler was away
    with reopen() as log:
        first = _scaler(log, clock, target=target).tick()
    assert first.observation is not None
    assert first.observation.changes
    assert first.observation.memory["up_s"] <= first.observation.at_s


def test_quiet_hours_are_written_now_and_then(reopen: Any) -> None:
    clock = FakeClock(time=20_000 * DAY_S)
    with reopen() as log:
        _pass(_scaler(log, clock), clock, 6 * 3600.0)
    with reopen() as log:
        last = log.recall("simulated")
    assert last is not None
    assert clock.time() - last.at <= 900 + 60


class _Other:
    """A policy that cannot read what another one remembers."""

    def decide(self, observation: Observation, /) -> Recommendation:
        count = observation.memory.get("count", 0) if set(observation.memory) <= {"count"} else None
        return Recommendation(replicas=3, reason=f"tick {count + 1}", memory={"count": count + 1})  # type: ignore[operator]


def test_another_policys_memory_is_left_with_a_warning(reopen: Any, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock(time=20_000 * DAY_S)
    with reopen() as log:
        _pass(_scaler(log, clock), clock, 3600)
    clock.advance(60)
    with reopen() as log, caplog.at_level(logging.WARNING, "eventperf.scaling"):
        scaler = _scaler(log, clock, _Other())
        assert [scaler.tick().reason, scaler.tick().reason] == ["tick 1", "tick 2"]
    assert "another policy" in caplog.text


def test_a_shadow_does_not_go_on_from_the_live_scaler(reopen: Any) -> None:
    clock = FakeClock(time=20_000 * DAY_S)
    with reopen() as log:
        _pass(_scaler(log, clock), clock, 3600)
        first = _scaler(log, clock, dry_run=True).tick()
        assert first.observation is not None
        assert first.observation.memory == {}
        _pass(_scaler(log, clock, dry_run=True), clock, 3600)
    with reopen() as log:  # the shadow wrote last: the live scaler still finds its own
        for shadow in (False, True):
            again = _scaler(log, clock, dry_run=shadow).tick()
            assert again.observation is not None
            assert again.observation.memory
            found = log.recall("simulated", dry_run=shadow)
            assert found is not None
            assert found.dry_run is shadow


def test_a_leader_that_was_away_goes_on_from_its_successor(tmp_path: Path) -> None:
    clock = FakeClock(time=20_000 * DAY_S)
    logs = [SqlDecisionLog(f"sqlite:///{tmp_path / 'decisions.db'}") for _ in range(2)]
    first, second = (_scaler(log, clock, LatencyPolicy(capacity_rps=40)) for log in logs)
    _pass(first, clock, 1200)
    _pass(second, clock, 7200)
    clock.advance(60)
    again = first.tick()
    assert again.observation is not None
    recent = again.observation.memory["load"]["recent"]
    assert again.observation.at_s - recent[-1][0] < 1000, "from what the second wrote last"
    for log in logs:
        log.close()


def test_a_file_that_was_cut_or_moved_away_is_no_reason_to_fail(tmp_path: Path) -> None:
    path, clock = tmp_path / "decisions.jsonl", FakeClock(time=20_000 * DAY_S)
    with DecisionLog(path) as log:
        _pass(_scaler(log, clock), clock, 3600)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:200])  # kill -9 in the middle of a line
    assert DecisionLog(path).recall("simulated") is not None
    log = DecisionLog(path)
    assert log.recall("nobody") is None
    path.write_bytes(b"")
    assert log.recall("simulated") is None
    assert DecisionLog(tmp_path / "none").recall("simulated") is None


@pytest.mark.parametrize("cut", [1, 2, 20, 200, 2000])
def test_a_record_that_a_crash_cut_costs_no_other(tmp_path: Path, cut: int) -> None:
    path, clock = tmp_path / "log.jsonl", FakeClock()
    _pass(_scaler(DecisionLog(path, steady=True), clock), clock, 3600.0)
    before = path.read_bytes()
    path.write_bytes(before[:-cut])
    first = _scaler(DecisionLog(path, steady=True), clock)
    began = _pass(first, clock, 120.0)
    assert began[0].observation is not None
    assert "load" in began[0].observation.memory, "an older record stands in for the one that was cut"
    again = DecisionLog(path).recall("simulated")
    assert again is not None
    assert again.at == began[-1].at, "what was written after the crash can be read"


def test_a_record_that_nobody_can_read_is_passed_over(tmp_path: Path) -> None:
    path, clock = tmp_path / "log.jsonl", FakeClock()
    good = _pass(_scaler(DecisionLog(path, steady=True), clock), clock, 600.0)
    strange = good[-1].to_json().replace('"observation":{', '"observation":{"of_a_later_version":1,')
    with path.open("a") as file:
        file.write(f"{strange}\n")
    found = DecisionLog(path).recall("simulated")
    assert found is not None
    assert found.at == good[-1].at


def test_a_log_that_cannot_be_read_is_told_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    with caplog.at_level(logging.WARNING, "eventperf.scaling"):
        assert _scaler(DecisionLog(tmp_path), clock).tick().error is None  # a folder
    assert "starting anew" in caplog.text


@given(
    lines=st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 60)), max_size=30),
    block=st.integers(1, 40), cut=st.integers(0, 20),
)  # fmt: skip
@settings(deadline=None)
def test_the_newest_line_of_each_target_is_found_wherever_blocks_of_the_file_end(
    lines: list[tuple[str, bool, int]], block: int, cut: int
) -> None:
    written = [
        f'{{"dry_run":{str(dry).lower()},"pad":"{"x" * pad}","target":"{name}"}}\n'.encode()
        for name, dry, pad in lines
    ]
    with tempfile.TemporaryDirectory() as folder, patch.object(tail, "_BLOCK", block):
        path = Path(folder) / "log"
        path.write_bytes(b"".join(written) + b'{"target":"a'[:cut])
        found = tail.Tail(path)
        for name in "ba":
            for dry in (True, False):
                mine = [w for (n, d, _), w in zip(lines, written, strict=True) if (n, d) == (name, dry)]
                assert found.newest(name, dry) == (mine[-1].rstrip() if mine else None)


def test_a_start_reads_no_more_of_a_long_log_than_of_a_short_one(tmp_path: Path) -> None:
    clock = FakeClock()
    with DecisionLog(tmp_path / "short") as log:
        _pass(_scaler(log, clock), clock, 60)
    line = (tmp_path / "short").read_bytes().splitlines(keepends=True)[-1]
    (tmp_path / "long").write_bytes(line * 20_000)
    read = 0

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            found = super().read(size if size is not None else -1)
            read += len(found)
            return found

    with patch.object(tail, "open", lambda path, mode, **how: Counted(path), create=True):
        assert tail.Tail(tmp_path / "long").newest("simulated", False) == line.rstrip()
    assert 0 < read <= 2 * tail._BLOCK


def _changed(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, inner in inside:
        yield from _changed(inner, (*path, key))


def test_a_record_that_somebody_damaged_is_none_and_stops_no_scaler(tmp_path: Path) -> None:
    """In a shared store others may write: each part of a decision made something else, one by one."""

    def scaler(path: Path) -> AutoScaler:
        rps = CallableMetrics(rps=lambda: 350.0)
        policy = PredictivePolicy(capacity_rps=50)
        return AutoScaler(SimulatedTarget(2, name="t"), rps, policy, max_replicas=9, log=DecisionLog(path))

    good = scaler(tmp_path / "log")
    good.tick()
    good.tick()
    line = (tmp_path / "log").read_text().splitlines()[-1]
    for path in list(_changed(json.loads(line)))[1:]:
        for odd in (None, "x", [], {}, [[1]], True, 10**400, 1e999, "\ud800"):
            data = at = json.loads(line)
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = odd
            text = json.dumps(data, sort_keys=True, separators=(",", ":"))
            (tmp_path / "odd").write_text(f"{text}\n")
            decision = scaler(tmp_path / "odd").tick()
            assert "policy_failed" not in decision.warnings, (path, odd)
            assert decision.explain()
    for text in ("null", "[]", "[" * 100_000, '{"at":1}'):
        with pytest.raises(ValueError, match="no decision"):
            ScalingDecision.from_json(text)
