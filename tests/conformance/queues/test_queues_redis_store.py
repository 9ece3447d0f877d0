"""The Redis engine against the suite of job stores, on one server and on a cluster."""

from __future__ import annotations

from uuid import uuid4

import pytest

from eventperf.queues import QueueManager
from eventperf.testing.queues import JobStoreSuite, Make


def _maker(url: str) -> Make:
    namespace = f"t-{uuid4().hex[:8]}"
    return lambda **options: QueueManager(url, namespace=namespace, **options)


@pytest.mark.integration
class TestRedisStore(JobStoreSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return _maker(redis_url)


@pytest.mark.integration
class TestRedisClusterStore(JobStoreSuite):
    @pytest.fixture
    def make(self, redis_cluster_url: str) -> Make:
        return _maker(redis_cluster_url)
