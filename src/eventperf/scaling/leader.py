"""One leader among several candidates, by a Lease.

The decisions are generators without any I/O (:class:`Election`); :class:`LeaderElector` drives them
against a :class:`LeaseStore`. What holds, and on what condition:

* Only monotonic time is compared, each candidate's own. A candidate trusts its leadership until
  ``renew_deadline`` after the moment it *sent* its last successful renewal; a follower waits a whole
  ``lease`` after the moment it *saw* the last change. The first ends before the second while clocks
  drift apart by less than ``lease / renew_deadline``.
* A Lease is no fence: a leader that is paused between asking :attr:`LeaderElector.is_leader` and
  writing may still write. Writes to targets therefore carry a resourceVersion, and the late one fails
  as soon as the new leader has written.

Source: the protocol of Kubernetes' own components (client-go, tools/leaderelection), re-made.
"""

from __future__ import annotations

import os
import random as _random
import secrets
import socket
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass

from typing_extensions import Self

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import BackendUnavailable, ConfigurationError
from eventperf._core.events import Hooks
from eventperf._core.logs import logger

from .protocols import Lease, LeaseConflict, LeaseStore


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """Who leads now, as this candidate sees it; ``leader`` is empty when nobody does."""

    identity: str
    leader: str
    is_leader: bool


_log = logger("eventperf.scaling.leader")

READ = "read"
Op = str | Lease
"""``READ``, or a record to write."""


class Election:
    """The rules of one candidate: pure, told the time, never sleeping.

    :meth:`attempt` and :meth:`resign` are generators: they yield what is to be done, get the record
    sent back, or the error thrown in.
    """

    def __init__(self, identity: str, *, lease_s: float, renew_deadline_s: float) -> None:
        self.identity = identity
        self.lease_s = lease_s
        self.renew_deadline_s = renew_deadline_s
        self.leader: str = ""
        self._trusted_until = float("-inf")
        self._seen: Lease | None = None
        self._seen_at = float("-inf")

    def leads(self, now: float) -> bool:
        """Tell whether this candidate may act at ``now``."""
        return now < self._trusted_until

    def attempt(self, now: Callable[[], float]) -> Generator[Op, Lease | None, None]:
        """Renew, take over, or look on. Errors of the store end the attempt."""
        if self.leads(now()) and self._seen is not None:
            try:
                yield from self._claim(self._seen, now)
                return
            except LeaseConflict:
                self._trusted_until = float("-inf")  # somebody else wrote: look before acting again
        found = yield READ
        self._observe(found, now())
        if found is None:
            record = Lease(holder=self.identity, duration_s=self.lease_s)
        elif found.holder in ("", self.identity) or now() >= self.expires_at:
            record = found
        else:
            self._trusted_until = float("-inf")
            return
        yield from self._claim(record, now)

    @property
    def expires_at(self) -> float:
        """Monotonic time at which the leader seen last may be replaced."""
        return self._seen_at + (self._seen.duration_s if self._seen else 0.0)

    def _claim(self, base: Lease, now: Callable[[], float]) -> Generator[Op, Lease | None, None]:
        moved = base.holder != self.identity and bool(base.version)
        wanted = Lease(
            holder=self.identity,
            duration_s=self.lease_s,
            transitions=base.transitions + moved,
            version=base.version,
        )
        sent_at = now()
        stored = yield wanted
        self._observe(stored, now())
        self._trusted_until = sent_at + self.renew_deadline_s

    def _observe(self, lease: Lease | None, at: float) -> None:
        self.leader = lease.holder if lease else ""
        if self._seen is None or lease is None or lease.version != self._seen.version:
            self._seen, self._seen_at = lease, at

    def resign(self) -> Generator[Op, Lease | None, None]:
        """Stop leading at once, then free the record for the others."""
        held, self._trusted_until = self._seen, float("-inf")
        if held is not None and held.holder == self.identity:
            freed = Lease(holder="", duration_s=1.0, transitions=held.transitions, version=held.version)
            self._observe((yield freed), self._seen_at)


