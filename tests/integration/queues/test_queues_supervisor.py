"""``eventperf queue worker --processes N``: processes that are killed, hang, are renewed and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import JobState, QueueManager
from eventperf.testing.queues import balanced
from faults import free_port, is_gone, read_pid, wait_until

pytestmark = pytest.mark.integration

SOAK = os.environ.get("EVENTPERF_SOAK", "") not in ("", "0")

APP = """
import asyncio, os, subprocess, time
from eventperf.queues import QueueManager
queues = QueueManager(os.environ["URL"], namespace=os.environ["NAMESPACE"])
@queues.job("nap")
async def nap(ctx, data):
    await asyncio.sleep(data)
    return os.getpid()
@queues.job("until")
async def until(ctx, data):
    while not os.path.exists(data):
        await asyncio.sleep(0.02)
@queues.job("starts")
def starts(ctx, data):
    program = subprocess.Popen(["sleep", "600"])
    apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
    forked = os.fork()
    if not forked:
        time.sleep(600)
        os._exit(0)
    for name, pid in (("program", program.pid), ("apart", apart.pid), ("forked", forked)):
        with open(os.path.join(data, name + "~"), "w") as file:
            file.write(str(pid))
        os.rename(os.path.join(data, name + "~"), os.path.join(data, name))
    while not os.path.exists(os.path.join(data, "end")):
        time.sleep(0.02)
    for pid in (program.pid, apart.pid, forked):
        os.kill(pid, 9)
@queues.job("hang", attempts=1, timeout=0.3)
def hang(ctx, data):
    time.sleep(3600)
"""


class Supervised:
    """The command in a process group of its own."""

    def __init__(self, app: Path, url: str, namespace: str, *options: str) -> None:
        self.port = free_port()
        self.log = app.parent / "supervisor.log"
        command = [sys.executable, "-m", "eventperf", "queue", "worker", f"{app.stem}:queues"]
        command += [
            "--concurrency=4",
            "--lease=2s",
            "--grace=5s",
            f"--health=127.0.0.1:{self.port}",
            *options,
        ]
        env = {**os.environ, "URL": url, "NAMESPACE": namespace}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=app.parent, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error) if error.code == 503 else {}
        except OSError:
            return 0, {}

    def ready(self, n: int) -> set[str]:
        """Return the names of the workers that take jobs, once there are ``n``."""

        def names() -> set[str]:
            found = {w["worker"] for w in self.ask("/readyz")[1].get("workers", ()) if w["is_ready"]}
            return found if len(found) == n else set()

        return wait_until(names, 40, every=0.1, what=f"{n} workers: {self.log.read_text()}")

    def pids(self) -> list[int]:
        """Return the worker processes."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]


@pytest.fixture
def queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace=uuid4().hex) as manager:
        yield manager


@pytest.fixture
def start(tmp_path: Path, redis_url: str, queues: QueueManager) -> Iterator[Any]:
    (tmp_path / "supervised_app.py").write_text(APP)
    started: list[Supervised] = []

    def begin(*options: str) -> Supervised:
        started.append(Supervised(tmp_path / "supervised_app.py", redis_url, queues.namespace, *options))
        return started[-1]

    yield begin
    for one in started:
        for pid in (one.process.pid, *one.pids()):  # each leads a group
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        one.process.wait(10)


def test_children_that_are_killed_are_replaced_and_no_job_is_lost(queues: QueueManager, start: Any) -> None:
    one = start("--processes=2", "--max-jobs=60")
    one.ready(2)
    jobs = queues.enqueue_many("nap", [0.02] * 300)
    killed = 0
    while killed < 3:
        time.sleep(0.7)
        if pids := one.pids():
            with suppress(ProcessLookupError):
                os.kill(pids[killed % len(pids)], signal.SIGKILL)
            killed += 1
    assert queues.drain("300s"), one.log.read_text()
    rows = queues.status()
    assert sum(s.completed for s in rows) == len(jobs)
    assert sum(s.failed for s in rows) == 0
    assert balanced(rows)
    one.process.terminate()
    assert one.process.wait(20) == 0
    assert "SIGKILL" in one.log.read_text()


