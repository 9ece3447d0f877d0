"""Several worker processes under one: started, watched, renewed, and stopped together."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from glob import glob
from types import FrameType

from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.queues.checks import check_int

from .health import PATIENCE_S, HealthServer, Report
from .tether import NOW, RETIRE, STOP

_log = logger("eventperf.queues")

_TICK_S = 0.2
_FIRST_WORD_S = 300.0  # importing an application and its start may take long
_STEADY_S = 10.0
_PAUSE_S, _MOST_PAUSE_S = 0.5, 30.0
_LAST_S = 5.0
_LINE_BYTES = 65536
_NAMES = frozenset(f.name for f in fields(Report))


def pause_after(lived_s: float, pause_s: float) -> float:
    """Return how long to wait before a process is started again that lived ``lived_s``, after a last pause.

    >>> pause_after(2.0, 0.0), pause_after(2.0, 0.5), pause_after(60.0, 8.0)
    (0.5, 1.0, 0.0)
    """
    if lived_s >= _STEADY_S:
        return 0.0
    return min(_MOST_PAUSE_S, 2 * pause_s or _PAUSE_S)


class _Child:
    """One process: the line to it, and what it last said."""

    def __init__(self, command: Sequence[str], number: int) -> None:
        self.number = number
        self.line, theirs = socket.socketpair()
        with theirs:  # in a session of its own: what its handlers start can be ended with it
            self.process = subprocess.Popen(  # noqa: S603 - the caller's own
                command, stdin=theirs.fileno(), start_new_session=True
            )
        self.line.setblocking(False)
        self.born = self.heard_at = time.monotonic()
        self.report: Report | None = None
        self.asked = b""
        self.kill_at: float | None = None
        self._rest = b""

    def ask(self, word: bytes, within_s: float | None) -> None:
        """Send a word; the process is killed when it has not ended ``within_s``."""
        self.asked = word
        self.kill_at = None if within_s is None else time.monotonic() + within_s
        with suppress(OSError):
            self.line.send(word)

    def hear(self) -> bool:
        """Take what came; false when the line is at its end."""
        try:
            data = self.line.recv(_LINE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, self._rest = (self._rest + data)[-_LINE_BYTES:].split(b"\n")
        for line in lines:
            with suppress(ValueError, TypeError):
                told = json.loads(line)
                self.report = Report(**{name: told[name] for name in _NAMES & told.keys()})
                self.heard_at = time.monotonic()
        return bool(data)

    def trouble(self) -> str:
        """Return why this process must be replaced; empty while it is well."""
        silent = time.monotonic() - self.heard_at
        if silent > (PATIENCE_S if self.report else _FIRST_WORD_S):
            return f"it has not reported for {silent:.0f} s"
        return "" if self.report is None or self.report.is_live else self.report.why


class Supervisor:
    """Keeps ``processes`` worker processes running.

    SIGTERM and SIGINT stop them gracefully, a second one at once; SIGHUP renews them one after another, each
    once its jobs have ended. They end with this process, however it ends.

    Args:
        command: Starts one worker whose standard input is its :class:`~.tether.Tether`.
        grace_s: How long a stop waits for running jobs.
        burst: Whether a worker that ends well is left ended.
        health: Where to answer probes.
    """

    def __init__(
        self, command: Sequence[str], processes: int, *, grace_s: float, burst: bool, health: str | None
    ) -> None:
        self._command = list(command)
        self._count = check_int(processes, argument="processes", low=1, high=1000)
        self._grace_s = grace_s
        self._burst = burst
        self._health = health
        self._children: dict[int, _Child] = {}
        self._again_at: dict[int, tuple[float, float]] = {}  # number -> when to start, the pause before it
        self._renew: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._stops = 0
        self._told = 0
        self._failed = False

    def run(self) -> int:
        """Run until stopped (or all have ended well, in a burst); 0 when every process ended well then."""
        if not hasattr(signal, "SIGHUP"):
            raise ConfigurationError("processes", self._count, "1 on this system")
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._signalled) for number in numbers}
        try:
            if self._health is None:
                return self._watch()
            with HealthServer(self._health, self._reports):
                return self._watch()
        finally:
            for child in self._children.values():
                child.process.kill()
                child.process.wait()
                end_session(child.process.pid)
            self._selector.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._renew = set(self._children)
        else:
            self._stops += 1

    def _reports(self) -> list[Report]:
        starting = Report(worker="", is_live=True, is_ready=False, why="it starts")
        return [child.report or starting for child in list(self._children.values())]

    def _watch(self) -> int:
        self._again_at = {number: (0.0, 0.0) for number in range(self._count)}
        while self._children or (self._again_at and not self._stops):
            self._start_due()
            for key, _ in self._selector.select(_TICK_S):
                child: _Child = key.data
                if not child.hear():
                    self._selector.unregister(child.line)
            for child in list(self._children.values()):
                if child.process.poll() is not None:
                    self._ended(child)
                elif child.kill_at is not None and time.monotonic() > child.kill_at:
                    _log.warning("worker process %d did not end in time and is killed", child.process.pid)
                    child.process.kill()
                elif child.asked in (b"", RETIRE) and (why := child.trouble()):
                    _log.error("worker process %d is replaced: %s", child.process.pid, why)
                    child.ask(NOW, _LAST_S)
            self._pass_on()
        return int(self._failed)

    def _start_due(self) -> None:
        if self._stops:
            return
        for number, (at, _) in list(self._again_at.items()):
            if number not in self._children and time.monotonic() >= at:
                child = self._children[number] = _Child(self._command, number)
                self._selector.register(child.line, selectors.EVENT_READ, child)
                _log.info("worker process %d started (%d of %d)", child.process.pid, number + 1, self._count)

    def _ended(self, child: _Child) -> None:
        del self._children[child.number]
        with suppress(KeyError):
            self._selector.unregister(child.line)
        child.line.close()
        code, lived = child.process.returncode, time.monotonic() - child.born
        good = code == 0
        if not good:
            end_session(child.process.pid)
        if self._stops or (self._burst and good):
            self._failed = self._failed or not good
            self._again_at.pop(child.number, None)
            return
        _, pause = self._again_at[child.number]
        pause = 0.0 if good and child.asked == RETIRE else pause_after(lived, pause)
        if not good:
            _log.warning(
                "worker process %d ended with %s after %.0f s; another is started in %.3g s",
                child.process.pid, _code(code), lived, pause,
            )  # fmt: skip
        self._again_at[child.number] = time.monotonic() + pause, pause

    def _pass_on(self) -> None:
        """Send what the signals asked for: stops to all at once, renewals to one after another."""
        if self._stops > self._told:
            first = self._told == 0
            self._told = self._stops
            for child in self._children.values():
                child.ask(STOP if first else NOW, (self._grace_s if first else 0.0) + 2 * _LAST_S)
            return
        if not self._renew or self._stops:
            return
        children = self._children
        if len(children) == self._count and all(c.report and not c.asked for c in children.values()):
            children[self._renew.pop()].ask(RETIRE, None)


def end_session(leader: int) -> None:
    """End what a dead process that led a session has left in it: its jobs run again elsewhere.

    What has a session of its own by now lives on, as do, where there is no /proc, other groups of this one.
    """
    for _ in range(2):  # what was started between the look and the signal
        for pid in session_of(leader):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def session_of(leader: int) -> list[int]:
    """Return the processes of a session, where the system tells."""
    found = []
    for path in glob("/proc/[0-9]*/stat"):
        with suppress(OSError, ValueError), open(path, encoding="latin-1") as file:
            pid, _, rest = file.read().partition(" (")
            if int(rest.rpartition(") ")[2].split()[3]) == leader:
                found.append(int(pid))
    return found


def _code(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
