"""``@cached``: a function, coroutine or method that remembers, with the signature it had."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Protocol, TypeVar, cast, overload
from uuid import UUID

from typing_extensions import ParamSpec

from eventperf._core.errors import ConfigurationError
from eventperf.cache.entry import DEAD
from eventperf.cache.errors import UnstableKey
from eventperf.cache.keys import Template, Unstable, encode
from eventperf.cache.options import CacheOptions

from .compiled import Compiled, compile_wrapper

if TYPE_CHECKING:
    from eventperf.cache.manager import CacheManager

P = ParamSpec("P")
R = TypeVar("R")

# Arguments of these types may index the fast table: they never change and equal ones give equal keys.
_STEADY: Final = frozenset(
    {str, int, float, bool, bytes, type(None), UUID, date, datetime, timedelta, Decimal}
)
FAST_MAX: Final = 100_000


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


class Recipe:
    """How the calls of one function map to keys and tags; made once, when it is decorated."""

    def __init__(
        self,
        function: Callable[..., Any],
        key: str | Callable[..., str] | None,
        tags: Sequence[str] | Callable[..., Sequence[str]],
        self_key: str | Callable[[Any], Any] | None,
    ) -> None:
        self.function = function
        self.name: str = f"{function.__module__}.{function.__qualname__}"
        self.signature: inspect.Signature = inspect.signature(function)
        self.parameters: list[str] = list(self.signature.parameters)
        self.takes_self: str = _takes_self(function, self.parameters)
        self.self_key = self_key
        if self.takes_self == "self" and key is None and self_key is None:
            raise UnstableKey(self.name, "self", "method's own object", "key= or self_key=")
        names = set(self.parameters)
        self._key = Template(key) if isinstance(key, str) else key
        if isinstance(self._key, Template):
            self._key.check(names, argument="key", where=self.name)
        elif self._key is not None and not callable(self._key):
            raise ConfigurationError("key", key, "a template such as 'event:{event_id}', or a function")
        self.tags_of_result: Callable[..., Sequence[str]] | None = tags if callable(tags) else None
        self._tags: list[Template] = []
        if not callable(tags):
            if isinstance(tags, str):
                raise ConfigurationError("tags", tags, 'a list of texts, such as ["event:{event_id}"]')
            self._tags = [Template(tag, argument="tags") for tag in tags]
            for tag in self._tags:
                tag.check(names, argument="tags", where=self.name)
        self.has_tags: bool = bool(self._tags)
        self.steady_tags: list[str] | None = (
            [t.text for t in self._tags] if all(not t.fields for t in self._tags) else None
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, defaults included.

        Raises:
            TypeError: They do not fit the signature, as the function itself would say.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments: dict[str, Any] = bound.arguments
        return arguments

    def key_of(self, bound: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of a call."""
        made = self._key
        if isinstance(made, Template):
            try:
                return made.render(bound)
            except Unstable as error:
                raise UnstableKey(self.name, made.text, str(error)) from None
        if made is not None:
            return str(made(*args, **kwargs))
        parts = []
        for name, value in bound.items():
            if name == self.takes_self == "self":
                value = self.own(value)
            try:
                parts.append(encode(value))
            except Unstable as error:
                raise UnstableKey(self.name, name, str(error)) from None
        return f"{self.name}({','.join(parts)})"

    def reaches(self) -> list[str] | None:
        """Return what the key is made of: parameters and attributes of them; ``None`` when unknown."""
        if isinstance(self._key, Template):
            return self._key.reaches
        if self._key is not None:
            return None
        names = [name for name in self.parameters if name != "self" or name != self.takes_self]
        if self.takes_self != "self":
            return names
        return [f"self.{self.self_key}", *names] if isinstance(self.self_key, str) else None

    def own(self, owner: Any) -> Any:
        """Return what stands for the object of a method."""
        if self.self_key is None:
            return owner
        return self.self_key(owner) if callable(self.self_key) else getattr(owner, self.self_key)

    def tags_for(self, bound: dict[str, Any]) -> Sequence[str]:
        """Return the tags of a call that are known before its result."""
        if self.steady_tags is not None:
            return self.steady_tags
        return [tag.render(bound) for tag in self._tags]


