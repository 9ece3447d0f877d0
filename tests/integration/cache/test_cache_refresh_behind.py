"""Stale-while-revalidate: nobody waits for a refresh while there is an old value, whatever becomes of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, CacheOptions, RedisStore
from faults import wait_until

pytestmark = pytest.mark.integration

OPTIONS = CacheOptions(ttl=0.05, stale_while_revalidate=60)

Read = Callable[[CacheManager, Callable[[], Any]], Any]


def _plain(cache: CacheManager, loader: Callable[[], Any]) -> Any:
    return cache.get_or_load("k", loader)


def _task(cache: CacheManager, loader: Callable[[], Any]) -> Any:
    async def aloader() -> Any:
        return await asyncio.to_thread(loader)

    return asyncio.run(cache.aget_or_load("k", aloader))


def _invalidated_elsewhere(cache: CacheManager, url: str) -> None:
    """As another process does it, where there can be one."""
    if cache.namespace == "app":
        cache.invalidate("k")
        return
    with CacheManager(RedisStore(url, timeout=5), namespace=cache.namespace) as other:
        other.invalidate("k")


READS = pytest.mark.parametrize("read", [_plain, _task])


@pytest.fixture(params=["memory", "tracking", "bus", "no memory"])
def cache(request: pytest.FixtureRequest) -> Iterator[CacheManager]:
    name = uuid4().hex
    if request.param == "memory":
        manager = CacheManager(options=OPTIONS)
    else:
        url = str(request.getfixturevalue("redis_url"))
        more: dict[str, Any] = {"l1": None} if request.param == "no memory" else {}
        store = RedisStore(url, timeout=5)
        if request.param == "bus":
            more["coherence"] = "bus"
        manager = CacheManager(store, namespace=name, options=OPTIONS, **more)
    with manager:
        manager.get_or_load("k", lambda: "old")
        time.sleep(0.1)
        yield manager


@READS
def test_every_reader_gets_the_old_value_while_one_load_refreshes_it(cache: CacheManager, read: Read) -> None:
    go, loads = threading.Event(), []

    def held() -> str:
        loads.append(1)
        go.wait(60)
        return "new"

    try:
        assert _plain(cache, held) == "old"
        wait_until(lambda: loads, 30)
        assert [read(cache, held) for _ in range(5)] == ["old"] * 5
        assert loads == [1]
    finally:
        go.set()
    wait_until(lambda: _plain(cache, lambda: "new") == "new", 30)


@READS
def test_refresh_that_fails_at_once_is_told_to_nobody(cache: CacheManager, read: Read) -> None:
    def down() -> str:
        raise ConnectionError("database away")

    assert [read(cache, down) for _ in range(10)] == ["old"] * 10


@READS
def test_refresh_that_fails_later_is_told_to_nobody(cache: CacheManager, read: Read) -> None:
    go, begun = threading.Event(), threading.Event()

    def fails() -> str:
        begun.set()
        go.wait(60)
        raise ConnectionError("database away")

    got: list[Any] = []
    try:
        assert _plain(cache, fails) == "old"
        assert begun.wait(30)
        reader = threading.Thread(target=lambda: got.append(read(cache, fails)))
        reader.start()
        reader.join(30)
    finally:
        go.set()
    assert got == ["old"]


@READS
def test_old_value_that_is_invalidated_during_the_refresh_is_served_no_more(
    cache: CacheManager, read: Read, redis_url: str
) -> None:
    go, begun = threading.Event(), threading.Event()

    def held() -> str:
        begun.set()
        go.wait(60)
        return "from before"

    try:
        assert _plain(cache, held) == "old"
        assert begun.wait(30)
        _invalidated_elsewhere(cache, redis_url)
        wait_until(lambda: cache.get("k") is None, 30)
        got: list[Any] = []
        reader = threading.Thread(target=lambda: got.append(read(cache, lambda: "new")))
        reader.start()
        reader.join(0.3)
        assert got in ([], ["new"]), "it may wait for the load under way, and gets no old value"
    finally:
        go.set()
    reader.join(30)
    assert got == ["new"]
