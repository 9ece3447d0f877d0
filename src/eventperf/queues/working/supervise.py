"""Loops that must not end by an error nobody foresaw."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from eventperf._core.logs import logger

_log = logger("eventperf.queues")

_PAUSE_S, _MOST_S = 0.1, 5.0


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
