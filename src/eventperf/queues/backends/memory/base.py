"""The books of the memory backend: storing, showing and ending jobs, and what operators do.

Longer than other files: every verb moves jobs between the same dicts under one lock, and reads best beside
the others.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter, deque
from collections.abc import Sequence
from itertools import count, islice

from eventperf.queues.errors import NONE_FAILED, unknown_parent
from eventperf.queues.job import JobInfo, JobRecord, JobState, NewJob, QueueStatus, WorkerInfo, parents
from eventperf.queues.limits import RECHECK_S, Bucket, Ledger
from eventperf.queues.minutes import Minutes
from eventperf.queues.protocols import StoreSettings

from .jobs import (
    ACTIVE,
    CANCELLED,
    COMPLETED,
    DELAYED,
    FAILED,
    WAITING,
    JobLane,
    LiveWorker,
    StoredJob,
    StoredQueue,
)

_FORGET_WORKER_S = 86_400.0  # a worker that was frozen this long must introduce itself again
_NEVER = float("inf")
KIN = 1_000  # children that are remembered of a job


class MemoryBooks:
    """Everything of the memory store but what workers do."""

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
        self._jobs: dict[str, StoredJob] = {}
        self._queues = {name: StoredQueue(config) for name, config in settings.queues.items()}
        self._credit: dict[str, int] = {}
        self._unique: dict[tuple[str, str], tuple[str, float]] = {}
        self._due: list[tuple[float, int, int, StoredJob]] = []
        self._leases: list[tuple[float, int, int, StoredJob]] = []
        self._parked: dict[str, deque[tuple[int, StoredJob]]] = {}
        self._parked_look: dict[str, float] = {}  # until when a parked type was known at its last look
        self._parked_looks: list[tuple[float, str]] = []
        self._known_until: dict[str, float] = {}
        self._finished: deque[str] = deque()
        self._workers: dict[str, LiveWorker] = {}
        self._runs = [0, 0.0]
        self._ledger = Ledger(settings.options.limits)
        self._whole = {limit.queue or "": limit for limit in settings.options.limits if limit.whole_queue}
        self._busy: set[str] = set()  # all queues with jobs in line, and some that have none any more
        self._held_back: dict[Bucket, list[tuple[float, int, int, StoredJob]]] = {}
        self._looks: list[tuple[float, int, Bucket]] = []
        self._look_at: dict[Bucket, float] = {}
        self._children: dict[str, list[str]] = {}
        self._endings: list[tuple[StoredJob, bool]] = []
        self._fired: dict[str, float] = {}
        self._minutes = Minutes()

    def _now(self) -> float:
        return self._monotonic() + self._epoch

    # -- producers ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        with self._mu:
            pushed = {new.record.id for new in jobs if new.record.flow is not None} and {
                new.record.id for new in jobs
            }
            for new in jobs:
                for parent in (new.record.flow or {}).get("after", ()):
                    if parent not in self._jobs and parent not in pushed:
                        raise unknown_parent(parent)
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
            job = self._jobs[record.id] = StoredJob(record)
            queue = self._queues[record.queue]
            queue.enqueued += 1
            queue.bump(queue.arrivals, now)
            if record.flow is not None and self._link(job, now):
                continue
            if new.delay_s > 0:
                self._delay(job, now + new.delay_s)
            else:
                self._ready(job, now)
                touched.add(record.queue)
        if touched or (self._due and self._due[0][0] != head):
            self._wake(touched)
        return ids

    def _link(self, job: StoredJob, now: float) -> bool:
        """Let a job wait for those it comes after; false when they have all ended."""
        flow = job.record.flow or {}
        when, waits = flow["when"], set()
        any_end = when != "success"
        for parent_id in flow["after"]:
            parent = self._jobs.get(parent_id)
            if parent is not None:
                parent.children = [*(parent.children or ()), job.record.id][-KIN:]
            if parent is not None and (parent.state is COMPLETED or (any_end and parent.finished)):
                continue
            if parent is None and any_end:
                continue
            if parent is None or parent.state is CANCELLED:
                job.error = "a job it waits for was cancelled or is not known"
                self._end(job, CANCELLED, now)
                return True
            waits.add(parent_id)
        if not waits and self._in_vain(job):
            job.error = NONE_FAILED
            self._end(job, CANCELLED, now)
            return True
        for parent_id in waits:
            self._children.setdefault(parent_id, []).append(job.record.id)
        if waits:
            job.after = waits
            self._delay(job, _NEVER)
        return bool(waits)

    def _in_vain(self, job: StoredJob) -> bool:
        """Tell whether a job waited for a failure and none of those it waited for has failed."""
        flow = job.record.flow or {}
        if flow["when"] != "failure":
            return False
        parents = [self._jobs.get(parent_id) for parent_id in flow["after"]]
        return not any(parent is not None and parent.state is FAILED for parent in parents)

    def _followed(self, ended: StoredJob, now: float, *, forgotten: bool = False) -> None:
        """Free, keep or cancel the jobs that wait for one that has ended, and those that wait for them.

        One after another: what ends by the end of another must not deepen the stack.
        """
        self._endings.append((ended, forgotten))
        if len(self._endings) == 1:
            for one, gone in self._endings:  # it grows meanwhile
                self._follow(one, now, forgotten=gone)
            self._endings.clear()

    def _follow(self, ended: StoredJob, now: float, *, forgotten: bool) -> None:
        parent_id, stay = ended.record.id, []
        for child_id in self._children.pop(parent_id, ()):
            child = self._jobs.get(child_id)
            if child is None or child.state is not DELAYED or not child.after or parent_id not in child.after:
                continue
            if ended.state is COMPLETED or (child.record.flow or {})["when"] != "success":
                child.after.remove(parent_id)
                if not child.after and self._in_vain(child):
                    self._drop(child)
                    child.error = NONE_FAILED
                    self._end(child, CANCELLED, now)
                elif not child.after:
                    self._drop(child)
                    self._ready(child, now)
                    self._wake({child.record.queue})
            elif ended.state is FAILED and not forgotten:
                stay.append(child_id)
            else:
                self._drop(child)
                child.error = f"job {parent_id}, which it waited for, was cancelled"
                self._end(child, CANCELLED, now)
        if stay:
            self._children[parent_id] = stay

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        with self._mu:
            last = self._fired.get(name)
            if last is not None and last >= slot:
                return False
            self._fired[name] = slot
            if last is None and late:
                return False
            self._push([job], self._now())
            return True

    def time(self) -> float:
        return self._now()

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

    def _may_return(self, record: JobRecord, now: float) -> bool:
        """Let a dead job hold its unique key again; false where another has it by now."""
        if record.unique_key is None or not isinstance(record.unique_for, str):
            return True
        return self._holder(record, now) in (None, record.id)

    def _free_unique(self, record: JobRecord) -> None:
        name = (record.type, record.unique_key or "")
        if self._unique.get(name, ("", 0.0))[0] == record.id:
            del self._unique[name]

    def _ready(self, job: StoredJob, now: float, *, tag: float | None = None) -> None:
        record = job.record
        queue = self._queues[record.queue]
        lane = queue.lanes.get(record.priority)
        if lane is None:
            config = queue.config
            lane = JobLane(record.queue, config.priority, config.share, record.priority)
            queue.lanes[record.priority] = lane
        job.state, job.lane, job.ready_at = WAITING, lane, now
        job.tag = lane.tag(record.key) if tag is None else lane.virtual
        queue.waiting += 1
        self._line_up(job, lane)

    def _line_up(self, job: StoredJob, lane: JobLane) -> None:
        lane.put(job, next(self._n))
        self._busy.add(job.record.queue)

    def _delay(self, job: StoredJob, due: float) -> None:
        job.state, job.due = DELAYED, due
        self._queues[job.record.queue].delayed += 1
        if due < _NEVER:
            heapq.heappush(self._due, (due, next(self._n), job.place, job))

    def _hold_back(self, job: StoredJob, bucket: Bucket, now: float) -> None:
        job.place += 1
        job.parked = True
        heapq.heappush(self._held_back.setdefault(bucket, []), (job.tag, next(self._n), job.place, job))
        if bucket not in self._look_at:
            limit = self._ledger.limit_of(bucket)
            at = self._ledger.again_at(limit, bucket, now) if limit is not None else None
            self._look(bucket, now + RECHECK_S if at is None else at)

    def _look(self, bucket: Bucket, at: float) -> None:
        self._look_at[bucket] = at
        heapq.heappush(self._looks, (at, next(self._n), bucket))

    def _let_go(self, job: StoredJob, now: float) -> None:
        """Give back the caps a running job holds; called whenever a lease ends."""
        held, job.under = job.under, None
        if not held:
            return
        self._ledger.end(held)
        for bucket in held:
            if self._held_back.get(bucket):
                self._look(bucket, now)
        self._wake(set())

    def _wake(self, queues: set[str]) -> None:
        for worker in self._workers.values():
            if not queues or not queues.isdisjoint(worker.card.room_by_queue):
                worker.event.set()

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        with self._mu:
            self._forget(self._now())
            return [None if (job := self._jobs.get(i)) is None else self._info(job, whole=True) for i in ids]

    def _info(self, job: StoredJob, *, whole: bool = False) -> JobInfo:
        r = job.record
        ran = job.state not in (WAITING, DELAYED) and job.token > 0
        return JobInfo(
            id=r.id, type=r.type, queue=r.queue, state=job.state, priority=r.priority,
            attempt=job.attempts + (job.state is ACTIVE), crashes=job.crashes, created_at=r.created_at,
            due_at=job.due if job.state is DELAYED and job.due < _NEVER else None,
            started_at=job.started if ran else None,
            finished_at=job.finished or None, worker=job.worker if job.state is ACTIVE else None,
            progress=job.progress, error=job.error, result=job.result, payload=r.payload, key=r.key,
            headers=dict(r.headers or {}), tags=tuple(r.tags),
            attempts=tuple(job.history or ()) if whole else (), **parents(r.flow),
        )  # fmt: skip

    def counts(self) -> list[QueueStatus]:
        with self._mu:
            now = self._now()
            if any(w.until < now - _FORGET_WORKER_S for w in self._workers.values()):
                self._workers = {i: w for i, w in self._workers.items() if w.until >= now - _FORGET_WORKER_S}
            return [self._status(name, queue, now) for name, queue in self._queues.items()]

    def _status(self, name: str, q: StoredQueue, now: float) -> QueueStatus:
        oldest = [t for lane in q.lanes.values() if (t := lane.oldest()) is not None]
        return QueueStatus(
            name=name, priority=q.config.priority, waiting=q.waiting, delayed=q.delayed, active=q.active,
            completed=q.completed, failed=q.failed, cancelled=q.cancelled, retried=q.retried,
            stalled=q.stalled, lapsed=q.lapsed, trimmed=q.trimmed, dead=len(q.dead),
            enqueued=q.enqueued, replayed=q.replayed, paused=q.paused,
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

    def roster(self) -> list[WorkerInfo]:
        with self._mu:
            now = self._now()
            running = Counter(job.worker for job in self._jobs.values() if job.state == ACTIVE)
            return [
                WorkerInfo.told(
                    w.card.about,
                    id=id,
                    queues=sorted(w.card.room_by_queue),
                    slots=w.card.slots,
                    running=running[id],
                    lease_s=w.card.lease_s,
                    known_until=w.until,
                )
                for id, w in sorted(self._workers.items())
                if w.until > now
            ]

    # -- ends and their consequences ---------------------------------------------------------------

    def _bury(self, job: StoredJob, reason: str, now: float) -> None:
        queue = self._queues[job.record.queue]
        job.error = reason
        self._end(job, FAILED, now)
        queue.dead[job.record.id] = job
        keep = queue.config.keep_failed
        while keep is not None and len(queue.dead) > keep:
            _, old = queue.dead.popitem(last=False)
            del self._jobs[old.record.id]
            queue.trimmed += 1
            self._followed(old, now, forgotten=True)

    def _end(self, job: StoredJob, state: JobState, now: float) -> None:
        record = job.record
        queue = self._queues[record.queue]
        job.state, job.finished = state, now
        job.lane = job.steps = job.progress = job.after = None
        if record.unique_key is not None and isinstance(record.unique_for, str):
            self._free_unique(record)
        queue.bump(queue.served, now)
        if self._children:
            self._followed(job, now)
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

    def _cancel(self, job: StoredJob | None, now: float) -> bool:
        if job is None or job.state not in (WAITING, DELAYED, ACTIVE):
            return False
        if job.state is ACTIVE:
            job.cancel = True
            worker = self._workers.get(job.worker or "")
            if worker is not None:
                worker.told = True
                worker.event.set()
                worker.message.set()
        else:
            self._drop(job)
            self._end(job, CANCELLED, now)
        return True

    def _drop(self, job: StoredJob) -> None:
        """Take a waiting or delayed job out of its order."""
        queue = self._queues[job.record.queue]
        job.place += 1
        if job.state is DELAYED:
            queue.delayed -= 1
        else:
            queue.waiting -= 1
            if job.lane is not None and not job.parked:
                job.lane.leave(job.record.key, job.tag)
            job.parked = False

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        with self._mu:
            now, q = self._now(), self._queues[queue]
            chosen = [i for i in (list(q.dead) if ids is None else ids) if i in q.dead][:limit]
            chosen = [i for i in chosen if self._may_return(q.dead[i].record, now)]
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
                self._followed(job, now, forgotten=True)
            return len(gone)

    def set_paused(self, queue: str, paused: bool, /) -> None:
        with self._mu:
            self._queues[queue].paused = paused
            self._wake({queue})
