"""Shelves: where jobs stand that a limit holds back, so that no claim reads over them.

A shelf is one class of jobs under one bucket of a limit. A claim that meets a job that may not start puts it
there; it opens the shelves whose time has come, and lets as many back into their class as may start, each at
its place. That time is at once for a new shelf, then when the rate lets the next one through, and at once
again when a job under its cap ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import and_, delete, literal, select, union_all, update

from eventperf.queues.limits import Limit

from . import tables as s
from .tx import Tx

_j, _h, _s = s.jobs.c, s.held.c, s.shelves.c

_BATCH = 1000
_LOOKED_AT = 100  # shelves in one claim
_PARTS = 20  # shelves in one statement

Place = tuple[int, int]
"""A limit, hashed, and the fairness key that it counts, hashed; 0 where it counts all together."""


def scope_of(limit: Limit) -> int:
    """Return the number of a limit."""
    return s.hashed(*limit.scope)


def place_of(limit: Limit, turn: int) -> Place:
    """Return where a limit counts a job of this fairness key."""
    return scope_of(limit), turn if limit.per_key else 0


def put(tx: Tx, found: Sequence[tuple[Any, Place]]) -> None:
    """Set jobs aside, each under the limit that holds it back; they go on to count as waiting."""
    if not found:
        return
    shelf = _shelves(tx, sorted({(place[0], place[1], row.queue, row.priority) for row, place in found}))
    for i in range(0, len(found), _BATCH):
        some = found[i : i + _BATCH]
        tx.conn.execute(update(s.jobs).where(_j.seq.in_([r.seq for r, _ in some])).values(state=s.HELD))
        jobs = [
            {"shelf": shelf[place[0], place[1], row.queue, row.priority], "tag": row.tag, "job_seq": row.seq}
            for row, place in some
        ]
        tx.d.insert_new(tx.conn, s.held, jobs)


def _shelves(tx: Tx, wanted: Sequence[tuple[int, int, str, int]]) -> dict[tuple[int, int, str, int], int]:
    """Return the numbers of shelves; new ones are looked at next."""
    fresh = [
        {"ns": tx.ns, "scope": scope, "turn": turn, "queue": queue, "priority": priority, "at": 0.0}
        for scope, turn, queue, priority in wanted
    ]
    tx.d.insert_new(tx.conn, s.shelves, fresh)
    found = dict[tuple[int, int, str, int], int]()
    for mine in _of(tx, [(scope, turn) for scope, turn, _, _ in wanted]):
        for row in tx.conn.execute(select(s.shelves).where(mine)):
            found[row.scope, row.turn, row.queue, row.priority] = row.n
    return found


def take_down(tx: Tx, found: Iterable[Any]) -> None:
    """Forget the places of held jobs that go elsewhere."""
    seqs = [row.seq for row in found if row.state == s.HELD]
    for i in range(0, len(seqs), _BATCH):
        tx.conn.execute(delete(s.held).where(_h.job_seq.in_(seqs[i : i + _BATCH])))


def give_back(tx: Tx) -> None:
    """Have the shelves looked at whose caps have room since jobs ended, and wake their queues.

    A claim that met the cap at the same moment has not committed its shelf: that is new, and looked at next.
    """
    if not (tx.freed and tx.home.caps.limits):
        return
    places, woken = set[Place](), set[str]()
    for queue, type_, turn in {(row.queue, row.type, row.turn) for row in tx.freed}:
        for limit in tx.home.caps.matching(queue, type_, str(turn or "")):
            places.add(place_of(limit, turn))
            woken.update(tx.home.settings.queues if limit.queue is None else (limit.queue,))
    for mine in _of(tx, places):
        # All of them: a claim that counted before may be putting off one that is due.
        asked = select(_s.n, _s.at).where(mine).order_by(_s.n).with_for_update()
        if full := [row.n for row in tx.conn.execute(asked) if row.at > 0]:
            tx.conn.execute(update(s.shelves).where(_s.n.in_(full)).values(at=0.0))
    for queue in woken:
        tx.tally.add(queue, woke=1)


def _of(tx: Tx, places: Iterable[Place]) -> Iterator[Any]:
    """Return conditions that together find the shelves of some places."""
    turns: dict[int, set[int]] = {}
    for scope, turn in places:
        turns.setdefault(scope, set()).add(turn)
    for scope, some in sorted(turns.items()):
        ordered = sorted(some)
        for i in range(0, len(ordered), _BATCH):
            yield and_(_s.ns == tx.ns, _s.scope == scope, _s.turn.in_(ordered[i : i + _BATCH]))


def due(tx: Tx, queues: Sequence[str]) -> Sequence[Any]:
    """Lock the shelves of some queues that may be open by now and that nobody else is looking at."""
    asked = select(s.shelves).where(_s.ns == tx.ns, _s.queue.in_(queues), _s.at <= tx.now)
    return tx.conn.execute(asked.limit(_LOOKED_AT).with_for_update(skip_locked=True)).all()


def next_at(tx: Tx) -> float | None:
    """Return when the next shelf may open."""
    asked = select(_s.at).where(_s.ns == tx.ns, _s.at > tx.now).order_by(_s.at).limit(1)
    return tx.conn.execute(asked).scalar()


def look_later(tx: Tx, found: Sequence[tuple[Any, float]]) -> None:
    """Say when shelves that are not open are looked at again."""
    by_time: dict[float, list[int]] = {}
    for row, at in found:
        by_time.setdefault(at, []).append(row.n)
    for at, shelves in by_time.items():
        tx.conn.execute(update(s.shelves).where(_s.n.in_(shelves)).values(at=at))


def open_up(tx: Tx, found: Sequence[tuple[Any, int]]) -> None:
    """Let the first jobs of shelves back into their classes, so many of each."""
    for i in range(0, len(found), _PARTS):
        _open(tx, found[i : i + _PARTS])


def _open(tx: Tx, found: Sequence[tuple[Any, int]]) -> None:
    parts = []
    for n, (row, most) in enumerate(found):
        first = select(_h.job_seq).where(_h.shelf == row.n).order_by(_h.tag, _h.job_seq).limit(most)
        parts.append(select(literal(n).label("n"), first.subquery().c.job_seq))
    by_shelf: list[list[int]] = [[] for _ in found]
    for n, seq in tx.conn.execute(union_all(*parts)):
        by_shelf[n].append(seq)
    seqs = [seq for some in by_shelf for seq in some]
    empty = [row.n for (row, most), some in zip(found, by_shelf, strict=True) if len(some) < most]
    for i in range(0, len(seqs), _BATCH):
        _let_go(tx, seqs[i : i + _BATCH])
    if empty:
        tx.conn.execute(delete(s.shelves).where(_s.n.in_(empty)))


def _let_go(tx: Tx, seqs: Sequence[int]) -> None:
    mine = select(_j.seq).where(_j.seq.in_(seqs), s.in_state(s.HELD))
    here = set(tx.conn.execute(mine.with_for_update(skip_locked=True)).scalars())
    if missing := [seq for seq in seqs if seq not in here]:  # being cancelled, or gone
        still = tx.conn.execute(select(_j.seq).where(_j.seq.in_(missing), s.in_state(s.HELD))).scalars()
        here.update(set(missing).difference(still))
    if here:
        tx.conn.execute(delete(s.held).where(_h.job_seq.in_(sorted(here))))
        back = update(s.jobs).where(_j.seq.in_(sorted(here)), s.in_state(s.HELD))
        tx.conn.execute(back.values(state=s.WAITING))
