"""The SQL job store: what workers do."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, exists, func, or_, select, update

from eventperf.queues.errors import QueueError
from eventperf.queues.job import Lease
from eventperf.queues.policy import Lane, choose
from eventperf.queues.protocols import Claimed, Outcome, Renewed, Stalled, WorkerCard

from . import flows as flows
from . import rows as rows
from . import schema as s
from .base import SqlBase, Step
from .limits import Books
from .listen import Listener

if TYPE_CHECKING:
    from .backend import SqlBackend

_j = s.jobs.c

_BATCH = 1000
_FORGET_EVERY_S = 1.0
_FORGET_WORKER_S = 86_400.0
_CONTENDED_S = 0.02


class _Class(Lane):
    """A class of waiting jobs with those of its jobs that this transaction has locked."""

    __slots__ = ("before", "last", "locked")

    def __init__(self, queue: str, rank: int, weight: int, level: int, skipped: int) -> None:
        super().__init__(queue, rank, weight, level, skipped)
        self.before = skipped
        self.locked: deque[Any] = deque()
        self.last: tuple[float, int] | None = None


class SqlWork(SqlBase):
    """Claiming, keeping and finishing jobs."""

    def __init__(self, backend: SqlBackend) -> None:
        super().__init__(backend)
        self._cards: dict[str, tuple[WorkerCard, float]] = {}  # with the end of its validity
        self._forget_at = 0.0
        self._listener: Any = None
        self._seen: tuple[int, int] | None = None
        self._left = False

    def adopt(self, card: WorkerCard) -> None:
        """Know a worker that another face has introduced."""
        self._cards[card.id] = (card, 0.0)

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        def work(step: Step) -> float:
            until = self._alive(step, card)
            q = [{"ns": self.ns, "queue": name} for name in sorted(card.room_by_queue)]
            step.d.insert_new(step.conn, s.queues, q)
            lost = select(s.jobs).where(_j.ns == self.ns, _j.state == s.ACTIVE, _j.worker == card.id)
            if held:
                lost = lost.where(_j.id.not_in(held))
            found = step.conn.execute(lost.order_by(_j.seq).with_for_update()).all()
            for r in found:
                step.tally.add(r.queue, active=-1)
            step.ready(found, head=True)
            return until

        self._cards[card.id] = (card, self.step(work, repeat=True))

    def _alive(self, step: Step, card: WorkerCard) -> float:
        until = step.ask_now() + 3 * card.lease_s
        facts = {
            "queues": json.dumps(sorted(card.room_by_queue)), "types": json.dumps(sorted(card.types)),
            "slots": card.slots, "lease_s": card.lease_s, "until": until, "gone": False,
        }  # fmt: skip
        step.d.upsert(step.conn, s.workers, {"ns": self.ns, "id": card.id}, facts)
        return until

    def leave(self, worker: str, /) -> None:
        self._cards.pop(worker, None)
        w = s.workers.c
        gone = update(s.workers).where(w.ns == self.ns, w.id == worker).values(gone=True)
        try:
            self.step(lambda step: step.conn.execute(gone) and None, repeat=True)
        finally:
            self.backend.left(worker)

    def _card(self, worker: str) -> WorkerCard:
        if worker not in self._cards:
            raise QueueError(f"worker {worker!r} has not introduced itself to this process")
        return self._cards[worker][0]

    # -- claiming ----------------------------------------------------------------------------------

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        card, until = self._cards.get(worker, (None, 0.0))
        if card is None:
            card = self._card(worker)

        def work(step: Step) -> Claimed:
            assert card is not None
            due, ends, parked = self._agenda(step)
            if until and until < step.now + 2 * card.lease_s:
                self._cards[worker] = (card, self._alive(step, card))
            answer = Claimed([])
            expired: list[tuple[str, str, str, str]] = []
            if due is not None and due <= step.now:
                self._promote(step)
            if ends is not None and ends <= step.now:
                answer.stalled = self._reap(step)
            if parked:
                self._unpark(step, card, expired)
            contended, again_s = self._take(step, card, room, total, answer.leases, expired)
            if step.now >= self._forget_at:
                self._forget_at = step.now + _FORGET_EVERY_S
                self._forget_old(step)
            times = [at for at in (due, ends) if at is not None]
            if times:
                answer.next_in_s = max(0.0, min(times) - step.now)
            if answer.leases:  # their own leases end later than any of the others looked at
                answer.next_in_s = min(answer.next_in_s or card.lease_s, card.lease_s)
            if contended and len(answer.leases) < total:
                again_s = _CONTENDED_S if again_s is None else min(again_s, _CONTENDED_S)
            if again_s is not None and len(answer.leases) < total:
                answer.next_in_s = again_s if answer.next_in_s is None else min(answer.next_in_s, again_s)
            answer.expired = expired
            return answer

        return self.step(work)

    def _agenda(self, step: Step) -> tuple[float | None, float | None, bool]:
        """Read, with the time, when the store next has something to do by itself."""

        def first(state: int) -> Any:
            at = select(_j.at).where(_j.ns == self.ns, _j.state == state).order_by(_j.at).limit(1)
            return at.scalar_subquery()

        asked = [first(s.DELAYED), first(s.ACTIVE), first(s.PARKED)]
        if step.now:
            due, ends, parked = step.conn.execute(select(*asked)).one()
        else:
            step.now, due, ends, parked = step.conn.execute(select(step.d.now, *asked)).one()
            step.now = float(step.now)
        return None if due == s.NEVER else due, ends, parked is not None

    def _expired(self, step: Step, state: int) -> Sequence[Any]:
        asked = select(s.jobs).where(_j.ns == self.ns, _j.state == state, _j.at <= step.now)
        return step.conn.execute(
            asked.order_by(_j.at, _j.seq).limit(_BATCH).with_for_update(skip_locked=True)
        ).all()

    def _promote(self, step: Step) -> None:
        found = self._expired(step, s.DELAYED)
        for r in found:
            step.tally.add(r.queue, delayed=-1)
        step.ready(found)

    def _reap(self, step: Step) -> list[Stalled]:
        found = self._expired(step, s.ACTIVE)
        if not found:
            return []
        limit = self.settings.options.max_crashes
        step.conn.execute(
            update(s.jobs).where(_j.seq.in_([r.seq for r in found])).values(crashes=_j.crashes + 1)
        )
        for r in found:
            step.tally.add(r.queue, active=-1, stalled=1)
        alive = [r for r in found if not r.cancel]
        step.end_jobs([r for r in found if r.cancel], s.CANCELLED)
        dead = [r for r in alive if r.crashes + 1 >= limit]
        step.bury([(r, f"its worker died {r.crashes + 1} times while running it", r.attempts) for r in dead])
        step.ready([r for r in alive if r.crashes + 1 < limit], head=True)
        return [Stalled(r.id, r.type, r.queue, r.crashes + 1, r.crashes + 1 >= limit) for r in found]

    def _unpark(self, step: Step, card: WorkerCard, expired: list[tuple[str, str, str, str]]) -> None:
        w, conn = s.workers.c, step.conn
        known = (
            select(s.jobs)
            .where(_j.ns == self.ns, _j.state == s.PARKED, _j.type.in_(sorted(card.types)))
            .order_by(_j.tag, _j.seq).limit(_BATCH).with_for_update(skip_locked=True)
        )  # fmt: skip
        if card.types and (found := conn.execute(known).all()):
            step.ready(found, head=True)
            for r in found:
                step.tally.add(r.queue, waiting=-1)  # it was counted as waiting all along
        late = step.now - self.settings.options.unknown_grace_s
        waits = select(_j.type).where(_j.ns == self.ns, _j.state == s.PARKED, _j.at <= late).distinct()
        unknown = set(conn.execute(waits).scalars()) - card.types
        if unknown:
            seen = conn.execute(select(w.types).where(w.ns == self.ns, w.until > late)).scalars()
            unknown -= {type_ for types in seen for type_ in json.loads(types)}
        if unknown:
            asked = select(s.jobs).where(_j.ns == self.ns, _j.state == s.PARKED, _j.at <= late)
            asked = asked.where(_j.type.in_(sorted(unknown))).limit(_BATCH).with_for_update(skip_locked=True)
            found = conn.execute(asked).all()
            for r in found:
                step.tally.add(r.queue, waiting=-1)
                expired.append((r.id, r.type, r.queue, "unknown type"))
            step.bury([(r, f"no live worker knows the job type {r.type!r}", r.attempts) for r in found])

    def _classes(self, step: Step, room: Mapping[str, int]) -> list[_Class]:
        """Return the classes with waiting jobs in queues that have room and are not paused."""
        lane, q = s.lanes.c, s.queues.c
        names = sorted(name for name, free in room.items() if free > 0)
        waiting = exists().where(
            _j.ns == lane.ns, _j.state == s.WAITING, _j.queue == lane.queue, _j.priority == lane.priority
        )
        paused = exists().where(q.ns == lane.ns, q.queue == lane.queue, q.paused)
        asked = select(lane.queue, lane.priority, lane.skipped).where(
            lane.ns == self.ns, lane.queue.in_(names), waiting, ~paused
        )
        found = []
        for row in step.conn.execute(asked):
            config = self.settings.queues[row.queue]
            found.append(_Class(row.queue, config.priority, config.share, row.priority, row.skipped))
        return found

    def _take(
        self,
        step: Step,
        card: WorkerCard,
        room: Mapping[str, int],
        total: int,
        leases: list[Lease],
        expired: list[tuple[str, str, str, str]],
    ) -> tuple[bool, float | None]:
        """Choose and hand out jobs.

        Returns:
            Whether other workers were looking at some meanwhile, and when limits let more of them start.
        """
        lanes, left, options = self._classes(step, room), dict(room), self.settings.options
        if not lanes:
            return False, None
        books = Books(step, options.limits) if options.limits else None
        every, weighted, contended = list(lanes), options.order == "weighted", False
        credit = self._credit(step) if weighted else {}
        taken: list[Any] = []
        strange: list[Any] = []
        late: list[Any] = []
        while lanes and len(taken) < total:
            before = [lane.skipped for lane in lanes], dict(credit)
            lane = choose(lanes, options.order, options.aging, credit)
            assert isinstance(lane, _Class)
            limit = min(total - len(taken), left[lane.queue])
            if not lane.locked and not self._lock(step, lane, limit, books):
                self._take_back(lanes, before[0])
                credit = before[1]
                contended = contended or (lane.last is None and (books is None or books.again_s() is None))
                lanes.remove(lane)
                continue
            row = lane.locked.popleft()
            if row.type not in card.types:
                strange.append(row)
            elif row.deadline_at is not None and row.deadline_at <= step.now:
                late.append(row)
            elif books is not None and not books.start(row):
                self._take_back(lanes, before[0])
                credit = before[1]
            else:
                taken.append(row)
                left[lane.queue] -= 1
                if not left[lane.queue]:
                    lanes = [one for one in lanes if one.queue != lane.queue]
        self._park(step, strange)
        for r in late:
            step.tally.add(r.queue, waiting=-1)
            expired.append((r.id, r.type, r.queue, "deadline"))
        step.bury([(r, "deadline passed before it could start", r.attempts) for r in late])
        leases += self._lease(step, card, taken)
        self._account(step, every, credit if weighted else None)
        if books is None:
            return contended, None
        books.close()
        return contended, books.again_s()

    @staticmethod
    def _take_back(lanes: Sequence[_Class], skipped: Sequence[int]) -> None:
        """Forget a choice that led to nothing."""
        for one, before in zip(lanes, skipped, strict=True):
            one.skipped = before

    def _lock(self, step: Step, lane: _Class, limit: int, books: Books | None) -> bool:
        """Lock the next jobs of a class that nobody else is looking at and no limit holds back."""
        asked = select(s.jobs).where(
            _j.ns == self.ns, _j.state == s.WAITING, _j.queue == lane.queue, _j.priority == lane.level
        )
        if lane.last is not None:
            tag, seq = lane.last
            asked = asked.where(or_(_j.tag > tag, (_j.tag == tag) & (_j.seq > seq)))
        if books is not None:
            asked = asked.where(*books.others())
        asked = asked.order_by(_j.tag, _j.seq).limit(limit).with_for_update(skip_locked=True)
        lane.locked.extend(step.conn.execute(asked))
        if lane.locked:
            lane.last = (lane.locked[-1].tag, lane.locked[-1].seq)
        return bool(lane.locked)

    def _lease(self, step: Step, card: WorkerCard, taken: Sequence[Any]) -> list[Lease]:
        if not taken:
            return []
        # Larger than any token before it, also when the server's clock was set back.
        token = max(int(step.now * 1e6), max(r.token for r in taken) + 1)
        values: dict[str, Any] = {
            "state": s.ACTIVE,
            "token": token,
            "worker": card.id,
            "started_at": step.now,
        }
        values |= {"at": step.now + card.lease_s, "cancel": False}
        step.conn.execute(update(s.jobs).where(_j.seq.in_([r.seq for r in taken])).values(**values))
        step.free_keys(taken, ("waiting",))
        for r in taken:
            step.tally.add(r.queue, waiting=-1, active=1)
        return [Lease(rows.record_of(r), token, r.attempts + 1, r.crashes) for r in taken]

    def _park(self, step: Step, strange: Sequence[Any]) -> None:
        if strange:
            seqs = [r.seq for r in strange]
            step.conn.execute(update(s.jobs).where(_j.seq.in_(seqs)).values(state=s.PARKED, at=step.now))

    def _credit(self, step: Step) -> dict[str, int]:
        q = s.queues.c
        asked = select(q.queue, q.credit).where(q.ns == self.ns).order_by(q.queue).with_for_update()
        return {row.queue: row.credit for row in step.conn.execute(asked)}

    def _account(self, step: Step, lanes: Sequence[_Class], credit: dict[str, int] | None) -> None:
        """Write who was passed over; relative, since other workers do so at the same time."""
        lane, q = s.lanes.c, s.queues.c
        for one in sorted(lanes, key=lambda one: (one.queue, one.level)):
            if one.skipped != one.before:
                passed = one.skipped > one.before and one.last is None
                value = lane.skipped + (one.skipped - one.before) if passed else one.skipped
                step.conn.execute(
                    update(s.lanes)
                    .where(lane.ns == self.ns, lane.queue == one.queue, lane.priority == one.level)
                    .values(skipped=value)
                )
        for queue in sorted(credit or ()):
            assert credit is not None
            step.conn.execute(
                update(s.queues).where(q.ns == self.ns, q.queue == queue).values(credit=credit[queue])
            )

    def first_listed(self, step: Step, queue: str) -> float | None:
        """Return when the oldest completed job was finished that is still listed."""
        keep = self.settings.queues[queue].keep_completed
        if not keep:
            return None
        ended = select(_j.finished_at).where(_j.ns == self.ns, _j.state == s.COMPLETED, _j.queue == queue)
        found = step.conn.execute(ended.order_by(_j.finished_at.desc()).offset(keep - 1).limit(1)).scalar()
        return 0.0 if found is None else float(found)

    def _forget_old(self, step: Step) -> None:
        """Delete finished jobs whose time has passed; those still listed stay."""
        over = select(_j.seq).where(_j.ns == self.ns, _j.at <= step.now).limit(5 * _BATCH)
        cancelled = over.where(_j.state == s.CANCELLED).with_for_update(skip_locked=True)
        seqs = list(step.conn.execute(cancelled).scalars())
        for queue in self.settings.queues:
            first = self.first_listed(step, queue)
            done = over.where(_j.state == s.COMPLETED, _j.queue == queue)
            if first is not None:
                done = done.where(_j.finished_at < first)
            seqs += step.conn.execute(done.with_for_update(skip_locked=True)).scalars()
        for i in range(0, len(seqs), _BATCH):
            step.conn.execute(delete(s.jobs).where(_j.seq.in_(seqs[i : i + _BATCH])))
        if len(seqs) >= 5 * _BATCH:
            self._forget_at = 0.0
        u, w = s.unique.c, s.workers.c
        step.conn.execute(delete(s.unique).where(u.ns == self.ns, u.until <= step.now))
        gone = step.now - _FORGET_WORKER_S - self.settings.options.unknown_grace_s
        step.conn.execute(delete(s.workers).where(w.ns == self.ns, w.until < gone))

    # -- finishing ---------------------------------------------------------------------------------

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        return self.step(lambda step: self._finish(step, outcomes)) if outcomes else []

    def _finish(self, step: Step, outcomes: Sequence[Outcome]) -> list[bool]:
        step.ask_now()
        plain = [o for o in outcomes if o.kind == "done" and not o.followers]
        accepted: set[tuple[str, int]] = set()
        rest = list(outcomes)
        if plain:
            ttl = self.settings.options.result_ttl_s
            made = [{"id": o.job_id, "token": o.token, "result": o.result} for o in plain]
            ended = step.d.complete(step.conn, self.ns, made, step.now, ttl)
            if ended is not None:
                accepted = self._completed(step, plain, ended)
                rest = [o for o in outcomes if o.kind != "done" or o.followers]
        if rest:
            accepted |= self._finish_each(step, rest)
        return _first_only(outcomes, accepted)

    def _completed(
        self, step: Step, plain: Sequence[Outcome], ended: Mapping[str, Any]
    ) -> set[tuple[str, int]]:
        step.free_keys(ended.values())
        flows.follow(step, list(ended.values()), s.COMPLETED)
        accepted = set()
        for o in plain:
            row = ended.get(o.job_id)
            if row is not None and (o.job_id, o.token) not in accepted:
                accepted.add((o.job_id, o.token))
                step.tally.add(row.queue, active=-1, completed=1, runs=1, run_s=o.run_s)
        return accepted

    def _finish_each(self, step: Step, outcomes: Sequence[Outcome]) -> set[tuple[str, int]]:
        asked = select(s.jobs).where(_j.ns == self.ns, _j.id.in_([o.job_id for o in outcomes]))
        found = {r.id: r for r in step.conn.execute(asked.order_by(_j.seq).with_for_update())}
        accepted: set[tuple[str, int]] = set()
        ends: list[tuple[Any, Outcome]] = []
        back: list[Any] = []
        for o in outcomes:
            row = found.pop(o.job_id, None)
            if row is None or row.token != o.token or row.state != s.ACTIVE:
                continue
            accepted.add((o.job_id, o.token))
            runs = {} if o.kind == "release" else {"runs": 1, "run_s": o.run_s}
            step.tally.add(row.queue, active=-1, **runs)
            if o.kind == "done":
                ends.append((row, o))
            elif o.kind == "cancelled" or (row.cancel and o.kind in ("retry", "release")):
                step.end_jobs([row], s.CANCELLED, error=o.error)
            elif o.kind == "dead":
                step.bury([(row, o.error or "failed", row.attempts + 1)])
            elif o.kind == "release":
                back.append(row)
            else:
                self._again(step, row, o)
            if o.followers:
                step.push(o.followers)
        self._complete_each(step, ends)
        step.ready(back, head=True)
        return accepted

    def _complete_each(self, step: Step, ends: Sequence[tuple[Any, Outcome]]) -> None:
        """Complete jobs, those without a result in one statement each thousand."""
        ttl = self.settings.options.result_ttl_s
        attempts = _j.attempts + 1
        empty = [row for row, o in ends if o.result is None]
        for i in range(0, len(empty), _BATCH):
            step.end_jobs(empty[i : i + _BATCH], s.COMPLETED, attempts=attempts)
        full = [(row, o) for row, o in ends if o.result is not None]
        if not full:
            return
        step.end_jobs([row for row, _ in full], s.COMPLETED, attempts=attempts, at=step.now + ttl)
        write = update(s.jobs).where(_j.seq == bindparam("b_seq")).values(result=bindparam("b_result"))
        step.conn.execute(write, [{"b_seq": row.seq, "b_result": o.result} for row, o in full])

    def _again(self, step: Step, row: Any, o: Outcome) -> None:
        step.tally.add(row.queue, retried=1)
        values: dict[str, Any] = {"attempts": row.attempts + int(o.count), "error": o.error, "worker": None}
        if o.delay_s > 0:
            values |= {"state": s.DELAYED, "at": step.now + o.delay_s}
            step.tally.add(row.queue, delayed=1, woke=1)
        step.conn.execute(update(s.jobs).where(_j.seq == row.seq).values(**values))
        if not o.delay_s > 0:
            step.ready([row])

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        card = self._card(worker)

        def work(step: Step) -> Renewed:
            self._alive(step, card)
            if not held:
                return Renewed()
            mine = select(_j.seq, _j.id, _j.token, _j.cancel).where(
                _j.ns == self.ns, _j.state == s.ACTIVE, _j.id.in_([job_id for job_id, _ in held])
            )
            found = {(r.id, r.token): r for r in step.conn.execute(mine.order_by(_j.seq).with_for_update())}
            good = [found[one].seq for one in held if one in found]
            until = step.now + card.lease_s
            for i in range(0, len(good), _BATCH):
                step.conn.execute(update(s.jobs).where(_j.seq.in_(good[i : i + _BATCH])).values(at=until))
            lost = [job_id for job_id, token in held if (job_id, token) not in found]
            return Renewed(lost, [r.id for one, r in found.items() if r.cancel and one in set(held)])

        return self.step(work, repeat=True)

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        def work(tx: Step) -> bool:
            asked = select(_j.seq, _j.steps).where(
                _j.ns == self.ns, _j.id == job_id, _j.token == token, _j.state == s.ACTIVE
            )
            row = tx.conn.execute(asked.with_for_update()).first()
            if row is None:
                return False
            values: dict[str, Any] = {}
            if progress is not None:
                values["progress"] = progress
            if step is not None:
                values["steps"] = json.dumps(sorted({*json.loads(row.steps or "[]"), step}))
            if values:
                tx.conn.execute(update(s.jobs).where(_j.seq == row.seq).values(**values))
            return True

        return self.step(work, repeat=True)

    def steps(self, job_id: str, /) -> frozenset[str]:
        asked = select(_j.steps).where(_j.ns == self.ns, _j.id == job_id)
        return frozenset(json.loads(self.look(lambda step: step.conn.execute(asked).scalar()) or "[]"))

    # -- waiting -----------------------------------------------------------------------------------

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        card = self._card(worker)
        end = time.monotonic() + timeout_s
        if self.backend.listens:
            return self._listen(card, end)
        rung, pause = self.backend.rung, 0.005
        while True:
            if news := self._news(card):
                return news
            left = end - time.monotonic()
            if left <= 0 or self._left:
                return False
            with self.backend.bell:
                if self.backend.rung == rung and not self._left:
                    self.backend.bell.wait(min(pause, left))
                rung = self.backend.rung
            pause = min(pause * 1.5, self.backend.poll_s)

    def _news(self, card: WorkerCard) -> bool | str:
        """Tell whether jobs or messages came since the last look; at the first look, whether jobs wait."""
        t, names = s.tallies.c, sorted(card.room_by_queue)
        asked = select(func.sum(t.woke), func.sum(t.called), func.sum(t.waiting))
        asked = asked.where(t.ns == self.ns, t.queue.in_(names))
        found = self.look(lambda step: step.conn.execute(asked).one())
        woke, called, waiting = (int(n or 0) for n in found)
        seen, self._seen = self._seen, (woke, called)
        if seen is None:
            return waiting > 0
        return "message" if called != seen[1] else woke != seen[0]

    def _listen(self, card: WorkerCard, end: float) -> bool | str:
        import psycopg

        try:
            if self._listener is None:
                self._listener = Listener(self.backend, self.channel)
                if news := self._news(card):
                    return news
            heard: bool | str = not self._left and self._listener.wait(end)
            return heard
        except (psycopg.Error, OSError) as error:
            self._unlisten()
            raise self.backend.lost(error) from error
        except QueueError:
            self._unlisten()
            raise

    def _unlisten(self) -> None:
        listener, self._listener, self._seen = self._listener, None, None
        if listener is not None:
            listener.close()

    def close(self) -> None:
        """Close the waiting connection; the others belong to the backend."""
        self.backend.let_go(self)
        self._unlisten()

    def interrupt(self) -> None:
        """End a running :meth:`wait`, and every later one at once."""
        self._left = True
        self.backend.ring()
        listener = self._listener
        if listener is not None:
            listener.interrupt()


def _first_only(outcomes: Sequence[Outcome], accepted: set[tuple[str, int]]) -> list[bool]:
    """Answer each outcome; of two for one lease the first."""
    answer = []
    for o in outcomes:
        answer.append((o.job_id, o.token) in accepted)
        accepted.discard((o.job_id, o.token))
    return answer
