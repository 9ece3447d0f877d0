"""How long a call may take as a whole: what it sends, waits for and sends again.

The time-out of a socket is for each read: a server that answers byte by byte holds a call for as long as it
likes. Bytes that come or go extend the time as a slow line would need it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Protocol

from eventperf._core.contexts import reset

BYTES_PER_S: Final = 1_000_000
"""The slowest line that a large value is given the time for."""


class Call(Protocol):
    """What the connections of a call tell it."""

    def moved(self, size: int, /) -> None: ...

    def left_s(self) -> float | None: ...


current: ContextVar[Call | None] = ContextVar("eventperf_redis_call", default=None)


class _Threads:
    """The end of a call of a thread."""

    __slots__ = ("_end",)

    def __init__(self, budget_s: float) -> None:
        self._end = time.monotonic() + budget_s

    def moved(self, size: int, /) -> None:
        self._end += size / BYTES_PER_S

    def left_s(self) -> float:
        return self._end - time.monotonic()


@contextmanager
def within(budget_s: float) -> Iterator[None]:
    """Let what a thread does here with connections of :mod:`.bounded` take ``budget_s`` as a whole."""
    token = current.set(_Threads(budget_s))
    try:
        yield
    finally:
        reset(current, token)


class Patience:
    """Gives up a task's waiting after ``budget_s`` of silence (``async with``).

    Time for which the loop was late is not counted, up to a bound.

    Raises:
        TimeoutError: The budget was used up.
    """

    __slots__ = (
        "_cancelling", "_end", "_expired", "_handle", "_left", "_loop", "_since", "_slice", "_task", "_token"
    )  # fmt: skip

    def __init__(self, budget_s: float) -> None:
        self._left = budget_s
        self._slice = max(0.002, budget_s / 4)
        self._expired = False
        self._handle: asyncio.TimerHandle | None = None
        self._token: Token[Call | None] | None = None

    async def __aenter__(self) -> Patience:
        self._loop = asyncio.get_running_loop()
        task: Any = asyncio.current_task()
        self._task: Any = task
        self._cancelling: int = task.cancelling() if sys.version_info >= (3, 11) else 0
        self._since = self._loop.time()
        self._end = self._since + max(20 * self._left, 2.0)
        self._handle = self._loop.call_later(self._slice, self._tick)
        self._token = current.set(self)
        return self

    def moved(self, size: int, /) -> None:
        """Give the time that so many bytes need on a slow line."""
        self._left += size / BYTES_PER_S
        self._end += size / BYTES_PER_S

    def left_s(self) -> None:
        """Tasks are ended by their loop, not by a socket."""

    def _tick(self) -> None:
        now = self._loop.time()
        late = now - self._since - self._slice
        if late < self._slice:
            self._left -= now - self._since
        if self._left <= 0 or now >= self._end:
            self._expired = True
            self._task.cancel()
            return
        self._since = now
        self._slice = max(0.002, min(self._slice, self._left))
        self._handle = self._loop.call_later(self._slice, self._tick)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._token is not None:
            reset(current, self._token)
        if not self._expired:
            return
        if sys.version_info >= (3, 11) and self._task.uncancel() > self._cancelling:
            return  # somebody else has cancelled the task too
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError("no answer in time") from error
