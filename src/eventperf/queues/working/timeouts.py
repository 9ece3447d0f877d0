"""Time-outs of many runs with one timer per distinct length, not one per run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class Timeouts:
    """Runs of equal length expire in the order they began, so only the first of each needs a timer.

    Args:
        on_due: Called with what was added, when its time has passed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[Hashable], object]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._lines: dict[float, dict[Hashable, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, item: Hashable, timeout_s: float) -> None:
        """Call ``on_due(item)`` in ``timeout_s`` seconds unless it is removed before."""
        line = self._lines.get(timeout_s)
        if line is None:
            line = self._lines[timeout_s] = {}
        due = self._loop.time() + timeout_s
        line[item] = due
        if timeout_s not in self._timers:
            self._timers[timeout_s] = self._loop.call_at(due, self._fire, timeout_s)

    def remove(self, item: Hashable, timeout_s: float) -> None:
        """Forget ``item``; does nothing when it is not there."""
        line = self._lines.get(timeout_s)
        if line is not None:
            line.pop(item, None)

    def _fire(self, timeout_s: float) -> None:
        line, now = self._lines[timeout_s], self._loop.time()
        self._timers.pop(timeout_s, None)
        while line:
            item, due = next(iter(line.items()))
            if due > now:
                self._timers[timeout_s] = self._loop.call_at(due, self._fire, timeout_s)
                return
            del line[item]
            self._on_due(item)
        del self._lines[timeout_s]

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._lines.clear()
