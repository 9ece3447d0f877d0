"""Jobs that wait for others. One row of the links table for each pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, exists, insert, select

from eventperf.queues.errors import NONE_FAILED, unknown_parent
from eventperf.queues.job import NewJob

from . import tables as s
from .rows import flow_of
from .tx import Tx

_j, _l = s.jobs.c, s.links.c

DOOMED = "a job it waits for was cancelled"
BATCH = 1000


def hold(tx: Tx, fresh: Sequence[dict[str, Any]], jobs: Mapping[str, NewJob]) -> dict[str, list[str]]:
    """Delay the newcomers that wait for jobs; return for each those it waits for, none when it is doomed.

    Parents are locked until this transaction ends, so that none of them ends before its link is there.

    Raises:
        ConfigurationError: A parent that is neither here nor among the newcomers.
    """
    flows = {row["id"]: flow for row in fresh if (flow := jobs[row["id"]].record.flow) is not None}
    if not flows:
        return {}
    inside = {row["id"] for row in fresh}
    outside = sorted({parent for flow in flows.values() for parent in flow["after"]} - inside)
    states = _states(tx, outside)
    for parent in outside:
        if parent not in states:
            raise unknown_parent(parent)
    waits: dict[str, list[str]] = {}
    for row in fresh:
        if (flow := flows.get(row["id"])) is None:
            continue
        parents, doomed = list[str](), False
        for parent in dict.fromkeys(flow["after"]):
            state = states.get(parent, s.WAITING)
            if parent in waits and not waits[parent]:
                state = s.CANCELLED
            if state == s.COMPLETED or (flow["when"] != "success" and state in (s.FAILED, s.CANCELLED)):
                continue
            doomed = doomed or state == s.CANCELLED
            parents.append(parent)
        failed = any(states.get(parent) == s.FAILED for parent in flow["after"])
        doomed = doomed or (flow["when"] == "failure" and not parents and not failed)
        if parents or doomed:
            row["state"], row["at"] = s.DELAYED, s.NEVER
            waits[row["id"]] = [] if doomed else parents
    return waits


def _states(tx: Tx, parents: Sequence[str]) -> dict[str, int]:
    states: dict[str, int] = {}
    for i in range(0, len(parents), BATCH):
        asked = select(_j.id, _j.state).where(_j.ns == tx.ns, _j.id.in_(parents[i : i + BATCH]))
        states |= {row.id: row.state for row in tx.conn.execute(asked.with_for_update(read=True))}
    return states


def link(tx: Tx, waits: Mapping[str, Sequence[str]], jobs: Mapping[str, NewJob]) -> Sequence[Any]:
    """Write down who waits for whom; return the jobs that wait in vain."""
    made = [
        {"ns": tx.ns, "parent_id": parent, "child_id": child, "ended": _ended(jobs[child])}
        for child, parents in waits.items()
        for parent in parents
    ]
    if made:
        tx.conn.execute(insert(s.links), made)
    doomed = [child for child, parents in waits.items() if not parents]
    if not doomed:
        return []
    return tx.conn.execute(select(s.jobs).where(_j.ns == tx.ns, _j.id.in_(doomed))).all()


def remember(tx: Tx, inserted: Iterable[str], jobs: Mapping[str, NewJob]) -> None:
    """Write down whose children the newcomers are, those of jobs that have ended too."""
    made = [
        {"ns": s.kin(tx.ns), "parent_id": parent, "child_id": child, "ended": _ended(jobs[child])}
        for child in sorted(inserted)
        if (flow := jobs[child].record.flow) is not None
        for parent in dict.fromkeys(flow["after"])
    ]
    if made:
        tx.d.insert_new(tx.conn, s.links, made)


def children(tx: Tx, job_id: str, limit: int) -> list[str]:
    """Return ids of jobs that wait or waited for one; those of older releases while they wait."""
    mine = _l.ns.in_([tx.ns, s.kin(tx.ns)]), _l.parent_id == job_id
    return list(tx.conn.execute(select(_l.child_id).where(*mine).distinct().limit(limit)).scalars())


def disown(tx: Tx, ids: Sequence[str]) -> None:
    """Forget whose parents these were."""
    mine = _l.ns == s.kin(tx.ns)
    if tx.conn.execute(select(_l.parent_id).where(mine).limit(1)).first() is not None:
        tx.conn.execute(delete(s.links).where(mine, _l.parent_id.in_(ids)))


def _ended(new: NewJob) -> bool:
    return bool((new.record.flow or {})["when"] != "success")


def after(tx: Tx, parents: Sequence[Any], state: int, *, forgotten: bool = False) -> list[tuple[Any, str]]:
    """Free the jobs that waited for these, which have just ended; return those that wait in vain, and why.

    Args:
        state: How the parents ended.
        forgotten: Whether nobody can put them back any more.
    """
    doomed: list[tuple[Any, str]] = []
    for i in range(0, len(parents), BATCH):
        doomed += _after(tx, [row.id for row in parents[i : i + BATCH]], state, forgotten)
    return doomed


def _after(tx: Tx, ids: Sequence[str], state: int, forgotten: bool) -> list[tuple[Any, str]]:
    mine = select(_l.parent_id, _l.child_id, _l.ended).where(_l.ns == tx.ns, _l.parent_id.in_(ids))
    links = tx.conn.execute(mine).all()
    if not links:
        return []
    # Whoever ends another of their parents waits here, and sees what is left when it goes on.
    children = {link.child_id for link in links}
    waiting = select(s.jobs).where(_j.ns == tx.ns, _j.id.in_(children), s.in_state(s.DELAYED))
    held = {row.id: row for row in tx.conn.execute(waiting.order_by(_j.seq).with_for_update())}
    freed, doomed = set[str](), dict[str, str]()
    for row in links:
        if state == s.COMPLETED or row.ended:
            freed.add(row.child_id)
        elif state == s.CANCELLED or forgotten:
            doomed.setdefault(row.child_id, row.parent_id)
    in_vain = list[Any]()
    if freed:
        mine_ = [row for job_id, row in held.items() if job_id not in doomed]
        in_vain = _free(tx, ids, freed, mine_, state)
    return [
        (held[child], f"job {parent}, which it waited for, was cancelled")
        for child, parent in sorted(doomed.items())
        if child in held
    ] + [(row, NONE_FAILED) for row in in_vain]


def _free(tx: Tx, parents: Sequence[str], freed: set[str], held: Sequence[Any], state: int) -> list[Any]:
    """Let those go that wait for none any more; return those that waited for a failure which never came."""
    done = [_l.ns == tx.ns, _l.parent_id.in_(parents)]
    if state != s.COMPLETED:
        done.append(_l.ended)
    tx.conn.execute(delete(s.links).where(*done))
    others = exists().where(_l.ns == _j.ns, _l.child_id == _j.id)
    left = set(tx.conn.execute(select(_j.id).where(_j.ns == tx.ns, _j.id.in_(freed), others)).scalars())
    ready = [row for row in held if row.id in freed and row.id not in left]
    in_vain = _in_vain(tx, ready)
    ready = [row for row in ready if row not in in_vain]
    for row in ready:
        tx.tally.add(row.queue, delayed=-1)
    tx.ready(ready)
    return in_vain


def _in_vain(tx: Tx, ready: Sequence[Any]) -> list[Any]:
    flows = {row.id: flow for row in ready if (flow := flow_of(row)).get("when") == "failure"}
    if not flows:
        return []
    parents = sorted({parent for flow in flows.values() for parent in flow["after"]})
    failed = {parent for parent, state in _states(tx, parents).items() if state == s.FAILED}
    return [row for row in ready if row.id in flows and failed.isdisjoint(flows[row.id]["after"])]


def below(tx: Tx, tops: Sequence[Any]) -> list[Any]:
    """Return the jobs that wait, by way of any number of others, for the success of these.

    One recursive question, for chains of any length; the rows (a part of their columns) are locked.
    """
    tx.d.allow_depth(tx.conn)
    ids = list[str]()
    for i in range(0, len(tops), BATCH):
        first = [row.id for row in tops[i : i + BATCH]]
        fallen = (
            select(_l.child_id.label("id"))
            .where(_l.ns == tx.ns, _l.parent_id.in_(first), _l.ended.is_(False))
            .cte("fallen", recursive=True)
        )
        more = select(_l.child_id).where(_l.ns == tx.ns, _l.parent_id == fallen.c.id, _l.ended.is_(False))
        ids += tx.conn.execute(select(fallen.union(more).c.id)).scalars()
    known = {row.id for row in tops}
    ids = [job_id for job_id in dict.fromkeys(ids) if job_id not in known]
    found = list[Any]()
    for i in range(0, len(ids), BATCH):
        rows = select(_j.seq, _j.id, _j.queue, _j.type, _j.held_key, _j.held_for).where(
            _j.ns == tx.ns, _j.id.in_(ids[i : i + BATCH]), s.in_state(s.DELAYED)
        )
        found += tx.conn.execute(rows.order_by(_j.seq).with_for_update()).all()
    return found


def forget(tx: Tx, children: Sequence[Any]) -> None:
    """Drop the links of jobs that wait no longer."""
    ids = [row.id for row in children]
    for i in range(0, len(ids), BATCH):
        tx.conn.execute(delete(s.links).where(_l.ns == tx.ns, _l.child_id.in_(ids[i : i + BATCH])))
