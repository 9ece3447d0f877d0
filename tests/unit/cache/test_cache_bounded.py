"""What the figures and the bounds cost does not grow with what is held, and nothing grows without end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

import eventperf
from eventperf.cache import CacheManager, CacheOptions, MemoryStore, configure
from eventperf.testing import FakeClock, assert_bounded, containers


class Values:
    def __init__(self, table: Looked) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self):
        self.table.looks += len(self.table)
        return iter(list(dict.values(self.table)))


class Looked(dict):
    """Counts how often anybody looks."""

    looks = 0

    def __getitem__(self, key):
        self.looks += 1
        return super().__getitem__(key)

    def values(self):
        return Values(self)

    def __iter__(self) -> Iterator[str]:
        self.looks += len(self)
        return super().__iter__()


def full_store(entries: int, **options) -> tuple[CacheManager, Looked]:
    store = MemoryStore(max_entries=10_000, **options)
    store.table = Looked()
    cache = CacheManager(l1=store)
    for n in range(entries):
        cache.set(f"big:{n}", n)
    store.table.looks = 0
    return cache, store.table


def test_figures_look_at_no_entry():
    cache, table = full_store(5_000)
    assert cache.get("big:7") == 7
    cache.get_many(["big:1", "big:2"])
    table.looks = 0
    stats = cache.stats()
    assert (stats.entries, stats.hits) == (5_000, 3)
    assert table.looks == 0


def test_a_full_group_makes_room_without_walking_the_store():
    cache, table = full_store(6_000, group_ratio=0.5)
    assert cache.stats().entries == 5_000
    table.looks = 0
    for n in range(100):
        cache.set(f"big:new:{n}", n)
    assert cache.stats().entries == 5_000
    assert table.looks <= 100 * 30


def test_a_full_group_keeps_what_is_read_and_what_is_new():
    cache = CacheManager(l1=MemoryStore(max_entries=100, group_ratio=0.1))
    cache.set("a:read", 1)
    for n in range(50):
        assert cache.get("a:read") == 1
        cache.set(f"a:{n}", n)
        assert cache.get(f"a:{n}") == n


def test_a_quota_of_one_keeps_the_newcomer():
    cache = CacheManager(l1=MemoryStore(max_entries=10, group_ratio=0.1))
    for n in range(5):
        cache.set(f"a:{n}", n)
        cache.get(f"a:{n}")
    assert cache.get_many([f"a:{n}" for n in range(5)]) == {"a:4": 4}


def test_functions_count_their_own_hits_also_those_that_are_gone():
    cache = CacheManager()

    def make(n):
        @cache.cached(key=f"f{n}:{{x}}")
        def f(x: int) -> int:
            return x

        @cache.cached(key=lambda *a, **k: f"g{n}:{a}")
        def g(*a: int) -> int:
            return n

        return f, g

    for n in range(100):
        for f in make(n):
            assert [f(1), f(1), f(1)].count(f(1)) == 3
        del f
    gc.collect()
    make(100)[0](1)
    assert cache.stats().hits == 100 * 2 * 3
    assert len(cache._core.tallies) < 150


def test_coroutines_count_too():
    cache = CacheManager()

    @cache.cached
    async def f(x: int) -> int:
        return x

    for _ in range(4):
        asyncio.run(f(1))
    assert cache.stats().hits == 3


def test_a_function_that_changes_its_manager_is_counted_by_each_for_its_time(monkeypatch):
    monkeypatch.setattr("eventperf.cache.default._chosen", None)
    first, second = CacheManager(), CacheManager()

    @eventperf.cached
    def f(x: int) -> int:
        return x

    for manager, calls in ((first, 3), (second, 5)):
        configure(manager)
        f.key(1)
        for _ in range(calls):
            f(1)
    assert (first.stats().hits, second.stats().hits) == (2, 4)


@pytest.mark.parametrize("ttl", [3600, float("inf")])
def test_entries_that_die_before_their_end_leave_nothing(ttl):
    cache = CacheManager(l1=MemoryStore(max_entries=100), options=CacheOptions(ttl=3600))
    for n in range(20_000):
        cache.set(f"k:{n}", n, ttl=ttl, tags=[f"t{n}"])
    assert_bounded(cache, most=1_300)


def test_every_table_of_a_busy_manager_is_found_and_bounded():
    cache = CacheManager(l1=MemoryStore(max_entries=50), clock=FakeClock())
    assert containers(cache)["_core.spaces"] == 1
    for n in range(12_000):
        cache.get(f"k:{n}", options=CacheOptions(namespace=f"tenant:{n}"))
    assert_bounded(cache, most=10_000)
    cache._core.wakes.planted = [f"k:{n}" for n in range(10_001)]
    with pytest.raises(AssertionError, match=r"_core\.wakes\.planted': 10001"):
        assert_bounded(cache, most=10_000)


def test_what_closures_hide_and_what_is_spread_over_many_small_ones_is_found():
    cache = CacheManager()
    hidden: list[int] = list(range(500))
    cache._core.hooks.subscribe(lambda _: hidden)
    cache._core.fences.spread = {n: [1] * 10 for n in range(100)}
    found = containers(cache)
    assert 500 in found.values()
    assert found["_core.fences.spread[]"] == 1_000


def test_copies_of_tags_are_bounded_by_what_process_memory_was_set_to():
    for entries, most in ((10, 1_000), (5_000, 5_000), (1_000_000, 100_000)):
        with CacheManager(l1=MemoryStore(max_entries=entries)) as cache:
            copies = cache._core.tag_cache
            for n in range(most + 50):
                copies.keep(f"tag:{n}", "c")
            assert len(copies) == most
            assert copies.get(f"tag:{most + 49}") == "c"
