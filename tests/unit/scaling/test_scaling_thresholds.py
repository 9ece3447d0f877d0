"""Thresholds, the largest of several policies and the queue behind the latency goal, at their borders."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    Change,
    MaxOf,
    Observation,
    Recommendation,
    Sample,
    TargetState,
    ThresholdPolicy,
)
from eventperf.scaling.policies.queueing import late_share, replicas_about, replicas_for
from eventperf.scaling.policies.thresholds import last_step

STALE = Sample(value=0.1, age_s=121.0)
BUSY = "requests/s per replica are not below 50% of the usual"


def seen(
    replicas: int = 4, *, starting: int = 0, low: int = 1, kept: Any = None, **figures: Any
) -> Observation:
    """What a policy sees; metrics are numbers or samples, the rest are fields of the observation."""
    samples = {
        name: figure if isinstance(figure, Sample) else Sample(value=figure)
        for name in ("cpu", "memory", "rps", "backlog")
        if (figure := figures.pop(name, None)) is not None
    }
    state = TargetState(replicas=replicas, ready=replicas - starting, starting=starting)
    return Observation(
        at_s=1000.0, state=state, min_replicas=low, max_replicas=50, samples=samples,
        memory=kept or {}, **figures,
    )  # fmt: skip


# -- thresholds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "replicas", "metric", "reason"),
    [
        (seen(cpu=0.71), 8, "cpu", "cpu 71% is above 70%"),
        (seen(cpu=0.7), 4, "", "cpu 70% is not below 30%"),
        (seen(memory=0.81), 8, "memory", "memory 81% is above 80%"),
        (seen(memory=0.8), 4, "", "memory 80% is not below 40%"),
        (seen(cpu=0.9, memory=0.9), 8, "cpu", "cpu 90% is above 70%"),
        (seen(cpu=0.1, memory=0.9), 8, "memory", "memory 90% is above 80%"),
        (seen(cpu=0.3), 4, "", "cpu 30% is not below 30%"),
        (seen(cpu=0.29), 2, "", "cpu, memory and request rate are low"),
        (seen(memory=0.4), 4, "", "memory 40% is not below 40%"),
        (seen(memory=0.39), 3, "", "cpu, memory and request rate are low"),
        (seen(cpu=0.1, memory=0.5), 4, "", "memory 50% is not below 40%"),
        (seen(cpu=0.9, starting=2), 4, "cpu", "cpu 90% is above 70%, but 2 replicas are still starting"),
        (seen(cpu=0.1, starting=1), 4, "", "1 replicas are still starting"),
        (seen(1, cpu=0.1), 1, "", "cpu, memory and request rate are low"),
        (seen(7, cpu=0.1), 4, "", "cpu, memory and request rate are low"),
        (seen(rps=10.0), 4, "", "not every metric can be trusted"),
        (seen(cpu=0.9, memory=STALE), 8, "cpu", "cpu 90% is above 70%"),
        (seen(cpu=STALE, memory=0.1), 4, "", "not every metric can be trusted"),
        (seen(cpu=0.1, rps=Sample(error="down")), 4, "", "not every metric can be trusted"),
    ],
)  # fmt: skip
def test_it_doubles_when_hot_and_halves_when_all_is_cold(
    seen: Observation, replicas: int, metric: str, reason: str
) -> None:
    said = ThresholdPolicy().decide(seen)
    assert (said.replicas, said.metric, said.reason) == (replicas, metric, reason)
    assert said.blind == seen.faults()
    assert (said.warnings, said.memory, said.paced) == ({}, {}, False)


@pytest.mark.parametrize(
    ("factor", "up", "down"), [(2.0, 20, 5), (1.5, 15, 7), (1.01, 11, 10), (100.0, 1000, 3)]
)
def test_the_factor_sets_the_step_and_the_load_its_end(factor: float, up: int, down: int) -> None:
    policy = ThresholdPolicy(factor=factor)
    assert policy.decide(seen(10, cpu=0.8)).replicas == up
    assert policy.decide(seen(10, cpu=0.13)).replicas == down, "3 carry 1.3 cores at 70 % with a tenth spare"


@given(st.integers(1, 200), st.floats(0, 0.2999), st.floats(0, 0.3999), st.floats(1.1, 100))
def test_a_step_down_never_makes_it_hot(replicas: int, cpu: float, memory: float, factor: float) -> None:
    after = ThresholdPolicy(factor=factor).decide(seen(replicas, cpu=cpu, memory=memory)).replicas
    assert 1 <= after <= replicas
    assert cpu * replicas / after <= 0.7
    assert memory * replicas / after <= 0.8


@pytest.mark.parametrize(
    ("seen", "replicas", "reason"),
    [
        (seen(0), 1, "nothing runs, load 0"),
        (seen(0, low=3), 3, "nothing runs, load 0"),
        (seen(0, low=0), 0, "nothing runs, load 0"),
        (seen(0, low=0, rps=0.5), 1, "nothing runs, load 0.5"),
        (seen(0, low=0, backlog=2.0), 1, "nothing runs, load 2"),
        (seen(0, low=0, rps=1.0, backlog=2.0, cpu=0.9), 1, "nothing runs, load 3"),
        (seen(0, low=2, rps=9.0), 2, "nothing runs, load 9"),
        (seen(0, low=0, rps=STALE), 0, "nothing runs, load 0"),
    ],
)
def test_from_none_it_starts_as_soon_as_there_is_work(seen: Observation, replicas: int, reason: str) -> None:
    said = ThresholdPolicy().decide(seen)
    assert (said.replicas, said.reason, said.blind) == (replicas, reason, seen.faults())


@pytest.mark.parametrize(
    ("figures", "own", "replicas", "reason"),
    [
        ({"rps": 100.0}, None, 4, "the usual request rate is not known yet"),
        ({"rps": 100.0, "baseline_rps": 50.0}, None, 4, f"25 {BUSY} 50"),
        ({"rps": 99.0, "baseline_rps": 50.0}, None, 2, "cpu, memory and request rate are low"),
        ({"rps": 99.0, "baseline_rps": 50.0}, 40.0, 4, f"24.8 {BUSY} 40"),
        ({"rps": 99.0}, 50.0, 2, "cpu, memory and request rate are low"),
    ],
)  # fmt: skip
def test_a_usual_request_rate_forbids_going_down(
    figures: dict[str, Any], own: float | None, replicas: int, reason: str
) -> None:
    said = ThresholdPolicy(baseline_rps=own).decide(seen(4, cpu=0.1, **figures))
    assert (said.replicas, said.reason) == (replicas, reason)


def step(delta: int, cause: str = "memory", level: float = 0.9) -> tuple[Change, ...]:
    return (Change(at_s=1.0, delta=9), Change(at_s=900.0, delta=delta, cause=cause, level=level))


@pytest.mark.parametrize(
    ("seen", "replicas", "warned"),
    [
        (seen(memory=0.9, changes=step(2)), 4, "memory stayed at 90% after 2 more replicas"),
        (seen(memory=0.855, changes=step(2)), 4, "memory stayed at 86% after 2 more replicas"),
        (seen(memory=0.85, changes=step(2)), 8, ""),
        (seen(memory=0.9, changes=step(2), starting=1), 4, ""),
        (seen(memory=0.9, changes=step(-2)), 8, ""),
        (seen(memory=0.9, changes=step(2, "cpu")), 8, ""),
        (seen(memory=0.8, changes=step(2, level=0.8)), 4, ""),
        (seen(memory=0.81, changes=step(2, level=0.81)), 4, "memory stayed at 81%"),
        (seen(memory=0.9), 8, ""),
        (seen(cpu=0.9, memory=0.9, changes=step(2)), 8, "memory stayed at 90%"),
    ],
)
def test_memory_that_more_replicas_did_not_lower_gets_no_more_and_a_warning(
    seen: Observation, replicas: int, warned: str
) -> None:
    said = ThresholdPolicy().decide(seen)
    assert said.replicas == replicas
    assert set(said.warnings) == ({"memory_not_falling"} if warned else set())
    assert said.warnings.get("memory_not_falling", "").startswith(warned)


def test_the_last_step_is_the_newest_of_them() -> None:
    assert last_step(seen()) is None
    changes = step(3)
    assert last_step(seen(changes=changes)) is changes[-1]


@pytest.mark.parametrize(
    ("wrong", "argument", "allowed"),
    [
        ({"cpu_high": 70}, "cpu_high", "a share, so that 0.7 is 70 %"),
        ({"rate_low": 50.0}, "rate_low", "a share, so that 0.5 is 50 %"),
        ({"memory_low": 0}, "memory_low", "a number above 0 and at most 10"),
        ({"cpu_low": True}, "cpu_low", "a number above 0 and at most 10"),
        ({"memory_high": "80%"}, "memory_high", "a number above 0 and at most 10"),
        ({"cpu_low": 0.7}, "cpu_low", "less than cpu_high, which is 0.7"),
        ({"memory_high": 0.3}, "memory_low", "less than memory_high, which is 0.3"),
        ({"factor": 1}, "factor", "a number above 1 and at most 100"),
        ({"factor": 101}, "factor", "a number above 1 and at most 100"),
        ({"baseline_rps": 0}, "baseline_rps", "a number above 0 and at most inf"),
    ],
)
def test_a_wrong_threshold_is_refused_in_words(wrong: dict[str, Any], argument: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ThresholdPolicy(**wrong)
    assert (caught.value.argument, caught.value.allowed) == (argument, allowed)
    assert caught.value.given in wrong.values() or caught.value.given == 0.4


def test_marks_of_several_requests_are_good() -> None:
    assert ThresholdPolicy(cpu_high=10, cpu_low=9.9, factor=100, baseline_rps=1e9).cpu_high == 10


# -- the largest of several --------------------------------------------------------------------------------


class Says:
    """A policy that answers the same each time and keeps what it saw."""

    def __init__(self, replicas: int, **more: Any) -> None:
        self.answer = Recommendation(replicas=replicas, reason=f"says {replicas}", **more)
        self.memories = list[Any]()

    def decide(self, observation: Observation, /) -> Recommendation:
        self.memories.append(dict(observation.memory))
        return self.answer

    def __repr__(self) -> str:
        return f"Says({self.answer.replicas})"


def test_the_largest_wish_counts_with_its_reason_and_metric() -> None:
    policy = MaxOf(Says(3, metric="cpu"), Says(7, metric="rps"), Says(5))
    said = policy.decide(seen())
    assert (said.replicas, said.metric, said.reason) == (7, "rps", "says 7")
    assert repr(policy) == "MaxOf(Says(3), Says(7), Says(5))"


@pytest.mark.parametrize(("wish", "replicas"), [(3, 4), (4, 4), (6, 6)])
def test_while_one_is_blind_nothing_goes_down(wish: int, replicas: int) -> None:
    blind = Says(1, blind={"cpu": "stale"}, warnings={"a": "first"})
    said = MaxOf(blind, Says(wish, blind={"rps": "down"}, warnings={"b": "second"})).decide(seen(4))
    assert said.replicas == replicas
    assert said.blind == {"cpu": "stale", "rps": "down"}
    assert said.warnings == {"a": "first", "b": "second"}
    assert said.reason == ("not every metric can be trusted" if wish == 3 else f"says {wish}")
    assert MaxOf(Says(1), Says(3)).decide(seen(4)).replicas == 3


def test_each_has_a_memory_of_its_own_and_both_must_pace_themselves() -> None:
    first, second, plain = Says(1, memory={"n": 1}, paced=True), Says(2, memory={"n": 2}), Says(0)
    policy = MaxOf(first, second, plain)
    said = policy.decide(seen())
    assert said.memory == {"0": {"n": 1}, "1": {"n": 2}}
    assert not said.paced
    policy.decide(seen(kept=said.memory))
    assert (first.memories, second.memories, plain.memories) == ([{}, {"n": 1}], [{}, {"n": 2}], [{}, {}])
    assert MaxOf(first, Says(2, paced=True)).decide(seen()).paced


@pytest.mark.parametrize("wrong", [(), (1,), (ThresholdPolicy(), None)])
def test_only_policies_can_be_compared(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MaxOf(*wrong)
    assert (caught.value.argument, caught.value.given) == ("policies", wrong)
    assert caught.value.allowed == "one or more policies"


# -- the queue behind the latency goal ---------------------------------------------------------------------


def test_who_waits_too_long_by_hand() -> None:
    """Halfin and Whitt's formula with the normal distribution of the standard library."""
    from statistics import NormalDist

    normal = NormalDist()
    for rate, capacity, servers, wait_s in ((90, 100, 10, 0.4), (70, 80, 4, 0.1), (99, 100, 50, 1.0)):
        beta = (1 - rate / capacity) * math.sqrt(servers)
        delayed = 1 / (1 + beta * normal.cdf(beta) / normal.pdf(beta))
        expected = delayed * math.exp(-(capacity - rate) * wait_s)
        assert late_share(rate, capacity, servers, wait_s) == pytest.approx(expected)