class LeaderElector:
    """A candidate for leadership.

    Nothing runs until :meth:`start` (a thread) or :meth:`run` / :meth:`arun` is called, or call
    :meth:`step` yourself. A store that refuses connections is retried, never fatal.

    Args:
        store: Where the Lease lives, for example ``KubernetesLease("web-scaler", namespace="prod")``.
        identity: Unique among candidates; host, process and a random part by default.
        lease: How long followers wait for a silent leader.
        renew_deadline: How long a leader goes on without a successful renewal; two thirds of ``lease``
            by default, and always shorter than it.
        renew_every: Pause between renewals.
        retry: Pause between looks of a follower, and after a failure.

    >>> class Store:
    ...     lease = None
    ...     def read(self): return self.lease
    ...     def write(self, lease):
    ...         from dataclasses import replace
    ...         self.lease = replace(lease, version=lease.version + "+")
    ...         return self.lease
    >>> elector = LeaderElector(Store(), identity="a")
    >>> wait_s = elector.step(); elector.is_leader
    True
    """

    def __init__(
        self,
        store: LeaseStore,
        *,
        identity: str | None = None,
        lease: Duration = 15.0,
        renew_deadline: Duration | None = None,
        renew_every: Duration | None = None,
        retry: Duration = 1.0,
        clock: Clock | None = None,
        random: _random.Random | None = None,
    ) -> None:
        lease_s = seconds(lease, name="lease")
        deadline_s = (
            lease_s * 2 / 3 if renew_deadline is None else seconds(renew_deadline, name="renew_deadline")
        )
        if deadline_s >= lease_s:
            raise ConfigurationError(
                "renew_deadline", renew_deadline, f"less than the lease of {lease_s:g} s"
            )
        every_s = deadline_s / 3 if renew_every is None else seconds(renew_every, name="renew_every")
        if every_s >= deadline_s:
            raise ConfigurationError(
                "renew_every", renew_every, f"less than renew_deadline ({deadline_s:g} s)"
            )
        self._store = store
        self._retry_s, self._every_s = seconds(retry, name="retry"), every_s
        self._clock = clock or SystemClock()
        self._random = random or _random.Random()
        self.identity: str = identity or f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"
        self._election = Election(self.identity, lease_s=lease_s, renew_deadline_s=deadline_s)
        self._told: tuple[bool, str] = (False, "")
        self._mu = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.hooks: Hooks = Hooks()
        self.last_error: Exception | None = None

    def on(self, listener: Callable[[LeaderChanged], object]) -> Callable[[], None]:
        """Call ``listener`` whenever somebody else leads; returns a function that ends it."""
        return self.hooks.subscribe(listener, LeaderChanged)

    @property
    def is_leader(self) -> bool:
        """Whether this candidate may act now; ask again before every action."""
        return self._election.leads(self._clock.monotonic())

    @property
    def leader(self) -> str:
        """Identity of the leader seen last; empty when there is none."""
        return self._election.leader

    def step(self) -> float:
        """Make one attempt and return the seconds until the next one is due."""
        with self._mu:
            self._drive(self._election.attempt(self._clock.monotonic))
            self._tell()
            if self.is_leader and self.last_error is None:
                return self._every_s
            left = self._election.expires_at - self._clock.monotonic()
            pause = self._retry_s * self._random.uniform(0.8, 1.0)
            return min(pause, left) if left > 0 and self.last_error is None else pause

    def _drive(self, ops: Generator[Op, Lease | None, None]) -> None:
        self.last_error = None
        try:
            op = next(ops)
            while True:
                try:
                    result = self._store.write(op) if isinstance(op, Lease) else self._store.read()
                except Exception as error:
                    op = ops.throw(error)
                else:
                    op = ops.send(result)
        except StopIteration:
            return
        except LeaseConflict:
            return
        except BackendUnavailable as error:
            self.last_error = error
        except Exception as error:  # a store with a bug must not end the election: the lease runs out
            _log.exception("the lease store failed")
            self.last_error = error

    def _tell(self) -> None:
        state = (self.is_leader, self.leader)
        if state != self._told:
            self._told = state
            self.hooks.emit(LeaderChanged(self.identity, state[1], state[0]))

    def release(self) -> None:
        """Give leadership up now, so that another candidate need not wait for the lease to end."""
        with self._mu:
            self._drive(self._election.resign())
            self._tell()

    def run(self, stop: threading.Event | None = None) -> None:
        """Take part until ``stop`` is set or :meth:`close` is called, then release."""
        try:
            while not self._stopping.is_set() and not (stop is not None and stop.is_set()):
                self._pause(self.step(), stop)
        finally:
            self.release()

    def _pause(self, pause_s: float, stop: threading.Event | None) -> None:
        end = self._clock.monotonic() + pause_s
        while (left := end - self._clock.monotonic()) > 0:
            if stop is not None and stop.is_set():
                return
            # two events cannot be waited for at once; a quarter second keeps a stop prompt
            if self._stopping.wait(min(left, 0.25)):
                return

    async def arun(self) -> None:
        """Like :meth:`run`, as a task: cancel it to leave; store calls run in a worker thread."""
        import asyncio

        try:
            while not self._stopping.is_set():
                await self._clock.asleep(await asyncio.to_thread(self.step))
        finally:
            await asyncio.shield(asyncio.to_thread(self.release))

    def start(self) -> Self:
        """Take part from a background thread until :meth:`close`."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = threading.Thread(target=self.run, name="eventperf-leader", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Stop taking part and release."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()
