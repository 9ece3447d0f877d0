"""Jobs that come in: their unique keys, their places, the jobs they wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select

from eventperf.queues.job import NewJob

from . import ends, flows, rows
from . import tables as s
from .tx import Tx

FOR_EVER = 1e300


def push(tx: Tx, jobs: Sequence[NewJob]) -> list[str]:
    """Insert jobs; return for each its own id or that of the holder of its unique key."""
    if not jobs:
        return []
    now = tx.ask_now()
    made = [rows.row_of(new, tx.ns, now) for new in jobs]
    answer = [row["id"] for row in made]
    keyed = sorted((i for i, row in enumerate(made) if row["held_key"]), key=lambda i: made[i]["held_key"])
    for i in keyed:
        unique_for = jobs[i].record.unique_for
        until = FOR_EVER if isinstance(unique_for, str) else now + unique_for
        row = {"ns": tx.ns, "held_key": made[i]["held_key"], "job_id": answer[i], "until": until}
        answer[i] = tx.d.take_key(tx.conn, row, now)
    mine = {row["id"]: row for row, job_id in zip(made, answer, strict=True) if row["id"] == job_id}
    if mine:
        _insert(tx, list(mine.values()), {new.record.id: new for new in jobs})
    return answer


def _tag(tx: Tx, tags: Mapping[str, Sequence[str]]) -> None:
    """Write down by which words jobs are found."""
    j = s.jobs.c
    seqs = tx.conn.execute(select(j.seq, j.id).where(j.ns == tx.ns, j.id.in_(sorted(tags)))).all()
    made = [{"ns": tx.ns, "tag": tag, "job_seq": row.seq} for row in seqs for tag in tags[row.id]]
    tx.conn.execute(insert(s.tags), made)


def _insert(tx: Tx, fresh: list[dict[str, Any]], jobs: Mapping[str, NewJob]) -> None:
    waits = flows.hold(tx, fresh, jobs)
    waiting = [row for row in fresh if row["state"] == s.WAITING]
    tags = tx.tail_tags([(row["queue"], row["priority"], row["turn"]) for row in waiting])
    for row, tag in zip(waiting, tags, strict=True):
        row["tag"] = tag
    tx.lanes({(row["queue"], row["priority"]) for row in fresh})
    inserted = tx.d.insert_jobs(tx.conn, fresh)
    tagged = {i: words for i in inserted if (words := jobs[i].record.tags)}
    if tagged:
        _tag(tx, tagged)
    for row in fresh:
        if row["id"] in inserted:
            due = row["state"] == s.DELAYED
            tx.tally.add(row["queue"], enqueued=1, delayed=int(due), waiting=int(not due), woke=1)
    flows.remember(tx, inserted, jobs)
    if waits:
        in_vain = flows.link(tx, {child: found for child, found in waits.items() if child in inserted}, jobs)
        ends.doom(tx, in_vain, flows.DOOMED)
