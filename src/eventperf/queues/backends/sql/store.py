"""The SQL job store: what producers and operators do. Workers' verbs are in :mod:`.sql_work`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.engine import Connection

from eventperf.queues.job import JobInfo, JobState, NewJob, QueueStatus

from . import flows as flows
from . import rows as rows
from . import schema as s
from .base import Step
from .work import SqlWork

_j = s.jobs.c

_BATCH = 1000
_CODES = {
    JobState.WAITING: (s.WAITING, s.PARKED),
    JobState.DELAYED: (s.DELAYED,),
    JobState.ACTIVE: (s.ACTIVE,),
    JobState.COMPLETED: (s.COMPLETED,),
    JobState.FAILED: (s.FAILED,),
    JobState.CANCELLED: (s.CANCELLED,),
}


class SqlStore(SqlWork):
    """A :class:`~eventperf.queues.protocols.JobStore` in one set of tables."""

    # -- producers ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        return self.step(lambda step: step.push(jobs), repeat=True)

    def push_on(self, conn: Connection, jobs: Sequence[NewJob]) -> list[str]:
        """Push on a connection whose transaction belongs to somebody else."""
        step = Step(self, conn)
        ids = step.push(jobs)
        step.end()
        return ids

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        if not ids:
            return []

        def work(step: Step) -> list[JobInfo | None]:
            now = step.ask_now()
            found = {}
            for i in range(0, len(ids), _BATCH):
                part = select(s.jobs).where(_j.ns == self.ns, _j.id.in_(ids[i : i + _BATCH]))
                for row in step.conn.execute(part):
                    if row.state not in (s.COMPLETED, s.CANCELLED) or row.at > now or self._listed(step, row):
                        found[row.id] = rows.info_of(row)
            return [found.get(i) for i in ids]

        return self.look(work)

    def _listed(self, step: Step, row: Any) -> bool:
        """Whether a job whose time has passed is still among the last completed ones."""
        if row.state != s.COMPLETED:
            return False
        first = self.first_listed(step, row.queue)
        return first is not None and row.finished_at >= first

    def counts(self) -> list[QueueStatus]:
        return self.look(self._counts)

    def _counts(self, step: Step) -> list[QueueStatus]:
        totals, now = self.totals(step), step.ask_now()
        q, w, lane = s.queues.c, s.workers.c, s.lanes.c
        paused = set(step.conn.execute(select(q.queue).where(q.ns == self.ns, q.paused)).scalars())
        live = step.conn.execute(select(w.queues).where(w.ns == self.ns, w.until > now, ~w.gone)).scalars()
        served = [set(json.loads(names)) for names in live]
        first = (
            select(_j.ready_at)
            .where(
                _j.ns == lane.ns, _j.state == s.WAITING, _j.queue == lane.queue, _j.priority == lane.priority
            )
            .order_by(_j.tag, _j.seq)
            .limit(1)
            .scalar_subquery()
        )
        oldest: dict[str, float] = {}
        for queue, at in step.conn.execute(select(lane.queue, first).where(lane.ns == self.ns)):
            if at is not None:
                oldest[queue] = min(at, oldest.get(queue, at))
        found = []
        for name, config in self.settings.queues.items():
            total = totals.get(name, {})
            exact = {k: int(total.get(k, 0)) for k in s.COUNTERS if k not in ("woke", "called", "runs")}
            found.append(
                QueueStatus(
                    name=name, priority=config.priority, paused=name in paused,
                    workers=sum(name in names for names in served),
                    oldest_wait_s=max(0.0, now - oldest[name]) if name in oldest else 0.0,
                    arrival_rate=total.get("arrivals", 0.0) / total.get("span", 1.0),
                    service_rate=total.get("served", 0.0) / total.get("span", 1.0), **exact,
                )
            )  # fmt: skip
        return found

    def load(self) -> tuple[int, int, float]:
        def work(step: Step) -> tuple[int, int, float]:
            w, now = s.workers.c, step.ask_now()
            live = step.conn.execute(
                select(w.slots).where(w.ns == self.ns, w.until > now, ~w.gone)
            ).scalars().all()  # fmt: skip
            totals = self.totals(step).values()
            runs, run_s = sum(t["runs"] for t in totals), sum(t["run_s"] for t in totals)
            return len(live), sum(live), run_s / runs if runs else 0.0

        return self.look(work)

    # -- schedules ---------------------------------------------------------------------------------

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        t = s.schedules.c
        mine = (t.ns == self.ns) & (t.name == name)

        def work(step: Step) -> bool:
            keys = {"ns": self.ns, "name": name}
            step.d.upsert(step.conn, s.schedules, keys, {"asked_at": step.ask_now()})  # the row is ours now
            last = step.conn.execute(select(t.slot).where(mine).with_for_update()).scalar_one()
            if last >= slot:
                return False
            step.conn.execute(update(s.schedules).where(mine).values(slot=slot))
            if late and last < 0:  # a new schedule owes nothing of the time before it
                return False
            step.push([job])
            return True

        return self.step(work, repeat=True)

    def time(self) -> float:
        return self.look(lambda step: step.ask_now())

    # -- operators ---------------------------------------------------------------------------------

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        order = {
            JobState.WAITING: (_j.priority.desc(), _j.tag, _j.seq),
            JobState.DELAYED: (_j.at, _j.seq),
            JobState.ACTIVE: (_j.started_at, _j.seq),
        }.get(state, (_j.finished_at.desc(), _j.seq.desc()))
        if state is JobState.COMPLETED:
            limit = min(limit, self.settings.queues[queue].keep_completed - offset)
        if limit <= 0:
            return []
        asked = (
            select(s.jobs)
            .where(_j.ns == self.ns, _j.queue == queue, _j.state.in_(_CODES[state]))
            .order_by(*order)
            .offset(offset)
            .limit(limit)
        )
        return self.look(lambda step: [rows.info_of(row) for row in step.conn.execute(asked)])

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        def work(step: Step) -> list[bool]:
            asked = select(s.jobs).where(_j.ns == self.ns, _j.id.in_(ids)).order_by(_j.seq).with_for_update()
            found = {row.id: row for row in step.conn.execute(asked)}
            step.ask_now()
            running = [r for r in found.values() if r.state == s.ACTIVE]
            if running:
                seqs = [r.seq for r in running]
                step.conn.execute(update(s.jobs).where(_j.seq.in_(seqs)).values(cancel=True))
                for r in running:
                    step.tally.add(r.queue, called=1)
            idle = [r for r in found.values() if r.state in (s.WAITING, s.PARKED, s.DELAYED)]
            self._drop(step, idle)
            good = {r.id for r in (*running, *idle)}
            return [i in good for i in ids]

        return self.step(work, repeat=True) if ids else []

    def _drop(self, step: Step, found: Sequence[Any]) -> None:
        """Cancel jobs that wait or are delayed."""
        for r in found:
            step.tally.add(r.queue, **{"delayed" if r.state == s.DELAYED else "waiting": -1})
        flows.forget(step, [r for r in found if r.state == s.DELAYED and r.at == s.NEVER])
        step.end_jobs(found, s.CANCELLED)

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        total = 0
        while limit is None or total < limit:
            n = self.step(
                lambda step: self._replay(step, queue, ids, min(_BATCH, (limit or 10**9) - total))  # noqa: B023
            )
            total += n
            if not n:
                break
        return total

    def _replay(self, step: Step, queue: str, ids: Sequence[str] | None, limit: int) -> int:
        asked = select(s.jobs).where(_j.ns == self.ns, _j.queue == queue, _j.state == s.FAILED)
        if ids is not None:
            asked = asked.where(_j.id.in_(ids))
        asked = asked.order_by(_j.finished_at, _j.seq).limit(limit).with_for_update(skip_locked=True)
        found = step.conn.execute(asked).all()
        step.ask_now()
        if found:
            fresh: dict[str, Any] = {"attempts": 0, "crashes": 0, "error": None, "finished_at": None}
            fresh |= {"deadline_at": None, "cancel": False}
            step.conn.execute(update(s.jobs).where(_j.seq.in_([r.seq for r in found])).values(**fresh))
            step.ready(found)
            step.tally.add(queue, dead=-len(found), replayed=len(found))
        return len(found)

    def purge(self, queue: str, state: JobState, /) -> int:
        total = 0
        while n := self.step(lambda step: self._purge(step, queue, state)):
            total += n
        return total

    def _purge(self, step: Step, queue: str, state: JobState) -> int:
        asked = select(s.jobs).where(_j.ns == self.ns, _j.queue == queue, _j.state.in_(_CODES[state]))
        found = step.conn.execute(asked.order_by(_j.seq).limit(_BATCH).with_for_update()).all()
        step.ask_now()
        if state in (JobState.WAITING, JobState.DELAYED):
            self._drop(step, found)
        elif found:
            step.conn.execute(delete(s.jobs).where(_j.seq.in_([r.seq for r in found])))
            if state is JobState.FAILED:
                step.tally.add(queue, dead=-len(found))
                flows.follow(step, found, s.FAILED, forgotten=True)
        return len(found)

    def set_paused(self, queue: str, paused: bool, /) -> None:
        def work(step: Step) -> None:
            step.ask_now()
            step.d.upsert(step.conn, s.queues, {"ns": self.ns, "queue": queue}, {"paused": paused})
            if not paused:
                step.tally.add(queue, woke=1)

        self.step(work, repeat=True)
