"""Jobs in this process's memory: the embedded default, with the full semantics of the room.

What is lost when the process ends is everything; within the process the guarantees are those of the
other backends, and the same conformance suite proves them.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Mapping, Sequence

from eventperf._core.urls import BackendURL
from eventperf.queues.attempts import CRASHED, ENDINGS, KEPT, Attempt, Ending
from eventperf.queues.backends.faces import AsyncFace
from eventperf.queues.job import Lease
from eventperf.queues.limits import RECHECK_S
from eventperf.queues.policy import choose
from eventperf.queues.protocols import ENGINE, Claimed, Outcome, Renewed, Stalled, StoreSettings, WorkerCard

from .desk import MemoryDesk
from .jobs import ACTIVE, CANCELLED, COMPLETED, DELAYED, JobLane, LiveWorker, StoredJob

_REAP_BATCH = 1000
_HELD_BACK_BATCH = 2000


class MemoryStore(MemoryDesk):
    """A :class:`~eventperf.queues.protocols.JobStore` in plain dictionaries behind one lock.

    Finished jobs are kept for ``result_ttl_s`` but never more than ``max_finished`` of them.
    """

    # -- workers -----------------------------------------------------------------------------------

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        with self._mu:
            now = self._now()
            worker = self._workers.get(card.id)
            if worker is None:
                self._workers[card.id] = LiveWorker(card, now + 3 * card.lease_s)
            else:
                worker.card, worker.until = card, now + 3 * card.lease_s
            self._workers[card.id].spare_until = now + card.spare_s
            self._alive(self._workers[card.id], now)
            for job in [j for _, _, token, j in self._leases if j.token == token and j.worker == card.id]:
                if job.state is ACTIVE and job.record.id not in held:
                    self._queues[job.record.queue].active -= 1
                    job.token, job.place = -job.token, job.place + 1
                    self._let_go(job, now)
                    self._ready(job, now, tag=0.0)

    def _alive(self, worker: LiveWorker, now: float) -> None:
        worker.until = now + 3 * worker.card.lease_s
        for type_ in worker.card.types:
            self._known_until[type_] = max(worker.until, self._known_until.get(type_, 0.0))

    def leave(self, worker: str, /) -> None:
        with self._mu:
            gone = self._workers.pop(worker, None)
            if gone is not None:
                gone.event.set()
                gone.message.set()

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        with self._mu:
            now, me = self._now(), self._workers[worker]
            me.event.clear()
            if me.until < now + 2 * me.card.lease_s:
                self._alive(me, now)
            self._promote(now)
            stalled = self._reap(now) if me.spare_until <= now else []
            expired: list[tuple[str, str, str, str]] = []
            if self._parked:
                self._unpark(me.card, now, total, expired)
            if self._looks:
                self._let_through(now)
            leases = self._take(me, room, total, now, expired)
            if self._finished:
                self._forget(now)
            return Claimed(leases, self._next_in(now, me.spare_until), stalled, expired)

    def _take(
        self,
        me: LiveWorker,
        room: Mapping[str, int],
        total: int,
        now: float,
        expired: list[tuple[str, str, str, str]],
    ) -> list[Lease]:
        card, order, aging = me.card, self._options.order, self._options.aging
        left, lanes, held_back = self._open(room, now), [], 0
        for name in left:
            lanes += [lane for lane in self._queues[name].lanes.values() if lane.size]
        until = now + card.lease_s
        leases: list[Lease] = []
        while lanes and len(leases) < total and held_back < _HELD_BACK_BATCH:
            lane = choose(lanes, order, aging, self._credit)
            assert isinstance(lane, JobLane)
            job = lane.take()
            if not lane.size:
                lanes.remove(lane)
            record = job.record
            if record.type not in card.types:
                self._park(job, now)
                continue
            queue = self._queues[record.queue]
            if record.deadline_at is not None and record.deadline_at <= now:
                queue.waiting -= 1
                job.place += 1
                self._bury(job, "deadline passed before it could start", now)
                expired.append((record.id, record.type, record.queue, "deadline"))
                continue
            if self._ledger.limits:
                held = self._ledger.start(record.queue, record.type, record.key, now)
                if isinstance(held, tuple):
                    self._hold_back(job, held, now)
                    held_back += 1
                    continue
                job.under = held
            queue.waiting -= 1
            job.place += 1
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

    def _park(self, job: StoredJob, now: float) -> None:
        """Set a job aside whose type this worker does not know."""
        type_ = job.record.type
        job.place += 1
        job.parked = True
        if type_ not in self._parked:
            self._parked[type_] = deque()
            until = self._known_until[type_] = max(now, self._known_until.get(type_, 0.0))
            self._look_for(type_, until)
        self._parked[type_].append((job.place, job))

    def _open(self, room: Mapping[str, int], now: float) -> dict[str, int]:
        """Return the queues with work in line and their room, looking at no others."""
        found = {}
        for name in list(self._busy):
            queue = self._queues[name]
            if not any(lane.size for lane in queue.lanes.values()):
                self._busy.discard(name)
            elif (free := room.get(name, 0)) > 0 and not queue.paused:
                limit = self._whole.get(name)
                most = free if limit is None else self._ledger.free(limit, (name, "", ""), now)
                if (free := int(min(free, most))) > 0:
                    found[name] = free
        return found

    def _let_through(self, now: float) -> None:
        """Put jobs that a limit held back into line again, as many as it lets through by now."""
        while self._looks and self._looks[0][0] <= now:
            at, _, bucket = heapq.heappop(self._looks)
            if self._look_at.get(bucket) != at:
                continue
            del self._look_at[bucket]
            waiting, limit = self._held_back[bucket], self._ledger.limit_of(bucket)
            free = self._ledger.free(limit, bucket, now) if limit is not None else len(waiting)
            while waiting and free > 0:
                _, _, place, job = heapq.heappop(waiting)
                if job.place == place and job.lane is not None:
                    free -= 1
                    job.parked = False
                    self._line_up(job, job.lane)
            if not waiting:
                del self._held_back[bucket]
            elif limit is not None:
                again = self._ledger.again_at(limit, bucket, now)
                step = min(RECHECK_S, limit.per_s / limit.rate) if limit.rate else RECHECK_S
                self._look(bucket, now + max(step, 1e-4) if again is None else again)

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
            lapsed = self._lives_without(job)
            stalled = self._orphan(job, now, lapsed)
            if not lapsed:
                found.append(stalled)
        return found

    def _lives_without(self, job: StoredJob) -> bool:
        """Tell whether its worker has renewed others since it renewed this: it lives and does not hold it."""
        worker = self._workers.get(job.worker or "")
        if worker is None:
            return False
        lease_s = worker.card.lease_s
        return worker.until - 3 * lease_s > job.lease_until - lease_s + 0.001

    def _orphan(self, job: StoredJob, now: float, lapsed: bool) -> Stalled:
        record, queue = job.record, self._queues[job.record.queue]
        queue.active -= 1
        if not lapsed:
            self._tried(job, "crashed", now - job.started, CRASHED, None, None)
            self._minutes.add(now, record.queue, record.type, "crashed", None, None)
        queue.lapsed += lapsed
        queue.stalled += not lapsed
        job.crashes += not lapsed
        job.token = -job.token
        self._let_go(job, now)
        dead = not lapsed and job.crashes >= self._options.max_crashes
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
        for type_ in card.types & self._parked.keys():
            jobs = self._parked[type_]
            for _ in range(min(len(jobs), total)):
                place, job = jobs.popleft()
                if job.place == place and job.lane is not None:
                    job.parked = False
                    self._line_up(job, job.lane)
            if not jobs:
                del self._parked[type_], self._parked_look[type_]
        grace_s, looks = self._options.unknown_grace_s, self._parked_looks
        while looks and looks[0][0] + grace_s <= now and len(expired) < _REAP_BATCH:
            at, type_ = heapq.heappop(looks)
            if self._parked_look.get(type_) == at:
                self._judge_unknown(type_, now, expired)

    def _look_for(self, type_: str, known_until: float) -> None:
        self._parked_look[type_] = known_until
        heapq.heappush(self._parked_looks, (known_until, type_))

    def _judge_unknown(self, type_: str, now: float, expired: list[tuple[str, str, str, str]]) -> None:
        """Bury the jobs of a type that nobody has known for the grace time, some at a time."""
        until, jobs = self._known_until.get(type_, now), self._parked[type_]
        if now >= until + self._options.unknown_grace_s:
            for _ in range(min(len(jobs), _REAP_BATCH)):
                place, job = jobs.popleft()
                if job.place == place:
                    job.parked = False
                    job.place += 1
                    self._queues[job.record.queue].waiting -= 1
                    self._bury(job, f"no live worker knows the job type {type_!r}", now)
                    expired.append((job.record.id, type_, job.record.queue, "unknown type"))
        if jobs:
            self._look_for(type_, until)
        else:
            del self._parked[type_], self._parked_look[type_]

    def _next_in(self, now: float, spare_until: float) -> float | None:
        heap = self._leases
        while heap and (heap[0][3].state is not ACTIVE or heap[0][3].token != heap[0][2]):
            heapq.heappop(heap)
        times = [max(heap[0][0], heap[0][3].lease_until, spare_until)] if heap else []
        if self._due:
            times.append(self._due[0][0])
        if self._looks:
            times.append(self._looks[0][0])
        for name in self._busy & self._whole.keys():
            again = self._ledger.again_at(self._whole[name], (name, "", ""), now)
            if again is not None:
                times.append(again)
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
        if job.under:
            self._let_go(job, now)
        if kind != "release":
            self._runs[0] += 1
            self._runs[1] += outcome.run_s
            if self._runs[0] >= 10_000:  # forget slowly: the mean follows recent jobs
                self._runs = [self._runs[0] // 2, self._runs[1] / 2]
            self._remember(job, outcome, now)
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

    def _remember(self, job: StoredJob, outcome: Outcome, now: float) -> None:
        """Keep what is said of this run, and count it."""
        kind = "cancelled" if job.cancel and outcome.kind == "retry" else outcome.kind
        ending, record = ENDINGS[kind], job.record
        wait_s = job.started - job.ready_at if not job.attempts and not job.crashes else None
        self._minutes.add(now, record.queue, record.type, ending, outcome.run_s, wait_s)
        self._tried(job, ending, outcome.run_s, outcome.error, outcome.traceback, outcome.log_tail)

    def _tried(self, job: StoredJob, ending: Ending, run_s: float, *said: str | None) -> None:
        error, trace, logs = said
        attempt = Attempt(
            number=job.attempts + 1, worker=job.worker or "", started_at=job.started, seconds=run_s,
            outcome=ending, error=error, traceback=trace, log_tail=logs,
        )  # fmt: skip
        job.history = [*(job.history or ()), attempt][-KEPT:]

    def _again(self, job: StoredJob, outcome: Outcome, now: float) -> None:
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

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        me = self._workers.get(worker)
        if me is None or not me.event.wait(timeout_s):
            return False
        return self._heard(me)

    def attend(self, worker: str, timeout_s: float, /) -> bool | str:
        me = self._workers.get(worker)
        if me is None or not me.message.wait(timeout_s):
            return False
        me.message.clear()
        return self._heard(me)

    def nudge(self, worker: str, /) -> None:
        me = self._workers.get(worker)
        if me is not None:
            me.message.set()

    def _heard(self, me: LiveWorker) -> bool | str:
        if not me.told:
            return True
        me.told = False
        return "message"

    def close(self) -> None:
        """Nothing to give back: the jobs live as long as this object."""


class MemoryBackend:
    """One memory store, shared by the threads and loops of this process; a fork starts an empty one."""

    name = "memory"
    capabilities: frozenset[str] = ENGINE | {
        "limits", "flows", "schedules", "attempts", "search", "metrics", "update", "roster",
        "children", "delete",
    }  # fmt: skip

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
