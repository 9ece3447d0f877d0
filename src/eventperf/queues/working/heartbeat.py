"""The worker's thread: it renews leases while the loop is busy, and waits for wake-ups while it is idle."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from eventperf._core.logs import logger
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.protocols import AttentiveStore, JobStore, Renewed, WorkerCard

from .contact import RENEWING, Contact
from .guard import Guard

_PATIENCE_S = 0.2
"""How long jobs must run before messages are waited for: shorter ones are over before anybody asks."""

_REST = 0.9
"""Leases after which a worker without a job renews: at every third turn, though that comes a little early."""

_log = logger("eventperf.queues")


class Heartbeat:
    """Renewals every third of a lease, whatever the event loop does, on a connection of its own.

    A worker that holds no job renews once a lease: what others know of it lasts for three.

    Args:
        held: Leases to keep, job id to token; read here, changed by the loop.
        on_wake: Called when a job may be there to claim.
        on_renewed: Called with every renewal's answer that has something to say, and the leases asked for.
        contact: Told whether the store takes renewals.
        on_nudge: Called when the thread waits for messages only and should listen for jobs instead.
        guard: Renews in this thread's place while it cannot run.
    """

    def __init__(
        self,
        store: JobStore,
        card: WorkerCard,
        held: Mapping[str, int],
        *,
        poll_s: float,
        on_wake: Callable[[], object],
        on_renewed: Callable[[Renewed, Mapping[str, int]], object],
        contact: Contact,
        on_nudge: Callable[[], object] = lambda: None,
        guard: Guard | None = None,
    ) -> None:
        self._store = store
        self._card = card
        self._held = held
        self._poll_s = poll_s
        self._on_wake = on_wake
        self._on_renewed = on_renewed
        self._contact = contact
        self._on_nudge = on_nudge
        self._guard = guard
        self._attentive = store if isinstance(store, AttentiveStore) else None
        self._attending = False
        self._listen = threading.Event()
        self._poke = threading.Event()
        self._closed = False
        self._waited_s = 0.0  # for an answer of the store, in this turn, beyond what was asked for
        self._held_up = ""  # why the next renewal comes late
        self._renewed_at = -math.inf
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="eventperf-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def listen(self) -> None:
        """Wait for a wake-up from now on; ends with the first one."""
        if not self._listen.is_set():
            self._listen.set()
            self._poke.set()
            if self._attending:
                self._on_nudge()

    def close(self) -> None:
        """Stop; the thread ends within one wait.

        No renewal follows, and one that is under way has ended on return (or two seconds later): after it the
        worker can sign off for good.
        """
        self._closed = True
        self._poke.set()
        if self._guard is not None:
            self._guard.close()
        if self._renewing.acquire(timeout=2.0):
            self._renewing.release()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        every = self._card.lease_s / 3
        due = time.monotonic() + every
        while not self._closed:
            turn, self._waited_s = _Turn(), 0.0
            try:
                if (left := due - time.monotonic()) > 0:
                    self._idle(left)
                else:
                    due = time.monotonic() + every
                    self._beat()
            except StoreUnavailable as error:
                if self._closed:  # its connection was taken from it
                    return
                self._contact.refused(RENEWING, error)
                due = min(due, time.monotonic() + 0.5)
                time.sleep(0.1)
            except Exception:  # whatever it is: without this thread every lease of the worker lapses
                _log.exception("heartbeat of worker %s failed; trying again", self._card.id)
                due = min(due, time.monotonic() + 0.5)
                time.sleep(0.2)
            if (late := time.monotonic() - due) > self._card.lease_s / 2:
                self._held_up = turn.why(late, self._waited_s)

    def _say_held_up(self, lost: list[str]) -> None:
        """Say why the last renewal came late, now that it is known what that has cost."""
        why, self._held_up = self._held_up, ""
        cost = f"lost meanwhile: {', '.join(lost[:5])}" if lost else "no lease was lost"
        jobs = ", ".join(job_id for job_id, _ in _snapshot(self._held)[:5]) or "none"
        _log.warning("worker %s stood still for %s; %s. Jobs here: %s", self._card.id, why, cost, jobs)

    def _idle(self, left: float) -> None:
        if self._listen.is_set():
            with self._asking(min(left, self._poll_s)) as patience_s:
                heard = self._store.wait(self._card.id, patience_s)
            if heard:
                self._listen.clear()
                if heard == "message":
                    self._renew()
                if not self._closed:
                    self._on_wake()
        elif self._poke.wait(min(left, _PATIENCE_S) if self._attentive else left):
            self._poke.clear()
        elif self._held and self._attentive is not None:
            self._attending = True  # before the look at what listen() sets: one of the two sees the other
            try:
                with self._asking(min(left, self._poll_s)) as patience_s:
                    is_told = (
                        not self._listen.is_set()
                        and self._attentive.attend(self._card.id, patience_s) == "message"
                    )
                if is_told:
                    self._renew()
            finally:
                self._attending = False

    def _beat(self) -> None:
        rested = (time.monotonic() - self._renewed_at) / self._card.lease_s
        if self._held or rested > _REST or not self._contact.can(RENEWING):
            self._renew()
        elif self._guard is not None:
            self._guard.beat(())

    def _renew(self) -> None:
        with self._renewing:
            if self._closed:
                return
            sent = _snapshot(self._held)
            with self._asking(0.0):
                answer = self._store.renew(self._card.id, sent)
        self._renewed_at = time.monotonic()
        self._contact.taken(RENEWING)
        if self._held_up:
            tokens = dict(sent)
            self._say_held_up([one for one in answer.lost if self._held.get(one) == tokens[one]])
        if self._guard is not None and not self._closed:
            self._guard.start()
            self._guard.beat(sent)
        if (answer.lost or answer.cancel) and not self._closed:
            self._on_renewed(answer, dict(sent))

    @contextmanager
    def _asking(self, patience_s: float) -> Iterator[float]:
        """Note how much longer a call of the store takes than it may."""
        began = time.monotonic()
        try:
            yield patience_s
        finally:
            self._waited_s = time.monotonic() - began - patience_s


class _Turn:
    """One turn of the thread: when it began, and how much had been computed by then."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()

    def why(self, late_s: float, waited_s: float) -> str:
        """Say what held the thread up for so long: who computes meanwhile holds the interpreter."""
        computed = time.process_time() - self._cpu_s > late_s / 2
        if waited_s > late_s / 2 and not computed:
            return f"{late_s:.1f} s: its store answered late, or the machine did not run; no handler's fault"
        return (
            f"{late_s:.1f} s: a call in a handler held the interpreter (a regular expression, a C extension) "
            "or the machine did not run"
        )


def _snapshot(held: Mapping[str, int]) -> list[tuple[str, int]]:
    while True:
        try:
            return list(held.items())
        except RuntimeError:  # the loop's thread changed it meanwhile
            continue
