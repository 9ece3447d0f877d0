"""What jobs of a Django project run inside: usable connections, and in new processes Django itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

from django.db import close_old_connections


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Close database connections that are unusable or too old, as Django does around a request."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@asynccontextmanager
async def fresh_connections_async() -> AsyncIterator[None]:
    """Do the same for a coroutine, in the thread in which its calls of the ORM run."""
    from asgiref.sync import sync_to_async

    close = sync_to_async(close_old_connections)
    await close()
    try:
        yield
    finally:
        await close()


def in_process() -> Callable[[], AbstractContextManager[None]]:
    """Set Django up in the process of ``cpu=True`` jobs, before a module with models is imported."""
    import django

    django.setup()
    return fresh_connections
