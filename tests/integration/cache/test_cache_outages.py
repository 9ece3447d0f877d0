"""Servers that hang, refuse, take no writes or forget: a load answers, and what comes back is not stale."""

from __future__ import annotations

import asyncio
import threading
import time
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, CacheOptions, RedisStore, StoreUnavailable
from faults import TcpProxy, stopped, wait_until

pytestmark = pytest.mark.integration


def manager(url, timeout=1.0, **options):
    return CacheManager(
        RedisStore(url, timeout=timeout), namespace=options.pop("namespace", None) or uuid4().hex, **options
    )


def test_a_stopped_redis_costs_one_time_out_and_returns_without_stale_values(private_redis):
    server = private_redis()
    with manager(server.url, namespace="stop") as cache, manager(server.url, namespace="stop") as other:
        cache.set_many({"k": "old", "kept": "old", "tagged": "old"}, tags=["t"])
        wait_until(lambda: other.get("k") == "old", what="the value elsewhere")
        with stopped(server):
            waits = []
            for n in range(100):
                began = time.perf_counter()
                assert cache.get_or_load(f"new{n}", lambda n=n: n) == n
                waits.append(time.perf_counter() - began)
            # One caller waits the time-out of a second out; the others are told by the breaker.
            assert sum(wait > 0.5 for wait in waits) <= 2
            assert cache.stats().breaker == "open"
            assert cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, 1)) == {"a": 1, "b": 1}
            cache.invalidate("k")
            cache.invalidate_tags("t")
            cache.set("kept", "new")
            assert cache.get("k", "gone") == "gone"
            assert cache.get_or_load("kept", lambda: "loaded") == "loaded"
            wait_until(lambda: other.get_or_load("k", lambda: "loaded") == "loaded", 10, what="the other one")
            assert cache.stats().replay_queue > 0
        wait_until(lambda: cache.stats().breaker == "closed", 10, what="the recovery")
        wait_until(lambda: other.stats().breaker == "closed", 10, what="the recovery of the other one")
        assert cache.stats().replay_queue == 0
        for each in (cache, other):
            assert each.get_many(["k", "kept", "tagged"]) == {}
        assert cache.get_or_load("k", lambda: "fresh") == "fresh"
        wait_until(lambda: other.get("k") == "fresh", 5, what="a load as before")


def test_tasks_pass_a_stopped_redis_too(private_redis):
    server = private_redis()

    async def main():
        async with manager(server.url, namespace="stop") as cache:
            await cache.aset("k", 1)

            async def load():
                await asyncio.sleep(0.001)
                return "loaded"

            with stopped(server):
                calls = (cache.aget_or_load(f"k{n}", load) for n in range(50))
                assert await asyncio.gather(*calls) == ["loaded"] * 50
                assert cache.stats().breaker == "open"
                assert await cache.aget("k", "absent") in (1, "absent")
                await cache.ainvalidate("k")
                assert await cache.aget("k", "absent") == "absent"
            give_up = time.monotonic() + 10
            while cache.stats().breaker != "closed":
                assert time.monotonic() < give_up
                await asyncio.sleep(0.02)
            assert await cache.aget("k", "absent") == "absent"

    asyncio.run(main())


def test_a_refused_connection_is_answered_by_the_loader(private_redis):
    server = private_redis()
    with (
        TcpProxy(server.host, server.port) as proxy,
        manager(proxy.url(server.url), namespace="ref") as cache,
        manager(server.url, namespace="ref") as other,
    ):
        cache.set("k", "old")
        proxy.refuse()
        wait_until(lambda: cache.get_or_load("k", lambda: "loaded") == "loaded", 5, what="the lost channel")
        cache.delete("k")
        with pytest.raises(StoreUnavailable):
            cache.ping()
        assert other.get("k") == "old"  # nobody could tell it
        proxy.heal()
        wait_until(lambda: cache.stats().breaker == "closed", 10, what="the recovery")
        wait_until(lambda: other.get("k", "gone") == "gone", 5, what="the replay")


def test_a_read_only_replica_reads_and_never_errs(private_redis):
    """A URL that points at a replica, or a master that was demoted under us."""
    server, master = private_redis(), private_redis()
    with manager(server.url, namespace="ro") as cache:
        cache.set_many({"k": 1, "j": 1})
        wait_until(lambda: cache.stats().coherence == "tracking", 5, what="the channel")
        server.execute("REPLICAOF", master.host, master.port)

        def synced():
            role = server.execute("ROLE")
            return role[0] == b"slave" and role[3] == b"connected"

        wait_until(synced, 15, what="the replica")
        assert cache.get_or_load("k2", lambda: "loaded") == "loaded"
        cache.set("k", 2)  # cannot be kept, and the old one must not come back
        assert cache.get("k", "absent") == "absent"
        cache.invalidate("j")
        assert cache.get("j", "absent") == "absent"
        assert cache.get_or_load("j", lambda: "loaded") == "loaded"
        assert cache.stats().replay_queue == 2
        server.execute("REPLICAOF", "NO", "ONE")
        wait_until(lambda: cache.stats().replay_queue == 0, 10, what="the replay")
        wait_until(lambda: cache.stats().breaker == "closed", 10, what="the recovery")
        cache.set("k", 3)
        assert cache.get("k") == 3


