"""What people do: look jobs up, cancel them, put dead ones back, forget them, pause a queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select, update

from eventperf.queues.job import JobInfo, JobState

from . import arrivals, ends, flows, forgetting, rows, shelves
from . import tables as s
from .tx import Tx

_j = s.jobs.c

_BATCH = 1000
_CODES = {
    JobState.WAITING: (s.WAITING, s.PARKED, s.HELD),
    JobState.DELAYED: (s.DELAYED,),
    JobState.ACTIVE: (s.ACTIVE,),
    JobState.COMPLETED: (s.COMPLETED,),
    JobState.FAILED: (s.FAILED,),
    JobState.CANCELLED: (s.CANCELLED,),
}
_ORDER: dict[JobState, tuple[Any, ...]] = {
    JobState.WAITING: (_j.priority.desc(), _j.tag, _j.seq),
    JobState.DELAYED: (_j.at, _j.seq),
    JobState.ACTIVE: (_j.started_at, _j.seq),
}


def fetch(tx: Tx, ids: Sequence[str]) -> list[JobInfo | None]:
    """Return what is known of jobs; what is over and not listed is not."""
    now, found = tx.ask_now(), dict[str, JobInfo]()
    listed: dict[str, float | None] = {}
    for i in range(0, len(ids), _BATCH):
        part = select(s.jobs).where(_j.ns == tx.ns, _j.id.in_(ids[i : i + _BATCH]))
        for row in tx.conn.execute(part):
            if row.state in (s.COMPLETED, s.CANCELLED) and row.at <= now:
                if row.state == s.CANCELLED:
                    continue
                if row.queue not in listed:
                    known = row.queue in tx.home.settings.queues
                    listed[row.queue] = forgetting.first_listed(tx, row.queue) if known else None
                first = listed[row.queue]
                if first is None or row.finished_at < first:
                    continue
            found[row.id] = rows.info_of(row, whole=True)
    return [found.get(i) for i in ids]


def listing(tx: Tx, queue: str, state: JobState, offset: int, limit: int) -> list[JobInfo]:
    """Return jobs of a queue in one state."""
    order = _ORDER.get(state, (_j.finished_at.desc(), _j.seq.desc()))
    if state is JobState.COMPLETED:
        limit = min(limit, tx.home.settings.queues[queue].keep_completed - offset)
    if limit <= 0:
        return []
    asked = select(*s.SHOWN).where(_j.ns == tx.ns, _j.queue == queue, s.in_state(*_CODES[state]))
    return [rows.info_of(r) for r in tx.conn.execute(asked.order_by(*order).offset(offset).limit(limit))]


def children(tx: Tx, job_id: str, limit: int) -> list[JobInfo]:
    """Return those that wait or waited for a job, in the order they came."""
    found = [info for info in fetch(tx, flows.children(tx, job_id, limit)) if info is not None]
    return sorted((replace(info, attempts=()) for info in found), key=lambda info: info.created_at)


def cancel(tx: Tx, ids: Sequence[str]) -> list[bool]:
    """Cancel waiting jobs, and call the workers of running ones."""
    asked = select(s.jobs).where(_j.ns == tx.ns, _j.id.in_(ids)).order_by(_j.seq).with_for_update()
    found = {row.id: row for row in tx.conn.execute(asked)}
    tx.ask_now()
    running = [r for r in found.values() if r.state == s.ACTIVE]
    if running:
        seqs = [r.seq for r in running]
        tx.conn.execute(update(s.jobs).where(_j.seq.in_(seqs)).values(cancel=True))
        for r in running:
            tx.tally.add(r.queue, called=1)
    idle = [r for r in found.values() if r.state in (s.WAITING, s.PARKED, s.HELD, s.DELAYED)]
    _drop(tx, idle)
    good = {r.id for r in (*running, *idle)}
    return [i in good for i in ids]


def _drop(tx: Tx, found: Sequence[Any]) -> None:
    """Cancel jobs that wait or are delayed."""
    for r in found:
        tx.tally.add(r.queue, **{"delayed" if r.state == s.DELAYED else "waiting": -1})
    shelves.take_down(tx, found)
    flows.forget(tx, [r for r in found if r.state == s.DELAYED and r.at == s.NEVER])
    ends.end(tx, found, s.CANCELLED)


def replay(tx: Tx, queue: str, ids: Sequence[str] | None, limit: int, after: Any) -> tuple[int, Any]:
    """Put dead jobs back, oldest first, those whose unique key no newer job holds.

    Returns:
        How many, and where the next call goes on; ``None`` at the end.
    """
    asked = select(s.jobs).where(_j.ns == tx.ns, _j.queue == queue, s.in_state(s.FAILED))
    if ids is not None:
        asked = asked.where(_j.id.in_(ids))
    if after is not None:
        asked = asked.where(
            (_j.finished_at > after[0]) | ((_j.finished_at == after[0]) & (_j.seq > after[1]))
        )
    asked = asked.order_by(_j.finished_at, _j.seq).limit(limit).with_for_update(skip_locked=True)
    found = tx.conn.execute(asked).all()
    tx.ask_now()
    back = [row for row in found if _may_have_its_key(tx, row)]
    if back:
        fresh: dict[str, Any] = {"attempts": 0, "crashes": 0, "error": None, "finished_at": None}
        fresh |= {"deadline_at": None, "cancel": False}
        tx.conn.execute(update(s.jobs).where(_j.seq.in_([r.seq for r in back])).values(**fresh))
        tx.ready(back)
        tx.tally.add(queue, dead=-len(back), replayed=len(back))
    return len(back), (found[-1].finished_at, found[-1].seq) if found else None


def _may_have_its_key(tx: Tx, row: Any) -> bool:
    """Take the unique key of a dead job again; false when a newer job has it."""
    if not row.held_key or row.held_for not in ("waiting", "running"):
        return True
    wanted = {"ns": tx.ns, "held_key": row.held_key, "job_id": row.id, "until": arrivals.FOR_EVER}
    return bool(tx.d.take_key(tx.conn, wanted, tx.now) == row.id)


def purge(tx: Tx, queue: str, state: JobState) -> int:
    """Forget some jobs of a queue in one state; return how many."""
    asked = select(s.jobs).where(_j.ns == tx.ns, _j.queue == queue, s.in_state(*_CODES[state]))
    found = tx.conn.execute(asked.order_by(_j.seq).limit(_BATCH).with_for_update()).all()
    tx.ask_now()
    if state in (JobState.WAITING, JobState.DELAYED):
        _drop(tx, found)
    elif found:
        _forget(tx, queue, found)
    return len(found)


def erase(tx: Tx, queue: str, ids: Sequence[str]) -> int:
    """Forget those of a queue's jobs that have ended; return how many."""
    mine = _j.ns == tx.ns, _j.id.in_(ids), _j.queue == queue, s.in_state(*s.ENDED)
    found = tx.conn.execute(select(s.jobs).where(*mine).order_by(_j.seq).with_for_update()).all()
    tx.ask_now()
    if found:
        _forget(tx, queue, found)
    return len(found)


def _forget(tx: Tx, queue: str, ended: Sequence[Any]) -> None:
    ends.delete_jobs(tx, ended)
    if dead := [row for row in ended if row.state == s.FAILED]:
        tx.tally.add(queue, dead=-len(dead))
        ends.settle(tx, dead, s.FAILED, forgotten=True)


def set_paused(tx: Tx, queue: str, paused: bool) -> None:
    """Stop or resume handing out jobs of a queue."""
    tx.ask_now()
    tx.d.upsert(tx.conn, s.queues, {"ns": tx.ns, "queue": queue}, {"paused": paused})
    if not paused:
        tx.tally.add(queue, woke=1)
