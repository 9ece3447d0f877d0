"""Shelves: where jobs stand that a limit holds back, so that no claim reads over them.

A shelf is one class of jobs under one bucket of a limit. A claim that meets a job that may not start puts it
there; it opens the shelves whose time has come, and lets as many back into their class as may start, each at
its place. That time is at once for a new shelf, then when the rate lets the next one through, and at once
again when a job under its cap ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, literal, or_, select, union_all, update

from eventperf.queues.limits import Limit

from . import tables as s

if TYPE_CHECKING:
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
    for i in range(0, len(found), _BATCH):
        some = found[i : i + _BATCH]
        tx.conn.execute(update(s.jobs).where(_j.seq.in_([r.seq for r, _ in some])).values(state=s.HELD))
        jobs = [{**_shelf(tx, row, place), "tag": row.tag, "job_seq": row.seq} for row, place in some]
        tx.d.insert_new(tx.conn, s.held, jobs)
    fresh = {(place, row.queue, row.priority): _shelf(tx, row, place) for row, place in found}
    if fresh:
        tx.d.insert_new(tx.conn, s.shelves, [{**fresh[key], "at": 0.0} for key in sorted(fresh)])


def _shelf(tx: Tx, row: Any, place: Place) -> dict[str, Any]:
    scope, turn = place
    return {"ns": tx.ns, "scope": scope, "turn": turn, "queue": row.queue, "priority": row.priority}


def take_down(tx: Tx, found: Iterable[Any]) -> None:
    """Forget the places of held jobs that go elsewhere."""
    seqs = [row.seq for row in found if row.state == s.HELD]
    for i in range(0, len(seqs), _BATCH):
        tx.conn.execute(delete(s.held).where(_h.job_seq.in_(seqs[i : i + _BATCH])))


def give_back(tx: Tx, freed: Iterable[Any]) -> Collection[str]:
    """Have the shelves looked at whose caps have room now; return the queues to wake.

    A claim that met the cap at the same moment has not committed its shelf: that is new, and looked at next.
    """
    places, woken = set[Place](), set[str]()
    for queue, type_, turn in {(row.queue, row.type, row.turn) for row in freed}:
        for limit in tx.home.caps.matching(queue, type_, str(turn or "")):
            places.add(place_of(limit, turn))
            woken.update(tx.home.settings.queues if limit.queue is None else (limit.queue,))
    wanted = sorted(places)
    for i in range(0, len(wanted), _BATCH // 2):
        mine = _of(tx, wanted[i : i + _BATCH // 2])
        order = _s.scope, _s.turn, _s.queue, _s.priority
        rows = tx.conn.execute(select(*order).where(mine, _s.at > 0).order_by(*order).with_for_update()).all()
        if rows:
            tx.conn.execute(update(s.shelves).where(mine).values(at=0.0))
    return woken


def _of(tx: Tx, places: Sequence[Place]) -> Any:
    return and_(_s.ns == tx.ns, or_(*(and_(_s.scope == scope, _s.turn == turn) for scope, turn in places)))


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
    by_time: dict[float, list[Any]] = {}
    for row, at in found:
        by_time.setdefault(at, []).append(row)
    for at, rows in by_time.items():
        tx.conn.execute(update(s.shelves).where(_these(tx, rows)).values(at=at))


def open_up(tx: Tx, found: Sequence[tuple[Any, int]]) -> None:
    """Let the first jobs of shelves back into their classes, so many of each."""
    for i in range(0, len(found), _PARTS):
        _open(tx, found[i : i + _PARTS])


def _open(tx: Tx, found: Sequence[tuple[Any, int]]) -> None:
    parts = []
    for n, (row, most) in enumerate(found):
        first = select(_h.job_seq).where(*_on(tx, s.held, row)).order_by(_h.tag, _h.job_seq).limit(most)
        parts.append(select(literal(n).label("n"), first.subquery().c.job_seq))
    by_shelf: list[list[int]] = [[] for _ in found]
    for n, seq in tx.conn.execute(union_all(*parts)):
        by_shelf[n].append(seq)
    seqs = [seq for some in by_shelf for seq in some]
    empty = [row for (row, most), some in zip(found, by_shelf, strict=True) if len(some) < most]
    for i in range(0, len(seqs), _BATCH):
        _let_go(tx, seqs[i : i + _BATCH])
    if empty:
        tx.conn.execute(delete(s.shelves).where(_these(tx, empty)))


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


def _on(tx: Tx, table: Any, row: Any) -> list[Any]:
    c = table.c
    mine = c.scope == row.scope, c.turn == row.turn, c.queue == row.queue, c.priority == row.priority
    return [c.ns == tx.ns, *mine]


def _these(tx: Tx, rows: Sequence[Any]) -> Any:
    return or_(*(and_(*_on(tx, s.shelves, row)) for row in rows))
