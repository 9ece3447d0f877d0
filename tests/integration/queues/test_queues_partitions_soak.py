"""Sixteen partitions of a cluster under load: workers killed, a master lost, and how even the masters are."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from eventperf.queues import QueueManager, StoreUnavailable
from eventperf.testing.queues import balanced
from faults import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long]

SECONDS = float(os.environ.get("EVENTPERF_PARTITIONS_S", "180"))
PARTITIONS, WORKERS = 16, 3

WORKER = """
import asyncio, logging, sys
from eventperf.queues import QueueManager
logging.basicConfig(level=logging.WARNING)
queues = QueueManager(sys.argv[1], namespace="soak", partitions=16, wait_replicas=0)
out = open(sys.argv[2], "ab", buffering=0)
@queues.job("work")
async def work(ctx, data: int) -> int:
    out.write(f"{data}\\n".encode())
    await asyncio.sleep(0.01)
    return data
queues.worker(concurrency=10, lease=3).run()
"""


class Crew:
    """Workers in processes of their own, which are killed and replaced."""

    def __init__(self, url: str, runs: Path) -> None:
        self._args = [sys.executable, "-c", WORKER, url, str(runs)]
        self._log = (runs.parent / "workers.log").open("ab")
        self.running = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._args, stderr=self._log)

    def kill_one(self) -> None:
        victim = self.running.pop(0)
        victim.kill()
        victim.wait()
        self.running.append(self._start())

    def close(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
        self._log.close()


@contextmanager
def _crew(url: str, runs: Path) -> Iterator[Crew]:
    crew = Crew(url, runs)
    try:
        yield crew
    finally:
        crew.close()


def _calls(cluster: Any) -> list[int]:
    stats = [node.execute("INFO", "commandstats") for node in cluster.masters()]
    return [int(one.get("cmdstat_evalsha", {"calls": 0})["calls"]) for one in stats]


def test_nothing_is_lost_by_kills_and_a_failover(
    private_redis_cluster: Callable[..., Any], tmp_path: Path
) -> None:
    cluster, chance = private_redis_cluster(), random.Random(7)
    runs = tmp_path / "runs"
    acknowledged, refused, sent, kills = list[str](), 0, 0, 0
    options: dict[str, Any] = {"wait_replicas": 1, "result_ttl": 3600}
    with (
        QueueManager(cluster.url, namespace="soak", partitions=PARTITIONS, **options) as queues,
        _crew(cluster.url, runs) as crew,
    ):
        began = killed_at = time.monotonic()
        before, even, lost = _calls(cluster), list[int](), False
        while (passed := time.monotonic() - began) < SECONDS:
            if passed > SECONDS / 2 and not lost:
                even = [after - first for after, first in zip(_calls(cluster), before, strict=True)]
                lost = True
                cluster.masters()[0].kill9()
            if time.monotonic() - killed_at > 10:
                killed_at, kills = time.monotonic(), kills + 1
                crew.kill_one()
            try:
                unique = f"u-{sent}" if chance.random() < 0.1 else None
                acknowledged.append(queues.enqueue("work", sent, unique_key=unique).id)
            except StoreUnavailable:
                refused += 1
            sent += 1
            time.sleep(0.01)
        wait_until(lambda: _drained(queues), 120)
        rows = queues.status()
        infos = [queues.job_info(job_id) for job_id in acknowledged]
    ran = Counter(runs.read_text().split())
    twice = sum(count - 1 for count in ran.values())
    print(
        f"{sent} sent, {refused} refused, {kills} kills, {twice} runs again, scripts by master {even}, "
        f"{Counter(info.state.value for info in infos)}"
    )
    assert balanced(rows)
    assert {info.state.value for info in infos} == {"completed"}
    assert len(ran) >= len({*acknowledged})
    assert len(even) == 3
    mean = sum(even) / 3
    assert max(abs(calls - mean) for calls in even) <= 0.15 * mean


def _drained(queues: QueueManager) -> bool:
    try:
        return queues.drain(5)
    except StoreUnavailable:
        return False
