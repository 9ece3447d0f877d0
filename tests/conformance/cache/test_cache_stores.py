"""Every store of ours against the published suite."""

from __future__ import annotations

import cachetools
import pytest

from eventperf.cache import CachetoolsStore, MemoryStore, RedisStore
from eventperf.testing.cache import CacheStoreSuite


class TestMemoryStore(CacheStoreSuite):
    @pytest.fixture
    def store(self):
        return MemoryStore()


class TestMemoryStoreBoundedByBytes(CacheStoreSuite):
    @pytest.fixture
    def store(self):
        return MemoryStore(max_bytes=10_000_000, group_ratio=0.5)


class TestCachetoolsStore(CacheStoreSuite):
    @pytest.fixture(params=[cachetools.LRUCache, cachetools.LFUCache])
    def store(self, request):
        return CachetoolsStore(request.param(10_000))


@pytest.mark.integration
class TestRedisStore(CacheStoreSuite):
    @pytest.fixture
    def store(self, redis_url):
        return RedisStore(redis_url, timeout=2)


@pytest.mark.integration
class TestRedisClusterStore(CacheStoreSuite):
    @pytest.fixture
    def store(self, redis_cluster_url):
        return RedisStore(redis_cluster_url, timeout=2)


@pytest.mark.integration
class TestRedisSentinelStore(CacheStoreSuite):
    @pytest.fixture
    def store(self, redis_sentinel_url):
        return RedisStore(redis_sentinel_url, timeout=2)
