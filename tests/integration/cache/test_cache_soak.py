"""Millions of keys that come once: what a process remembers of them is bounded by what its user set.

30,000 keys in CI, eight times what may be remembered; ``nox -s soak`` (``EVENTPERF_SOAK=1``) takes
three million.
"""

from __future__ import annotations

import os
import threading
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, CacheOptions, MemoryStore, RedisStore
from eventperf.testing import assert_bounded

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(7200)]

KEYS = 3_000_000 if os.environ.get("EVENTPERF_SOAK", "") not in ("", "0") else 30_000
PART = 500
ENTRIES = 1_000
MOST = 2 * ENTRIES + 1_500
"""Twice what was set (dead entries are swept together), and what waits for a sweep of a fixed size."""


def live(cache: CacheManager, keys: int) -> None:
    """Use a cache in every way, with keys, tags, tenants, functions and settles that never come back."""
    once = cache.cached(key="once:{n}", tags=["once:{n}"], ttl=0.2)(lambda n: n)
    for start in range(0, keys, PART):
        names = [f"part:{n}" for n in range(start, start + PART)]
        tenant = CacheOptions(namespace=f"tenant:{start % 100}", ttl=5)
        cache.get_or_load_many(names, lambda part: dict.fromkeys(part, "v"), tags=[f"start:{start}"], ttl=1)
        cache.set_many({f"set:{start}": None, f"more:{start}": [1]}, tags=[f"set:{start}"], ttl=86_400)
        cache.get_many(names[:20])
        cache.get_or_load(f"one:{start}", lambda: 1, tags=lambda _, at=start: [f"one:{at}"])
        cache.get_or_load(f"mine:{start}", lambda: 1, options=tenant)
        assert once(start) == once(start) == start
        once.invalidate(start)
        cache.touch(f"set:{start}", ttl=3600)
        cache.invalidate(f"one:{start}", settle=0.01)
        cache.invalidate_tags(f"start:{start}", settle=0.01)
        cache.counter(f"visits:{start}", ttl=5).incr()
        if start % 10_000 == 0:
            cache.invalidate_pattern(f"part:{start}*")
            assert_bounded(cache, most=MOST, modules="eventperf.cache")


def test_process_memory_remembers_what_it_was_told_to():
    with CacheManager(l1=MemoryStore(max_entries=ENTRIES, group_ratio=0.8)) as cache:
        live(cache, KEYS)
        assert_bounded(cache, most=MOST, modules="eventperf.cache")
        assert cache.stats().entries <= ENTRIES


@pytest.mark.parametrize("coherence", ["tracking", "bus"])
def test_a_process_on_redis_remembers_what_it_was_told_to(redis_url, coherence):
    threads = threading.active_count()
    store = RedisStore(redis_url, timeout=5)
    l1 = MemoryStore(max_entries=ENTRIES)
    with CacheManager(store, namespace=uuid4().hex, l1=l1, coherence=coherence) as cache:
        live(cache, KEYS if coherence == "tracking" else KEYS // 5)
        assert_bounded(cache, most=MOST, modules="eventperf.cache")
        assert threading.active_count() <= threads + 4
        cache.clear()
