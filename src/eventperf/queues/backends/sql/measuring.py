"""Minutes: counted in each process, appended about once a second, one row once they are over."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import delete, func, insert, select

from eventperf._core.objects import read_json
from eventperf.queues.minutes import (
    COUNTS,
    KEPT_MINUTES,
    MINUTE_S,
    Interval,
    Minutes,
    counts_of,
)

from . import tables as s
from .tx import Run, Tx

_m = s.minutes.c

_EVERY_S = 1.0
_ALWAYS = 4  # kinds of ends that every release counts
_COMPACTED = 10  # minutes at a time


class Counting:
    """What this process has counted and not yet written."""

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._minutes = Minutes()
        self._due = 0.0
        self._compacted = 0

    def add(self, runs: Iterable[Run]) -> None:
        """Count runs whose transaction has been committed."""
        with self._mu:
            for run in runs:
                self._minutes.add(*run)

    def write(self, do: Callable[[Callable[[Tx], None]], None], *, now: bool = False) -> None:
        """Append what was counted in its own transaction, once a second or ``now``; kept when that fails."""
        at = time.monotonic()
        with self._mu:
            if not self._minutes.found or (at < self._due and not now):
                return
            self._due, mine = at + _EVERY_S, self._minutes
            self._minutes = Minutes()
        try:
            do(lambda tx: self._append(tx, list(mine.found.values())))
        except BaseException:
            with self._mu:
                mine.join(self._minutes.found.values())
                self._minutes = mine
            raise

    def _append(self, tx: Tx, found: Sequence[Interval]) -> None:
        by_minute: dict[int, list[Interval]] = {}
        for one in found:
            by_minute.setdefault(int(one.at // MINUTE_S), []).append(one)
        made = [{"ns": tx.ns, "minute": m, "facts": _text(some)} for m, some in sorted(by_minute.items())]
        tx.conn.execute(insert(s.minutes), made)
        this = int(tx.ask_now() // MINUTE_S)
        if this != self._compacted:
            self._compacted = this
            _compact(tx, this)


def _compact(tx: Tx, this: int) -> None:
    """Make one row of each minute that is over, and forget those of the day before."""
    tx.conn.execute(delete(s.minutes).where(_m.ns == tx.ns, _m.minute < this - KEPT_MINUTES))
    many = select(_m.minute).where(_m.ns == tx.ns, _m.minute < this).group_by(_m.minute)
    for minute in tx.conn.execute(many.having(func.count() > 1).limit(_COMPACTED)).scalars().all():
        mine = select(_m.n, _m.facts).where(_m.ns == tx.ns, _m.minute == minute).order_by(_m.n)
        found = tx.conn.execute(mine.with_for_update(skip_locked=True)).all()
        if len(found) < 2:
            continue
        total = Minutes()
        for row in found:
            total.join(read(minute, row.facts))
        tx.conn.execute(delete(s.minutes).where(_m.n.in_([row.n for row in found])))
        facts = _text(list(total.found.values()))
        tx.conn.execute(insert(s.minutes), [{"ns": tx.ns, "minute": minute, "facts": facts}])


def since(tx: Tx, span_s: float) -> tuple[float, list[Interval]]:
    """Return the time and the minutes of the last ``span_s`` seconds."""
    first = int((tx.ask_now() - span_s) // MINUTE_S)
    asked, total = select(_m.minute, _m.facts).where(_m.ns == tx.ns, _m.minute >= first), Minutes()
    for row in tx.conn.execute(asked.order_by(_m.minute, _m.n)):
        total.join(read(row.minute, row.facts))
    return tx.now, list(total.found.values())


def _text(found: Sequence[Interval]) -> str:
    return json.dumps(
        [[one.queue, one.type, _counts(one), one.wait.counts, one.run.counts] for one in found],
        separators=(",", ":"),
    )


def _counts(one: Interval) -> list[int]:
    """Return what was counted, without the zeros at the end: releases knew fewer kinds, and read no more."""
    counts = [getattr(one, name) for name in COUNTS]
    while len(counts) > _ALWAYS and not counts[-1]:
        del counts[-1]
    return counts


def read(minute: int, facts: str) -> list[Interval]:
    """Return the intervals of a row; none of a damaged one."""
    try:
        return _read(minute, facts)
    except (ValueError, TypeError, AttributeError):
        return []


def _read(minute: int, facts: str) -> list[Interval]:
    return [
        Interval(
            at=minute * MINUTE_S, queue=queue, type=type_, **dict(zip(COUNTS, counts, strict=False)),
            wait=counts_of(wait), run=counts_of(run),
        )
        for queue, type_, counts, wait, run in read_json(facts)
    ]  # fmt: skip
