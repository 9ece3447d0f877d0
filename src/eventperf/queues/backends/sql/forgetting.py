"""What is deleted in time: ended jobs, free unique keys, workers that are long gone."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import delete, select, update

from . import ends
from . import tables as s
from .tx import Tx

_j, _u, _w = s.jobs.c, s.unique.c, s.workers.c

_BATCH = 1000
_MOST = 5 * _BATCH
_LISTED_S = 60.0  # how long a job that is still listed is left alone
_FORGET_WORKER_S = 86_400.0


def first_listed(tx: Tx, queue: str) -> float | None:
    """Return when the oldest completed job was finished that is still listed."""
    keep = tx.home.settings.queues[queue].keep_completed
    if not keep:
        return None
    ended = select(_j.finished_at).where(_j.ns == tx.ns, s.in_state(s.COMPLETED), _j.queue == queue)
    found = tx.conn.execute(ended.order_by(_j.finished_at.desc()).offset(keep - 1).limit(1)).scalar()
    return 0.0 if found is None else float(found)


def forget(tx: Tx) -> bool:
    """Delete what is over; true when there may be more."""
    found = _over(tx, s.CANCELLED)
    over = list(found)
    done = _over(tx, s.COMPLETED)
    by_queue: dict[str, list[Any]] = defaultdict(list)
    for row in done:
        by_queue[row.queue].append(row)
    listed: list[int] = []
    for queue, ended in by_queue.items():
        first = first_listed(tx, queue) if queue in tx.home.settings.queues else None
        for row in ended:
            if first is None or row.finished_at < first:
                over.append(row)
            else:
                listed.append(row.seq)
    ends.delete_jobs(tx, over)
    for i in range(0, len(listed), _BATCH):  # a look at each of them every time would cost what they are many
        some = update(s.jobs).where(_j.seq.in_(listed[i : i + _BATCH]))
        tx.conn.execute(some.values(at=tx.now + _LISTED_S))
    tx.conn.execute(delete(s.unique).where(_u.ns == tx.ns, _u.until <= tx.now))
    if spans := [limit.per_s for limit in tx.home.settings.options.limits if limit.rate is not None]:
        mine = s.starts.c.ns == tx.ns, s.starts.c.at < tx.now - max(spans)
        tx.conn.execute(delete(s.starts).where(*mine))  # of limits whose queues have no work any more
    gone = tx.now - _FORGET_WORKER_S - tx.home.settings.options.unknown_grace_s
    tx.conn.execute(delete(s.workers).where(_w.ns == tx.ns, _w.until < gone))
    return max(len(found), len(done)) >= _MOST


def _over(tx: Tx, state: int) -> list[Any]:
    """Lock ended jobs whose time has passed, the oldest first."""
    asked = select(_j.seq, _j.id, _j.queue, _j.finished_at).where(
        _j.ns == tx.ns, s.in_state(state), _j.at <= tx.now
    )
    return list(tx.conn.execute(asked.order_by(_j.at).limit(_MOST).with_for_update(skip_locked=True)))
