"""A job store as a stranger writes it: from ``queues.protocols`` and its page of the docs alone.

One list of cards behind one lock, read from end to end at every claim. No heaps, no lanes kept in order, no
limits, no flows, no listening while busy: the shape has nothing in common with the stores of the package.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from eventperf.queues import JobInfo, JobState, QueueManager, QueueStatus
from eventperf.queues.job import JobRecord, Lease, NewJob
from eventperf.queues.manager import backends
from eventperf.queues.policy import Lane, choose
from eventperf.queues.protocols import (
    ENGINE,
    AsyncJobStore,
    Claimed,
    JobStore,
    Outcome,
    Renewed,
    Stalled,
    StoreSettings,
    WorkerCard,
)
from eventperf.testing.queues import JobStoreSuite

ENDED = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
RATE_S = 60.0


@dataclass(eq=False)
class Card:
    """One job, whatever its state."""

    record: JobRecord
    state: JobState = JobState.WAITING
    place: float = 0.0  # in its class; a job that was handed back keeps it and so comes first
    head: bool = False
    since: float = 0.0  # ready, due, leased until, or ended: what the state makes of it
    token: int = 0
    worker: str | None = None
    attempts: int = 0
    crashes: int = 0
    started: float | None = None
    cancel: bool = False
    error: str | None = None
    result: bytes | None = None
    progress: float | None = None
    steps: set[str] = field(default_factory=set)
    strange_since: float | None = None


@dataclass
class Peer:
    card: WorkerCard
    until: float
    renewed: float = 0.0
    bell: threading.Event = field(default_factory=threading.Event)
    told: bool = False


class ShelfStore:
    """The verbs for threads."""

    def __init__(self, settings: StoreSettings) -> None:
        self.queues, self.options = settings.queues, settings.options
        self.now = settings.clock.time
        self.mu = threading.RLock()
        self.cards: dict[str, Card] = {}
        self.peers: dict[str, Peer] = {}
        self.unique: dict[tuple[str, str], tuple[str, float]] = {}
        self.lanes: dict[tuple[str, int], Lane] = {}
        self.turns: dict[tuple[str, int, str], int] = {}
        self.credit: dict[str, int] = {}
        self.totals: dict[str, Counter[str]] = {name: Counter() for name in self.queues}
        self.moments: dict[tuple[str, str], deque[float]] = {}
        self.paused: set[str] = set()
        self.runs: deque[float] = deque(maxlen=500)
        self.slots: dict[str, float] = {}
        self.n = count(1)

    # -- producers ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        with self.mu:
            return [self._push(new, self.now()) for new in jobs]

    def _push(self, new: NewJob, now: float) -> str:
        record = new.record
        if record.id in self.cards:
            return record.id
        if record.unique_key is not None and (holder := self._hold(record, now)) != record.id:
            return holder
        record.created_at = now
        if new.deadline_s is not None:
            record.deadline_at = now + new.deadline_s
        card = self.cards[record.id] = Card(record)
        self._count(record.queue, "enqueued", now)
        if new.delay_s > 0:
            card.state, card.since = JobState.DELAYED, now + new.delay_s
            self._ring()  # somebody may have to wake earlier than it thinks
        else:
            self._shelve(card, now)
        return record.id

    def _hold(self, record: JobRecord, now: float) -> str:
        name = record.type, str(record.unique_key)
        holder, end = self.unique.get(name, ("", 0.0))
        if holder and end > now:
            return holder
        life = float("inf") if isinstance(record.unique_for, str) else record.unique_for
        self.unique[name] = record.id, now + life
        return record.id

    def _unhold(self, record: JobRecord) -> None:
        name = record.type, str(record.unique_key)
        if isinstance(record.unique_for, str) and self.unique.get(name, ("", 0.0))[0] == record.id:
            del self.unique[name]

    def _shelve(self, card: Card, now: float, *, back: bool = False) -> None:
        card.state, card.since, card.worker, card.strange_since = JobState.WAITING, now, None, None
        card.head = back
        if not back:
            card.place = next(self.n)
        self._ring(card.record.queue)

    def _ring(self, queue: str | None = None) -> None:
        for peer in self.peers.values():
            if queue is None or queue in peer.card.room_by_queue:
                peer.bell.set()

    def _count(self, queue: str, what: str, now: float) -> None:
        self.totals[queue][what] += 1
        self.moments.setdefault((queue, what), deque(maxlen=10_000)).append(now)

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        with self.mu:
            self._forget()
            return [self._info(self.cards[i]) if i in self.cards else None for i in ids]

    def _info(self, card: Card) -> JobInfo:
        r, active, ended = card.record, card.state is JobState.ACTIVE, card.state in ENDED
        return JobInfo(
            id=r.id, type=r.type, queue=r.queue, state=card.state, priority=r.priority,
            attempt=card.attempts + active, crashes=card.crashes, created_at=r.created_at,
            due_at=card.since if card.state is JobState.DELAYED else None,
            started_at=card.started if active or ended else None,
            finished_at=card.since if ended else None, worker=card.worker if active else None,
            progress=card.progress, error=card.error, result=card.result, payload=r.payload, key=r.key,
            headers=dict(r.headers or {}),
        )  # fmt: skip

    def counts(self) -> list[QueueStatus]:
        with self.mu:
            now = self.now()
            return [self._status(name, now) for name in self.queues]

    def _status(self, name: str, now: float) -> QueueStatus:
        cards = self._of(name)
        states, totals = Counter(card.state for card in cards), self.totals[name]
        oldest = min((card.since for card in cards if card.state is JobState.WAITING), default=now)
        return QueueStatus(
            name=name, priority=self.queues[name].priority, waiting=states[JobState.WAITING],
            delayed=states[JobState.DELAYED], active=states[JobState.ACTIVE], completed=totals["completed"],
            failed=totals["failed"], cancelled=totals["cancelled"], retried=totals["retried"],
            stalled=totals["stalled"], dead=states[JobState.FAILED], enqueued=totals["enqueued"],
            replayed=totals["replayed"], trimmed=totals["trimmed"], lapsed=totals["lapsed"],
            paused=name in self.paused,
            workers=sum(name in peer.card.room_by_queue for peer in self._live(now)),
            oldest_wait_s=max(0.0, now - oldest), arrival_rate=self._rate(name, ["enqueued"], now),
            service_rate=self._rate(name, ["completed", "failed", "cancelled"], now),
        )  # fmt: skip

    def _rate(self, queue: str, kinds: Iterable[str], now: float) -> float:
        return sum(t > now - RATE_S for kind in kinds for t in self.moments.get((queue, kind), ())) / RATE_S

    def _live(self, now: float) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.until > now]

    def load(self) -> tuple[int, int, float]:
        with self.mu:
            live = self._live(self.now())
            mean = sum(self.runs) / len(self.runs) if self.runs else 0.0
            return len(live), sum(peer.card.slots for peer in live), mean

    def _of(self, queue: str, *states: JobState) -> list[Card]:
        return [
            c for c in self.cards.values() if c.record.queue == queue and (not states or c.state in states)
        ]

    # -- operators ---------------------------------------------------------------------------------

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        with self.mu:
            self._forget()
            found = self._of(queue, state)
            if state is JobState.WAITING:
                found.sort(key=lambda c: (-c.record.priority, not c.head, c.place))
            elif state in ENDED:
                found.reverse()  # those that end go to the end of the shelf
            else:
                found.sort(key=lambda c: c.since)
            if state is JobState.COMPLETED:
                found = found[: self.queues[queue].keep_completed]
            return [self._info(card) for card in found[offset : offset + limit]]

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        with self.mu:
            return [self._cancel(self.cards.get(i)) for i in ids]

    def _cancel(self, card: Card | None) -> bool:
        if card is None or card.state in ENDED:
            return False
        if card.state is not JobState.ACTIVE:
            self._end(card, JobState.CANCELLED)
            return True
        card.cancel = True
        if (peer := self.peers.get(card.worker or "")) is not None:
            peer.told = True
            peer.bell.set()
        return True

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        with self.mu:
            now, n = self.now(), 0
            for card in self._of(queue, JobState.FAILED):
                record = card.record
                if (ids is not None and record.id not in ids) or (limit is not None and n >= limit):
                    continue
                held = isinstance(record.unique_for, str) and record.unique_key is not None
                if held and self._hold(record, now) != record.id:
                    continue
                card.attempts = card.crashes = 0
                card.error = record.deadline_at = None
                self._shelve(card, now)
                self.totals[queue]["replayed"] += 1
                n += 1
            return n

    def purge(self, queue: str, state: JobState, /) -> int:
        with self.mu:
            found = self._of(queue, state)
            for card in found:
                if state in ENDED:
                    del self.cards[card.record.id]
                else:
                    self._end(card, JobState.CANCELLED)
            return len(found)

    def set_paused(self, queue: str, paused: bool, /) -> None:
        with self.mu:
            (self.paused.add if paused else self.paused.discard)(queue)
            self._ring(queue)

    # -- workers -----------------------------------------------------------------------------------

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        with self.mu:
            now = self.now()
            peer = self.peers.setdefault(card.id, Peer(card, 0.0))
            peer.card, peer.until = card, now + 3 * card.lease_s
            for mine in self.cards.values():
                if mine.state is JobState.ACTIVE and mine.worker == card.id and mine.record.id not in held:
                    self._return(mine, now)

    def leave(self, worker: str, /) -> None:
        with self.mu:
            if (peer := self.peers.pop(worker, None)) is not None:
                peer.bell.set()

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        with self.mu:
            now, peer = self.now(), self.peers[worker]
            peer.bell.clear()
            peer.until = max(peer.until, now + 2 * peer.card.lease_s)
            self._due(now)
            answer = Claimed([], stalled=self._orphans(now), expired=self._hopeless(now))
            answer.leases = self._take(peer.card, {q: n for q, n in room.items() if n > 0}, total, now)
            waits = [c.since for c in self.cards.values() if c.state in (JobState.DELAYED, JobState.ACTIVE)]
            answer.next_in_s = max(0.0, min(waits) - now) if waits else None
            return answer

    def _due(self, now: float) -> None:
        due = [c for c in self.cards.values() if c.state is JobState.DELAYED and c.since <= now]
        for card in sorted(due, key=lambda c: c.since):
            self._shelve(card, now)

    def _orphans(self, now: float) -> list[Stalled]:
        found = []
        for card in [c for c in self.cards.values() if c.state is JobState.ACTIVE and c.since <= now]:
            peer = self.peers.get(card.worker or "")
            if peer is not None and peer.renewed > card.since - peer.card.lease_s:
                self.totals[card.record.queue]["lapsed"] += 1  # it lives, and has not asked for this one
                self._return(card, now)
                continue
            card.crashes += 1
            dead = card.crashes >= self.options.max_crashes and not card.cancel
            self.totals[card.record.queue]["stalled"] += 1
            if dead:
                card.error = f"its worker died {card.crashes} times while running it"
                self._end(card, JobState.FAILED)
            else:
                self._return(card, now)
            record = card.record
            found.append(Stalled(record.id, record.type, record.queue, card.crashes, dead))
        return found

    def _hopeless(self, now: float) -> list[tuple[str, str, str, str]]:
        known = {type_ for peer in self._live(now) for type_ in peer.card.types}
        found = []
        for card in [c for c in self.cards.values() if c.state is JobState.WAITING]:
            record, reason = card.record, ""
            if record.type in known:
                card.strange_since = None
            elif card.strange_since is None:
                card.strange_since = now
            elif now >= card.strange_since + self.options.unknown_grace_s:
                reason, card.error = "unknown type", f"no live worker knows the job type {record.type!r}"
            if record.deadline_at is not None and record.deadline_at <= now:
                reason, card.error = "deadline", "deadline passed before it could start"
            if reason:
                self._end(card, JobState.FAILED)
                found.append((record.id, record.type, record.queue, reason))
        return found

    def _take(self, me: WorkerCard, room: dict[str, int], total: int, now: float) -> list[Lease]:
        ready: dict[tuple[str, int], list[Card]] = {}
        for card in self.cards.values():
            record = card.record
            if card.state is JobState.WAITING and record.queue in room and record.type in me.types:
                ready.setdefault((record.queue, record.priority), []).append(card)
        ready = {of: cards for of, cards in ready.items() if of[0] not in self.paused}
        lines = {of: self._by_key(cards) for of, cards in ready.items()}
        leases: list[Lease] = []
        while lines and len(leases) < total:
            lanes = [self._lane(*of) for of in lines]
            lane = choose(lanes, self.options.order, self.options.aging, self.credit)
            of = lane.queue, lane.level
            leases.append(self._lease(self._next(of, lines[of]), me, now))
            room[lane.queue] -= 1
            lines = {o: line for o, line in lines.items() if line and room[o[0]]}
        return leases

    def _lane(self, queue: str, level: int) -> Lane:
        config = self.queues[queue]
        return self.lanes.setdefault((queue, level), Lane(queue, config.priority, config.share, level))

    @staticmethod
    def _by_key(cards: list[Card]) -> dict[str, deque[Card]]:
        lines: dict[str, deque[Card]] = {}
        for card in sorted(cards, key=lambda c: (not c.head, c.place)):
            lines.setdefault(card.record.key, deque()).append(card)
        return lines

    def _next(self, of: tuple[str, int], lines: dict[str, deque[Card]]) -> Card:
        """Let the fairness keys of a class take turns; what came back is first."""
        key = min(lines, key=lambda k: (not lines[k][0].head, self.turns.get((*of, k), 0), lines[k][0].place))
        self.turns[(*of, key)] = next(self.n)
        card = lines[key].popleft()
        if not lines[key]:
            del lines[key]
        return card

    def _lease(self, card: Card, me: WorkerCard, now: float) -> Lease:
        card.state, card.worker, card.since, card.started = JobState.ACTIVE, me.id, now + me.lease_s, now
        card.token = next(self.n)
        if card.record.unique_for == "waiting":
            self._unhold(card.record)
        return Lease(card.record, card.token, card.attempts + 1, card.crashes)

    def _return(self, card: Card, now: float) -> None:
        card.token = 0
        if card.cancel:
            self._end(card, JobState.CANCELLED)
        else:
            self._shelve(card, now, back=True)

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        with self.mu:
            return [self._finish(outcome, self.now()) for outcome in outcomes]

    def _held(self, job_id: str, token: int) -> Card | None:
        card = self.cards.get(job_id)
        return card if card is not None and card.state is JobState.ACTIVE and card.token == token else None

    def _finish(self, outcome: Outcome, now: float) -> bool:
        card = self._held(outcome.job_id, outcome.token)
        if card is None:
            return False
        if outcome.kind != "release":
            self.runs.append(outcome.run_s)
            card.error = outcome.error
        card.attempts += outcome.kind in ("done", "dead") or (outcome.kind == "retry" and outcome.count)
        if outcome.kind == "release":
            self._return(card, now)
        elif outcome.kind == "cancelled" or (outcome.kind == "retry" and card.cancel):
            self._end(card, JobState.CANCELLED)
        elif outcome.kind == "retry":
            self.totals[card.record.queue]["retried"] += 1
            self._retry(card, outcome.delay_s, now)
        else:
            card.result = outcome.result
            self._end(card, JobState.COMPLETED if outcome.kind == "done" else JobState.FAILED)
        for new in outcome.followers:
            self._push(new, now)
        return True

    def _retry(self, card: Card, delay_s: float, now: float) -> None:
        card.token = 0
        if delay_s > 0:
            card.state, card.since = JobState.DELAYED, now + delay_s
            self._ring()
        else:
            self._shelve(card, now)

    def _end(self, card: Card, state: JobState) -> None:
        record = card.record
        card.state, card.since, card.token, card.progress = state, self.now(), 0, None
        if record.unique_key is not None:
            self._unhold(record)
        self._count(record.queue, state.value, card.since)
        self.cards[record.id] = self.cards.pop(record.id)
        keep = self.queues[record.queue].keep_failed
        if state is JobState.FAILED and keep is not None:
            dead = self._of(record.queue, JobState.FAILED)
            for old in dead[: max(0, len(dead) - keep)]:
                del self.cards[old.record.id]
                self.totals[record.queue]["trimmed"] += 1

    def _forget(self) -> None:
        """Let go of finished jobs that are neither listed nor within their time."""
        end = self.now() - self.options.result_ttl_s
        for name, config in self.queues.items():
            done = self._of(name, JobState.COMPLETED)
            unlisted = done[: max(0, len(done) - config.keep_completed)]
            for card in [*unlisted, *self._of(name, JobState.CANCELLED)]:
                if card.since <= end:
                    del self.cards[card.record.id]

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        with self.mu:
            now, peer, answer = self.now(), self.peers.get(worker), Renewed()
            if peer is not None:
                peer.until, peer.renewed = now + 3 * peer.card.lease_s, now
            for job_id, token in held:
                card = self._held(job_id, token)
                if card is None or peer is None:
                    answer.lost.append(job_id)
                    continue
                card.since = now + peer.card.lease_s
                if card.cancel:
                    answer.cancel.append(job_id)
            return answer

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        with self.mu:
            card = self._held(job_id, token)
            if card is None:
                return False
            if progress is not None:
                card.progress = progress
            if step is not None:
                card.steps.add(step)
            return True

    def steps(self, job_id: str, /) -> frozenset[str]:
        with self.mu:
            card = self.cards.get(job_id)
            return frozenset(card.steps if card is not None and card.state not in ENDED else ())

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        peer = self.peers.get(worker)
        if peer is None or not peer.bell.wait(timeout_s):
            return False
        told, peer.told = peer.told, False
        return "message" if told else True

    # -- schedules ---------------------------------------------------------------------------------

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        with self.mu:
            last = self.slots.get(name)
            if last is not None and slot <= last:
                return False
            self.slots[name] = slot
            if last is None and late:
                return False
            self._push(job, self.now())
            return True

    def time(self) -> float:
        return self.now()

    def close(self) -> None:
        """The shelf lives as long as its process."""


class AsyncShelf:
    """The same verbs for a loop; they never block for long."""

    def __init__(self, store: ShelfStore) -> None:
        self._store = store

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        call = getattr(self._store, verb)

        async def act(*args: Any, **facts: Any) -> Any:
            return call(*args, **facts)

        return act


class ShelfBackend:
    name = "shelf"
    capabilities = ENGINE | {"schedules"}

    def __init__(self, url: Any, settings: StoreSettings) -> None:
        self._store, self._settings, self._pid = ShelfStore(settings), settings, os.getpid()

    def sync(self) -> JobStore:
        if os.getpid() != self._pid:
            self._store, self._pid = ShelfStore(self._settings), os.getpid()
        return self._store

    def waiter(self, card: WorkerCard, /) -> JobStore:
        return self.sync()

    def aio(self) -> AsyncJobStore:
        store: Any = AsyncShelf(self._store)
        return store

    def close(self) -> None:
        """Nothing is open."""


class TestShelf(JobStoreSuite):
    @pytest.fixture
    def make(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., QueueManager]:
        monkeypatch.setitem(sys.modules, "shelf", sys.modules[__name__])
        backends.register("shelf", "shelf:ShelfBackend")
        return lambda **options: QueueManager("shelf://", **options)
