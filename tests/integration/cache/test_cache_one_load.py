"""One load: among threads, tasks, loops and processes, also when somebody fails or goes away."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, CacheOptions, RedisStore
from faults import Worker, wait_until

pytestmark = pytest.mark.integration

CALLER = """
import asyncio, sys, time
from eventperf.cache import CacheManager, CacheOptions, RedisStore
url, name, path, kind = sys.argv[1:]
def load():
    with open(path, "a") as log: log.write("load\\n")
    time.sleep(0.3)
    return 42
async def aload():
    with open(path, "a") as log: log.write("load\\n")
    await asyncio.sleep(0.3)
    return 42
cache = CacheManager(RedisStore(url, timeout=2), namespace=name, options=CacheOptions(lease=5))
if kind == "sync":
    cache.get("warm"); print("ready", flush=True)
    while not cache.get("go", options=CacheOptions(use_l1=False)): time.sleep(0.002)
    print("got", cache.get_or_load("k", load), flush=True)
    cache.close()
else:
    async def main():
        async with cache:
            await cache.aget("warm"); print("ready", flush=True)
            while not await cache.aget("go", options=CacheOptions(use_l1=False)): await asyncio.sleep(0.002)
            calls = (cache.aget_or_load("k", aload) for _ in range(3))
            print("got", *await asyncio.gather(*calls), flush=True)
    asyncio.run(main())
