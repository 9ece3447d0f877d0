"""A pool of processes for ``cpu=True`` handlers, whose jobs can be killed one by one."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from eventperf.queues.codec import Codec
from eventperf.queues.engine import Around, Setup
from eventperf.queues.errors import QueueError

from .context import ProcessContext


class ProcessDied(QueueError):
    """The process of a ``cpu=True`` job ended before it answered (killed, out of memory, segfault)."""


def _serve(pipe: Connection, setup: Setup | None = None) -> None:
    """Run jobs one after another until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's to handle
    handlers: dict[tuple[str, str], Callable[..., Any]] = {}
    codec = Codec(2**31)
    around: Around = nullcontext
    failed: Exception | None = None
    try:
        around = setup() if setup is not None else nullcontext
    except Exception as error:
        failed = QueueError(f"the process of a cpu=True job could not be set up: {error}")
    while True:
        try:
            module, name, ctx, payload, shape = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if failed is not None:
                raise failed
            where = (module, name)
            if where not in handlers:
                found: Any = importlib.import_module(module)
                for part in name.split("."):
                    found = getattr(found, part)
                handlers[where] = getattr(found, "fn", found)
            with around():
                answer: tuple[bool, Any] = (True, handlers[where](ctx, codec.decode(payload, shape)))
        except Exception as error:
            answer = (False, error)
        try:
            pipe.send(answer)
        except Exception as error:  # a result or an error that cannot be pickled
            pipe.send((False, QueueError(f"{answer[1]!r} cannot leave its process: {error}")))


class Child:
    """One process and the pipe to it."""

    def __init__(self, setup: Setup | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.pipe: Connection = ours
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, module: str, name: str, ctx: ProcessContext, payload: bytes, shape: Any) -> Any:
        """Run one job; blocks this thread.

        Raises:
            ProcessDied: The process ended without an answer.
        """
        try:
            pickle.dumps(shape)
        except Exception:
            shape = Any
        try:
            self.pipe.send((module, name, ctx, payload, shape))
            good, value = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(1)
            raise ProcessDied(f"the job's process ended with code {self.process.exitcode}") from error
        if not good:
            raise value
        return value

    def kill(self) -> None:
        """End the process at once; a job in it raises :class:`ProcessDied`."""
        self.process.kill()

    def close(self) -> None:
        """End the process and forget it."""
        self.process.kill()
        self.process.join(5)
        self.pipe.close()


class ProcessPool:
    """Children that wait for jobs; started when first needed, replaced when they die."""

    def __init__(self, setup: Setup | None = None) -> None:
        self._setup = setup
        self._mu = threading.Lock()
        self._idle: list[Child] = []
        self._all: set[Child] = set()

    def take(self) -> Child:
        """Return a child for one job."""
        with self._mu:
            while self._idle:
                child = self._idle.pop()
                if child.process.is_alive():
                    return child
                self._all.discard(child)
        child = Child(self._setup)
        with self._mu:
            self._all.add(child)
        return child

    def give(self, child: Child) -> None:
        """Take a child back after its job."""
        if child.process.is_alive():
            with self._mu:
                self._idle.append(child)
        else:
            with self._mu:
                self._all.discard(child)
            child.close()

    def close(self) -> None:
        """End all processes."""
        with self._mu:
            children, self._all, self._idle = list(self._all), set(), []
        for child in children:
            child.close()
