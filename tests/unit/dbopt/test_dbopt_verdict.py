"""Whether a new index stays, when the machine is busy: a run is only ever disturbed into a longer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf.dbopt import DatabaseOptimizer, Workload
from eventperf.dbopt.changes.verdict import Compared, calmer, differs, is_slower, judge, undecided
from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.statements.workload import Sample

LIMITS = Limits()
times = st.floats(1e-5, 5.0)
disturbances = st.floats(0.0, 20.0)
runs = st.lists(st.floats(1e-5, 5.0), min_size=1, max_size=7)


def measured(found: Sequence[float], *indexes: str) -> Measurement:
    return Measurement.of([found], "by index" if indexes else "scan", frozenset(indexes), False)


def compared(before: Sequence[float], after: Sequence[float], name: str = "q", calls: int = 3) -> Compared:
    return Compared(fingerprint=name, calls=calls, before=measured(before), after=measured(after, "ix"))


@given(times, st.floats(1.2, 100.0), disturbances, st.integers(0, 4), st.booleans())
def test_a_real_gain_with_a_disturbed_run_on_either_side_is_kept(
    fast: float, ratio: float, more: float, which: int, is_before: bool
) -> None:
    before, after = [fast * ratio] * 5, [fast] * 5
    (before if is_before else after)[which] += more
    verdict = judge("ix", [compared(before, after)], LIMITS)
    assert verdict.keep, verdict.reason


@given(times, st.floats(1.2, 100.0), st.lists(disturbances, min_size=4, max_size=4))
def test_a_gain_is_kept_however_all_but_one_run_of_the_slow_form_were_disturbed(
    fast: float, ratio: float, more: list[float]
) -> None:
    before = [fast * ratio, *(fast * ratio + m for m in more)]
    assert judge("ix", [compared(before, [fast] * 5)], LIMITS).keep


@given(runs, runs)
def test_a_gain_within_noise_is_called_noise(before: list[float], after: list[float]) -> None:
    one = compared(before, after)
    verdict = judge("ix", [one], LIMITS)
    fast, slow = (before, after) if one.speedup < 1 else (after, before)
    if min(slow) < sorted(fast)[len(fast) // 2] * (1 - 1e-9):
        assert verdict.reason.startswith("too noisy to judge")
        assert (verdict.keep, verdict.speedup) == (False, None)
        assert undecided("ix", [one]) == ["q"]
    elif min(slow) > sorted(fast)[len(fast) // 2] * (1 + 1e-9):
        assert "noisy" not in verdict.reason
        assert undecided("ix", [one]) == []


@given(runs, runs)
def test_a_slow_down_within_noise_does_not_revert(before: list[float], after: list[float]) -> None:
    gain = compared([9.0] * 5, [1.0] * 5, "gains", calls=1)
    other = compared(before, after, "other", calls=1)
    if min(after) < sorted(before)[len(before) // 2]:
        assert not is_slower(other, LIMITS)
        verdict = judge("ix", [gain, other], LIMITS)
        assert "slower" not in verdict.reason or verdict.speedup is None or verdict.speedup < 1


def test_a_slow_down_beyond_noise_reverts() -> None:
    gain = compared([1.0] * 5, [0.5] * 5, "gains", calls=1)
    loss = compared([0.1, 0.1, 0.1, 0.1, 3.0], [0.4] * 5, "loses", calls=1)
    assert judge("ix", [gain], LIMITS).keep
    verdict = judge("ix", [gain, loss], LIMITS)
    assert (verdict.keep, verdict.reason) == (False, "query loses became 4.0x slower")
    disturbed = replace(loss, before=measured([0.1, 0.5, 0.6, 0.1, 0.7]))
    assert judge("ix", [gain, disturbed], LIMITS).keep


def test_what_noise_hides_is_said_with_the_figures_it_rests_on() -> None:
    verdict = judge("ix", [compared([0.0008] * 5, [0.0005, 0.0005, 0.0009, 0.0009, 0.0009])], LIMITS)
    assert verdict.reason == (
        "too noisy to judge: 800us before, 500us after, and repeats of the faster one differ by 400us; "
        "it was not shown to help"
    )


@given(runs, runs, runs)
def test_a_further_round_never_adds_noise(
    before: list[float], after: list[float], again: list[float]
) -> None:
    first, second = measured(after, "ix"), measured(again, "ix")
    both = calmer(first, second)
    assert both.seconds == min(first.seconds, second.seconds)
    assert both.spread >= 0
    assert both.seconds + both.spread <= min(m.seconds + m.spread for m in (first, second)) + 1e-9
    assert both.runs == len(after) + len(again)
    if min(before) > max(min(after), min(again)) and differs(measured(before), second):
        assert differs(measured(before), both)


def test_only_queries_whose_order_is_open_run_again() -> None:
    noisy = compared([1.0] * 5, [0.5, 0.5, 6.0, 6.0, 6.0], "noisy", calls=1)
    for gains, expected in ((9.0, []), (1.0, ["noisy"])):
        clear = compared([gains] * 5, [0.1] * 5, "clear", calls=1)
        assert undecided("ix", [clear, noisy]) == expected
        assert undecided("other", [clear, noisy]) == []


@pytest.mark.parametrize(("calm_round", "keep"), [(2, True), (3, True), (99, False)])
def test_apply_runs_again_what_noise_hides_and_gives_up_after_a_few_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm_round: int, keep: bool
) -> None:
    with sqlite3.connect(tmp_path / "app.db") as db:
        db.execute("CREATE TABLE visit (id INTEGER PRIMARY KEY, page INT NOT NULL, at INT NOT NULL)")
        rows = [(n % 300, n) for n in range(9000)]
        db.executemany("INSERT INTO visit (page, at) VALUES (?, ?)", rows)
    load = Workload.from_sql("-- calls: 500\nSELECT at FROM visit WHERE page = 7 ORDER BY at", "sqlite")
    with DatabaseOptimizer(f"sqlite:///{tmp_path / 'app.db'}") as optimizer:
        advice = optimizer.advise(load)
        real, after = optimizer.dialect.measure, 0

        def busy(samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
            nonlocal after
            found = real(samples, runs=runs, timeout_s=timeout_s)
            assert found is not None
            if not found.indexes:
                return replace(found, seconds=0.4, spread=0.0)
            after += 1
            return replace(found, seconds=0.2, spread=0.0 if after >= calm_round else 0.3)

        monkeypatch.setattr(optimizer.dialect, "measure", busy)
        report = optimizer.apply(advice, dry_run=False)
        assert [bool(report.created), bool(report.reverted)] == [keep, not keep]
        assert after == min(calm_round, 4)
