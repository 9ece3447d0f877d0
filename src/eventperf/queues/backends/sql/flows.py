"""The SQL job store: jobs that wait for others. One row of the links table for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, insert, select

from eventperf.queues.job import NewJob

from . import schema as s

if TYPE_CHECKING:
    from .base import Step

_j, _l = s.jobs.c, s.links.c

_DOOMED = "a job it waits for was cancelled"
_BATCH = 1000


def hold(step: Step, fresh: Sequence[dict[str, Any]], jobs: Mapping[str, NewJob]) -> dict[str, list[str]]:
    """Delay the newcomers that wait for jobs; return for each those it waits for, none when it is doomed.

    Parents are locked until this transaction ends, so that none of them ends before its link is there.
    """
    flows = {row["id"]: flow for row in fresh if (flow := jobs[row["id"]].record.flow) is not None}
    if not flows:
        return {}
    inside = {row["id"] for row in fresh}
    outside = sorted({parent for flow in flows.values() for parent in flow["after"]} - inside)
    states: dict[str, int] = {}
    for i in range(0, len(outside), _BATCH):
        asked = select(_j.id, _j.state).where(_j.ns == step.ns, _j.id.in_(outside[i : i + _BATCH]))
        states |= {row.id: row.state for row in step.conn.execute(asked.with_for_update(read=True))}
    waits: dict[str, list[str]] = {}
    for row in fresh:
        if (flow := flows.get(row["id"])) is None:
            continue
        parents, doomed = list[str](), False
        for parent in dict.fromkeys(flow["after"]):
            state = states.get(parent, s.COMPLETED if parent not in inside else s.WAITING)
            if parent in waits and not waits[parent]:
                state = s.CANCELLED
            if state == s.COMPLETED or (flow["when"] == "ended" and state in (s.FAILED, s.CANCELLED)):
                continue
            doomed = doomed or state == s.CANCELLED
            parents.append(parent)
        if parents:
            row["state"], row["at"] = s.DELAYED, s.NEVER
            waits[row["id"]] = [] if doomed else parents
    return waits


def link(step: Step, waits: Mapping[str, Sequence[str]], jobs: Mapping[str, NewJob]) -> None:
    """Write down who waits for whom, and cancel those that wait in vain."""
    made = [
        {"ns": step.ns, "parent_id": parent, "child_id": child, "ended": _ended(jobs[child])}
        for child, parents in waits.items()
        for parent in parents
    ]
    if made:
        step.conn.execute(insert(s.links), made)
    if doomed := [child for child, parents in waits.items() if not parents]:
        found = step.conn.execute(select(s.jobs).where(_j.ns == step.ns, _j.id.in_(doomed))).all()
        _cancel(step, found, _DOOMED)


def _ended(new: NewJob) -> bool:
    return bool((new.record.flow or {})["when"] == "ended")


def follow(step: Step, parents: Sequence[Any], state: int, *, forgotten: bool = False) -> None:
    """Free, keep or cancel the jobs that wait for jobs that have ended just now."""
    if not parents:
        return
    ids = [row.id for row in parents]
    asked = select(_l.child_id).where(_l.ns == step.ns, _l.parent_id.in_(ids)).distinct()
    children = list(step.conn.execute(asked).scalars())
    if not children:
        return
    # Whoever ends another of their parents waits here, and sees what is left when it goes on.
    waiting = select(s.jobs).where(_j.ns == step.ns, _j.id.in_(children), _j.state == s.DELAYED)
    held = {row.id: row for row in step.conn.execute(waiting.order_by(_j.seq).with_for_update())}
    mine = select(_l.parent_id, _l.child_id, _l.ended).where(_l.ns == step.ns, _l.parent_id.in_(ids))
    freed, doomed = set[str](), dict[str, str]()
    for row in step.conn.execute(mine):
        if state == s.COMPLETED or row.ended:
            freed.add(row.child_id)
        elif state == s.CANCELLED or forgotten:
            doomed.setdefault(row.child_id, row.parent_id)
    done = [_l.ns == step.ns, _l.parent_id.in_(ids)]
    if freed:
        if state != s.COMPLETED:
            done.append(_l.ended)
        step.conn.execute(delete(s.links).where(*done))
        others = exists().where(_l.ns == _j.ns, _l.child_id == _j.id)
        left = select(_j.id).where(_j.ns == step.ns, _j.id.in_(freed), others)
        freed -= set(step.conn.execute(left).scalars())
        ready = [row for job_id, row in held.items() if job_id in freed and job_id not in doomed]
        for row in ready:
            step.tally.add(row.queue, delayed=-1)
        step.ready(ready)
    for child, parent in sorted(doomed.items()):
        if child in held:
            _cancel(step, [held[child]], f"job {parent}, which it waited for, was cancelled")


def _cancel(step: Step, found: Sequence[Any], why: str) -> None:
    if found:
        forget(step, found)
        for row in found:
            step.tally.add(row.queue, delayed=-1)
        step.end_jobs(found, s.CANCELLED, error=why)


def forget(step: Step, children: Sequence[Any]) -> None:
    """Drop the links of jobs that wait no longer."""
    if ids := [row.id for row in children]:
        step.conn.execute(delete(s.links).where(_l.ns == step.ns, _l.child_id.in_(ids)))
