"""What jobs that have ended leave in Redis: nothing that grows with them or with those they were for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from eventperf.queues import Exponential, JobSpec, Limit, QueueManager
from eventperf.testing.queues import balanced
from faults import wait_until

pytestmark = pytest.mark.integration

USERS = 60

UNKNOWN = 20  # jobs of a type that nobody runs: they wait until they are purged
MOST_FIELDS = 2_000 + 2 * 128 + 4  # of a minute: a series that is begun may fill its two histograms


def _sizes(client: Any) -> dict[str, int]:
    """Return how many entries each key has; those that end by themselves are left out."""
    size = {b"list": "llen", b"hash": "hlen", b"set": "scard", b"zset": "zcard"}
    found = {}
    for key in client.scan_iter(count=1000):
        if client.pttl(key) < 0 and client.type(key) != b"string":
            found[key.decode().split("}:")[1]] = int(getattr(client, size[client.type(key)])(key))
    return found


def _take_bounded(sizes: dict[str, int], classes: int) -> None:
    """Hold what grows towards a bound that is no matter of jobs to that bound, and take it out."""
    for name in list(sizes):
        if name == "s":  # how often each class was passed over
            assert sizes.pop(name) <= classes
        elif name.startswith("M:"):  # the minute that runs: its fields are bounded, and it is written anew
            assert sizes.pop(name) <= MOST_FIELDS


def _declare(queues: QueueManager) -> None:
    @queues.job("work", attempts=2, backoff=Exponential(0.01, jitter=0))
    async def work(ctx: Any, data: str) -> str:
        if data == "fails" or (data == "once" and ctx.attempt == 1):
            raise ValueError(data)
        async with ctx.once("step") as todo:
            if todo:
                await ctx.aprogress(0.5)
        if data == "follows":
            ctx.then("work", "", fairness_key=f"then-{ctx.job_id}")
        return data

    @queues.job("capped")
    async def capped(ctx: Any, data: None) -> None: ...


def _round(queues: QueueManager, n: int) -> None:
    """Work of every kind, for users that were never seen before."""
    users = [f"user-{n}-{k}" for k in range(USERS)]
    for user in users:
        queues.enqueue("work", "", fairness_key=user)
        queues.enqueue("work", "once", unique_key=user)
        queues.enqueue("work", "fails", unique_key=f"{user}-f", unique_for="running", queue="low")
        queues.enqueue("work", "follows", unique_key=f"{user}-t", unique_for=0.5)
        queues.enqueue("capped", fairness_key=user)
    doomed = [queues.enqueue("work", "", fairness_key=f"gone-{user}", delay=60) for user in users[:20]]
    doomed += [queues.enqueue("work", "", after=[job.id], unique_key=f"a-{job.id}") for job in doomed]
    queues.enqueue_many("unknown", [None] * UNKNOWN, fairness_key=users[0])
    chain = queues.chain([JobSpec(type="work", data="") for _ in range(20)])
    queues.batch([JobSpec(type="work", data="") for _ in range(20)], then=JobSpec(type="work", data=""))
    for job in doomed[:20]:
        assert job.cancel()
    wait_until(lambda: chain[-1].info().is_finished, 60)
    # All that can run has run, in each class and each round: only then is what is left what is kept.
    wait_until(lambda: sum(s.active + s.delayed + s.waiting for s in queues.status()) <= UNKNOWN, 60)
    for queue in queues.queues:
        queues.purge(queue)
        queues.purge(queue, "failed")
    wait_until(lambda: not any(s.waiting for s in queues.status()), 60)


def test_nothing_grows_with_jobs_that_have_ended(private_redis: Callable[..., Any]) -> None:
    server = private_redis()
    limits = [Limit(type="capped", per_key=True, concurrency=1, rate=5, per="1s")]
    with QueueManager(server.url, limits=limits, result_ttl=1.0) as queues, server.client() as client:
        _declare(queues)
        worker = queues.worker(concurrency=10, lease=30)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            seen = []
            for n in range(3):
                _round(queues, n)
                time.sleep(2.5)  # results and timed keys have ended
                seen.append(_sizes(client))
        finally:
            worker.stop()
            thread.join(20)
        assert balanced(queues.status())
        for sizes in seen:
            _take_bounded(sizes, classes=len(queues.queues))
    first, second, third = seen
    grown = {name: (second.get(name, 0), size) for name, size in third.items() if size > second.get(name, 0)}
    assert not grown
    assert sum(third.values()) <= sum(first.values()) + 20, "nor since the first round"
