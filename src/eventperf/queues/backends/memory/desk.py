"""Finding jobs, changing those that wait, and the minutes: what people ask the memory store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from eventperf.queues.errors import timed_follower
from eventperf.queues.job import JobInfo, JobState
from eventperf.queues.minutes import Interval
from eventperf.queues.protocols import LOOKED_AT, Change, Found, JobQuery

from .base import MemoryBooks
from .jobs import ACTIVE, CANCELLED, COMPLETED, DELAYED, FAILED, WAITING, StoredJob

_NEVER = 1e300
_ENDED = (COMPLETED, FAILED, CANCELLED)


class MemoryDesk(MemoryBooks):
    """What people ask. A search sorts all jobs of the wanted states, which takes a second for a million."""

    def find(self, query: JobQuery, /) -> Found:
        with self._mu:
            now = self._now()
            self._forget(now)
            place = {name: i for i, name in enumerate(query.queues)}
            states = {state: i for i, state in enumerate(query.states)}
            keyed = sorted(
                (([0] if query.tag else [states[job.state]]) + self._key(job, query, place), job)
                for job in self._jobs.values()
                if job.state in states and job.record.queue in place and self._shown(job, query.tag, now)
            )
            start = 0 if query.after is None else bisect_right([key for key, _ in keyed], list(query.after))
            found: list[StoredJob] = []
            for at in range(start, len(keyed)):
                key, job = keyed[at]
                if _fits(job, query):
                    found.append(job)
                if (len(found) == query.limit or at - start + 1 >= LOOKED_AT) and at + 1 < len(keyed):
                    return Found([self._info(job) for job in found], key)
            return Found([self._info(job) for job in found])

    @staticmethod
    def _shown(job: StoredJob, tag: str | None, now: float) -> bool:
        if tag is not None and tag not in job.record.tags:
            return False
        return (job.state is not COMPLETED or job.listed) and (
            job.state is not CANCELLED or job.expires > now
        )

    @staticmethod
    def _key(job: StoredJob, query: JobQuery, place: dict[str, int]) -> list[Any]:
        record = job.record
        if query.tag is not None:
            return [-record.created_at, record.id]
        if job.state is WAITING:
            return [place[record.queue], -record.priority, job.tag, record.id]
        if job.state is DELAYED:
            return [min(job.due, _NEVER), record.id]
        return [job.started if job.state is ACTIVE else -job.finished, record.id]

    def update(self, job_id: str, change: Change, /) -> JobState | None:
        with self._mu:
            job, now = self._jobs.get(job_id), self._now()
            if job is None or job.state not in (WAITING, DELAYED):
                return None if job is None else job.state
            if job.after and change.delay_s is not None:
                raise timed_follower(change.delay_s)
            state, record, due = job.state, job.record, job.due
            moves = change.delay_s is not None or change.priority is not None or change.queue is not None
            if change.payload is not None:
                record.payload = change.payload
                record.version = record.version if change.version is None else change.version
            if not moves:
                return state
            self._drop(job)
            if change.queue is not None:
                self._queues[record.queue].enqueued -= 1
                record.queue = change.queue
                self._queues[record.queue].enqueued += 1
            record.priority = record.priority if change.priority is None else change.priority
            if change.delay_s is not None:
                due = now + change.delay_s
            if due > now and (state is DELAYED or change.delay_s):
                self._delay(job, due)
            else:
                self._ready(job, now)
            self._wake(set())
            return state

    def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        with self._mu:
            self._forget(self._now())
            job = self._jobs.get(job_id)
            known = (self._jobs.get(child) for child in (job.children or () if job is not None else ()))
            return [self._info(child) for child in known if child is not None][:limit]

    def delete(self, queue: str, ids: Sequence[str], /) -> int:
        with self._mu:
            q, now, gone = self._queues[queue], self._now(), 0
            for job in [self._jobs.get(i) for i in dict.fromkeys(ids)]:
                if job is None or job.record.queue != queue or job.state not in _ENDED:
                    continue
                q.dead.pop(job.record.id, None)
                if job.listed:
                    q.done.remove(job)
                del self._jobs[job.record.id]
                self._followed(job, now, forgotten=True)
                gone += 1
            return gone

    def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        with self._mu:
            now = self._now()
            return now, [_copied(one) for one in self._minutes.since(now - span_s)]


def _copied(one: Interval) -> Interval:
    copy = Interval(at=one.at, queue=one.queue, type=one.type)
    copy.merge(one)
    return copy


def _fits(job: StoredJob, query: JobQuery) -> bool:
    record, text = job.record, query.text
    if query.type is not None and record.type != query.type:
        return False
    return text is None or text in record.id or text in (job.error or "") or text.encode() in record.payload
