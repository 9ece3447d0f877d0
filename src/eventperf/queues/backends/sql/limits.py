"""The SQL job store: rate limits and concurrency caps over all workers.

Claims under limits take turns on one row, so that each sees what the one before it has started. What runs is
counted in the jobs themselves, so that nothing has to be given back when a job ends, in whatever way, and
nothing is counted before a job is met that it concerns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select

from eventperf.queues.limits import RECHECK_S, Ledger, Limit

from . import tables as s
from .shelves import Place, place_of, scope_of
from .tx import Tx

_j, _t = s.jobs.c, s.starts.c
_BATCH = 1000
_RECHECKS = 10


def take_turn(tx: Tx) -> None:
    """Wait until no other claim under limits is at work."""
    tx.d.insert_new(tx.conn, s.turns, [{"ns": tx.ns}])
    tx.conn.execute(select(s.turns).where(s.turns.c.ns == tx.ns).with_for_update())
    tx.look_again()  # other claims may have started jobs while this one waited


class Books:
    """What may start now, in one claim that has its turn."""

    def __init__(self, tx: Tx, limits: Sequence[Limit]) -> None:
        self._tx = tx
        self._ledger = Ledger(limits)
        self._by_scope = {scope_of(limit): limit for limit in limits}
        self._rates: dict[Place, float] = {}  # starts that are left
        self._slots: dict[Place, float] = {}
        self._first: dict[Place, float] = {}  # the oldest start that counts
        self._running: dict[Place, int] | None = None
        self._cleaned: set[int] = set()
        self._started: list[dict[str, Any]] = []

    def learn(self, found: Iterable[Any]) -> None:
        """Count for the limits that some jobs are subject to."""
        kinds = {(row.queue, row.type, row.turn) for row in found}
        self.learn_places(place for kind in kinds for place in self._places(*kind))

    def _places(self, queue: str, type_: str, turn: int) -> list[Place]:
        return [place_of(limit, turn) for limit in self._ledger.matching(queue, type_, str(turn or ""))]

    def learn_places(self, places: Iterable[Place]) -> None:
        """Count what has started, or runs, where it is not known yet."""
        wanted: dict[int, list[int]] = defaultdict(list)
        for scope, turn in set(places) - self._rates.keys():
            if scope in self._by_scope:
                wanted[scope].append(turn)
        for scope, turns in sorted(wanted.items()):
            limit = self._by_scope[scope]
            for turn in turns:
                self._rates[scope, turn] = math.inf if limit.rate is None else float(limit.rate)
                cap = limit.concurrency
                self._slots[scope, turn] = math.inf if cap is None else float(cap - self._runs(scope, turn))
            if limit.rate is not None:
                self._count_starts(limit, scope, sorted(turns))

    def _runs(self, scope: int, turn: int) -> int:
        if self._running is None:
            found: dict[Place, int] = defaultdict(int)
            asked = select(_j.queue, _j.type, _j.turn, func.count().label("n"))
            asked = asked.where(_j.ns == self._tx.ns, s.in_state(s.ACTIVE))
            for row in self._tx.conn.execute(asked.group_by(_j.queue, _j.type, _j.turn)):
                for place in self._places(row.queue, row.type, row.turn):
                    found[place] += row.n
            self._running = found
        return self._running.get((scope, turn), 0)

    def _count_starts(self, limit: Limit, scope: int, turns: Sequence[int]) -> None:
        now, conn = self._tx.now, self._tx.conn
        mine = (_t.ns == self._tx.ns) & (_t.scope == scope)
        if scope not in self._cleaned:
            self._cleaned.add(scope)
            # those of the future are of a clock that was set back since
            conn.execute(delete(s.starts).where(mine, _t.at < now - limit.per_s))
            conn.execute(delete(s.starts).where(mine, _t.at > now + limit.per_s))
        asked = select(_t.turn, func.count().label("n"), func.min(_t.at).label("first")).where(mine)
        for i in range(0, len(turns), _BATCH):
            some = asked.where(_t.turn.in_(turns[i : i + _BATCH])).group_by(_t.turn)
            for row in conn.execute(some):
                self._rates[scope, row.turn] -= row.n
                self._first[scope, row.turn] = row.first

    def bar(self, row: Any) -> Place | None:
        """Return where a limit holds a job back; ``None`` where none does."""
        return next((one for one in self._places(row.queue, row.type, row.turn) if self.free(one) <= 0), None)

    def start(self, row: Any) -> None:
        """Count the start of a job that nothing holds back."""
        now = self._tx.now
        for scope, turn in self._places(row.queue, row.type, row.turn):
            self._slots[scope, turn] -= 1
            self._rates[scope, turn] -= 1
            if self._by_scope[scope].rate is not None:
                self._first.setdefault((scope, turn), now)
                self._started.append({"ns": self._tx.ns, "scope": scope, "turn": turn, "at": now})

    def free(self, place: Place) -> float:
        """Return how many more may start there; any number under a limit that is none of ours."""
        return min(self._rates.get(place, math.inf), self._slots.get(place, math.inf))

    def again_at(self, place: Place) -> float:
        """Return when to look again at a place that is full."""
        if self._rates[place] <= 0 and place in self._first:
            return self._first[place] + self._by_scope[place[0]].per_s
        return self._tx.now + _RECHECKS * RECHECK_S  # the end of a job has it looked at earlier

    def close(self) -> None:
        """Write down what has started."""
        if self._started:
            self._tx.conn.execute(insert(s.starts), self._started)
