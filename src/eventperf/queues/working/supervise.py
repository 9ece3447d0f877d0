"""Loops that must not end by an error nobody foresaw, and must end when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from eventperf._core.logs import logger

_log = logger("eventperf.queues")

_PAUSE_S, _MOST_S, _AGAIN_S = 0.1, 5.0, 1.0


async def supervised(what: str, loop: Callable[[], Awaitable[object]]) -> None:
    """Run ``loop`` until it returns; log what it raises with its traceback and start it again."""
    pause = _PAUSE_S
    while True:
        try:
            await loop()
            return
        except Exception:
            _log.exception("%s failed; trying again in %g s", what, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _MOST_S)


async def ended(tasks: Iterable[asyncio.Task[Any]], again_s: float = _AGAIN_S) -> None:
    """Cancel ``tasks`` until all are over.

    Once is not enough: where a cancellation meets a time-out, clients and ``wait_for`` before Python 3.12 may
    take it for that, and a loop that retries goes on for ever.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_s)
