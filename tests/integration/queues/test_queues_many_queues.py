"""What a job costs Redis does not depend on how many queues, limits and unknown types there are beside it."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import JobSpec, Limit, QueueConfig, QueueManager
from eventperf.testing.queues import Station
from faults import wait_until

pytestmark = pytest.mark.integration

MANY = 1_000


def _declared(url: str, many: int, **options: Any) -> QueueManager:
    queues = [QueueConfig(name=f"t{n}", keep_failed=n + 1) for n in range(many)]
    return QueueManager(url, namespace=uuid4().hex, queues=queues, **options)


def _cost(client: Any, station: Station, queues: QueueManager, jobs: int = 10) -> tuple[float, float]:
    """Return what a job that is pushed, claimed and finished costs: commands inside of Redis, bytes to it."""

    def run(n: int) -> None:
        for k in range(n):
            queues.enqueue("t", k, queue=f"t{k % 3}")
            (lease,) = station.take(1)
            assert station.end(lease)

    run(1)  # scripts are loaded, settings told
    client.config_resetstat()
    run(jobs)
    commands = sum(row["calls"] for row in client.info("commandstats").values())
    return commands / jobs, client.info("stats")["total_net_input_bytes"] / jobs


def test_job_costs_the_same_among_many_queues_and_limits(private_redis: Any) -> None:
    server = private_redis()
    found = []
    for many in (100, MANY):
        limits = [Limit(queue=f"t{n}", type="t", rate=1_000_000) for n in range(many)]
        with server.client() as client, _declared(server.url, many, limits=limits) as queues:
            found.append(_cost(client, Station(queues, "t", lease_s=30), queues))
    (few, few_bytes), (many_, many_bytes) = found
    assert many_ == pytest.approx(few, abs=1)
    assert many_bytes < few_bytes + 1_000


def test_claim_costs_the_same_behind_many_unknown_types(private_redis: Any) -> None:
    server = private_redis()
    with server.client() as client, _declared(server.url, 3) as queues:
        station = Station(queues, "t", lease_s=30)
        before = _cost(client, station, queues)
        queues.enqueue_many([JobSpec(type=f"strange{n}", queue="t0") for n in range(MANY)])
        assert station.take(1) == []
        behind = _cost(client, station, queues)
        assert behind[0] < before[0] + 8


def test_status_costs_redis_the_same_among_many_queues(private_redis: Any) -> None:
    server, found = private_redis(), []
    for many in (100, MANY):
        with server.client() as client, _declared(server.url, many) as queues:
            station = Station(queues, "t", lease_s=30)
            queues.enqueue("t", queue="t7")
            assert station.end(station.take(1)[0], "dead", error="x")
            queues.status()
            client.config_resetstat()
            assert [row.dead for row in queues.status() if row.name in ("t7", "t8")] == [1, 0]
            found.append(sum(row["calls"] for row in client.info("commandstats").values()))
    assert found[0] == found[1]


def test_status_of_a_quiet_queue_follows_what_happens_to_it(redis_url: str) -> None:
    with _declared(redis_url, 3) as queues:

        def row() -> tuple[int, int, int, bool]:
            (one,) = [one for one in queues.status() if one.name == "t1"]
            return one.waiting, one.workers, one.dead, one.paused

        assert row() == row() == (0, 0, 0, False)
        station = Station(queues, "t", lease_s=30)
        assert row() == row() == (0, 1, 0, False)
        station.store.leave(station.id)
        assert row() == (0, 0, 0, False)
        queues.pause("t1")
        assert row() == (0, 0, 0, True)
        queues.resume("t1")
        assert row() == (0, 0, 0, False)
        queues.enqueue("t", queue="t1")
        assert row() == (1, 0, 0, False)


def test_job_and_idle_worker_cost_redis_few_commands(private_redis: Any) -> None:
    server = private_redis()
    with server.client() as client, _declared(server.url, 3) as queues:
        station = Station(queues, "t", lease_s=30)
        _cost(client, station, queues)
        commands, _ = _cost(client, station, queues)
        assert commands <= 60, "a job: pushed, claimed and finished"
        client.config_resetstat()
        assert station.take() == []
        assert sum(row["calls"] for row in client.info("commandstats").values()) <= 4, "nothing is there"


def test_rules_of_each_queue_hold_among_many(redis_url: str) -> None:
    limits = [Limit(queue=f"t{n}", concurrency=1) for n in range(0, 100, 2)]
    with _declared(redis_url, 100, limits=limits) as queues:
        station = Station(queues, "t", lease_s=30)
        for n in range(4):
            queues.enqueue_many("t", range(3), queue=f"t{n}")
        queues.pause("t3")
        got = [lease.record.queue for lease in station.take(100)]
        assert {q: got.count(q) for q in set(got)} == {"t0": 1, "t1": 3, "t2": 1}
        dead = queues.enqueue_many("t", range(9), queue="t5")
        for lease in station.take(100):
            assert station.end(lease, "dead", error="x")
        assert len(queues.dead("t5")) == 6, f"keep_failed of t5, of {len(dead)}"


def test_settings_that_the_server_has_lost_are_told_again(redis_url: str, redis_client: Any) -> None:
    with _declared(redis_url, 3) as queues:
        station = Station(queues, "t", lease_s=30)
        queues.enqueue_many("t", range(4), queue="t1")

        def forget() -> None:
            keys = list(redis_client.scan_iter(f"*{queues.namespace}*:cf:*"))
            assert keys
            redis_client.delete(*keys)

        first = station.take(1)
        forget()
        (second,) = station.take(1)
        forget()
        assert station.end(first[0])
        assert station.end(second)
        assert len(station.drain()) == 2
        assert sum(row.completed for row in queues.status()) == 4


def test_worker_of_many_queues_is_woken_at_once(redis_url: str) -> None:
    with _declared(redis_url, MANY) as queues:
        done: list[float] = []

        @queues.job("t")
        async def t(ctx: Any, data: float) -> None:
            done.append(time.monotonic() - data)

        worker = queues.worker(concurrency=2, lease=30)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            t.enqueue(time.monotonic(), queue="t0").result(20)
            for n in range(5):
                time.sleep(0.05)
                t.enqueue(time.monotonic(), queue=f"t{n * 7}")
                wait_until(lambda: len(done) == n + 2, 20)  # noqa: B023 - called at once
        finally:
            worker.stop()
            thread.join(20)
        assert min(done) < 2, f"not by its look every five seconds: {done}"


def test_group_that_was_forgotten_joins_again_when_it_renews(redis_url: str, redis_client: Any) -> None:
    with _declared(redis_url, 100) as queues:
        station = Station(queues, "t", lease_s=30)
        redis_client.delete(*redis_client.scan_iter(f"*{queues.namespace}*:k[gq]"))
        station.store.renew(station.id, [])
        queues.enqueue("t", queue="t7")
        assert station.wait(2.0) is True


def test_types_parked_by_an_older_release_are_found(redis_url: str, redis_client: Any) -> None:
    with _declared(redis_url, 1, unknown_grace=0) as queues:
        queues.enqueue("strange")
        queues.enqueue("known")
        without = Station(queues, "other", lease_s=30)
        assert without.take() == []
        redis_client.delete(*redis_client.scan_iter(f"*{queues.namespace}*:PT"))
        knowing = Station(queues, "known", lease_s=30)
        claimed = knowing.claim()
        assert [lease.record.type for lease in claimed.leases] == ["known"]
        assert [type_ for _, type_, _, _ in claimed.expired] == ["strange"]
