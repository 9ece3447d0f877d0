"""Many caches of one process on one server: few connections, one thread that hears, one that probes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading

import pytest

from eventperf.cache import BreakerChanged, CacheManager, RedisStore
from faults import stopped, wait_until

pytestmark = pytest.mark.integration

MANY = 60


def connections(server):
    """Count the connections to a server but for the one that asks."""
    with server.client() as client:
        return sum(not set(one["flags"]) & set("SM") for one in client.client_list()) - 1


others = set()


@pytest.fixture(autouse=True)
def not_ours():
    """Threads that other tests of this process have left."""
    gc.collect()
    others.clear()
    others.update(threading.enumerate())


def threads():
    """Name the threads there are for good; those that renew leases end by themselves, ten seconds later."""
    names = (thread.name for thread in threading.enumerate() if thread not in others)
    return [name for name in names if name.startswith("eventperf-cache") and not name.endswith("-lease")]


def heard(cache):
    return cache.stats().coherence == "tracking"


def open_all(url, count=MANY):
    caches = [CacheManager(RedisStore(url, timeout=2), namespace=f"tenant:{n}") for n in range(count)]
    for n, cache in enumerate(caches):
        cache.set("k", n, ttl=600)
        assert cache.get_or_load("loaded", lambda n=n: n) == n
    wait_until(lambda: all(map(heard, caches)), what="all to hear")
    return caches


def in_memory(cache, key):
    before = cache.stats().l1_hits
    cache.get(key)
    return cache.stats().l1_hits > before


def test_many_caches_share_connections_and_one_thread(private_redis):
    server = private_redis()
    caches = open_all(server.url)
    try:
        assert connections(server) <= 4
        assert threads() == ["eventperf-cache-channel"]

        async def use():
            for n, cache in enumerate(caches):
                await cache.aset("task", n, ttl=600)
                assert await cache.aget("task") == n
            await asyncio.gather(*(cache.aget_or_load("more", lambda: 1) for cache in caches))
            return connections(server)

        assert asyncio.run(use()) <= 8
        wait_until(lambda: connections(server) <= 4, what="the connections of the loop that ended")
    finally:
        for cache in caches:
            cache.close()
    wait_until(lambda: connections(server) == 0, what="the last connection")
    assert threads() == []


def test_many_caches_on_a_cluster_share_connections_to_each_node(redis_cluster):
    before = [connections(node) for node in redis_cluster.nodes]
    caches = open_all(redis_cluster.url)
    try:

        async def use():
            for n, cache in enumerate(caches):
                await cache.aset("task", n, ttl=600)
                assert await cache.aget("task") == n
            await asyncio.gather(*(cache.aget_or_load("more", lambda: 1) for cache in caches))
            return [connections(node) for node in redis_cluster.nodes]

        during = asyncio.run(use())
        assert max(now - then for now, then in zip(during, before, strict=True)) <= 8
        assert threads() == ["eventperf-cache-channel"]
    finally:
        for cache in caches:
            cache.clear()
            cache.close()


@pytest.mark.parametrize("coherence", ["tracking", "bus"])
def test_each_hears_of_its_namespace_when_others_come_and_go(private_redis, coherence):
    url = private_redis().url
    early, late = (
        [CacheManager(url, namespace=f"n{n}", coherence=coherence) for n in range(20)] for _ in range(2)
    )
    try:
        for turn, (writers, readers) in enumerate([(early, late), (late, early), (early[10:], late[10:])]):
            for writer, reader in zip(writers, readers, strict=True):
                writer.set("k", turn)
                wait_until(lambda r=reader, t=turn: r.get("k") == t, what="the write")
                wait_until(lambda r=reader: in_memory(r, "k"), what="the entry in process memory")
            for writer, reader in zip(writers, readers, strict=True):
                writer.invalidate("k")
                wait_until(lambda r=reader: r.get("k") is None, what="the invalidation")
            if turn == 1:
                for cache in (*early[:10], *late[:10]):
                    cache.close()
    finally:
        for cache in (*early, *late):
            cache.close()


def test_closing_one_leaves_the_others(private_redis):
    server = private_redis()
    first, second = open_all(server.url, 2)
    with first:
        second.close()
        second.close()
        assert first.get("k") == 0
        assert heard(first)

        async def leave():
            third = CacheManager(server.url, namespace="third")
            await third.aset("k", 3)
            await first.aset("task", 1)
            await third.aclose()
            assert await first.aget("task") == 1
            await first.aset("task", 2)

        asyncio.run(leave())
        assert heard(first)
        assert first.get("task") == 2


def test_caches_that_nobody_closed_end_with_the_last_reference(private_redis):
    server = private_redis()
    caches = open_all(server.url, 5)
    del caches[1:]
    gc.collect()
    assert heard(caches[0])
    caches.clear()
    gc.collect()
    wait_until(lambda: threads() == [], what="the thread")
    gc.collect()  # what the thread held until now
    wait_until(lambda: connections(server) == 0, what="the last connection")


@pytest.mark.parametrize("other", ["/1", "/0?health_check_interval=7"])
def test_other_options_are_other_connections(private_redis, other):
    url = private_redis().url
    with CacheManager(url, namespace="a") as one, CacheManager(f"{url[:-2]}{other}", namespace="a") as two:
        one.set("k", "one")
        two.set("k2", "two")
        assert one.store.server is not two.store.server
        assert one.get("k") == "one"
        assert two.get("k2") == "two"
    with RedisStore(url).server.links.client() as host:
        given = RedisStore(client=host)
        assert given.server is RedisStore(client=host).server
        assert given.server is not RedisStore(url).server


def test_a_silent_server_is_told_once_and_all_are_told_when_it_answers(private_redis, caplog):
    server = private_redis()
    caches = open_all(server.url, 20)
    changes = []
    for cache in caches:
        cache.on(lambda event: changes.append(event.state), BreakerChanged)
    try:
        with caplog.at_level(logging.INFO, "eventperf.cache"), stopped(server):
            caches[0].delete("k")
            wait_until(lambda: caches[0].stats().breaker == "open", what="the breaker")
            for cache in caches:
                cache.invalidate("k")
                assert cache.stats().breaker == "open"
                assert cache.get("k", "gone") == "gone"
            assert threads().count("eventperf-cache-probe") == 1
            assert threads().count("eventperf-cache-replay") == 1
        wait_until(lambda: all(c.stats().breaker == "closed" for c in caches), 10, what="the recovery")
        assert [cache.stats().replay_queue for cache in caches] == [0] * 20
        assert [cache.get("k", "gone") for cache in caches] == ["gone"] * 20
        assert changes == ["open"] * 20 + ["closed"] * 20
        said = [r.getMessage() for r in caplog.records if "does not answer" in r.getMessage()]
        assert len(said) == 1
    finally:
        for cache in caches:
            cache.close()


def test_a_refusal_is_told_once_for_all(private_redis, caplog):
    server = private_redis()
    with server.client() as client:
        client.config_set("maxmemory", "1")
        caches = [CacheManager(server.url, namespace=f"full{n}") for n in range(20)]
        for cache in caches:
            cache.get_or_load("k", lambda: 1)
            cache.close()
    said = [r.getMessage() for r in caplog.records if "OOM" in r.getMessage()]
    assert len(said) == len(set(said)) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_leaves_parent_and_child_connections_of_their_own(private_redis):
    server = private_redis()
    caches = open_all(server.url, 5)
    try:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for n, cache in enumerate(caches):
                    assert cache.get("k") == n
                    cache.set("k", -n)
                wait_until(lambda: all(map(heard, caches)), what="the child to hear")
                caches.pop().close()
                assert caches[0].get("k") == 0
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        wait_until(lambda: caches[3].get("k") == -3, what="the child's write")
        assert all(map(heard, caches))
        assert threads() == ["eventperf-cache-channel"]
    finally:
        for cache in caches:
            cache.close()
