"""The verbs of a store over its partitions: whom to ask what, one step after another. No I/O.

A verb is a generator. It yields what to ask at the same time, each a partition and a call of its store, and
is sent the answers; what does not answer is among them as its error. So one text serves both faces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from eventperf.queues.errors import PartlyUnavailable, StoreUnavailable, unknown_parent
from eventperf.queues.job import JobInfo, JobState, Lease, NewJob, QueueStatus, WorkerInfo
from eventperf.queues.minutes import Interval
from eventperf.queues.protocols import (
    Change,
    Claimed,
    Found,
    JobQuery,
    Outcome,
    Renewed,
    WorkerCard,
)

from . import merging
from .desk import Desk, OpenLine
from .routing import Routing, home, marked

T = TypeVar("T")

Ask = tuple[int, Callable[[Any], Any]]
Plan = Generator[list[Ask], list[Any], T]

_TURNS, _IDLE_TURNS = 6, 2
"""Each partition hears of a worker within so many of its renewals while it holds jobs, and while it holds
none; a card is known for nine and for three."""


def _part(call: Callable[[Any, Any], Any], part: Any) -> Callable[[Any], Any]:
    return lambda store: call(store, part)


def _good(answers: Sequence[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return list(answers)


class Plans:
    """All verbs, for the partitions of one namespace and the workers of one process."""

    def __init__(self, routing: Routing, open_line: OpenLine) -> None:
        self.routing = routing
        self._open_line = open_line
        self.desks: dict[str, Desk] = {}

    def desk(self, card: WorkerCard) -> Desk:
        """Return what is known here of a worker."""
        desk = self.desks.get(card.id)
        if desk is None:
            desk = self.desks[card.id] = Desk(
                card, self.routing.namespace, self.routing.count, self._open_line
            )
        return desk

    def _all(self, call: Callable[[Any], Any]) -> list[Ask]:
        return [(n, call) for n in range(self.routing.count)]

    def _by_partition(self, ids: Sequence[str]) -> dict[int, list[int]]:
        """Return the places in ``ids`` of each partition's."""
        found: dict[int, list[int]] = {}
        for place, job_id in enumerate(ids):
            found.setdefault(self.routing.of(job_id), []).append(place)
        return found

    def each(self, ids: Sequence[str], call: Callable[[Any, list[int]], Any]) -> Plan[list[Any]]:
        """Ask each partition about its part of ``ids``; the answers stand where these do."""
        groups = self._by_partition(ids)
        answers = yield [(n, _part(call, places)) for n, places in groups.items()]
        found: list[Any] = [None] * len(ids)
        for places, part in zip(groups.values(), _good(answers), strict=True):
            for place, answer in zip(places, part, strict=True):
                found[place] = answer
        return found

    def everywhere(self, call: Callable[[Any], Any]) -> Plan[list[Any]]:
        """Ask all partitions the same."""
        return _good((yield self._all(call)))

    # -- producing ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob]) -> Plan[list[str]]:
        self.routing.place(jobs)
        ids = [new.record.id for new in jobs]
        if len(self._by_partition(ids)) > 1:  # one that is refused must not come after others were stored
            mine, seen = set(ids), {p: None for new in jobs for p in (new.record.flow or {}).get("after", ())}
            parents = [one for one in seen if one not in mine]
            for parent, info in zip(parents, (yield from self.fetch(parents)), strict=True):
                if info is None:
                    raise unknown_parent(parent)
        return (yield from self.each(ids, lambda store, at: store.push([jobs[k] for k in at])))

    def fire(self, name: str, slot: float, job: NewJob, late: bool) -> Plan[bool]:
        """A schedule is where its job must be; with a job that may be anywhere, where its own name says."""
        self.routing.place([job])
        record = job.record
        if not (job.named or record.key or record.unique_key is not None or record.flow):
            record.id = marked(record.id, home(name))
        at = self.routing.of(record.id)
        return bool(_good((yield [(at, lambda store: store.fire(name, slot, job, late=late))]))[0])

    def fetch(self, ids: Sequence[str]) -> Plan[list[JobInfo | None]]:
        return (yield from self.each(ids, lambda store, at: store.fetch([ids[k] for k in at])))

    def ended(self, ids: Sequence[str]) -> Plan[list[JobInfo | None]]:
        return (yield from self.each(ids, lambda store, at: store.ended([ids[k] for k in at])))

    def counts(self) -> Plan[list[QueueStatus]]:
        return merging.statuses((yield from self.everywhere(lambda store: store.counts())))

    def load(self) -> Plan[tuple[int, int, float]]:
        return merging.load((yield from self.everywhere(lambda store: store.load())))

    def time(self) -> Plan[float]:
        return float(_good((yield [(0, lambda store: store.time())]))[0])

    # -- operating ---------------------------------------------------------------------------------

    def listing(self, queue: str, state: JobState, offset: int, limit: int) -> Plan[list[JobInfo]]:
        parts = yield from self.everywhere(
            lambda store: store.listing(queue, state, offset=0, limit=offset + limit)
        )
        found = merging.in_order(parts, [state], [queue])
        return found[offset : offset + limit]

    def cancel(self, ids: Sequence[str]) -> Plan[list[bool]]:
        return (yield from self.each(ids, lambda store, at: store.cancel([ids[k] for k in at])))

    def replay(self, queue: str, ids: Sequence[str] | None, limit: int | None) -> Plan[int]:
        chosen = None if ids is None else self._by_partition(ids)
        total = 0
        for n in range(self.routing.count) if chosen is None else chosen:
            part = None if ids is None or chosen is None else [ids[k] for k in chosen[n]]
            left = None if limit is None else limit - total
            if left is not None and left <= 0:
                break
            mine = part, left
            answers = yield [(n, _part(lambda store, of: store.replay(queue, of[0], limit=of[1]), mine))]
            total += _good(answers)[0]
        return total

    def purge(self, queue: str, state: JobState) -> Plan[int]:
        return sum((yield from self.everywhere(lambda store: store.purge(queue, state))))

    def set_paused(self, queue: str, paused: bool) -> Plan[None]:
        yield from self.everywhere(lambda store: store.set_paused(queue, paused))

    def find(self, query: JobQuery) -> Plan[Found]:
        page = merging.Page(query, self.routing.count)
        while asks := page.asks():
            answers = yield [(n, _part(lambda store, part: store.find(part), part)) for n, part in asks]
            for (n, part), found in zip(asks, _good(answers), strict=True):
                page.take(n, part, found)
        return page.found()

    def update(self, job_id: str, change: Change) -> Plan[JobState | None]:
        answers = yield [(self.routing.of(job_id), lambda store: store.update(job_id, change))]
        found: JobState | None = _good(answers)[0]
        return found

    def children(self, job_id: str, limit: int) -> Plan[list[JobInfo]]:
        """Ask where the job is: those that wait for it are beside it."""
        answers = yield [(self.routing.of(job_id), lambda store: store.children(job_id, limit))]
        found: list[JobInfo] = _good(answers)[0]
        return found

    def delete(self, queue: str, ids: Sequence[str]) -> Plan[int]:
        groups = self._by_partition(ids)
        answers = yield [
            (n, _part(lambda store, at: store.delete(queue, [ids[k] for k in at]), places))
            for n, places in groups.items()
        ]
        return sum(_good(answers))

    def minutes(self, span_s: float) -> Plan[tuple[float, list[Interval]]]:
        parts = yield from self.everywhere(lambda store: store.minutes(span_s))
        return parts[0][0], [one for _, intervals in parts for one in intervals]

    def roster(self) -> Plan[list[WorkerInfo]]:
        return merging.roster((yield from self.everywhere(lambda store: store.roster())))

    # -- working -----------------------------------------------------------------------------------

    def enter(self, card: WorkerCard, held: Sequence[str]) -> Plan[None]:
        desk = self.desk(card)
        desk.card = card
        groups = self._by_partition(held)

        def enter(store: Any, mine: Sequence[int]) -> Any:
            return store.enter(card, [held[k] for k in mine])

        answers = yield [(n, _part(enter, groups.get(n, []))) for n in range(self.routing.count)]
        self._note(desk, range(self.routing.count), answers)
        desk.strange = {n for n, answer in enumerate(answers) if isinstance(answer, Exception)}
        desk.hints.hear()

    def leave(self, worker: str) -> Plan[None]:
        desk = self.desks.pop(worker, None)
        if desk is not None:
            desk.close()
        yield from self.everywhere(lambda store: store.leave(worker))

    def _note(self, desk: Desk, asked: Sequence[int], answers: Sequence[Any]) -> None:
        """Note whose store is away; raise where it is that of all."""
        down = [
            (n, answer) for n, answer in zip(asked, answers, strict=True) if isinstance(answer, Exception)
        ]
        for n, error in down:
            desk.lost(n, error)
        if down and len(down) == len(asked):
            raise down[0][1]

    def claim(self, worker: str, room: Mapping[str, int], total: int, exact: bool) -> Plan[Claimed]:
        """Ask one partition after another that may have work, until there is enough.

        Args:
            exact: Look everywhere before there is said to be nothing.
        """
        desk, left = self.desks[worker], dict(room)
        leases: list[Lease] = []
        stalled: list[Any] = []
        expired: list[Any] = []
        asked: set[int] = set()
        error: StoreUnavailable | None = None
        while len(leases) < total:
            choice = desk.hints.next(time.monotonic(), left, asked)
            if choice is None and exact:
                choice = next(((n, 0) for n in range(self.routing.count) if n not in asked), None)
            if choice is None:
                break
            n, heard = choice
            asked.add(n)
            wanted = total - len(leases)
            answer = yield from self._claim_one(desk, n, left, wanted)
            if isinstance(answer, StoreUnavailable):
                error = answer
                desk.lost(n, answer)
                continue
            for lease in answer.leases:
                left[lease.record.queue] = left.get(lease.record.queue, 0) - 1
            is_full = len(answer.leases) == wanted
            now, due_s = time.monotonic(), answer.next_in_s
            if desk.hints.answered(n, heard, now, full=is_full, room=left, next_in_s=due_s):
                desk.has_again(n)
            desk.took([lease.record.id for lease in answer.leases], n)
            leases += answer.leases
            stalled += answer.stalled
            expired += answer.expired
        if not leases and desk.hints.all_lost():
            raise error or StoreUnavailable(f"none of {self.routing.count} partitions answers")
        return Claimed(leases, desk.hints.next_in_s(time.monotonic()), stalled, expired)

    def _claim_one(self, desk: Desk, n: int, room: Mapping[str, int], total: int) -> Plan[Any]:
        if n in desk.strange:  # what it was given in replies that never came goes back
            card = replace(desk.card, spare_s=desk.card.lease_s)
            (entered,) = yield [(n, lambda store: store.enter(card, desk.holds(n)))]
            if isinstance(entered, StoreUnavailable):
                return entered
            desk.strange.discard(n)
        (answer,) = yield [(n, lambda store: store.claim(desk.card.id, room, total))]
        return answer

    def finish(self, outcomes: Sequence[Outcome]) -> Plan[list[bool]]:
        for out in outcomes:
            if out.followers:
                self.routing.place(out.followers, together=True, beside=out.job_id)
        groups = self._by_partition([out.job_id for out in outcomes])
        answers = yield [
            (n, _part(lambda store, at: store.finish([outcomes[k] for k in at]), places))
            for n, places in groups.items()
        ]
        found: list[bool | None] = [None] * len(outcomes)
        errors = []
        for places, part in zip(groups.values(), answers, strict=True):
            if isinstance(part, Exception):
                errors.append(part)
                continue
            for place, good in zip(places, part, strict=True):
                found[place] = good
        gone = [out.job_id for out, good in zip(outcomes, found, strict=True) if good is not None]
        for desk in list(self.desks.values()):
            desk.gave(gone)
        if not errors:
            return [good is True for good in found]
        if not gone:
            raise errors[0]
        raise PartlyUnavailable(str(errors[0]), found) from errors[0]

    def renew(self, worker: str, held: Sequence[tuple[str, int]]) -> Plan[Renewed]:
        """Renew where leases are held, and tell some others by turns that the worker lives."""
        desk = self.desks[worker]
        groups = self._by_partition([job_id for job_id, _ in held])
        count = self.routing.count
        share = -(-count // (_TURNS if held else _IDLE_TURNS))
        told = [(desk.turn + step) % count for step in range(share)]
        desk.turn = (desk.turn + share) % count
        asked = list(dict.fromkeys((*groups, *told)))
        answers = yield [
            (n, _part(lambda store, at: store.renew(worker, [held[k] for k in at]), groups.get(n, [])))
            for n in asked
        ]
        self._note(desk, asked, answers)
        good = [answer for answer in answers if not isinstance(answer, Exception)]
        lost = [one for answer in good for one in answer.lost]
        desk.gave(lost)
        return Renewed(lost, [one for answer in good for one in answer.cancel])
