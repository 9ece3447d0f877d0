"""Figures of all processes of a cache, one entry's facts, the largest values: told, bounded, by no scan."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, CacheStats, StoreUnavailable
from faults import wait_until

pytestmark = pytest.mark.integration

OTHER = """
import sys, time
from pathlib import Path
from eventperf.cache import CacheManager
cache = CacheManager(sys.argv[1], namespace=sys.argv[2], coherence=sys.argv[3])
for n in range(3):
    cache.get_or_load(f"k:{n}", lambda: n)
cache.get("k:0")
Path(sys.argv[4]).touch()
while not Path(sys.argv[5]).exists():
    time.sleep(0.02)
"""


@pytest.fixture
def space() -> str:
    return f"fleet-{uuid4().hex[:8]}"


@pytest.fixture
def cache(redis_url: str, space: str) -> Iterator[CacheManager]:
    with CacheManager(redis_url, namespace=space) as made:
        yield made


@pytest.mark.parametrize("coherence", ["tracking", "bus"])
def test_every_process_tells_its_figures_while_somebody_looks(
    redis_url: str, space: str, coherence: str, tmp_path: Path
) -> None:
    ready, end = tmp_path / "ready", tmp_path / "end"
    command = [sys.executable, "-c", OTHER, redis_url, space, coherence, str(ready), str(end)]
    with subprocess.Popen(command) as other, CacheManager(redis_url, namespace=space) as cache:
        try:
            wait_until(ready.exists, 60)
            client = cache.store.links.client()
            assert client.exists(f"{space}:x:fleet") == 0, "nobody looked, nothing is written"
            cache.get("k:1")
            wait_until(lambda: len(cache.fleet()) == 2, 60)
            here, there = cache.fleet()
            assert (here.pid, here.is_here, there.pid, there.is_here) == (os.getpid(), True, other.pid, False)
            assert there.stats.loads == 3
            assert there.stats.breaker == "closed"
            assert there.version == here.version
            assert CacheStats.summed([here.stats, there.stats]).loads == 3
            assert 0 < client.pttl(f"{space}:x:fleet") <= 35_000
        finally:
            end.touch()


def test_a_board_is_bounded_and_forgets_what_is_over(cache: CacheManager) -> None:
    board, key = cache.store.board, f"{cache.namespace}:x:test"
    for n in range(4):
        board(key, f"p{n}", b"%d" % n, 60.0, 3)
    assert sorted(note for _, note in board(key, "p1", b"again", 60.0, 3)) == [b"0", b"2", b"again"]
    client = cache.store.links.client()
    assert client.hlen(key) == 3
    assert [note for _, note in board(key, "p3", b"3", 0.001, 3)] != []
    wait_until(lambda: client.exists(key) == 0, 30)
    client.rpush(key, "foreign")
    assert board(key, "p0", b"0", 60.0, 3) == [(0.0, b"0")], "another type is taken over"


@pytest.mark.parametrize(
    "note",
    [b"\xff", b"{", b"[]", b"{}", b'{"host": 7, "pid": 1, "began": 1.0}', b"[" * 100_000,
     b'{"host": "h", "pid": 1, "began": 1.0, "stats": {"hits": "many", "breaker": 7, "load_s": 1e999}}'],
)  # fmt: skip
def test_notes_of_somebody_else_are_no_figures(cache: CacheManager, note: bytes) -> None:
    assert len(cache.fleet()) == 1
    cache.store.links.client().hset(f"{cache.namespace}:x:fleet", "odd", b"%d|%b" % (10**13, note))
    found = cache.fleet()
    strange = [one for one in found if not one.is_here]
    assert [one.stats for one in strange] in ([], [CacheStats()])


def test_a_silent_store_is_said_and_a_cache_without_one_is_alone() -> None:
    with CacheManager("redis://127.0.0.1:1", namespace="away") as away, pytest.raises(StoreUnavailable):
        away.fleet()
    with CacheManager() as alone:
        alone.get_or_load("k", lambda: 1)
        (one,) = asyncio.run(alone.afleet())
        assert (one.is_here, one.pid, one.stats.loads) == (True, os.getpid(), 1)


def test_a_child_is_a_process_of_its_own(cache: CacheManager) -> None:
    (parent,) = cache.fleet()
    read, write = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover
        found = [one.pid for one in cache.fleet() if one.is_here]
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(read, 1_000)) == [child]
    assert {one.pid for one in cache.fleet()} == {parent.pid, child}


def test_an_entry_is_told_of_without_its_value(cache: CacheManager, space: str) -> None:
    cache.set("k", "x" * 5_000, ttl=100, tags=["a", "b"])
    facts = cache.about("k")
    assert facts is not None
    assert facts.size_bytes == cache.store.links.client().strlen(f"{space}:1:k")
    assert 90 < facts.fresh_s <= 100
    assert facts.age_s is not None
    assert 0 <= facts.age_s < 90
    assert set(facts.tags) == {"a", "b"}
    assert cache.about("nothing") is None
    with CacheManager() as near:
        near.set("k", 1, ttl=100, tags=["a"])
        there: Any = near.about("k")
        assert (there.age_s, there.size_bytes, there.tags) == (None, None, ("a",))
        assert near.about("nothing") is None


def test_the_largest_values_are_remembered_and_no_more(cache: CacheManager) -> None:
    cache.set("big", "x" * 90_000)
    for n in range(200):
        cache.set(f"k{n}", "x" * (n + 1))
    cache.get_or_load("loaded", lambda: "y" * 50_000)
    found = cache.largest(50)
    assert [key for key, _ in found[:3]] == ["big", "loaded", "k199"]
    assert len(found) == 50
    assert all(size > 40 for _, size in found)
    cache.set("big", "x")
    assert [key for key, _ in cache.largest(2)] == ["loaded", "k199"], "the size it had last"
