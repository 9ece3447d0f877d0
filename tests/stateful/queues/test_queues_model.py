"""Random histories against a reference model small enough to read in one sitting.

Memory runs under a clock that the history turns by hand; Redis runs the same histories without the
turns. ``EVENTPERF_SOAK=1`` runs 10,000 of them over each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import QueueManager
from eventperf.queues.job import Lease
from eventperf.queues.protocols import Outcome
from eventperf.testing import FakeClock
from eventperf.testing.queues import Station, balanced

QUEUES = {"hot": {"priority": 9}, "mild": {"priority": 3}, "cold": {"priority": 0}}
AGING, LEASE_S, MAX_CRASHES, STEPS = 5, 10.0, 2, 60
SOAK = os.environ.get("EVENTPERF_SOAK") == "1"


@dataclass
class MJob:
    """A job of the model: where it is, and its place in its class."""

    id: str
    queue: str
    level: int
    key: str
    state: str = "waiting"
    tag: float = 0.0
    at: float = 0.0  # due time, or end of lease
    crashes: int = 0
    attempts: int = 0
    token: int = 0
    worker: str = ""


@dataclass
class Model:
    """What the queues must do, with sorted lists in place of everything clever."""

    now: float = 0.0
    jobs: dict[str, MJob] = field(default_factory=dict)
    virtual: dict[tuple[str, int], float] = field(default_factory=dict)
    last: dict[tuple[str, int, str], float] = field(default_factory=dict)
    skipped: dict[tuple[str, int], int] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    beats: dict[str, float] = field(default_factory=dict)  # when each worker was last heard of

    def bump(self, queue: str, name: str) -> None:
        self.counts[queue, name] = self.counts.get((queue, name), 0) + 1

    def ready(self, job: MJob, head: bool = False) -> None:
        lane = (job.queue, job.level)
        virtual = self.virtual.get(lane, 0.0)
        job.state, job.tag = "waiting", virtual
        if not head:
            job.tag = max(virtual, self.last.get((*lane, job.key), 0.0)) + 1
            self.last[(*lane, job.key)] = job.tag

    def push(self, job: MJob, delay: float) -> None:
        self.jobs[job.id] = job
        self.bump(job.queue, "enqueued")
        if delay:
            job.state, job.at = "delayed", self.now + delay
        else:
            self.ready(job)

    def turn(self, worker: str) -> None:
        """Hear of the worker, promote what is due, take back what was orphaned, as a claim begins with.

        A worker heard of since it took a job lives, and does not hold it any more: no crash of the job.
        """
        if self.beats[worker] < self.now - LEASE_S:
            self.beats[worker] = self.now
        for job in sorted((j for j in self.jobs.values() if j.state == "delayed"), key=lambda j: j.at):
            if job.at <= self.now:
                self.ready(job)
        for job in self.jobs.values():
            if job.state == "active" and job.at <= self.now:
                if self.beats[job.worker] > job.at - LEASE_S:
                    self.bump(job.queue, "lapsed")
                    self.ready(job, head=True)
                    continue
                job.crashes += 1
                self.bump(job.queue, "stalled")
                if job.crashes >= MAX_CRASHES:
                    self.end(job, "failed")
                else:
                    self.ready(job, head=True)

    def lanes(self, room: dict[str, int]) -> list[tuple[str, int]]:
        waiting = {(j.queue, j.level) for j in self.jobs.values() if j.state == "waiting"}
        return [lane for lane in waiting if room.get(lane[0], 0) > 0]

    def choose(self, room: dict[str, int]) -> tuple[str, int] | None:
        lanes = self.lanes(room)
        if not lanes:
            return None
        strict = sorted(lanes, key=lambda x: (QUEUES[x[0]]["priority"], x[1]), reverse=True)
        if len(lanes) == 1:
            best = lanes[0]
        else:
            worst = max(self.skipped.get(x, 0) for x in lanes)
            starved = [x for x in strict if self.skipped.get(x, 0) == worst]
            best = starved[-1] if worst >= AGING else strict[0]
            for lane in lanes:
                self.skipped[lane] = self.skipped.get(lane, 0) + 1
        self.skipped[best] = 0
        return best

    def take(self, lease: Lease, room: dict[str, int], worker: str) -> None:
        """Check that handing out this job now is what the rules say."""
        lane = self.choose(room)
        job = self.jobs[lease.record.id]
        assert (job.queue, job.level) == lane
        assert job.state == "waiting"
        first = min(j.tag for j in self.jobs.values() if j.state == "waiting" and (j.queue, j.level) == lane)
        assert job.tag == first
        assert (lease.attempt, lease.crashes) == (job.attempts + 1, job.crashes)
        self.virtual[lane] = max(self.virtual.get(lane, 0.0), job.tag)
        job.state, job.at, job.token, job.worker = "active", self.now + LEASE_S, lease.token, worker
        room[job.queue] -= 1

    def cancel(self, job: MJob) -> None:
        """End a waiting or delayed job; the next of its key comes after what waits of it last."""
        waited = job.state == "waiting"
        self.end(job, "cancelled")
        lane, mine = (job.queue, job.level), (job.queue, job.level, job.key)
        if not waited:
            return
        if lane not in self.lanes(dict.fromkeys(QUEUES, 1)):
            self.last = {k: tag for k, tag in self.last.items() if k[:2] != lane}
        else:
            same = [j for j in self.jobs.values() if (j.queue, j.level, j.key, j.state) == (*mine, "waiting")]
            self.last[mine] = max((j.tag for j in same), default=0.0)

    def end(self, job: MJob, state: str) -> None:
        job.state = state
        self.bump(job.queue, state)


def history(queues: QueueManager, seed: int, turn: Callable[[float], None] | None) -> None:
    """Play one random history and compare every answer with the model's."""
    rng, model = Random(seed), Model()
    stations = [Station(queues, "t", lease_s=LEASE_S, room=dict.fromkeys(QUEUES, 50)) for _ in range(2)]
    model.beats = {station.id: 0.0 for station in stations}
    held: list[Lease] = []
    for step in range(STEPS):
        act = rng.choice(
            ("push", "push", "push", "claim", "claim", "finish", "finish", "cancel", "replay", "time")
        )
        if act == "push":
            _push(queues, model, rng, f"{seed}-{step}", delays=turn is not None)
        elif act == "claim":
            room = {q: rng.randint(0, 3) for q in QUEUES}
            n, station = rng.randint(1, 5), rng.choice(stations)
            claimed = station.store.claim(station.id, {q: k for q, k in room.items() if k}, n)
            model.turn(station.id)
            for lease in claimed.leases:
                model.take(lease, room, station.id)
            if len(claimed.leases) < n:
                assert not model.lanes(room), "jobs were left behind"
            held += claimed.leases
        elif act == "finish" and held:
            _finish(queues, model, rng, held.pop(rng.randrange(len(held))))
        elif act == "cancel" and model.jobs:
            job = rng.choice(list(model.jobs.values()))
            if job.state in ("waiting", "delayed"):
                assert queues.cancel(job.id)
                model.cancel(job)
        elif act == "replay":
            _replay(queues, model, rng.choice(list(QUEUES)))
        elif act == "time" and turn is not None:
            passed = rng.choice((0.5, 3.0, 11.0))
            model.now += passed
            turn(passed)
        _compare(queues, model)


