"""Schedules: one row each remembers the last slot that has fired, so that each slot fires once."""

from __future__ import annotations

from sqlalchemy import select, update

from eventperf.queues.job import NewJob

from . import arrivals
from . import tables as s
from .tx import Tx


def fire(tx: Tx, name: str, slot: float, job: NewJob, late: bool) -> bool:
    """Push a job for a slot unless the schedule has fired for it or a later one."""
    t = s.schedules.c
    mine = (t.ns == tx.ns) & (t.name == name)
    keys = {"ns": tx.ns, "name": name}
    tx.d.upsert(tx.conn, s.schedules, keys, {"asked_at": tx.ask_now()})  # the row is ours now
    last = tx.conn.execute(select(t.slot).where(mine).with_for_update()).scalar_one()
    if last >= slot:
        return False
    tx.conn.execute(update(s.schedules).where(mine).values(slot=slot))
    if late and last < 0:  # a new schedule owes nothing of the time before it
        return False
    arrivals.push(tx, [job])
    return True
