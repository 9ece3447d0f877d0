"""The job store in SQL: each verb is one transaction, and what it does stands in the modules beside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy.engine import Connection

from eventperf._core.logs import logger
from eventperf.queues.errors import QueueError, SchemaMissing, StoreUnavailable
from eventperf.queues.job import JobInfo, JobState, NewJob, QueueStatus, WorkerInfo
from eventperf.queues.minutes import Interval
from eventperf.queues.protocols import Change, Claimed, Found, JobQuery, Outcome, Renewed, WorkerCard

from . import (
    arrivals,
    changing,
    claiming,
    counting,
    finding,
    finishing,
    leases,
    measuring,
    operating,
    scheduling,
    shelves,
)
from .tx import Home, Run, Tx
from .waiting import Ear, House

if TYPE_CHECKING:
    from .waiting import Doorbell

T = TypeVar("T")

_log = logger("eventperf.queues")

_BATCH = 1000


class Database(House, Protocol):
    """What a store needs of the backend: transactions, and whom to tell."""

    @property
    def home(self) -> Home: ...
    @property
    def doorbell(self) -> Doorbell: ...
    def run(
        self, work: Callable[[Connection], T], *, write: bool = True, repeat: bool = False, lane: str = ""
    ) -> T: ...
    def left(self, worker: str) -> None: ...
    def let_go(self, lane: str) -> None: ...


class SqlStore:
    """A :class:`~eventperf.queues.protocols.JobStore` in one set of tables.

    Args:
        database: Where.
        lane: Connections of its own that its transactions go over; the shared ones by default.
    """

    def __init__(self, database: Database, lane: str = "") -> None:
        self._database = database
        self._lane = lane
        self._home = database.home
        self._cards: dict[str, WorkerCard] = {}
        self._chores = claiming.Chores()
        self._ear = Ear(database, self._home.channel, self._look)
        self._appended = 0
        self._counting = measuring.Counting()

    def _step(self, work: Callable[[Tx], T], *, repeat: bool = False) -> T:
        """Do ``work`` in a transaction that changes something."""

        self._write_minutes()  # of steps before: who waits for this one is answered first

        def inside(conn: Connection) -> tuple[T, bool, int, list[Run]]:
            tx = Tx(self._home, conn)
            answer = work(tx)
            shelves.give_back(tx)
            appended = tx.end()
            return answer, tx.tally.woke or tx.tally.called, appended, tx.runs

        answer, woke, appended, runs = self._database.run(inside, repeat=repeat, lane=self._lane)
        if runs:
            self._counting.add(runs)
        if woke:
            self._database.doorbell.ring()
        self._appended += appended
        if self._appended >= counting.FOLD_EVERY and not self._lane:
            self._appended = 0
            self._database.run(lambda conn: counting.fold(Tx(self._home, conn)))
        return answer

    def _write_minutes(self, *, now: bool = False) -> None:
        def do(work: Callable[[Tx], None]) -> None:
            self._database.run(lambda conn: work(Tx(self._home, conn)), lane=self._lane)

        try:
            self._counting.write(do, now=now)
        except (
            QueueError
        ) as error:  # the step they belong to has been done; they are written with a later one
            _log.debug("minutes are not written yet: %s", error)

    def _look(self, work: Callable[[Tx], T]) -> T:
        """Do ``work`` in a transaction that only reads."""
        return self._database.run(
            lambda conn: work(Tx(self._home, conn)), write=False, repeat=True, lane=self._lane
        )

    # -- producers ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        return self._step(lambda tx: arrivals.push(tx, jobs), repeat=True)

    def push_on(self, conn: Connection, jobs: Sequence[NewJob]) -> list[str]:
        """Push on a connection whose transaction belongs to somebody else."""
        tx = Tx(self._home, conn)
        ids = arrivals.push(tx, jobs)
        tx.end()
        return ids

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        return self._look(lambda tx: operating.fetch(tx, ids)) if ids else []

    def counts(self) -> list[QueueStatus]:
        return self._look(counting.counts)

    def load(self) -> tuple[int, int, float]:
        return self._look(counting.load)

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        return self._step(lambda tx: scheduling.fire(tx, name, slot, job, late), repeat=True)

    def time(self) -> float:
        return self._look(lambda tx: tx.ask_now())

    # -- operators ---------------------------------------------------------------------------------

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        return self._look(lambda tx: operating.listing(tx, queue, state, offset, limit))

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        return self._step(lambda tx: operating.cancel(tx, ids), repeat=True) if ids else []

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        if ids is not None and len(ids) > _BATCH:  # a statement has so many parameters at most
            return self._replay_many(queue, ids, limit)
        total, after = 0, None
        while limit is None or total < limit:
            most = min(_BATCH, (limit or 10**9) - total)
            n, after = self._step(lambda tx: operating.replay(tx, queue, ids, most, after))  # noqa: B023
            total += n
            if after is None:
                break
        return total

    def _replay_many(self, queue: str, ids: Sequence[str], limit: int | None) -> int:
        total = 0
        for i in range(0, len(ids), _BATCH):
            left = None if limit is None else limit - total
            total += self.replay(queue, ids[i : i + _BATCH], limit=left)
        return total

    def purge(self, queue: str, state: JobState, /) -> int:
        total = 0
        while n := self._step(lambda tx: operating.purge(tx, queue, state)):
            total += n
        return total

    def set_paused(self, queue: str, paused: bool, /) -> None:
        self._step(lambda tx: operating.set_paused(tx, queue, paused), repeat=True)

    # -- consoles ----------------------------------------------------------------------------------

    def find(self, query: JobQuery, /) -> Found:
        return self._look(lambda tx: finding.find(tx, query))

    def update(self, job_id: str, change: Change, /) -> JobState | None:
        return self._step(lambda tx: changing.change(tx, job_id, change))

    def minutes(self, span_s: float, /) -> tuple[float, list[Interval]]:
        self._write_minutes(now=True)
        return self._look(lambda tx: measuring.since(tx, span_s))

    def children(self, job_id: str, limit: int, /) -> list[JobInfo]:
        return self._look(lambda tx: operating.children(tx, job_id, limit))

    def delete(self, queue: str, ids: Sequence[str], /) -> int:
        total = 0
        for i in range(0, len(ids), _BATCH):
            some = ids[i : i + _BATCH]
            total += self._step(lambda tx, some=some: operating.erase(tx, queue, some))  # type: ignore[misc]
        return total

    def roster(self) -> list[WorkerInfo]:
        return self._look(counting.roster)

    # -- workers -----------------------------------------------------------------------------------

    def adopt(self, card: WorkerCard) -> None:
        """Know a worker that another face has introduced."""
        self._cards[card.id] = card

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        self._step(lambda tx: leases.enter(tx, card, held), repeat=True)
        self._cards[card.id] = card
        self._chores.entered(card)

    def leave(self, worker: str, /) -> None:
        self._write_minutes(now=True)
        self._cards.pop(worker, None)
        self._chores.forget(worker)
        try:
            self._step(lambda tx: leases.leave(tx, worker), repeat=True)
        finally:
            self._database.left(worker)

    def _card(self, worker: str) -> WorkerCard:
        if worker not in self._cards:
            raise QueueError(f"worker {worker!r} has not introduced itself to this process")
        return self._cards[worker]

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        card = self._card(worker)
        return self._step(lambda tx: claiming.claim(tx, self._chores, card, room, total))

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        """Record outcomes; one that the database refuses ends that job and holds up no other."""
        if not outcomes:
            return []
        try:
            return self._step(lambda tx: finishing.finish(tx, outcomes))
        except (StoreUnavailable, SchemaMissing):
            raise
        except QueueError as error:
            if len(outcomes) > 1:
                half = len(outcomes) // 2
                return self.finish(outcomes[:half]) + self.finish(outcomes[half:])
            if outcomes[0].kind == "dead" and outcomes[0].error == _UNTOLD:
                raise
            return self.finish([_refused(outcomes[0], error)])

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        card = self._card(worker)
        return self._step(lambda tx: leases.renew(tx, card, held), repeat=True)

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        return self._step(lambda tx: finishing.note(tx, job_id, token, progress, step), repeat=True)

    def steps(self, job_id: str, /) -> frozenset[str]:
        return self._look(lambda tx: finishing.steps(tx, job_id))

    # -- waiting -----------------------------------------------------------------------------------

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        return self._ear.wait(self._card(worker), timeout_s)

    def close(self) -> None:
        """Close the waiting connection; the others belong to the backend."""
        self._ear.close()
        self._database.let_go(self._lane)

    def interrupt(self) -> None:
        """End a running :meth:`wait`, and every later one at once."""
        self._ear.interrupt()


_UNTOLD = "its outcome could not be stored"


def _refused(outcome: Outcome, error: Exception) -> Outcome:
    """Return what is stored in place of an outcome that the database refuses: that it did."""
    told = outcome.error != _UNTOLD and outcome.kind != "dead"
    reason = f"{_UNTOLD}: {error}"[:500] if told else _UNTOLD
    return dataclasses.replace(outcome, kind="dead", error=reason, result=None, followers=())
