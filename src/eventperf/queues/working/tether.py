"""A worker process on the line of its supervisor: it reports each second, and stops when the line does."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict

from eventperf._core.logs import logger

from .health import Pulse
from .worker import Worker

_log = logger("eventperf.queues")

EVERY_S = 1.0
STOP, NOW, RETIRE = b"stop\n", b"now\n", b"retire\n"


class Tether:
    """The worker's end of a socket that its supervisor passed as standard input."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._pulse = Pulse(worker)
        self._line = socket.socket(fileno=os.dup(0))
        with open(os.devnull, "rb") as nothing:  # what handlers read from
            os.dup2(nothing.fileno(), 0)

    def start(self) -> None:
        """Listen and report, each in a thread that keeps no process alive."""
        for work in (self._listen, self._report):
            threading.Thread(target=work, name="eventperf-tether", daemon=True).start()

    def _listen(self) -> None:
        try:
            with self._line.makefile("rb") as lines:
                for line in lines:
                    if line == RETIRE:
                        self._worker.retire("its supervisor renews it")
                    else:
                        self._stop(now=line == NOW)
        except OSError as error:
            _log.debug("worker %s: its supervisor's line: %s", self._worker.id, error)
        self._stop()  # the supervisor is gone

    def _stop(self, *, now: bool = False) -> None:
        self._worker.stop(now=now)  # it may not run yet
        for _ in range(1 + now):
            self._worker.signal(signal.SIGTERM)

    def _report(self) -> None:
        while True:
            told = json.dumps(asdict(self._pulse.report())).encode() + b"\n"
            try:
                self._line.sendall(told)
            except OSError:
                return
            time.sleep(EVERY_S)
