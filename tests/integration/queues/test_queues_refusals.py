"""A Redis that answers and refuses (full, read-only, busy, without its slots): an outage like any."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from eventperf.queues import JobState, QueueManager, StoreUnavailable
from eventperf.testing.queues import balanced
from faults import TcpProxy, wait_until

pytestmark = pytest.mark.integration

AWAY_S = 1.5


@contextmanager
def _config(client: Any, **values: Any) -> Iterator[None]:
    before = {name: client.config_get(name)[name] for name in values}
    for name, value in values.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


@contextmanager
def _full(server: Any, client: Any) -> Iterator[None]:
    with _config(client, maxmemory=1):
        yield


@contextmanager
def _without_replicas(server: Any, client: Any) -> Iterator[None]:
    with _config(client, **{"min-replicas-to-write": 1}):
        yield


@contextmanager
def _read_only(server: Any, client: Any) -> Iterator[None]:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def _busy(server: Any, client: Any) -> Iterator[None]:
    with _config(client, **{"lua-time-limit": 10}):

        def spin() -> None:
            with suppress(redis.RedisError), server.client() as other:
                other.eval("while true do end", 0)

        thread = threading.Thread(target=spin)
        thread.start()
        try:
            time.sleep(0.1)
            yield
        finally:
            client.script_kill()
            thread.join(10)


@contextmanager
def _no_snapshots(server: Any, client: Any) -> Iterator[None]:
    away = Path(client.config_get("dir")["dir"], "away")
    away.mkdir()
    with _config(client, dir=str(away), save="1 1"):
        away.rmdir()  # a snapshot fails now, and with it all writes (MISCONF)
        client.set("x", 1)
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10)
        try:
            yield
        finally:
            away.mkdir()
            client.config_set("stop-writes-on-bgsave-error", "no")


@contextmanager
def _loading(server: Any, client: Any) -> Iterator[None]:
    keys = 3_000
    client.mset({f"filler:{n}": n for n in range(keys)})
    client.config_set("key-load-delay", int(2 * AWAY_S / keys * 1e6))  # microseconds
    client.config_set("loading-process-events-interval-bytes", 1024)

    def load() -> None:
        with server.client() as other:
            other.execute_command("DEBUG", "RELOAD")

    def refuses() -> bool:
        try:
            client.get("filler:0")
        except redis.BusyLoadingError:
            return True
        return False

    thread = threading.Thread(target=load)
    thread.start()
    try:
        wait_until(refuses, 10)
        yield
        assert refuses(), "it was over too early"
    finally:
        thread.join(30)


REFUSALS = {
    "LOADING": _loading,
    "OOM": _full,
    "NOREPLICAS": _without_replicas,
    "READONLY": _read_only,
    "BUSY": _busy,
    "MISCONF": _no_snapshots,
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusal_is_waited_out_by_claims_reports_heartbeat_and_schedules(
    kind: str, private_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis(**({"enable-protected-configs": "yes"} if kind == "MISCONF" else {}))
    runs: Counter[str] = Counter()
    with server.client() as client, QueueManager(server.url) as queues:

        @queues.job("nap", attempts=1)
        async def nap(ctx: Any, data: float) -> None:
            runs[ctx.job_id] += 1
            await asyncio.sleep(data)

        fired: list[float] = []

        @queues.job("tick")
        async def tick(ctx: Any, data: None) -> None:
            fired.append(time.monotonic())

        queues.cron("each", "1s", "tick")
        worker = queues.worker(concurrency=8, lease=6, grace=5)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            wait_until(lambda: fired, 10)
            short, long = queues.enqueue("nap", 0.3), queues.enqueue("nap", AWAY_S + 1)
            wait_until(lambda: len(runs) == 2)
            with REFUSALS[kind](server, client):
                with pytest.raises(StoreUnavailable):
                    queues.enqueue("nap", 0.0)
                time.sleep(AWAY_S)
            again = queues.enqueue("nap", 0.0)
            for job in (short, long, again):
                wait_until(lambda: job.info().is_finished, 15)  # noqa: B023 - called at once
                assert job.info().state is JobState.COMPLETED, job.info().error
            since = len(fired)
            wait_until(lambda: len(fired) >= since + 2, 10, what="the schedule to go on")
            assert thread.is_alive()
        finally:
            worker.stop()
            thread.join(20)
        assert set(runs.values()) == {1}, "none ran twice because of it"
        rows = queues.status()
        assert sum(s.stalled for s in rows) == 0
        assert balanced(rows)
    told = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert not told, [r.getMessage() for r in told]


def test_cluster_without_a_slot_is_waited_out(private_redis_cluster: Callable[..., Any]) -> None:
    cluster = private_redis_cluster()
    with QueueManager(cluster.url) as queues:
        ran: list[int] = []

        @queues.job("t", attempts=1)
        async def t(ctx: Any, data: int) -> None:
            ran.append(data)
            await asyncio.sleep(0.5)

        worker = queues.worker(concurrency=2, lease=8)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            first = t.enqueue(1)
            wait_until(lambda: ran)
            nodes = [redis.Redis(host=n.host, port=n.port) for n in cluster.nodes]
            slot = int(nodes[0].execute_command("CLUSTER", "KEYSLOT", "{eventperf:default}:"))
            owner = next(n for n in nodes if any(s <= slot <= e for s, e in _slots_of(n)))
            other = slot + 1 if slot < 16383 else slot - 1
            owner.config_set("cluster-require-full-coverage", "yes")
            owner.execute_command("CLUSTER", "DELSLOTS", other)
            wait_until(lambda: owner.execute_command("CLUSTER", "INFO") and _is_down(owner), 10)
            time.sleep(AWAY_S)
            owner.execute_command("CLUSTER", "ADDSLOTS", other)
            wait_until(lambda: not _is_down(owner), 20)
            wait_until(lambda: first.info().is_finished, 20)
            assert t.enqueue(2).result(20) is None
        finally:
            worker.stop()
            thread.join(20)
            for node in nodes:
                node.close()
        assert sorted(ran) == [1, 2]


def _is_down(node: Any) -> bool:
    found = node.execute_command("CLUSTER", "INFO")
    text = found.decode() if isinstance(found, bytes) else str(found)
    return "cluster_state:ok" not in text and "'cluster_state': 'ok'" not in text


def _slots_of(node: Any) -> list[tuple[int, int]]:
    mine = node.execute_command("CLUSTER", "MYID")
    found = []
    for start, end, *owners in node.execute_command("CLUSTER", "SLOTS"):
        if owners[0][2] == mine:
            found.append((int(start), int(end)))
    return found


def test_callers_of_a_redis_that_hangs_wait_side_by_side(redis_server: Any, redis_url: str) -> None:
    with TcpProxy(redis_server.host, redis_server.port) as proxy:  # noqa: SIM117 - the order matters
        with QueueManager(proxy.url(redis_url), namespace="hang") as queues:
            queues.enqueue("t")
            proxy.black_hole()
            took: list[float] = []

            def ask() -> None:
                began = time.monotonic()
                with suppress(StoreUnavailable):
                    queues.status()
                took.append(time.monotonic() - began)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            proxy.heal()
            assert len(took) == 4
            assert max(took) < min(took) + 3, f"one behind another: {took}"
