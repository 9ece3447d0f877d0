"""A read that begins after an invalidation never gets what was loaded before it, not even as a waiter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager


def _by_key(cache: CacheManager) -> None:
    cache.invalidate("seats")


def _by_tag(cache: CacheManager) -> None:
    cache.invalidate_tags("event:7")


@pytest.mark.parametrize("invalidate", [_by_key, _by_tag])
@pytest.mark.parametrize("tags", [["event:7"], lambda value: ["event:7"]], ids=["known", "from the result"])
@pytest.mark.parametrize("tier", ["memory", "redis"])
def test_a_later_reader_does_not_join_an_older_load(
    tier: str,
    tags: Any,
    invalidate: Callable[[CacheManager], None],
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("redis_url") if tier == "redis" else None
    database, began, go_on = [1], threading.Event(), threading.Event()
    answers: list[int] = []

    def slow() -> int:
        seen = database[0]
        began.set()
        assert go_on.wait(10)
        return seen

    with CacheManager(url, namespace=f"read-after-{uuid4().hex}") as cache:
        early = threading.Thread(
            target=lambda: answers.append(cache.get_or_load("seats", slow, ttl="1m", tags=tags))
        )
        early.start()
        assert began.wait(10)
        database[0] = 2
        invalidate(cache)
        late: list[int] = []
        reader = threading.Thread(
            target=lambda: late.append(cache.get_or_load("seats", lambda: database[0], ttl="1m", tags=tags))
        )
        reader.start()
        reader.join(2.0 if tier == "memory" else 0.3)
        go_on.set()
        early.join(10)
        reader.join(10)
        assert late == [2]
        assert answers == [1]
        assert cache.get_or_load("seats", lambda: database[0], ttl="1m", tags=tags) == 2
