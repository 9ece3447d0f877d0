"""Run handlers inside something of the framework, and find a manager by its dotted path."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError

if TYPE_CHECKING:
    from eventperf.queues import QueueManager
    from eventperf.queues.engine import Setup


def wrap_handlers(
    queues: QueueManager,
    around: Callable[[], AbstractContextManager[object]],
    around_async: Callable[[], AbstractAsyncContextManager[object]] | None = None,
    *,
    setup: Setup,
) -> None:
    """Run every handler of ``queues`` inside ``around()``; call it once, in the worker's process.

    Args:
        around_async: What coroutines run inside; ``around`` when not given.
        setup: What the processes of ``cpu=True`` handlers do first; it returns what each job there runs in.
    """
    queues.process_setup = setup
    inside: Callable[[], Any] = around_async or functools.partial(_entered, around)
    for name, kind in list(queues.types.items()):
        if kind.handler is not None and kind.mode == "async":
            queues.types[name] = replace(kind, handler=_wrap_async(kind.handler, inside))
        elif kind.handler is not None and kind.mode == "thread":
            queues.types[name] = replace(kind, handler=_wrap_sync(kind.handler, around))


@asynccontextmanager
async def _entered(around: Callable[[], AbstractContextManager[object]]) -> AsyncIterator[None]:
    with around():
        yield


def _wrap_async(
    fn: Callable[..., Any], around: Callable[[], AbstractAsyncContextManager[object]]
) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def handler(ctx: Any, data: Any) -> Any:
        async with around():
            return await fn(ctx, data)

    return handler


def _wrap_sync(
    fn: Callable[..., Any], around: Callable[[], AbstractContextManager[object]]
) -> Callable[..., Any]:
    @functools.wraps(fn)
    def handler(ctx: Any, data: Any) -> Any:
        with around():
            return fn(ctx, data)

    return handler


def load(path: str, *, argument: str) -> Any:
    """Return the object at ``package.module:name``, or ``package.module.name`` as Django's settings have it.

    Raises:
        ConfigurationError: Not such a path, or nothing is there.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module or not name:
        raise ConfigurationError(argument, path, "a path such as myapp.jobs:queues")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ConfigurationError(argument, path, f"a name that {module} defines") from error
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise ConfigurationError(argument, path, "a module that can be imported") from error
    return found
