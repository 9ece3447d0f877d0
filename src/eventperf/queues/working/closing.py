"""How a worker that owns its program ends in the time that was asked for, whatever its handlers do."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Protocol

from eventperf._core.logs import Lines, logger

from .texts import stack_text

_log = logger("eventperf.queues")

_GOING_S = 1.0  # for an interpreter that comes to its end
_HEED_S = 2.0  # for tasks and generators that were cancelled
_WAITS = getattr(getattr(threading, "_shutdown", None), "__code__", None)
LAST_S = 8.0
"""What a stop may take beyond its grace: hand-backs, the last reports, functions of ``on_shutdown``."""


_deaf: list[asyncio.Task[Any]] = []
"""What caught its cancellation. It is kept: if it were freed, it would go on inside of its own end."""


def run_to_end(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` on a loop of its own as ``asyncio.run`` does, but wait for nothing that does not heed it.

    Tasks that go on after they were cancelled are left where they are, and their loop ends.
    """
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main)
    finally:
        try:
            loop.run_until_complete(_leave(loop))
        finally:
            asyncio.set_event_loop(None)
            loop.close()  # which waits for no thread of its pool


async def _leave(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    deaf = (await asyncio.wait(tasks, timeout=_HEED_S))[1] if tasks else set()
    for task in deaf:
        text = "a task goes on although it was cancelled; its loop ends. It is here:\n%s"
        _log.error(text, Lines(stack_text(task)))
        _deaf.append(task)
    await asyncio.wait([asyncio.ensure_future(loop.shutdown_asyncgens())], timeout=_HEED_S)


class Ends(Protocol):
    """What a program's end needs of its worker."""

    id: str

    @property
    def grace_s(self) -> float: ...
    def stop(self, *, now: bool = False) -> None: ...
    def hung_up(self) -> None: ...
    def unreported(self) -> int:
        """Tell how many outcomes the store does not have yet."""
        ...

    def abandon(self) -> None:
        """Hand back what is held; from any thread, when the loop does not answer any more."""
        ...


class Signals:
    """What SIGTERM, SIGINT and SIGHUP mean to the program of a worker, and its end where it does not come.

    A handler may hold the loop, or leave threads behind that the interpreter waits for. A thread of this
    class hears the signals and ends the process when it has not ended by itself. Programs that go on to
    something else once ``run()`` has returned are left alone.
    """

    def __init__(self, worker: Ends) -> None:
        self._worker = worker
        self._pid = os.getpid()
        self._before: dict[int, Any] = {}
        self._ears, self._line = socket.socketpair()
        self._end_at: float | None = None

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._line.setblocking(False)
        numbers = [signal.SIGTERM, signal.SIGINT]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            numbers.append(signal.SIGHUP)  # else ``nohup`` or the program itself cares for it
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        threading.Thread(target=self._watch, name="eventperf-signals", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._line.close()
        if not self._before:
            self._ears.close()

    def tell(self, number: int) -> None:
        """Act as if that signal had come."""
        if self._before:
            with suppress(OSError):  # run() has just returned
                self._line.send(bytes([number]))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a process that a handler has forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.tell(number)

    def _watch(self) -> None:
        while heard := self._hear():
            if hasattr(signal, "SIGHUP") and heard[0] == signal.SIGHUP:
                self._worker.hung_up()
                continue
            _log.info("worker %s: signal %s, stopping", self._worker.id, heard[0])
            is_first = self._end_at is None
            self._end_at = time.monotonic() + LAST_S + (self._worker.grace_s if is_first else 0.0)
            self._worker.stop(now=not is_first)
        self._ears.close()
        if self._end_at is not None:
            leave_by(self._end_at, self._worker.abandon)

    def _hear(self) -> bytes:
        """Return the next signal; nothing when ``run()`` has returned."""
        try:
            return self._next()
        except TimeoutError:
            stack = traceback.format_stack(sys._current_frames().get(threading.main_thread().ident or 0))
            _log.error(
                "worker %s has not ended %g s after its grace, and its process ends here. It is at:\n%s",
                self._worker.id, LAST_S, Lines("".join(stack)),
            )  # fmt: skip
            _end(self._worker.abandon)
        return b""

    def _next(self) -> bytes:
        unreported = sys.maxsize
        while True:
            left = None if self._end_at is None else max(0.001, self._end_at - time.monotonic())
            self._ears.settimeout(left)
            try:
                return self._ears.recv(1)
            except TimeoutError:
                before, unreported = unreported, self._worker.unreported()
                if not 0 < unreported < before:
                    raise
                self._end_at = time.monotonic() + LAST_S  # the store is slow, and takes them


def leave_by(end_at: float, last: Callable[[], object]) -> None:
    """End the process when the program is over and the interpreter still waits for threads then."""
    while time.monotonic() < end_at or not _is_over():
        time.sleep(0.1)
    time.sleep(_GOING_S)  # most are just about to end
    main = threading.main_thread()
    others = [t.name for t in threading.enumerate() if t is not main and not t.name.startswith("eventperf-")]
    _log.error("the process ends beside threads of handlers that do not: %s", ", ".join(others))
    _end(last)


def leave_soon(last: Callable[[], object]) -> None:
    """Do that from now on, for a program that has nothing more to do."""
    args = time.monotonic() + LAST_S, last
    threading.Thread(target=leave_by, args=args, name="eventperf-leave", daemon=True).start()


def _is_over() -> bool:
    """Tell whether the main thread has come to its end and waits for others there."""
    main = threading.main_thread()
    frame = sys._current_frames().get(main.ident or 0)
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return not main.is_alive() or (frame is not None and frame.f_code is _WAITS)


def _end(last: Callable[[], object]) -> None:
    helper = threading.Thread(target=last, name="eventperf-last", daemon=True)
    with suppress(RuntimeError):  # no threads are started any more
        helper.start()
        helper.join(3.0)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(1)
