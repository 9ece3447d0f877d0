"""Context variables that are undone wherever the coroutine that set them ends.

What surrounds code of the host is a class, not a generator: ``contextlib`` sets an attribute of an error that
passes through a generator, which a frozen dataclass refuses, and its own error would take the place.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Generic, TypeVar

T = TypeVar("T")


def reset(variable: ContextVar[T], token: Token[T]) -> None:
    """Undo a ``set``.

    A coroutine that is thrown away with its loop is closed in another context, where there is nothing to
    undo: an error from there would take the place of the one that tells it to end.
    """
    with suppress(ValueError):
        variable.reset(token)


class Within(Generic[T]):
    """Gives a context variable a value (``with``)."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, *error: object) -> None:
        reset(self._variable, self._token)
