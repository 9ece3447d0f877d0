"""Redis behind Sentinel: the master is the one the Sentinels name, before and after a failover."""

from __future__ import annotations

import asyncio

import pytest

from eventperf.cache import CacheManager, RedisStore
from eventperf.errors import ConfigurationError
from faults import wait_until

pytestmark = pytest.mark.integration

KEYS = [f"k{n}" for n in range(20)]


def opened(sentinel):
    return CacheManager(RedisStore(sentinel.url, timeout=0.5), namespace="watched")


def follows_writes(reader, writer, value):
    """Whether the reader holds what it read in process memory and hears of the next write."""
    writer.set("probe", value)
    reader.get("probe")
    return reader.stats().coherence == "tracking" and reader.get("probe") == value


@pytest.mark.parametrize("how", ["the master is killed", "an operator asks for it"])
def test_after_a_failover_writes_go_to_the_new_master_and_nothing_is_stale(private_redis_sentinel, how):
    sentinel = private_redis_sentinel()
    with opened(sentinel) as reader, opened(sentinel) as writer:
        writer.set_many(dict.fromkeys(KEYS, "old"))
        assert reader.get_many(KEYS) == dict.fromkeys(KEYS, "old")
        old = sentinel.master
        if how == "the master is killed":
            old.kill9()
        else:
            sentinel.sentinels[0].execute("SENTINEL FAILOVER", sentinel.SERVICE)
        for n in range(50):  # nobody's caller hears of it
            assert reader.get_or_load(f"during{n}", lambda: "loaded") == "loaded"
        wait_until(lambda: sentinel.master is not old, 30, what="the failover")
        for cache in (reader, writer):
            wait_until(lambda c=cache: c.stats().breaker == "closed", 30, what="the breaker to close")

        def rewritten():
            writer.set_many(dict.fromkeys(KEYS, "new"))
            return b"new" in sentinel.master.execute("GET", "watched:1:k0")

        wait_until(rewritten, 30, every=0.1, what="writes on the new master")
        wait_until(lambda: reader.get_many(KEYS) == dict.fromkeys(KEYS, "new"), 30, what="the new values")
        wait_until(lambda: follows_writes(reader, writer, "a"), 30, every=0.1, what="the channel")
        assert follows_writes(reader, writer, "a")
        writer.set("probe", "b")
        wait_until(lambda: reader.get("probe") == "b", 10, what="the other's write")


def test_tasks_find_the_new_master_too(private_redis_sentinel):
    sentinel = private_redis_sentinel()

    async def main():
        async with opened(sentinel) as cache:
            await cache.aset("k", "old")
            old = sentinel.master
            await asyncio.to_thread(old.kill9)
            assert await cache.aget_or_load("other", lambda: "loaded") == "loaded"

            for _ in range(300):
                await cache.aset("k", "new")
                if sentinel.master is not old and await cache.aget("k") == "new":
                    break
                await asyncio.sleep(0.1)
            assert sentinel.master is not old
            assert b"new" in sentinel.master.execute("GET", "watched:1:k")

    asyncio.run(main())


def test_no_sentinel_answers_is_an_outage_like_any_other():
    with CacheManager("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main") as cache:
        assert cache.get_or_load("k", lambda: "loaded") == "loaded"
        assert cache.stats().breaker == "open"


@pytest.mark.parametrize("path", ["", "/", "/main/x", "//1"])
def test_a_url_without_a_service_says_how_one_looks(path):
    with pytest.raises(ConfigurationError, match="SERVICE"):
        RedisStore(f"redis+sentinel://h1:26379,h2:26379{path}")
