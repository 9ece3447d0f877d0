"""When a search has to end: at a time, or when somebody presses Ctrl-C; what is found by then counts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from eventperf._core.clock import Clock
from eventperf._core.durations import show

if TYPE_CHECKING:
    from typing_extensions import Self

    from eventperf.dbopt.protocols import Planner

_TELL_S = 1.0
#: So much of a budget is kept for the account of what was found, and at most so many seconds.
_ACCOUNT = 0.04
_ACCOUNT_S = 2.0


class Deadline:
    """Ends an anytime search; a context manager around it.

    Ctrl-C is taken over only in the main thread and only where Python's own handler is installed: an
    application that handles SIGINT keeps doing so. The second Ctrl-C raises ``KeyboardInterrupt``.

    Args:
        clock: Time.
        end: Monotonic time of the end; a little is kept for what has to be done after it.
        tell: Receives a line of progress about once a second.
    """

    def __init__(self, clock: Clock, end: float, tell: Callable[[str], None]) -> None:
        self.interrupted: bool = False
        self.clock: Clock = clock
        self._tell = tell
        self._told = now = clock.monotonic()
        self._end = end - min(_ACCOUNT_S, _ACCOUNT * max(0.0, end - now))
        self._planner: Planner | None = None
        self._before: Any = None

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def watch(self, planner: Planner) -> None:
        """Tell how many plans ``planner`` was asked for, from now on."""
        self._planner = planner

    def expired(self) -> bool:
        """Tell whether to end now; called between steps."""
        now = self.clock.monotonic()
        if self._planner is not None and now - self._told >= _TELL_S:
            self._told = now
            left = show(round(max(0.0, self._end - now)))
            self._tell(f"searching: {self._planner.explains:,} plans so far, {left} left")
        return self.interrupted or now > self._end

    @property
    def end(self) -> float:
        """The monotonic time of the end."""
        return self._end

    def left_s(self) -> float:
        """Return the seconds that are left, at least 0."""
        return 0.0 if self.interrupted else max(0.0, self._end - self.clock.monotonic())

    @property
    def reason(self) -> str:
        """Why it ended early."""
        return "interrupted" if self.interrupted else "the time budget was used up"
