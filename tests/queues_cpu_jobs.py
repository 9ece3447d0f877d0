"""Handlers for a process pool; its children import them from here."""

from __future__ import annotations

import os
import time
from typing import Any

from eventperf.queues import QueueManager

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
