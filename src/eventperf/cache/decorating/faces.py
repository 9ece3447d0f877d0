"""What ``@cached`` makes of a function, as type checkers see it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, Protocol, TypeVar, cast, overload

from typing_extensions import ParamSpec

from eventperf._core.durations import Duration

P = ParamSpec("P")
R = TypeVar("R")


class CachedFunction(Generic[P, R]):
    """What ``@cached`` makes of a plain function (this class describes it; at run time it is a function)."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the remembered result, or call the function and remember it."""
        raise NotImplementedError

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the cache key of a call."""
        raise NotImplementedError

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result of a call."""
        raise NotImplementedError

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function now and remember the result."""
        raise NotImplementedError

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; remember nothing."""
        raise NotImplementedError

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result of a call, from a task."""
        raise NotImplementedError

    def invalidate_all(self, *, settle: Duration | None = None) -> None:
        """Forget every result of the function, in every process, with one write."""
        raise NotImplementedError

    async def ainvalidate_all(self, *, settle: Duration | None = None) -> None:
        """Forget every result of the function, from a task."""
        raise NotImplementedError

    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> CachedFunction[P, R]: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, S_], R], instance: object, owner: Any = None, /
    ) -> CachedFunction[S_, R]: ...

    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        raise NotImplementedError


class CachedCoroutine(Generic[P, R]):
    """What ``@cached`` makes of a coroutine function."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the remembered result, or await the function and remember it."""
        raise NotImplementedError

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the cache key of a call."""
        raise NotImplementedError

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result of a call, from a thread without a loop."""
        raise NotImplementedError

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result of a call."""
        raise NotImplementedError

    async def arefresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await the function now and remember the result."""
        raise NotImplementedError

    async def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await the function; remember nothing."""
        raise NotImplementedError

    def invalidate_all(self, *, settle: Duration | None = None) -> None:
        """Forget every result of the function, from a thread without a loop."""
        raise NotImplementedError

    async def ainvalidate_all(self, *, settle: Duration | None = None) -> None:
        """Forget every result of the function, in every process, with one write."""
        raise NotImplementedError

    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> CachedCoroutine[P, R]: ...

    @overload
    def __get__(
        self: CachedCoroutine[Concatenate[Any, S_], R], instance: object, owner: Any = None, /
    ) -> CachedCoroutine[S_, R]: ...

    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        raise NotImplementedError


S_ = ParamSpec("S_")


class Decorate(Protocol):
    """Turns a function into a cached one of the same signature."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedCoroutine[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


def as_decorate(decorate: Any) -> Decorate:
    """Say to the type checker what the inner function of ``cached`` is."""
    return cast("Decorate", decorate)
