"""Results that belong to one caller: what is read once, and what a request has opened for itself.

They look like values and fail at the second reader: an exhausted generator, a closed file, a session that two
requests write to. They are refused when they are loaded, with what to return in their place.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import fields, is_dataclass
from functools import lru_cache
from inspect import isawaitable
from itertools import islice
from types import SimpleNamespace
from typing import Any, Final, cast

from eventperf.cache.errors import NotCacheable

_LOOKED_AT: Final = 50
_DEEP: Final = 3

_ONCE: Final = "it can be read only once: return a list of what it yields"
COROUTINE: Final = (
    "it can be awaited only once: decorate a coroutine function (async def), or use the async call "
    "(aget_or_load)"
)
_FILE: Final = "it can be read only once: return what it holds, as text or bytes"
_STREAM: Final = "its body can be read only once: return the whole body, or what it is made of"
_SESSION: Final = "it belongs to the caller that opened it: return what was read through it"
_MANAGER: Final = "it can be entered only once: return what it yields"

# What an object has that holds a connection or a session open.
_HELD: Final = (
    {"commit", "rollback"},
    {"cursor", "close"},
    {"execute", "close"},
    {"execute", "executemany"},
    {"request", "close", "__enter__"},
    {"request", "close", "__aenter__"},
    {"recv", "send", "close"},
)


def refuse_single_use(key: str, value: Any) -> None:
    """Look at a loaded value, and a little into what groups values: lists, sets, mappings, dataclasses.

    Raises:
        NotCacheable: It belongs to one caller.

    >>> refuse_single_use("rows", [1, 2])
    >>> refuse_single_use("rows", iter([1, 2]))
    Traceback (most recent call last):
    ...
    eventperf.cache.errors.NotCacheable: cannot cache a list_iterator under 'rows': it can be read only ...
    """
    found = _look(value, _DEEP)
    if found is not None:
        part, why = found
        if isawaitable(part) and hasattr(part, "close"):
            part.close()  # a coroutine that nobody will await says so in a warning otherwise
        raise NotCacheable(type(part).__name__, key, why)


def _look(value: Any, deep: int) -> tuple[Any, str] | None:
    kind = type(value)
    if kind in _SAFE:
        return None
    why = _by_kind(cast("Hashable", kind)) or _by_state(value)
    if why:
        return value, why
    if deep:
        for part in _parts(value, kind):
            found = _look(part, deep - 1)
            if found is not None:
                return found
    return None


_SAFE: Final = frozenset({str, int, float, bool, bytes, type(None)})


def _parts(value: Any, kind: type) -> Iterable[Any]:
    if issubclass(kind, _GROUPS):
        return islice(value, _LOOKED_AT)
    if issubclass(kind, dict):
        return islice(dict.values(value), _LOOKED_AT)
    if kind is SimpleNamespace:
        return islice(vars(value).values(), _LOOKED_AT)
    return [getattr(value, name, None) for name in _fields(cast("Hashable", kind))]


_GROUPS: Final[tuple[type, ...]] = (list, tuple, set, frozenset, deque, type({}.values()), type({}.items()))


@lru_cache(maxsize=4096)
def _fields(kind: Any) -> tuple[str, ...]:
    """Return the fields of a class that is made of some: dataclass, attrs, msgspec, pydantic."""
    if is_dataclass(kind):
        return tuple(f.name for f in fields(kind))
    made_of = getattr(kind, "__attrs_attrs__", None)
    if isinstance(made_of, tuple):
        return tuple(attribute.name for attribute in made_of)
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__pydantic_fields__", None)
    return tuple(names) if isinstance(names, (tuple, dict)) else ()


@lru_cache(maxsize=4096)
def _by_kind(kind: Any) -> str:
    """Return why no object of this class can be shared, or nothing."""
    has = {name for name in _NAMES if hasattr(kind, name)}
    if issubclass(kind, io.IOBase) or ({"read", "close"} <= has and has & {"__enter__", "__aenter__"}):
        return _FILE
    if any(names <= has for names in _HELD):
        return _SESSION
    if "body_iterator" in has:
        return _STREAM
    if has & {"__next__", "__anext__"}:
        return _ONCE
    if "__await__" in has:
        return COROUTINE
    is_manager = issubclass(kind, (AbstractContextManager, AbstractAsyncContextManager))
    return _MANAGER if is_manager and kind.__module__ == "contextlib" else ""


_NAMES: Final = frozenset().union(
    *_HELD, {"read", "__aenter__", "__next__", "__anext__", "__await__", "body_iterator"}
)


def _by_state(value: Any) -> str:
    """Return why this very object cannot be shared, or nothing."""
    if isawaitable(value):  # also what types.coroutine made
        return COROUTINE
    kind, state = type(value), getattr(value, "__dict__", {})
    if isinstance(state.get("file"), io.IOBase):  # temporary and uploaded files
        return _FILE
    is_stream = (
        "body_iterator" in state  # Starlette
        or (hasattr(kind, "streaming_content") and kind.streaming is True)  # Django
        or (hasattr(kind, "iter_encoded") and value.is_streamed)  # Werkzeug, Flask
        or (hasattr(kind, "iter_bytes") and "_content" not in state)  # httpx: not read yet
        or (hasattr(kind, "iter_content") and state.get("_content") is False)  # requests: not read yet
    )
    return _STREAM if is_stream else ""
