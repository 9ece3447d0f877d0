"""Balancer: what it avoids, what it returns to, and how it does beside the classics in a simulation."""

from __future__ import annotations

import asyncio
import heapq
from random import Random

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import Balancer, ScalingError
from eventperf.testing import FakeClock


def simulate(strategy: str) -> tuple[float, int]:
    """Return p99 latency and failures of 4000 requests to endpoints of which one is slow and one fails."""
    clock, random = FakeClock(), Random(5)
    names = [f"e{i}" for i in range(8)]
    eject = 5 if strategy == "p2c-ewma" else 10**9
    balancer = Balancer(names, strategy=strategy, eject_after=eject, clock=clock, random=Random(3))
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


def test_never_more_than_half_are_out() -> None:
    balancer = Balancer(["a", "b", "c", "d"], eject_after=1, clock=FakeClock(), random=Random(1))
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
    ],
)
def test_bad_arguments_are_named(argument: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Balancer(**{"endpoints": ["a"], **options})  # type: ignore[arg-type]
    assert caught.value.argument == argument
