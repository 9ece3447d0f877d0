"""One odd reading moves little; leaps of any size are learned; shapes from the first event on, and anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf.scaling import (
    AutoScaler,
    CalendarEvent,
    CalendarPolicy,
    CallableMetrics,
    LatencyPolicy,
    PodModel,
    PredictivePolicy,
    SimulatedTarget,
    Trace,
    backtest,
)
from eventperf.scaling.policies.forecast import seasons, shapes
from eventperf.testing import FakeClock

DAY, NINE = 86_400, 9 * 3600
POLICIES = [LatencyPolicy, PredictivePolicy, CalendarPolicy]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("factor", [0.0, 3.0, 10.0, 100.0, 1e6])
@pytest.mark.parametrize("every", [33, 40])
def test_a_single_odd_reading_starts_nothing_that_steady_load_does_not_need(
    policy: type[LatencyPolicy], factor: float, every: int
) -> None:
    clock, target, count = FakeClock(), SimulatedTarget(12), 0

    def rps() -> float:
        nonlocal count
        count += 1
        return 400.0 * (factor if count % every == 0 else 1.0)

    scaler = AutoScaler(
        target,
        CallableMetrics(rps=rps),
        policy(capacity_rps=40),
        min_replicas=2,
        max_replicas=200,
        clock=clock,
    )
    seen = []
    for _ in range(300):
        scaler.tick()
        clock.advance(15)
        seen.append(target.read().replicas)
    assert max(seen[100:]) <= 30, "12 carry the load"
    assert min(seen[100:]) >= 10


def daily(leap: float, days: int, *, ramp: float = 0.0) -> Trace:
    rates = []
    for step in range(days * DAY // 60):
        since = (step * 60) % DAY - NINE
        rates.append(100.0 + (leap * 0.95 ** (since / 60) if 0 <= since < 3600 else 0.0))
    return Trace(tuple(rates), 60.0)


@pytest.mark.parametrize("leap", [150.0, 1500.0, 6000.0])
@pytest.mark.parametrize("policy", [PredictivePolicy, CalendarPolicy])
def test_a_leap_of_any_size_is_ready_for_on_the_fourth_day(policy: type[LatencyPolicy], leap: float) -> None:
    events = [CalendarEvent(at=day * DAY + NINE, kind="opening", expected=1000) for day in range(4)]
    score = backtest(
        policy(window=60), daily(leap, 4), pod=PodModel(lag=5), min_replicas=2, max_replicas=1000,
        calendar=events if policy is CalendarPolicy else None, compare=False,
    ).score  # fmt: skip
    needed, ready = (100.0 + leap) / 40.0, score.replicas[(3 * DAY + NINE) // 60]
    assert 0.95 * needed <= ready <= 2.2 * needed + 4


def learned(samples: list[tuple[float, float]], start: dict[str, Any] | None = None) -> dict[str, Any]:
    """Learn from (persons, requests per second for each) of one event after the other, on a load of 100."""
    known = dict(start or {})
    for size, each in samples:
        found = [["open|0", size], [shapes.EVERY, 100.0]]
        known = shapes.learn(known, found, 100.0, each * size, shapes.explained(known, found))
    return known


@settings(max_examples=60, deadline=None)
@given(each=st.floats(0.05, 20.0), size=st.floats(200, 20_000))
def test_one_event_is_a_sample_and_the_count_a_feature(each: float, size: float) -> None:
    known = learned([(size, each)])
    twice = [["open|0", 2.0 * size]]
    assert shapes.explained(known, twice) == pytest.approx(2.0 * each * size, rel=0.05)


def test_a_single_strange_event_moves_little_and_a_changed_site_is_learned_anew() -> None:
    usual = learned([(1000.0, 1.0)] * 8)
    strange = learned([(1000.0, 15.0)], usual)
    assert strange["open|0"][0] < 1.5
    assert learned([(1000.0, 15.0)] * 2, usual)["open|0"][0] == pytest.approx(15.0, rel=0.1)
    assert learned([(1000.0, 0.2)] * 3, usual)["open|0"][0] < 0.6


def test_exact_counts_make_it_sure_and_wrong_ones_unsure() -> None:
    found = [["open|0", 1000.0]]
    known, sure, unsure = learned([(1000.0, 1.0)] * 3), {}, {}
    for i in range(20):
        sure = dict(shapes.learn_doubt(sure, known, found, 100.0, 1000.0, 1000.0))
        unsure = dict(
            shapes.learn_doubt(unsure, known, found, 100.0, 1000.0 * (0.5, 1.0, 2.0)[i % 3], 1000.0)
        )
    new, few, many = (shapes.surplus(d, known, found, 0.985) for d in ({}, sure, unsure))
    assert 1.0 < few < 1.35 < new < many


def test_the_second_event_of_a_kind_is_less_sure_than_the_tenth() -> None:
    found = [["open|0", 1000.0]]
    few, many = (shapes.surplus({}, learned([(1000.0, 1.0)] * n), found, 0.985) for n in (1, 10))
    assert 1.0 < many < few
    assert few == pytest.approx(math.exp(2.17 * 0.3 * math.sqrt(2.0)), rel=0.1), "sigma 0.3 there and here"


def test_the_count_of_the_first_event_is_no_truer_than_that_of_the_second() -> None:
    """Both were off by as much, one up and one down: what is learned lies about in the middle."""
    assert 1.0 < learned([(1000.0, 1.35), (1000.0, 0.75)])["open|0"][0] < 1.1


@given(each=st.floats(0.05, 20.0), size=st.floats(200, 20_000), share=st.floats(0.5, 10.0))
def test_what_a_person_brings_is_not_mixed_with_a_share_of_the_load(
    each: float, size: float, share: float
) -> None:
    """Entries of one kind, with a count and without: each is learned for itself."""
    counted = [CalendarEvent(at=0.0, kind="open", expected=size)]
    plain = [CalendarEvent(at=0.0, kind="open")]

    def after(known: dict[str, Any], events: list[CalendarEvent], leap: float) -> dict[str, Any]:
        found = shapes.features(0, 100.0, events)
        return shapes.learn(known, found, 100.0, leap, shapes.explained(known, found))

    known = after(after({}, counted, each * size), plain, share * 100.0)
    for events, leap in ((counted, each * size), (plain, share * 100.0)):
        said = shapes.explained(known, shapes.features(0, 100.0, events))
        assert said == pytest.approx(leap, rel=0.15, abs=20.0)


def leapt(*days: int) -> dict[str, Any]:
    return {"108": [[day, 5.0] for day in days]}


@pytest.mark.parametrize("safety", [0.9, 0.985, 0.999])
def test_what_came_on_each_of_three_days_is_reserved_for_at_any_safety(safety: float) -> None:
    quantile = seasons.reserved_quantile(1.0 - safety)
    assert seasons.leap_quantile(leapt(0, 1, 2), 3 * 288 + 108, 0, quantile) == 5.0


def test_what_came_on_one_day_of_four_is_not_worth_a_reserve() -> None:
    """It would stand for ten minutes each day to save one."""
    quantile = seasons.reserved_quantile(0.015)
    assert seasons.leap_quantile(leapt(3, 7), 8 * 288 + 108, 0, quantile) == 0.0
