"""Hosts whose clocks differ, by a stand-in clock each: entries, lives and pauses mean the same to all."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from eventperf._core.clock import SystemClock
from eventperf.cache import CacheManager, CacheOptions, RedisStore
from faults import wait_until

pytestmark = pytest.mark.integration

HOUR = 3600.0
_connections = itertools.count(8)


class Host(SystemClock):
    """The clock of a host that is ``off`` from the true time."""

    def __init__(self, off: float) -> None:
        self.off = off

    def time(self) -> float:  # type: ignore[override]
        return time.time() + self.off


class Hosts:
    """Makes caches as processes on different hosts have them."""

    def __init__(self, url: str) -> None:
        self._url, self.name = url, uuid4().hex
        self.made: list[CacheManager] = []

    def host(self, off: float) -> CacheManager:
        # No connections, and no clock, in common.
        store = RedisStore(self._url, timeout=30, max_connections=next(_connections))
        self.made.append(CacheManager(store, namespace=self.name, l1=None, coherence="ttl", clock=Host(off)))
        return self.made[-1]


@pytest.fixture
def hosts(redis_url: str) -> Iterator[Hosts]:
    made = Hosts(redis_url)
    yield made
    for cache in made.made:
        cache.close()


def loaded(cache: CacheManager, key: str, **options: Any) -> bool:
    calls: list[int] = []
    cache.get_or_load(key, lambda: calls.append(1), **options)
    return bool(calls)


async def aget(cache: CacheManager, key: str) -> Any:
    return await cache.aget(key)


WRITES: dict[str, Any] = {
    "set": lambda c: c.set("k", 1, ttl=600),
    "set_many": lambda c: c.set_many({"k": 1, "l": 2}, ttl=600, tags=["t"]),
    "add": lambda c: c.add("k", 1, ttl=600),
    "load": lambda c: c.get_or_load("k", lambda: 1, ttl=600),
    "load many": lambda c: c.get_or_load_many(["k"], lambda keys: {"k": 1}, ttl=600),
    "touch": lambda c: (c.set("k", 1, ttl=5), c.touch("k", ttl=600)),
    "aset": lambda c: asyncio.run(c.aset("k", 1, ttl=600)),
    "warm pairs": lambda c: (c.warmer("all", key="*", ttl=600)(lambda: {"k": 1}), c.warm()),
    "warm": lambda c: (c.warmer("k", ttl=600)(lambda: 1), c.warm()),
}
READS: dict[str, Any] = {
    "get": lambda c: c.get("k"),
    "get_many": lambda c: c.get_many(["k"]).get("k"),
    "load": lambda c: c.get_or_load("k", lambda: "loaded again"),
    "load many": lambda c: c.get_or_load_many(["k"], lambda keys: {"k": "loaded again"})["k"],
    "aget": lambda c: asyncio.run(aget(c, "k")),
}


@pytest.mark.parametrize("off", [-HOUR, 30])
def test_reads_find_what_other_hosts_write(hosts: Hosts, off: float) -> None:
    for writer, reader in ((off, 0.0), (0.0, off)):
        hosts.host(writer).set("k", 1, ttl=600)
        for read in READS.values():
            assert read(hosts.host(reader)) == 1  # it has asked for nothing before


@pytest.mark.parametrize("off", [-HOUR, HOUR])
@pytest.mark.parametrize("write", WRITES)
def test_what_one_host_writes_lives_as_long_on_another(hosts: Hosts, write: str, off: float) -> None:
    for writer, reader in ((off, 0.0), (0.0, off)):
        first, second = hosts.host(writer), hosts.host(reader)
        first.clear()
        WRITES[write](first)
        assert second.get("k") == 1
        assert 500 < (second.ttl("k") or 0) <= 601


@pytest.mark.parametrize("off", [-HOUR, HOUR])
def test_stale_is_stale_to_every_host(hosts: Hosts, off: float) -> None:
    options = CacheOptions(ttl=0.02, stale_while_revalidate=7200)
    for writer, reader in ((off, 0.0), (0.0, off)):
        first, second = hosts.host(writer), hosts.host(reader)
        first.delete("k")
        assert loaded(first, "k", options=options)
        wait_until(lambda c=second: c.get("k", "stale") == "stale", 30, what="the end of its life")


@pytest.mark.parametrize("off", [-HOUR, HOUR])
def test_pauses_are_by_the_clock_of_the_server(hosts: Hosts, off: float) -> None:
    for here, there in ((off, 0.0), (0.0, off)):
        first, second = hosts.host(here), hosts.host(there)
        first.invalidate("k", settle=600)
        first.invalidate_tags("t", settle=600)
        for cache in (first, second):
            assert loaded(cache, "k")
            assert loaded(cache, "k"), "the pause of the key holds"
            assert loaded(cache, "tagged", tags=["t"])
            assert loaded(cache, "tagged", tags=["t"]), "that of the tag too"
            cache.delete("k")
        first.invalidate_tags("short", settle=0.02)
        wait_until(lambda c=second: not loaded(c, "s", tags=["short"]), 30, what="the end of the pause")
        assert not loaded(first, "s", tags=["short"])


def test_on_a_cluster_too(redis_cluster_url: str) -> None:
    hosts = Hosts(redis_cluster_url)
    try:
        ahead, behind = hosts.host(HOUR), hosts.host(-HOUR)
        for writer, reader in ((ahead, behind), (behind, ahead)):
            writer.set("k", 1, ttl=600, tags=["t"])
            assert reader.get("k") == 1
            assert 500 < (reader.ttl("k") or 0) <= 601
    finally:
        for cache in hosts.made:
            cache.close()


def test_a_clock_that_steps_while_the_process_runs_is_noticed(hosts: Hosts, caplog: Any) -> None:
    steady, stepping = hosts.host(0), hosts.host(0)
    steady.set("k", 1, ttl=600)
    assert stepping.get("k") == 1
    clock: Any = stepping._core.clock
    with caplog.at_level(logging.WARNING):
        for off in (HOUR, -HOUR):
            clock.off = off
            stepping._core.common.clock._doubts_after = 0.0  # as after a minute
            assert stepping.get("k") == 1
            assert 500 < (stepping.ttl("k") or 0) <= 601
    assert len([r for r in caplog.records if "apart" in r.getMessage()]) == 1


def test_hosts_that_agree_are_left_alone_and_ask_once(hosts: Hosts, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        cache = hosts.host(0.3)
        asked: list[str] = []
        plain = cache.store.server_time
        cache._core.tier.time.plain = lambda key: asked.append(key) or plain(key)
        for n in range(20):
            cache.set(f"k{n}", n)
            cache.get(f"k{n}")
            cache.get_or_load(f"l{n}", lambda n=n: n)
    assert len(asked) == 1
    assert not [r for r in caplog.records if "apart" in r.getMessage()]
