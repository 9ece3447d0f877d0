"""Context variables that are undone wherever the coroutine that set them ends."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar, Token
from typing import TypeVar

T = TypeVar("T")


def reset(variable: ContextVar[T], token: Token[T]) -> None:
    """Undo a ``set``.

    A coroutine that is thrown away with its loop is closed in another context, where there is nothing to
    undo: an error from there would take the place of the one that tells it to end.
    """
    with suppress(ValueError):
        variable.reset(token)
