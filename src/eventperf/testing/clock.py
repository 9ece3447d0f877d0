"""A clock that tests turn by hand."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count

from eventperf._core.errors import ConfigurationError


class FakeClock:
    """Time that moves only when :meth:`advance` is called.

    Sleepers, threads and tasks of any loop alike, wake in order of their deadlines; while one of them
    is woken ``monotonic()`` reads its deadline. :meth:`step_wall` moves the wall clock alone, as an
    administrator or NTP would.

    >>> clock = FakeClock()
    >>> start = clock.monotonic(); clock.advance(2.5); clock.monotonic() - start
    2.5
    """

    def __init__(self, *, monotonic: float = 1000.0, time: float = 1_700_000_000.0) -> None:
        self._now = monotonic
        self._offset = time - monotonic
        self._mu = threading.Lock()
        self._sleepers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now + self._offset

    @property
    def sleepers(self) -> int:
        """How many threads and tasks are asleep on this clock."""
        return len(self._sleepers)

    def step_wall(self, seconds: float) -> None:
        """Move the wall clock by ``seconds`` (may be negative); monotonic time stands still."""
        self._offset += seconds

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass and wake whoever is due."""
        if seconds < 0:
            raise ConfigurationError("seconds", seconds, "0 or more (step_wall steps the wall clock)")
        end = self._now + seconds
        while True:
            with self._mu:
                if not self._sleepers or self._sleepers[0][0] > end:
                    self._now = end
                    return
                due, _, wake = heapq.heappop(self._sleepers)
                self._now = max(self._now, due)
            wake()

    def sleep(self, seconds: float, /) -> None:
        woken = threading.Event()
        self._park(seconds, woken.set)
        woken.wait()

    async def asleep(self, seconds: float, /) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def settle() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle)

        self._park(seconds, wake)
        await woken

    def _park(self, seconds: float, wake: Callable[[], object]) -> None:
        with self._mu:
            if seconds > 0:
                heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), wake))
                return
        wake()
