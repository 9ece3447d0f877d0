"""Handing out jobs: which classes may be served, in which order, and what is set aside on the way."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import exists, or_, select, update

from eventperf.queues.job import Lease
from eventperf.queues.policy import Lane, choose
from eventperf.queues.protocols import Claimed, WorkerCard

from . import ends, forgetting, leases, parking, rows, shelves
from . import tables as s
from .limits import Books, take_turn
from .shelves import Place
from .tx import Tx

_j, _s = s.jobs.c, s.shelves.c

_BATCH = 1000
_CHORES_EVERY_S = 1.0
_CONTENDED_S = 0.02
_HELD_MOST = 2 * _BATCH
_LEAN = (_j.seq, _j.queue, _j.priority, _j.type, _j.turn, _j.tag)


class Chores:
    """When this process next looks after what is nobody's: one look a second, not one a claim."""

    def __init__(self) -> None:
        self.at: float = 0.0
        self._signed: dict[str, float] = {}
        self._spares: dict[str, float] = {}

    def entered(self, card: WorkerCard) -> None:
        """Note from when on a worker takes leases back."""
        self._spares[card.id] = time.monotonic() + card.spare_s

    def spare_s(self, worker: str) -> float:
        """Return for how long yet it takes none."""
        return max(0.0, self._spares.get(worker, 0.0) - time.monotonic())

    def due(self, now: float) -> bool:
        """Tell whether it is time, and count this look."""
        if now < self.at:
            return False
        self.at = now + _CHORES_EVERY_S
        return True

    def signs(self, card: WorkerCard, now: float) -> bool:
        """Tell whether a claim of this worker should say that it lives: as often as it renews."""
        if now < self._signed.get(card.id, 0.0):
            return False
        self._signed[card.id] = now + card.lease_s / 3
        return True

    def forget(self, worker: str) -> None:
        """Forget a worker that has left."""
        self._signed.pop(worker, None)
        self._spares.pop(worker, None)


class _Class(Lane):
    """A class of waiting jobs with those of its jobs that this transaction has locked."""

    __slots__ = ("before", "held", "last", "locked")

    def __init__(self, queue: str, rank: int, weight: int, level: int, skipped: int) -> None:
        super().__init__(queue, rank, weight, level, skipped)
        self.before = skipped
        self.held = 0
        self.locked: deque[Any] = deque()
        self.last: tuple[float, int] | None = None


def claim(tx: Tx, chores: Chores, card: WorkerCard, room: Mapping[str, int], total: int) -> Claimed:
    """Take back and promote what is due, then hand out up to ``total`` jobs."""
    due, ended, parked, shelved = _agenda(tx)
    answer = Claimed([])
    expired: parking.Expired = []
    if due is not None and due <= tx.now:
        _promote(tx)
    if ended is not None:
        ended = max(ended, tx.now + spare_s) if (spare_s := chores.spare_s(card.id)) else ended
        if ended <= tx.now:
            answer.stalled = leases.reap(tx, card)
    if parked:
        parking.unpark(tx, card)
    taking = _Taking(tx, card, room, total, shelved)
    taking.take()
    expired += taking.expired
    answer.leases = taking.leases
    if chores.due(tx.now):
        if parked:
            expired += parking.give_up(tx, card)
        if forgetting.forget(tx):
            chores.at = 0.0
    if chores.signs(card, tx.now):
        leases.sign_of_life(tx, card)
    answer.expired = expired
    answer.next_in_s = _next_in_s(tx, card, taking, [at for at in (due, ended) if at is not None])
    return answer


def _next_in_s(tx: Tx, card: WorkerCard, taking: _Taking, times: Sequence[float]) -> float | None:
    soon = [max(0.0, at - tx.now) for at in times]
    if taking.leases:  # their own leases end later than any of the others looked at
        soon.append(card.lease_s)
    if len(taking.leases) < taking.total:
        if taking.again_s is not None:
            soon.append(taking.again_s)
        if taking.contended:
            soon.append(_CONTENDED_S)
    return min(soon, default=None)


