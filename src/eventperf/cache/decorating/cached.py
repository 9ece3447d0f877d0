"""``@cached``: a function, coroutine or method that remembers, with the signature it had."""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Protocol, TypeVar, cast, overload
from uuid import UUID

from typing_extensions import ParamSpec

from eventperf._core.errors import ConfigurationError
from eventperf.cache.entry import DEAD
from eventperf.cache.errors import NotCacheable, UnstableKey
from eventperf.cache.keys import Identity, Template, Unstable, encode
from eventperf.cache.keys.names import OURS, class_text
from eventperf.cache.options import CacheOptions
from eventperf.cache.transactions import DIRTY, inside, watch

from .compiled import Compiled, compile_wrapper

if TYPE_CHECKING:
    from eventperf.cache.manager import CacheManager

P = ParamSpec("P")
R = TypeVar("R")

# Arguments of these types may index the fast table: they never change and equal ones give equal keys.
_STEADY: Final = frozenset({str, int, bool, bytes, type(None), UUID, date, timedelta})
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
        self.identity = Identity(function)
        self.name: str = self.identity.label
        self.signature: inspect.Signature = _signature(function, self.name)
        self.parameters: list[str] = list(self.signature.parameters)
        self.takes_self: str = _takes_self(function, self.parameters)
        self.self_key = self_key
        if self.takes_self == "self" and key is None and self_key is None:
            raise UnstableKey(self.name, "self", "method's own object", "key= or self_key=")
        names = set(self.parameters)
        self._key = Template(key, strict=True) if isinstance(key, str) else key
        if isinstance(self._key, Template):
            self._key.check(names, argument="key", where=self.name)
        elif self._key is not None and not callable(self._key):
            raise ConfigurationError("key", key, "a template such as 'event:{event_id}', or a function")
        self.tags_of_result: Callable[..., Sequence[str]] | None = tags if callable(tags) else None
        self._tags: list[Template] = []
        if not callable(tags):
            if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
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

    def key_of(
        self, bound: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_shared: bool
    ) -> str:
        """Return the key of a call.

        Args:
            bound: All arguments by name.
            args: Those given by position; ``kwargs`` by name.
            is_shared: Whether other processes look under it: then nothing may stand in it that only this
                process can tell apart.
        """
        made = self._key
        if made is None:
            return self._own_key(bound, is_shared)
        try:
            key: Any = made.render(bound) if isinstance(made, Template) else made(*args, **kwargs)
        except Unstable as error:
            raise UnstableKey(
                self.name, made.text if isinstance(made, Template) else "key", str(error)
            ) from None
        if not isinstance(key, str):
            raise ConfigurationError(f"key of {self.name}", key, "a function that returns text")
        if is_shared and isinstance(made, Template) and OURS in key and OURS not in made.text:
            raise UnstableKey(self.name, made.text, f"object {_LOCAL}")
        return str.__str__(key)

    def _own_key(self, bound: dict[str, Any], is_shared: bool) -> str:
        at, value = "function", None
        try:
            prefix, parts = self.identity.prefix(is_shared=is_shared), []
            for at, value in bound.items():
                part = self._text_of_self(value) if at == self.takes_self == "self" else encode(value)
                if is_shared and OURS in part:
                    raise Unstable(f"{type(value).__name__} {_LOCAL}")
                parts.append(part)
        except Unstable as error:
            raise UnstableKey(self.name, at, str(error)) from None
        except RecursionError:
            raise UnstableKey(self.name, at, f"{type(value).__name__} that contains itself") from None
        return f"{prefix}({','.join(parts)})"

    def _text_of_self(self, owner: Any) -> str:
        """Return what stands for the object of a method, and its class if it is a subclass."""
        text = class_text(owner.__class__)
        own = self.self_key(owner) if callable(self.self_key) else getattr(owner, str(self.self_key))
        return encode(own) if text == f"<{self.name.rpartition('.')[0]}>" else text + encode(own)

    def reaches(self) -> list[str] | None:
        """Return what the key is made of: parameters and attributes of them; ``None`` when unknown."""
        if isinstance(self._key, Template):
            return self._key.reaches
        if self._key is not None:
            return None
        names = [name for name in self.parameters if name != "self" or name != self.takes_self]
        if self.takes_self != "self":
            return names
        return ["self.__class__", f"self.{self.self_key}", *names] if isinstance(self.self_key, str) else None

    def tags_for(self, bound: dict[str, Any]) -> Sequence[str]:
        """Return the tags of a call that are known before its result."""
        if self.steady_tags is not None:
            return self.steady_tags
        return [tag.render(bound) for tag in self._tags]


