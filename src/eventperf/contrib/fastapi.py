"""FastAPI and Starlette: managers that open and close with the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require

require("starlette", extra="fastapi", needed_by="eventperf.contrib.fastapi")
from starlette.requests import HTTPConnection, Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402

from .http import tagging  # noqa: E402
from .http.marking import nowhere  # noqa: E402
from .http.stored import marks  # noqa: E402

if TYPE_CHECKING:
    from eventperf.cache import CacheManager
    from eventperf.queues import QueueManager

__all__ = ["EventPerfState", "cache_of", "cached_route", "lifespan", "queues_of", "ready"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPerfState:
    """What :func:`lifespan` leaves in ``app.state.eventperf``."""

    cache: CacheManager | None = None
    queues: QueueManager | None = None


def lifespan(
    *,
    cache: CacheManager | None = None,
    queues: QueueManager | None = None,
    worker: bool | Mapping[str, Any] = False,
    inner: Lifespan | None = None,
) -> Lifespan:
    """Return a lifespan that closes the managers when the application stops.

    Args:
        cache: For :func:`cache_of`.
        queues: For :func:`queues_of`.
        worker: Run a worker inside this process as well: ``True``, or the arguments of
            ``queues.worker()``. Stopping the application stops it gracefully.
        inner: The application's own lifespan; it runs inside this one.

    Raises:
        ConfigurationError: ``worker`` without ``queues``.
    """
    if worker and queues is None:
        raise ConfigurationError("worker", worker, "False, or queues= as well")

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            if cache is not None:
                stack.push_async_callback(cache.aclose)
            if queues is not None:
                stack.push_async_callback(queues.aclose)
                if worker:
                    await stack.enter_async_context(_working(queues, {} if worker is True else dict(worker)))
            app.state.eventperf = EventPerfState(cache=cache, queues=queues)
            if inner is None:
                yield None
            else:
                yield await stack.enter_async_context(inner(app))

    return run


@asynccontextmanager
async def _working(queues: QueueManager, options: dict[str, Any]) -> AsyncIterator[None]:
    worker = queues.worker(**options)
    task = asyncio.create_task(worker.arun())
    try:
        yield
    finally:
        worker.stop()
        await task


def cache_of(connection: HTTPConnection) -> CacheManager:
    """Dependency: the cache of this application, for requests and websockets.

    Raises:
        ConfigurationError: The application runs without :func:`lifespan`, or without a cache.
    """
    cache = _state(connection).cache
    if cache is None:
        raise ConfigurationError("cache", None, "lifespan(cache=...)")
    return cache


def queues_of(connection: HTTPConnection) -> QueueManager:
    """Dependency: the queues of this application, for requests and websockets.

    Raises:
        ConfigurationError: The application runs without :func:`lifespan`, or without queues.
    """
    queues = _state(connection).queues
    if queues is None:
        raise ConfigurationError("queues", None, "lifespan(queues=...)")
    return queues


def cached_route(
    ttl: Duration, *, tags: Sequence[str] | Callable[[Request], Sequence[str]] = ()
) -> Callable[[Request], Coroutine[Any, Any, None]]:
    """Return a dependency that says: answers of this route, or of all routes of a router, may be kept.

    ``HttpCacheMiddleware`` around the application keeps them, as with
    :func:`~eventperf.contrib.http.http_cached` on the view, which has the last word where both speak::

        router = APIRouter(dependencies=[Depends(cached_route("1m", tags=["programme"]))])

    Args:
        ttl: How long, where the answer does not say itself.
        tags: Of its answers, or a function of the request that returns them.

    Raises:
        ConfigurationError: Tags that are none; when it is asked: there is no such middleware.
    """
    ttl_s = seconds(ttl, name="ttl")
    tagging.checked(tags)

    async def keep(request: Request) -> None:
        said = marks.get()
        if said is None:
            raise nowhere("cached_route", request.url.path)
        said.ttl_s = ttl_s
        said.tags += tagging.found(tags, (request,), {})

    return keep


async def ready(request: Request) -> JSONResponse:
    """Endpoint for a readiness check: 200 once every data set of the cache is warm, 503 before.

    ``app.add_route("/ready", ready)``; the body names the data sets.
    """
    state = cache_of(request).readiness()
    return JSONResponse(state, 200 if state["ready"] else 503)


def _state(connection: HTTPConnection) -> EventPerfState:
    state = getattr(connection.app.state, "eventperf", None)
    if not isinstance(state, EventPerfState):
        raise ConfigurationError("lifespan", None, "FastAPI(lifespan=lifespan(cache=..., queues=...))")
    return state