WAYS = {
    "delete": lambda cache: cache.delete("k"),
    "adelete": lambda cache: asyncio.run(cache.adelete("k")),
    "set": lambda cache: cache.set("k", "new"),
    "aset_many": lambda cache: asyncio.run(cache.aset_many({"k": "new"})),
    "tag": lambda cache: cache.invalidate_tags("t"),
    "atag": lambda cache: asyncio.run(cache.ainvalidate_tags("t")),
    "pattern": lambda cache: cache.invalidate_pattern("k*"),
    "apattern": lambda cache: asyncio.run(cache.ainvalidate_pattern("k*")),
    "clear": lambda cache: cache.clear(),
    "aclear": lambda cache: asyncio.run(cache.aclear()),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_invalidate_is_lost_on_a_server_that_refuses(private_redis, way):
    """It is made up for when the server takes writes again; nobody here gets the old value meanwhile."""
    server = private_redis()
    with manager(server.url, namespace="ro") as cache, manager(server.url, namespace="ro", l1=None) as other:
        cache.set("k", "old", tags=["t"])
        assert cache.get("k") == other.get("k") == "old"
        server.execute("REPLICAOF", "127.0.0.1", 1)  # it keeps what it has, and reads are answered
        WAYS[way](cache)
        assert cache.get("k") is None
        assert cache.get_many(["k"]) == {}
        assert asyncio.run(cache.aget("k")) is None
        assert other.get("k") == "old"  # nobody could tell it
        server.execute("REPLICAOF", "NO", "ONE")
        wait_until(lambda: cache.stats().replay_queue == 0, 10, what="the replay")
        assert other.get("k") is None


def test_a_right_that_is_missing_is_no_silent_loss(private_redis):
    server = private_redis()
    server.execute("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", "-unlink", "-getrange")
    url = server.url.replace("redis://", "redis://u:pw@")
    with manager(url, namespace="acl") as cache:
        cache.set("k", "old")
        for call in (lambda: cache.invalidate_pattern("k*"), cache.clear, lambda: cache.keys("k*")):
            with pytest.raises(StoreUnavailable, match="no permissions"):
                call()
        assert cache.stats().breaker == "closed"


def test_out_of_memory_without_eviction_is_passed_by(private_redis):
    server = private_redis()
    with manager(server.url, namespace="oom") as cache, manager(server.url, namespace="oom") as other:
        cache.set_many({"k": "old", "tagged": "old"}, tags=["t"])
        wait_until(lambda: other.get("k") == "old", 5, what="the value elsewhere")
        server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
        assert cache.get_or_load("new", lambda: "loaded", tags=["t"]) == "loaded"
        assert cache.get_or_load_many(["n1", "n2"], lambda keys: dict.fromkeys(keys, 1)) == {"n1": 1, "n2": 1}
        cache.set("k", "new")
        cache.invalidate_tags("t")
        assert cache.get("k", "absent") != "old"
        assert cache.get("tagged", "absent") == "absent"
        server.execute("CONFIG", "SET", "maxmemory", "0")
        wait_until(lambda: cache.stats().replay_queue == 0, 10, what="the replay")
        wait_until(lambda: other.get_many(["k", "tagged"]) == {}, 10, what="the replay elsewhere")
        wait_until(lambda: cache.stats().breaker == "closed", 10, what="the recovery")
        cache.set("k", "new")
        wait_until(lambda: other.get("k") == "new", 5, what="a write as before")


def test_an_old_value_serves_when_the_load_fails_during_an_outage(private_redis):
    """``grace`` has the copy of process memory; without a server it may still stand in."""
    server = private_redis()
    options = CacheOptions(ttl=0.2, grace=60, l1_ttl=60)
    with manager(server.url, namespace="grace", options=options) as cache:
        assert cache.get_or_load("k", lambda: "old") == "old"

        def fails():
            raise ConnectionError("the database is away as well")

        wait_until(lambda: cache.get("k", "expired") == "expired", 5, what="the end of its life")
        assert cache.get_or_load("k", fails) == "old"
        assert cache.stats().stale >= 1
        with pytest.raises(ConnectionError):
            cache.get_or_load("another", fails)


def test_a_soft_time_out_hands_out_the_old_value_and_keeps_the_new_one(redis_url):
    options = CacheOptions(ttl=0.2, grace=60, soft_timeout=0.05)
    with manager(redis_url, options=options) as cache:
        assert cache.get_or_load("k", lambda: "old") == "old"
        wait_until(lambda: cache.get("k", "expired") == "expired", 5, what="the end of its life")
        go_on = threading.Event()

        def slow():
            assert go_on.wait(20)
            return "new"

        assert cache.get_or_load("k", slow, ttl=60) == "old"
        go_on.set()
        wait_until(lambda: cache.get("k") == "new", 10, what="the load that went on behind")


def test_early_refresh_is_drawn_from_the_measured_load_time(redis_url):
    """XFetch: near its end, one of many readers loads anew while others still get the value."""
    loads = []

    def load():
        loads.append(1)
        time.sleep(0.05)
        return len(loads)

    options = CacheOptions(ttl=60, early_beta=1.0, use_l1=False)
    with manager(redis_url, options=options) as cache:
        assert cache.get_or_load("k", load) == 1
        for _ in range(50):  # 60 s away from its end nobody hurries: the chance is e^-1200
            assert cache.get_or_load("k", load) == 1
        cache.touch("k", ttl=0.5)
        near = cache.options.but(early_beta=100.0)  # 5 s times -ln(u): almost every reader of half a second
        wait_until(lambda: cache.get_or_load("k", load, options=near, ttl=60) > 1, 5, what="an early refresh")
        assert cache.get("k", options=options) == 2


def test_a_load_begun_before_an_invalidation_elsewhere_is_not_stored(redis_url):
    """Key and tag, known before or drawn from the result; the invalidation comes from another manager."""
    with manager(redis_url) as cache, manager(redis_url, namespace=cache.namespace) as other:
        ways = [
            (("t",), lambda: other.invalidate("k")),
            (("t",), lambda: other.invalidate_tags("t")),
            ((lambda value: ["t"]), lambda: other.invalidate_tags("t")),
            (("t",), lambda: other.invalidate_pattern("k*")),
            (("t",), lambda: other.set("k", "written")),
        ]
        for tags, change in ways:
            cache.clear()
            database = ["old"]

            def load(database=database, change=change):
                seen = database[0]
                database[0] = "new"
                change()
                return seen

            assert cache.get_or_load("k", load, tags=tags) == "old"
            # Who invalidated never sees the old value; who loaded hears of it a moment later.
            assert other.get_or_load("k", lambda d=database: d[0]) in ("new", "written")
            wait_until(
                lambda d=database: cache.get_or_load("k", lambda: d[0]) in ("new", "written"),
                5,
                what=str(tags),
            )


def test_a_read_that_an_invalidation_overtakes_does_not_stay(redis_server):
    """The value leaves Redis, the key is invalidated, the value arrives: it may answer, never stay."""
    name = uuid4().hex
    with (
        TcpProxy(redis_server.host, redis_server.port) as proxy,
        manager(proxy.url(redis_server.url), namespace=name, timeout=5) as reader,
        manager(redis_server.url, namespace=name) as writer,
    ):
        reader.get("warm")
        wait_until(lambda: reader.stats().coherence == "tracking", 5, what="the channel")
        for n in range(5):
            key = f"k{n}"
            writer.set(key, "old")
            proxy.delay(0.05)
            got = []
            thread = threading.Thread(target=lambda got=got, key=key: got.append(reader.get(key)))
            thread.start()
            time.sleep(0.07)  # the answer is on its way
            writer.set(key, "new")
            thread.join(20)
            proxy.delay(0)
            assert got[0] in ("old", "new")
            wait_until(lambda key=key: reader.get(key) == "new", 5, what="the new value")


def test_a_process_that_has_no_copy_serves_the_old_value_of_the_second_tier_at_once(redis_url):
    """stale-while-revalidate: also for those who ask at the same time, threads and tasks."""
    options = CacheOptions(ttl=0.2, stale_while_revalidate=60)
    with manager(redis_url, options=options) as one, manager(redis_url, namespace=one.namespace) as two:
        assert one.get_or_load("k", lambda: "old") == "old"
        wait_until(lambda: two.get("k", "expired") == "expired", 5, what="the end of its life")
        go_on, loads = threading.Event(), []

        def slow():
            loads.append(1)
            assert go_on.wait(20)
            return "new"

        async def aslow():
            loads.append(1)
            while not go_on.is_set():
                await asyncio.sleep(0.01)
            return "new"

        try:
            for _ in range(3):
                assert two.get_or_load("k", slow, options=options) == "old"

            async def tasks():
                calls = (two.aget_or_load("k", aslow, options=options) for _ in range(20))
                return await asyncio.gather(*calls)

            assert asyncio.run(tasks()) == ["old"] * 20
            wait_until(lambda: loads, 5, what="the refresh behind")
        finally:
            go_on.set()
        wait_until(lambda: one.get("k") == "new", 10, what="the refresh")
        assert len(loads) == 1