def _takes_self(function: Callable[..., Any], parameters: list[str]) -> str:
    owner = function.__qualname__.rpartition(".")[0]
    in_class = bool(owner) and not owner.endswith("<locals>")
    return parameters[0] if in_class and parameters and parameters[0] in ("self", "cls") else ""


def is_steady(value: Any) -> bool:
    """Tell whether ``value`` may stand for itself in the fast table."""
    kind = type(value)
    if kind in _STEADY:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_steady, value))
    return isinstance(value, Enum) and type(value.value) in _STEADY


def wrap(
    manager_of: Callable[[], CacheManager],
    function: Callable[..., Any],
    recipe: Recipe,
    options: CacheOptions | None,
    overrides: dict[str, Any],
) -> Any:
    """Return the cached form of ``function``; the manager is looked up at its first call."""
    calls = Calls(manager_of, recipe, options, overrides)
    is_async = inspect.iscoroutinefunction(function)
    slow = calls.aslow if is_async else calls.slow
    wrapper: Any = calls.compile(is_async) or (_async_wrapper if is_async else _wrapper)(calls, slow)
    functools.update_wrapper(wrapper, function)
    if recipe.takes_self:
        return CachedMethod(wrapper, calls)
    calls.attach(wrapper)
    return wrapper


class Calls:
    """The slow paths of one cached function, and its verbs."""

    def __init__(
        self,
        manager_of: Callable[[], CacheManager],
        recipe: Recipe,
        options: CacheOptions | None,
        overrides: dict[str, Any],
    ) -> None:
        self.recipe = recipe
        self.fast: dict[Any, Any] = {}
        self._manager_of = manager_of
        self._given, self._overrides = options, overrides
        self._manager: CacheManager | None = None
        self._options: CacheOptions | None = None
        self._compiled: Compiled | None = None

    def compile(self, is_async: bool) -> Any:
        """Return a wrapper with the function's own parameters, or ``None`` when that cannot be."""
        recipe, slow = self.recipe, self.aslow if is_async else self.slow
        self._compiled = compile_wrapper(
            recipe.signature, recipe.reaches(), self.fast, slow, is_async=is_async
        )
        return self._compiled.wrapper if self._compiled is not None else None

    def manager(self) -> CacheManager:
        """Return the manager, and settle the options with it."""
        found = self._manager_of()
        if found is not self._manager:
            self.fast.clear()
            base = self._given if self._given is not None else found.options
            self._options = found.settled(base.but(**self._overrides))
            self._manager = found
        return found

    def plan(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[CacheManager, str, Any, CacheOptions]:
        """Return manager, key, tags and options of a call."""
        manager = self.manager()
        recipe = self.recipe
        bound = recipe.bind(args, kwargs)
        key = recipe.key_of(bound, args, kwargs)
        tags = recipe.tags_of_result or (recipe.tags_for(bound) if recipe.has_tags else ())
        assert self._options is not None
        return manager, key, tags, self._options

    def point(
        self,
        manager: CacheManager,
        key: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CacheOptions,
    ) -> None:
        """Let the next call with these arguments find the entry without making its key."""
        if len(self.fast) >= FAST_MAX:
            return
        at: Any = args
        compiled = self._compiled
        if compiled is None:
            if kwargs or self.recipe.takes_self or not all(map(is_steady, args)):
                return
        else:
            parts = compiled.parts(*args, **kwargs)  # the compiled wrapper hands over every argument
            if not all(map(is_steady, parts)):
                return
            at = parts[0] if compiled.is_single else parts
        manager.alias(key, self.fast, at, options)

    def slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a call that the fast table could not."""
        manager, key, tags, options = self.plan(args, kwargs)
        function = self.recipe.function
        value = manager.get_or_load(key, lambda: function(*args, **kwargs), tags=tags, options=options)
        self.point(manager, key, args, kwargs, options)
        return value

    async def aslow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same for coroutines."""
        manager, key, tags, options = self.plan(args, kwargs)
        function = self.recipe.function
        value = await manager.aget_or_load(key, lambda: function(*args, **kwargs), tags=tags, options=options)
        self.point(manager, key, args, kwargs, options)
        return value

    def attach(self, target: Any) -> None:
        """Give ``target`` the verbs of a cached function."""
        target.key = lambda *a, **k: self.plan(a, k)[1]
        target.invalidate = lambda *a, **k: self.invalidate(a, k)
        target.ainvalidate = lambda *a, **k: self.ainvalidate(a, k)
        if inspect.iscoroutinefunction(self.recipe.function):
            target.arefresh = lambda *a, **k: self.arefresh(a, k)
        else:
            target.refresh = lambda *a, **k: self.refresh(a, k)
        target.bypass = lambda *a, **k: self.recipe.function(*a, **k)

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        manager, key, _, options = self.plan(args, kwargs)
        manager.delete(key, namespace=options.namespace)

    async def ainvalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        manager, key, _, options = self.plan(args, kwargs)
        await manager.adelete(key, namespace=options.namespace)

    def refresh(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        manager, key, tags, options = self.plan(args, kwargs)
        function = self.recipe.function
        return manager.refresh(key, lambda: function(*args, **kwargs), tags=tags, options=options)

    async def arefresh(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        manager, key, tags, options = self.plan(args, kwargs)
        function = self.recipe.function
        return await manager.arefresh(key, lambda: function(*args, **kwargs), tags=tags, options=options)


def _wrapper(calls: Calls, slow: Any) -> Callable[..., Any]:
    fast, dead = calls.fast, DEAD

    def cached_call(*args: Any, **kwargs: Any) -> Any:
        # The hot path: no clock (the sweeper takes entries out in time), no lock, no helper.
        if not kwargs:
            try:
                entry = fast[args]
                value = entry.value
                if value is not dead:
                    entry.hits += 1
                    return value
            except (KeyError, TypeError):
                pass  # not there, or an argument that cannot be hashed
        return slow(args, kwargs)

    return cached_call


def _async_wrapper(calls: Calls, slow: Any) -> Callable[..., Awaitable[Any]]:
    fast, dead = calls.fast, DEAD

    async def cached_call(*args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            try:
                entry = fast[args]
                value = entry.value
                if value is not dead:
                    entry.hits += 1
                    return value
            except (KeyError, TypeError):
                pass
        return await slow(args, kwargs)

    return cached_call


class CachedMethod:
    """A cached function in a class body: binds, so that the verbs know their object."""

    def __init__(self, wrapper: Any, calls: Calls) -> None:
        self._wrapper = wrapper
        functools.update_wrapper(self, wrapper)
        calls.attach(self)
        if inspect.iscoroutinefunction(calls.recipe.function) and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else BoundCached(self._wrapper, self, instance)


_VERBS: Final = frozenset({"key", "invalidate", "ainvalidate", "refresh", "arefresh", "bypass"})


class BoundCached:
    """A cached method of one object; made at each look-up, so it must cost little."""

    __slots__ = ("__self__", "_method", "_wrapper")

    def __init__(self, wrapper: Any, method: CachedMethod, instance: Any) -> None:
        self._wrapper: Any = wrapper
        self._method: CachedMethod = method
        self.__self__: Any = instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._method, name)
        return functools.partial(found, self.__self__) if name in _VERBS else found


def as_decorate(decorate: Any) -> Decorate:
    """Say to the type checker what the inner function of ``cached`` is."""
    return cast("Decorate", decorate)
