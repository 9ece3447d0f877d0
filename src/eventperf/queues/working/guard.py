"""A worker's guard: a small process that keeps its leases while a call in a handler holds the interpreter.

A regular expression or a C extension that does not give up the interpreter's lock stops every thread, the
heartbeat too. The worker is slow then, not dead: its jobs must not start elsewhere nor count a crash.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing import spawn
from pathlib import Path

from eventperf._core.logs import logger
from eventperf.queues.job import Lease
from eventperf.queues.protocols import Backend, WorkerCard

_log = logger("eventperf.queues")

_PROGRAM = Path(__file__).with_name("guard_process.py")
_MOST_BYTES = 1 << 20
_EAGER_BELOW_S = 5.0
"""A guard of shorter leases imports at its start what it may need: there is no time for it when it counts."""


class Guard:
    """The worker's end: tells the guard which leases it holds, and each time it has renewed them itself.

    There is none where the store cannot be reached from another process, or no Python can be started.
    """

    def __init__(self, backend: Backend, card: WorkerCard) -> None:
        self._card = card
        self._mu = threading.Lock()
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._out = b""
        self._is_eager = card.lease_s < _EAGER_BELOW_S
        self._blob = _portable(backend, card)

    def start(self) -> None:
        """Start the process; at most one."""
        with self._mu:
            if self._process is not None or self._blob is None:
                return
            python = spawn.get_executable()
            self._line, theirs = socket.socketpair()
            with theirs:
                try:
                    self._process = subprocess.Popen(  # noqa: S603 - this Python, a file of ours
                        [python, "-I", "-S", str(_PROGRAM)],
                        stdin=theirs.fileno(),
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                except OSError as error:
                    _log.warning(
                        "worker %s has no guard: a call that holds the interpreter for longer than a lease "
                        "costs its jobs (%s)", self._card.id, error,
                    )  # fmt: skip
                    self._line.close()
                    self._line = self._blob = None
                    return
            self._line.setblocking(False)
            facts = {"path": sys.path, "worker": self._card.id, "lease_s": self._card.lease_s}
            head = json.dumps({**facts, "eager": self._is_eager}).encode()
            self._send(struct.pack("!I", len(head)) + head + struct.pack("!I", len(self._blob)) + self._blob)

    async def ready(self) -> None:
        """Wait, at most three leases, for a guard that gets itself ready beforehand."""
        line = self._line
        if line is not None and self._is_eager:
            waiting = asyncio.get_running_loop().sock_recv(line, 1)
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(waiting, 3 * self._card.lease_s)

    def add(self, leases: Sequence[Lease]) -> None:
        """Tell of leases that were just claimed."""
        if self._line is not None and leases:
            self._tell(b"+", ((lease.record.id, lease.token) for lease in leases))

    def beat(self, held: Iterable[tuple[str, int]]) -> None:
        """Tell that these are all, and have just been renewed."""
        if self._line is not None:
            self._tell(b"=", held)

    def _tell(self, mark: bytes, pairs: Iterable[tuple[str, int]]) -> None:
        line = mark + json.dumps(list(pairs)).encode() + b"\n"
        with self._mu:
            self._send(line)

    def _send(self, data: bytes) -> None:
        """Write without waiting; what a slow guard has not taken is kept up to a bound."""
        if self._line is None or len(self._out) > _MOST_BYTES:
            return
        self._out += data
        try:
            while self._out:
                self._out = self._out[self._line.send(self._out) :]
        except BlockingIOError:
            return
        except OSError as error:  # it was killed
            _log.warning("worker %s: its guard has gone: %s", self._card.id, error)
            self._line.close()
            self._line = None

    def close(self) -> None:
        """End the process."""
        with self._mu:
            line, process, self._line = self._line, self._process, None
            self._blob = None
        if line is not None:
            line.close()
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)


def _portable(backend: Backend, card: WorkerCard) -> bytes | None:
    """Return what another process makes its own face of the store from; nothing where it cannot."""
    is_started = bool(spawn.get_executable()) and not getattr(sys, "frozen", False) and _PROGRAM.is_file()
    if os.name != "posix" or not is_started or "shared" not in backend.capabilities:
        return None
    try:
        return pickle.dumps((backend, card))
    except Exception as error:  # a backend or a clock of the application's own
        _log.debug("worker %s has no guard: %s", card.id, error)
        return None
