"""Saying that the dead letter forgets: how many dead jobs a queue keeps is bounded by default."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from eventperf._core.logs import logger
from eventperf.queues.errors import QueueError
from eventperf.queues.protocols import AsyncJobStore

_log = logger("eventperf.queues")

_LOOK_S = 0.5
"""Jobs often fail together: one look for all of them."""


class DeadLetterWatch:
    """Looks at the counts when jobs die and says once what a queue has begun to drop.

    Args:
        keep_failed: By queue, how many dead jobs are kept; ``None`` for all.
    """

    def __init__(self, store: AsyncJobStore, keep_failed: Mapping[str, int | None]) -> None:
        self._store = store
        self._keep = keep_failed
        self._told: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def look(self, queue: str) -> None:
        """Note that a job of ``queue`` died."""
        if self._keep.get(queue) is not None and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._look())

    async def close(self) -> None:
        """Have the last look."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _look(self) -> None:
        await asyncio.sleep(_LOOK_S)
        try:
            rows = await self._store.counts()
        except QueueError as error:
            _log.debug("the dead letter was not looked at: %s", error)
            return
        for row in rows:
            keep = self._keep.get(row.name)
            if keep is None or row.dead < keep or row.failed <= row.dead:
                continue
            if row.failed >= 2 * self._told.get(row.name, 0):  # again at twice as many, not at each
                self._told[row.name] = row.failed
                _log.warning(
                    "the dead letter of queue %r keeps the last %d (keep_failed) of %d that failed: older "
                    "ones can be replayed no more. keep_failed=None keeps all",
                    row.name,
                    keep,
                    row.failed,
                )
