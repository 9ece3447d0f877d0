"""Concurrent reads of one event loop become one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

FETCH_MAX = 512


class Coalescer:
    """Gathers the keys that tasks ask for in one turn of their loop, and fetches them together.

    Belongs to one loop. A task that is cancelled while it waits takes nothing from the others.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[str]], Awaitable[list[bytes | None]]],
    ) -> None:
        self._fetch = fetch
        self._asked: dict[str, list[asyncio.Future[bytes | None]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> bytes | None:
        """Return the bytes of ``key``."""
        import asyncio

        loop = asyncio.get_running_loop()  # not kept: a table of loops must be able to let them go
        answer: asyncio.Future[bytes | None] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._flush, loop)
        self._asked.setdefault(key, []).append(answer)
        return await answer

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        asked, self._asked = self._asked, {}
        keys = list(asked)
        for start in range(0, len(keys), FETCH_MAX):
            part = {key: asked[key] for key in keys[start : start + FETCH_MAX]}
            task = loop.create_task(self._answer(part))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, asked: dict[str, Any]) -> None:
        try:
            replies = await self._fetch(list(asked))
        except BaseException as error:  # handed to whoever waits; a cancelled batch is an unanswered one
            for answers in asked.values():
                for answer in answers:
                    if not answer.done():
                        answer.set_exception(_for_waiters(error))
            if not isinstance(error, Exception):
                raise
            return
        for answers, reply in zip(asked.values(), replies, strict=True):
            for answer in answers:
                if not answer.done():
                    answer.set_result(reply)


def _for_waiters(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else ConnectionError("the read was cancelled with its loop")
