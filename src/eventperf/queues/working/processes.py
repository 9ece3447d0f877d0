"""A pool of processes for ``cpu=True`` handlers, whose jobs can be killed one by one."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from eventperf.queues.codec import Codec
from eventperf.queues.engine import Around, Setup
from eventperf.queues.errors import QueueError

from .answers import check_ran, pack_error, pack_result, unpack_error, unpack_result
from .context import ProcessContext
from .texts import error_text

_Answer = tuple[bool, bytes, str, str]
"""Whether it is a result; that or the error as bytes; the error's text and traceback."""


class ProcessDied(QueueError):
    """The process of a ``cpu=True`` job ended before it answered (killed, out of memory, segfault)."""


class RemoteTraceback(Exception):
    """The traceback of an error in another process, as text: the cause of the error here."""

    def __str__(self) -> str:
        return f"in the job's process:\n{self.args[0]}"


def _serve(pipe: Connection, setup: Setup | None = None) -> None:
    """Run jobs one after another until the pipe closes or the worker is gone."""
    _ignore_stops()
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # what a handler starts is of this group, and ends with this process
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    handlers: dict[tuple[str, str], Callable[..., Any]] = {}
    around, failed = _set_up(setup)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(_told(failed) if failed is not None else _answer(job, handlers, around))
        except (EOFError, OSError):
            return


def _set_up(setup: Setup | None) -> tuple[Around, Exception | None]:
    try:
        return (nullcontext if setup is None else setup()), None
    except Exception as error:
        text = error_text(error)
        return nullcontext, QueueError(f"the process of a cpu=True job could not be set up: {text}")


def _ignore_stops() -> None:
    """Leave stopping to the worker, whom the terminal or the service manager signals too.

    By handlers that do nothing, not by SIG_IGN: programs that a job starts get the default back.
    """
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda *_: None)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL) and None)


def _end_with_the_worker() -> None:
    """End this process at once when the worker has ended, however it did: its job runs again elsewhere.

    And with it the processes that the handler has started, but for those in a session of their own.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        kill_group(os.getpid())
        os._exit(1)


def kill_group(leader: int) -> None:
    """End the processes of the group that ``leader`` leads; none where it leads none."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def _answer(job: Any, handlers: dict[tuple[str, str], Callable[..., Any]], around: Around) -> _Answer:
    module, name, ctx, payload, shape, keeps = job
    try:
        if (module, name) not in handlers:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            handlers[module, name] = getattr(found, "fn", found)
        with around():
            value = handlers[module, name](ctx, Codec(2**31).decode(payload, shape))
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
            check_ran(value)
            return True, pack_result(value if keeps else None), "", ""
    except BaseException as error:  # SystemExit too is the job's end, not this process's
        return _told(error)


def _told(error: BaseException) -> _Answer:
    try:
        trace = "".join(traceback.format_exception(error))
    except BaseException as trouble:  # user code
        trace = f"(its traceback cannot be had: {error_text(trouble)})"
    return False, pack_error(error), error_text(error), trace


async def _awaited(value: Any) -> Any:
    return await value


class Child:
    """One process and the pipe to it."""

    def __init__(self, setup: Setup | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.pipe: Connection = ours
        # No daemon in multiprocessing's sense: those may have no processes of their own.
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, setup), daemon=False)
        self.process.start()
        theirs.close()

    def run(
        self, module: str, name: str, ctx: ProcessContext, payload: bytes, shape: Any, keeps: bool
    ) -> Any:
        """Run one job; blocks this thread. Its result is brought where it ``keeps`` it.

        Raises:
            ProcessDied: The process ended without an answer.
        """
        try:
            pickle.dumps(shape)
        except Exception:
            shape = Any
        try:
            self.pipe.send((module, name, ctx, payload, shape, keeps))
            good, data, text, trace = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(1)
            raise ProcessDied(f"the job's process ended with code {self.process.exitcode}") from error
        if not good:
            raise unpack_error(data, text) from RemoteTraceback(trace)
        return unpack_result(data)

    def kill(self) -> None:
        """End the process at once, and what its job has started; the job raises :class:`ProcessDied`."""
        if self.process.pid is not None and self.process.exitcode is None:
            kill_group(self.process.pid)
        self.process.kill()

    def close(self) -> None:
        """End the process and forget it."""
        self.kill()
        self.process.join(5)
        self.pipe.close()


class ChildClaim:
    """A job's hold on its child, which may be killed before there is one."""

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._child: Child | None = None
        self._killed = False

    def take(self, child: Child) -> None:
        with self._mu:
            self._child = child
            if self._killed:
                child.kill()

    def kill(self) -> None:
        with self._mu:
            self._killed = True
            if self._child is not None:
                self._child.kill()


class ProcessPool:
    """Children that wait for jobs; started when first needed, replaced when they die."""

    def __init__(self, setup: Setup | None = None) -> None:
        self._setup = setup
        self._mu = threading.Lock()
        self._idle: list[Child] = []
        self._all: set[Child] = set()

    def take(self, claim: ChildClaim) -> Child:
        """Return a child for one job and let ``claim`` have it."""
        child = self._waiting() or self._new()
        claim.take(child)
        return child

    def _waiting(self) -> Child | None:
        with self._mu:
            while self._idle:
                child = self._idle.pop()
                if child.process.is_alive():
                    return child
                self._all.discard(child)
        return None

    def _new(self) -> Child:
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

    def pids(self) -> list[int]:
        """Return the ids of all children."""
        with self._mu:
            return [child.process.pid for child in self._all if child.process.pid is not None]

    def close(self) -> None:
        """End all processes."""
        with self._mu:
            children, self._all, self._idle = list(self._all), set(), []
        for child in children:
            child.close()
