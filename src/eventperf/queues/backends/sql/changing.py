"""Changing a job that has not begun."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select, update

from eventperf._core.objects import read_json
from eventperf.queues.errors import timed_follower
from eventperf.queues.job import JobState
from eventperf.queues.protocols import Change

from . import rows, shelves
from . import tables as s
from .tx import Tx

_j = s.jobs.c


def change(tx: Tx, job_id: str, wanted: Change) -> JobState | None:
    """Change a job that waits or is delayed; return the state it was found in."""
    mine = select(s.jobs).where(_j.ns == tx.ns, _j.id == job_id)
    row = tx.conn.execute(mine.with_for_update()).first()
    if row is None:
        return None
    tx.ask_now()
    state = rows.STATES[row.state]
    if state not in (JobState.WAITING, JobState.DELAYED):
        return state
    if row.state == s.DELAYED and row.at == s.NEVER and wanted.delay_s is not None:
        raise timed_follower(wanted.delay_s)
    values: dict[str, Any] = {}
    if wanted.payload is not None:
        values["payload"] = wanted.payload
        if wanted.version is not None:
            values["facts"] = _of_version(row.facts, wanted.version)
    if wanted.queue is not None:
        values["queue"] = wanted.queue
    if wanted.priority is not None:
        values["priority"] = wanted.priority
    waits = row.state != s.DELAYED if wanted.delay_s is None else wanted.delay_s <= 0
    if not waits and wanted.delay_s is not None:
        values |= {"state": s.DELAYED, "at": tx.now + wanted.delay_s}
    if values:
        tx.conn.execute(update(s.jobs).where(_j.seq == row.seq).values(**values))
    if wanted.delay_s is not None or wanted.queue is not None or wanted.priority is not None:
        _move(tx, row, tx.conn.execute(mine).one(), waits)
    return state


def _move(tx: Tx, before: Any, after: Any, waits: bool) -> None:
    """Count a job where it is now, and give it its place there."""
    shelves.take_down(tx, [before])
    tx.tally.add(before.queue, **{"delayed" if before.state == s.DELAYED else "waiting": -1}, enqueued=-1)
    tx.tally.add(after.queue, enqueued=1, woke=1)
    if waits:
        tx.ready([after])
    else:
        tx.tally.add(after.queue, delayed=1)


def _of_version(facts: str | None, version: int) -> str | None:
    found = read_json(facts) if facts else {}
    found.pop("version", None)
    if version != 1:
        found["version"] = version
    return json.dumps(found, separators=(",", ":")) if found else None
