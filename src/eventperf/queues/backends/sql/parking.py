"""Jobs of types that the worker at hand does not know: set aside, so that they hold up nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from eventperf.queues.protocols import WorkerCard

from . import ends, rows
from . import tables as s
from .tx import Tx

_j, _w = s.jobs.c, s.workers.c

_BATCH = 1000

Expired = list[tuple[str, str, str, str]]
"""Jobs (id, type, queue, reason) that went to the dead letter without a run."""


def park(tx: Tx, strange: Sequence[Any]) -> None:
    """Set jobs aside; they go on to count as waiting."""
    if strange:
        seqs = [row.seq for row in strange]
        tx.conn.execute(update(s.jobs).where(_j.seq.in_(seqs)).values(state=s.PARKED, at=tx.now))


def unpark(tx: Tx, card: WorkerCard) -> None:
    """Put the jobs of types that this worker knows back to the head of their classes."""
    if not card.types:
        return
    known = select(s.jobs).where(_j.ns == tx.ns, s.in_state(s.PARKED), _j.type.in_(sorted(card.types)))
    known = known.order_by(_j.type, _j.at).limit(_BATCH).with_for_update(skip_locked=True)
    found = sorted(tx.conn.execute(known), key=lambda row: (row.tag, row.seq))
    tx.ready(found, head=True)
    for row in found:
        tx.tally.add(row.queue, waiting=-1)  # it was counted as waiting all along


def give_up(tx: Tx, card: WorkerCard) -> Expired:
    """Bury the jobs whose type no live worker has known for too long."""
    late = tx.now - tx.home.settings.options.unknown_grace_s
    parked = _j.ns == tx.ns, s.in_state(s.PARKED), _j.at <= late
    if tx.conn.execute(select(_j.seq).where(*parked).limit(1)).first() is None:
        return []
    seen = tx.conn.execute(select(_w.types).where(_w.ns == tx.ns, _w.until > late)).scalars()
    known = {*card.types, *(type_ for types in seen for type_ in rows.names_of(types))}
    asked = select(s.jobs).where(*parked, _j.type.not_in(sorted(known)))
    asked = asked.limit(_BATCH).with_for_update(skip_locked=True)
    found = tx.conn.execute(asked).all()
    for row in found:
        tx.tally.add(row.queue, waiting=-1)
    ends.bury(tx, [(row, f"no live worker knows the job type {row.type!r}", row.attempts) for row in found])
    return [(row.id, row.type, row.queue, "unknown type") for row in found]