"""


@pytest.fixture(params=["redis", "cluster"])
def url(request):
    return request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster_url")


@pytest.fixture
def cache(url):
    with CacheManager(RedisStore(url, timeout=2), namespace=uuid4().hex) as made:
        yield made
        made.clear()


def in_loop(coroutine_function):
    """Run in an event loop of its own, in a thread of its own; call the result for the outcome."""
    pool = ThreadPoolExecutor(1)
    outcome = pool.submit(lambda: asyncio.run(coroutine_function()))
    pool.shutdown(wait=False)
    return lambda: outcome.result(60)


def test_one_thread_one_task_and_another_process(cache, url, tmp_path):
    path = tmp_path / "loads"

    def load():
        with path.open("a") as log:
            log.write("load\n")
        time.sleep(0.3)
        return 42

    with (
        Worker(CALLER, url, cache.namespace, path, "sync") as one,
        Worker(CALLER, url, cache.namespace, path, "async") as other,
    ):
        one.wait_for("ready")
        other.wait_for("ready")
        cache.set("go", 1)

        async def task():
            return await cache.aget_or_load("k", load)

        with ThreadPoolExecutor(1) as pool:
            thread = pool.submit(cache.get_or_load, "k", load)
            assert in_loop(task)() == 42
            assert thread.result(30) == 42
        assert one.wait_for("got") == "got 42"
        assert other.wait_for("got") == "got 42 42 42"
    assert path.read_text().count("load") == 1


def test_two_loops_in_two_threads(cache):
    loads, both = [], threading.Barrier(2)

    async def load():
        loads.append(threading.get_ident())
        await asyncio.sleep(0.1)
        return "value"

    async def main():
        await cache.aget("warm")
        both.wait(10)
        return await asyncio.gather(*(cache.aget_or_load("k", load) for _ in range(20)))

    joins = [in_loop(main) for _ in range(2)]
    assert [join() for join in joins] == [["value"] * 20] * 2
    assert len(loads) == 1


def test_an_error_reaches_the_49_others_at_once_and_poisons_nothing(cache):
    loads = []

    def load():
        loads.append(1)
        time.sleep(0.1)
        raise LookupError("no such event")

    def call(_):
        with pytest.raises(LookupError, match="no such event"):
            cache.get_or_load("k", load)
        return time.monotonic()

    began = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        ended = list(pool.map(call, range(50)))
    assert len(loads) <= 3  # a thread that comes after the landing begins anew
    assert max(ended) - began < 5  # one after another would be at least this
    assert cache.get_or_load("k", lambda: "good") == "good"

    async def aload():
        loads.append(1)
        await asyncio.sleep(0.1)
        raise LookupError("no such event")

    async def tasks():
        return await asyncio.gather(
            *(cache.aget_or_load("k2", aload) for _ in range(50)), return_exceptions=True
        )

    loads.clear()
    outcomes = in_loop(tasks)()
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 50
    assert len(loads) == 1


def test_an_error_in_one_process_is_no_error_in_another(cache, url):
    """The waiter in the other process is woken and loads by itself."""
    began, fail = threading.Event(), threading.Event()

    def fails():
        began.set()
        assert fail.wait(10)
        raise LookupError

    with (
        CacheManager(
            RedisStore(url, timeout=2), namespace=cache.namespace, options=CacheOptions(lease=30)
        ) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        cache.get("warm"), other.get("warm")
        leader = pool.submit(other.get_or_load, "k", fails)
        assert began.wait(10)
        waiter = pool.submit(cache.get_or_load, "k", lambda: "mine")
        time.sleep(0.05)
        fail.set()
        assert waiter.result(10) == "mine"  # far below the lease of the failed leader
        with pytest.raises(LookupError):
            leader.result(10)


def test_cancelling_the_leader_or_a_waiter_harms_nobody(cache):
    async def main():
        loads = 0
        began, go_on = asyncio.Event(), asyncio.Event()

        async def load():
            nonlocal loads
            loads += 1
            began.set()
            await go_on.wait()
            return loads

        leader = asyncio.create_task(cache.aget_or_load("k", load))
        await began.wait()
        others = [asyncio.create_task(cache.aget_or_load("k", load)) for _ in range(9)]
        await asyncio.sleep(0)
        began.clear()
        leader.cancel()
        others[4].cancel()
        await began.wait()  # one of the others has taken over
        go_on.set()
        outcomes = await asyncio.gather(leader, *others, return_exceptions=True)
        cancelled = [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes]
        assert cancelled == [True] + [False] * 4 + [True] + [False] * 4
        assert {outcome for outcome in outcomes if isinstance(outcome, int)} == {2}
        assert await cache.aget("k") == 2

        # All gone: whoever comes next need not wait for a lease (30 s here).
        began.clear()
        go_on.clear()
        options = CacheOptions(lease=30)
        only = asyncio.create_task(cache.aget_or_load("alone", load, options=options))
        await began.wait()
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)
        go_on.set()
        return await asyncio.wait_for(cache.aget_or_load("alone", load, options=options), 20)

    assert in_loop(main)() == 4


def test_two_hundred_callers_and_the_default_connections(url):
    """Threads and tasks, with the pool as it comes."""
    with CacheManager(RedisStore(url, timeout=5), namespace=uuid4().hex) as cache:
        cache.get_or_load("warm", lambda: 1)
        loads = []

        def load():
            loads.append(1)
            time.sleep(0.2)
            return "value"

        with ThreadPoolExecutor(200) as pool:
            assert list(pool.map(lambda _: cache.get_or_load("k", load), range(200))) == ["value"] * 200
        assert len(loads) == 1

        async def tasks():
            async def aload():
                loads.append(1)
                await asyncio.sleep(0.1)
                return "value"

            same = await asyncio.gather(*(cache.aget_or_load("a", aload) for _ in range(200)))
            many = await asyncio.gather(*(cache.aget_or_load(f"a{n}", aload) for n in range(200)))
            return same + many

        assert in_loop(tasks)() == ["value"] * 400
        assert len(loads) == 202
        assert cache.stats().store_errors == 0


def test_an_evicted_lease_costs_one_more_load_at_most(private_redis):
    """``maxmemory`` throws the lease away while its holder loads: a waiter takes over."""
    server = private_redis()
    with (
        CacheManager(
            RedisStore(server.url, timeout=2), namespace="ev", options=CacheOptions(lease=30)
        ) as one,
        CacheManager(RedisStore(server.url, timeout=2), namespace="ev") as two,
        ThreadPoolExecutor(2) as pool,
    ):
        for each in (one, two):
            each.get("warm")
            wait_until(lambda each=each: each.stats().coherence == "tracking", what="the channel")
        began, finish = threading.Event(), threading.Event()

        def slow():
            began.set()
            assert finish.wait(20)
            return "first"

        leader = pool.submit(one.get_or_load, "k", slow)
        assert began.wait(10)
        waiter = pool.submit(two.get_or_load, "k", lambda: "second")
        wait_until(lambda: server.execute("GETRANGE", "ev:1:k", 3, 3) == b"1", 5, what="a waiter")
        server.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-random", "maxmemory", "1")
        server.execute("CONFIG", "SET", "maxmemory", "0")
        assert waiter.result(10) == "second"
        finish.set()
        assert leader.result(10) == "first"
        assert one.stats().refused == 1
        # While memory was short the second could not be stored either; the first never is.
        now = one.get_or_load("k", lambda: "third")
        assert now in ("second", "third")
        wait_until(lambda: one.get("k") == two.get("k") == now, 5, what="one value everywhere")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "redis"])
@pytest.mark.parametrize("way", ["one", "many", "refresh", "cached"])
def test_a_loop_that_ends_under_its_leader_hands_over(redis_url, is_shared, way):
    """Its coroutine is thrown away; who waits in a thread loads, and hears nothing of contexts and loops."""
    options = CacheOptions(lease=1)
    with CacheManager(redis_url if is_shared else None, namespace=uuid4().hex, options=options) as cache:

        async def never(*_keys):
            await asyncio.Event().wait()

        calls = {
            "one": lambda: cache.aget_or_load("k", never),
            "many": lambda: cache.aget_or_load_many(["k"], never),
            "refresh": lambda: cache.arefresh("k", never),
            "cached": cache.cached(key="k")(never),
        }
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(calls[way]())]

        async def begun():
            while "k" not in cache._core.flights._open:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)

        loop.run_until_complete(begun())
        flight = cache._core.flights._open["k"]
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(cache.get_or_load, "k", lambda: "after")
            wait_until(lambda: flight.is_awaited, what="a waiter")
            loop.close()
            tasks.clear()
            gc.collect()
            assert waiter.result(20) == "after"
        assert cache.stats().breaker != "open"
