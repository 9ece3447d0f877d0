"""Thousands of targets in one loop."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from typing_extensions import Self

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.events import Hooks
from eventperf._core.logs import logger

_log = logger("eventperf.scaling.fleet")

_REST_S = 1.0

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)


class Ticking(Protocol[D_co]):
    """What a fleet drives: an ``AutoScaler``, or anything that decides when told to."""

    def tick(self) -> D_co:
        """Observe, decide, act once."""
        ...


class Leadership(Protocol):
    """Who may act; :class:`~eventperf.scaling.leader.LeaderElector` is one."""

    @property
    def is_leader(self) -> bool:
        """Whether this process may act now."""
        ...


class SharedState(Protocol):
    """State that several targets read; told when a new tick begins."""

    def refresh(self) -> None:
        """Let numbers that cannot be watched be read anew."""
        ...


@dataclass(frozen=True, slots=True)
class FleetTick(Generic[D]):
    """What one round did.

    Attributes:
        decisions: One per target that decided, in the order the scalers were given.
        errors: Index of a scaler and what it raised; the others were not disturbed.
        skipped: Targets not asked because this process does not lead, or lost its lead on the way.
        took_s: Duration of the round.
    """

    decisions: Sequence[D] = ()
    errors: Sequence[tuple[int, Exception]] = ()
    skipped: int = 0
    took_s: float = 0.0


class _Rest:
    """Lets the cyclic collector rest during a round, but never longer than a second.

    A round makes some hundred thousand small objects without cycles, most of which live until the next
    one; walking the heap for them again and again cost a third of a round of 5,000 targets.
    """

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = -math.inf
        if gc.isenabled():
            self._until = clock.monotonic() + _REST_S
            gc.disable()

    def check(self) -> None:
        """End the rest when its time is over."""
        if self._until > -math.inf and self._clock.monotonic() > self._until:
            self.end()

    def end(self) -> None:
        """Let the collector work again, if it did before."""
        if self._until > -math.inf:
            self._until = -math.inf
            gc.enable()


@dataclass(slots=True)
class _Round(Generic[D]):
    """Work shared by the threads of one round: each takes the next scaler."""

    scalers: Sequence[Ticking[D]]
    may_act: Callable[[], bool]
    rest: _Rest
    next: int = 0
    mu: threading.Lock = field(default_factory=threading.Lock)
    decided: dict[int, D] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)

    def work(self) -> None:
        while True:
            with self.mu:
                at = self.next
                if at >= len(self.scalers) or not self.may_act():
                    return
                self.next += 1
                self.rest.check()
            try:
                self.decided[at] = self.scalers[at].tick()
            except Exception as error:
                _log.exception("scaler %d of the fleet failed", at)
                self.errors[at] = error


class Fleet(Generic[D]):
    """Many scalers, ticked together.

    Every round asks each scaler once. One that raises does not stop the others; rounds never overlap.
    Targets that share a ``KubernetesState`` read the watch, and metrics are listed once per namespace
    and round. At most ``workers`` requests are under way at once; a steady round makes none per target.

    Args:
        scalers: What is ticked.
        leader: Only while it leads are scalers ticked; asked again before each of them.
        state: Shared states to refresh at the start of a round; those of the scalers' targets
            (attribute ``target.state``) are found by themselves.
        workers: Threads that tick; more than one pays only while targets are changed.

    >>> class Steady:
    ...     def tick(self): return "hold"
    >>> with Fleet([Steady(), Steady()], workers=1) as fleet:
    ...     fleet.tick().decisions
    ('hold', 'hold')
    """

    def __init__(
        self,
        scalers: Iterable[Ticking[D]],
        *,
        leader: Leadership | None = None,
        state: Iterable[SharedState] = (),
        workers: int = 8,
        clock: Clock | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigurationError("workers", workers, "1 or more")
        self.scalers: tuple[Ticking[D], ...] = tuple(scalers)
        self.leader = leader
        self._states = _states(self.scalers, state)
        self._workers = workers
        self._clock = clock or SystemClock()
        self._mu = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self.hooks: Hooks = Hooks()
        if leader is not None:
            self._guard()

    def _guard(self) -> None:
        """Let targets that can ask right before a write ask the leader: a paused one must not write late."""
        for scaler in self.scalers:
            target: Any = getattr(scaler, "target", None)
            if hasattr(target, "guard"):
                target.guard = self._leads

    def _leads(self) -> bool:
        return self.leader is None or self.leader.is_leader

    def tick(self) -> FleetTick[D]:
        """Make one round and return what it did."""
        with self._mu:
            started = self._clock.monotonic()
            if not self._leads():
                return FleetTick(skipped=len(self.scalers))
            for state in self._states:
                state.refresh()
            rest = _Rest(self._clock)
            round_ = _Round(self.scalers, self._leads, rest)
            try:
                self._spread(round_)
            finally:
                rest.end()
            result = FleetTick(
                tuple(round_.decided[at] for at in sorted(round_.decided)),
                tuple(sorted(round_.errors.items(), key=lambda pair: pair[0])),
                len(self.scalers) - len(round_.decided) - len(round_.errors),
                self._clock.monotonic() - started,
            )
        if self.hooks.active:
            self.hooks.emit(result)
        return result

    def _spread(self, round_: _Round[D]) -> None:
        workers = min(self._workers, len(self.scalers))
        if workers <= 1:
            round_.work()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="eventperf-fleet")
        for future in [self._pool.submit(round_.work) for _ in range(workers)]:
            future.result()

    def on(self, listener: Callable[[Any], object], *types: type) -> Callable[[], None]:
        """Call ``listener`` with every :class:`FleetTick`; returns a function that ends it.

        The decisions themselves are events of each scaler: ``scaler.on(...)``.
        """
        return self.hooks.subscribe(listener, *types)

    async def atick(self) -> FleetTick[D]:
        """Make one round in a worker thread."""
        import asyncio

        return await asyncio.to_thread(self.tick)

    def run(self, *, interval: Duration = 15.0, stop: threading.Event | None = None) -> None:
        """Make a round every ``interval`` until ``stop`` is set or :meth:`close` is called.

        Rounds start on a fixed grid: a slow one shortens the pause, and one that takes longer than
        the interval drops the starts it missed instead of running behind them.
        """
        every_s = seconds(interval, name="interval")
        due = self._clock.monotonic()
        while not self._stopping.is_set() and not (stop is not None and stop.is_set()):
            self.tick()
            now = self._clock.monotonic()
            due += every_s * max(1, -int((due - now) // every_s))
            self._pause(due, stop)

    def _pause(self, due: float, stop: threading.Event | None) -> None:
        while (left := due - self._clock.monotonic()) > 0:
            if (stop is not None and stop.is_set()) or self._stopping.is_set():
                return
            # three events cannot be waited for at once; a quarter second keeps a stop prompt
            if self._wake.wait(min(left, 0.25)):
                self._wake.clear()
                return

    def wake(self) -> None:
        """Let :meth:`run` begin its next round now, for example when this process became the leader."""
        self._wake.set()

    async def arun(self, *, interval: Duration = 15.0) -> None:
        """Like :meth:`run`, as a task; cancel it or :meth:`close` the fleet to stop."""
        every_s = seconds(interval, name="interval")
        due = self._clock.monotonic()
        while not self._stopping.is_set():
            await self.atick()
            now = self._clock.monotonic()
            due += every_s * max(1, -int((due - now) // every_s))
            await self._clock.asleep(max(0.0, due - now))

    def close(self) -> None:
        """Stop :meth:`run` and the threads; waits for a round under way."""
        self._stopping.set()
        self._wake.set()
        with self._mu:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        import asyncio

        await asyncio.to_thread(self.close)


def _states(scalers: Iterable[Any], given: Iterable[SharedState]) -> tuple[SharedState, ...]:
    found: dict[int, SharedState] = {id(s): s for s in given}
    for scaler in scalers:
        state: Any = getattr(getattr(scaler, "target", None), "state", None)
        if hasattr(state, "refresh"):
            found[id(state)] = state
    return tuple(found.values())
