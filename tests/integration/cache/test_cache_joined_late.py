"""Who asks after another process has invalidated gets no load from before, though one is under way here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, RedisStore
from faults import wait_until

pytestmark = pytest.mark.integration

DEEDS: dict[str, Callable[[CacheManager], object]] = {
    "key": lambda other: other.invalidate("k1"),
    "tag": lambda other: other.invalidate_tags("t"),
    "pattern": lambda other: other.invalidate_pattern("k*"),
    "set": lambda other: other.set("k1", "new", tags=["t"]),
}


def _one(cache: CacheManager, loader: Callable[[], Any]) -> Any:
    return cache.get_or_load("k1", loader, tags=["t"])


def _task(cache: CacheManager, loader: Callable[[], Any]) -> Any:
    async def aloader() -> Any:
        return await asyncio.to_thread(loader)

    return asyncio.run(cache.aget_or_load("k1", aloader, tags=["t"]))


def _many(cache: CacheManager, loader: Callable[[], Any]) -> Any:
    return cache.get_or_load_many(["k1", "k2"], lambda keys: dict.fromkeys(keys, loader()), tags=["t"])["k1"]


WAYS = {"one": _one, "task": _task, "many": _many}


@pytest.fixture(params=["tracking", "bus", "no memory"])
def caches(request: pytest.FixtureRequest, redis_url: str) -> Iterator[tuple[CacheManager, CacheManager]]:
    """This process's cache and another's."""
    more: dict[str, Any] = {"bus": {"coherence": "bus"}, "no memory": {"l1": None}}.get(request.param, {})
    name = uuid4().hex
    with (
        CacheManager(RedisStore(redis_url, timeout=5), namespace=name, ttl=60, **more) as here,
        CacheManager(RedisStore(redis_url, timeout=5), namespace=name, ttl=60, **more) as other,
    ):
        yield here, other


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
@pytest.mark.parametrize(
    ("first", "second"), [("one", "one"), ("one", "task"), ("many", "one"), ("task", "many")]
)
def test_caller_after_an_invalidation_elsewhere_takes_no_load_from_before(
    caches: tuple[CacheManager, CacheManager], first: str, second: str, deed: Callable[[CacheManager], object]
) -> None:
    here, other = caches
    go, begun = threading.Event(), threading.Event()
    got: list[Any] = []

    def held() -> str:
        begun.set()
        go.wait(60)
        return "from before"

    early = threading.Thread(target=lambda: WAYS[first](here, held))
    late = threading.Thread(target=lambda: got.append(WAYS[second](here, lambda: "new")))
    early.start()
    try:
        assert begun.wait(30)
        deed(other)
        late.start()
        late.join(0.05)
    finally:
        go.set()
    early.join(30)
    late.join(30)
    assert got == ["new"]
    wait_until(lambda: here.get("k1", "new") == "new", 30)


def test_waiters_of_a_key_that_is_invalidated_all_the_time_are_all_served(
    caches: tuple[CacheManager, CacheManager],
) -> None:
    """Each goes round once at most: the next load began after it had asked."""
    here, other = caches
    loads: list[int] = []
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            other.invalidate("k1")

    def load() -> int:
        loads.append(1)
        stop.wait(0.05)
        return len(loads)

    got: list[int] = []
    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        crowd = [threading.Thread(target=lambda: got.append(_one(here, load))) for _ in range(30)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join(30)
    finally:
        stop.set()
        disturber.join(30)
    assert len(got) == 30
    assert len(loads) < 10
