"""One transaction on the store: its instant, its counters, the places in a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.engine import Connection

from eventperf.queues.attempts import Ending
from eventperf.queues.limits import Ledger

from . import tables as s
from .rows import Tally

if TYPE_CHECKING:
    from eventperf.queues.protocols import StoreSettings

    from .dialects import Dialect

Run = tuple[float, str, str, Ending, float | None, float | None]
"""When a run ended, its queue and type, how, how long it took, how long it had waited."""

_j = s.jobs.c


def _tag(state: int, order: Any, *more: Any) -> Any:
    lane = [_j.queue == bindparam("queue"), _j.priority == bindparam("priority")]
    asked = select(_j.tag).where(_j.ns == bindparam("ns"), s.in_state(state), *lane, *more)
    return asked.order_by(order).limit(1).scalar_subquery()


_HEAD = select(func.coalesce(_tag(s.WAITING, _j.tag), _tag(s.HELD, _j.tag)))
_MINE = _j.turn == bindparam("turn")
_LAST = select(_tag(s.WAITING, _j.tag.desc(), _MINE), _tag(s.HELD, _j.tag.desc(), _MINE))


@dataclass(slots=True)
class Home:
    """What all transactions of one store share."""

    settings: StoreSettings
    dialect: Dialect
    notifies: bool
    ns: int = 0
    channel: str = ""
    known_lanes: set[tuple[str, int]] = field(default_factory=set)
    caps: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.caps = Ledger([one for one in self.settings.options.limits if one.concurrency is not None])
        self.ns = s.hashed(self.settings.namespace)
        self.channel = f"eventperf_{self.ns}"

    @property
    def time(self) -> Callable[[], float]:
        """The host's clock, for databases that have none of their own."""
        return self.settings.clock.time


class Tx:
    """One transaction: its connection, its instant and what it changes in the counters."""

    def __init__(self, home: Home, conn: Connection) -> None:
        self.home: Home = home
        self.conn: Connection = conn
        self.ns: int = home.ns
        self.d: Dialect = home.dialect
        self.tally: Tally = Tally()
        self.runs: list[Run] = []
        self.freed: list[Any] = []
        self.now: float = home.time() if self.d.now is None else 0.0

    def ask_now(self) -> float:
        """Return the store's time, asked once."""
        if not self.now:
            self.now = float(self.conn.execute(select(self.d.now)).scalar_one())
        return self.now

    def look_again(self) -> float:
        """Return the store's time, asked anew after a wait for a lock."""
        self.now = 0.0 if self.d.now is not None else self.home.time()
        return self.ask_now()

    def ran(self, row: Any, ending: Ending, run_s: float, is_first: bool) -> None:
        """Take note of a run that has ended, and of a first one how long the job had waited."""
        wait_s = max(0.0, row.started_at - row.ready_at) if is_first and not row.crashes else None
        self.runs.append((self.now, row.queue, row.type, ending, run_s, wait_s))

    def free(self, row: Any, **changes: float) -> None:
        """Count that a job runs no more."""
        self.tally.add(row.queue, active=-1, **changes)
        self.freed.append(row)

    def end(self) -> int:
        """Write the counters and wake workers, last of all; return how many rows were appended."""
        appended = self.tally.write(self.conn, self.ns, self.now)
        if self.home.notifies and (self.tally.woke or self.tally.called):
            self.d.notify(self.conn, self.home.channel, "message" if self.tally.called else "")
        return appended

    # -- places in a class -------------------------------------------------------------------------

    def head(self, queue: str, priority: int) -> float | None:
        """Return the tag of the job that is next in a class."""
        found = self.conn.execute(_HEAD, {"ns": self.ns, "queue": queue, "priority": priority}).scalar()
        return None if found is None else float(found)

    def tail_tags(self, wanted: Sequence[tuple[str, int, int]]) -> list[float]:
        """Return the tag of each newcomer ``(queue, priority, fairness key)`` of a class.

        Start tags of self-clocked fair queueing: one more than the last of the same key, never before
        the job that is next now, so that keys take turns however many jobs one of them has.
        """
        last: dict[tuple[str, int, int], float] = {}
        heads: dict[tuple[str, int], float] = {}
        found = []
        for one in wanted:
            tag = last.get(one)
            if tag is None:
                lane = one[:2]
                if lane not in heads:
                    heads[lane] = (self.head(*lane) or 1.0) - 1.0
                where = {"ns": self.ns, "queue": one[0], "priority": one[1], "turn": one[2]}
                tag = max(heads[lane], *(float(t or 0.0) for t in self.conn.execute(_LAST, where).one()))
            last[one] = tag + 1.0
            found.append(tag + 1.0)
        return found

    def ready(self, found: Sequence[Any], *, head: bool = False) -> None:
        """Make jobs wait in their class: at its end, or before all others."""
        if not found:
            return
        if head:
            heads = {lane: self.head(*lane) for lane in {(r.queue, r.priority) for r in found}}
            tags = [
                r.tag if (first := heads[r.queue, r.priority]) is None else min(r.tag, first) for r in found
            ]
        else:
            tags = self.tail_tags([(r.queue, r.priority, r.turn) for r in found])
        self.d.place(
            self.conn,
            [
                {"b_seq": r.seq, "b_state": s.WAITING, "b_tag": tag, "b_ready": self.now}
                for r, tag in zip(found, tags, strict=True)
            ],
        )
        self.lanes({(r.queue, r.priority) for r in found})
        for r in found:
            self.tally.add(r.queue, waiting=1, woke=1)

    def lanes(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Make classes known to the workers; remembered once they are seen committed."""
        known = self.home.known_lanes
        if not (fresh := sorted(set(wanted) - known)):
            return
        lane = s.lanes.c
        stored = self.conn.execute(select(lane.queue, lane.priority).where(lane.ns == self.ns))
        there = {(row.queue, row.priority) for row in stored}
        if missing := [one for one in fresh if one not in there]:
            self.d.insert_new(
                self.conn, s.lanes, [{"ns": self.ns, "queue": q, "priority": p} for q, p in missing]
            )
        known.update(one for one in fresh if one in there)
