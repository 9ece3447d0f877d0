"""A replica takes its master's place: the worker stays, what was waited for is there."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from eventperf.queues import QueueManager, StoreUnavailable
from eventperf.testing.queues import balanced
from faults import wait_until

pytestmark = pytest.mark.integration


def test_a_cluster_hands_over_in_good_order(private_redis_cluster: Callable[..., Any]) -> None:
    cluster = private_redis_cluster()
    has_what_was_waited_for(cluster.url, lambda: cluster.failover(cluster.master_of("{eventperf:default}:j")))


def test_sentinels_promote_the_replica_of_a_master_that_was_killed(
    private_redis_sentinel: Callable[..., Any],
) -> None:
    sentinel = private_redis_sentinel()
    has_what_was_waited_for(sentinel.url, sentinel.master.kill9, replicas_after=0)


def has_what_was_waited_for(url: str, promote: Callable[[], object], *, replicas_after: int = 1) -> None:
    runs, acknowledged = Counter[int](), list[int]()
    with (
        QueueManager(url, wait_replicas=1, wait_timeout=2) as queues,
        QueueManager(url, wait_replicas=replicas_after, wait_timeout=2) as later,
    ):

        @queues.job("t")
        async def t(ctx: Any, data: int) -> None:
            runs[data] += 1

        worker = queues.worker(concurrency=5, lease=2)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            for n in range(100):
                wait_until(lambda n=n: _send(queues, n, acknowledged), 30)  # type: ignore[misc]
            promote()
            for n in range(100, 200):
                wait_until(lambda n=n: _send(later, n, acknowledged), 30)  # type: ignore[misc]
            wait_until(lambda: {*acknowledged} <= runs.keys(), 30)
            wait_until(lambda: queues.drain(20), 30)
            assert thread.is_alive()
        finally:
            worker.stop()
            thread.join(30)
        assert balanced(queues.status())
    assert len(acknowledged) == 200
    assert {*runs} == {*range(200)}


def _send(queues: QueueManager, n: int, acknowledged: list[int]) -> bool:
    try:
        queues.enqueue("t", n, id=f"n-{n}")
    except StoreUnavailable:
        return False
    acknowledged.append(n)
    return True