_LOCAL: Final = "of a class that its name does not lead to (made inside a function, or replaced)"


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inner if inspect.isroutine(inner) or isinstance(inner, type) else type(inner).__call__
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise NotCacheable("generator", name, "it can be read only once: return a list of what it yields")
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise ConfigurationError(
            "function", name, "a function whose parameters can be looked up: put a def or lambda around it"
        ) from None


def is_coroutine_function(function: Any) -> bool:
    """Tell whether calling ``function`` (an object with ``__call__``, a partial) makes a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        not inspect.isroutine(function)
        and not isinstance(function, type)
        and inspect.iscoroutinefunction(type(function).__call__)
    )


def _takes_self(function: Callable[..., Any], parameters: list[str]) -> str:
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    in_class = bool(owner) and not owner.endswith("<locals>") and isinstance(function, types.FunctionType)
    return parameters[0] if in_class and parameters and parameters[0] in ("self", "cls") else ""


def is_steady(value: Any) -> bool:
    """Tell whether ``value`` may stand for itself in the fast table."""
    kind = type(value)
    if kind in _STEADY:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_steady, value))
    if kind is float or kind is Decimal:
        return not math.isnan(value)
    if kind is datetime:  # a zone with summer time: two moments may compare equal
        return value.tzinfo is None or type(value.tzinfo) is timezone
    return isinstance(value, type) or (isinstance(value, Enum) and type(value.value) in _STEADY)


def wrap(
    manager_of: Callable[[], CacheManager],
    function: Callable[..., Any],
    recipe: Recipe,
    options: CacheOptions | None,
    overrides: dict[str, Any],
) -> Any:
    """Return the cached form of ``function``; the manager is looked up at its first call."""
    calls = Calls(manager_of, recipe, options, overrides)
    is_async = is_coroutine_function(function)
    slow = calls.aslow if is_async else calls.slow
    wrapper: Any = calls.compile(is_async) or (_async_wrapper if is_async else _wrapper)(calls, slow)
    wrapper = _look_like(wrapper, function)
    recipe.identity.adopt(wrapper)
    if recipe.takes_self:
        return CachedMethod(wrapper, calls)
    calls.attach(wrapper)
    return wrapper


def _look_like(wrapper: Any, function: Any) -> Any:
    """Return ``wrapper`` with the names, the documentation and the globals of ``function``.

    The globals count too: frameworks look up annotations there that are texts (``from __future__ import
    annotations``).
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = getattr(inner, "__func__", inner)
    if isinstance(inner, types.FunctionType):
        made = types.FunctionType(
            wrapper.__code__, inner.__globals__, wrapper.__name__, wrapper.__defaults__, wrapper.__closure__
        )
        made.__kwdefaults__ = wrapper.__kwdefaults__
        wrapper = made
    if isinstance(function, types.FunctionType):
        return functools.update_wrapper(wrapper, function)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    functools.update_wrapper(wrapper, named, updated=())
    wrapper.__wrapped__ = function
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
        watch()
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
        key = recipe.key_of(bound, args, kwargs, is_shared=manager.store is not None)
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
        if is_coroutine_function(self.recipe.function):
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
    fast, dead, missing = calls.fast, DEAD, (KeyError, TypeError)
    dirty, in_one = DIRTY, inside  # enclosed: the globals are those of the host

    def cached_call(*args: Any, **kwargs: Any) -> Any:
        # The hot path: no clock (the sweeper takes entries out in time), no lock, no helper.
        if not kwargs:
            try:
                entry = fast[args]
                value = entry.value
                if value is not dead and not (dirty and in_one()):
                    entry.hits += 1
                    return value
            except missing:
                pass  # not there, or an argument that cannot be hashed
        return slow(args, kwargs)

    return cached_call


def _async_wrapper(calls: Calls, slow: Any) -> Callable[..., Awaitable[Any]]:
    fast, dead, missing = calls.fast, DEAD, (KeyError, TypeError)
    dirty, in_one = DIRTY, inside  # enclosed: the globals are those of the host

    async def cached_call(*args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            try:
                entry = fast[args]
                value = entry.value
                if value is not dead and not (dirty and in_one()):
                    entry.hits += 1
                    return value
            except missing:
                pass
        return await slow(args, kwargs)

    return cached_call


class CachedMethod:
    """A cached function in a class body: binds, so that the verbs know their object."""

    def __init__(self, wrapper: Any, calls: Calls) -> None:
        self._wrapper = wrapper
        functools.update_wrapper(self, wrapper)
        calls.attach(self)
        calls.attach(wrapper)
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


def as_decorate(decorate: Any) -> Decorate:
    """Say to the type checker what the inner function of ``cached`` is."""
    return cast("Decorate", decorate)