def _push(queues: QueueManager, model: Model, rng: Random, job_id: str, *, delays: bool) -> None:
    job = MJob(job_id, rng.choice(list(QUEUES)), rng.choice((1, 5)), rng.choice(("", "a", "b")))
    delay = rng.choice((0, 0, 2.0, 7.0)) if delays else 0
    queues.enqueue(
        "t", queue=job.queue, priority=job.level, fairness_key=job.key or None, delay=delay or None, id=job_id
    )
    model.push(job, delay)


def _finish(queues: QueueManager, model: Model, rng: Random, lease: Lease) -> None:
    kind: Any = rng.choice(("done", "done", "retry", "dead", "release"))
    job = model.jobs[lease.record.id]
    (accepted,) = queues.backend.sync().finish([Outcome(job.id, lease.token, kind)])
    assert accepted == (job.state == "active" and job.token == lease.token), "fencing"
    if not accepted:
        return
    if kind == "done":
        model.end(job, "completed")
    elif kind == "dead":
        model.end(job, "failed")
    else:
        job.attempts += kind == "retry"
        model.ready(job, head=kind == "release")


def _replay(queues: QueueManager, model: Model, queue: str) -> None:
    dead = [i.id for i in reversed(queues.dead(queue))]
    assert {*dead} == {j.id for j in model.jobs.values() if j.queue == queue and j.state == "failed"}
    assert queues.replay(queue) == len(dead)
    for job_id in dead:
        job = model.jobs[job_id]
        job.attempts = job.crashes = 0
        model.ready(job)


def _compare(queues: QueueManager, model: Model) -> None:
    rows = queues.status()
    assert balanced(rows)
    for row in rows:
        here = [j.state for j in model.jobs.values() if j.queue == row.name]
        found = (row.waiting, row.delayed, row.active)
        assert found == (here.count("waiting"), here.count("delayed"), here.count("active"))
        for name in ("enqueued", "completed", "failed", "cancelled", "stalled", "lapsed"):
            assert getattr(row, name) == model.counts.get((row.name, name), 0), name


OPTIONS: dict[str, Any] = {"queues": QUEUES, "aging": AGING, "max_crashes": MAX_CRASHES}


@pytest.mark.slow
@pytest.mark.parametrize("block", range(100 if SOAK else 10))
def test_memory_histories(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        clock = FakeClock()
        history(QueueManager("memory://", clock=clock, **OPTIONS), seed, clock.advance)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("block", range(100 if SOAK else 1))
def test_redis_histories(redis_url: str, block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        with QueueManager(redis_url, namespace=uuid4().hex, **OPTIONS) as queues:
            history(queues, seed, None)
