"""Balancer: what it avoids, what it returns to, and how it does beside the classics in a simulation."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import sys
from random import Random
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import Balancer, ScalingError
from eventperf.testing import FakeClock


def simulate(strategy: str) -> tuple[float, int]:
    """Return p99 latency and failures of 4000 requests to endpoints of which one is slow and one fails."""
    clock, random = FakeClock(), Random(5)
    names = [f"e{i}" for i in range(8)]
    never = {} if strategy == "p2c-ewma" else {"eject_after": 10**9, "eject_share": 1.0}
    balancer = Balancer(names, strategy=strategy, **never, clock=clock, random=Random(3))  # type: ignore[arg-type]
    running: list[tuple[float, int, object, bool, float]] = []
    took, failures = list[float](), 0

    def finish(until: float) -> None:
        nonlocal failures
        while running and running[0][0] <= until:
            at, _, pick, failed, began = heapq.heappop(running)
            clock.advance(max(0.0, at - clock.monotonic()))
            error = ConnectionError("refused") if failed else None
            pick.__exit__(type(error) if error else None, error, None)  # type: ignore[attr-defined]
            failures += failed
            took.append(at - began)

    now = clock.monotonic()
    for number in range(4000):
        now += random.expovariate(100.0)
        finish(now)
        clock.advance(max(0.0, now - clock.monotonic()))
        pick = balancer.pick()
        name = pick.__enter__()
        mean = {"e0": 1.0, "e1": 0.001}.get(name, 0.02)
        heapq.heappush(running, (now + random.expovariate(1 / mean), number, pick, name == "e1", now))
    finish(now + 1e6)
    return sorted(took)[int(len(took) * 0.99)], failures


def test_one_slow_and_one_failing_endpoint_hurt_least() -> None:
    ours = simulate("p2c-ewma")
    for other in ("round-robin", "random", "least-connections"):
        slow, failures = simulate(other)
        assert ours[0] <= slow, other
        assert ours[1] * 4 < failures, other


def shared(
    balancer: Balancer[str], clock: FakeClock, dead: set[str], *, seconds: int
) -> tuple[dict[str, int], int]:
    """Make ten requests a second one after another: who got them, and how many failed, each at once."""
    counts, failures = dict[str, int](), 0
    for _ in range(10 * seconds):
        with contextlib.suppress(ConnectionError), balancer.pick() as name:
            counts[name] = counts.get(name, 0) + 1
            clock.advance(0.0005 if name in dead else 0.02)
            if name in dead:
                failures += 1
                raise ConnectionError("refused")
        clock.advance(0.08)
    return counts, failures


@pytest.mark.parametrize("limits", [{"max_ejected": 0.0}, {"max_ejected": 0.2}, {"panic_below": 0.6}])
def test_what_refuses_at_once_is_not_taken_for_fast_where_it_may_not_be_put_out(
    limits: dict[str, float],
) -> None:
    clock, names = FakeClock(), [f"e{i}" for i in range(10)]
    balancer = Balancer(names, clock=clock, random=Random(3), **limits)
    _, failures = shared(balancer, clock, set(names[:5]), seconds=60)
    assert failures < 0.35 * 600, "a blind choice fails for half of them"


def test_what_failed_for_a_while_gets_its_share_again() -> None:
    clock = FakeClock()
    balancer = Balancer(["a", "b", "c"], clock=clock, random=Random(3))
    shared(balancer, clock, set(), seconds=10)
    shared(balancer, clock, {"a"}, seconds=15)
    shared(balancer, clock, set(), seconds=60)
    counts, _ = shared(balancer, clock, set(), seconds=30)
    assert counts["a"] > 0.2 * 300


def fail(balancer: Balancer[str], times: int) -> list[str]:
    picked = []
    for _ in range(times):
        with pytest.raises(ConnectionError), balancer.pick() as endpoint:
            picked.append(endpoint)
            raise ConnectionError("refused")
    return picked


def test_a_failing_endpoint_is_left_alone_and_tried_again() -> None:
    clock = FakeClock()
    balancer = Balancer(["a", "b"], strategy="round-robin", eject_after=2, eject_for="5s", clock=clock)
    for _ in range(4):
        try:
            with balancer.pick() as endpoint:
                if endpoint == "a":
                    raise ConnectionError("refused")
        except ConnectionError:
            continue
    assert balancer.stats()["a"].ejected_s == pytest.approx(5.0)
    for _ in range(6):
        with balancer.pick() as endpoint:
            assert endpoint == "b"
    clock.advance(5.1)
    seen = set()
    for _ in range(4):
        with balancer.pick() as endpoint:
            seen.add(endpoint)
    assert seen == {"a", "b"}


def test_never_more_than_the_allowed_share_is_out() -> None:
    clock, names = FakeClock(), ["a", "b", "c", "d"]
    balancer = Balancer(names, eject_after=1, max_ejected=0.5, clock=clock, random=Random(1))
    fail(balancer, 40)
    assert sum(s.ejected_s > 0 for s in balancer.stats().values()) == 2


def test_a_cancelled_task_is_no_failure_and_leaves_nothing_in_flight() -> None:
    balancer = Balancer(["a"])

    async def main() -> None:
        async def request() -> None:
            async with balancer.pick():
                await asyncio.sleep(60)

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        assert balancer.stats()["a"].in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    found = balancer.stats()["a"]
    assert (found.in_flight, found.failures) == (0, 0)


def test_weights_share_the_load() -> None:
    clock = FakeClock()
    balancer = Balancer({"big": 3.0, "small": 1.0}, clock=clock, random=Random(2))
    held = [balancer.pick() for _ in range(400)]
    picked = [pick.__enter__() for pick in held]
    assert picked.count("big") == pytest.approx(300, abs=10)


def test_a_source_that_fails_later_leaves_the_last_list() -> None:
    clock, answers = FakeClock(), [["a"], ["a", "b"]]

    def source() -> list[str]:
        return answers.pop(0)

    balancer = Balancer(source, refresh="5s", clock=clock)
    for _ in range(3):
        with balancer.pick() as endpoint:
            assert endpoint in ("a", "b")
        clock.advance(6)
    assert set(balancer.stats()) == {"a", "b"}


STRATEGIES = ("p2c-ewma", "least-connections", "round-robin", "random")


def drive(
    balancer: Balancer[int], clock: FakeClock, dead: set[int], requests: int, *, ok_s: float = 0.02
) -> list[tuple[int, bool]]:
    """Make requests one after another; those that are dead refuse at once."""
    found = []
    for _ in range(requests):
        try:
            with balancer.pick() as endpoint:
                clock.advance(0.0005 if endpoint in dead else ok_s)
                if endpoint in dead:
                    raise ConnectionRefusedError
            found.append((endpoint, True))
        except ConnectionRefusedError:
            found.append((endpoint, False))
    return found


@given(
    strategy=st.sampled_from(STRATEGIES), n=st.integers(2, 12), seed=st.integers(0, 99),
    slow_start=st.sampled_from([0, 10]), ok_s=st.sampled_from([0.002, 0.02, 0.2]), data=st.data(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_while_one_is_well_the_dead_get_at_most_one_request_in_fifty(
    strategy: str, n: int, seed: int, slow_start: int, ok_s: float, data: st.DataObject
) -> None:
    dead = set(range(data.draw(st.integers(1, n - 1))))
    clock = FakeClock()
    balancer = Balancer(range(n), strategy=strategy, slow_start=slow_start, clock=clock, random=Random(seed))
    drive(balancer, clock, dead, 300, ok_s=ok_s)
    found = drive(balancer, clock, dead, 2000, ok_s=ok_s)
    assert sum(not ok for _, ok in found) <= 40


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("weights", [{0: 3, 1: 1}, {0: 1, 1: 2, 2: 5}, {0: 0.5, 1: 0.25, 2: 0.25, 3: 9}])
@pytest.mark.parametrize("at_once", [1, 5])
def test_a_weight_is_a_share_of_the_requests_with_every_strategy(
    strategy: str, weights: dict[int, float], at_once: int
) -> None:
    clock, seen = FakeClock(), dict.fromkeys(weights, 0)
    balancer = Balancer(weights, strategy=strategy, clock=clock, random=Random(1))
    held = [balancer.pick() for _ in range(at_once)]
    for pick in held:
        seen[pick.__enter__()] += 1
    for _ in range(6000):
        clock.advance(0.01 / at_once)
        held.pop(0).__exit__(None, None, None)
        held.append(balancer.pick())
        seen[held[-1].__enter__()] += 1
    for name, weight in weights.items():
        share, wanted = seen[name] / sum(seen.values()), weight / sum(weights.values())
        # two choices of a few at once even out what is in flight, a little against the weights
        assert share == pytest.approx(wanted, abs=0.05 if at_once == 1 else 0.08), seen


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("slow_start", [0, 10])
def test_when_all_were_dead_the_first_to_recover_is_found_and_gets_everything(
    strategy: str, slow_start: int
) -> None:
    clock = FakeClock()
    balancer = Balancer(range(5), strategy=strategy, slow_start=slow_start, clock=clock, random=Random(1))
    assert not any(ok for _, ok in drive(balancer, clock, set(range(5)), 400))
    found = drive(balancer, clock, {0, 1, 2, 4}, 400)
    assert sum(ok for _, ok in found) >= 390
    assert {name for name, ok in found if ok} == {3}


def test_one_that_returns_is_tried_by_one_request_at_a_time() -> None:
    clock = FakeClock()
    balancer = Balancer(["a", "b"], strategy="round-robin", eject_after=1, eject_for=5, clock=clock)
    for _ in range(2):
        with contextlib.suppress(ConnectionError), balancer.pick() as endpoint:
            if endpoint == "a":
                raise ConnectionError
    clock.advance(6)
    held = [balancer.pick() for _ in range(20)]
    assert [pick.__enter__() for pick in held].count("a") == 1
    for pick in held:
        pick.__exit__(None, None, None)
    assert "a" in {balancer.pick().__enter__() for _ in range(4)}  # the probe went well


def test_one_that_fails_most_requests_but_never_five_in_a_row_is_put_out_too() -> None:
    clock = FakeClock()
    balancer = Balancer(["a", "b"], strategy="random", clock=clock, random=Random(1))
    turn = 0
    for _ in range(400):
        clock.advance(0.01)
        with contextlib.suppress(ConnectionError), balancer.pick() as endpoint:
            turn += endpoint == "a"
            if endpoint == "a" and turn % 4:
                raise ConnectionError
    assert balancer.stats()["a"].failures < 60


def test_in_a_panic_all_are_used() -> None:
    clock = FakeClock()
    balancer = Balancer(
        range(4),
        strategy="random",
        panic_below=0.5,
        eject_after=1,
        eject_for=60,
        clock=clock,
        random=Random(1),
    )
    found = drive(balancer, clock, {0, 1, 2}, 400)
    assert 100 < sum(not ok for _, ok in found[100:]) < 270  # one of four is in: blind rotation


def test_a_weight_that_changes_while_requests_run_loses_no_endpoint() -> None:
    clock, weights = FakeClock(), {"a": 1.0, "b": 1.0}
    balancer = Balancer(lambda: dict(weights), strategy="least-connections", refresh=1, clock=clock)
    for number in range(200):
        weights["a"] = 1.0 + number % 7
        with balancer.pick(), balancer.pick():
            clock.advance(0.6)
    assert all(s.requests > 50 for s in balancer.stats().values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_choice_among_five_thousand_takes_no_more_steps_than_among_fifty(strategy: str) -> None:
    def steps(n: int) -> int:
        clock = FakeClock()
        balancer = Balancer(range(n), strategy=strategy, clock=clock, random=Random(1))
        for _ in range(50):
            with balancer.pick():
                clock.advance(0.01)
        count = 0

        def trace(frame: FrameType, event: str, argument: object) -> object:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for _ in range(20):
                with balancer.pick():
                    clock.advance(0.01)
        finally:
            sys.settrace(before)
        return count

    assert steps(5000) < 1.5 * steps(50)


def test_no_endpoints_is_one_clear_error() -> None:
    with pytest.raises(ScalingError, match="no endpoints"), Balancer(lambda: []).pick():
        pass


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("strategy", {"strategy": "magic"}),
        ("eject_after", {"eject_after": 0}),
        ("decay", {"decay": -1}),
        ("endpoints", {"endpoints": []}),
        ("eject_share", {"eject_share": 1.5}),
        ("max_ejected", {"max_ejected": -0.1}),
        ("panic_below", {"panic_below": "half"}),
        ("eject_for", {"eject_for": 0}),
        ("weight of 'a'", {"endpoints": {"a": "3"}}),
        ("weight of 'a'", {"endpoints": {"a": 0}}),
    ],
)
def test_bad_arguments_are_named(argument: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Balancer(**{"endpoints": ["a"], **options})  # type: ignore[arg-type]
    assert caught.value.argument == argument
