"""Around entries and functions: lives, keys, add, locks."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eventperf.cache import (
    FOREVER,
    CacheManager,
    CacheOptions,
    LockTimeout,
    SupportsLease,
    escape,
)
from eventperf.cache.protocols import SupportsKeys
from eventperf.errors import ConfigurationError

from .tools import StoreTests, has


class AroundTests(StoreTests):
    """What stands around entries and functions."""

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
        cache.lock("ev:lock", ttl=5).acquire() if has(cache, SupportsLease) else None
        cache.counter("ev:visits").incr()
        if not has(cache, SupportsKeys):
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
        if not has(cache, SupportsLease):
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

    def test_all_results_go_whichever_functions_like_it_have_come_and_gone(self, cache: CacheManager) -> None:
        def made(prefix: str) -> tuple[Any, list[int]]:
            calls: list[int] = []

            @cache.cached(key=f"{prefix}:{{n}}")
            def load(n: int) -> int:
                calls.append(n)
                return n

            return load, calls

        first, _ = made("first")
        first(1)
        second, calls = made("second")
        second(1)
        del first
        gc.collect()
        second.invalidate_all()
        second(1)
        assert calls == [1, 1]

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
