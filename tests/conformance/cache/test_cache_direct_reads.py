"""Reads on connections of their own: right answers after cuts, silences and cancellations."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventperf._redis.patience import Patience
from eventperf.cache import RedisStore, StoreUnavailable
from eventperf.cache.backends.redis.patience import LEAST_S
from eventperf.cache.values.envelope import OTHER_TYPE

KEYS = [f"k{n}" for n in range(40)]


def filled(url, **options):
    store = RedisStore(url, timeout=5, **options)
    store.set_many([(key, key.encode() * 50, 600) for key in KEYS])
    return store


def right(key):
    return key.encode() * 50


def test_answers_are_in_order_and_absent_is_none(redis_url):
    store = filled(redis_url)
    try:
        asked = ["nothing", *KEYS, "nothing", "k1", "ключ"]
        want = [None, *map(right, KEYS), None, right("k1"), None]
        assert store.get_many(asked) == want
        assert [store.get(key) for key in asked] == want
        assert store.get_many([]) == []

        async def go():
            try:
                assert await store.aget_many(asked) == want
                assert await asyncio.gather(*map(store.aget, asked)) == want
                big = [KEYS[n % 40] for n in range(9000)]
                assert await store.aget_many(big) == list(map(right, big))
            finally:
                await store.aclose()

        asyncio.run(go())
    finally:
        store.delete(KEYS)
        store.close()


def test_a_wrong_type_is_told_and_the_connection_goes_on(redis_url):
    store = filled(redis_url)
    try:
        store.server.do("RPUSH", "list", "a")
        assert store.get("list") == OTHER_TYPE
        assert store.get_many(["list", "k1"]) == [None, right("k1")]
        assert store.get("k1") == right("k1")
    finally:
        store.delete(["list", *KEYS])
        store.close()


def test_idle_connections_that_the_server_closed_cost_nobody_an_error(private_redis):
    server = private_redis()
    store = filled(server.url)

    async def go():
        try:
            assert await store.aget("k1") == right("k1")
            server.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            got = await asyncio.gather(*map(store.aget, KEYS))
            assert got == list(map(right, KEYS))
        finally:
            await store.aclose()

    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                assert list(pool.map(store.get, KEYS)) == list(map(right, KEYS))
                server.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        asyncio.run(go())
    finally:
        store.close()


def test_no_more_connections_than_allowed(private_redis):
    server = private_redis()
    store = filled(server.url, max_connections=4)
    try:
        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(store.get, KEYS * 20)) == list(map(right, KEYS)) * 20
        assert len(server.execute("CLIENT", "LIST").splitlines()) <= 4 + 1  # and the one that asks
    finally:
        store.close()


def test_after_a_silence_no_answer_is_taken_for_another(private_redis):
    server = private_redis()
    store = filled(server.url)
    quick = RedisStore(server.url, timeout=1)

    async def go():
        try:
            assert await quick.aget("k0") == right("k0")
            server.sigstop()
            try:
                began = time.monotonic()
                got = await asyncio.gather(*map(quick.aget, KEYS), return_exceptions=True)
                assert all(isinstance(one, StoreUnavailable) and one.silent for one in got)
                assert time.monotonic() - began < 15, "all waited at the same time"
            finally:
                server.sigcont()
            while True:
                try:
                    await quick.aget("k0")
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.02)
            assert await asyncio.gather(*map(quick.aget, KEYS)) == list(map(right, KEYS))
        finally:
            await quick.aclose()

    try:
        assert quick.get("k1") == right("k1")
        server.sigstop()
        try:
            with pytest.raises(StoreUnavailable):
                quick.get("k2")
        finally:
            server.sigcont()
        assert store.get("k3") == right("k3")
        assert [quick.get(key) for key in KEYS[:5]] == list(map(right, KEYS[:5]))
        asyncio.run(go())
    finally:
        quick.close()
        store.close()


def test_a_cancelled_task_takes_nothing_from_the_others(redis_url):
    store = filled(redis_url)

    async def go():
        try:
            for _ in range(20):
                tasks = [asyncio.ensure_future(store.aget(key)) for key in KEYS]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                got = await asyncio.gather(*tasks, return_exceptions=True)
                assert got[1::2] == list(map(right, KEYS[1::2]))
                assert await store.aget("k7") == right("k7")
        finally:
            await store.aclose()

    try:
        asyncio.run(go())
    finally:
        store.delete(KEYS)
        store.close()


def test_a_busy_loop_is_no_silent_server(redis_url):
    store = RedisStore(redis_url, timeout=1)
    store.set_many([("k1", right("k1"), 600)])

    async def go():
        try:
            assert await store.aget("k1") == right("k1")
            task = asyncio.ensure_future(store.aget("k1"))
            await asyncio.sleep(0)
            time.sleep(1.3)  # somebody else's code holds the loop
            assert await task == right("k1")
        finally:
            await store.aclose()

    try:
        asyncio.run(go())
    finally:
        store.delete(["k1"])
        store.close()


def test_a_loop_that_stood_still_is_no_silent_server(redis_url):
    store = RedisStore(redis_url, timeout=1)
    store.set_many([("k1", right("k1"), 600)])
    loop = asyncio.new_event_loop()
    try:
        for _ in range(2):
            assert loop.run_until_complete(store.aget("k1")) == right("k1")
            time.sleep(1.1)  # the check of the last read is overdue when the next one begins
        loop.run_until_complete(store.aclose())
    finally:
        loop.close()
        store.delete(["k1"])
        store.close()


def test_many_commands_at_once_have_the_time_of_each(redis_url, monkeypatch):
    """A server at work on five hundred scripts, on a machine that is busy, is not silent."""
    given = []

    class Noted(Patience):
        def __init__(self, budget_s: float) -> None:
            given.append(budget_s)
            super().__init__(budget_s)

    monkeypatch.setattr("eventperf.cache.backends.redis.server.Patience", Noted)
    store = RedisStore(redis_url)

    async def go():
        keys = [f"part:{n}" for n in range(1_200)]
        await store.aacquire_many(keys, "t", lease_s=5, force=set())
        await store.arelease_many("t", keys)
        await store.aclose()

    asyncio.run(go())
    store.close()
    assert len(given) >= 6
    assert max(given) >= LEAST_S + 499 * 0.0004


def test_a_cluster_answers_in_order(redis_cluster_url):
    store = filled(redis_cluster_url)

    async def go():
        try:
            assert await store.aget_many(asked) == want
            assert await asyncio.gather(*map(store.aget, asked)) == want
        finally:
            await store.aclose()

    try:
        asked = ["nothing", *KEYS, "k1"]
        want = [None, *map(right, KEYS), right("k1")]
        assert store.get_many(asked) == want
        assert [store.get(key) for key in asked] == want
        asyncio.run(go())
    finally:
        store.delete(KEYS)
        store.close()


def test_commands_of_tasks_go_over_one_connection_and_errors_over_redis_py(private_redis):
    server = private_redis()
    store = RedisStore(server.url, timeout=5)

    async def go():
        try:
            big = bytes(200_000)
            await asyncio.gather(*(store.aset_many([(f"k{n}", b"%d" % n, 600)]) for n in range(200)))
            assert await asyncio.gather(*(store.aincr(f"n{n % 5}", 1, ttl_s=60) for n in range(200)))
            assert await store.aget("k7") == b"7"
            with server.client() as client:
                assert sum(one["cmd"] != "client|list" for one in client.client_list()) <= 2
                client.script_flush()
            assert await store.aincr("n0", 1, ttl_s=60) == 41
            await store.aset_many([("big", big, 600)])
            assert await store.aget("big") == big
            await store.server.ado("RPUSH", "list", "a")
            with pytest.raises(StoreUnavailable, match="WRONGTYPE") as caught:
                await store.server.ado("INCR", "list")
            assert not caught.value.silent
            assert await store.adelete(["k7"]) == 1
            return await store.aget("k7")
        finally:
            await store.aclose()

    assert asyncio.run(go()) is None


def test_a_command_after_its_connection_was_cut_finds_another(private_redis):
    server = private_redis()
    store = RedisStore(server.url, timeout=5)

    async def go():
        try:
            await store.aset_many([("k", b"1", 600)])
            with server.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await store.aset_many([("k", b"2", 600)])
            return await store.aget("k")
        finally:
            await store.aclose()

    assert asyncio.run(go()) == b"2"
