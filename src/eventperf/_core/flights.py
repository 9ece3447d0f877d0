"""Who is loading which key: one table for threads and for tasks of any event loop.

The table decides, the callers do the loading. A caller that joins a key either leads (it must load and
then :meth:`Flights.land`) or may wait. Waiting for a load that can only end after the caller itself has
returned is recognised (own stack, own task and its children, a cycle over several keys) and refused, so
that the caller loads for itself instead of standing still for ever.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from .contexts import Within

OPEN: Final = "open"
VALUE: Final = "value"
ERROR: Final = "error"
ABANDONED: Final = "abandoned"
"""The leader was cancelled or killed: whoever waited goes round again, and one of them leads."""

LOOK_S: Final = 1.0
"""How often whoever waits for a task of another loop looks whether that loop is still there."""

_leading: ContextVar[tuple[Flight, ...]] = ContextVar("eventperf_leading", default=())


def _running_loop() -> Any:
    asyncio = sys.modules.get("asyncio")
    return asyncio._get_running_loop() if asyncio is not None else None


class Flight:
    """One load under way.

    Attributes:
        key: What is being loaded.
        state: ``open``, ``value``, ``error`` or ``abandoned``.
        outcome: The value or the exception once it has landed.
        fenced: The key was invalidated after this load began; its result must not be stored.
        fenced_tags: Tags invalidated after this load began.
        said: Tags that the load has said to have since it began.
        is_outdated: What it brought was not kept, as something was written elsewhere meanwhile; it is good
            enough for those alone who asked before it began.
        is_refresh: There is an old value, which may do for those who need not wait.
    """

    __slots__ = (
        "_landed_with", "_loop", "_thread", "_waits_on", "_wakers", "fenced", "fenced_tags", "is_outdated",
        "is_refresh", "key", "outcome", "said", "state",
    )  # fmt: skip

    def __init__(self, key: object, thread: int) -> None:
        self.key: object = key
        self.state: str = OPEN
        self.outcome: Any = None
        self.fenced: bool = False
        self.fenced_tags: set[str] = set()
        self.said: Collection[str] = ()
        self.is_outdated: bool = False
        self.is_refresh: bool = False
        self._thread = thread
        self._loop: Any = _running_loop()
        self._landed_with: TracebackType | None = None
        self._waits_on: Flight | None = None
        self._wakers: list[Callable[[], object]] = []

    def result(self) -> Any:
        """Return the value or raise the loader's error; only after landing."""
        if self.state == ERROR:
            error: BaseException = self.outcome
            # As it landed: the frames of everybody who was told before would pile up in it otherwise.
            raise BaseException.with_traceback(error, self._landed_with)
        return self.outcome

    @property
    def is_orphan(self) -> bool:
        """Whether it can never land: its task's loop was closed under it."""
        return self._loop is not None and bool(self._loop.is_closed())

    @property
    def is_awaited(self) -> bool:
        """Whether somebody is parked on it."""
        return bool(self._wakers)


