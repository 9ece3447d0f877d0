"""The SQL job store: rate limits and concurrency caps over all workers.

Claims under limits take turns on one row, so that each sees what the one before it has started. What runs is
counted in the jobs themselves, so that nothing has to be given back when a job ends, in whatever way.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, delete, func, insert, select

from eventperf.queues.limits import RECHECK_S, Bucket, Limit

from . import tables as s
from .tx import Tx

_j, _t = s.jobs.c, s.starts.c
_MOST_KEYS = 1000  # in one condition; what is beyond them is left out row by row


def _scope(limit: Limit) -> int:
    return s.hashed(*limit.scope)


class Books:
    """What may start now, in one claim."""

    def __init__(self, tx: Tx, limits: Sequence[Limit]) -> None:
        self._tx = tx
        self._limits = limits
        tx.d.insert_new(tx.conn, s.turns, [{"ns": tx.ns}])
        tx.conn.execute(select(s.turns).where(s.turns.c.ns == tx.ns).with_for_update())
        tx.look_again()  # other claims may have started jobs while this one waited
        self._free: dict[tuple[int, Bucket], float] = {}
        self._first: dict[tuple[int, Bucket], float] = {}  # the oldest start that counts
        self._full: dict[int, set[int]] = defaultdict(set)
        self._started: list[dict[str, Any]] = []
        running = self._running() if any(limit.concurrency is not None for limit in limits) else []
        for n, limit in enumerate(limits):
            if limit.concurrency is not None:
                self._count_running(n, limit, running)
            if limit.rate is not None:
                self._count_starts(n, limit)
        for (n, bucket), free in self._free.items():
            if free <= 0:
                self._full[n].add(int(bucket[2] or 0))

    def _running(self) -> Sequence[Any]:
        asked = select(_j.queue, _j.type, _j.turn, func.count().label("n"))
        asked = asked.where(_j.ns == self._tx.ns, s.in_state(s.ACTIVE))
        return self._tx.conn.execute(asked.group_by(_j.queue, _j.type, _j.turn)).all()

    def _count_running(self, n: int, limit: Limit, running: Sequence[Any]) -> None:
        found: dict[Bucket, int] = defaultdict(int)
        for row in running:
            if (bucket := _bucket(limit, row)) is not None:
                found[bucket] += row.n
        for bucket, count in found.items():
            self._free[n, bucket] = float((limit.concurrency or 0) - count)

    def _count_starts(self, n: int, limit: Limit) -> None:
        now, conn = self._tx.now, self._tx.conn
        mine = (_t.ns == self._tx.ns) & (_t.scope == _scope(limit))
        # those of the future are of a clock that was set back since
        conn.execute(delete(s.starts).where(mine, ~_t.at.between(now - limit.per_s, now + limit.per_s)))
        asked = select(_t.turn, func.count().label("n"), func.min(_t.at).label("first")).where(mine)
        for row in conn.execute(asked.group_by(_t.turn)):
            one = n, (limit.queue or "", limit.type or "", str(row.turn) if limit.per_key else "")
            left = float((limit.rate or 0) - row.n)
            self._free[one] = min(self._free.get(one, math.inf), left)
            self._first[one] = row.first

    def start(self, row: Any) -> bool:
        """Count the start of a job; false when a limit holds it back."""
        found: list[tuple[int, Bucket]] = []
        for n, limit in enumerate(self._limits):
            if (bucket := _bucket(limit, row)) is not None:
                if self._left(n, bucket) <= 0:
                    self._full[n].add(int(bucket[2] or 0))
                    return False
                found.append((n, bucket))
        for n, bucket in found:
            self._free[n, bucket] = self._left(n, bucket) - 1
            limit = self._limits[n]
            if self._free[n, bucket] <= 0:
                self._full[n].add(int(bucket[2] or 0))
            if limit.rate is not None:
                self._first.setdefault((n, bucket), self._tx.now)
                turn = int(bucket[2] or 0)
                self._started.append(
                    {"ns": self._tx.ns, "scope": _scope(limit), "turn": turn, "at": self._tx.now}
                )
        return True

    def _left(self, n: int, bucket: Bucket) -> float:
        limit = self._limits[n]
        return self._free.get((n, bucket), min(limit.concurrency or math.inf, limit.rate or math.inf))

    def close(self) -> None:
        """Write down what has started."""
        if self._started:
            self._tx.conn.execute(insert(s.starts), self._started)

    def others(self) -> list[Any]:
        """Return the conditions on jobs that no limit is known to hold back."""
        found = []
        for n, turns in self._full.items():
            limit, held = self._limits[n], []
            if limit.queue is not None:
                held.append(_j.queue == limit.queue)
            if limit.type is not None:
                held.append(_j.type == limit.type)
            if limit.per_key:
                held.append(_j.turn.in_(sorted(turns)[:_MOST_KEYS]))
            found.append(~and_(*held))
        return found

    def again_s(self) -> float | None:
        """Return when to look again for jobs that are held back; ``None`` when no limit is reached."""
        if not self._full:
            return None
        return max(
            0.001,
            min(self._again_at(n, t) for n, turns in self._full.items() for t in turns) - self._tx.now,
        )

    def _again_at(self, n: int, turn: int) -> float:
        limit = self._limits[n]
        bucket = limit.queue or "", limit.type or "", str(turn) if limit.per_key else ""
        if limit.concurrency is not None or (n, bucket) not in self._first:
            return self._tx.now + RECHECK_S  # the end of a job wakes earlier
        return self._first[n, bucket] + limit.per_s


def _bucket(limit: Limit, row: Any) -> Bucket | None:
    return limit.bucket(row.queue, row.type, str(row.turn) if row.turn else "")
