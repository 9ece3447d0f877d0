"""Jobs in this process's memory: the embedded default, with the full semantics of the room.

What is lost when the process ends is everything; within the process the guarantees are those of the
other backends, and the same conformance suite proves them.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count, islice

from eventperf._core.urls import BackendURL
from eventperf.queues.faces import AsyncFace
from eventperf.queues.job import JobInfo, JobRecord, JobState, Lease, NewJob, QueueStatus
from eventperf.queues.options import QueueConfig
from eventperf.queues.policy import Lane, choose
from eventperf.queues.protocols import Claimed, Outcome, Renewed, Stalled, StoreSettings, WorkerCard

WAITING, DELAYED, ACTIVE = JobState.WAITING, JobState.DELAYED, JobState.ACTIVE
COMPLETED, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED

_REAP_BATCH = 1000
_RATE_BUCKET_S = 10.0
_FORGET_WORKER_S = 86_400.0  # a worker that was frozen this long must introduce itself again
_RATE_BUCKETS = 6


class _Job:
    """The changing part of one job; ``place`` grows whenever older heap entries of it become void."""

    __slots__ = (
        "attempts", "cancel", "crashes", "due", "error", "expires", "finished", "lane", "lease_until",
        "listed", "parked", "place", "progress", "ready_at", "record", "result", "started", "state", "steps",
        "tag", "token", "worker",
    )  # fmt: skip

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.state = WAITING
        self.place = self.attempts = self.crashes = self.token = 0
        self.tag = self.due = self.lease_until = self.ready_at = self.started = self.finished = 0.0
        self.expires = 0.0
        self.cancel = self.parked = self.listed = False
        self.lane: _Lane | None = None
        self.worker: str | None = None
        self.error: str | None = None
        self.result: bytes | None = None
        self.progress: float | None = None
        self.steps: set[str] | None = None


class _Lane(Lane):
    """A class of waiting jobs with its order: virtual start tags give every fairness key its turn.

    Source of the tags: Golestani, "A Self-Clocked Fair Queueing Scheme", INFOCOM 1994.
    """

    __slots__ = ("heap", "last", "size", "virtual", "waits")

    def __init__(self, queue: str, rank: int, weight: int, level: int) -> None:
        super().__init__(queue, rank, weight, level)
        self.waits: deque[tuple[int, _Job]] = deque()
        self.heap: list[tuple[float, int, int, _Job]] = []
        self.last: dict[str, float] = {}
        self.virtual = 0.0
        self.size = 0

    def tag(self, key: str) -> float:
        tag = self.last[key] = max(self.virtual, self.last.get(key, 0.0)) + 1.0
        return tag

    def serve(self, tag: float) -> None:
        if tag > self.virtual:
            self.virtual = tag
            if len(self.last) > 1024 and len(self.last) > 2 * self.size:
                self.last = {k: v for k, v in self.last.items() if v > tag}

    def put(self, job: _Job, n: int) -> None:
        heapq.heappush(self.heap, (job.tag, n, job.place, job))
        self.size += 1
        self.waits.append((job.place, job))
        if len(self.waits) > 2 * self.size + 64:
            self.waits = deque(w for w in self.waits if w[0] == w[1].place)

    def take(self) -> _Job:
        """Remove and return the next job; only when ``size`` is not 0."""
        heap = self.heap
        while True:
            tag, _, place, job = heapq.heappop(heap)
            if job.place == place:
                self.size -= 1
                self.serve(tag)
                return job

    def oldest(self) -> float | None:
        while self.waits and self.waits[0][0] != self.waits[0][1].place:
            self.waits.popleft()
        return self.waits[0][1].ready_at if self.waits else None


class _Queue:
    """Counters and finished jobs of one queue."""

    __slots__ = (
        "active", "arrivals", "cancelled", "completed", "config", "dead", "delayed", "done", "enqueued",
        "failed", "lanes", "paused", "replayed", "retried", "served", "stalled", "waiting",
    )  # fmt: skip

    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self.waiting = self.delayed = self.active = 0
        self.enqueued = self.completed = self.failed = self.cancelled = 0
        self.retried = self.stalled = self.replayed = 0
        self.paused = False
        self.lanes: dict[int, _Lane] = {}
        self.dead: dict[str, _Job] = {}
        self.done: deque[_Job] = deque()
        self.arrivals: dict[int, int] = {}
        self.served: dict[int, int] = {}

    def bump(self, table: dict[int, int], now: float, by: int = 1) -> None:
        bucket = int(now // _RATE_BUCKET_S)
        if bucket in table:
            table[bucket] += by
            return
        table[bucket] = by
        for old in [b for b in table if b < bucket - _RATE_BUCKETS]:
            del table[old]

    def rate(self, table: dict[int, int], now: float, born: float) -> float:
        first = int(now // _RATE_BUCKET_S) - _RATE_BUCKETS
        start = max(born, first * _RATE_BUCKET_S)
        return sum(n for b, n in table.items() if b >= first) / max(now - start, 1.0)


class _Worker:
    __slots__ = ("card", "event", "until")

    def __init__(self, card: WorkerCard, until: float) -> None:
        self.card = card
        self.until = until
        self.event = threading.Event()


class MemoryStore:
    """A :class:`~eventperf.queues.protocols.JobStore` in plain dictionaries behind one lock.

    Finished jobs are kept for ``result_ttl_s`` but never more than ``max_finished`` of them.
    """

    def __init__(self, settings: StoreSettings, *, max_finished: int = 100_000) -> None:
        clock = settings.clock
        self._monotonic = clock.monotonic
        self._epoch = clock.time() - clock.monotonic()  # later steps of the wall clock move nothing
        self._options = settings.options
        self._max_finished = max_finished
        self._mu = threading.Lock()
        self._n = count(1)
        self._token = 0
        self._born = self._now()
        self._jobs: dict[str, _Job] = {}
        self._queues = {name: _Queue(config) for name, config in settings.queues.items()}
        self._credit: dict[str, int] = {}
        self._unique: dict[tuple[str, str], tuple[str, float]] = {}
        self._due: list[tuple[float, int, int, _Job]] = []
        self._leases: list[tuple[float, int, int, _Job]] = []
        self._parked: dict[str, deque[tuple[int, _Job]]] = {}
        self._known_until: dict[str, float] = {}
        self._finished: deque[str] = deque()
        self._workers: dict[str, _Worker] = {}
        self._runs = [0, 0.0]

    def _now(self) -> float:
        return self._monotonic() + self._epoch

    # -- producers ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        with self._mu:
            return self._push(jobs, self._now())

    def _push(self, jobs: Sequence[NewJob], now: float) -> list[str]:
        ids, touched, head = [], set(), self._due[0][0] if self._due else None
        for new in jobs:
            record = new.record
            holder = self._holder(record, now) if record.unique_key is not None else None
            ids.append(holder or record.id)
            if holder is not None or record.id in self._jobs:
                continue
            record.created_at = now
            if new.deadline_s is not None:
                record.deadline_at = now + new.deadline_s
            job = self._jobs[record.id] = _Job(record)
            queue = self._queues[record.queue]
            queue.enqueued += 1
            queue.bump(queue.arrivals, now)
            if new.delay_s > 0:
                self._delay(job, now + new.delay_s)
            else:
                self._ready(job, now)
                touched.add(record.queue)
        if touched or (self._due and self._due[0][0] != head):
            self._wake(touched)
        return ids

    def _holder(self, record: JobRecord, now: float) -> str | None:
        name = (record.type, record.unique_key or "")
        held = self._unique.get(name)
        if held is not None and held[1] > now and held[0] != record.id:
            return held[0]
        until = float("inf") if isinstance(record.unique_for, str) else now + record.unique_for
        self._unique[name] = (record.id, until)
        if not isinstance(record.unique_for, str) and len(self._unique) % 1024 == 0:
            self._unique = {k: v for k, v in self._unique.items() if v[1] > now}
        return None

    def _free_unique(self, record: JobRecord) -> None:
        name = (record.type, record.unique_key or "")
        if self._unique.get(name, ("", 0.0))[0] == record.id:
            del self._unique[name]

    def _ready(self, job: _Job, now: float, *, tag: float | None = None) -> None:
        record = job.record
        queue = self._queues[record.queue]
        lane = queue.lanes.get(record.priority)
        if lane is None:
            config = queue.config
            lane = _Lane(record.queue, config.priority, config.share, record.priority)
            queue.lanes[record.priority] = lane
        job.state, job.lane, job.ready_at = WAITING, lane, now
        job.tag = lane.tag(record.key) if tag is None else lane.virtual
        queue.waiting += 1
        lane.put(job, next(self._n))

    def _delay(self, job: _Job, due: float) -> None:
        job.state, job.due = DELAYED, due
        self._queues[job.record.queue].delayed += 1
        heapq.heappush(self._due, (due, next(self._n), job.place, job))

    def _wake(self, queues: set[str]) -> None:
        for worker in self._workers.values():
            if not queues or not queues.isdisjoint(worker.card.room_by_queue):
                worker.event.set()

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        with self._mu:
            self._forget(self._now())
            return [None if (job := self._jobs.get(i)) is None else self._info(job) for i in ids]

    def _info(self, job: _Job) -> JobInfo:
        r = job.record
        ran = job.state not in (WAITING, DELAYED) and job.token > 0
        return JobInfo(
            id=r.id, type=r.type, queue=r.queue, state=job.state, priority=r.priority,
            attempt=job.attempts + (job.state is ACTIVE), crashes=job.crashes, created_at=r.created_at,
            due_at=job.due if job.state is DELAYED else None, started_at=job.started if ran else None,
            finished_at=job.finished or None, worker=job.worker if job.state is ACTIVE else None,
            progress=job.progress, error=job.error, result=job.result, payload=r.payload, key=r.key,
            headers=dict(r.headers or {}),
        )  # fmt: skip

    def counts(self) -> list[QueueStatus]:
        with self._mu:
            now = self._now()
            if any(w.until < now - _FORGET_WORKER_S for w in self._workers.values()):
                self._workers = {i: w for i, w in self._workers.items() if w.until >= now - _FORGET_WORKER_S}
            return [self._status(name, queue, now) for name, queue in self._queues.items()]

    def _status(self, name: str, q: _Queue, now: float) -> QueueStatus:
        oldest = [t for lane in q.lanes.values() if (t := lane.oldest()) is not None]
        return QueueStatus(
            name=name, priority=q.config.priority, waiting=q.waiting, delayed=q.delayed, active=q.active,
            completed=q.completed, failed=q.failed, cancelled=q.cancelled, retried=q.retried,
            stalled=q.stalled, dead=len(q.dead), enqueued=q.enqueued, replayed=q.replayed, paused=q.paused,
            workers=sum(name in w.card.room_by_queue and w.until > now for w in self._workers.values()),
            oldest_wait_s=max(0.0, now - min(oldest)) if oldest else 0.0,
            arrival_rate=q.rate(q.arrivals, now, self._born), service_rate=q.rate(q.served, now, self._born),
        )  # fmt: skip

    def load(self) -> tuple[int, int, float]:
        with self._mu:
            now = self._now()
            live = [w for w in self._workers.values() if w.until > now]
            runs, run_s = self._runs
            return len(live), sum(w.card.slots for w in live), run_s / runs if runs else 0.0

    # -- operators ---------------------------------------------------------------------------------

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        with self._mu:
            q = self._queues[queue]
            if state is FAILED:
                jobs = list(reversed(q.dead.values()))
            elif state is COMPLETED:
                jobs = list(reversed(q.done))
            else:
                jobs = [j for j in self._jobs.values() if j.state is state and j.record.queue == queue]
                jobs.sort(
                    key=lambda j: (-j.record.priority, j.tag) if state is WAITING else (j.due or j.started, 0)
                )
            return [self._info(job) for job in islice(jobs, offset, offset + limit)]

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        with self._mu:
            return [self._cancel(self._jobs.get(i), self._now()) for i in ids]

    def _cancel(self, job: _Job | None, now: float) -> bool:
        if job is None or job.state not in (WAITING, DELAYED, ACTIVE):
            return False
        if job.state is ACTIVE:
            job.cancel = True
            if job.worker in self._workers:
                self._workers[job.worker].event.set()
        else:
            self._drop(job)
            self._end(job, CANCELLED, now)
        return True

    def _drop(self, job: _Job) -> None:
        """Take a waiting or delayed job out of its order."""
        queue = self._queues[job.record.queue]
        job.place += 1
        if job.state is DELAYED:
            queue.delayed -= 1
        else:
            queue.waiting -= 1
            if job.lane is not None and not job.parked:
                job.lane.size -= 1
            job.parked = False

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        with self._mu:
            now, q = self._now(), self._queues[queue]
            chosen = [i for i in (list(q.dead) if ids is None else ids) if i in q.dead][:limit]
            for job in [q.dead.pop(i) for i in chosen]:
                job.attempts = job.crashes = 0
                job.error, job.finished, job.record.deadline_at = None, 0.0, None
                q.replayed += 1
                self._ready(job, now)
            self._wake({queue})
            return len(chosen)

    def purge(self, queue: str, state: JobState, /) -> int:
        with self._mu:
            q, now = self._queues[queue], self._now()
            if state is FAILED:
                gone = list(q.dead.values())
                q.dead.clear()
            elif state is COMPLETED:
                gone = list(q.done)
                q.done.clear()
            else:
                gone = [j for j in self._jobs.values() if j.state is state and j.record.queue == queue]
                for job in gone:
                    self._drop(job)
                    self._end(job, CANCELLED, now)
                return len(gone)
            for job in gone:
                self._jobs.pop(job.record.id, None)
            return len(gone)

    def set_paused(self, queue: str, paused: bool, /) -> None:
        with self._mu:
            self._queues[queue].paused = paused
            self._wake({queue})

    # -- workers -----------------------------------------------------------------------------------

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        with self._mu:
            now = self._now()
            worker = self._workers.get(card.id)
            if worker is None:
                self._workers[card.id] = _Worker(card, now + 3 * card.lease_s)
            else:
                worker.card, worker.until = card, now + 3 * card.lease_s
            self._alive(self._workers[card.id], now)
            for job in [j for _, _, token, j in self._leases if j.token == token and j.worker == card.id]:
                if job.state is ACTIVE and job.record.id not in held:
                    self._queues[job.record.queue].active -= 1
                    job.token, job.place = -job.token, job.place + 1
                    self._ready(job, now, tag=0.0)

    def _alive(self, worker: _Worker, now: float) -> None:
        worker.until = now + 3 * worker.card.lease_s
        for type_ in worker.card.types:
            self._known_until[type_] = max(worker.until, self._known_until.get(type_, 0.0))

    def leave(self, worker: str, /) -> None:
        with self._mu:
            gone = self._workers.pop(worker, None)
            if gone is not None:
                gone.event.set()

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        with self._mu:
            now, me = self._now(), self._workers[worker]
            me.event.clear()
            if me.until < now + 2 * me.card.lease_s:
                self._alive(me, now)
            self._promote(now)
            stalled = self._reap(now)
            expired: list[tuple[str, str, str, str]] = []
            if self._parked:
                self._unpark(me.card, now, total, expired)
            leases = self._take(me, room, total, now, expired)
            if self._finished:
                self._forget(now)
            return Claimed(leases, self._next_in(now), stalled, expired)

    def _take(
        self,
        me: _Worker,
        room: Mapping[str, int],
        total: int,
        now: float,
        expired: list[tuple[str, str, str, str]],
    ) -> list[Lease]:
        card, order, aging = me.card, self._options.order, self._options.aging
        left = {name: free for name, free in room.items() if free > 0 and not self._queues[name].paused}
        lanes = [lane for name in left for lane in self._queues[name].lanes.values() if lane.size]
        until = now + card.lease_s
        leases: list[Lease] = []
        while lanes and len(leases) < total:
            lane = choose(lanes, order, aging, self._credit)
            assert isinstance(lane, _Lane)
            job = lane.take()
            if not lane.size:
                lanes.remove(lane)
            record = job.record
            if record.type not in card.types:
                job.place += 1
                job.parked = True
                if record.type not in self._parked:
                    self._parked[record.type] = deque()
                    self._known_until[record.type] = max(now, self._known_until.get(record.type, 0.0))
                self._parked[record.type].append((job.place, job))
                continue
            queue = self._queues[record.queue]
            queue.waiting -= 1
            job.place += 1
            if record.deadline_at is not None and record.deadline_at <= now:
                self._bury(job, "deadline passed before it could start", now)
                expired.append((record.id, record.type, record.queue, "deadline"))
                continue
            queue.active += 1
            self._token = job.token = self._token + 1
            job.state, job.worker, job.started, job.lease_until = ACTIVE, card.id, now, until
            if record.unique_key is not None and record.unique_for == "waiting":
                self._free_unique(record)
            heapq.heappush(self._leases, (until, job.token, job.token, job))
            leases.append(Lease(record, job.token, job.attempts + 1, job.crashes))
            left[record.queue] -= 1
            if not left[record.queue]:
                lanes = [one for one in lanes if one.queue != record.queue]
        return leases

    def _promote(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            _, _, place, job = heapq.heappop(due)
            if job.place == place and job.state is DELAYED:
                self._queues[job.record.queue].delayed -= 1
                self._ready(job, now)

    def _reap(self, now: float) -> list[Stalled]:
        found: list[Stalled] = []
        heap = self._leases
        while heap and heap[0][0] <= now and len(found) < _REAP_BATCH:
            _, n, token, job = heapq.heappop(heap)
            if job.state is not ACTIVE or job.token != token:
                continue
            if job.lease_until > now:
                heapq.heappush(heap, (job.lease_until, n, token, job))
                continue
            found.append(self._orphan(job, now))
        return found

    def _orphan(self, job: _Job, now: float) -> Stalled:
        record, queue = job.record, self._queues[job.record.queue]
        queue.active -= 1
        queue.stalled += 1
        job.crashes += 1
        job.token = -job.token
        dead = job.crashes >= self._options.max_crashes
        if job.cancel:
            self._end(job, CANCELLED, now)
        elif dead:
            self._bury(job, f"its worker died {job.crashes} times while running it", now)
        else:
            self._ready(job, now, tag=0.0)
            self._wake({record.queue})
        return Stalled(record.id, record.type, record.queue, job.crashes, dead)

    def _unpark(
        self, card: WorkerCard, now: float, total: int, expired: list[tuple[str, str, str, str]]
    ) -> None:
        for type_ in list(self._parked):
            jobs, known = self._parked[type_], type_ in card.types
            late = not known and now >= self._known_until.get(type_, now) + self._options.unknown_grace_s
            for _ in range(min(len(jobs), total if known else _REAP_BATCH if late else 0)):
                place, job = jobs.popleft()
                if job.place != place:
                    continue
                job.parked = False
                if known and job.lane is not None:
                    job.lane.put(job, next(self._n))
                else:
                    job.place += 1
                    self._queues[job.record.queue].waiting -= 1
                    self._bury(job, f"no live worker knows the job type {type_!r}", now)
                    expired.append((job.record.id, type_, job.record.queue, "unknown type"))
            if not jobs:
                del self._parked[type_]

    def _next_in(self, now: float) -> float | None:
        heap = self._leases
        while heap and (heap[0][3].state is not ACTIVE or heap[0][3].token != heap[0][2]):
            heapq.heappop(heap)
        times = [max(heap[0][0], heap[0][3].lease_until)] if heap else []
        if self._due:
            times.append(self._due[0][0])
        return max(0.0, min(times) - now) if times else None

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        with self._mu:
            now = self._now()
            return [self._finish(outcome, now) for outcome in outcomes]

    def _finish(self, outcome: Outcome, now: float) -> bool:
        job = self._jobs.get(outcome.job_id)
        if job is None or job.token != outcome.token or job.state is not ACTIVE:
            return False
        queue, kind = self._queues[job.record.queue], outcome.kind
        queue.active -= 1
        if kind != "release":
            self._runs[0] += 1
            self._runs[1] += outcome.run_s
            if self._runs[0] >= 10_000:  # forget slowly: the mean follows recent jobs
                self._runs = [self._runs[0] // 2, self._runs[1] / 2]
        if kind == "done":
            job.attempts += 1
            job.result = outcome.result
            self._end(job, COMPLETED, now)
        elif kind == "cancelled" or (job.cancel and kind in ("retry", "release")):
            job.error = outcome.error
            self._end(job, CANCELLED, now)
        elif kind == "dead":
            job.attempts += 1
            self._bury(job, outcome.error or "failed", now)
        else:
            self._again(job, outcome, now)
        if outcome.followers:
            self._push(outcome.followers, now)
        return True

    def _again(self, job: _Job, outcome: Outcome, now: float) -> None:
        job.token, job.place = -job.token, job.place + 1
        if outcome.kind == "release":
            self._ready(job, now, tag=0.0)
            self._wake({job.record.queue})
            return
        self._queues[job.record.queue].retried += 1
        job.attempts += outcome.count
        job.error = outcome.error
        if outcome.delay_s > 0:
            self._delay(job, now + outcome.delay_s)
        else:
            self._ready(job, now)
        self._wake({job.record.queue})

    def _bury(self, job: _Job, reason: str, now: float) -> None:
        queue = self._queues[job.record.queue]
        job.error = reason
        self._end(job, FAILED, now)
        queue.dead[job.record.id] = job
        keep = queue.config.keep_failed
        while keep is not None and len(queue.dead) > keep:
            del self._jobs[queue.dead.pop(next(iter(queue.dead))).record.id]

    def _end(self, job: _Job, state: JobState, now: float) -> None:
        record = job.record
        queue = self._queues[record.queue]
        job.state, job.finished = state, now
        job.lane = job.steps = job.progress = None
        if record.unique_key is not None and isinstance(record.unique_for, str):
            self._free_unique(record)
        queue.bump(queue.served, now)
        if state is FAILED:
            queue.failed += 1
            return
        ttl = self._options.result_ttl_s
        job.expires = now + (ttl if job.result is not None else min(ttl, 60.0))
        self._finished.append(record.id)
        if state is CANCELLED:
            queue.cancelled += 1
            return
        queue.completed += 1
        queue.done.append(job)
        job.listed = True
        if len(queue.done) > queue.config.keep_completed:
            old = queue.done.popleft()
            old.listed = False
            if old.expires <= now:
                self._jobs.pop(old.record.id, None)

    def _forget(self, now: float) -> None:
        """Drop finished jobs whose time has passed; those still listed stay."""
        finished = self._finished
        while finished:
            job = self._jobs.get(finished[0])
            if job is not None and job.expires > now and len(finished) <= self._max_finished:
                return
            finished.popleft()
            if job is None or job.state not in (COMPLETED, CANCELLED):
                continue
            job.expires = now
            if not job.listed:
                del self._jobs[job.record.id]

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        with self._mu:
            now, me, answer = self._now(), self._workers.get(worker), Renewed()
            if me is None:
                answer.lost.extend(job_id for job_id, _ in held)
                return answer
            self._alive(me, now)
            for job_id, token in held:
                job = self._jobs.get(job_id)
                if job is None or job.state is not ACTIVE or job.token != token:
                    answer.lost.append(job_id)
                    continue
                job.lease_until = now + me.card.lease_s
                if job.cancel:
                    answer.cancel.append(job_id)
            return answer

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        with self._mu:
            job = self._jobs.get(job_id)
            if job is None or job.state is not ACTIVE or job.token != token:
                return False
            if progress is not None:
                job.progress = progress
            if step is not None:
                job.steps = job.steps or set()
                job.steps.add(step)
            return True

    def steps(self, job_id: str, /) -> frozenset[str]:
        with self._mu:
            job = self._jobs.get(job_id)
            return frozenset(job.steps or ()) if job is not None else frozenset()

    def wait(self, worker: str, timeout_s: float, /) -> bool:
        me = self._workers.get(worker)
        return me is not None and me.event.wait(timeout_s)

    def close(self) -> None:
        """Nothing to give back: the jobs live as long as this object."""


class MemoryBackend:
    """One memory store, shared by the threads and loops of this process; a fork starts an empty one."""

    name = "memory"
    capabilities: frozenset[str] = frozenset()

    def __init__(self, url: BackendURL | None, settings: StoreSettings) -> None:
        self._settings = settings
        self._pid = os.getpid()
        self._store = MemoryStore(settings)

    def sync(self) -> MemoryStore:
        if self._pid != os.getpid():
            self._pid, self._store = os.getpid(), MemoryStore(self._settings)
        return self._store

    def waiter(self, card: WorkerCard, /) -> MemoryStore:
        return self.sync()

    def aio(self) -> AsyncFace:
        return AsyncFace(self.sync(), in_threads=False)

    def close(self) -> None:
        """Nothing to close."""
