"""Handlers for a process pool; its children import them from here."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from eventperf.queues import QueueManager, Retry

queues = QueueManager("memory://")


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
