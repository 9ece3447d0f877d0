"""``eventperf demo --chaos``: the last stage again, while a worker is killed and Redis is stopped.

The Redis that is stopped is the demo's own, a process on a free port that keeps its data in a temporary
folder, so nobody's server is touched. It writes each command to disk before it answers, as a queue that
must lose nothing asks for.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from eventperf._core.errors import ConfigurationError, EventPerfError
from eventperf.queues import QueueManager
from eventperf.queues.outbox import Relay

from .check import Ledger

LEASE_S = 2.0
"""A killed worker's jobs run again this long after its last sign of life."""

WORKER_DIES = 0.2
REDIS_DIES, REDIS_IS_BACK = 0.45, 0.7
"""When it happens, as shares of the stage's length."""


class ChaosFailed(EventPerfError):
    """The demo could not start what it wanted to break."""


def check_available() -> str:
    """Return the path of ``redis-server``.

    Raises:
        ConfigurationError: It is not installed.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise ConfigurationError(
            "--chaos", "no redis-server on PATH", "a machine with redis-server; apt-get install redis-server"
        )
    return found


class PrivateRedis:
    """A Redis that may be killed: what it has answered is on disk."""

    def __init__(self, folder: Path) -> None:
        self._program = check_available()
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url: str = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on what it had before; returns when it answers."""
        self._process = subprocess.Popen(
            [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder),
             "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise ChaosFailed(
                    f"{self._program} on port {self.port} does not answer; start it by hand to see why"
                )
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Worker:
    """A worker in a process of its own; what its jobs did is told to the ledger."""

    def __init__(self, engine: Engine, redis: str, namespace: str, ledger: Ledger) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.side_work"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        url = engine.url.render_as_string(hide_password=False)  # by a pipe: arguments are for all to see
        assert self._process.stdin is not None
        json.dump(
            {"redis": redis, "namespace": namespace, "database": url, "lease": LEASE_S}, self._process.stdin
        )
        self._process.stdin.close()
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._listen, args=(ledger,), name="side-work", daemon=True)
        self._reader.start()

    def _listen(self, ledger: Ledger) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break  # cut by the kill: that effect was not told
            told = json.loads(line)
            if "n" in told:
                ledger.done(told["job"], told["n"], told["claim"])
            elif "waited" in told:
                ledger.waited(told["queue"], told["waited"])
            else:
                self._ready.set()
        self._process.stdout.close()

    def wait_ready(self) -> None:
        """Return when it takes jobs."""
        while not self._ready.wait(0.05):
            if self._process.poll() is not None:
                raise ChaosFailed(
                    f"the demo's worker ended with {self._process.returncode} before it took a job"
                )

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._process.kill()
        self._ended()

    def stop(self) -> None:
        """Let it finish what it runs."""
        self._process.terminate()
        self._ended()

    def _ended(self) -> None:
        self._process.wait()
        self._reader.join(10)


@dataclass(slots=True)
class Chaos:
    """What is broken, and when.

    Attributes:
        log: ``(seconds since the beginning of the load, what happened)``.
    """

    engine: Engine
    redis: PrivateRedis
    queues: QueueManager
    ledger: Ledger
    namespace: str
    log: list[tuple[float, str]] = field(default_factory=list)
    _worker: Worker | None = None
    _relay: Relay | None = None
    _failed: BaseException | None = None

    def hire(self) -> None:
        """Start a worker, as a supervisor does when one has died."""
        self._worker = Worker(self.engine, self.redis.url, self.namespace, self.ledger)

    @contextmanager
    def unleashed(self, seconds: float) -> Iterator[None]:
        """Break things while the body runs a load of ``seconds``; all is whole again at its end."""
        thread = threading.Thread(target=self._break, args=(seconds,), name="chaos", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if self._failed is not None:
            raise self._failed

    def _break(self, seconds: float) -> None:
        began = time.monotonic()

        def at(share: float, text: str) -> None:
            time.sleep(max(0.0, began + share * seconds - time.monotonic()))
            self.log.append((time.monotonic() - began, text))

        try:
            at(WORKER_DIES, "the worker is killed (kill -9), another is started")
            assert self._worker is not None
            self._worker.kill()
            self.hire()
            at(REDIS_DIES, "Redis is killed (kill -9)")
            self.redis.kill()
            at(REDIS_IS_BACK, "Redis is started again")
            self.redis.start()
        except BaseException as error:
            self._failed = error

    def settle(self) -> bool:
        """Wait until all side work is done; false when it took more than a minute."""
        assert self._relay is not None
        end = time.monotonic() + 60
        while self._relay.waiting():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return self.queues.drain(max(1.0, end - time.monotonic()))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Worker and relay at work; what they log about a Redis that is away is held back."""
        log, url = logging.getLogger("eventperf"), self.engine.url.render_as_string(hide_password=False)
        level = log.level
        self.hire()
        with Relay(self.queues, url, poll=0.02) as self._relay:
            thread = threading.Thread(target=self._relay.run, name="relay", daemon=True)
            thread.start()
            log.setLevel(logging.ERROR)
            try:
                if self._worker is not None:
                    self._worker.wait_ready()
                yield
            finally:
                self._relay.stop()
                thread.join(30)
                if self._worker is not None:
                    self._worker.stop()
                log.setLevel(level)
