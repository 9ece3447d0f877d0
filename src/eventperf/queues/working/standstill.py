"""Saying that a worker's loop stands still: an async handler that blocks it holds up every job beside it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from eventperf._core.logs import Lines, logger

_log = logger("eventperf.queues")

_LOOK_S = 1.0
_STILL_S = 2.0


class _Watch:
    """Asks the loop for a sign of life each second while jobs run; its silence is told once."""

    def __init__(self, worker: str, loop: asyncio.AbstractEventLoop, held: Mapping[str, int]) -> None:
        self._worker = worker
        self._loop = loop
        self._held = held
        self._loops_thread = threading.get_ident()
        self._asked_at: float | None = None
        self._told = False
        self.over: threading.Event = threading.Event()

    def run(self) -> None:
        looked = time.monotonic()
        while not self.over.wait(_LOOK_S):
            before, looked = looked, time.monotonic()
            asked = self._asked_at
            if asked is not None and looked - before > 2 * _LOOK_S:
                # This thread was held up too: the machine was, or a call held the interpreter.
                self._asked_at = looked
            elif asked is None:
                if self._held:
                    self._asked_at = time.monotonic()
                    with suppress(RuntimeError):  # it is closed
                        self._loop.call_soon_threadsafe(self._answer)
            elif looked - asked >= _STILL_S and not self._told:
                self._told = True
                self._tell(looked - asked)

    def _answer(self) -> None:
        self._asked_at = None
        self._told = False

    def _tell(self, silent_s: float) -> None:
        stack = traceback.format_stack(sys._current_frames().get(self._loops_thread))
        jobs = ", ".join(list(self._held)[:5])
        _log.warning(
            "worker %s: its loop has stood still for %.0f s, by a call that does not await, and with it the "
            "jobs here: %s. A plain handler would run in a thread. It is here:\n%s",
            self._worker, silent_s, jobs, Lines("".join(stack)),
        )  # fmt: skip


@contextmanager
def watched(worker: str, loop: asyncio.AbstractEventLoop, held: Mapping[str, int]) -> Iterator[None]:
    """Say once of each time the running loop stands still beside jobs; entered on that loop's thread."""
    watch = _Watch(worker, loop, held)
    threading.Thread(target=watch.run, name="eventperf-watch", daemon=True).start()
    try:
        yield
    finally:
        watch.over.set()
