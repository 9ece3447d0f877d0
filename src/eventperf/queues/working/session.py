"""One run of a worker over a store that hands out jobs: claim, run, report, stop.

A little longer than other files: what is claimed, what runs and how it stops are one state of one loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eventperf._core.logs import logger
from eventperf._core.texts import one_line
from eventperf.queues.engine import Engine
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.events import JobEvent
from eventperf.queues.job import Lease
from eventperf.queues.protocols import (
    UNREADABLE,
    AsyncJobStore,
    Backend,
    Claimed,
    HintedStore,
    Renewed,
    WorkerFacts,
    WorkerPlan,
)

from . import logs
from .acks import Acks
from .contact import CLAIMING, RENEWING, Contact
from .contained import contained
from .dead_letter import DeadLetterWatch
from .executors import Executors
from .guard import Guard
from .heartbeat import Heartbeat
from .leftovers import Leftovers, report_last
from .life import Ageing
from .runs import Run, Runner
from .scheduler import Scheduler
from .standstill import watched
from .supervise import ended, supervised

_log = logger("eventperf.queues")

_LOOK_AHEAD_S = 0.002
_LOOK_AHEAD_MAX = 1000
_ROUND_S, _LONG_S = 0.010, 0.040  # a round trip is more than a few per cent of runs below, not above
_TIMER_GRAIN_S = 0.0012
_DUE_MARGIN_S = 0.0001  # lest a claim that comes a hair too early must be made twice
_STUCK_S = 0.1
"""Jobs held ready go back when none of them could start for this long: a slow job took the slots."""
_GIVE_UP = 20
"""A worker whose claims fail so often in a row, for a reason that is no outage, ends with that error."""
_POLL_S = 7.5
"""How long an idle worker trusts wake-ups alone, at most half a lease."""


class StoreSession:
    """One run of a worker, from its first claim to its last acknowledgement."""

    def __init__(self, plan: WorkerPlan, engine: Engine, backend: Backend) -> None:
        self._plan = plan
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._stopping = ""
        self._give_up_at = math.inf  # when running jobs are handed back
        self._store: AsyncJobStore = backend.aio()
        self._is_shared = "shared" in backend.capabilities
        self._card = card = plan.card
        self._wake = asyncio.Event()
        self._room = dict(card.room_by_queue)
        self._free = card.slots
        self._ahead: deque[Lease] = deque()
        self._stuck_check: asyncio.TimerHandle | None = None
        self._timer: asyncio.Handle
        self._burst = False
        self._more = False  # the last claim may have left jobs that fit the next free slot
        self._was_lost = False  # since the last claim that got through
        self._contact = contact = Contact(card.id, lambda up: self.call(self._store_is, up))
        self._acks = Acks(
            self._store, self._refused, lambda lease: self._runner.settle(lease), contact, self._take
        )
        executors = Executors(engine.codec, card.slots, engine.process_setup)
        self._runner = Runner(engine, card.id, self._store, backend.sync, executors, self._acks)
        self._runner.on_end = self._freed
        self._dead_letter = DeadLetterWatch(self._store, plan.keep_failed)
        self._runner.on_dead = self._dead_letter.look
        self._ageing = Ageing(plan.life, engine.random, executors.pids, self.retire)
        self._waiter = backend.waiter(card)
        self._guard = Guard(backend, card)
        self._heart = Heartbeat(
            self._waiter,
            self._card,
            self._runner.leases,
            poll_s=min(_POLL_S, card.lease_s / 2),
            on_wake=lambda: self.call(self._wake.set),
            on_renewed=lambda answer, sent: self.call(self._renewed, answer, sent),
            contact=contact,
            on_nudge=self._nudge,
            guard=self._guard,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._leftovers: Leftovers | None = None

    def call(self, fn: Any, *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:
            _log.debug("worker %s: its loop is closed", self._card.id)

    def stop(self) -> None:
        self._stopping = self._stopping or "stopped"
        self._give_up_at = min(self._give_up_at, time.monotonic() + self._plan.grace_s)
        self._wake.set()

    def retire(self, why: str) -> None:
        if not self._stopping:
            _log.info("worker %s retires when its jobs have ended: %s", self._card.id, why)
            self._stopping = why
            self._wake.set()

    def facts(self) -> WorkerFacts:
        return WorkerFacts(
            worker=self._card.id,
            slots=self._card.slots,
            running=self._card.slots - self._free,
            begun=self._ageing.begun,
            hung=self._runner.hung,
            store_lost=self._contact.is_lost,
            stopping=self._stopping,
        )

    async def run(self, burst: bool) -> None:
        self._burst = burst
        # It cannot know that the store was not away just now; a worker that renews does so within this time.
        spare_s = self._card.lease_s / 3 if self._is_shared and not burst else 0.0
        try:
            await self._store.enter(replace(self._card, spare_s=max(spare_s, self._card.spare_s)))
        except BaseException:
            self._waiter.close()
            raise
        self._report_unhandled()
        self._acks.start()
        if not burst:  # a longer one gets its guard with the first renewal
            self._guard.start()
            await self._guard.ready()
        self._heart.start()
        self._emit("worker_started")
        if self._engine.schedules and not burst:
            schedules = list(self._engine.schedules.values())
            scheduler = Scheduler(self._store, schedules)
            self._tasks.add(self._loop.create_task(supervised("firing schedules", scheduler.run)))
        self._tasks.add(self._loop.create_task(supervised("watching its age", self._ageing.watch)))
        logs.listen()
        with contained(self._loop), watched(self._card.id, self._loop, self._runner.held):
            try:
                await self._claims(burst)
            finally:
                await self._close()
                logs.leave()

    def _report_unhandled(self) -> None:
        if not self._card.types:
            _log.warning("worker %s has no handlers: it will run nothing", self._card.id)
        if missing := sorted(set(self._engine.types) - self._card.types):
            _log.warning("worker %s has no handler for declared types: %s", self._card.id, ", ".join(missing))

    # -- claiming ----------------------------------------------------------------------------------

    async def _claims(self, burst: bool) -> None:
        pause, failed, is_sure = 0.05, 0, False
        while not self._stopping:
            ahead = self._look_ahead()
            asked = min(self._free + ahead, self._ageing.room()) - len(self._ahead)
            if asked <= 0 or self._acks.is_behind or (asked < ahead // 2 and len(self._ahead) > 0):
                self._wake.clear()  # looked at just now; a set event would make this a busy loop
                await self._until_wake(None)
                continue
            self._wake.clear()
            # An empty answer says nothing while queues are full, nor before others can know what has ended.
            was_idle = not self._runner.leases
            try:
                if not self._contact.can(RENEWING):  # what it was given now it could not keep
                    raise StoreUnavailable("leases cannot be renewed")
                if self._was_lost:
                    await self._enter_again()
                room = self._room if self._plan.has_own_rooms else dict.fromkeys(self._room, asked)
                claimed = await self._store.claim(self._card.id, room, asked)
                pause, self._was_lost = 0.05, False
                self._contact.taken(CLAIMING)
            except StoreUnavailable as error:
                self._was_lost = True  # a claim may have been answered into the void
                if self._contact.can(RENEWING):
                    self._contact.refused(CLAIMING, error)
                self._wake.clear()
                await self._until_wake(pause)
                pause = min(pause * 2, 0.5)
                continue
            except Exception as error:  # refused, or a fault of ours: the jobs that run must not suffer
                if (failed := failed + 1) >= _GIVE_UP:
                    raise
                self._told_nothing(error, failed)
                await self._until_wake(min(0.1 * 2**failed, 5.0))
                continue
            failed = 0
            self._more = len(claimed.leases) == asked or not all(room.values())
            self._receive(claimed)
            is_sure = is_sure and not claimed.leases
            if len(claimed.leases) == asked:
                await asyncio.sleep(0)
            elif burst and not claimed.leases and not self._runner.held:
                hinted = self._store if isinstance(self._store, HintedStore) else None
                if was_idle and (is_sure or hinted is None):
                    return
                await self._acks.flushed()
                if was_idle and hinted is not None:
                    hinted.doubt(self._card.id)
                    is_sure = True
            else:
                await self._until_wake(claimed.next_in_s, listen=True)

    async def _enter_again(self) -> None:
        again = replace(self._card, spare_s=self._card.lease_s)
        await self._store.enter(again, list(self._runner.leases))

    def _told_nothing(self, error: Exception, failed: int) -> None:
        self._was_lost = True
        log = _log.exception if failed == 1 else _log.debug
        log("worker %s cannot claim and keeps trying: %s", self._card.id, error)
        self._wake.clear()

    def _receive(self, claimed: Claimed) -> None:
        self._guard.add(claimed.leases)
        self._told(claimed)
        for lease in claimed.leases:
            self._place(lease)
        if self._ahead and self._stuck_check is None:
            self._stuck_check = self._loop.call_later(_STUCK_S, self._unstick, self._ageing.begun)

    def _place(self, lease: Lease) -> None:
        if lease.record.id in self._runner.leases and self._adopted(lease):
            _log.info("worker %s keeps job %s, whose lease had ended", self._card.id, lease.record.id)
            return
        self._take(lease)

    def _take(self, lease: Lease) -> None:
        if lease.unreadable:
            self._runner.refuse(lease)
            facts = {"job_id": lease.record.id, "queue": lease.record.queue}
            self._emit("failed", **facts, error=lease.unreadable)
            return
        self._room[lease.record.queue] -= 1
        if self._free > 0:
            self._begin(lease)
        else:
            self._runner.hold(lease)
            self._ahead.append(lease)

    def _adopted(self, lease: Lease) -> bool:
        """Take a job that this worker has already for what it is: the same, under another lease."""
        for old in self._ahead:
            if old.record.id == lease.record.id:
                old.token = lease.token
                self._runner.hold(old)
                return True
        if self._acks.adopt(lease):
            self._runner.leases[lease.record.id] = lease.token
            return True
        return self._runner.adopt(lease)

    def _look_ahead(self) -> int:
        """How many jobs to hold ready beyond the slots, so that none of them waits for a round trip.

        A few milliseconds of work when jobs are very short; one for each slot where slots that end
        together would otherwise stand still for a share that shows. Urgent jobs wait no longer than that.
        """
        mean_s, slots = self._runner.mean_run_s, self._card.slots
        if self._plan.has_own_rooms or mean_s <= 0:
            return 0
        if _ROUND_S <= mean_s < _LONG_S:
            return min(_LOOK_AHEAD_MAX, slots)
        return min(_LOOK_AHEAD_MAX, int(slots * _LOOK_AHEAD_S / mean_s))

    def _begin(self, lease: Lease) -> None:
        self._free -= 1
        self._runner.start(lease)
        self._ageing.begin()

    def _unstick(self, begun: int) -> None:
        """Hand jobs held ready back to other workers when the slots are taken for longer than foreseen."""
        self._stuck_check = None
        if not self._ahead or self._stopping:
            return
        if begun != self._ageing.begun:
            self._stuck_check = self._loop.call_later(_STUCK_S, self._unstick, self._ageing.begun)
            return
        self._runner.mean_run_s = max(self._runner.mean_run_s, _STUCK_S)
        while self._ahead:
            lease = self._ahead.pop()
            self._room[lease.record.queue] += 1
            self._runner.drop(lease, "release")

    async def _until_wake(self, timeout_s: float | None, *, listen: bool = False) -> None:
        """Sleep until a wake-up, a freed slot that matters, the stop, or ``timeout_s``."""
        if self._wake.is_set() or self._stopping:
            return
        if listen:
            self._heart.listen()
        limit = min(_POLL_S, self._card.lease_s / 2)
        if timeout_s is None or timeout_s >= limit:
            self._timer = self._loop.call_later(limit, self._wake.set)
        else:
            at = self._loop.time() + timeout_s + _DUE_MARGIN_S
            self._timer = self._loop.call_at(at - _TIMER_GRAIN_S, self._come_due, at)
        try:
            await self._wake.wait()
        finally:
            self._timer.cancel()

    def _come_due(self, at: float) -> None:
        """Wake at ``at``; the last millisecond is polled, because epoll's timers are that coarse."""
        if self._loop.time() >= at:
            self._wake.set()
        else:
            self._timer = self._loop.call_soon(self._come_due, at)

    def _freed(self, run: Run) -> None:
        self._free += 1
        self._room[run.lease.record.queue] += 1
        if self._ahead and not self._stopping:
            self._begin(self._ahead.popleft())
        if self._more or (self._burst and not self._runner.held):  # else it listens for what comes
            self._wake.set()

    def _told(self, claimed: Claimed) -> None:
        for job_id, _, queue, reason in claimed.expired:
            if reason.startswith(UNREADABLE):
                text = f"job {job_id} of queue {queue} went to the dead letter: {reason}"
                _log.error("%s", one_line(text))
                self._dead_letter.look(queue)
        if not self._engine.hooks.active:
            return
        for s in claimed.stalled:
            self._emit("stalled", job_id=s.job_id, type=s.type, queue=s.queue)
            if s.dead:
                self._emit("failed", job_id=s.job_id, type=s.type, queue=s.queue, error="crashes")
        for job_id, type_, queue, reason in claimed.expired:
            self._emit("failed", job_id=job_id, type=type_, queue=queue, error=reason)

    def _emit(self, kind: str, **facts: Any) -> None:
        if self._engine.hooks.active:
            self._engine.hooks.emit(JobEvent(kind=kind, worker=self._card.id, **facts))

    # -- what the heartbeat says -------------------------------------------------------------------

    def _renewed(self, answer: Renewed, sent: Mapping[str, int]) -> None:
        # A lease that was let go and claimed anew meanwhile is not the one that is lost.
        leases = self._runner.leases
        lost = [job_id for job_id in answer.lost if leases.get(job_id, sent[job_id]) == sent[job_id]]
        gone = {*lost, *answer.cancel}
        for lease in [x for x in self._ahead if x.record.id in gone]:
            self._ahead.remove(lease)
            self._room[lease.record.queue] += 1
            self._runner.drop(lease, "cancelled" if lease.record.id in answer.cancel else None)
        for job_id in lost:
            self._runner.interrupt(job_id, "lost")
        for job_id in answer.cancel:
            self._runner.interrupt(job_id, "cancel")

    def _store_is(self, up: bool) -> None:
        self._emit("store_back" if up else "store_lost")
        if up:
            self._wake.set()
        else:
            self._was_lost = True

    def _refused(self, lease: Lease) -> None:
        record = lease.record
        _log.warning("job %s finished late: another claim holds it, this result is dropped", record.id)
        self._emit("refused", job_id=record.id, type=record.type, queue=record.queue, attempt=lease.attempt)

    def _nudge(self) -> None:
        task = self._loop.create_task(self._nudged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _nudged(self) -> None:
        store: Any = self._store
        try:
            await store.nudge(self._card.id)
        except StoreUnavailable as error:  # the thread's own wait fails too, and starts again
            _log.debug("worker %s: %s", self._card.id, error)

    # -- stopping ----------------------------------------------------------------------------------

    async def _close(self) -> None:
        try:
            if self._stuck_check is not None:
                self._stuck_check.cancel()
            while self._ahead:
                self._runner.drop(self._ahead.pop(), "release")
            if not self._stopping:
                self.stop()
            while self._runner.held and time.monotonic() < self._give_up_at:
                self._wake.clear()
                await self._until_freed(min(0.25, self._give_up_at - time.monotonic()))
            left = await self._runner.hand_back()
            await ended(list(self._tasks))
            await self._acks.close()
            await self._dead_letter.close()
            if left:
                leftovers = Leftovers(self._waiter, self._heart, self._card.id)
                leftovers.keep(left)
                self._leftovers = leftovers
            else:
                await asyncio.to_thread(self._heart.close)  # before: a renewal would sign on again
                await self._sign_off()
        finally:
            if self._leftovers is None:
                self._heart.close()
                await asyncio.to_thread(self._heart.join, 2.0)
                self._waiter.close()
            self._runner.close()
            self._emit("worker_stopped")

    @property
    def unreported(self) -> int:
        return self._acks.unreported

    def abandon(self) -> None:
        """Report what has ended and hand back the rest; from another thread, when the process ends."""
        if self._leftovers:
            self._leftovers.hand_back()
        elif self._runner.leases:
            self._heart.close()
            report_last(self._waiter, self._card.id, self._acks.last(self._runner.leases))

    def loop_ended(self) -> None:
        self._runner.loop_ended()

    async def _sign_off(self) -> None:
        try:
            await self._store.leave(self._card.id)
        except StoreUnavailable:
            _log.warning("worker %s could not sign off; it is forgotten after its leases", self._card.id)

    async def _until_freed(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.0, timeout_s))
        except asyncio.TimeoutError:
            return