def _agenda(tx: Tx) -> tuple[float | None, float | None, bool, float | None]:
    """Read, with the time, when the store next has something to do by itself."""

    def first(state: int) -> Any:
        at = select(_j.at).where(_j.ns == tx.ns, s.in_state(state)).order_by(_j.at).limit(1)
        return at.scalar_subquery()

    shelf = select(_s.at).where(_s.ns == tx.ns).order_by(_s.at).limit(1).scalar_subquery()
    asked = [first(s.DELAYED), first(s.ACTIVE), first(s.PARKED), shelf]
    if tx.now:
        due, ended, parked, shelved = tx.conn.execute(select(*asked)).one()
    else:
        now, due, ended, parked, shelved = tx.conn.execute(select(tx.d.now, *asked)).one()
        tx.now = float(now)
    return _when(due), _when(ended), parked is not None, shelved


def _when(at: float | None) -> float | None:
    """Return a time to look at; now for one that is damaged."""
    if at is None or at == s.NEVER:
        return None
    return 0.0 if at != at or at > s.BEYOND else at


def _promote(tx: Tx) -> None:
    """Let jobs wait that are due."""
    asked = select(s.jobs).where(_j.ns == tx.ns, s.in_state(s.DELAYED), s.is_due(tx.now))
    asked = asked.order_by(_j.at, _j.seq).limit(_BATCH).with_for_update(skip_locked=True)
    found = tx.conn.execute(asked).all()
    for row in found:
        tx.tally.add(row.queue, delayed=-1)
    tx.ready(found)


