"""``@cached``: a function, coroutine or method that remembers, with the signature it had."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from eventperf._core.durations import Duration
from eventperf.cache.entry import DEAD
from eventperf.cache.following import aside
from eventperf.cache.options import CacheOptions
from eventperf.cache.transactions import DIRTY, watch

from .bound import CachedMethod, is_coroutine_function
from .compiled import Compiled, compile_wrapper, make_counter
from .manager import Manager
from .recipe import Recipe

FAST_MAX: Final = 100_000


def wrap(
    manager_of: Callable[[], Manager],
    function: Callable[..., Any],
    recipe: Recipe,
    options: CacheOptions | None,
    overrides: dict[str, Any],
) -> Any:
    """Return the cached form of ``function``; the manager is looked up at its first call."""
    calls = Calls(manager_of, recipe, options, overrides)
    is_async = is_coroutine_function(function)
    slow = calls.aslow if is_async else calls.slow
    wrapper: Any = calls.compile(is_async)
    if wrapper is None:
        wrapper, calls.served = (_async_wrapper if is_async else _wrapper)(calls, slow)
    wrapper = _look_like(wrapper, function)
    recipe.identity.adopt(wrapper)
    if recipe.takes_self:
        return CachedMethod(wrapper, calls.attach)
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
        manager_of: Callable[[], Manager],
        recipe: Recipe,
        options: CacheOptions | None,
        overrides: dict[str, Any],
    ) -> None:
        self.recipe = recipe
        self.fast: dict[Any, Any] = {}
        self._manager_of = manager_of
        self._given, self._overrides = options, overrides
        self._manager: Manager | None = None
        self._options: CacheOptions | None = None
        self._compiled: Compiled | None = None
        self.served: Callable[[], int] = int

    def compile(self, is_async: bool) -> Any:
        """Return a wrapper with the function's own parameters, or ``None`` when that cannot be."""
        recipe, slow = self.recipe, self.aslow if is_async else self.slow
        self._compiled = compile_wrapper(
            recipe.signature, recipe.reaches(), self.fast, slow, is_async=is_async
        )
        if self._compiled is None:
            return None
        self.served = self._compiled.served
        return self._compiled.wrapper

    def manager(self) -> Manager:
        """Return the manager, and settle the options with it."""
        watch()
        found = self._manager_of()
        if found is not self._manager:
            self.fast.clear()
            base = self._given if self._given is not None else found.options
            self._options = found.settled(base.but(**self._overrides))
            if self._manager is not None:
                self._manager.uncount(self.served)
            found.count(self.served, self)
            self._manager = found
        return found

    def plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Manager, str, Any, CacheOptions]:
        """Return manager, key, tags and options of a call."""
        manager = self.manager()
        recipe = self.recipe
        bound = recipe.bind(args, kwargs)
        is_shared = manager.store is not None
        key = recipe.key_of(bound, args, kwargs, is_shared=is_shared)
        tags = recipe.tags_for(bound, is_shared=is_shared)
        assert self._options is not None
        return manager, key, tags, self._options

    def point(
        self,
        manager: Manager,
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
        if self.recipe.key_function is not None:
            at = key
        elif compiled is None:
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
        function = self.recipe.loader
        value = manager.get_or_load(key, lambda: function(*args, **kwargs), tags=tags, options=options)
        self.point(manager, key, args, kwargs, options)
        return value

    async def aslow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same for coroutines."""
        manager, key, tags, options = self.plan(args, kwargs)
        function = self.recipe.loader
        value = await manager.aget_or_load(key, lambda: function(*args, **kwargs), tags=tags, options=options)
        self.point(manager, key, args, kwargs, options)
        return value

    def attach(self, target: Any) -> None:
        """Give ``target`` the verbs of a cached function."""
        target.key = lambda *a, **k: self.plan(a, k)[1]
        target.invalidate = lambda *a, **k: self.invalidate(a, k)
        target.ainvalidate = lambda *a, **k: self.ainvalidate(a, k)
        target.invalidate_all = self.invalidate_all
        target.ainvalidate_all = self.ainvalidate_all
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

    def _whole(self) -> tuple[Manager, str, str | None]:
        manager = self.manager()
        assert self._options is not None
        return manager, self.recipe.own_tag(is_shared=manager.store is not None), self._options.namespace

    def invalidate_all(self, *, settle: Duration | None = None) -> None:
        """Forget every result of the function, in every process, with one write."""
        manager, tag, namespace = self._whole()
        manager.invalidate_tags(tag, settle=settle, namespace=namespace)

    async def ainvalidate_all(self, *, settle: Duration | None = None) -> None:
        """Forget every result of the function; see :meth:`invalidate_all`."""
        manager, tag, namespace = self._whole()
        await manager.ainvalidate_tags(tag, settle=settle, namespace=namespace)

    def refresh(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        manager, key, tags, options = self.plan(args, kwargs)
        function = self.recipe.loader
        return manager.refresh(key, lambda: function(*args, **kwargs), tags=tags, options=options)

    async def arefresh(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        manager, key, tags, options = self.plan(args, kwargs)
        function = self.recipe.loader
        return await manager.arefresh(key, lambda: function(*args, **kwargs), tags=tags, options=options)


def _wrapper(calls: Calls, slow: Any) -> tuple[Callable[..., Any], Callable[[], int]]:
    steps, served = make_counter()
    fast, dead, missing = calls.fast, DEAD, (KeyError, TypeError, AttributeError)
    key_of = calls.recipe.key_function  # it may look at more than the arguments: asked at each call
    dirty, in_one = DIRTY, aside  # enclosed: the globals are those of the host

    def cached_call(*args: Any, **kwargs: Any) -> Any:
        # The hot path: no clock (the sweeper takes entries out in time), no lock, no helper.
        if key_of is not None or not kwargs:
            try:
                entry = fast[args if key_of is None else key_of(*args, **kwargs)]
                value = entry.value
                if value is not dead and not (dirty and in_one()):
                    if entry.hits < 3:
                        entry.hits += 1
                    for _ in steps:
                        return value
            except missing:
                pass  # not there, or an argument that cannot be hashed
        return slow(args, kwargs)

    return cached_call, served


def _async_wrapper(calls: Calls, slow: Any) -> tuple[Callable[..., Awaitable[Any]], Callable[[], int]]:
    steps, served = make_counter()
    fast, dead, missing = calls.fast, DEAD, (KeyError, TypeError, AttributeError)
    key_of = calls.recipe.key_function  # it may look at more than the arguments: asked at each call
    dirty, in_one = DIRTY, aside  # enclosed: the globals are those of the host

    async def cached_call(*args: Any, **kwargs: Any) -> Any:
        if key_of is not None or not kwargs:
            try:
                entry = fast[args if key_of is None else key_of(*args, **kwargs)]
                value = entry.value
                if value is not dead and not (dirty and in_one()):
                    if entry.hits < 3:
                        entry.hits += 1
                    for _ in steps:
                        return value
            except missing:
                pass
        return await slow(args, kwargs)

    return cached_call, served


# Arguments of these types may index the fast table: they never change and equal ones give equal keys.
_STEADY: Final = frozenset({str, int, bool, bytes, type(None), UUID, date, timedelta})


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
