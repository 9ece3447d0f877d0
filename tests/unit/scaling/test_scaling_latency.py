"""LatencyPolicy: sizes, learning, blindness, and that its records replay."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import (
    AutoScaler,
    Behavior,
    CallableMetrics,
    LatencyPolicy,
    MaxOf,
    Observation,
    Sample,
    ScalingDecision,
    SimulatedTarget,
    TargetState,
    TargetTracking,
    decide,
)
from eventperf.scaling.policies.latency import Reserve, late_share, replicas_for
from eventperf.testing import FakeClock


def seen(at_s: float, rps: float, *, replicas: int, cpu: float | None = None, **more: object) -> Observation:
    samples = {"rps": Sample(value=rps, age_s=30.0)}
    if cpu is not None:
        samples["cpu"] = Sample(value=cpu, age_s=30.0)
    state = TargetState(replicas=replicas, ready=replicas)
    return Observation(
        at_s=at_s,
        state=state,
        min_replicas=1,
        max_replicas=400,
        samples=samples,
        **more,  # type: ignore[arg-type]
    )


def erlang_late(rate: float, each: float, servers: int, wait_s: float) -> float:
    """The exact M/M/c answer, by the recursion of Erlang B."""
    offered, blocked = rate / each, 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    delayed = blocked / (1 - offered / servers * (1 - blocked))
    return delayed * math.exp(-(servers * each - rate) * wait_s)


@pytest.mark.parametrize("servers", [20, 100, 400])
@pytest.mark.parametrize("load", [0.8, 0.9, 0.97])
def test_the_approximation_is_close_to_the_exact_queue(servers: int, load: float) -> None:
    rate = servers * 10.0 * load
    exact = erlang_late(rate, 10.0, servers, 0.1)
    assert late_share(rate, servers * 10.0, servers, 0.1) == pytest.approx(exact, rel=0.25, abs=1e-4)


@pytest.mark.parametrize("rate", [1.0, 39.0, 400.0, 4000.0])
def test_one_replica_less_would_break_the_goal(rate: float) -> None:
    n = replicas_for(rate, capacity_rps=40, concurrency=4, wait_s=0.4, share=0.001)
    assert late_share(rate, n * 40, n * 4, 0.4) <= 0.001
    assert n == 1 or late_share(rate, (n - 1) * 40, (n - 1) * 4, 0.4) > 0.001


def test_capacity_is_learned_from_cpu_and_rate() -> None:
    policy, memory = LatencyPolicy(), {}
    wishes = []
    for tick in range(60):
        wish = policy.decide(seen(tick * 15.0, 200.0, replicas=10, cpu=0.5, memory=memory))
        memory = dict(wish.memory)
        wishes.append(wish.replicas)
    assert memory["capacity"] == pytest.approx(40.0)
    assert set(wishes[:40]) == {10}, "ten minutes are watched before anything goes down"
    assert 5 < wish.replicas < 10


@pytest.mark.parametrize("factor", [0.01, 3.0, 8.0, 100.0])
@pytest.mark.parametrize("metric", ["rps", "cpu"])
@pytest.mark.parametrize("odd", [0, 1, 4, 40])
def test_one_odd_reading_hardly_moves_what_was_learned(metric: str, factor: float, odd: int) -> None:
    policy, memory = LatencyPolicy(), {}
    for tick in range(42):
        rps, cpu = 200.0, 0.5
        if tick == odd:
            rps, cpu = (rps * factor, cpu) if metric == "rps" else (rps, min(cpu * factor, 0.95))
        wish = policy.decide(seen(tick * 15.0, rps, replicas=10, cpu=cpu, memory=memory))
        memory = dict(wish.memory)
    assert memory["capacity"] == pytest.approx(40.0, rel=0.06)


def test_what_one_replica_can_carry_is_learned_anew_when_it_changes() -> None:
    policy, memory = LatencyPolicy(), {}
    for tick in range(240):
        cpu = 0.9 if tick < 40 else 0.3
        wish = policy.decide(seen(tick * 15.0, 200.0, replicas=10, cpu=cpu, memory=memory))
        memory = dict(wish.memory)
    assert memory["capacity"] == pytest.approx(200 / 3, rel=0.01)
    assert "first" not in memory


def test_before_it_has_learned_it_only_goes_up() -> None:
    assert LatencyPolicy().decide(seen(0.0, 10.0, replicas=8)).replicas == 8
    assert LatencyPolicy().decide(seen(0.0, 900.0, replicas=8, cpu=1.0)).replicas == 12


def test_a_rise_is_met_before_it_is_there() -> None:
    policy, memory = LatencyPolicy(capacity_rps=40), {}
    for tick in range(6):
        wish = policy.decide(seen(tick * 15.0, 400.0 + 100.0 * tick, replicas=20, memory=memory))
        memory = dict(wish.memory)
    assert wish.replicas * 40 > 1200  # 900/s now


@pytest.mark.parametrize("bad", [math.nan, -1.0, None])
def test_without_the_load_nothing_moves_and_it_says_so(bad: float | None) -> None:
    observation = Observation(
        at_s=0.0, state=TargetState(replicas=7, ready=7), min_replicas=1, max_replicas=9,
        samples={"rps": Sample(value=bad)},
    )  # fmt: skip
    decision = decide(observation, LatencyPolicy(capacity_rps=40), Behavior(), at=0.0, target="x")
    assert decision.after == 7
    assert "rps" in decision.blind


def test_a_record_replays_bit_for_bit_with_what_was_learned() -> None:
    clock, rate = FakeClock(), [300.0]
    metrics = CallableMetrics(rps=lambda: rate[0], cpu=lambda: 0.6)
    target = SimulatedTarget(4, startup="30s", clock=clock)
    policy = MaxOf(LatencyPolicy(), TargetTracking(rps=60))
    scaler = AutoScaler(target, metrics, policy, max_replicas=50, clock=clock)
    for tick in range(40):
        rate[0] = 300.0 + 37.0 * (tick % 9)
        decision = scaler.tick()
        again = ScalingDecision.from_json(decision.to_json())
        assert scaler.replay(again).to_json() == decision.to_json()
        clock.advance(15)
    assert sum(decision.memory["0"]["load"]["errors"]) > 0
    assert decision.forecast is not None, "of the policy that foresees"


@pytest.mark.parametrize(
    ("argument", "given", "allowed"),
    [
        ("wait", -1, "a positive number of seconds"),
        ("wait", 0, "a positive number of seconds"),
        ("startup", -1, "zero or a positive number of seconds"),
        ("window", -1, "zero or a positive number of seconds"),
        ("drain", 0, "a positive number of seconds"),
        ("share", 0, "a number between 0 and 1"),
        ("share", 1, "a number between 0 and 1"),
        ("share", "0.1", "a number between 0 and 1"),
        ("safety", True, "a number between 0 and 1"),
        ("safety", 1.5, "a number between 0 and 1"),
        ("concurrency", 0, "a whole number from 1"),
        ("concurrency", True, "a whole number from 1"),
        ("concurrency", 1.0, "a whole number from 1"),
        ("capacity_rps", -4.0, "a number above 0, or None to learn it"),
        ("capacity_rps", 0, "a number above 0, or None to learn it"),
        ("capacity_rps", math.inf, "a number above 0, or None to learn it"),
        ("hedge", 0.9, "a number from 1 to 100"),
        ("hedge", 100.5, "a number from 1 to 100"),
        ("hedge", True, "a number from 1 to 100"),
        ("hedge", "4", "a number from 1 to 100"),
    ],
)
def test_bad_arguments_are_named(argument: str, given: object, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LatencyPolicy(**{argument: given})  # type: ignore[arg-type]
    assert (caught.value.argument, caught.value.given) == (argument, given)
    assert caught.value.allowed.startswith(allowed)


def test_a_policy_keeps_what_it_was_given_and_shows_it() -> None:
    made = LatencyPolicy(
        wait="250ms", share=0.01, concurrency=1, capacity_rps=12.5, startup=0, window=0, safety=0.5,
        hedge=100, drain="1m",
    )  # fmt: skip
    assert (made.wait_s, made.share, made.concurrency, made.capacity_rps) == (0.25, 0.01, 1, 12.5)
    assert (made.startup_s, made.window_s, made.safety, made.hedge, made.drain_s) == (
        0.0,
        0.0,
        0.5,
        100,
        60.0,
    )
    assert repr(made) == (
        "LatencyPolicy(wait_s=0.25, concurrency=1, capacity_rps=12.5, startup_s=0, safety=0.5, hedge=100)"
    )
    plain = LatencyPolicy(hedge=1)
    assert (plain.wait_s, plain.share, plain.concurrency, plain.capacity_rps) == (0.4, 0.001, 4, None)
    assert (plain.startup_s, plain.window_s, plain.safety, plain.drain_s) == (75.0, 30.0, 0.985, 10.0)
    assert LatencyPolicy().hedge == 16.0
    assert "capacity_rps=None" in repr(plain)


@given(
    rate=st.floats(0.01, 3e3), capacity=st.floats(0.5, 500), slots=st.integers(1, 64),
    wait=st.floats(0.001, 5), share=st.floats(1e-6, 0.1),
)  # fmt: skip
def test_the_number_found_is_the_first_that_will_do(
    rate: float, capacity: float, slots: int, wait: float, share: float
) -> None:
    def late(n: int) -> float:
        return late_share(rate, n * capacity, n * slots, wait)

    found = replicas_for(rate, capacity_rps=capacity, concurrency=slots, wait_s=wait, share=share)
    assert late(found) <= share
    assert found == max(1, math.ceil(rate / capacity)) or late(found - 1) > share


def test_an_absurd_load_takes_no_longer_than_another() -> None:
    """One by one it would be 20 million steps."""
    found = replicas_for(4.5e8, capacity_rps=1e-6, concurrency=4, wait_s=0.25, share=0.001)
    assert found > 4.5e14


@pytest.mark.parametrize("name", ["cpu", "backlog"])
def test_a_metric_that_cannot_be_read_is_told_though_the_load_is_known(name: str) -> None:
    whole = seen(0.0, 400.0, replicas=40)
    observation = replace(whole, samples={**whole.samples, name: Sample(value=None, error="refused")})
    wish = LatencyPolicy(capacity_rps=40).decide(observation)
    assert list(wish.blind) == [name]
    assert "refused" in wish.blind[name]


def test_without_the_load_jobs_that_wait_start_the_first_replica() -> None:
    none = TargetState(replicas=0, ready=0)
    waiting = Observation(
        at_s=0.0, state=none, min_replicas=0, max_replicas=9, samples={"backlog": Sample(value=3.0)}
    )
    wish = LatencyPolicy(capacity_rps=40).decide(waiting)
    assert (wish.replicas, wish.reason) == (1, "jobs wait and nothing runs")
    assert LatencyPolicy(capacity_rps=40).decide(replace(waiting, samples={})).replicas == 0


@pytest.mark.parametrize(("cpu", "rate"), [(0.2, 80.0), (0.95, 380.0), (0.5, 0.9)])
def test_capacity_is_learned_at_both_ends_and_from_little_load(cpu: float, rate: float) -> None:
    wish = LatencyPolicy().decide(seen(0.0, rate, replicas=10, cpu=cpu))
    assert wish.memory["capacity"] == pytest.approx(rate / (10 * cpu))


def test_what_is_held_ready_without_the_load_is_not_taken_for_measured() -> None:
    asked = []

    class Watching(LatencyPolicy):
        __slots__ = ()

        def _reserve(self, *given: Any, measured: bool) -> Reserve:
            asked.append(measured)
            return Reserve()

    policy = Watching(capacity_rps=40)
    wish = policy.decide(seen(0.0, 400.0, replicas=20))
    blind = replace(seen(15.0, 0.0, replicas=20), samples={}, memory=dict(wish.memory))
    policy.decide(blind)
    assert asked == [True, False]
