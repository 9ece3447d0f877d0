"""Job types: what a manager knows of a kind of job, with or without its handler."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.queues.options import MAX_PRIORITY, Exponential, RetryRule, check_int, check_name

if TYPE_CHECKING:
    from eventperf.queues.handle import Job
    from eventperf.queues.manager import QueueManager

_log = logging.getLogger("eventperf.queues")

_DEFAULT_BACKOFF = Exponential()

Middleware = Callable[[Any, Any, Callable[[Any, Any], Awaitable[Any]]], Awaitable[Any]]
"""``async def fn(ctx, data, proceed)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """One kind of job.

    Attributes:
        shape: Annotation of the payload; ``Any`` when it has none.
        handler: The function, or ``None`` where jobs are only produced.
        mode: ``"async"``, ``"thread"`` or ``"process"``.
        version: Version of the payload's shape that this release writes.
    """

    name: str
    shape: Any = Any
    handler: Callable[..., Any] | None = None
    mode: str = "async"
    queue: str | None = None
    priority: int | None = None
    attempts: int = 3
    timeout_s: float | None = 300.0
    backoff: Exponential = _DEFAULT_BACKOFF
    retry: Sequence[RetryRule] = ()
    version: int = 1


_looked_at: set[str] = set()


def undeclared(name: str, known: Collection[str]) -> JobType:
    """Return a type that this process does not declare, as workers may; tell once what looks like a slip."""
    if name not in _looked_at and len(_looked_at) < 1000:
        from difflib import get_close_matches

        _looked_at.add(name)
        if close := get_close_matches(name, known, n=1, cutoff=0.8):
            _log.warning("job type %r is declared nowhere in this process; is %r meant?", name, close[0])
    return JobType(name=name)


def job_type(
    name: str,
    handler: Callable[..., Any] | None,
    *,
    shape: Any = None,
    queue: str | None = None,
    priority: int | None = None,
    attempts: int = 3,
    timeout: Duration | None = "5m",
    backoff: Exponential | None = None,
    retry: Sequence[RetryRule] = (),
    version: int = 1,
    cpu: bool = False,
) -> JobType:
    """Check the options of a job type and return it.

    Raises:
        ConfigurationError: An option that cannot work.
    """
    if backoff is not None and not isinstance(backoff, Exponential):
        raise ConfigurationError("backoff", backoff, "an Exponential(...)")
    if not all(isinstance(rule, RetryRule) for rule in retry):
        raise ConfigurationError("retry", retry, "a list of RetryRule(...)")
    return JobType(
        name=check_name(name, argument="job type"),
        shape=payload_shape(handler)
        if shape is None and handler is not None
        else Any
        if shape is None
        else shape,
        handler=handler,
        mode=_mode(handler, cpu),
        queue=queue,
        priority=None
        if priority is None
        else check_int(priority, argument="priority", low=0, high=MAX_PRIORITY),
        attempts=check_int(attempts, argument="attempts", low=1),
        timeout_s=None if timeout is None else seconds(timeout, name="timeout"),
        backoff=backoff or _DEFAULT_BACKOFF,
        retry=tuple(retry),
        version=check_int(version, argument="version", low=1),
    )


def _mode(handler: Callable[..., Any] | None, cpu: bool) -> str:
    if handler is None:
        return "async"
    if not cpu:
        return "async" if inspect.iscoroutinefunction(handler) else "thread"
    if inspect.iscoroutinefunction(handler):
        raise ConfigurationError("cpu", True, "a plain function: a process pool cannot run coroutines")
    if "<locals>" in handler.__qualname__ or handler.__name__ == "<lambda>":
        raise ConfigurationError("cpu", handler.__qualname__, "a function at the top level of a module")
    return "process"


def payload_shape(handler: Callable[..., Any]) -> Any:
    """Return the annotation of a handler's second parameter, ``Any`` when it has none.

    Raises:
        ConfigurationError: The handler does not take ``(ctx, data)``.
    """
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(handler).parameters.values())
    needed = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(parameters) < 2 or len(needed) > 2 or any(p.kind not in positional for p in parameters[:2]):
        raise ConfigurationError(
            "handler", f"{handler.__qualname__}{inspect.signature(handler)}", "(ctx, data)"
        )
    try:
        hints = get_type_hints(handler)
    except NameError:  # names that exist only for type checkers; the payload stays unchecked
        return Any
    return hints.get(parameters[1].name, Any)


D = TypeVar("D")
R = TypeVar("R")


class JobFunction(Generic[D, R]):
    """A handler that knows how to enqueue itself; calling it calls the function.

    Attributes:
        name: The job type.
        fn: The function as written.
    """

    def __init__(self, queues: QueueManager, name: str, fn: Callable[[Any, D], R]) -> None:
        self._queues = queues
        self.name = name
        self.fn = fn
        self.__name__: str = getattr(fn, "__name__", name)
        self.__qualname__ = getattr(fn, "__qualname__", name)
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, ctx: Any, data: D) -> R:
        return self.fn(ctx, data)

    def enqueue(self, data: D, **options: Any) -> Job:
        """Enqueue one job of this type; options as of :meth:`QueueManager.enqueue`."""
        return self._queues.enqueue(self.name, data, **options)

    def aenqueue(self, data: D, **options: Any) -> Awaitable[Job]:
        """Asynchronous twin of :meth:`enqueue`."""
        return self._queues.aenqueue(self.name, data, **options)

    def __repr__(self) -> str:
        return f"<job {self.name!r}: {self.__module__}.{self.__qualname__}>"