class _Taking:
    """The choice of one claim.

    Attributes:
        contended: Whether other workers were looking at some jobs meanwhile.
        again_s: When limits let more of them start.
    """

    def __init__(
        self, tx: Tx, card: WorkerCard, room: Mapping[str, int], total: int, shelved: float | None
    ) -> None:
        self._tx = tx
        self._shelved = shelved
        self._card = card
        self._left = dict(room)
        self.total: int = total
        self._options = tx.home.settings.options
        self._books: Books | None = None
        self._held: list[tuple[Any, Place]] = []
        self._strange: list[Any] = []
        self._late: list[Any] = []
        self._taken: list[Any] = []
        self.leases: list[Lease] = []
        self.expired: parking.Expired = []
        self.contended: bool = False
        self.again_s: float | None = None

    def take(self) -> None:
        """Choose and hand out jobs."""
        names = sorted(name for name, free in self._left.items() if free > 0)
        if self._shelved is not None and self._shelved <= self._tx.now:
            self._open_shelves(names)
        elif self._shelved is not None:
            self._look_again([self._shelved])
        lanes = self._classes(names)
        if not lanes:
            return
        self._take_turn({lane.queue for lane in lanes})
        weighted = self._options.order == "weighted"
        credit = self._choose(lanes, self._credit() if weighted else {})
        parking.park(self._tx, self._strange)
        self._expire()
        self._lease()
        self._account(lanes, credit if weighted else None)
        if self._books is not None:
            self._books.close()
            shelves.put(self._tx, self._held)
            self._look_again(self._books.again_at(place) for place in {place for _, place in self._held})

    def _take_turn(self, queues: Collection[str]) -> None:
        """Open the books where limits concern what is served."""
        if self._books is not None:
            return
        limits = [one for one in self._options.limits if one.queue is None or one.queue in queues]
        if limits or self._shelved is not None:
            take_turn(self._tx)
            self._books = Books(self._tx, limits)

    def _open_shelves(self, queues: Sequence[str]) -> None:
        """Let those jobs wait again that their limit lets through by now."""
        self._take_turn(queues)
        books, tx = self._books, self._tx
        assert books is not None
        due = shelves.due(tx, queues)  # locked before anything is counted: who ends a job marks them
        books.learn_places((row.scope, row.turn) for row in due)
        full, opening = list[tuple[Any, float]](), list[tuple[Any, int]]()
        for row in due:
            place = row.scope, row.turn
            if (free := books.free(place)) > 0:
                opening.append((row, int(min(free, self.total))))
            else:
                full.append((row, max(books.again_at(place), tx.now + 0.001)))
        shelves.look_later(tx, full)
        shelves.open_up(tx, opening)
        if (at := shelves.next_at(tx)) is not None:
            self._look_again([at])

    def _look_again(self, times: Iterable[float]) -> None:
        soon = [max(0.001, at - self._tx.now) for at in times]
        self.again_s = min(soon + ([] if self.again_s is None else [self.again_s]), default=None)

    def _choose(self, every: Sequence[_Class], credit: dict[str, int]) -> dict[str, int]:
        lanes = list(every)
        while lanes and len(self._taken) < self.total:
            before = [lane.skipped for lane in lanes], dict(credit)
            lane = choose(lanes, self._options.order, self._options.aging, credit)
            assert isinstance(lane, _Class)
            if not lane.locked and not self._lock(lane):
                _take_back(lanes, before[0])
                credit = before[1]
                self.contended = self.contended or lane.last is None
                lanes.remove(lane)
                continue
            row = lane.locked.popleft()
            if row.type not in self._card.types:
                self._strange.append(row)
            elif row.deadline_at is not None and row.deadline_at <= self._tx.now:
                self._late.append(row)
            elif self._books is not None and (place := self._books.bar(row)) is not None:
                self._held.append((row, place))
                lane.held += 1
                _take_back(lanes, before[0])
                credit = before[1]
            else:
                if self._books is not None:
                    self._books.start(row)
                self._taken.append(row)
                self._left[lane.queue] -= 1
                if not self._left[lane.queue]:
                    lanes = [one for one in lanes if one.queue != lane.queue]
        return credit

    def _classes(self, names: Sequence[str]) -> list[_Class]:
        """Return the classes with waiting jobs in those of some queues that are not paused."""
        lane, q = s.lanes.c, s.queues.c
        waiting = exists().where(
            _j.ns == lane.ns, s.in_state(s.WAITING), _j.queue == lane.queue, _j.priority == lane.priority
        )
        paused = exists().where(q.ns == lane.ns, q.queue == lane.queue, q.paused)
        asked = select(lane.queue, lane.priority, lane.skipped).where(
            lane.ns == self._tx.ns, lane.queue.in_(names), waiting, ~paused
        )
        found = []
        for row in self._tx.conn.execute(asked):
            config = self._tx.home.settings.queues[row.queue]
            found.append(_Class(row.queue, config.priority, config.share, row.priority, row.skipped))
        return found

    def _lock(self, lane: _Class) -> bool:
        """Lock the next jobs of a class that nobody else is looking at."""
        if lane.held and not self._pass_over(lane):
            return False
        limit = min(self.total - len(self._taken), self._left[lane.queue])
        lane.locked.extend(self._tx.conn.execute(self._next(lane, [s.jobs], limit)))
        if lane.locked:
            lane.last = (lane.locked[-1].tag, lane.locked[-1].seq)
            if self._books is not None:
                self._books.learn(lane.locked)
        return bool(lane.locked)

    def _next(self, lane: _Class, columns: Sequence[Any], limit: int) -> Any:
        asked = select(*columns).where(
            _j.ns == self._tx.ns, s.in_state(s.WAITING), _j.queue == lane.queue, _j.priority == lane.level
        )
        if lane.last is not None:
            tag, seq = lane.last
            asked = asked.where(_j.tag >= tag, or_(_j.tag > tag, _j.seq > seq))
        return asked.order_by(_j.tag, _j.seq).limit(limit).with_for_update(skip_locked=True)

    def _pass_over(self, lane: _Class) -> bool:
        """Set aside what stands next in a class and is held back too; false after enough for one claim.

        In steps that grow with what was found, so that it costs what it saves the next claims.
        """
        assert self._books is not None
        while len(self._held) < _HELD_MOST:
            step = max(16, min(2 * lane.held, _HELD_MOST))
            found = self._tx.conn.execute(self._next(lane, _LEAN, step)).all()
            self._books.learn(found)
            for row in found:
                if (place := self._books.bar(row)) is None:
                    return True
                self._held.append((row, place))
                lane.held += 1
                lane.last = (row.tag, row.seq)
            if len(found) < step:
                return True
        self._look_again([self._tx.now])
        return False

    def _expire(self) -> None:
        """Bury the jobs whose deadline has passed."""
        for row in self._late:
            self._tx.tally.add(row.queue, waiting=-1)
            self.expired.append((row.id, row.type, row.queue, "deadline"))
        reason = "deadline passed before it could start"
        ends.bury(self._tx, [(row, reason, row.attempts) for row in self._late])

    def _lease(self) -> None:
        if not self._taken:
            return
        tx, card = self._tx, self._card
        # Larger than any token before it, also when the server's clock was set back.
        token = max(int(tx.now * 1e6), max(row.token for row in self._taken) + 1)
        values: dict[str, Any] = {
            "state": s.ACTIVE, "token": token, "worker": card.id, "started_at": tx.now,
            "at": tx.now + card.lease_s, "cancel": False,
        }  # fmt: skip
        seqs = [row.seq for row in self._taken]
        for i in range(0, len(seqs), _BATCH):
            tx.conn.execute(update(s.jobs).where(_j.seq.in_(seqs[i : i + _BATCH])).values(**values))
        ends.free_keys(tx, self._taken, ("waiting",))
        for row in self._taken:
            tx.tally.add(row.queue, waiting=-1, active=1)
        self.leases = [rows.lease_of(row, token) for row in self._taken]

    def _credit(self) -> dict[str, int]:
        q = s.queues.c
        asked = select(q.queue, q.credit).where(q.ns == self._tx.ns).order_by(q.queue).with_for_update()
        return {row.queue: row.credit for row in self._tx.conn.execute(asked)}

    def _account(self, lanes: Sequence[_Class], credit: dict[str, int] | None) -> None:
        """Write who was passed over, all that were so equally often in one statement.

        Relative, since other workers do so at the same time; in one order, lest two wait for each other.
        """
        tx, lane, q = self._tx, s.lanes.c, s.queues.c
        changed: dict[tuple[str, bool, int], list[int]] = defaultdict(list)
        for one in lanes:
            if one.skipped != one.before:
                passed = one.skipped > one.before and one.last is None
                by = one.skipped - one.before if passed else one.skipped
                changed[one.queue, passed, by].append(one.level)
        if len(changed) > 1 or any(len(levels) > 1 for levels in changed.values()):
            mine = select(lane.queue).where(
                lane.ns == tx.ns, lane.queue.in_({queue for queue, _, _ in changed})
            )
            tx.conn.execute(mine.order_by(lane.queue, lane.priority).with_for_update()).all()
        for (queue, passed, by), levels in sorted(changed.items()):
            some = update(s.lanes).where(lane.ns == tx.ns, lane.queue == queue, lane.priority.in_(levels))
            tx.conn.execute(some.values(skipped=lane.skipped + by if passed else by))
        for queue in sorted(credit or ()):
            assert credit is not None
            mine_ = update(s.queues).where(q.ns == tx.ns, q.queue == queue)
            tx.conn.execute(mine_.values(credit=credit[queue]))


def _take_back(lanes: Sequence[_Class], skipped: Sequence[int]) -> None:
    """Forget a choice that led to nothing."""
    for one, before in zip(lanes, skipped, strict=True):
        one.skipped = before
