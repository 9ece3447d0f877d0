"""Time as a dependency, so that tests can turn it by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time and two ways to let it pass.

    ``monotonic`` measures durations and never steps; ``time`` is the wall clock in seconds since
    the epoch and may step. Decisions use ``monotonic``; only what is shown to people or shared
    between hosts uses ``time``.
    """

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes back."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch; may be stepped by the host."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block this thread for ``seconds``."""
        ...

    async def asleep(self, seconds: float, /) -> None:
        """Suspend this task for ``seconds``."""
        ...


class SystemClock:
    """The host's own clock."""

    __slots__ = ()

    # The C functions themselves: a reading costs no Python frame.
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)
    sleep: staticmethod[[float], None] = staticmethod(time.sleep)
    time: staticmethod[[], float] = staticmethod(time.time)  # last: from here on the name is the method

    async def asleep(self, seconds: float, /) -> None:
        import asyncio  # late: plain programs must not pay for an event loop

        await asyncio.sleep(seconds)

    def __repr__(self) -> str:
        return "SystemClock()"