def test_full_is_late_and_far_from_full_is_not() -> None:
    assert late_share(100, 100, 10, 0.4) == 1.0
    assert late_share(101, 100, 10, 0.4) == 1.0
    assert late_share(0, 100, 40, 0.0) == 0.0, "more than six deviations off"
    assert late_share(0, 100, 36, 0.0) > 0.0
    assert late_share(50, 100, 1, 0.25) == 0.0, "a wait of more than twelve times the usual"
    assert late_share(50, 100, 1, 0.24) > 0.0


@given(st.floats(0.1, 5000), st.integers(1, 8), st.floats(0.05, 1), st.floats(0.0001, 0.2))
def test_the_fewest_replicas_keep_the_goal(rate: float, slots: int, wait_s: float, share: float) -> None:
    capacity = 40.0
    number = replicas_for(rate, capacity_rps=capacity, concurrency=slots, wait_s=wait_s, share=share)
    assert late_share(rate, number * capacity, number * slots, wait_s) <= share
    if number > 1:
        assert late_share(rate, (number - 1) * capacity, (number - 1) * slots, wait_s) > share
    about = replicas_about(rate, capacity, slots, wait_s, share)
    rounded = math.ceil(64 * rate / capacity) * capacity / 64
    assert about == replicas_for(
        rounded, capacity_rps=capacity, concurrency=slots, wait_s=wait_s, share=share
    )
    assert about >= number


def test_no_load_needs_one_replica() -> None:
    assert replicas_for(0, capacity_rps=40, concurrency=4, wait_s=0.4, share=0.001) == 1
