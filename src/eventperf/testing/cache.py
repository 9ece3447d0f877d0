"""The conformance suite of cache stores: what every first or second tier must make of the cache's promises.

    class TestMyStore(CacheStoreSuite):
        @pytest.fixture
        def store(self):
            return MyStore(...)

The store may be a first tier (:class:`~eventperf.cache.MemoryStore` and its like) or a second tier
(:class:`~eventperf.cache.RedisStore` and its like); the suite drives a ``CacheManager`` over it, sync and
async, from threads and tasks.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from eventperf.cache import (
    FOREVER,
    AsyncCacheStore,
    CacheManager,
    CacheOptions,
    LockTimeout,
    SupportsLease,
    escape,
)
from eventperf.cache.protocols import SupportsKeys
from eventperf.errors import ConfigurationError
from eventperf.testing.bounded import assert_bounded

FALSY: list[Any] = [None, 0, "", False, 0.0, [], {}, b""]
ODD_KEYS = ["a b", "line\nbreak", "glob*[x]?\\", "ключ-키-🔑", "x" * 10_000, "{tag}", "a:b:c", "%41", ""]


@dataclass(frozen=True)
class Ticket:
    """A value with types that JSON would lose."""

    id: int
    price: Decimal
    sold: datetime
    seats: tuple[int, ...]


TYPED: list[Any] = [
    Ticket(7, Decimal("12.50"), datetime(2026, 11, 23, 9, tzinfo=timezone.utc), (1, 2)),
    datetime(2026, 1, 2, 3, 4, 5, 6),
    date(2026, 2, 28),
    timedelta(days=1, microseconds=5),
    Decimal("0.10"),
    uuid.UUID(int=5),
    b"\x00\xff",
    {1, 2},
    frozenset({"a"}),
    (1, ("2", None)),
    2**80,
    {1: "one", (2, 3): "pair"},
    [float("inf"), -1.5],
]


def _has(cache: CacheManager, ability: type) -> bool:
    """Tell whether the store of ``cache`` has an ability; process memory has them all."""
    return cache.store is None or isinstance(cache.store, ability)


async def _around(cache: CacheManager) -> None:
    """What tasks do around functions: locks, and everything of a function at once."""
    if _has(cache, SupportsLease):
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


class CacheStoreSuite:
    """Subclass it and define the fixture ``store``."""

    @pytest.fixture
    def store(self) -> Any:
        """Return the store under test, empty or not."""
        raise NotImplementedError("define the fixture 'store'")

    @pytest.fixture
    def cache(self, store: Any) -> Iterator[CacheManager]:
        """A manager over the store, in a namespace of its own."""
        namespace = f"suite-{uuid.uuid4().hex[:12]}"
        is_first_tier = hasattr(store, "drop_tags")
        url, l1 = (None, store) if is_first_tier else (store, None)
        made = CacheManager(url, l1=l1, namespace=namespace)
        yield made
        made.clear()
        made.close()

    # -- values --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("value", FALSY, ids=repr)
    def test_falsy_values_are_values(self, cache: CacheManager, value: Any) -> None:
        cache.set("k", value)
        assert cache.get("k", "absent") == value
        assert cache.get_or_load("k", lambda: pytest.fail("loaded although present")) == value

    @pytest.mark.parametrize("value", TYPED, ids=lambda v: type(v).__name__)
    def test_types_survive(self, cache: CacheManager, value: Any) -> None:
        cache.set("k", value)
        got = cache.get("k")
        assert got == value
        assert type(got) is type(value)

    @pytest.mark.parametrize("key", ODD_KEYS, ids=lambda k: ascii(k[:12]))
    def test_any_text_is_a_key(self, cache: CacheManager, key: str) -> None:
        cache.set_many({key: 1, key + "!": 2})
        assert cache.get_many([key, key + "!"]) == {key: 1, key + "!": 2}
        assert cache.delete(key) == 1
        assert cache.get(key, "gone") == "gone"
        assert cache.get(key + "!") == 2

    def test_absent_is_the_default(self, cache: CacheManager) -> None:
        assert cache.get("nothing") is None
        assert cache.get("nothing", 5) == 5
        assert cache.get_many(["nothing"]) == {}

    # -- lives ---------------------------------------------------------------------------------------

    def test_an_entry_ends_with_its_ttl(self, cache: CacheManager) -> None:
        cache.set("short", 1, ttl=0.08)
        cache.set("long", 2, ttl=60)
        time.sleep(0.15)
        assert cache.get("short", "gone") == "gone"
        assert cache.get("long") == 2

    def test_touch_gives_a_new_life(self, cache: CacheManager) -> None:
        cache.set("k", 1, ttl=1.0)
        assert cache.touch("k", ttl=60)
        time.sleep(1.1)
        assert cache.get("k") == 1
        assert not cache.touch("absent")

    # -- invalidation --------------------------------------------------------------------------------

    def test_delete_counts_what_was_there(self, cache: CacheManager) -> None:
        cache.set_many({"a": 1, "b": 2})
        assert cache.delete("a", "b", "c") == 2
        assert cache.delete("a") == 0

    def test_a_tag_drops_all_its_entries_and_no_other(self, cache: CacheManager) -> None:
        cache.set_many({f"k{n}": n for n in range(20)}, tags=["event:1"])
        cache.set("other", 1, tags=["event:2"])
        cache.get_or_load("loaded", lambda: 1, tags=["event:1"])
        cache.get_or_load("by-result", lambda: 1, tags=lambda value: [f"event:{value}"])
        assert cache.get("by-result") == 1
        cache.invalidate_tags("event:1")
        assert cache.get_many([*(f"k{n}" for n in range(20)), "loaded", "by-result"]) == {}
        assert cache.get("other") == 1

    def test_a_pattern_drops_what_matches(self, cache: CacheManager) -> None:
        cache.set_many({"ev:1:a": 1, "ev:1:b": 2, "ev:2:a": 3})
        assert cache.invalidate_pattern("ev:1:*", dry_run=True) == 2
        assert cache.invalidate_pattern("ev:1:*") == 2
        assert cache.get_many(["ev:1:a", "ev:1:b", "ev:2:a"]) == {"ev:2:a": 3}

    def test_escaped_input_matches_only_itself(self, cache: CacheManager) -> None:
        cache.set_many({"u:*": 1, "u:x": 2, "u:[x]": 3})
        assert cache.invalidate_pattern(f"u:{escape('*')}") == 1
        assert cache.get("u:x") == 2
        assert cache.invalidate_pattern(f"u:{escape('[x]')}") == 1

    def test_clear_empties_only_this_namespace(self, cache: CacheManager, store: Any) -> None:
        if hasattr(store, "drop_tags"):
            pytest.skip("a first tier serves one manager")
        with CacheManager(store, l1=None, namespace=cache.namespace + "-2") as other:
            cache.set("k", 1)
            other.set("k", 2)
            cache.clear()
            assert cache.get("k", "gone") == "gone"
            assert other.get("k") == 2
            other.clear()

    def test_a_load_begun_before_an_invalidation_is_not_stored(self, cache: CacheManager) -> None:
        def load(change: Any) -> str:
            change()
            return "old"

        changes = [
            lambda: cache.invalidate("k"),
            lambda: cache.invalidate_tags("t"),
            lambda: cache.invalidate_pattern("*"),
            lambda: cache.set("k", "new"),
        ]
        for change in changes:
            cache.delete("k")
            cache.get_or_load("k", functools.partial(load, change), tags=["t"])
            assert cache.get("k", "absent") in ("absent", "new")

    def test_result_tags_invalidated_during_the_load_refuse_it(self, cache: CacheManager) -> None:
        def load() -> int:
            cache.invalidate_tags("r")
            return 1

        assert cache.get_or_load("k", load, tags=lambda _: ["r"]) == 1
        assert cache.get("k", "absent") == "absent"

    def test_settle_keeps_loads_of_lagging_replicas_out(self, cache: CacheManager) -> None:
        cache.set("k", "old")
        cache.invalidate("k", settle=0.8)
        assert cache.get_or_load("k", lambda: "lagging") == "lagging"
        assert cache.get("k", "absent") == "absent"
        time.sleep(1.0)
        assert cache.get_or_load("k", lambda: "new") == "new"
        assert cache.get("k") == "new"

    def test_nothing_is_remembered_of_what_is_gone(self, cache: CacheManager) -> None:
        keys = [f"seen:{n}" for n in range(3_000)]
        for n in range(0, 3_000, 500):
            cache.get_or_load_many(keys[n : n + 500], lambda part: dict.fromkeys(part, 1), tags=[f"t{n}"])
        for key in keys[:200]:
            cache.get_or_load(f"one:{key}", lambda: 1, tags=[key])
            cache.touch(f"one:{key}")
            cache.invalidate_tags(key, settle=0.001)
        cache.invalidate_pattern("*")
        assert_bounded(cache, most=1_300)

    # -- loading -------------------------------------------------------------------------------------

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

    # -- around entries ------------------------------------------------------------------------------

    def test_ttl_and_exists_tell_what_get_would_find(self, cache: CacheManager) -> None:
        cache.set_many({"none": None, "b": 2}, ttl=50, tags=["t"])
        cache.set("ever", 1, ttl=FOREVER)
        cache.set("short", 1, ttl=0.08)
        left = cache.ttl("none")
        assert left is not None
        assert 40 < left <= 50
        assert cache.ttl("ever") == float("inf")
        assert [cache.exists(key) for key in ("none", "b", "ever", "absent")] == [True, True, True, False]
        cache.touch("b", ttl=500)
        assert (cache.ttl("b") or 0) > 400
        time.sleep(0.15)
        cache.invalidate_tags("t")
        for key in ("none", "b", "short", "absent"):
            assert cache.ttl(key) is None
            assert not cache.exists(key)

    def test_keys_lists_this_namespace_by_pattern(self, cache: CacheManager, store: Any) -> None:
        cache.set_many({"ev:1": 1, "ev:2": None, "other": 3, "u:*": 4}, tags=["t"])
        cache.lock("ev:lock", ttl=5).acquire() if _has(cache, SupportsLease) else None
        cache.counter("ev:visits").incr()
        if not _has(cache, SupportsKeys):
            with pytest.raises(ConfigurationError, match="SupportsKeys"):
                cache.keys()
            return
        assert sorted(cache.keys()) == ["ev:1", "ev:2", "other", "u:*"]
        assert sorted(cache.keys("ev:*")) == ["ev:1", "ev:2"]
        assert cache.keys(f"u:{escape('*')}") == ["u:*"]
        cache.invalidate("ev:1")
        assert cache.keys("ev:*") == ["ev:2"]

    def test_add_has_one_winner(self, cache: CacheManager) -> None:
        barrier = threading.Barrier(12)

        def add(n: int) -> bool:
            barrier.wait()
            return cache.add("once", n, ttl=60)

        for round_ in range(5):
            with ThreadPoolExecutor(12) as pool:
                won = [n for n, is_mine in enumerate(pool.map(add, range(12))) if is_mine]
            assert len(won) == 1, round_
            assert cache.get("once") == won[0]
            cache.delete("once")

    def test_add_takes_the_place_of_what_nobody_gets_any_more(self, cache: CacheManager) -> None:
        options = CacheOptions(grace=60, ttl=0.05)
        assert cache.add("stale", 1, options=options)
        assert cache.add("tagged", 1, tags=["t"])
        assert not cache.add("tagged", 2)
        time.sleep(0.1)
        cache.invalidate_tags("t")
        assert cache.add("stale", 2)
        assert cache.add("tagged", 2)
        assert cache.get_many(["stale", "tagged"]) == {"stale": 2, "tagged": 2}

    def test_a_load_under_way_does_not_undo_an_add(self, cache: CacheManager) -> None:
        assert cache.get_or_load("k", lambda: cache.add("k", "added") and "loaded") in ("added", "loaded")
        assert cache.get("k") in ("added", None)
        assert not cache.add("k", 2) or cache.get("k") == 2

    def test_a_lock_has_one_holder(self, cache: CacheManager) -> None:
        if not _has(cache, SupportsLease):
            with pytest.raises(ConfigurationError, match="SupportsLease"):
                cache.lock("l", ttl=5)
            return
        inside: list[int] = []
        most: list[int] = []

        def work(n: int) -> None:
            with cache.lock("l", ttl=10):
                inside.append(n)
                most.append(len(inside))
                time.sleep(0.002)
                inside.remove(n)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(40)))
        assert most == [1] * 40
        first, second = cache.lock("l", ttl=0.3), cache.lock("l", ttl=5)
        assert first.acquire()
        assert not second.acquire(wait=0)
        with pytest.raises(LockTimeout, match="'l'"), cache.lock("l", ttl=5, wait=0.05):
            pytest.fail("two holders")
        assert first.renew()
        assert second.acquire(wait=5)  # the first one's time ends
        assert not first.renew()
        first.release()
        assert not first.acquire(wait=0)
        second.release()
        assert first.acquire(wait=0)
        first.release()

    def test_a_life_may_depend_on_the_result(self, cache: CacheManager) -> None:
        @cache.cached(key="r:{n}", ttl=lambda result: None if result is None else 0.05 if result < 0 else 60)
        def find(n: int) -> int | None:
            calls.append(n)
            return n or None

        calls: list[int] = []
        assert [find(n) for n in (0, -1, 5)] == [None, -1, 5]
        assert cache.ttl("r:0") is None
        time.sleep(0.1)
        assert [find(n) for n in (0, -1, 5)] == [None, -1, 5]
        assert calls == [0, -1, 5, 0, -1]
        assert cache.get_or_load("one", lambda: 7, ttl=lambda seven: seven * 10) == 7
        assert 60 < (cache.ttl("one") or 0) <= 70

    def test_all_results_of_a_function_go_at_once_and_no_others(self, cache: CacheManager) -> None:
        calls: list[Any] = []

        @cache.cached(key="price:{n}")
        def price(n: int) -> int:
            calls.append(n)
            return n

        @cache.cached(key="stock:{n}", tags=lambda result: [f"s:{result}"])
        def stock(n: int) -> int:
            calls.append(str(n))
            return n

        def both() -> list[int]:
            return [f(n) for f in (price, stock) for n in (1, 2)]

        assert both() == both() == [1, 2, 1, 2]
        price.invalidate_all()
        both()
        assert calls == [1, 2, "1", "2", 1, 2]
        stock.invalidate_all()
        both()
        cache.invalidate_tags("s:1")
        both()
        assert calls[6:] == ["1", "2", "1"]

    # -- tasks ---------------------------------------------------------------------------------------

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
            if _has(cache, SupportsKeys):
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
