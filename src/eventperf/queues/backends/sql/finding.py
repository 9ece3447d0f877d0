"""Finding jobs page by page: along the indexes that workers use, so that a listing costs them nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, true

from eventperf.queues.job import JobInfo, JobState
from eventperf.queues.protocols import LOOKED_AT, Found, JobQuery

from . import forgetting, rows
from . import tables as s
from .tx import Tx

_j, _t, _lane = s.jobs.c, s.tags.c, s.lanes.c
_CODES = {code: state for code, state in rows.STATES.items()}
_FADES = (s.COMPLETED, s.CANCELLED)


@dataclass(slots=True)
class _Strand:
    """Some jobs in the order of one index.

    Attributes:
        name: Its place among the others.
        by: The column before ``seq`` in the order, ``None`` for none.
        lean: Whether every job in it is of a wanted queue and state.
    """

    name: list[Any]
    where: Sequence[Any]
    by: Any
    descends: bool = False
    lean: bool = False


def find(tx: Tx, query: JobQuery) -> Found:
    """Return a page of jobs."""
    tx.ask_now()
    seqs: list[int] = []
    looked, start = 0, query.after[0] if query.after else None
    for one in _strands(tx, query):
        if start is not None and one.name < start:
            continue
        after = query.after[1:] if query.after and one.name == start else None
        fits = _fits(tx, query, one)
        some = LOOKED_AT - looked if len(fits) else query.limit - len(seqs)
        for row in tx.conn.execute(_look(one, after, and_(true(), *fits), some)).all():
            looked += 1
            if row.fits:
                seqs.append(row.seq)
            if len(seqs) == query.limit or looked >= LOOKED_AT:
                return Found(_shown(tx, seqs), [one.name, row.place, row.seq])
    return Found(_shown(tx, seqs))


def _look(one: _Strand, after: Sequence[Any] | None, fits: ColumnElement[bool], limit: int) -> Any:
    place = _j.seq if one.by is None else one.by
    asked = select(_j.seq, place.label("place"), fits.label("fits")).where(*one.where)
    if after is not None:
        at, seq = after
        if one.descends:
            asked = asked.where(place <= at, or_(place < at, _j.seq < seq))
        else:
            asked = asked.where(place >= at, or_(place > at, _j.seq > seq))
    order = [place] if one.by is None else [place, _j.seq]
    return asked.order_by(*(x.desc() if one.descends else x for x in order)).limit(limit)


def _shown(tx: Tx, seqs: Sequence[int]) -> list[JobInfo]:
    if not seqs:
        return []
    found = {row.seq: row for row in tx.conn.execute(select(*s.SHOWN).where(_j.seq.in_(seqs)))}
    return [rows.info_of(found[seq]) for seq in seqs if seq in found]


def _fits(tx: Tx, query: JobQuery, one: _Strand) -> list[Any]:
    found: list[Any] = []
    if not one.lean and set(query.queues) != set(tx.home.settings.queues):
        found.append(_j.queue.in_(query.queues))
    if query.tag is not None:
        codes = [code for code, state in _CODES.items() if state in query.states]
        found += [_j.state.in_(codes), or_(_j.state.not_in(_FADES), _j.at > tx.now)]
    if query.type is not None:
        found.append(_j.type == query.type)
    if query.text is not None:
        text = query.text
        found.append(
            or_(tx.d.has(_j.id, text), tx.d.has(_j.error, text), tx.d.has_bytes(_j.payload, text.encode()))
        )
    return found


def _strands(tx: Tx, query: JobQuery) -> Iterator[_Strand]:
    if query.tag is not None:
        mine = _t.ns == tx.ns, _t.tag == query.tag, _j.seq == _t.job_seq, _j.ns == tx.ns
        yield _Strand([0], mine, None, descends=True)
        return
    for at, state in enumerate(query.states):
        if state is JobState.WAITING:
            yield from _waiting(tx, query, at)
        elif state is JobState.CANCELLED:
            over = _j.ns == tx.ns, s.in_state(s.CANCELLED), _j.at > tx.now
            yield _Strand([at], over, _j.at, descends=True)
        elif state in (JobState.FAILED, JobState.COMPLETED):
            yield from _ended(tx, query, at, s.FAILED if state is JobState.FAILED else s.COMPLETED)
        else:
            code = s.ACTIVE if state is JobState.ACTIVE else s.DELAYED
            yield _Strand([at], (_j.ns == tx.ns, s.in_state(code)), _j.at)


def _waiting(tx: Tx, query: JobQuery, at: int) -> Iterator[_Strand]:
    """Class by class, as they are handed out inside a queue, then the jobs of types that nobody knows.

    Of a class those come last that a limit holds back.
    """

    def first(state: int) -> Any:  # one entry for each class, from the index of what waits
        mine = _j.ns == _lane.ns, s.in_state(state), _j.queue == _lane.queue, _j.priority == _lane.priority
        return select(_j.tag).where(*mine).order_by(_j.tag).limit(1).scalar_subquery().is_not(None)

    asked = select(_lane.queue, _lane.priority, first(s.WAITING), first(s.HELD).label("held")).where(
        _lane.ns == tx.ns, _lane.queue.in_(query.queues)
    )
    place = {name: i for i, name in enumerate(query.queues)}
    for row in sorted(tx.conn.execute(asked), key=lambda row: (place[row.queue], -row.priority)):
        name = [at, place[row.queue], -row.priority]
        for there, state, more in ((row[2], s.WAITING, []), (row.held, s.HELD, [1])):
            mine = _j.ns == tx.ns, s.in_state(state), _j.queue == row.queue, _j.priority == row.priority
            if there:
                yield _Strand(name + more, mine, _j.tag, lean=True)
    yield _Strand([at, len(place)], (_j.ns == tx.ns, s.in_state(s.PARKED)), _j.at)


def _ended(tx: Tx, query: JobQuery, at: int, code: int) -> Iterator[_Strand]:
    for i, queue in enumerate(query.queues):
        mine: list[Any] = [_j.ns == tx.ns, s.in_state(code), _j.queue == queue]
        if code == s.COMPLETED:
            if (first := forgetting.first_listed(tx, queue)) is None:
                continue
            mine.append(_j.finished_at >= first)
        yield _Strand([at, i], mine, _j.finished_at, descends=True, lean=True)
