"""Handlers for a process pool; its children import them from here."""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from eventperf.queues import Exponential, NonRetryable, QueueManager, Retry, RetryRule

queues = QueueManager("memory://")
NOW = Exponential(0.01)


@queues.job("square", cpu=True)
def square(ctx: Any, data: int) -> list[int]:
    """Return the square and the process it was made in."""
    return [data * data, os.getpid()]


@queues.job("spin", cpu=True, attempts=1, timeout=1.0)
def spin(ctx: Any, data: None) -> None:
    """Never return."""
    while True:
        time.sleep(0.01)


@queues.job("die", cpu=True, attempts=1)
def die(ctx: Any, data: None) -> None:
    """End the process without an answer."""
    os._exit(7)


@queues.job("later", cpu=True, attempts=2)
def later(ctx: Any, data: None) -> None:
    """Ask for another try in an hour."""
    raise Retry("1h", reason="not yet")


@queues.job("pool", cpu=True, attempts=1)
def pool(ctx: Any, data: int) -> int:
    """Use processes of its own, as numeric libraries do."""
    with multiprocessing.get_context("fork").Pool(2) as workers:
        return sum(workers.map(abs, range(data)))


@queues.job("slow", cpu=True, attempts=1)
def slow(ctx: Any, data: float) -> int:
    """Say which process runs it, then take its time."""
    print("child", os.getpid(), flush=True)
    time.sleep(data)
    return os.getpid()


@queues.job("starts", cpu=True, attempts=1)
def starts(ctx: Any, data: str) -> None:
    """Start a program and wait for it; ``data`` is the file that gets its process id."""
    program = subprocess.Popen(["sleep", "600"])
    Path(data).write_text(str(program.pid))
    program.wait()


@queues.job("needs_state", cpu=True, attempts=1)
def needs_state(ctx: Any, data: None) -> Any:
    """Ask for what only the worker has."""
    return ctx.state


class Declined(NonRetryable):
    """One that cannot be made anew from what it says."""

    def __init__(self, code: int, why: str) -> None:
        self.code = code
        super().__init__(f"{code}: {why}")


class ApiError(Exception):
    """The same for a rule."""

    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body = status, body
        super().__init__(f"status {status}")


class Awkward(Exception):
    """One that fails while it is pickled."""

    def __reduce__(self) -> Any:
        raise SystemExit(1)


def _group() -> BaseException:
    return ExceptionGroup("some", [ValueError(1), Declined(2, "no")])  # noqa: F821 - of Python 3.11


def _local() -> BaseException:
    class Local(NonRetryable):
        pass

    return Local("here")


ERRORS: dict[str, Any] = {
    "own": lambda: Declined(7, "no money"), "rule": lambda: ApiError(404, object()), "local": _local,
    "group": _group, "awkward": lambda: Awkward("x"),
}  # fmt: skip


@queues.job("raises", cpu=True, attempts=2, backoff=NOW, retry=[RetryRule(on=ApiError, attempts=1)])
def raises(ctx: Any, data: str) -> None:
    """Raise what is asked for."""
    raise ERRORS[data]()


RESULTS: dict[str, Any] = {"lambda": lambda: lambda: 1, "generator": lambda: (n for n in range(3))}


def returns(ctx: Any, data: str) -> Any:
    """Return what does not leave a process."""
    return RESULTS[data]()


queues.job("kept", cpu=True)(returns)
queues.job("dropped", cpu=True, keep_result=False)(returns)


def hidden(ctx: Any, data: None) -> str:
    """Be what a process would find in place of its wrapper."""
    return "not the wrapper"


@functools.wraps(hidden)
def wrapper(ctx: Any, data: None) -> str:
    """Be declared under another's name."""
    return f"wrapped: {hidden(ctx, data)}"


queues.job("hidden", cpu=True)(wrapper)
