"""What every step of the SQL store needs: the transaction, its time, its counters, the places in a class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import and_, bindparam, delete, func, literal, select, update
from sqlalchemy.engine import Connection

from eventperf.queues.job import NewJob
from eventperf.queues.options import QueueConfig

from . import flows as flows
from . import rows as rows
from . import schema as s

if TYPE_CHECKING:
    from eventperf.queues.protocols import StoreSettings

    from .backend import SqlBackend
    from .dialects import Dialect

T = TypeVar("T")
_j = s.jobs.c

_FOLD_EVERY = 100
_FOLD_BATCH = 2000
_KEY_COLUMNS = (_j.id, _j.held_key)

_HEAD = (
    select(_j.tag)
    .where(
        _j.ns == bindparam("ns"),
        _j.state == s.WAITING,
        _j.queue == bindparam("queue"),
        _j.priority == bindparam("priority"),
    )
    .order_by(_j.tag)
    .limit(1)
)
_LAST = (
    select(_j.tag)
    .where(
        _j.ns == bindparam("ns"),
        _j.state == s.WAITING,
        _j.queue == bindparam("queue"),
        _j.priority == bindparam("priority"),
        _j.turn == bindparam("turn"),
    )
    .order_by(_j.tag.desc())
    .limit(1)
)


class Step:
    """One transaction on the store: its connection, its instant and what it changes in the counters."""

    def __init__(self, store: SqlBase, conn: Connection) -> None:
        self.store: SqlBase = store
        self.conn: Connection = conn
        self.ns: int = store.ns
        self.d: Dialect = store.backend.dialect
        self.tally: rows.Tally = rows.Tally()
        self.now: float = store.time() if self.d.now is None else 0.0

    def ask_now(self) -> float:
        """Return the store's time, asked once."""
        if not self.now:
            self.now = float(self.conn.execute(select(self.d.now)).scalar_one())
        return self.now

    def end(self) -> None:
        """Write the counters and wake workers; call it last."""
        if self.tally.ended and any(limit.concurrency for limit in self.store.settings.options.limits):
            for (
                queue
            ) in self.store.settings.queues:  # any of them may hold jobs back for one that ran elsewhere
                self.tally.add(queue, woke=1)
        self.store.appended += self.tally.write(self.conn, self.ns, self.now)
        if self.store.backend.listens and (self.tally.woke or self.tally.called):
            self.d.notify(self.conn, self.store.channel, "message" if self.tally.called else "")

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
                tag = max(heads[lane], float(self.conn.execute(_LAST, where).scalar() or 0.0))
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
        if not (fresh := sorted(set(wanted) - self.store.known_lanes)):
            return
        lane = s.lanes.c
        stored = self.conn.execute(select(lane.queue, lane.priority).where(lane.ns == self.ns))
        there = {(row.queue, row.priority) for row in stored}
        if missing := [one for one in fresh if one not in there]:
            self.d.insert_new(
                self.conn, s.lanes, [{"ns": self.ns, "queue": q, "priority": p} for q, p in missing]
            )
        self.store.known_lanes.update(one for one in fresh if one in there)

    # -- newcomers ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob]) -> list[str]:
        """Insert jobs; return for each its own id or that of the holder of its unique key."""
        if not jobs:
            return []
        now = self.ask_now()
        made = [rows.row_of(new, self.ns, now) for new in jobs]
        answer = [row["id"] for row in made]
        keyed = sorted(
            (i for i, row in enumerate(made) if row["held_key"]), key=lambda i: made[i]["held_key"]
        )
        for i in keyed:
            unique_for = jobs[i].record.unique_for
            until = 1e300 if isinstance(unique_for, str) else now + unique_for
            row = {"ns": self.ns, "held_key": made[i]["held_key"], "job_id": answer[i], "until": until}
            answer[i] = self.d.take_key(self.conn, row, now)
        mine = {row["id"]: row for row, job_id in zip(made, answer, strict=True) if row["id"] == job_id}
        fresh = list(mine.values())
        if fresh:
            self._insert(fresh, {new.record.id: new for new in jobs})
        return answer

    def _insert(self, fresh: list[dict[str, Any]], jobs: Mapping[str, NewJob]) -> None:
        waits = flows.hold(self, fresh, jobs)
        waiting = [row for row in fresh if row["state"] == s.WAITING]
        tags = self.tail_tags([(row["queue"], row["priority"], row["turn"]) for row in waiting])
        for row, tag in zip(waiting, tags, strict=True):
            row["tag"] = tag
        self.lanes({(row["queue"], row["priority"]) for row in fresh})
        inserted = self.d.insert_jobs(self.conn, fresh)
        for row in fresh:
            if row["id"] in inserted:
                due = row["state"] == s.DELAYED
                self.tally.add(row["queue"], enqueued=1, delayed=int(due), waiting=int(not due), woke=1)
        if waits:
            flows.link(self, {child: found for child, found in waits.items() if child in inserted}, jobs)

    # -- ends --------------------------------------------------------------------------------------

    def free_keys(self, found: Iterable[Any], kinds: tuple[str, ...] = ("waiting", "running")) -> None:
        """Free the unique keys of jobs that have ended, or that run now."""
        if held := [(r.held_key, r.id) for r in found if r.held_key and r.held_for in kinds]:
            self.d.free_keys(self.conn, self.ns, held)

    def end_jobs(self, found: Sequence[Any], state: int, **values: Any) -> None:
        """Move jobs to a final state and count them; retention is trimmed by the caller."""
        if not found:
            return
        ttl = self.store.settings.options.result_ttl_s
        values = {"finished_at": self.now, "at": self.now + min(ttl, 60.0), **values}
        values |= {"progress": None, "steps": None, "state": state, "worker": None}
        self.conn.execute(update(s.jobs).where(_j.seq.in_([r.seq for r in found])).values(**values))
        counter = {s.COMPLETED: "completed", s.FAILED: "failed", s.CANCELLED: "cancelled"}[state]
        for r in found:
            self.tally.add(r.queue, **{counter: 1})
        self.free_keys(found)
        flows.follow(self, found, state)

    def bury(self, found: Sequence[tuple[Any, str, int]]) -> None:
        """Move jobs ``(row, reason, attempts)`` to the dead letter."""
        for i, (row, reason, attempts) in enumerate(found):
            self.end_jobs([row], s.FAILED, error=reason, attempts=attempts, finished_at=self.now + i * 1e-6)
            self.tally.add(row.queue, dead=1)
        for queue in {row.queue for row, _, _ in found}:
            config = self.store.settings.queues.get(queue)
            if config is not None and config.keep_failed is not None:
                self._trim_dead(config)

    def _trim_dead(self, config: QueueConfig) -> None:
        old = (
            select(_j.seq, _j.id)
            .where(_j.ns == self.ns, _j.state == s.FAILED, _j.queue == config.name)
            .order_by(_j.finished_at.desc(), _j.seq.desc())
            .offset(config.keep_failed)
            .limit(1000)
        )
        if found := self.conn.execute(old).all():
            seqs = [row.seq for row in found]
            gone = self.conn.execute(delete(s.jobs).where(_j.seq.in_(seqs), _j.state == s.FAILED)).rowcount
            self.tally.add(config.name, dead=-gone)
            flows.follow(self, found, s.FAILED, forgotten=True)


