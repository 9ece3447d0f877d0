"""How processes hear of each other: protocols, servers that cannot track, TLS, a cluster that changes."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import pytest
import redis

from eventperf.cache import CacheManager, RedisStore
from faults import wait_until
from servers import tls_settings

pytestmark = pytest.mark.integration


def joined(store, **options):
    """Return a manager that hears the others already."""
    cache = CacheManager(store, **options)
    cache.set("hello", 1)
    wait_until(lambda: "(down)" not in cache.stats().coherence, what="the channel")
    return cache


def in_memory(cache, key):
    before = cache.stats().l1_hits
    cache.get(key)
    return cache.stats().l1_hits > before


def follow(writer, reader, key="k"):
    """Write three times over what ``reader`` holds; it must see each."""
    for n in range(3):
        writer.set(key, n)
        wait_until(lambda n=n: reader.get(key) == n, 5, what=f"write {n}")
        wait_until(lambda: in_memory(reader, key), 5, what="the entry in process memory")
    writer.invalidate(key)
    wait_until(lambda: reader.get(key, "gone") == "gone", 5, what="the invalidation")


@pytest.mark.parametrize("coherence", ["tracking", "bus"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_the_hosts_client_may_speak_either_protocol(redis_server, protocol, coherence):
    name = uuid4().hex
    with (
        redis_server.client(protocol=protocol) as client,
        joined(RedisStore(client=client), namespace=name, coherence=coherence) as reader,
        joined(RedisStore(redis_server.url, timeout=2), namespace=name, coherence=coherence) as writer,
    ):
        assert reader.stats().coherence == coherence
        follow(writer, reader)
        follow(reader, writer)


@pytest.mark.parametrize("coherence", ["tracking", "bus"])
@pytest.mark.parametrize("key", ["two\nlines", "[1]", "*", "smörgås 🎫", "\x00\x01", "k" * 10_000])
def test_odd_keys_are_heard_of(redis_url, coherence, key):
    name = uuid4().hex
    with (
        joined(RedisStore(redis_url, timeout=2), namespace=name, coherence=coherence) as writer,
        joined(RedisStore(redis_url, timeout=2), namespace=name, coherence=coherence) as reader,
    ):
        follow(writer, reader, key)


@pytest.mark.parametrize("without", ["HELLO", "CLIENT"])
def test_a_server_without_tracking_is_followed_by_the_bus_and_says_so(
    private_redis, without, tmp_path, caplog
):
    config = tmp_path / "old.conf"
    config.write_text(f'rename-command {without} ""\n')  # an unknown command, as on a server of old
    url = private_redis(include=config).url
    with (
        joined(RedisStore(url, timeout=2), namespace="old") as writer,
        joined(RedisStore(url, timeout=2), namespace="old") as reader,
    ):
        assert reader.stats().coherence == "bus (no CLIENT TRACKING)"
        assert "coherence is bus (no CLIENT TRACKING)" in caplog.text
        follow(writer, reader)
        writer.set("k", 1, tags=["t"])
        wait_until(lambda: in_memory(reader, "k"), 5, what="the entry in process memory")
        writer.invalidate_tags("t")
        wait_until(lambda: reader.get("k", "gone") == "gone", 5, what="the tag")


def test_a_user_who_may_not_track_gets_no_process_memory(private_redis):
    server = private_redis()
    server.execute(
        "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-client|tracking", "-flushall"
    )  # fmt: skip
    url = server.url.replace("redis://", "redis://app:pw@")
    with CacheManager(RedisStore(url, timeout=2), namespace="acl") as cache:
        cache.set("k", 1)
        wait_until(lambda: "not permitted" in cache.stats().coherence, 5, what="the refusal")
        assert cache.stats().coherence == "none (CLIENT TRACKING not permitted)"
        for _ in range(5):
            assert cache.get("k") == 1
        assert cache.stats().l1_hits == 0


def test_over_tls_bursts_arrive_at_once(private_redis, certificates):
    server = private_redis(**tls_settings(certificates))
    url = f"rediss://127.0.0.1:{server.tls_port}/0?ssl_ca_certs={certificates / 'cert.pem'}"
    with (
        joined(RedisStore(url, timeout=2), namespace="tls") as writer,
        joined(RedisStore(url, timeout=2), namespace="tls") as reader,
    ):
        assert reader.stats().coherence == "tracking"
        follow(writer, reader)
        # 3000 long keys are several TLS records in one segment: what the cipher holds back must not wait.
        keys = [f"{n:04}{'x' * 400}" for n in range(3000)]
        writer.set_many(dict.fromkeys(keys, 1))
        wait_until(lambda: reader.get_many(keys) == dict.fromkeys(keys, 1), 10, what="all keys")
        wait_until(lambda: in_memory(reader, keys[-1]), 10, what="the entries in process memory")
        writer.delete(*keys)
        wait_until(lambda: reader.get_many(keys) == {}, 10, what="all deletions")
        assert reader.stats().coherence == "tracking"


@pytest.mark.parametrize("kind", ["private_redis_cluster", "private_redis_sentinel"])
def test_over_tls_to_several_servers(kind, certificates, request):
    url = request.getfixturevalue(kind)(**tls_settings(certificates)).tls_url
    with (
        joined(RedisStore(url, timeout=2), namespace="tls") as writer,
        joined(RedisStore(url, timeout=2), namespace="tls") as reader,
    ):
        assert reader.stats().coherence == "tracking"
        for key in ("a", "b", "c", "d"):  # on several masters
            follow(writer, reader, key)

        async def tasks():
            assert await reader.aget_or_load("t", lambda: "loaded", tags=["t"]) == "loaded"
            await writer.ainvalidate_tags("t")
            while await reader.aget("t") is not None:  # heard of within milliseconds
                await asyncio.sleep(0.005)
            await reader.aclose()

        asyncio.run(tasks())
    with CacheManager(RedisStore(url.partition("?")[0], timeout=0.5)) as stranger:  # knows no such authority
        assert stranger.get_or_load("k", lambda: 1) == 1
        assert stranger.stats().store_errors > 0


def test_killed_channels_leave_nothing_stale_10_ms_after_their_return(redis_server):
    name = uuid4().hex
    with (
        joined(RedisStore(redis_server.url, timeout=2), namespace=name) as writer,
        joined(RedisStore(redis_server.url, timeout=2), namespace=name) as reader,
    ):
        back = []
        reader.on(lambda event: back.append(event) if getattr(event, "connected", None) else None)
        for n in range(5):
            writer.set("k", n)
            wait_until(lambda: in_memory(reader, "k"), 5, what="the entry in process memory")
            back.clear()
            redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
            writer.set("k", -1 - n)
            wait_until(lambda: back, 5, every=0.0005, what="the channel to come back")
            time.sleep(0.01)
            assert reader.get("k") == -1 - n


def test_masters_change_while_only_tasks_use_the_cache(private_redis_cluster):
    cluster = private_redis_cluster()

    async def main():
        async with (
            CacheManager(RedisStore(cluster.url, timeout=1), namespace="fo") as cache,
            CacheManager(RedisStore(cluster.url, timeout=1), namespace="fo") as other,
        ):

            async def load():
                return "loaded"

            for each in (cache, other):
                assert await each.aget_or_load("k", load) == "loaded"
            await until(lambda: cache.stats().coherence == "tracking")
            master = cluster.master_of("fo:1:k")
            await asyncio.to_thread(master.kill9)

            # The cluster elects another master; meanwhile nobody gets an error and nobody an old value.
            async def written():
                assert await cache.aget_or_load("k", load) in ("loaded", "new")
                await other.aset("k", "new")
                with cluster.client() as client:
                    try:
                        there = client.get("fo:1:k")
                    except redis.RedisError:
                        return False
                return there is not None and await cache.aget("k") == "new"

            await until(written, 30)
            await until(lambda: cache.stats().coherence == "tracking")
            await held(cache, "k", "new")
            await other.aset("k", "newer")
            await until(lambda: other.stats().replay_queue == 0)

            async def newer():
                return await cache.aget("k") == "newer"

            await until(newer, 5)

    async def until(done, timeout=15.0):
        give_up = time.monotonic() + timeout
        while True:
            result = done()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            assert time.monotonic() < give_up, "waited in vain"
            await asyncio.sleep(0.02)

    async def held(cache, key, value):
        async def here():
            before = cache.stats().l1_hits
            return await cache.aget(key) == value and cache.stats().l1_hits > before

        await until(here)

    asyncio.run(main())


def test_a_slot_that_moves_leaves_nothing_stale(redis_cluster):
    """ASK while it moves, MOVED after."""
    name = f"reshard-{uuid4().hex}"
    with (
        joined(RedisStore(redis_cluster.url, timeout=2), namespace=name) as writer,
        joined(RedisStore(redis_cluster.url, timeout=2), namespace=name) as reader,
    ):
        keys = [f"{{tag}}{n}" for n in range(20)]
        outer = f"{name}:1:{keys[0]}"
        writer.set_many(dict.fromkeys(keys, 0))
        assert reader.get_many(keys) == dict.fromkeys(keys, 0)
        source = redis_cluster.master_of(outer)
        target = next(node for node in redis_cluster.masters() if node is not source)
        slot = source.execute("CLUSTER", "KEYSLOT", outer)
        ids = [node.execute("CLUSTER", "MYID").decode() for node in (source, target)]
        target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        try:
            for n in range(0, 20, 2):  # half of the keys are there, half are here
                source.execute("MIGRATE", target.host, target.port, f"{name}:1:{keys[n]}", 0, 5000)
            for value in (1, 2):
                writer.set_many(dict.fromkeys(keys, value))
                want = dict.fromkeys(keys, value)
                wait_until(lambda want=want: reader.get_many(keys) == want, 5, what="writes in mid-move")
                for key in keys:
                    assert reader.get_or_load(key, lambda: "reloaded") == value
            assert reader.get_or_load("{tag}new", lambda: "new") == "new"
            writer.invalidate(keys[0], keys[1])
            wait_until(lambda: reader.get_many(keys[:2]) == {}, 5, what="invalidations in mid-move")
        finally:
            for key in source.execute("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.execute("MIGRATE", target.host, target.port, key, 0, 5000)
            for node in (target, source, *redis_cluster.masters()):
                node.execute("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        writer.set_many(dict.fromkeys(keys, 3))
        wait_until(lambda: reader.get_many(keys) == dict.fromkeys(keys, 3), 5, what="writes after the move")
        wait_until(lambda: in_memory(reader, keys[5]), 5, what="the entry in process memory")
        follow(writer, reader, keys[7])
