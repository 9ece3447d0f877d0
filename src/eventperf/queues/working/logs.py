"""The last log lines of each running job: one handler of a process, told apart by the job's context."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextvars import ContextVar

from eventperf.queues.attempts import LOG_BYTES, tail

_OWN = "eventperf.queues"
_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


class LogTail:
    """The last lines that one job logged, in its own bounds whatever it logs."""

    __slots__ = ("_lines", "_size")

    def __init__(self) -> None:
        self._lines: deque[str] | None = None
        self._size = 0

    def add(self, line: str) -> None:
        """Keep ``line``; called from any thread of the job, under the handler's lock."""
        if self._lines is None:
            self._lines = deque()
        line = tail(line, LOG_BYTES)
        self._lines.append(line)
        self._size += len(line)
        while self._size > 2 * LOG_BYTES:
            self._size -= len(self._lines.popleft())

    def text(self) -> str | None:
        """Return what is kept; ``None`` when the job logged nothing."""
        return None if not self._lines else tail("\n".join(list(self._lines)), LOG_BYTES)


current: ContextVar[LogTail | None] = ContextVar("eventperf_job_log", default=None)
"""The log of the job that runs here."""


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and _is_alone(record.name):
            last.handle(record)  # without this handler the program would have said it there
        log = current.get()
        if log is None or record.name.startswith(
            _OWN
        ):  # what the worker says of the job is kept as its error
            return
        try:
            log.add(_FORMAT.format(record).replace("\0", "\\x00"))
        except Exception:  # a message whose arguments do not fit
            self.handleError(record)


def _is_alone(name: str) -> bool:
    """Tell whether no handler but this package's own hears a logger."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(handler is not _handler for handler in logger.handlers):
            return False
        logger = logger.parent if logger.propagate else None
    return True


_handler = _Handler()
_mu = threading.Lock()
_users = 0


def listen() -> None:
    """Begin to keep what jobs log; each call needs its :func:`leave`."""
    global _users
    with _mu:
        _users += 1
        if _users == 1:
            logging.getLogger().addHandler(_handler)


def leave() -> None:
    """End what :func:`listen` began."""
    global _users
    with _mu:
        _users -= 1
        if not _users:
            logging.getLogger().removeHandler(_handler)