class SqlBase:
    """The parts of the store that both of its halves use."""

    def __init__(self, backend: SqlBackend) -> None:
        self.backend: SqlBackend = backend
        self.settings: StoreSettings = backend.settings
        self.ns: int = s.hashed(backend.settings.namespace)
        self.channel: str = f"eventperf_{self.ns}"
        self.known_lanes: set[tuple[str, int]] = set()
        self.appended: int = 0
        clock = backend.settings.clock
        self.time: Callable[[], float] = clock.time

    def step(self, work: Callable[[Step], T], *, repeat: bool = False) -> T:
        """Do ``work`` in a transaction that changes something."""

        def inside(conn: Connection) -> tuple[T, bool]:
            step = Step(self, conn)
            answer = work(step)
            step.end()
            return answer, step.tally.woke or step.tally.called

        answer, woke = self.backend.run(inside, repeat=repeat)
        if woke:
            self.backend.ring()
        if self.appended >= _FOLD_EVERY:
            self.appended = 0
            self.backend.run(self._fold)
        return answer

    def look(self, work: Callable[[Step], T]) -> T:
        """Do ``work`` in a transaction that only reads."""
        return self.backend.run(lambda conn: work(Step(self, conn)), write=False, repeat=True)

    def _fold(self, conn: Connection) -> None:
        """Replace many small changes of the counters by their sums."""
        t = s.tallies.c
        now = Step(self, conn).ask_now()
        first = int(now // rows.BUCKET_S) - rows.BUCKETS
        chosen = (
            select(s.tallies)
            .where(t.ns == self.ns)
            .order_by(t.n)
            .limit(_FOLD_BATCH)
            .with_for_update(skip_locked=True)
        )
        found = conn.execute(chosen).all()
        sums: dict[tuple[str, int], dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for row in found:
            total = sums[row.queue, row.bucket if row.bucket >= first else 0]
            for name in (*s.COUNTERS, "run_s"):
                total[name] += getattr(row, name)
        if len(sums) < len(found):
            conn.execute(delete(s.tallies).where(t.n.in_([row.n for row in found])))
            rows.write_tallies(conn, self.ns, ((q, b, total) for (q, b), total in sums.items()))

    def totals(self, step: Step) -> dict[str, dict[str, float]]:
        """Return the sums of all counters by queue, and what came and went in the last minute."""
        t, now = s.tallies.c, step.ask_now()
        first = int(now // rows.BUCKET_S) - rows.BUCKETS
        ended = t.completed + t.failed + t.cancelled
        recent = and_(t.bucket >= first)
        asked = [func.sum(t[name]).label(name) for name in s.COUNTERS]
        asked += [
            func.sum(t.run_s).label("run_s"),
            func.sum(_when(recent, t.enqueued)).label("arrivals"),
            func.sum(_when(recent, ended)).label("served"),
            func.min(t.bucket).label("first"),
        ]
        answer = step.conn.execute(select(t.queue, *asked).where(t.ns == self.ns).group_by(t.queue))
        found = {
            row.queue: {k: float(v or 0) for k, v in row._mapping.items() if k != "queue"} for row in answer
        }
        start = min((total["first"] for total in found.values()), default=0.0)
        span = max(1.0, now - max(start, first) * rows.BUCKET_S)
        for total in found.values():
            total["span"] = span
        return found


def _when(condition: Any, value: Any) -> Any:
    from sqlalchemy import case

    return case((condition, value), else_=literal(0))
