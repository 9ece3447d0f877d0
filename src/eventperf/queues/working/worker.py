"""The worker: what a program starts and stops; each of its runs is a session."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from types import TracebackType

from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.queues.checks import check_int, check_name
from eventperf.queues.engine import Engine
from eventperf.queues.errors import StoreUnavailable
from eventperf.queues.options import QueueConfig, WorkerLife
from eventperf.queues.protocols import (
    Backend,
    HostBackend,
    Session,
    WorkerCard,
    WorkerFacts,
    WorkerPlan,
)

from .closing import Signals, run_to_end
from .life import Starting, shut_down, start_up
from .session import StoreSession

_log = logger("eventperf.queues")

_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.2, 2.0


class Worker:
    """Runs jobs of one manager on one event loop.

    ``with`` and ``async with`` close it; :meth:`run` is for plain programs, :meth:`arun` for a loop
    that already runs. :meth:`stop` may be called from anywhere.
    """

    def __init__(
        self,
        engine: Engine,
        backend: Backend,
        queues: Sequence[QueueConfig],
        concurrency: int | None,
        *,
        lease_s: float,
        grace_s: float,
        name: str | None,
        life: WorkerLife,
        version: str | None,
    ) -> None:
        if not queues:
            raise ConfigurationError("queues", [], "at least one queue")
        if lease_s < 0.2:
            raise ConfigurationError("lease", lease_s, "at least 0.2 s")
        if concurrency is not None:
            check_int(concurrency, argument="concurrency", low=1)
        if name is not None:
            check_name(name, argument="name")
        if version is not None:
            check_name(version, argument="version")
        self._version = version
        self._engine = engine
        self._backend = backend
        self._room = {q.name: concurrency or q.concurrency for q in queues}
        self._has_own_rooms = concurrency is None
        self._keep_failed = {q.name: q.keep_failed for q in queues}
        self._slots = concurrency or sum(self._room.values())
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._life = life
        self._plan: WorkerPlan | None = None
        # Two that were given one name are two all the same: the store hands back what a worker's id holds.
        self.id: str = (
            f"{name or f'{socket.gethostname()}-{os.getpid()}'}-{engine.random.getrandbits(32):08x}"
        )
        self._mu = threading.Lock()
        self._session: Session | None = None
        self._starting: Starting | None = None
        self._stop_asked = False
        self._signals: Signals | None = None
        self._ended: StoreSession | None = None  # of the last run, whose loop may live on

    def card(self) -> WorkerCard:
        """Return how this worker introduces itself to the store."""
        types = frozenset(name for name, kind in self._engine.types.items() if kind.handler is not None)
        return WorkerCard(
            id=self.id, types=types, room_by_queue=self._room, slots=self._slots, lease_s=self._lease_s,
            about=self._about(),
        )  # fmt: skip

    def _about(self) -> dict[str, str | int | float]:
        about: dict[str, str | int | float] = {
            "host": socket.gethostname()[:200], "pid": os.getpid(),
            "started_at": round(self._engine.clock.time(), 3),
        }  # fmt: skip
        with suppress(PackageNotFoundError):  # carried along without its metadata
            about["eventperf_version"] = version_of("eventperf")
        return about if self._version is None else {**about, "version": self._version}

    # -- life --------------------------------------------------------------------------------------

    def run(self, *, burst: bool = False, wait_for_store: bool = False) -> None:
        """Run until :meth:`stop`, SIGTERM or SIGINT; with ``burst`` until nothing can run now.

        What a burst leaves is logged with counts: jobs that a limit or a pause holds back, and delayed ones,
        retries among them. SIGHUP retires the worker (:meth:`retire`), unless the program handles or ignores
        it.

        Args:
            wait_for_store: Wait for a store that cannot be reached at the start, not ready meanwhile, as
                ``eventperf queue worker`` does. Later losses are waited out in any case.

        Raises:
            StoreUnavailable: The store cannot be reached at the start, and is not to be waited for.
            ConfigurationError: An event loop runs in this thread already: await :meth:`arun` there.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass  # go on outside, lest every error of a job has this one as its context
        else:
            raise ConfigurationError("run()", "called inside a running event loop", "await worker.arun()")
        with Signals(self) as self._signals:
            try:
                run_to_end(self._run_and_close(burst, wait_for_store))
            finally:
                if self._ended is not None:
                    self._ended.loop_ended()

    async def _run_and_close(self, burst: bool, wait_for_store: bool) -> None:
        try:
            await self.arun(burst=burst, wait_for_store=wait_for_store)
        finally:
            with suppress(StoreUnavailable):  # a client that looks for its nodes when it is made
                await self._backend.aio().close()

    def signal(self, number: int) -> None:
        """Do what ``run()`` does when that signal comes: end the process where a stop does not."""
        if self._signals is None:
            self.stop()
        else:
            self._signals.tell(number)

    def hung_up(self) -> None:
        _log.info(
            "worker %s: SIGHUP: it ends once its jobs have, for whatever started it to start it anew; "
            "--processes renews workers without a gap",
            self.id,
        )
        self.retire("SIGHUP")

    @property
    def grace_s(self) -> float:
        """How long a stop waits for jobs that run."""
        return self._grace_s

    def unreported(self) -> int:
        """Tell how many outcomes the store does not have yet."""
        session = self._session
        return session.unreported if isinstance(session, StoreSession) else 0

    def abandon(self) -> None:
        """Hand back what is held when the loop cannot any more; for the last moment of a process."""
        session = self._session or self._ended
        if isinstance(session, StoreSession):
            session.abandon()

    async def arun(self, *, burst: bool = False, wait_for_store: bool = False) -> None:
        """Asynchronous twin of :meth:`run`, without signal handlers."""
        with self._mu:
            if self._session is not None or self._starting is not None:
                raise ConfigurationError("worker", self.id, "one run at a time")
            engine = replace(self._engine, state={})
            starting = self._starting = Starting(start_up(engine))
            if self._stop_asked:
                starting.cancel()
        try:
            if await starting.is_done():
                try:
                    await self._work(engine, burst, wait_for_store)
                finally:
                    await shut_down(engine)
        finally:
            with self._mu:
                self._ended = self._session if isinstance(self._session, StoreSession) else None
                self._starting = self._session = None
                self._stop_asked = False

    async def _work(self, engine: Engine, burst: bool, wait_for_store: bool) -> None:
        waited, pause_s = False, _FIRST_PAUSE_S
        while True:
            try:
                await self._begin(engine, waited).run(burst)
                break
            except StoreUnavailable as error:
                if not wait_for_store:
                    raise
                if not waited:
                    _log.warning("worker %s waits for its store: %s", self.id, error)
            waited = True
            if not await self._paused(pause_s):
                return
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)
        if burst:
            await self._tell_left()

    async def _paused(self, pause_s: float) -> bool:
        """Wait before the next try to begin; false when a stop cut it short."""
        with self._mu:
            pause = self._starting = Starting(asyncio.sleep(pause_s))
            self._session = None
            if self._stop_asked:
                pause.cancel()
        return await pause.is_done()

    def _begin(self, engine: Engine, waited: bool) -> Session:
        """Make a session; after an outage one that lets others renew before it takes back leases."""
        with self._mu:
            card = self.card()
            plan = self._plan = WorkerPlan(
                card=replace(card, spare_s=card.lease_s) if waited else card,
                has_own_rooms=self._has_own_rooms,
                grace_s=self._grace_s,
                keep_failed=self._keep_failed,
                life=self._life,
            )
            session: Session
            if isinstance(self._backend, HostBackend):
                session = self._backend.session(plan, engine)
            else:
                session = StoreSession(plan, engine, self._backend)
            self._session, self._starting = session, None
            if self._stop_asked:
                session.stop()
            return session

    async def _tell_left(self) -> None:
        """Say what a burst leaves behind: it waits for no limit, no pause and no time."""
        try:
            rows = [row for row in await self._backend.aio().counts() if row.name in self._room]
        except StoreUnavailable as error:
            _log.debug("worker %s: what its burst left is not known: %s", self.id, error)
            return
        left = [
            f"{row.name} {row.waiting:,} waiting{' (paused)' if row.paused else ''}, {row.delayed:,} delayed"
            for row in rows
            if row.waiting or row.delayed
        ]
        if left:
            level = logging.WARNING if any(row.waiting for row in rows) else logging.INFO
            text = (
                "worker %s: the burst is over, and jobs are left that could not run now: %s. Waiting ones "
                "are held by a limit or a pause, or no handler here knows them; delayed ones, retries among "
                "them, have their time yet to come. A worker without burst runs them then"
            )
            _log.log(level, text, self.id, "; ".join(left))

    def stop(self, *, now: bool = False) -> None:
        """Ask for a graceful stop: running jobs get ``grace`` to finish (none with ``now``), then go back."""
        with self._mu:
            self._stop_asked = True
            if now and self._plan is not None:
                self._plan.grace_s = 0.0
            if self._session is not None:
                self._session.call(self._session.stop)
            elif self._starting is not None:
                self._starting.cancel()

    def retire(self, why: str = "asked to") -> None:
        """Let every running job end, however long it takes, claim no more, and stop; from anywhere."""
        with self._mu:
            if self._session is not None:
                self._session.call(self._session.retire, why)
            elif self._starting is not None:
                self._stop_asked = True
                self._starting.cancel()

    def ask(self, tell: Callable[[WorkerFacts], object]) -> bool:
        """Have ``tell`` called with how the run is doing, on its loop; false while nothing runs."""
        with self._mu:
            session = self._session
            if session is not None:
                session.call(lambda: tell(session.facts()))
            return session is not None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Worker {self.id}: {', '.join(self._room)}>"