class Flights:
    """The table of open loads of one process; safe for threads and for tasks of any loop."""

    def __init__(self) -> None:
        self._reset()
        _tables.add(self)

    def _reset(self) -> None:
        self._mu = threading.RLock()
        self._open: dict[object, Flight] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: object) -> bool:
        return key in self._open

    def join(self, key: object, tags: Iterable[str] | None = ()) -> tuple[Flight, bool]:
        """Return the open flight of ``key`` and whether the caller leads it (and must land it).

        A load that began before an invalidation of its tags is not joined after it: what it brings may be
        older than the write the caller has already seen.

        Args:
            key: What is to be loaded.
            tags: Tags the result will carry; ``None`` when they are known only afterwards.
        """
        with self._mu:
            flight = self._open.get(key)
            if flight is not None and not flight.is_orphan:
                late = flight.fenced_tags and (
                    tags is None or flight.said or not flight.fenced_tags.isdisjoint(tags)
                )
                if not late:
                    return flight, False
                flight.fenced = True
            flight = self._open[key] = Flight(key, threading.get_ident())
            return flight, True

    def join_many(
        self, keys: list[Any], tags: Iterable[str] | None = ()
    ) -> tuple[dict[Any, Flight], dict[Any, Flight]]:
        """Join several keys at once, all with the same ``tags``.

        Returns:
            Flights the caller leads, and flights led by others, by key.
        """
        mine: dict[Any, Flight] = {}
        others: dict[Any, Flight] = {}
        for key in keys:
            flight, leads = self.join(key, tags)
            (mine if leads else others)[key] = flight
        return mine, others

    def land(self, flight: Flight, state: str, outcome: Any = None) -> None:
        """End ``flight``; everyone parked on it wakes."""
        with self._mu:
            if self._open.get(flight.key) is flight:
                del self._open[flight.key]
            flight.outcome = outcome
            flight._landed_with = outcome.__traceback__ if state == ERROR else None
            flight.state = state
            wakers, flight._wakers = flight._wakers, []
        for wake in wakers:
            wake()

    def moved(self, flight: Flight) -> None:
        """Say that the load of ``flight`` goes on in this thread (a caller handed it over)."""
        flight._thread, flight._loop = threading.get_ident(), _running_loop()

    def leading(self, *flights: Flight) -> Within[tuple[Flight, ...]]:
        """Mark this context, and tasks or threads that copy it, as the one ``flights`` depend on."""
        return Within(_leading, (*_leading.get(), *flights))

    def fence(self, *keys: object) -> None:
        """An invalidation of ``keys``: loads under way may not be stored, later callers load anew."""
        with self._mu:
            for key in keys:
                flight = self._open.pop(key, None)
                if flight is not None:
                    flight.fenced = True

    def fence_where(self, matches: Callable[[Any], bool]) -> None:
        """As :meth:`fence`, for every open key that ``matches``."""
        with self._mu:
            doomed = [key for key in self._open if matches(key)]
        self.fence(*doomed)

    def fence_tags(self, tags: tuple[str, ...]) -> None:
        """An invalidation of ``tags``: tell every open load; which tags it has is known at its end."""
        with self._mu:
            for flight in self._open.values():
                flight.fenced_tags.update(tags)

    def may_wait(self, flight: Flight, *, blocking: bool) -> bool:
        """Tell whether waiting for ``flight`` here can end.

        Args:
            flight: The flight of somebody else.
            blocking: The caller would block its thread (sync), not only its task.
        """
        if blocking and flight._thread == threading.get_ident():
            return False  # below us on this stack, or a task of the loop that we would block
        led = _leading.get()
        if not led:
            return True
        with self._mu:
            at: Flight | None = flight
            while at is not None:
                if at in led:
                    return False
                at = at._waits_on
            led[-1]._waits_on = flight
        return True

    def wait(self, flight: Flight, timeout_s: float | None = None) -> bool:
        """Block until ``flight`` lands; False when ``timeout_s`` went by first."""
        parked = threading.Lock()  # one each: a shared event would let a crowd through one by one
        parked.acquire()
        with self._mu:
            if flight.state != OPEN:
                return True
            flight._wakers.append(parked.release)
        try:
            return self._park(flight, timeout_s, lambda s: parked.acquire(timeout=s))
        finally:
            if flight.state == OPEN:
                with self._mu:
                    if parked.release in flight._wakers:
                        flight._wakers.remove(parked.release)
            self._waited()

    def _park(self, flight: Flight, timeout_s: float | None, wait: Callable[[float], bool]) -> bool:
        """Wait; where a task of some loop leads, look from time to time whether that loop is still there."""
        if flight._loop is None:
            return wait(-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not wait(max(0.0, min(LOOK_S, end - time.monotonic()))):
            if flight.is_orphan:
                self.land(flight, ABANDONED)
            elif time.monotonic() >= end:
                return False
        return True

    async def await_(self, flight: Flight, timeout_s: float | None = None) -> bool:
        """Suspend this task until ``flight`` lands; cancelling the task harms nobody."""
        import asyncio  # late: plain programs must not pay for an event loop

        loop = asyncio.get_running_loop()
        landed = loop.create_future()

        def settle() -> None:
            if not landed.done():
                landed.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                pass  # that loop was closed while its task was parked: nobody is left to wake

        with self._mu:
            if flight.state != OPEN:
                return True
            flight._wakers.append(wake)
        try:
            if timeout_s is None and flight._loop in (None, loop):
                await landed
                return True
            if flight._loop in (None, loop):
                done, _ = await asyncio.wait({landed}, timeout=timeout_s)
                return bool(done)
            end = math.inf if timeout_s is None else time.monotonic() + timeout_s
            while not landed.done():
                if flight.is_orphan:
                    self.land(flight, ABANDONED)
                left = min(LOOK_S, end - time.monotonic())
                if left <= 0:
                    return False
                await asyncio.wait({landed}, timeout=left)
            return True
        finally:
            with self._mu:
                if wake in flight._wakers:
                    flight._wakers.remove(wake)
            self._waited()

    def _waited(self) -> None:
        led = _leading.get()
        if led:
            led[-1]._waits_on = None


_tables: weakref.WeakSet[Flights] = weakref.WeakSet()


def _after_fork() -> None:
    # The threads that led these loads do not exist in the child, and a lock may have been held.
    for table in list(_tables):
        table._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
