"""What crosses from the process of a ``cpu=True`` job to its worker: a result, or what the handler raised."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from eventperf.queues.errors import NonRetryable, QueueError

from .texts import error_text

_LAZY: Final = (GeneratorType, AsyncGeneratorType, map, filter, starmap)
NO_RESULT: Final = "Return None, plain data or a model, or declare the job type with keep_result=False"


def check_ran(result: object) -> None:
    """Raise unless the handler has done what it returns: nobody would go through a generator.

    >>> check_ran([1, 2])
    """
    if isinstance(result, _LAZY):
        kind = type(result).__name__.replace("_", " ")
        raise NonRetryable(f"the handler returned a {kind}: nothing of it has run")


def pack_result(value: Any) -> bytes:
    """Return a handler's result as bytes.

    Raises:
        NonRetryable: It has no such form; running the job again would not help.
    """
    try:
        return pickle.dumps(value)
    except BaseException as error:  # user code
        text = f"it ran, but its result cannot leave its process: {error_text(error)}. {NO_RESULT}"
        raise NonRetryable(text) from error


def pack_error(error: BaseException) -> bytes:
    """Return an error as bytes from which another process makes one of its kind.

    Many cannot be made anew from their arguments, since their constructors take others. They keep their
    class, or where that cannot be imported the nearest above it: rules for it, and NonRetryable, hold.
    """
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, BaseException)]
    for form in (error, *(_Remade(error, kind) for kind in kinds if kind not in _TOO_FAR)):
        try:
            data = pickle.dumps(form)
            if isinstance(pickle.loads(data), BaseException):  # noqa: S301 - written just now
                return data
        except BaseException:  # noqa: S112 - user code; the next form is simpler
            continue
    return pickle.dumps(QueueError(error_text(error)))


_TOO_FAR: Final = (Exception, BaseException)


class _Remade:
    """Pickles as an exception that is made without its constructor."""

    def __init__(self, error: BaseException, kind: type[BaseException]) -> None:
        self._error = error
        self._kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        members = getattr(error, "exceptions", None)
        if isinstance(members, tuple):
            return _regroup, (self._kind, str(error.args[0]), [pack_error(one) for one in members])
        is_own = self._kind is type(error)
        args = tuple(map(_carried, error.args)) if is_own else (error_text(error),)
        facts = {name: value for name, value in error.__dict__.items() if _carried(value) is value}
        return _remake, (self._kind, args, facts)


def _regroup(kind: Callable[[str, list[Any]], Any], text: str, members: Sequence[bytes]) -> Any:
    return kind(text, [pickle.loads(one) for one in members])  # noqa: S301 - from a process of our own


def _remake(kind: type[BaseException], args: tuple[Any, ...], facts: Mapping[str, Any]) -> BaseException:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


def _carried(value: Any) -> Any:
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - written just now
    except Exception:
        return f"<{type(value).__name__}>"
    return value


def unpack_result(data: bytes) -> Any:
    """Return what :func:`pack_result` was given.

    Raises:
        NonRetryable: It cannot be made anew in this process.
    """
    try:
        return pickle.loads(data)  # noqa: S301 - from a process of our own
    except BaseException as error:  # user code
        text = f"it ran, but its worker cannot read its result: {error_text(error)}. {NO_RESULT}"
        raise NonRetryable(text) from error


def unpack_error(data: bytes, text: str) -> BaseException:
    """Return the error that :func:`pack_error` was given; one with ``text`` where it cannot be made here."""
    try:
        error = pickle.loads(data)  # noqa: S301 - from a process of our own
    except BaseException:  # user code, or a module that only the other process has
        return QueueError(text)
    return error if isinstance(error, BaseException) else QueueError(text)
