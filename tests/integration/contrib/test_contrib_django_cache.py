"""Django's cache: what LOCATION means, and numbers that many add to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

pytest.importorskip("django")
from django.conf import settings

if not settings.configured:
    settings.configure()
from eventperf._core.errors import ConfigurationError, UnknownScheme
from eventperf.contrib.django.cache import EventPerfCache
from eventperf.contrib.django.location import server_of


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"), (" REDIS://User:PW@H:6379/0 ", "redis://User:PW@H:6379/0"),
        (["rediss://h"], "rediss://h"), (("unix:///tmp/redis.sock",), "unix:///tmp/redis.sock"),
        ("Redis+Cluster://h1:7000,h2:7001", "redis+cluster://h1:7000,h2:7001"),
        ("", None), ("unique-snowflake", None), ("memory://", None), ("Sessions_2", None),
    ],
)  # fmt: skip
def test_a_location_is_a_server_or_a_name_of_process_memory(location, url):
    assert server_of(location) == url


@pytest.mark.parametrize(
    "location",
    [
        "127.0.0.1:6379", "127.0.0.1", "localhost", "cache.example.com", "redis", "my-redis-1", "valkey",
        "h:6379",
        "/tmp/redis.sock", "unix:/tmp/redis.sock", "[::1]:6379", "a;b", "a b", "user:secret@h", "6379",
        "//h:1/0",
        "redis:/h:6379", "redis://a;redis://b", "redis://a,redis://b", "http://h", "memcached://h:11211",
        "redis://h:port/0", ["redis://a", "redis://b"], [], None, 6379, b"redis://h", {"host": "h"},
    ],
)  # fmt: skip
def test_a_location_that_may_mean_a_server_and_does_not_say_which_is_refused(location):
    with pytest.raises((ConfigurationError, UnknownScheme), match=r"LOCATION: .*allowed: ") as caught:
        EventPerfCache(location, {})
    assert "secret" not in str(caught.value)


@pytest.fixture(params=["memory", "redis", "cluster"])
def cache(request) -> Any:
    where = {"memory": "", "redis": "redis_url", "cluster": "redis_cluster_url"}[request.param]
    options = {"timeout": 5, "namespace": f"numbers-{time.monotonic_ns()}"} if where else {}
    made = EventPerfCache(request.getfixturevalue(where) if where else "numbers", {"OPTIONS": options})
    made.clear()
    return made


def test_no_addition_of_many_threads_and_tasks_is_lost(cache):
    cache.set("n", 0, 600)

    def add() -> None:
        for _ in range(25):
            cache.incr("n")

    async def aadd() -> None:
        for _ in range(25):
            await cache.aincr("n", 2)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(aadd())
    for thread in threads:
        thread.join()
    assert cache.get("n") == 4 * 25 + 50


@pytest.mark.parametrize(
    ("start", "delta", "total"),
    [
        (1, 2, 3), (5, -7, -2), (2**60, 1, 2**60 + 1), (9 * 10**15, 10**15, 10**16), (10**30, 1, 10**30 + 1),
        (1, 0.5, 1.5), (1.5, 1, 2.5), (True, 1, 2), (-3, 3, 0),
    ],
)  # fmt: skip
def test_numbers_of_every_kind_are_added_to_and_keep_their_life(cache, start, delta, total):
    cache.set("n", start, 1.5)
    began = time.monotonic()
    assert cache.incr("n", delta) == total
    assert cache.get("n") == total
    assert type(cache.get("n")) is type(total)
    assert cache.decr("n", delta) == start
    assert asyncio.run(cache.aincr("n", delta)) == total
    time.sleep(max(0.0, 1.6 - (time.monotonic() - began)))
    assert cache.get("n") is None
    cache.set("n", start, None)
    cache.incr("n", delta)
    assert cache.get("n") == total


def test_what_is_not_there_or_no_number_is_refused_as_django_does(cache):
    for call in (
        lambda: cache.incr("none"),
        lambda: asyncio.run(cache.aincr("none")),
        lambda: cache.decr("none"),
    ):
        with pytest.raises(ValueError, match="none"):
            call()
    cache.set("text", "a")
    with pytest.raises(TypeError):
        cache.incr("text")
    assert cache.get("text") == "a"
    assert cache.touch("none") is False
    assert asyncio.run(cache.atouch("none")) is False


@pytest.mark.parametrize("value", [7, "text", "x" * 10_000])
def test_touch_gives_a_new_life(cache, value):
    cache.set("k", value, 0.3)
    assert cache.touch("k", 600) is True
    time.sleep(0.4)
    assert cache.get("k") == value
    assert asyncio.run(cache.atouch("k", 0.2)) is True
    time.sleep(0.3)
    assert cache.get("k") is None
    cache.set("k", value)
    assert cache.touch("k", 0) is True
    assert cache.get("k") is None


ADDING = """
import sys
from django.conf import settings
settings.configure()
from eventperf.contrib.django.cache import EventPerfCache
cache = EventPerfCache(sys.argv[1], {"OPTIONS": {"timeout": 5, "namespace": "many"}})
for _ in range(200): cache.incr("n")
"""


def test_no_addition_of_many_processes_is_lost_and_all_see_the_sum(redis_url):
    cache = EventPerfCache(redis_url, {"OPTIONS": {"timeout": 5, "namespace": "many"}})
    cache.set("n", 0, 600)
    assert cache.get("n") == 0  # held in process memory from here on
    runs = [subprocess.Popen([sys.executable, "-c", ADDING, redis_url]) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    cache.incr("n")
    assert cache.get("n") == 601


def test_tasks_load_delete_and_clear_as_threads_do(cache):
    async def main() -> None:
        assert await cache.aget_or_set("a", lambda: 1, 60) == 1
        assert await cache.aget_or_set("a", lambda: 2, 60) == 1
        await cache.aset_many({"b": 2, "c": 3}, 60)
        await cache.adelete_many(["a", "b", "none"])
        assert await cache.aget_many(["a", "b", "c"]) == {"c": 3}
        await cache.adelete_many([])
        await cache.aclear()
        assert await cache.aget("c") is None

    asyncio.run(main())
    assert cache.get_many(["a", "b", "c"]) == {}
