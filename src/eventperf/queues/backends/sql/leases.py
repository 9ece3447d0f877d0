"""Who holds what for how long: workers come and go, renew, and lose what they no longer keep.

A lease ends by itself only when its worker has not been heard of for as long. While a worker renews, its
jobs are its own, however slow the database answers: a lease found run out is moved to the end of what the
worker's last renewal promises. What a living worker does not hold goes back without counting as a crash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from eventperf.queues.attempts import CRASHED
from eventperf.queues.protocols import Renewed, Stalled, WorkerCard

from . import ends
from . import tables as s
from .rows import longer, run_of
from .tx import Tx

_j, _w = s.jobs.c, s.workers.c

_BATCH = 1000
_KNOWN_FOR = 3  # leases that a worker stays known after its last renewal
_ANSWERED_WITHIN_S = 15.0  # beyond two leases: by then the answer to a claim has arrived, or never will


def enter(tx: Tx, card: WorkerCard, held: Sequence[str]) -> None:
    """Make a worker known; what it holds only here goes back to the head of its class."""
    alive(tx, card)
    tx.d.insert_new(tx.conn, s.queues, [{"ns": tx.ns, "queue": name} for name in sorted(card.room_by_queue)])
    lost = select(s.jobs).where(_j.ns == tx.ns, s.in_state(s.ACTIVE), _j.worker == card.id)
    found = tx.conn.execute(lost.order_by(_j.seq).with_for_update()).all()
    known = set(held)
    back = [row for row in found if row.id not in known]
    for row in back:
        tx.free(row)
    tx.ready(back, head=True)


def alive(tx: Tx, card: WorkerCard) -> None:
    """Write down that a worker was heard of now."""
    facts = {
        "queues": json.dumps(sorted(card.room_by_queue)), "types": json.dumps(sorted(card.types)),
        "slots": card.slots, "lease_s": card.lease_s, "until": tx.ask_now() + _KNOWN_FOR * card.lease_s,
        "gone": False, "about": json.dumps(dict(card.about)) if card.about else None,
    }  # fmt: skip
    tx.d.upsert(tx.conn, s.workers, {"ns": tx.ns, "id": card.id}, facts)


def sign_of_life(tx: Tx, card: WorkerCard) -> None:
    """Count a claim as a sign of life, where a busy machine holds renewals up; never wait for one."""
    mine = select(_w.id).where(_w.ns == tx.ns, _w.id == card.id).with_for_update(skip_locked=True)
    if tx.conn.execute(mine).first() is not None:
        until = tx.now + _KNOWN_FOR * card.lease_s
        tx.conn.execute(update(s.workers).where(_w.ns == tx.ns, _w.id == card.id).values(until=until))


def leave(tx: Tx, worker: str) -> None:
    """Forget a worker."""
    tx.conn.execute(update(s.workers).where(_w.ns == tx.ns, _w.id == worker).values(gone=True))


def renew(tx: Tx, card: WorkerCard, held: Sequence[tuple[str, int]]) -> Renewed:
    """Extend leases, without a wait for rows that somebody is at.

    A row that is locked is being finished, noted or cancelled at this moment. It cannot be taken from its
    worker meanwhile, and the next renewal finds it or its end.
    """
    alive(tx, card)
    answer, tokens = Renewed(), dict(held)
    for i in range(0, len(held), _BATCH):
        ids = [job_id for job_id, _ in held[i : i + _BATCH]]
        asked = select(_j.seq, _j.id, _j.token, _j.cancel)
        asked = asked.where(_j.ns == tx.ns, _j.id.in_(ids), s.in_state(s.ACTIVE))
        found = tx.conn.execute(asked.order_by(_j.seq).with_for_update(skip_locked=True)).all()
        mine = [row for row in found if tokens[row.id] == row.token]
        if mine:
            until = tx.now + card.lease_s
            tx.conn.execute(update(s.jobs).where(_j.seq.in_([row.seq for row in mine])).values(at=until))
        answer.cancel += [row.id for row in mine if row.cancel]
        seen = {row.id for row in mine}
        answer.lost += _lost(tx, [(job_id, tokens[job_id]) for job_id in ids if job_id not in seen])
    _give_back(tx, card, tokens)
    return answer


def _lost(tx: Tx, held: Sequence[tuple[str, int]]) -> list[str]:
    """Return those that are not held any more; the others are only locked."""
    if not held:
        return []
    asked = select(_j.id, _j.token).where(_j.ns == tx.ns, _j.id.in_([one for one, _ in held]))
    locked = {(row.id, row.token) for row in tx.conn.execute(asked.where(s.in_state(s.ACTIVE)))}
    return [job_id for job_id, token in held if (job_id, token) not in locked]


def _give_back(tx: Tx, card: WorkerCard, tokens: dict[str, int]) -> None:
    """Hand on what this worker was given and does not know of: the answer to a claim never reached it."""
    asked = select(_j.seq, _j.id, _j.token).where(_j.ns == tx.ns, s.in_state(s.ACTIVE), _j.worker == card.id)
    long_ago = tx.now - 2 * card.lease_s - _ANSWERED_WITHIN_S
    given = tx.conn.execute(asked.where(_j.started_at <= long_ago)).all()
    if unknown := [row.seq for row in given if tokens.get(row.id) != row.token]:
        mine = select(s.jobs).where(_j.seq.in_(unknown[:_BATCH]), s.in_state(s.ACTIVE), _j.worker == card.id)
        lapse(tx, tx.conn.execute(mine.order_by(_j.seq).with_for_update(skip_locked=True)).all())


def lapse(tx: Tx, found: Sequence[Any]) -> None:
    """Put jobs back that their worker no longer has though it lives, without counting a crash."""
    for row in found:
        tx.free(row, lapsed=1)
    ends.end(tx, [row for row in found if row.cancel], s.CANCELLED)
    tx.ready([row for row in found if not row.cancel], head=True)


def reap(tx: Tx, card: WorkerCard) -> list[Stalled]:
    """Take back what dead workers held; the one that asks is none of them."""
    asked = select(s.jobs).where(_j.ns == tx.ns, s.in_state(s.ACTIVE), s.is_due(tx.now))
    found = tx.conn.execute(
        asked.order_by(_j.at, _j.seq).limit(_BATCH).with_for_update(skip_locked=True)
    ).all()
    if not found:
        return []
    kept, left = _promised(tx, {row.worker for row in found} - {card.id})
    kept[card.id] = tx.now + card.lease_s
    gone, orphans = list[Any](), list[Any]()
    for row in found:
        if row.worker in kept:
            continue
        (gone if row.worker in left else orphans).append(row)
    for worker, until in kept.items():
        if seqs := [row.seq for row in found if row.worker == worker]:
            tx.conn.execute(update(s.jobs).where(_j.seq.in_(seqs)).values(at=until))
    lapse(tx, gone)
    stalled = [Stalled(row.id, row.type, row.queue, row.crashes, False) for row in gone]
    return stalled + _crashed(tx, orphans)


def _promised(tx: Tx, workers: Iterable[str]) -> tuple[dict[str, float], set[str]]:
    """Return until when the last renewal of living workers reaches, and which have said good-bye."""
    asked = select(_w.id, _w.until, _w.lease_s, _w.gone).where(_w.ns == tx.ns, _w.id.in_(sorted(workers)))
    kept, left = dict[str, float](), set[str]()
    for row in tx.conn.execute(asked):
        until = row.until - (_KNOWN_FOR - 1) * row.lease_s
        if row.gone:
            left.add(row.id)
        elif until > tx.now:
            kept[row.id] = until
    return kept, left


def _crashed(tx: Tx, found: Sequence[Any]) -> list[Stalled]:
    """Put orphans back, or bury those whose workers have died too often."""
    if not found:
        return []
    limit = tx.home.settings.options.max_crashes
    seqs = [row.seq for row in found]
    tx.conn.execute(update(s.jobs).where(_j.seq.in_(seqs)).values(crashes=_j.crashes + 1))
    lost = [(row, run_of(row, "crashed", tx.now - row.started_at, CRASHED, None, None)) for row in found]
    write = update(s.jobs).where(_j.seq == bindparam("b_seq")).values(history=bindparam("b_history"))
    tx.conn.execute(write, [{"b_seq": row.seq, "b_history": longer(row.history, run)} for row, run in lost])
    for row in found:
        tx.free(row, stalled=1)
        tx.runs.append((tx.now, row.queue, row.type, "crashed", None, None))
    ends.end(tx, [row for row in found if row.cancel], s.CANCELLED)
    alive_ = [row for row in found if not row.cancel]
    dead = [row for row in alive_ if row.crashes + 1 >= limit]
    ends.bury(
        tx, [(row, f"its worker died {row.crashes + 1} times while running it", row.attempts) for row in dead]
    )
    tx.ready([row for row in alive_ if row.crashes + 1 < limit], head=True)
    return [Stalled(row.id, row.type, row.queue, row.crashes + 1, row.crashes + 1 >= limit) for row in found]
