"""Limits: rates, slots and windows, by queue, type and key."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import Limit, QueueManager

from .tools import LEASE_S, Make, Station, StoreTests, balanced, has, run_until, until


class LimitTests(StoreTests):
    """Rates and caps over all workers."""

    @pytest.fixture
    def limited(self, make: Make) -> Callable[..., QueueManager]:
        limits = [Limit(type="t", concurrency=1)]
        if not has(make, "limits", lambda queues: QueueManager(queues.backend, limits=limits)):
            pytest.skip("asking for limits is refused, as it must")
        return lambda *limits, **options: make(limits=limits, **options)

    def test_cap_of_a_queue_holds_over_all_workers(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(queue="low", concurrency=3)) as queues:
            queues.enqueue_many("t", range(8), queue="low")
            other = queues.enqueue("t")
            a, b = Station(queues, "t", lease_s=30), Station(queues, "t", lease_s=30)
            first = a.take(2)
            second = b.take()
            assert [x.record.queue for x in first] == ["normal", "low"], "the cap is of one queue only"
            assert (first[0].record.id, len(second)) == (other.id, 2)
            assert a.take() == b.take() == []
            assert a.end(first[1])
            assert len(b.take()) == 1
            assert balanced(queues.status())

    def test_cap_of_a_type_lets_other_types_pass(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="slow", concurrency=2)) as queues:
            slow = [j.id for j in queues.enqueue_many("slow", range(5))]
            quick = [j.id for j in queues.enqueue_many("quick", range(3))]
            station = Station(queues, "slow", "quick", lease_s=30)
            leases = station.take()
            assert [x.record.id for x in leases] == [*slow[:2], *quick]
            assert sum(s.waiting for s in queues.status()) == 3
            assert station.end(leases[0])
            assert station.end(leases[1], "retry")
            assert station.ids() == slow[2:4], "those held back keep their place"
            assert balanced(queues.status())

    def test_newcomers_do_not_overtake_jobs_that_are_held_back(
        self, limited: Callable[..., QueueManager]
    ) -> None:
        with limited(Limit(type="t", concurrency=1)) as queues:
            jobs = [queues.enqueue("t", n).id for n in range(4)]
            station = Station(queues, "t", lease_s=30)
            (lease,) = station.take()
            assert station.take() == []
            jobs += [queues.enqueue("t", n).id for n in range(4, 6)]
            assert station.take() == []
            jobs += [queues.enqueue("t", n).id for n in range(6, 8)]
            assert station.end(lease)
            assert station.drain() == jobs[1:]
            assert balanced(queues.status())

    def test_cap_per_key_counts_each_tenant_by_itself(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", per_key=True, concurrency=1)) as queues:
            for key in ("a", "b", None):
                queues.enqueue_many("t", range(3), fairness_key=key)
            station = Station(queues, "t", lease_s=30)
            leases = station.take()
            assert Counter(x.record.key for x in leases) == {"a": 1, "b": 1, "": 3}
            for _ in range(2):
                mine = [x for x in leases if x.record.key == "a"]
                assert station.end(mine[-1])
                leases += station.take()
            assert Counter(x.record.key for x in leases) == {"a": 3, "b": 1, "": 3}

    def test_caps_are_given_back_by_crashes_cancels_and_hand_backs(
        self, limited: Callable[..., QueueManager]
    ) -> None:
        with limited(Limit(type="t", concurrency=1)) as queues:
            queues.enqueue_many("t", range(4))
            dead, live = Station(queues, "t"), Station(queues, "t", lease_s=30)
            assert len(dead.take()) == 1
            (lease,) = until(live.take, LEASE_S + 2)
            assert live.take() == []
            assert live.end(lease, "release")
            (lease,) = live.take()
            assert queues.cancel(lease.record.id)
            assert live.take() == []
            assert live.end(lease, "cancelled")
            assert len(live.take()) == 1
            live.store.enter(live.card, [])  # that claim was answered into the void
            assert len(live.drain()) == 3
            assert balanced(queues.status())

    def test_held_back_jobs_can_be_cancelled_and_purged(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", concurrency=1)) as queues:
            jobs = queues.enqueue_many("t", range(5))
            station = Station(queues, "t", lease_s=30)
            (lease,) = station.take()
            assert jobs[2].cancel()
            assert station.end(lease)
            assert station.ids() == [jobs[1].id]
            assert queues.purge("normal") == 2
            assert balanced(queues.status())

    def test_caps_hold_while_many_claim_at_once(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", concurrency=3), Limit(type="t", per_key=True, concurrency=1)) as queues:
            for n in range(60):
                queues.enqueue("t", n, fairness_key=f"k{n % 5}")
            mu, running, most, done = threading.Lock(), Counter[str](), Counter[str](), list[str]()

            def work() -> None:
                station, end = Station(queues, "t", lease_s=60), time.monotonic() + 60
                while len(done) < 60 and time.monotonic() < end:
                    for lease in station.take(2):
                        with mu:
                            running.update(["all", lease.record.key])
                            for name in running:
                                most[name] = max(most[name], running[name])
                        time.sleep(0.001)
                        with mu:
                            running.subtract(["all", lease.record.key])
                        assert station.end(lease)
                        done.append(lease.record.id)

            with ThreadPoolExecutor(4) as pool:
                for ended in [pool.submit(work) for _ in range(4)]:
                    ended.result(90)
            assert most["all"] <= 3
            assert max(most[f"k{n}"] for n in range(5)) == 1
            assert len(set(done)) == len(done) == 60

    def test_rate_is_never_exceeded_in_any_window(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", rate=5, per=0.4)) as queues:
            queues.enqueue_many("t", range(18))
            station = Station(queues, "t", lease_s=30)
            before, after = list[float](), list[float]()
            end = time.monotonic() + 60
            while len(after) < 18:
                assert time.monotonic() < end
                asked = time.monotonic()
                claimed = station.claim()
                before += [asked] * len(claimed.leases)
                after += [time.monotonic()] * len(claimed.leases)
                time.sleep(min(0.02, max(claimed.next_in_s or 0.02, 0.002)))
            for i in range(len(after) - 5):  # a start lies between the question and the answer
                assert after[i + 5] - before[i] > 0.4 - 0.002
            assert sum(s.waiting for s in queues.status()) == 0

    def test_rate_of_a_queue_says_when_to_come_back(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(queue="low", rate=2, per=30)) as queues:
            queues.enqueue_many("t", range(5), queue="low")
            station = Station(queues, "t", lease_s=60)
            assert len(station.take()) == 2
            assert station.take() == []
            assert 20 < (station.claim().next_in_s or 0) <= 30

    def test_big_tenant_held_back_does_not_hold_up_small_ones(
        self, limited: Callable[..., QueueManager]
    ) -> None:
        with limited(Limit(per_key=True, concurrency=2)) as queues:
            queues.enqueue_many("t", range(3000), fairness_key="big")
            small = [queues.enqueue("t", fairness_key=f"s{n}").id for n in range(20)]
            station = Station(queues, "t", lease_s=30)
            got = station.take(22) + station.take(22)
            assert {x.record.id for x in got} >= {*small}
            assert sum(x.record.key == "big" for x in got) == 2

    def test_workers_obey_limits_to_the_last_job(self, limited: Callable[..., QueueManager]) -> None:
        with limited(Limit(type="t", concurrency=2), Limit(queue="low", concurrency=1)) as queues:
            running, most, done = Counter[str](), Counter[str](), list[int]()

            @queues.job("t")
            async def t(ctx: Any, data: int) -> None:
                for name in ("all", ctx.queue):
                    running[name] += 1
                    most[name] = max(most[name], running[name])
                await asyncio.sleep(0.01)
                for name in ("all", ctx.queue):
                    running[name] -= 1
                done.append(data)

            queues.enqueue_many("t", range(20))
            queues.enqueue_many("t", range(20, 30), queue="low")
            run_until(queues, lambda: len(done) == 30)
            assert (most["all"], most["low"]) == (2, 1)
            assert sorted(done) == list(range(30))

    def test_wrong_limits_are_refused(self, make: Make) -> None:
        for wrong in ({}, {"type": "t"}, {"type": "t", "rate": 0}, {"type": "t", "rate": 1, "per": 0}):
            with pytest.raises(ConfigurationError):
                Limit(**wrong)
        with pytest.raises(ConfigurationError):
            make(limits=[Limit(type="t", rate=1), Limit(type="t", concurrency=1)])
        with pytest.raises(ConfigurationError):
            make(limits=[Limit(queue="nope", rate=1)])
