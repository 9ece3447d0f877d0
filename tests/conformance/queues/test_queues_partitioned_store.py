"""Partitions of Redis against the suite of job stores: four of one server, four of a cluster.

What the suite promises of order and of what is kept is looked at in one of them, where all jobs are put.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import QueueManager
from eventperf.queues.backends.partitions.routing import Routing
from eventperf.queues.job import NewJob
from eventperf.testing.queues import JobStoreSuite, Make

PARTITIONS = 4


def _maker(url: str) -> Make:
    namespace = f"t-{uuid4().hex[:8]}"
    return lambda **options: QueueManager(url, namespace=namespace, partitions=PARTITIONS, **options)


class OneHome(Routing):
    """All jobs in the third partition."""

    def of(self, job_id: str) -> int:
        return 2

    def place(self, jobs: Sequence[NewJob], *, together: bool = False, beside: str | None = None) -> None:
        return None


def put_into_one(queues: QueueManager) -> None:
    backend: Any = queues.backend
    backend.capabilities |= {"whole"}
    backend.routing = OneHome(backend.routing.namespace, backend.routing.count)
    backend.close()
    backend._open()


def _holds_in_each(name: str) -> bool:
    marks = getattr(getattr(JobStoreSuite, name), "pytestmark", [])
    return any(mark.name == "usefixtures" and "whole_store" in mark.args for mark in marks)


@pytest.mark.integration
class TestOnePartition(JobStoreSuite):
    """What is promised of each partition."""

    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        namespace = f"t-{uuid4().hex[:8]}"

        def build(**options: Any) -> QueueManager:
            queues = QueueManager(redis_url, namespace=namespace, partitions=PARTITIONS, **options)
            put_into_one(queues)
            return queues

        return build


for name in dir(JobStoreSuite):  # what is promised of all of them together is looked at below
    if name.startswith("test_") and not _holds_in_each(name):
        setattr(TestOnePartition, name, None)


@pytest.mark.integration
class TestPartitionedRedisStore(JobStoreSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return _maker(redis_url)


@pytest.mark.long
@pytest.mark.integration
class TestPartitionedClusterStore(JobStoreSuite):
    @pytest.fixture
    def make(self, redis_cluster_url: str) -> Make:
        return _maker(redis_cluster_url)
