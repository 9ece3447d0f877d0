"""The known ways to fail, on real servers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import cache_children
from eventperf.cache import CacheManager, CacheOptions, RedisStore, StoreUnavailable
from faults import TcpProxy, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(params=["redis", "cluster"])
def url(request):
    return request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster_url")


@pytest.fixture
def pair(url):
    name = f"pair-{os.getpid()}-{time.monotonic_ns()}"
    with (
        CacheManager(RedisStore(url, timeout=2), namespace=name) as a,
        CacheManager(RedisStore(url, timeout=2), namespace=name) as b,
    ):
        for cache in (a, b):
            cache.get_or_load("hello", lambda: 1)
            wait_until(lambda cache=cache: cache.stats().coherence == "tracking", what="the channel")
        yield a, b
        a.clear()


def in_memory(cache, key):
    before = cache.stats().l1_hits
    cache.get(key)
    return cache.stats().l1_hits > before


def held(cache, key):
    wait_until(lambda: in_memory(cache, key), what="the entry in process memory")


def test_a_write_elsewhere_ends_the_old_value_here(pair):
    a, b = pair
    lags = []
    for n in range(30):
        a.set("k", n)
        held(b, "k")
        a.set("k", -n - 1)
        started = time.perf_counter()
        wait_until(lambda n=n: b.get("k") == -n - 1, 20, every=0.0002, what="the new value")
        lags.append(time.perf_counter() - started)
    assert sorted(lags)[len(lags) // 2] < 0.05


def test_any_client_of_the_server_is_noticed(pair):
    a, b = pair
    a.set("k", 1)
    held(b, "k")
    a.store.delete([f"{a.namespace}:1:k"])  # as redis-cli would
    wait_until(lambda: b.get("k", "gone") == "gone", 20, what="the deletion to be noticed")


def test_a_tag_dropped_elsewhere_ends_its_entries_here(pair):
    a, b = pair
    for n in range(50):
        b.get_or_load(f"k{n}", lambda n=n: n, tags=["event:1"])
    held(b, "k1")
    a.invalidate_tags("event:1")
    wait_until(lambda: b.get_many([f"k{n}" for n in range(50)]) == {}, 20, what="the tag to end its entries")


def test_racing_writes_leave_nothing_stale(pair):
    a, b = pair
    keys = [f"k{n}" for n in range(100)]
    stop = threading.Event()

    def read():
        while not stop.is_set():
            b.get_many(keys)
            for key in keys[:10]:
                b.get(key)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    final = {}
    for n in range(600):
        key = keys[n * 7 % 100]
        final[key] = n
        a.set(key, n)
    stop.set()
    for reader in readers:
        reader.join()
    # What is stale now is stale for as long as process memory keeps it (a minute), far beyond the wait.
    wait_until(lambda: b.get_many(keys) == final, 5, what="both processes to agree")


def test_killed_connections_serve_nothing_stale_and_raise_nothing(private_redis):
    server = private_redis()
    with CacheManager(server.url, namespace="kill") as a, CacheManager(server.url, namespace="kill") as b:
        a.set("k", 1)
        held(b, "k")
        for n in range(2, 6):
            client = server.client()
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            a.set("k", n)
            wait_until(lambda n=n: b.get("k") == n, 20, what="the new value after the kill")
            client.close()
            held(b, "k")


def test_a_black_hole_costs_one_timeout_and_recovers(private_redis):
    server = private_redis()
    with (
        TcpProxy(server.host, server.port) as proxy,
        CacheManager(proxy.url(server.url), namespace="hole") as cache,
    ):
        cache.set("k", "old")
        held(cache, "k")
        proxy.black_hole()
        times = []
        for n in range(50):
            started = time.perf_counter()
            assert cache.get_or_load(f"k{n}", lambda n=n: n) == n
            times.append(time.perf_counter() - started)
        assert times[0] < 0.5
        assert sorted(times[1:])[25] < 0.01
        cache.invalidate("k")
        assert cache.get("k", "gone") == "gone"
        assert cache.stats().breaker == "open"
        assert cache.stats().replay_queue == 1
        proxy.heal()
        wait_until(lambda: cache.stats().breaker == "closed", 5, what="recovery")
        assert cache.get("k", "gone") == "gone"
        assert cache.stats().replayed == 1


def test_refused_and_frozen_servers_are_bridged_by_the_loader(private_redis):
    server = private_redis()
    url = server.url
    with CacheManager(url, namespace="down") as cache:
        cache.set("k", 1)
        server.stop()
        wait_until(lambda: cache.get("k", "absent") == "absent", 5, what="the lost channel to be noticed")
        assert cache.get_or_load("k", lambda: 2) == 2
        assert cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, 3)) == {"a": 3, "b": 3}
        with pytest.raises(StoreUnavailable, match="not available"):
            cache.counter("n").incr()

        async def main():
            async with CacheManager(url, namespace="down2") as other:
                return await other.aget_or_load("k", lambda: 5)

        assert asyncio.run(main()) == 5


def test_a_server_that_takes_no_writes_is_bridged(private_redis):
    server = private_redis()
    with CacheManager(server.url, namespace="oom") as cache:
        cache.set("k", 1)
        client = server.client()
        client.config_set("maxmemory", 1)
        client.config_set("maxmemory-policy", "noeviction")
        assert cache.get_or_load("new", lambda: 2) == 2
        cache.set("k", 3)
        assert cache.get("k", "absent") in (3, "absent")
        client.config_set("maxmemory", 0)
        client.close()


def test_foreign_and_damaged_bytes_are_counted_misses(url):
    with CacheManager(RedisStore(url, timeout=2), namespace=f"bad-{time.monotonic_ns()}", l1=None) as cache:
        for n, blob in enumerate((b"plain text", b"\x80\x04\x95.", b"E1V", b"E1V" + b"0" * 200, b"")):
            cache.store.set_many([(f"{cache.namespace}:1:k{n}", blob, 60)])
            assert cache.get(f"k{n}", "miss") == "miss"
            assert cache.get_or_load(f"k{n}", lambda: "good") == "good"
            assert cache.get(f"k{n}") == "good"
        assert cache.stats().corrupt >= 4
        cache.clear()


def test_a_changed_class_is_a_miss(redis_url):
    import cache_shapes

    with CacheManager(RedisStore(redis_url, timeout=2), namespace="shape", l1=None) as cache:
        cache.set("k", cache_shapes.Seat(1, "A"))
        assert cache.get("k") == cache_shapes.Seat(1, "A")
        original = cache_shapes.Seat
        try:
            cache_shapes.Seat = cache_shapes.make_other()
            assert cache.get("k", "miss") == "miss"
        finally:
            cache_shapes.Seat = original
        cache.clear()


def test_fifty_megabytes_pass(redis_url):
    with CacheManager(RedisStore(redis_url, timeout=10), namespace="big") as cache:
        value = os.urandom(50_000_000)
        cache.set("k", value)
        assert cache.get("k") == value
        cache.clear()


def test_processes_share_one_load(url, tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, out, go = context.Queue(), context.Queue(), context.Event()
    path = tmp_path / "loads"
    with CacheManager(RedisStore(url, timeout=2), namespace="procs") as cache:
        cache.clear()
    arguments = (url, str(path), ready, go, out)
    children = [context.Process(target=cache_children.loads_in_child, args=arguments) for _ in range(3)]
    for child in children:
        child.start()
    for _ in children:
        ready.get(timeout=30)
    go.set()
    results = [out.get(timeout=30) for _ in children]
    for child in children:
        child.join(30)
    assert results == [[42] * 20] * 3
    assert path.read_text().count("load") == 1


def test_a_dead_leader_is_replaced_within_its_lease(redis_url):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    options = CacheOptions(lease=0.6)
    with CacheManager(RedisStore(redis_url, timeout=2), namespace="dies", options=options) as cache:
        cache.clear()
        child = context.Process(target=cache_children.dies_while_loading, args=(redis_url, started))
        child.start()
        assert started.wait(30)
        child.kill()
        child.join()
        assert cache.get_or_load("k", lambda: 1) == 1
        cache.clear()


def test_a_long_load_keeps_its_lease(redis_url):
    options = CacheOptions(lease=0.3)
    loads = []

    def load():
        loads.append(1)
        time.sleep(1.2)
        return 1

    store = RedisStore(redis_url, timeout=2)
    with (
        CacheManager(store, namespace="long", options=options) as a,
        CacheManager(RedisStore(redis_url, timeout=2), namespace="long", options=options) as b,
    ):
        a.clear()
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda c: c.get_or_load("k", load), (a, b))) == [1, 1]
        assert len(loads) == 1
        a.clear()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_works_on_its_own(redis_url):
    context = multiprocessing.get_context("fork")
    with CacheManager(RedisStore(redis_url, timeout=2), namespace="fork") as cache:
        cache.set("k", 1)
        held(cache, "k")
        out = context.Queue()
        child = context.Process(target=cache_children.in_fork, args=(cache, out))
        child.start()
        assert out.get(timeout=20) == (1, "loaded here", 1)
        child.join(20)
        assert child.exitcode == 0
        wait_until(lambda: cache.get("from-child") == 1, what="the parent to see the child's write")
        cache.clear()


def test_two_hundred_callers_fit_the_default_pool(redis_url):
    loads = []

    def load():
        loads.append(1)
        time.sleep(0.05)
        return 1

    with CacheManager(RedisStore(redis_url, timeout=2), namespace="crowd") as cache:
        cache.clear()
        with ThreadPoolExecutor(200) as pool:
            assert list(pool.map(lambda _: cache.get_or_load("k", load), range(200))) == [1] * 200
            assert list(pool.map(lambda n: cache.get_or_load(f"k{n}", load), range(200))) == [1] * 200
        assert len(loads) == 201
        cache.clear()


def test_a_failover_serves_nothing_stale(private_redis_cluster):
    cluster = private_redis_cluster()
    with CacheManager(RedisStore(cluster.url, timeout=1), namespace="fail") as cache:
        keys = [f"k{n}" for n in range(30)]
        cache.set_many(dict.fromkeys(keys, "old"))
        cache.get_many(keys)
        master = cluster.master_of("fail:1:k0")
        cluster.failover(master)
        cache.get_or_load("probe", lambda: 1)  # raises nothing, whatever the cluster's state
        wait_until(lambda: cache.stats().breaker == "closed", 10, what="the breaker to close")

        def rewritten():
            cache.set_many(dict.fromkeys(keys, "new"))
            return cache.get_many(keys) == dict.fromkeys(keys, "new")

        wait_until(rewritten, 10, every=0.1, what="writes after the failover")
        wait_until(lambda: in_memory(cache, "k0"), 10, every=0.05, what="process memory after the failover")


def test_a_pattern_reaches_keys_that_moved_to_another_master(private_redis_cluster):
    """Who swept before goes by an old map: a master that was demoted lists its keys, and deletes none."""
    cluster = private_redis_cluster()
    keys = [f"k{n}" for n in range(30)]
    with (
        CacheManager(RedisStore(cluster.url, timeout=1), namespace="moved") as cache,
        CacheManager(RedisStore(cluster.url, timeout=1), namespace="moved", l1=None) as other,
    ):
        cache.set_many(dict.fromkeys(keys, "old"))
        cache.invalidate_pattern("nothing*")
        cluster.failover(cluster.master_of("moved:1:k0"))
        assert set(cache.keys("k*")) == set(keys)
        cache.invalidate_pattern("k*")
        wait_until(lambda: cache.stats().replay_queue == 0, 10, what="the replay")
        assert other.get_many(keys) == {}
