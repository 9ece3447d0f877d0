"""How long a server may be silent: measured, and without counting the time that this process was busy.

Silence is what a time-out is about. The milliseconds in which our own event loop ran something else, and the
seconds that a large value needs on its way, are no silence.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from eventperf._core.durations import Duration, seconds
from eventperf._core.logs import logger

_log = logger("eventperf.cache")

LEAST_S: Final = 0.05
MOST_S: Final = 1.0
ROUND_TRIPS: Final = 8
"""So many measured round trips long the server may be silent, between the two bounds above."""
BYTES_PER_S: Final = 1_000_000
"""The slowest line that a large value is given the time for."""
LARGE: Final = 65_536


class Timeout:
    """The time-out of one store: fixed, or ``"auto"``: following the round trips that are measured.

    Args:
        given: A duration, or ``"auto"``.
        url: For the log.
    """

    def __init__(self, given: Duration | str, url: str = "") -> None:
        self.is_auto: bool = given == "auto"
        self._url = url
        self.seconds: float = LEAST_S if self.is_auto else seconds(given, name="timeout", maximum=60)
        self.round_trip_s: float | None = None
        self._on_change: list[Callable[[], None]] = []
        self.after_fork()

    def after_fork(self) -> None:
        """Make a lock that no thread of the parent holds."""
        self._mu = threading.Lock()

    def on_change(self, renew: Callable[[], None]) -> None:
        """Call ``renew`` when connections that are open have an outdated time-out."""
        self._on_change.append(renew)

    def measured(self, round_trip_s: float) -> None:
        """Follow a round trip that was measured while the server had nothing else to do for us."""
        with self._mu:
            known = self.round_trip_s
            smooth = round_trip_s if known is None else known + (round_trip_s - known) / 8
            self.round_trip_s = smooth
            wanted = min(MOST_S, max(LEAST_S, ROUND_TRIPS * smooth))
            if not self.is_auto or self.seconds / 2 <= wanted <= self.seconds * 1.25:
                return
            grew = wanted > self.seconds
            self.seconds = wanted
        if grew:
            _log.warning(
                "cache at %s: a round trip takes %.0f ms; waiting up to %.0f ms for an answer",
                self._url, smooth * 1000, wanted * 1000,
            )  # fmt: skip
        for renew in self._on_change:
            renew()

    @property
    def probe_s(self) -> float:
        """How long a sign of life may take, which decides whether the time-out is too short."""
        return max(self.seconds, 0.6) if self.is_auto else self.seconds

    def for_bytes(self, size: int) -> float:
        """Return how long a command of so many bytes may take."""
        return self.seconds + (size / BYTES_PER_S if size > LARGE else 0.0)


class Patience:
    """Gives up a task's waiting after ``budget_s`` of silence (``async with``).

    Time for which the loop was late is not counted, up to a bound.

    Raises:
        TimeoutError: The budget was used up.
    """

    __slots__ = ("_cancelling", "_end", "_expired", "_handle", "_left", "_loop", "_since", "_slice", "_task")

    def __init__(self, budget_s: float) -> None:
        self._left = budget_s
        self._slice = max(0.002, budget_s / 4)
        self._expired = False
        self._handle: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Patience:
        self._loop = asyncio.get_running_loop()
        task: Any = asyncio.current_task()
        self._task: Any = task
        self._cancelling: int = task.cancelling() if sys.version_info >= (3, 11) else 0
        self._since = self._loop.time()
        self._end = self._since + max(20 * self._left, 2.0)
        self._handle = self._loop.call_later(self._slice, self._tick)
        return self

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
        if not self._expired:
            return
        if sys.version_info >= (3, 11) and self._task.uncancel() > self._cancelling:
            return  # somebody else has cancelled the task too
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError("no answer in time") from error


def weight(command: tuple[Any, ...]) -> int:
    """Return the bytes of a command, as far as they matter."""
    return sum(len(part) for part in command if type(part) is bytes)
