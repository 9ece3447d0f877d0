"""Counters without a row that everybody waits for: appended, summed when asked, folded now and then."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import Any

from sqlalchemy import and_, case, delete, func, literal, select

from eventperf.queues.job import QueueStatus, WorkerInfo

from . import rows
from . import tables as s
from .tx import Tx

_j, _t, _w = s.jobs.c, s.tallies.c, s.workers.c

FOLD_EVERY = 100
_FOLD_BATCH = 2000
_SHOWN = tuple(f.name for f in fields(QueueStatus) if f.name in s.COUNTERS)


def fold(tx: Tx) -> None:
    """Replace many small changes of the counters by their sums."""
    first = int(tx.ask_now() // rows.BUCKET_S) - rows.BUCKETS
    chosen = select(s.tallies).where(_t.ns == tx.ns).order_by(_t.n).limit(_FOLD_BATCH)
    found = tx.conn.execute(chosen.with_for_update(skip_locked=True)).all()
    sums: dict[tuple[str, int], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in found:
        total = sums[row.queue, row.bucket if row.bucket >= first else 0]
        for name in (*s.COUNTERS, "run_s"):
            total[name] += getattr(row, name)
    if len(sums) < len(found):
        tx.conn.execute(delete(s.tallies).where(_t.n.in_([row.n for row in found])))
        rows.write_tallies(tx.conn, tx.ns, ((q, b, total) for (q, b), total in sums.items()))


def totals(tx: Tx) -> dict[str, dict[str, float]]:
    """Return the sums of all counters by queue, and what came and went in the last minute."""
    now = tx.ask_now()
    first = int(now // rows.BUCKET_S) - rows.BUCKETS
    ended = _t.completed + _t.failed + _t.cancelled
    recent = and_(_t.bucket >= first)
    asked = [func.sum(_t[name]).label(name) for name in s.COUNTERS]
    asked += [
        func.sum(_t.run_s).label("run_s"),
        func.sum(case((recent, _t.enqueued), else_=literal(0))).label("arrivals"),
        func.sum(case((recent, ended), else_=literal(0))).label("served"),
        func.min(_t.bucket).label("first"),
    ]
    answer = tx.conn.execute(select(_t.queue, *asked).where(_t.ns == tx.ns).group_by(_t.queue))
    found = {row.queue: {k: float(v or 0) for k, v in row._mapping.items() if k != "queue"} for row in answer}
    start = min((total["first"] for total in found.values()), default=0.0)
    span = max(1.0, now - max(start, first) * rows.BUCKET_S)
    for total in found.values():
        total["span"] = span
    return found


def counts(tx: Tx) -> list[QueueStatus]:
    """Return the counts of all queues."""
    sums, now, q = totals(tx), tx.ask_now(), s.queues.c
    paused = set(tx.conn.execute(select(q.queue).where(q.ns == tx.ns, q.paused)).scalars())
    live = tx.conn.execute(select(_w.queues).where(_w.ns == tx.ns, _w.until > now, ~_w.gone)).scalars()
    served = [rows.names_of(names) for names in live]
    oldest = _oldest(tx)
    found = []
    for name, config in tx.home.settings.queues.items():
        total = sums.get(name, {})
        exact: dict[str, Any] = {k: int(total.get(k, 0)) for k in _SHOWN}
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


def _oldest(tx: Tx) -> dict[str, float]:
    """Return since when the next job of each queue waits, of the class in which it waits longest."""
    lane = s.lanes.c

    def first(state: int) -> Any:
        mine = _j.ns == lane.ns, s.in_state(state), _j.queue == lane.queue, _j.priority == lane.priority
        return select(_j.ready_at).where(*mine).order_by(_j.tag, _j.seq).limit(1).scalar_subquery()

    oldest: dict[str, float] = {}
    asked = select(lane.queue, first(s.WAITING), first(s.HELD)).where(lane.ns == tx.ns)
    for queue, *times in tx.conn.execute(asked):
        for at in times:
            if at is not None:
                oldest[queue] = min(at, oldest.get(queue, at))
    return oldest


def roster(tx: Tx) -> list[WorkerInfo]:
    """Return the live workers, with how many jobs each runs."""
    live = select(_w.id, _w.queues, _w.slots, _w.lease_s, _w.until, _w.about)
    live = live.where(_w.ns == tx.ns, _w.until > tx.ask_now(), ~_w.gone).order_by(_w.id)
    held = select(_j.worker, func.count()).where(_j.ns == tx.ns, s.in_state(s.ACTIVE)).group_by(_j.worker)
    running = {worker: int(n) for worker, n in tx.conn.execute(held)}
    return [
        WorkerInfo.told(
            rows.facts_of(row.about), id=row.id, queues=sorted(rows.names_of(row.queues)), slots=row.slots,
            running=running.get(row.id, 0), lease_s=row.lease_s, known_until=row.until,
        )
        for row in tx.conn.execute(live)
    ]  # fmt: skip


def load(tx: Tx) -> tuple[int, int, float]:
    """Return live workers, their slots, and the mean run time of recent jobs."""
    live = select(_w.slots).where(_w.ns == tx.ns, _w.until > tx.ask_now(), ~_w.gone)
    slots = tx.conn.execute(live).scalars().all()
    sums = totals(tx).values()
    runs, run_s = sum(one["runs"] for one in sums), sum(one["run_s"] for one in sums)
    return len(slots), sum(slots), run_s / runs if runs else 0.0
