"""A pool of queue workers in this process as a target, known by their shape only."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.scaling.errors import ScalingError
from eventperf.scaling.model import TargetState, check_replicas

_log = logger("eventperf.scaling")


class PoolWorker(Protocol):
    """The shape of a worker: ``run`` blocks until ``stop`` was called and running jobs have ended."""

    def run(self) -> object:
        """Work until stopped."""
        ...

    def stop(self) -> object:
        """Take no more jobs; called from another thread, does not wait."""
        ...


class CommandWorker:
    """A worker in a process of its own: any command that drains and ends when it is asked to by a signal.

    ``eventperf queue worker``, ``celery worker``, ``arq`` and most others do that on SIGTERM. It is sent once
    and never followed by SIGKILL: how long a running job may take is the command's to say (``--grace``).
    Signals of the terminal do not reach it; it outlives a parent that is killed, as it must not take a
    running job along.

    Args:
        command: Program and arguments.
        env: Variables added to this process' own.
        stop_signal: What asks it to drain and end.

    >>> import sys
    >>> worker = CommandWorker([sys.executable, "-c", "pass"])
    >>> worker.run()
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> None:
        if isinstance(command, str) or not command:
            raise ConfigurationError("command", command, "a list: program and arguments")
        self._command, self._cwd, self._signal = list(command), cwd, stop_signal
        self._env = None if env is None else {**os.environ, **env}
        self._mu = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self) -> None:
        """Start the command and wait for its end.

        Raises:
            ScalingError: It ended by itself, with a failure.
            OSError: It could not be started.
        """
        with self._mu:
            if self._stopped:
                return
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._env, start_new_session=True
            )
        code = self._process.wait()
        if code and not self._stopped:
            raise ScalingError(f"{self._command[0]} ended by itself with code {code}")

    def stop(self) -> None:
        """Ask it to finish what it runs and to end; asking again does nothing."""
        with self._mu:
            if self._stopped:
                return
            self._stopped = True
            if self._process is not None:
                self._process.send_signal(self._signal)  # does nothing once it has ended


class WorkerPoolTarget:
    """Workers of a queue, each in a thread of its own; scaling down drains, it never kills.

    A worker told to stop no longer counts as a replica; its thread ends when its running jobs have. A worker
    that ended by an error is logged and no longer counts, so that the scaler replaces it.

    Args:
        worker: Makes a new worker, for example ``lambda: queues.worker(concurrency=4)``, or a
            :class:`CommandWorker` for one in a process of its own.
        replicas: How many run from the first :meth:`read` or :meth:`scale` on.

    Example:
        ``AutoScaler(WorkerPoolTarget(lambda: queues.worker(concurrency=4)), QueueMetrics(queues), ...)``
    """

    def __init__(
        self, worker: Callable[[], PoolWorker], *, replicas: int = 0, name: str = "worker pool"
    ) -> None:
        if not callable(worker):
            raise ConfigurationError("worker", worker, "a function that makes a worker")
        self._make, self._name = worker, name
        self._first: int | None = check_replicas(replicas)
        self._mu = threading.RLock()
        self._running: list[tuple[PoolWorker, threading.Thread]] = []
        self._draining: list[threading.Thread] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def draining(self) -> int:
        """Workers that were told to stop and still finish their jobs."""
        with self._mu:
            self._draining = [t for t in self._draining if t.is_alive()]
            return len(self._draining)

    def read(self) -> TargetState:
        with self._mu:
            self._start_first()
            self._running = [(w, t) for w, t in self._running if t.is_alive()]
            return TargetState(replicas=len(self._running), ready=len(self._running))

    def scale(self, replicas: int, /, *, reason: str = "") -> None:
        check_replicas(replicas)
        with self._mu:
            have = self.read().replicas
            for _ in range(replicas - have):
                self._start()
            while len(self._running) > replicas:
                worker, thread = self._running.pop()
                self._draining.append(thread)
                worker.stop()

    def close(self, timeout: Duration = 30.0) -> bool:
        """Stop all workers and wait for their jobs.

        Returns:
            Whether all of them ended within ``timeout``.
        """
        wait_s = seconds(timeout, name="timeout", zero=True)
        with self._mu:
            self._first = None
            self.scale(0)
            threads = list(self._draining)
        until = time.monotonic() + wait_s
        for thread in threads:
            thread.join(max(0.0, min(until - time.monotonic(), threading.TIMEOUT_MAX)))
        return self.draining == 0

    def _start_first(self) -> None:
        first, self._first = self._first, None
        for _ in range(first or 0):
            self._start()

    def _start(self) -> None:
        worker = self._make()
        thread = threading.Thread(target=self._work, args=(worker,), name=f"{self._name} worker", daemon=True)
        self._running.append((worker, thread))
        thread.start()

    def _work(self, worker: PoolWorker) -> None:
        try:
            worker.run()
        except Exception:
            _log.exception("%s: a worker ended by an error", self._name)
