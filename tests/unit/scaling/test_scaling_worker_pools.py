"""Worker pools against the textbook: the cheapest number of workers that keeps the waits, and what we use."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from random import Random

import pytest

from eventperf.scaling import AutoScaler, LatencyPolicy, QueueMetrics, TargetState
from eventperf.testing.clock import FakeClock

SHARE = 0.05


def erlang_c(servers: int, load: float) -> float:
    """Return the share of jobs that wait in an M/M/c queue, by Erlang's C formula."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def optimum(rate: float, served: float, slo_s: float) -> int:
    """Return the fewest workers for which at most 5 % of jobs wait longer than ``slo_s``."""
    workers = math.floor(rate / served) + 1
    while erlang_c(workers, rate / served) * math.exp(-(workers * served - rate) * slo_s) > SHARE:
        workers += 1
    return workers


class Pool:
    """Workers of the simulation; also the queue as ``QueueMetrics`` sees it."""

    name = "pool"

    def __init__(self, served: float) -> None:
        self.workers = self.slots = 2
        self.busy = self.depth = 0
        self.run_s = 1 / served
        self.came: deque[float] = deque()
        self.ended: deque[float] = deque()
        self.arrival_rate = self.service_rate = 0.0

    def read(self) -> TargetState:
        return TargetState(replicas=self.workers, ready=self.workers)

    def scale(self, replicas: int, /, *, reason: str = "") -> None:
        self.workers = self.slots = replicas

    def look(self, now: float) -> None:
        for times in (self.came, self.ended):
            while times and times[0] < now - 60:
                times.popleft()
        self.arrival_rate, self.service_rate = len(self.came) / 60, len(self.ended) / 60

    def backlog(self) -> Pool:
        return self


def simulate(rate: Callable[[float], float], served: float, slo_s: float) -> tuple[float, float]:
    """Return the 95th percentile of waits, and worker time relative to the optimum at every moment."""
    random, clock, pool = Random(1), FakeClock(), Pool(served)
    policy = LatencyPolicy(wait=slo_s, share=SHARE, concurrency=1, startup=5, safety=0.5, hedge=1, drain=30)
    scaler = AutoScaler(pool, QueueMetrics(pool), policy, max_replicas=200, clock=clock)
    queue, running, waits = deque[float](), list[float](), list[float]()
    now, arrival, tick, used, best = 0.0, 0.0, 0.0, 0.0, 0.0
    while now < 3 * 3600:
        then = min(arrival, tick, running[0] if running else math.inf)
        if now > 1800:  # the first half hour is for learning
            used += (then - now) * max(pool.workers, pool.busy)  # a worker told to stop ends its job first
        now = then
        if now == tick:
            clock.advance(5.0)
            best += 5.0 * optimum(rate(now), served, slo_s) if now > 1800 else 0.0
            pool.look(now)
            scaler.tick()
            tick += 5.0
        elif running and now == running[0]:
            heapq.heappop(running)
            pool.ended.append(now)
        else:
            queue.append(now)
            pool.came.append(now)
            arrival = now + random.expovariate(rate(now))
        while queue and len(running) < pool.workers:
            if now > 1800:
                waits.append(now - queue[0])
            queue.popleft()
            heapq.heappush(running, now + random.expovariate(served))
        pool.busy, pool.depth = len(running), len(queue)
    return sorted(waits)[int(len(waits) * 0.95)], used / best


@pytest.mark.parametrize(("rate", "served", "slo_s"), [(40.0, 2.0, 1.0), (20.0, 1.0, 5.0)], ids=str)
@pytest.mark.parametrize("swing", [0.0, 0.5], ids=["steady", "wave"])
def test_waits_stay_within_the_goal_near_the_cheapest_pool(
    rate: float, served: float, slo_s: float, swing: float
) -> None:
    p95, cost = simulate(lambda at: rate * (1 + swing * math.sin(at / 1800)), served, slo_s)
    assert p95 <= slo_s
    assert cost <= 1.15


def test_the_textbook_formula_gives_textbook_numbers() -> None:
    assert erlang_c(1, 0.5) == pytest.approx(0.5)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert optimum(40, 2, 1.0) == 22
