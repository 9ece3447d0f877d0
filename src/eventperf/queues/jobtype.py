"""Job types: what is known of a kind of job, with or without its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .options import Exponential, RetryRule

DEFAULT_BACKOFF: Final = Exponential()

Middleware = Callable[[Any, Any, Callable[[Any, Any], Awaitable[Any]]], Awaitable[Any]]
"""``async def fn(ctx, data, proceed)``."""

WorkerHook = Callable[[dict[str, Any]], Any]
"""``fn(state)``, plain or a coroutine function; what it puts there, handlers find in ``ctx.state``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """One kind of job.

    Attributes:
        shape: Annotation of the payload; ``Any`` when it has none.
        handler: The function, or ``None`` where jobs are only produced.
        mode: ``"async"``, ``"thread"`` or ``"process"``.
        version: Version of the payload's shape that this release writes.
        keep_result: Whether what the handler returns is stored; else it may return anything.
    """

    name: str
    shape: Any = Any
    handler: Callable[..., Any] | None = None
    mode: str = "async"
    queue: str | None = None
    priority: int | None = None
    attempts: int = 3
    timeout_s: float | None = 300.0
    backoff: Exponential = DEFAULT_BACKOFF
    retry: Sequence[RetryRule] = ()
    version: int = 1
    keep_result: bool = True
