"""Tasks that handlers start: what ends a program must not leave them for the loop that all jobs share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

from . import logs


class Contained:
    """A task factory for the loop of workers; what it was before is used for every task.

    asyncio hands SystemExit and KeyboardInterrupt out of a task to whoever runs the loop, which ends the
    worker and every job beside. In a task that began in a job they become an error of that task; elsewhere
    nothing changes.
    """

    def __init__(self, before: Callable[..., Any] | None) -> None:
        self.before = before
        self.users: int = 0

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> Any:
        if logs.current.get() is not None and asyncio.iscoroutine(coro):
            coro = _contained(coro)
        if self.before is None:
            return asyncio.Task(coro, loop=loop, **options)
        return self.before(loop, coro, **options)


@contextmanager
def contained(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Contain what the tasks of jobs raise on ``loop``, until its last worker ends."""
    before: Any = loop.get_task_factory()
    mine = before if isinstance(before, Contained) else Contained(before)
    if mine is not before:
        loop.set_task_factory(cast("Any", mine))
    mine.users += 1
    try:
        yield
    finally:
        mine.users -= 1
        now: Any = loop.get_task_factory()
        if not mine.users and now is mine:
            loop.set_task_factory(mine.before)


async def _contained(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"a task of the handler raised {error!r}") from error
