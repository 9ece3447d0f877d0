"""Target tracking and behavior, case by case as the HPA documents them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    Behavior,
    Change,
    Observation,
    PodSample,
    RatePolicy,
    Rules,
    Sample,
    TargetState,
    TargetTracking,
    Tolerance,
)
from eventperf.scaling.behavior import HPA_UP
from eventperf.scaling.policies.tracking import (
    average_value_replicas,
    combine,
    pods_metric_replicas,
    total_value_replicas,
    utilization_replicas,
)

TEN_PERCENT = Tolerance()


def pods(
    *usages: int | None, request: int | None = 1000, unready: int = 0, pending: int = 0
) -> list[PodSample]:
    return [
        *(PodSample(usage=u, request=request) for u in usages),
        *(PodSample(usage=900, request=request, ready=False) for _ in range(unready)),
        *(PodSample(usage=None, request=request, pending=True) for _ in range(pending)),
    ]


@pytest.mark.parametrize(
    ("current", "found", "target", "wanted"),
    [
        (3, pods(300, 500, 700), 30, 5),  # plain scale-up
        (3, pods(300, 500, 700, unready=0)[:3], 60, 3),  # 50 % of 60 %: ceil(0.833 * 3)
        (3, pods(500, 700, pending=1), 30, 4),  # a starting pod counts as idle
        (3, pods(400, unready=2), 30, 3),  # unready ones take the wind out of the scale-up
        (5, pods(100, 300, 500, 250, 250), 50, 3),  # plain scale-down
        (3, pods(1010, 1030, 1020), 100, 3),  # inside tolerance
        (3, pods(1130, 1130, 1130), 100, 4),  # outside
        (4, pods(100, 200, 300, None), 50, 4),  # missing counts 100 %: 40 % of 50 %, four pods
        (2, pods(500, None), 100, 2),  # missing: no scale-down below what 100 % allows
        (2, pods(2000, None), 100, 2),  # missing counts 0 on the way up: 100 % exactly
        (2, pods(200, None), 200, 2),  # target above 100 %: missing counts the target
        (3, pods(300, 300, pending=1), 100, 1),  # going down, starting pods are set aside
    ],
)
def test_utilization_cases(current: int, found: list[PodSample], target: int, wanted: int) -> None:
    assert utilization_replicas(current, found, target, TEN_PERCENT).replicas == wanted


def test_ratio_comes_from_truncated_percent() -> None:
    # 719 of 1000 is 71 %, and 71/65 = 1.092 is inside the tolerance; 0.719/0.65 = 1.106 would not be.
    assert utilization_replicas(10, pods(*[719] * 10), 65, TEN_PERCENT).replicas == 10


@pytest.mark.parametrize("found", [pods(None, None), pods(300, request=None), pods(unready=2)])
def test_utilization_without_ground_is_an_error(found: list[PodSample]) -> None:
    answer = utilization_replicas(2, found, 50, TEN_PERCENT)
    assert answer.replicas is None
    assert answer.text


def test_deleted_pods_are_left_out() -> None:
    found = [*pods(900, 900), PodSample(usage=0, request=1000, deleting=True)]
    assert utilization_replicas(2, found, 45, TEN_PERCENT).replicas == 4


def test_pods_metric_counts_unready_pods_that_report() -> None:
    found = [PodSample(usage=20_000), PodSample(usage=20_000, ready=False)]
    assert pods_metric_replicas(2, found, 10_000, TEN_PERCENT).replicas == 4


def test_values_from_zero() -> None:
    assert total_value_replicas(0, 0, 250, 100, TEN_PERCENT) == 3
    assert average_value_replicas(0, 250, 100, TEN_PERCENT) == 3


def test_one_broken_metric_forbids_going_down_but_not_up() -> None:
    assert combine(5, [2, None]) == 5
    assert combine(5, [9, None]) == 9
    assert combine(5, [None, None]) == 5


@given(
    current=st.integers(1, 50),
    usages=st.lists(st.one_of(st.none(), st.integers(0, 3000)), min_size=1, max_size=20),
    target=st.integers(1, 200),
)
def test_missing_pods_never_turn_the_direction(current: int, usages: list[int | None], target: int) -> None:
    known = [u for u in usages if u is not None]
    answer = utilization_replicas(len(usages), pods(*usages), target, TEN_PERCENT).replicas
    if not known:
        assert answer is None
        return
    percent = sum(known) * 100 // (1000 * len(known))
    assert answer is not None
    if percent / target > 1:
        assert answer >= len(usages) or not usages.count(None)
    if percent / target < 1:
        assert answer <= max(len(usages), math.ceil(len(known) * percent / target))


def seen(current: int, *, now: float = 1000.0, low: int = 1, high: int = 100, **more: object) -> Observation:
    return Observation(
        at_s=now, state=TargetState(replicas=current, ready=current), min_replicas=low, max_replicas=high,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("current", "wanted", "changes", "after"),
    [
        (10, 100, (), 20),  # 100 % beats 4 pods
        (2, 100, (), 6),  # 4 pods beat 100 %
        (20, 100, ((990.0, 10),), 20),  # the last 15 s used the allowance up
        (20, 100, ((980.0, 10),), 40),  # older changes do not count
        (20, 100, ((995.0, 10), (996.0, -5)), 30),  # net of the opposite: began at 15
    ],
)
def test_scale_up_rate_of_an_hpa_with_behavior(
    current: int, wanted: int, changes: tuple[tuple[float, int], ...], after: int
) -> None:
    history = tuple(Change(at_s=t, delta=d) for t, d in changes)
    for behavior in (Behavior(up=HPA_UP), Behavior(down=Rules()), Behavior(tolerance=Tolerance(up=0.2))):
        assert behavior.apply(wanted, seen(current, changes=history))[0] == after


@pytest.mark.parametrize(
    ("current", "wanted", "after"),
    [(0, 100, 4), (1, 100, 4), (2, 100, 4), (3, 100, 6), (4, 100, 8), (9, 25, 18), (20, 100, 40), (2, 6, 6)],
)
def test_scale_up_rate_of_an_hpa_without_behavior(current: int, wanted: int, after: int) -> None:
    assert Behavior().apply(wanted, seen(current, low=0, high=100))[0] == after


def test_a_cooldown_counts_from_the_newest_of_several_steps() -> None:
    calm = Behavior(down=Rules(cooldown=60), up=Rules(cooldown=60))
    two = (Change(at_s=900.0, delta=-2), Change(at_s=960.0, delta=-1))
    assert calm.apply(3, seen(5, changes=two))[0] == 5
    two = (Change(at_s=900.0, delta=2), Change(at_s=960.0, delta=1))
    assert calm.apply(9, seen(5, changes=two))[0] == 5
    over = (Change(at_s=900.0, delta=2), Change(at_s=939.0, delta=1))
    assert calm.apply(9, seen(5, changes=over))[0] == 9


def test_going_down_takes_the_largest_recommendation_of_the_window() -> None:
    past = ((750.0, 8), (600.0, 15))
    number, limits = Behavior().apply(3, seen(10, recommendations=past))
    assert (number, limits) == (8, (("stabilisation window", 8),))


def test_going_up_takes_the_smallest_recommendation_of_its_window() -> None:
    slow = Behavior(up=Rules(window=60, policies=(RatePolicy(type="pods", value=50),)))
    assert slow.apply(20, seen(10, recommendations=((950.0, 12),)))[0] == 12


@pytest.mark.parametrize(("select", "after"), [("max", 5), ("min", 8), ("disabled", 10)])
def test_scale_down_policies_are_selected(select: str, after: int) -> None:
    two = (RatePolicy(type="pods", value=2, period=60), RatePolicy(type="percent", value=50, period=60))
    quick = Behavior(down=Rules(policies=two, select=select))  # type: ignore[arg-type]
    assert quick.apply(1, seen(10))[0] == after


def test_limits_are_named() -> None:
    number, limits = Behavior().apply(50, seen(10, high=14))
    assert number == 14
    assert limits == (("max 14", 14),)
    assert Behavior().apply(9, seen(20, high=14)) == (14, (("max 14", 14),))
    assert Behavior().apply(0, seen(0, low=2))[0] == 2


def test_cooldown_holds_only_its_own_direction() -> None:
    calm = Behavior(down=Rules(cooldown=60), up=Rules())
    history = (Change(at_s=970.0, delta=-2),)
    assert calm.apply(3, seen(5, changes=history))[0] == 5
    assert calm.apply(9, seen(5, changes=history))[0] == 9


@given(
    current=st.integers(0, 60),
    wanted=st.integers(0, 200),
    past=st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 100)), max_size=8),
    deltas=st.lists(st.tuples(st.floats(900, 1000), st.integers(-20, 20)), max_size=6),
)
def test_behavior_never_leaves_the_limits_nor_turns_round(
    current: int, wanted: int, past: list[tuple[float, int]], deltas: list[tuple[float, int]]
) -> None:
    history = tuple(Change(at_s=t, delta=d) for t, d in deltas)
    observation = seen(current, low=2, high=50, recommendations=tuple(past), changes=history)
    number, _ = Behavior().apply(wanted, observation)
    assert 2 <= number <= 50 or number == current
    highest = max([wanted, *(n for _, n in past)])
    if 2 <= current <= 50 and highest < current:
        assert number <= current


def test_missing_metric_of_two_holds() -> None:
    samples = {"cpu": Sample(value=0.1), "rps": Sample(error="no answer")}
    wish = TargetTracking(cpu=0.7, rps=50).decide(seen(6, samples=samples))
    assert wish.replicas == 6
    assert wish.blind == {"rps": "no answer"}


@pytest.mark.parametrize(
    "wrong", [{}, {"cpu": 0}, {"cpu": 70}, {"rps": -1}, {"rps": math.inf}, {"cpu": True}]
)
def test_targets_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        TargetTracking(**wrong)
