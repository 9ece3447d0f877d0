"""Cached functions in class bodies: they bind, and look to ``inspect`` as plain methods would."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final


def is_coroutine_function(function: Any) -> bool:
    """Tell whether calling ``function`` (an object with ``__call__``, a partial) makes a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        not inspect.isroutine(function)
        and not isinstance(function, type)
        and inspect.iscoroutinefunction(type(function).__call__)
    )


class CachedMethod:
    """A cached function in a class body: binds, so that the verbs know their object."""

    def __init__(self, wrapper: Any, attach: Callable[[Any], None]) -> None:
        self._wrapper = wrapper
        functools.update_wrapper(self, wrapper)
        attach(self)
        attach(wrapper)
        self._bound = AsyncBoundCached if is_coroutine_function(wrapper) else BoundCached
        if hasattr(inspect, "markcoroutinefunction") and self._bound is AsyncBoundCached:
            inspect.markcoroutinefunction(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._wrapper if instance is None else self._bound(self._wrapper, instance)


_VERBS: Final = frozenset({"key", "invalidate", "ainvalidate", "refresh", "arefresh", "bypass"})
_PLAIN: Final = frozenset({"__wrapped__", "__signature__", "__code__"})
"""What a partial must not have, or ``inspect`` shows the function with its ``self``."""


class BoundCached(functools.partial):  # type: ignore[type-arg]
    """A cached method of one object; made at each look-up, so it must cost little.

    A partial: ``inspect`` looks through it on every Python, and shows the parameters without ``self``.
    """

    @property
    def __self__(self) -> Any:
        return self.args[0]

    @property
    def __func__(self) -> Any:
        return self.func

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.func.__doc__

    def __getattr__(self, name: str) -> Any:
        if name in _PLAIN:
            raise AttributeError(name)
        found = getattr(self.func, name)
        return functools.partial(found, self.args[0]) if name in _VERBS else found


class AsyncBoundCached(BoundCached):
    # The same for coroutine functions: some frameworks ask whether ``__call__`` is one.
    __doc__ = vars(BoundCached)["__doc__"]

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return await self.func(*self.args, *args, **kwargs)
