"""Loads: one at a time, shared by threads and tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.cache import (
    AsyncCacheStore,
    CacheManager,
    CounterOverflow,
    SupportsLease,
)
from eventperf.cache.protocols import SupportsKeys

from .tools import StoreTests, has


async def _around(cache: CacheManager) -> None:
    """What tasks do around functions: locks, and everything of a function at once."""
    if has(cache, SupportsLease):
        inside: list[int] = []

        async def work(n: int) -> None:
            async with cache.alock("l", ttl=10) as lock:
                inside.append(n)
                assert inside == [n]
                assert await lock.renew()
                await asyncio.sleep(0.002)
                inside.remove(n)

        await asyncio.gather(*map(work, range(10)))
        assert await cache.alock("l", ttl=10).acquire(wait=0)
    calls: list[int] = []

    @cache.cached(key="a:{n}", ttl=lambda n: n)
    async def double(n: int) -> int:
        calls.append(n)
        return 2 * n

    assert [await double(30), await double(30)] == [60, 60]
    await double.ainvalidate_all()
    await double(30)
    assert calls == [30, 30]


class LoadTests(StoreTests):
    """Loads of threads and tasks."""

    def test_many_threads_cause_one_load(self, cache: CacheManager) -> None:
        loads = []

        def load() -> int:
            loads.append(1)
            time.sleep(0.05)
            return 7

        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(lambda _: cache.get_or_load("k", load), range(20)))
        assert results == [7] * 20
        assert len(loads) == 1

    def test_a_failed_load_reaches_all_and_poisons_nothing(self, cache: CacheManager) -> None:
        loads = []
        barrier = threading.Barrier(10)

        def load() -> int:
            loads.append(1)
            time.sleep(0.1)
            raise LookupError("no such event")

        def call(_: int) -> str:
            barrier.wait()
            try:
                cache.get_or_load("k", load)
            except LookupError as error:
                return str(error)
            return "no error"

        with ThreadPoolExecutor(10) as pool:
            assert list(pool.map(call, range(10))) == ["no such event"] * 10
        assert len(loads) == 1
        assert cache.get_or_load("k", lambda: 5) == 5

    def test_bulk_loads_all_misses_in_one_call(self, cache: CacheManager) -> None:
        calls: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, str]:
            calls.append(keys)
            return {key: key.upper() for key in keys if key != "none"}

        cache.set("a", "A")
        assert cache.get_or_load_many(["a", "b", "c", "none"], load) == {"a": "A", "b": "B", "c": "C"}
        assert calls == [["b", "c", "none"]]
        assert cache.get_or_load_many(["a", "b", "c"], load) == {"a": "A", "b": "B", "c": "C"}
        assert len(calls) == 1

    def test_a_loader_may_ask_for_its_own_key(self, cache: CacheManager) -> None:
        assert cache.get_or_load("k", lambda: cache.get_or_load("k", lambda: 1) + 1) == 2

    def test_counters_add_up_over_threads(self, cache: CacheManager) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: cache.counter("visits").incr(2), range(50)))
        assert cache.counter("visits").value() == 100

    def test_a_counter_is_exact_to_64_bits_and_refuses_more(self, cache: CacheManager) -> None:
        visits, top = cache.counter("visits"), 2**63 - 1
        assert visits.incr(2**53) == 2**53
        assert visits.incr(1) == 2**53 + 1 == visits.value()
        assert visits.incr(top - visits.value()) == top
        for low, counter in ((False, visits), (True, cache.counter("debts"))):
            if low:
                assert counter.incr(-top) == -top
            before, step = counter.value(), -2 if low else 1
            with pytest.raises(CounterOverflow) as caught:
                counter.incr(step)
            assert (caught.value.name, caught.value.amount) == ("debts" if low else "visits", step)
            assert counter.value() == before

    def test_what_a_counter_cannot_add_is_refused_and_nobody_is_blamed(self, cache: CacheManager) -> None:
        visits = cache.counter("visits")
        wrongs: tuple[Any, ...] = (None, True, [], {}, "1", b"1", 1.0, Decimal(1), 2**63, -(2**63) - 1)
        for wrong in wrongs:
            for call in (visits.incr, lambda v: asyncio.run(visits.aincr(v))):
                with pytest.raises(ConfigurationError, match=r"amount"):
                    call(wrong)
            if wrong is not None:
                with pytest.raises(ConfigurationError, match=r"amount"):
                    cache.add_to("k", wrong)
        assert cache.stats().breaker != "open"
        assert cache.stats().store_errors == 0
        assert visits.incr() == 1

    def test_tasks_and_threads_add_to_one_counter(self, cache: CacheManager) -> None:
        async def main() -> None:
            visits = cache.counter("visits")
            assert await visits.avalue() == 0
            assert sorted(await asyncio.gather(*[visits.aincr(2) for _ in range(20)])) == list(
                range(2, 41, 2)
            )
            assert await visits.aincr(-5) == 35
            assert await visits.aincr() == await visits.avalue() == 36
            await cache.aclose()

        asyncio.run(main())
        assert cache.counter("visits").value() == 36
        assert cache.counter("others").value() == 0

    def test_tasks_see_the_same(self, cache: CacheManager) -> None:
        async def main() -> None:
            loads = []

            async def load() -> int:
                loads.append(1)
                await asyncio.sleep(0.05)
                return 3

            assert await asyncio.gather(*[cache.aget_or_load("k", load) for _ in range(20)]) == [3] * 20
            assert len(loads) == 1
            await cache.aset_many({"a": 1, "b": None}, tags=["t"])
            assert await cache.aget_many(["a", "b", "c"]) == {"a": 1, "b": None}
            await cache.ainvalidate_tags("t")
            assert await cache.aget("a", "gone") == "gone"
            assert await cache.aget_or_load_many(["x"], lambda keys: dict.fromkeys(keys, 1)) == {"x": 1}
            assert await cache.atouch("x", ttl=30)
            assert await cache.adelete("x") == 1
            await cache.aset("p:1", 1)
            assert await cache.aexists("p:1")
            assert (await cache.attl("p:1") or 0) > 1
            assert not await cache.aadd("p:1", 2)
            if has(cache, SupportsKeys):
                assert await cache.akeys("p:*") == ["p:1"]
            assert await cache.ainvalidate_pattern("p:*") == 1
            assert [await cache.aadd("p:1", n) for n in (2, 3)] == [True, False]
            assert await cache.aget("p:1") == 2
            await _around(cache)
            if isinstance(cache.store, AsyncCacheStore):
                await cache.store.aclose()

        asyncio.run(main())

    def test_a_cancelled_leader_hands_over(self, cache: CacheManager) -> None:
        async def main() -> None:
            loads = []
            begun = asyncio.Event()

            async def load() -> int:
                loads.append(1)
                begun.set()
                await asyncio.sleep(0.4)
                return len(loads)

            leader = asyncio.create_task(cache.aget_or_load("k", load))
            await begun.wait()  # a first connection may take its time
            others = [asyncio.create_task(cache.aget_or_load("k", load)) for _ in range(5)]
            await asyncio.sleep(0.02)
            leader.cancel()
            others[0].cancel()
            results = await asyncio.gather(*others[1:])
            assert results == [2] * 4
            assert leader.cancelled() or leader.done()
            if isinstance(cache.store, AsyncCacheStore):
                await cache.store.aclose()

        asyncio.run(main())

    def test_a_thread_and_a_task_share_one_load(self, cache: CacheManager) -> None:
        loads = []

        def load() -> int:
            loads.append(1)
            time.sleep(0.1)
            return 4

        async def main() -> int:
            value = await cache.aget_or_load("k", load)
            if isinstance(cache.store, AsyncCacheStore):
                await cache.store.aclose()
            return value

        thread = threading.Thread(target=cache.get_or_load, args=("k", load))
        thread.start()
        time.sleep(0.03)
        assert asyncio.run(main()) == 4
        thread.join()
        assert len(loads) == 1