def test_stop_of_the_group_lets_jobs_end(queues: QueueManager, start: Any, tmp_path: Path) -> None:
    one = start("--processes=2", "--grace=60s")
    one.ready(2)
    end = tmp_path / "end"
    jobs = queues.enqueue_many("until", [str(end)] * 4)
    wait_until(lambda: sum(s.active for s in queues.status()) == 4)
    os.killpg(one.process.pid, signal.SIGTERM)
    wait_until(lambda: one.ask("/readyz")[0] == 503, 30, what="readiness to end with the stop")
    assert sum(s.active for s in queues.status()) == 4
    end.touch()
    assert one.process.wait(20) == 0
    infos = [job.info() for job in jobs]
    assert [(x.state, x.attempt) for x in infos] == [(JobState.COMPLETED, 1)] * 4
    assert sum(s.workers for s in queues.status()) == 0


def test_what_handlers_started_ends_with_a_worker_that_is_killed(
    queues: QueueManager, start: Any, tmp_path: Path
) -> None:
    one = start("--processes=1")
    one.ready(1)
    job = queues.enqueue("starts", str(tmp_path))
    found = {
        name: wait_until(lambda name=name: read_pid(tmp_path / name), 40, what=name)
        for name in ("program", "forked", "apart")
    }
    try:
        os.kill(one.pids()[0], signal.SIGKILL)
        wait_until(lambda: is_gone(found["program"]) and is_gone(found["forked"]), 40, what="them to end")
        assert not is_gone(found["apart"]), "what has a session of its own is meant to live on"
    finally:
        (tmp_path / "end").touch()  # for the run after this one
        os.kill(found["apart"], signal.SIGKILL)
    wait_until(lambda: job.info().is_finished, 40)


def test_hangup_of_one_worker_lets_its_jobs_end_and_ends_it(
    queues: QueueManager, start: Any, tmp_path: Path
) -> None:
    one = start()
    one.ready(1)
    running = queues.enqueue("until", str(tmp_path / "end"))
    wait_until(lambda: running.info().state is JobState.ACTIVE, 30)
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "SIGHUP" in one.log.read_text(), 30, what=one.log.read_text())
    later = queues.enqueue("nap", 0)
    (tmp_path / "end").touch()
    assert one.process.wait(40) == 0
    assert (running.info().state, later.info().state) == (JobState.COMPLETED, JobState.WAITING)
    assert running.info().crashes == 0


def test_children_end_with_a_supervisor_that_is_killed(queues: QueueManager, start: Any) -> None:
    one = start("--processes=2")
    one.ready(2)
    pids = one.pids()
    assert len(pids) == 2
    one.process.kill()

    def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    wait_until(gone, 20, what="the children to end")
    assert sum(s.workers for s in queues.status()) == 0, "in order: they signed off"


def test_hangup_renews_all_and_interrupts_none(queues: QueueManager, start: Any, tmp_path: Path) -> None:
    one = start("--processes=2", "--grace=60s")
    before = one.ready(2)
    end = tmp_path / "end"
    job = queues.enqueue("until", str(end))
    wait_until(lambda: job.info().state is JobState.ACTIVE)
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "its supervisor renews it" in one.log.read_text(), 30, what="the renewal to begin")
    assert job.info().state is JobState.ACTIVE
    end.touch()
    wait_until(lambda: not before & {w["worker"] for w in one.ask("/readyz")[1]["workers"]}, 60, every=0.1)
    one.ready(2)
    assert job.info().state is JobState.COMPLETED
    assert job.info().attempt == 1


def test_worker_whose_slots_all_hang_is_replaced(queues: QueueManager, start: Any) -> None:
    one = start("--processes=1", "--grace=0")
    (before,) = one.ready(1)
    jobs = queues.enqueue_many("hang", [None] * 4)
    last = queues.enqueue("nap", 0.0)
    assert last.result(60), "the new one runs it"
    assert before not in one.ready(1)
    assert "hang hold all 4 slots" in one.log.read_text()
    wait_until(lambda: all(job.info().is_finished for job in jobs), 10)
    assert {job.info().state for job in jobs} == {JobState.FAILED}, "over their time-out, with one attempt"


