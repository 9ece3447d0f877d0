"""Options of job types and handlers, checked where they are declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, get_type_hints

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.queues.checks import check_bool, check_int, check_list, check_name, check_span
from eventperf.queues.jobtype import DEFAULT_BACKOFF, JobType
from eventperf.queues.options import MAX_PRIORITY, Exponential, RetryRule

_log = logger("eventperf.queues")

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
    keep_result: bool = True,
) -> JobType:
    """Check the options of a job type and return it.

    Raises:
        ConfigurationError: An option that cannot work.
    """
    if backoff is not None and not isinstance(backoff, Exponential):
        raise ConfigurationError("backoff", backoff, "an Exponential(...)")
    rules = check_list(retry, argument="retry", of="RetryRule(...)")
    if not all(isinstance(rule, RetryRule) for rule in rules):
        raise ConfigurationError("retry", retry, "a list of RetryRule(...)")
    return JobType(
        name=check_name(name, argument="job type"),
        shape=payload_shape(handler)
        if shape is None and handler is not None
        else Any
        if shape is None
        else shape,
        handler=handler,
        mode=_mode(handler, check_bool(cpu, argument="cpu")),
        queue=queue,
        priority=None
        if priority is None
        else check_int(priority, argument="priority", low=0, high=MAX_PRIORITY),
        attempts=check_int(attempts, argument="attempts", low=1),
        timeout_s=None if timeout is None else check_span(timeout, argument="timeout"),
        backoff=backoff or DEFAULT_BACKOFF,
        retry=tuple(rules),
        version=check_int(version, argument="version", low=1),
        keep_result=check_bool(keep_result, argument="keep_result"),
    )


def _mode(handler: Callable[..., Any] | None, cpu: bool) -> str:
    if handler is None:
        return "async"
    called = _called(handler)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigurationError(
            "handler", _name_of(handler), "a function that returns: nothing runs a generator"
        )
    if not cpu:
        return "async" if inspect.iscoroutinefunction(called) else "thread"
    if inspect.iscoroutinefunction(called):
        raise ConfigurationError("cpu", True, "a plain function: a process pool cannot run coroutines")
    is_made = not hasattr(handler, "__qualname__") or not isinstance(getattr(handler, "__self__", type), type)
    if is_made or "<locals>" in _name_of(handler) or _name_of(handler).endswith("<lambda>"):
        allowed = "a function at the top level of a module: a process finds it by its name alone"
        raise ConfigurationError("cpu", _name_of(handler), allowed)
    return "process"


def _called(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that is called in the end: of a partial, or of an object that can be called."""
    while isinstance(handler, partial):
        handler = handler.func
    if inspect.isroutine(handler) or isinstance(handler, type):
        return handler
    call: Callable[..., Any] = type(handler).__call__
    return call


def _name_of(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)  # a partial has no name


def payload_shape(handler: Callable[..., Any]) -> Any:
    """Return the annotation of a handler's second parameter, ``Any`` when it has none.

    Raises:
        ConfigurationError: The handler does not take ``(ctx, data)``.
    """
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # no function, or one of C that does not say
        raise ConfigurationError("handler", handler, "a function (ctx, data)") from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    needed = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(parameters) < 2 or len(needed) > 2 or any(p.kind not in positional for p in parameters[:2]):
        raise ConfigurationError("handler", f"{_name_of(handler)}{signature}", "(ctx, data)")
    try:
        hints = get_type_hints(_called(handler))
    except NameError:  # names that exist only for type checkers; the payload stays unchecked
        return Any
    return hints.get(parameters[1].name, Any)
