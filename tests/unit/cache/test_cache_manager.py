"""Process memory alone: exact lives on a fake clock, stale values, limits, bad input."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

import eventperf
from eventperf.cache import CacheManager, CacheOptions, LoadTimeout, MemoryStore, UnstableKey, configure
from eventperf.cache.stats import LoadFailed
from eventperf.errors import ConfigurationError
from eventperf.testing import FakeClock, assert_bounded


def test_lives_are_exact_on_a_clock_of_the_test():
    clock = FakeClock()
    cache = CacheManager(clock=clock, ttl=10)
    loads = []

    @cache.cached(key="k:{n}")
    def f(n):
        loads.append(n)
        return n

    f(1), f(1)
    clock.advance(9.99)
    f(1)
    assert loads == [1]
    clock.advance(0.02)
    f(1)
    assert loads == [1, 1]


def test_a_cached_function_forgets_in_time_without_looking_at_the_clock():
    cache = CacheManager()
    loads = []

    @cache.cached(ttl=0.6)
    def f(n):
        loads.append(n)
        return n

    for _ in range(100):
        f(1)
    assert len(loads) == 1
    time.sleep(0.8)
    f(1)
    assert len(loads) == 2
    assert cache.stats().l1_hits == 99


def test_grace_serves_the_old_value_when_a_load_fails():
    clock = FakeClock()
    cache = CacheManager(clock=clock, options=CacheOptions(ttl=10, grace=60))
    seen = []
    cache.on(seen.append, LoadFailed)
    cache.get_or_load("k", lambda: "old")
    clock.advance(11)
    assert cache.get_or_load("k", lambda: 1 / 0) == "old"
    assert seen[0].served_stale
    assert cache.stats().stale == 1
    clock.advance(60)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("k", lambda: 1 / 0)


def test_stale_while_revalidate_answers_at_once_and_refreshes_behind():
    clock = FakeClock()
    cache = CacheManager(clock=clock, options=CacheOptions(ttl=10, stale_while_revalidate=60))
    cache.get_or_load("k", lambda: "old")
    clock.advance(11)
    release = threading.Event()

    def load():
        release.wait(5)
        return "new"

    assert cache.get_or_load("k", load) == "old"
    assert cache.get_or_load("k", load) == "old"
    release.set()
    for _ in range(500):
        if cache.get("k") == "new":
            break
        time.sleep(0.01)
    assert cache.get("k") == "new"


def test_timeouts_of_loaders():
    cache = CacheManager(options=CacheOptions(hard_timeout=0.05))
    release = threading.Event()
    with pytest.raises(LoadTimeout) as caught:
        cache.get_or_load("k", lambda: release.wait(5))
    assert caught.value.key == "k"
    release.set()
    for _ in range(500):
        if cache.get("k") is True:
            break
        time.sleep(0.01)
    assert cache.get("k") is True  # it went on behind

    async def main():
        async def slow():
            await asyncio.sleep(5)

        with pytest.raises(LoadTimeout):
            await cache.aget_or_load("async", slow)

    asyncio.run(main())


def test_negative_ttl_and_cache_if():
    clock = FakeClock()
    options = CacheOptions(ttl=100, negative_ttl=5, cache_if=lambda v: v != "bad")
    cache = CacheManager(clock=clock, options=options)
    cache.get_or_load("none", lambda: None)
    assert cache.get("none", "absent") is None
    clock.advance(6)
    assert cache.get("none", "absent") == "absent"
    cache.get_or_load("k", lambda: "bad")
    assert cache.get("k", "absent") == "absent"


def test_early_refresh_spreads_over_the_last_part_of_a_life():
    from eventperf.cache.policy import early_by

    assert early_by(1.0, 0.0, 0.5) == 0
    assert early_by(1.0, 1.0, 1.0) == 0
    assert early_by(2.0, 1.0, 0.3679) == pytest.approx(2.0, rel=1e-3)


def test_one_long_export_does_not_evict_what_is_read_often():
    cache = CacheManager(l1=MemoryStore(max_entries=1000))
    for n in range(300):
        cache.set(f"event:{n}", n)
    for _ in range(3):
        for n in range(300):
            assert cache.get(f"event:{n}") == n
    for n in range(100_000):
        cache.set(f"export:{n}", n)
    kept = sum(cache.get(f"event:{n}") == n for n in range(300))
    assert kept >= 295
    assert cache.stats().entries <= 1000


def test_a_group_keeps_to_its_quota():
    cache = CacheManager(l1=MemoryStore(max_entries=100, group_ratio=0.5))
    for n in range(90):
        cache.set(f"export:{n}", n)
    assert cache.stats().entries == 50


def test_bytes_bound_process_memory():
    cache = CacheManager(l1=MemoryStore(max_bytes=100_000))
    for n in range(1000):
        cache.set(f"k{n}", b"x" * 1000)
    cache.set("huge", b"x" * 200_000)
    assert cache.get("huge", "refused") == "refused"
    assert 50_000 < cache.stats().size_bytes <= 100_000


def test_equal_arguments_share_an_entry_and_others_never():
    cache = CacheManager()

    @cache.cached
    def kind(value):
        return repr(value)

    assert kind(1) == kind(True) == kind(1.0)
    assert kind("1") != kind(1)
    assert kind("a:b") != kind("a%3Ab")
    assert kind(None) != kind("None")
    berlin = timezone(timedelta(hours=1))
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    assert kind(noon) == kind(noon.astimezone(berlin))
    assert kind(("a", "b")) != kind(("a,b",))


def test_arguments_without_stable_text_are_refused_by_name():
    cache = CacheManager()

    class Request:
        pass

    @cache.cached
    def view(request):
        return 1

    with pytest.raises(UnstableKey, match="'request' is a Request"):
        view(Request())
    assert issubclass(UnstableKey, TypeError)
    with pytest.raises(TypeError, match="self_key="):

        class Repository:
            @cache.cached
            def find(self, n):
                return n


def test_methods_know_their_object():
    cache = CacheManager()
    loads = []

    class Repository:
        def __init__(self, name):
            self.name = name

        @cache.cached(self_key="name")
        def find(self, n):
            loads.append((self.name, n))
            return n

        @cache.cached(key="a:{self.name}:{n}")
        async def afind(self, n):
            loads.append((self.name, n))
            return n

    one, two = Repository("one"), Repository("two")
    assert (one.find(1), one.find(1), two.find(1)) == (1, 1, 1)
    assert loads == [("one", 1), ("two", 1)]
    one.find.invalidate(1)
    assert one.find(1) == 1
    assert one.find.bypass(5) == 5
    assert asyncio.run(one.afind(2)) == 2
    assert one.afind.key(2) == "a:one:2"


def test_a_loader_for_coroutines_is_named_in_a_sync_call():
    cache = CacheManager()

    async def load():
        return 1

    with pytest.raises(TypeError, match="aget_or_load"):
        cache.get_or_load("k", load)


def test_keys_that_wait_for_each_other_do_not_stand_still():
    cache = CacheManager()
    barrier = threading.Barrier(2)

    def load(other):
        def inner():
            try:
                barrier.wait(1)
            except threading.BrokenBarrierError:
                pass
            return cache.get_or_load(other, lambda: "direct")

        return inner

    threads = [threading.Thread(target=cache.get_or_load, args=(k, load(o))) for k, o in ("ab", "ba")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_two_loops_share_one_load():
    cache = CacheManager()
    loads = []

    async def load():
        loads.append(1)
        await asyncio.sleep(0.1)
        return 1

    results = []

    def loop():
        results.append(asyncio.run(cache.aget_or_load("k", load)))

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 4
    assert len(loads) == 1


def test_warm_up_in_order_with_a_report():
    cache = CacheManager()
    order = []

    @cache.warmer("system_configuration")
    def configuration():
        order.append("system_configuration")
        return {"tz": "UTC"}

    @cache.warmer("active_events", ttl=300, after=("system_configuration",))
    def events():
        order.append("active_events")
        return [1]

    @cache.warmer("popular_event_types")
    def broken():
        raise OSError("database away")

    @cache.warmer("user_permissions")
    def permissions():
        return {f"user_permissions:{n}": ["read"] for n in range(3)}

    report = cache.warm(concurrency=4)
    assert order == ["system_configuration", "active_events"]
    assert {r.name: r.status for r in report.results} == {
        "system_configuration": "loaded",
        "active_events": "loaded",
        "popular_event_types": "failed",
        "user_permissions": "loaded",
    }
    assert report["user_permissions"].entries == 3
    assert cache.get("user_permissions:2") == ["read"]
    assert cache.get("active_events") == [1]
    assert not report.ok
    assert not cache.is_ready
    assert "database away" in str(report)
    assert asyncio.run(cache.awarm("active_events"))["active_events"].status == "shared"


def test_a_preset_without_a_loader_is_reported():
    cache = CacheManager()
    cache.preset()
    report = cache.warm()
    assert {r.status for r in report.results} == {"missing_loader"}
    assert not cache.is_ready


def test_switched_off_it_loads_and_remembers_nothing():
    cache = CacheManager()
    cache.set("k", 1)
    cache.enable(False)
    assert cache.get_or_load("k", lambda: 2) == 2
    assert cache.get("k", "absent") == "absent"


def test_eventperf_cached_binds_late(monkeypatch):
    monkeypatch.setattr("eventperf.cache.default._chosen", None)

    @eventperf.cached(ttl=60)
    def f(n):
        return n

    with pytest.warns(RuntimeWarning, match="configure"):
        assert f(1) == 1
    mine = configure(namespace="mine")
    assert f(2) == 2
    assert mine.stats().stores == 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: CacheManager(ttl=-1), "ttl: got -1"),
        (lambda: CacheManager(ttl=0), "ttl: got 0"),
        (lambda: CacheManager(coherence="magic"), "'tracking', 'bus', 'ttl'"),
        (lambda: CacheManager("memcached://h"), "url: got 'memcached://'"),
        (lambda: CacheManager("redis://h:6379/zero"), "database number"),
        (lambda: CacheManager("redis://h1,h2"), r"redis\+cluster"),
        (lambda: CacheManager(namespace=""), "namespace"),
        (lambda: CacheManager(l1=5), "MemoryStore"),
        (lambda: MemoryStore(max_entries=0), "max_entries"),
        (lambda: CacheOptions(grace=-1), "grace"),
        (lambda: CacheOptions(jitter_ratio=2), "jitter_ratio"),
        (lambda: CacheManager().set("k", 1, tags="event:1"), "tags"),
        (lambda: CacheManager().get(5), "key: got 5"),
        (lambda: CacheManager().cached(key="e:{nope}")(lambda n: n), "parameters"),
        (lambda: CacheManager().warm("nothing"), "name: got 'nothing'"),
    ],
)
def test_bad_input_gets_one_sentence(call, text):
    with pytest.raises(ConfigurationError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_passwords_stay_out_of_sight():
    cache = CacheManager("redis://app:s3cret@127.0.0.1:1/0")
    assert "s3cret" not in repr(cache)
    cache.close()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    key: str


class Closed(Exception):
    """It lets nobody set anything on it, ``__traceback__`` and ``__context__`` included."""

    def __setattr__(self, name, value):
        raise AttributeError(name)

    def with_traceback(self, trace):
        raise RuntimeError


@pytest.mark.parametrize("error", [Frozen("k"), Closed("k")], ids=repr)
@pytest.mark.parametrize("is_behind", [False, True], ids=["here", "behind"])
def test_a_loader_s_error_comes_out_as_itself(error, is_behind):
    """Also one that cannot be changed: what surrounds the loader sets nothing on it."""

    def fail(*_keys):
        raise error

    options = CacheOptions(hard_timeout=30) if is_behind else None
    with CacheManager() as cache:
        calls = [
            lambda: cache.get_or_load("k", fail, options=options),
            lambda: cache.refresh("k", fail, options=options),
            lambda: cache.get_or_load_many(["k"], fail, options=options),
            cache.cached(key="k", options=options)(lambda: fail()),
        ]
        for call in calls:
            with pytest.raises(type(error)) as caught:
                call()
            assert caught.value is error

        async def afail(*_keys):
            fail()

        async def many():
            ways = (cache.aget_or_load("a", afail, options=options), cache.aget_or_load_many(["b"], afail))
            more = (cache.aget_or_load("a", afail) for _ in range(3))
            return await asyncio.gather(*ways, *more, return_exceptions=True)

        assert all(one is error for one in asyncio.run(many()))
        assert cache.stats().load_errors >= len(calls)


ENDS = {
    "set": lambda cache: cache.set("k", 1),
    "load": lambda cache: cache.refresh("k", lambda: 1),
    "delete": lambda cache: cache.delete("k"),
    "tag": lambda cache: cache.invalidate_tags("t"),
    "pattern": lambda cache: cache.invalidate_pattern("k*"),
    "clear": lambda cache: cache.clear(),
    "evicted": lambda cache: cache.set_many({f"new{n}": n for n in range(200)}),
    "added": lambda cache: [cache.add(f"new{n}", n) for n in range(200)],
}


@pytest.mark.parametrize("end", ENDS)
def test_the_destructor_of_a_value_may_use_the_cache(end):
    """It runs where the last reference goes, which is inside of the cache, or at any allocation there."""
    cache, seen = CacheManager(l1=MemoryStore(max_entries=50)), []

    class Handle:
        def __del__(self):
            cache.set("k", "again", tags=["t"])
            cache.get_or_load("other", lambda: 2)
            cache.delete("other")
            cache.invalidate_tags("unknown")
            seen.append(cache.get("k"))

    def use():
        cache.set("k", Handle(), tags=["t"])
        ENDS[end](cache)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it waits for itself"
    gc.collect()
    assert seen
    store = cache._core.l1
    for n in range(200):
        cache.set(f"more{n}", n, tags=["t"])
    assert len(store.table) == 50
    assert all(store.table[key].key == key for key in store.table)
    assert_bounded(cache, most=3_000)
    cache.close()
