"""The usual rate by hour: known soon, a week long, small."""

from __future__ import annotations

import sys

import pytest

from eventperf.scaling.policies.forecast.baseline import Baseline

DAY_S = 86400


def week(baseline: Baseline, rate: float, *, days: range, hour: int = 9) -> None:
    for day in days:
        for tick in range(240):
            baseline.add(day * DAY_S + hour * 3600 + tick * 15, rate)


def test_it_is_known_after_ten_samples() -> None:
    baseline = Baseline()
    for tick in range(9):
        baseline.add(tick * 15, 40.0)
    assert baseline.at(200) is None
    baseline.add(9 * 15, 40.0)
    assert baseline.at(200) == 40.0


def test_an_hour_never_seen_takes_the_median_of_all() -> None:
    baseline = Baseline()
    week(baseline, 10.0, days=range(1), hour=3)
    week(baseline, 30.0, days=range(1), hour=9)
    week(baseline, 90.0, days=range(1), hour=15)
    assert [baseline.at(hour * 3600) for hour in (3, 9, 15, 20)] == [10.0, 30.0, 90.0, 30.0]


def test_one_wild_day_does_not_move_it_and_a_new_week_does() -> None:
    baseline = Baseline()
    week(baseline, 50.0, days=range(7))
    week(baseline, 900.0, days=range(7, 8))
    assert baseline.at(8 * DAY_S + 9 * 3600) == 50.0
    week(baseline, 900.0, days=range(8, 13))
    assert baseline.at(13 * DAY_S + 9 * 3600) == 900.0


def test_five_thousand_of_them_fit_in_memory() -> None:
    baseline = Baseline()
    for hour in range(24):
        week(baseline, 50.0, days=range(2), hour=hour)
    size = sum(sys.getsizeof(h) + sys.getsizeof(h.samples) for h in baseline._hours.values())
    assert size < 10_000


def test_a_wall_clock_that_steps_back_does_not_stop_it() -> None:
    baseline = Baseline()
    week(baseline, 50.0, days=range(100, 107))
    week(baseline, 70.0, days=range(14))
    assert baseline.at(9 * 3600) == pytest.approx(70.0)