def test_single_worker_answers_probes(queues: QueueManager, start: Any, tmp_path: Path) -> None:
    one = start("--grace=60s")
    one.ready(1)
    assert one.ask("/healthz")[0] == 200
    assert one.ask("/nothing")[0] == 404
    end = tmp_path / "end"
    job = queues.enqueue("until", str(end))
    wait_until(lambda: job.info().state is JobState.ACTIVE)
    one.process.terminate()
    wait_until(lambda: one.ask("/readyz")[0] == 503, 30, what="readiness to end with the stop")
    assert one.ask("/livez")[0] == 200
    end.touch()
    assert one.process.wait(20) == 0
    assert job.info().state is JobState.COMPLETED


def test_command_that_cannot_start_is_tried_again_with_pauses(queues: QueueManager, start: Any) -> None:
    one = start("--processes=1", "--lease=0.01")
    assert one.process.wait(30) == 2, "refused before any process is started"
    assert "lease" in one.log.read_text()


SOAK_APP = """
import asyncio, os, subprocess, time
import redis
from eventperf.queues import Exponential, QueueManager
# On a slow machine a cpu job starts for longer than its worker lives: that is no reason to bury it here.
queues = QueueManager(os.environ["URL"], namespace=os.environ["NAMESPACE"], max_crashes=100)
client = redis.Redis.from_url(os.environ["URL"])
def ran(ctx):
    client.hincrby("ran:" + os.environ["NAMESPACE"], ctx.job_id, 1)
@queues.job("coroutine")
async def coroutine(ctx, data):
    await asyncio.sleep(data)
    ran(ctx)
@queues.job("thread")
def thread(ctx, data):
    time.sleep(data)
    ran(ctx)
@queues.job("process", cpu=True)
def process(ctx, data):
    time.sleep(data)
    ran(ctx)
@queues.job("flaky", attempts=2, backoff=Exponential(0.05, jitter=0))
async def flaky(ctx, data):
    if ctx.attempt == 1:
        raise ValueError(data)
    ran(ctx)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SOAK, reason="ten minutes: nox -s soak")
def test_ten_minutes_with_a_child_killed_every_five_seconds(
    queues: QueueManager, start: Any, tmp_path: Path, redis_client: Any
) -> None:
    """Each job that completed has run, none is lost or dead, and only what a kill interrupted ran twice."""
    (tmp_path / "supervised_app.py").write_text(SOAK_APP)
    one = start("--processes=4")
    one.ready(4)
    kinds = ("coroutine", "thread", "coroutine", "flaky", "thread", "process")
    begun = time.monotonic()
    sent: list[str] = []
    kills = 0
    while (spent := time.monotonic() - begun) < float(os.environ.get("EVENTPERF_SOAK_S", "600")):
        behind = sum(row.waiting for row in queues.status())
        for n in range(8 if behind < 200 else 0):  # as fast as they can, on a machine of any load
            parent = queues.enqueue(kinds[(len(sent) + n) % len(kinds)], 0.02 * n)
            child = queues.enqueue("coroutine", 0.0, after=[parent], priority=n)
            sent += [parent.id, child.id]
        if spent > 5 * (kills + 1) and (pids := one.pids()):
            with suppress(ProcessLookupError):
                os.kill(pids[kills % len(pids)], signal.SIGKILL)
            kills += 1
        time.sleep(0.5)
    drained = queues.drain("180s")
    rows = queues.status()
    dead = [(info.type, info.error) for info in queues.dead("normal")]
    assert drained, f"{dead} {rows} {one.log.read_text()[-4000:]}"
    ran = {k.decode(): int(v) for k, v in redis_client.hgetall(f"ran:{queues.namespace}").items()}
    print(f"{len(sent)} jobs, {kills} kills, {sum(ran.values()) - len(ran)} ran twice, rows {rows}")
    assert set(ran) == set(sent)
    assert sum(s.completed for s in rows) == len(sent)
    assert sum(s.failed for s in rows) == 0
    assert sum(ran.values()) - len(ran) <= kills * 4
    assert balanced(rows)
    one.process.terminate()
    assert one.process.wait(20) == 0
