"""The last log lines of each running job, told apart by the job's context.

Heard where a logger hands a record to its handlers, after its own filters. A handler on the root logger would
make a later ``logging.basicConfig()`` of the program do nothing, and a ``dictConfig()`` would take it away.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar

from eventperf.queues.attempts import LOG_BYTES, tail

_OWN = "eventperf.queues"
_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
_Call = Callable[[logging.Logger, logging.LogRecord], None]


class LogTail:
    """The last lines that one job logged, in its own bounds whatever it logs."""

    __slots__ = ("_lines", "_mu", "_size")

    def __init__(self) -> None:
        self._mu = threading.RLock()  # a signal or a destructor may log while a line is kept
        self._lines: deque[str] | None = None
        self._size = 0

    def add(self, line: str) -> None:
        """Keep ``line``; called from any thread of the job."""
        line = tail(line, LOG_BYTES)
        with self._mu:
            if self._lines is None:
                self._lines = deque()
            self._lines.append(line)
            self._size += len(line)
            while self._size > 2 * LOG_BYTES:
                self._size -= len(self._lines.popleft())

    def text(self) -> str | None:
        """Return what is kept; ``None`` when the job logged nothing."""
        with self._mu:
            return None if not self._lines else tail("\n".join(self._lines), LOG_BYTES)


current: ContextVar[LogTail | None] = ContextVar("eventperf_job_log", default=None)
"""The log of the job that runs here."""


def _keep(record: logging.LogRecord) -> None:
    log = current.get()
    if log is None or record.name.startswith(_OWN):  # what the worker says of the job is kept as its error
        return
    try:
        line = _FORMAT.format(record)
    except Exception:  # a message whose arguments do not fit: the program's own handlers complain of it
        said = repr(record.msg) if isinstance(record.msg, str) else f"a {type(record.msg).__name__}"
        line = f"{record.levelname} {record.name}: {said} (its arguments do not fit)"
    log.add(line.replace("\0", "\\x00"))


_mu = threading.RLock()
_users = 0


def _hear() -> None:
    """Put an ear between loggers and their handlers, once for the life of the process."""
    hand_on: _Call = logging.Logger.callHandlers

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        if _users:
            _keep(record)
        hand_on(self, record)

    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]


def listen() -> None:
    """Begin to keep what jobs log; each call needs its :func:`leave`."""
    global _users, _is_heard
    with _mu:
        if not _is_heard:
            _is_heard = True
            _hear()
        _users += 1


_is_heard = False


def leave() -> None:
    """End what :func:`listen` began."""
    global _users
    with _mu:
        _users -= 1
