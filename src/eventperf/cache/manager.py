"""CacheManager: the verbs, for threads and for tasks."""

from __future__ import annotations

import random as _random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import Registry, parse_url

from . import bulk, patterns, serializers
from .backends.memory import MemoryStore
from .core import Core
from .decorator import CachedCoroutine, CachedFunction, Decorate, Recipe, as_decorate, wrap
from .entry import DEAD
from .errors import StoreUnavailable
from .isolation import COPY, SHARE, Marks, private
from .keys import MAX_KEY, Space
from .loading import Job, get_or_load
from .options import COHERENCE, CacheOptions
from .protocols import Serializer
from .reading import ABSENT, plain_value, read_many, remove_many, remove_tags, write_many
from .stats import CacheStats
from .steps import Steps, arun, call, run
from .sweeper import SWEEPER
from .warm import Warmers

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import ParamSpec, Self

    P = ParamSpec("P")

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

DEFAULT: Final[Any] = object()
BACKENDS: Final = Registry(
    "cache",
    {
        "memory": "",
        "redis": "eventperf.cache.backends.redis:RedisStore",
        "rediss": "eventperf.cache.backends.redis:RedisStore",
        "unix": "eventperf.cache.backends.redis:RedisStore",
        "redis+cluster": "eventperf.cache.backends.redis:RedisStore",
        "rediss+cluster": "eventperf.cache.backends.redis:RedisStore",
    },
)
Tags = Sequence[str] | Callable[[Any], Sequence[str]]


class CacheManager:
    """A cache in process memory, with a second tier shared by processes when it is given a URL.

    Threads and tasks of any loop may use one manager at once. Nothing is opened before the first use; the
    manager may be made before a fork.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+cluster://h1:7000,h2:7001``, ``memory://``, or a store
            object; ``None`` keeps to process memory.
        namespace: First part of every key; what ``clear()`` empties.
        ttl: Life of an entry where none is said; overrides the one of ``options``.
        l1: The first tier: a :class:`MemoryStore` (the default), a :class:`CachetoolsStore`, or ``None``.
        coherence: How process memory follows what other processes write: ``"tracking"`` (Redis tells us,
            whoever wrote), ``"bus"`` (our processes tell each other) or ``"ttl"`` (it does not; ``l1_ttl``
            bounds the age).
        options: Defaults of this manager.
        clock: Time, for tests.
        random: Randomness of jitter and early refresh, for tests.
        serializer: ``"msgpack"`` (the default, no pickle), ``"pickle"`` or an object.

    >>> cache = CacheManager(namespace="shop", ttl="5m")
    >>> cache.get_or_load("price:7", lambda: 950)
    950
    >>> cache.get("price:7")
    950
    """

    def __init__(
        self,
        url: str | Any | None = None,
        *,
        namespace: str = "app",
        ttl: Duration | None = None,
        l1: Any = DEFAULT,
        coherence: str = "tracking",
        options: CacheOptions | None = None,
        clock: Clock | None = None,
        random: _random.Random | None = None,
        serializer: str | Serializer | None = None,
    ) -> None:
        if coherence not in COHERENCE:
            raise ConfigurationError("coherence", coherence, [repr(c) for c in COHERENCE])
        if options is not None and not isinstance(options, CacheOptions):
            raise ConfigurationError("options", options, "a CacheOptions")
        self.options: CacheOptions = (options or CacheOptions()).but(ttl=ttl)
        store = open_store(url)
        if l1 is DEFAULT:
            l1 = MemoryStore()
        elif l1 is not None and not (hasattr(l1, "get") and hasattr(l1, "drop_tags")):
            raise ConfigurationError("l1", l1, "a MemoryStore, a CachetoolsStore or None")
        codec = serializers.make(serializer or self.options.serializer) if store or serializer else None
        self._core = Core(
            space=Space(namespace),
            options=self.options,
            l1=l1,
            store=store,
            serializer=codec,
            coherence=coherence,
            clock=clock or SystemClock(),
            random=random or _random.Random(),
        )
        self.options = self.settled(self.options)
        if store is not None:
            patterns.connect(self._core)
        shares = self.options.isolate == SHARE
        self._table: dict[str, Any] = l1.table if type(l1) is MemoryStore and shares else {}
        self._marks = Marks()
        self._now = self._core.now
        self._is_plain = l1 is None and store is not None and self.options.namespace is None
        self._warmers = Warmers(self)

    def __repr__(self) -> str:
        core = self._core
        where = core.store.url if core.store is not None else "process memory"
        return f"CacheManager({where}, namespace={core.space.name!r})"

    @property
    def namespace(self) -> str:
        """The manager's own namespace."""
        return self._core.space.name

    @property
    def store(self) -> Any:
        """The second tier, or ``None``: raw bytes by outer key, for plug-ins."""
        return self._core.store

    def settled(self, options: CacheOptions) -> CacheOptions:
        """Return ``options`` with their serializer made ready."""
        core = getattr(self, "_core", None)
        if core is None or core.store is None:
            return options
        if options.serializer is None or options.serializer == self.options.serializer:
            return replace(options, serializer=core.serializer) if options.serializer else options
        if isinstance(options.serializer, str):
            return replace(options, serializer=serializers.make(options.serializer))
        return options

    # -- helpers of the verbs ------------------------------------------------------------------------

    def _plan(
        self, options: CacheOptions | None, ttl: Duration | None, namespace: str | None = None
    ) -> tuple[CacheOptions, float, Space]:
        chosen = self.options if options is None else self.settled(options)
        life = chosen.ttl if ttl is None else seconds(ttl, name="ttl", forever=True)
        space = (
            self._core.space
            if namespace is None and chosen.namespace is None
            else self._core.space_of(namespace or chosen.namespace)
        )
        return chosen, float(life), space  # type: ignore[arg-type]

    def _hit(self, local: str, options: CacheOptions) -> Any:
        """Return the live value in process memory, or DEAD."""
        if not options.use_l1 or not self._core.enabled:
            return DEAD
        entry = self._core.peek(local)
        if entry is None or self._now() >= entry.soft:
            return DEAD
        value = entry.value
        if value is not DEAD:
            entry.hits += 1
        return value

    def _out(self, space: Space, local: str, value: Any, options: CacheOptions) -> Any:
        """Return what a caller gets of a value that process memory may hold."""
        if options.isolate == SHARE:
            return value
        if options.isolate == COPY:
            return private(value)
        self._marks.handed_out(self._core, local, local[len(space.inner) :], value)
        return value

    # -- reading -------------------------------------------------------------------------------------

    @overload
    def get(self, key: str, /) -> Any: ...

    @overload
    def get(self, key: str, default: Any = None, *, options: CacheOptions | None = None) -> Any: ...

    def get(self, key: str, default: Any = None, *, options: CacheOptions | None = None) -> Any:
        """Return the value of ``key``, or ``default``; ``None`` may be a value."""
        if options is None:
            entry = self._table.get(key)
            if entry is not None and self._now() < entry.soft:
                value = entry.value
                if value is not DEAD:
                    entry.hits += 1
                    return value
            if self._is_plain and self._core.enabled and not self._core.replay_size():
                value = self._get_plain(_text(key))
                if value is not ABSENT:
                    return value
        return run(self._core, self._get(key, default, options))

    def _get_plain(self, key: str) -> Any:
        if len(key) > MAX_KEY:
            return ABSENT
        outer = self._core.space.outer + key
        try:
            return plain_value(self._core, outer, self._core.call("get", outer), self.options)
        except StoreUnavailable:
            return ABSENT  # counted; the long way knows what to answer

    async def aget(self, key: str, default: Any = None, *, options: CacheOptions | None = None) -> Any:
        """Return the value of ``key``, or ``default``; ``None`` may be a value."""
        if options is None:
            entry = self._table.get(key)
            if entry is not None and self._now() < entry.soft:
                value = entry.value
                if value is not DEAD:
                    entry.hits += 1
                    return value
            if self._is_plain and self._core.enabled and not self._core.replay_size():
                value = await self._aget_plain(_text(key))
                if value is not ABSENT:
                    return value
        return await arun(self._core, self._get(key, default, options))

    async def _aget_plain(self, key: str) -> Any:
        if len(key) > MAX_KEY:
            return ABSENT
        outer = self._core.space.outer + key
        try:
            return plain_value(self._core, outer, await self._core.acall("get", outer), self.options)
        except StoreUnavailable:
            return ABSENT  # counted; the long way knows what to answer

    def _get(self, key: str, default: Any, options: CacheOptions | None) -> Steps[Any]:
        chosen, _, space = self._plan(options, None)
        local = space.local(_text(key))
        value = self._hit(local, chosen)
        if value is not DEAD:
            return self._out(space, local, value, chosen)
        if not self._core.enabled:
            return default
        found = yield from read_many(self._core, space, [local], chosen)
        return self._out(space, local, found[local], chosen) if local in found else default

    def get_many(self, keys: Iterable[str], *, options: CacheOptions | None = None) -> dict[str, Any]:
        """Return the values there are, by key; one round trip per node."""
        keys = list(keys)
        if options is None and (found := self._near(keys)) is not None:
            return found
        return run(self._core, self._get_many(keys, options))

    async def aget_many(self, keys: Iterable[str], *, options: CacheOptions | None = None) -> dict[str, Any]:
        """Return the values there are, by key; one round trip per node."""
        keys = list(keys)
        if options is None and (found := self._near(keys)) is not None:
            return found
        return await arun(self._core, self._get_many(keys, options))

    def _near(self, keys: list[str]) -> dict[str, Any] | None:
        """Return the values of all ``keys`` when process memory has every one of them."""
        if not self._table:
            return None
        entries = list(map(self._table.get, keys))
        now = self._now()
        out = {}
        for key, entry in zip(keys, entries, strict=True):
            if entry is None or now >= entry.soft or (value := entry.value) is DEAD:
                return None
            out[key] = value
        for entry in filter(None, entries):
            entry.hits += 1
        return out

    def _get_many(self, keys: list[str], options: CacheOptions | None) -> Steps[dict[str, Any]]:
        chosen, _, space = self._plan(options, None)
        if not self._core.enabled:
            return {}
        out: dict[str, Any] = {}
        missing: dict[str, str] = {}
        for key in keys:
            local = space.local(_text(key))
            value = self._hit(local, chosen)
            if value is DEAD:
                missing[local] = key
            else:
                out[key] = value
        if missing:
            found = yield from read_many(self._core, space, list(missing), chosen)
            out.update((missing[local], value) for local, value in found.items())
        if chosen.isolate != SHARE:
            out = {key: self._out(space, space.local(key), value, chosen) for key, value in out.items()}
        return {key: out[key] for key in keys if key in out} if len(out) > 1 else out

    # -- writing -------------------------------------------------------------------------------------

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> None:
        """Store ``value``; with the second tier away it is not kept, nor will an older one come back.

        Raises:
            SerializationError: The value has a type that would not survive the second tier.
        """
        self.set_many({key: value}, ttl=ttl, tags=tags, options=options)

    async def aset(
        self,
        key: str,
        value: Any,
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> None:
        """Store ``value``; see :meth:`set`."""
        await self.aset_many({key: value}, ttl=ttl, tags=tags, options=options)

    def set_many(
        self,
        items: Mapping[str, Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> None:
        """Store several values; one round trip per node."""
        run(self._core, self._set_many(items, ttl, tags, options))

    async def aset_many(
        self,
        items: Mapping[str, Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> None:
        """Store several values; one round trip per node."""
        await arun(self._core, self._set_many(items, ttl, tags, options))

    def _set_many(
        self,
        items: Mapping[str, Any],
        ttl: Duration | None,
        tags: Sequence[str],
        options: CacheOptions | None,
    ) -> Steps[None]:
        chosen, life, space = self._plan(options, ttl)
        tags = _tag_list(tags)
        if items and self._core.enabled:
            locals_ = {space.local(_text(key)): value for key, value in items.items()}
            if chosen.isolate == COPY:
                locals_ = {local: private(value) for local, value in locals_.items()}
            yield from write_many(self._core, space, locals_, life, tags, chosen)
            if chosen.isolate != SHARE:
                for local, value in locals_.items():
                    self._out(space, local, value, chosen)

    def touch(self, key: str, *, ttl: Duration | None = None, namespace: str | None = None) -> bool:
        """Give an entry a new life; tell whether it was there."""
        return run(self._core, self._touch(key, ttl, namespace))

    async def atouch(self, key: str, *, ttl: Duration | None = None, namespace: str | None = None) -> bool:
        """Give an entry a new life; tell whether it was there."""
        return await arun(self._core, self._touch(key, ttl, namespace))

    def _touch(self, key: str, ttl: Duration | None, namespace: str | None) -> Steps[bool]:
        chosen, life, space = self._plan(None, ttl, namespace)
        local = space.local(_text(key))
        return (yield from patterns.touch(self._core, space, local, life, chosen))

    def delete(self, *keys: str, namespace: str | None = None) -> int:
        """Delete keys in both tiers and in every process; return how many there were."""
        return run(self._core, self._remove(keys, None, namespace))

    async def adelete(self, *keys: str, namespace: str | None = None) -> int:
        """Delete keys in both tiers and in every process; return how many there were."""
        return await arun(self._core, self._remove(keys, None, namespace))

    def invalidate(self, *keys: str, settle: Duration | None = None, namespace: str | None = None) -> int:
        """Drop keys everywhere; a load that began before is never stored after.

        Args:
            keys: What changed.
            settle: For how long loads of these keys are used but not stored, for hosts whose loaders read a
                replica that lags behind.
            namespace: Overrides the manager's.

        Returns:
            How many entries there were.
        """
        return run(self._core, self._remove(keys, settle, namespace))

    async def ainvalidate(
        self, *keys: str, settle: Duration | None = None, namespace: str | None = None
    ) -> int:
        """Drop keys everywhere; see :meth:`invalidate`."""
        return await arun(self._core, self._remove(keys, settle, namespace))

    def _remove(self, keys: Sequence[str], settle: Duration | None, namespace: str | None) -> Steps[int]:
        _, _, space = self._plan(None, None, namespace)
        pause = 0.0 if settle is None else seconds(settle, name="settle")
        if not keys:
            return 0
        locals_ = [space.local(_text(key)) for key in keys]
        return (yield from remove_many(self._core, space, locals_, pause))

    def invalidate_tags(
        self, *tags: str, settle: Duration | None = None, namespace: str | None = None
    ) -> None:
        """Drop every entry that carries one of ``tags``: one write per tag, however many entries."""
        run(self._core, self._remove_tags(tags, settle, namespace))

    async def ainvalidate_tags(
        self, *tags: str, settle: Duration | None = None, namespace: str | None = None
    ) -> None:
        """Drop every entry that carries one of ``tags``."""
        await arun(self._core, self._remove_tags(tags, settle, namespace))

    def _remove_tags(
        self, tags: Sequence[str], settle: Duration | None, namespace: str | None
    ) -> Steps[None]:
        _, _, space = self._plan(None, None, namespace)
        pause = 0.0 if settle is None else seconds(settle, name="settle")
        if tags:
            yield from remove_tags(self._core, space, _tag_list(tags), pause)

    def invalidate_pattern(self, pattern: str, *, dry_run: bool = False, namespace: str | None = None) -> int:
        """Drop every key that matches a glob (``*``, ``?``, ``[ab]``); quote user input with ``escape``.

        Cost is linear in the keys of the server; prefer tags. Keys stored while the scan runs may survive.

        Returns:
            How many entries there were.
        """
        return run(self._core, self._remove_pattern(pattern, dry_run, namespace))

    async def ainvalidate_pattern(
        self, pattern: str, *, dry_run: bool = False, namespace: str | None = None
    ) -> int:
        """Drop every key that matches a glob; see :meth:`invalidate_pattern`."""
        return await arun(self._core, self._remove_pattern(pattern, dry_run, namespace))

    def _remove_pattern(self, pattern: str, dry_run: bool, namespace: str | None) -> Steps[int]:
        _, _, space = self._plan(None, None, namespace)
        return (yield from patterns.remove(self._core, space, _text(pattern), dry_run))

    def clear(self, *, namespace: str | None = None) -> int:
        """Empty this namespace, and only this; return how many entries there were."""
        return self.invalidate_pattern("*", namespace=namespace)

    async def aclear(self, *, namespace: str | None = None) -> int:
        """Empty this namespace, and only this."""
        return await self.ainvalidate_pattern("*", namespace=namespace)

    def counter(self, name: str, *, ttl: Duration | None = None) -> Counter:
        """Return a counter: atomic in the second tier, never held in process memory."""
        return Counter(self, _text(name), None if ttl is None else seconds(ttl, name="ttl", forever=True))

    # -- loading -------------------------------------------------------------------------------------

    def get_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T:
        """Return the value of ``key``, loading and storing it when there is none.

        Concurrent callers of one key, in threads, tasks and other processes, cause one load. The loader's
        error reaches everyone who waited for that load, and is not remembered.

        Raises:
            LoadTimeout: ``hard_timeout`` went by.
        """
        if options is None:
            entry = self._table.get(key)
            if entry is not None and self._now() < entry.soft:
                value = entry.value
                if value is not DEAD:
                    entry.hits += 1
                    return cast("T", value)
        return cast("T", run(self._core, self._load(key, loader, ttl, tags, options, False)))

    @overload
    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    @overload
    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> Any:
        """Return the value of ``key``, awaiting the loader when there is none; see :meth:`get_or_load`."""
        if options is None:
            entry = self._table.get(key)
            if entry is not None and self._now() < entry.soft:
                value = entry.value
                if value is not DEAD:
                    entry.hits += 1
                    return value
        return await arun(self._core, self._load(key, loader, ttl, tags, options, False))

    def refresh(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T:
        """Load now and store, whatever is there."""
        return cast("T", run(self._core, self._load(key, loader, ttl, tags, options, True)))

    @overload
    async def arefresh(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    @overload
    async def arefresh(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    async def arefresh(
        self,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Duration | None = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> Any:
        """Load now and store, whatever is there."""
        return await arun(self._core, self._load(key, loader, ttl, tags, options, True))

    def _load(
        self,
        key: str,
        loader: Callable[[], Any],
        ttl: Duration | None,
        tags: Tags,
        options: CacheOptions | None,
        refresh: bool,
    ) -> Steps[Any]:
        chosen, life, space = self._plan(options, ttl)
        local = space.local(_text(key))
        if not refresh:
            value = self._hit(local, chosen)
            if value is not DEAD:
                return self._out(space, local, value, chosen)
        known = tags if callable(tags) else _tag_list(tags)
        job = Job(space, local, loader, life, known, chosen, refresh)
        if not self._core.enabled:
            return (yield from bulk.load_only(self._core, loader))
        return self._out(space, local, (yield from get_or_load(self._core, job)), chosen)

    def get_or_load_many(
        self,
        keys: Iterable[str],
        bulk_loader: Callable[[list[str]], Mapping[str, T]],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> dict[str, T]:
        """Return the values of several keys, with one ``bulk_loader`` call for all that nobody has.

        The loader gets the missing keys and returns a mapping; keys it leaves out are absent from the result.
        """
        return run(self._core, self._load_many(list(keys), bulk_loader, ttl, tags, options))

    async def aget_or_load_many(
        self,
        keys: Iterable[str],
        bulk_loader: Callable[[list[str]], Awaitable[Mapping[str, T]] | Mapping[str, T]],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> dict[str, T]:
        """Return the values of several keys; see :meth:`get_or_load_many`."""
        return await arun(self._core, self._load_many(list(keys), bulk_loader, ttl, tags, options))

    def _load_many(
        self,
        keys: list[str],
        loader: Any,
        ttl: Duration | None,
        tags: Sequence[str],
        options: CacheOptions | None,
    ) -> Steps[dict[str, Any]]:
        chosen, life, space = self._plan(options, ttl)
        if not self._core.enabled:
            return dict((yield from bulk.load_only(self._core, lambda: loader(keys))))
        locals_ = {space.local(_text(key)): key for key in keys}
        out: dict[str, Any] = {}
        missing = []
        for local in locals_:
            value = self._hit(local, chosen)
            if value is DEAD:
                missing.append(local)
            else:
                out[local] = value
        if missing:
            batch = bulk.Batch(space, locals_, loader, life, _tag_list(tags), chosen)
            out.update((yield from bulk.get_or_load_many(self._core, batch, missing)))
        if chosen.isolate != SHARE:
            out = {local: self._out(space, local, value, chosen) for local, value in out.items()}
        return {key: out[local] for local, key in locals_.items() if local in out}

    # -- decorating ----------------------------------------------------------------------------------

    @overload
    def cached(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedCoroutine[P, R]: ...

    @overload
    def cached(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...

    @overload
    def cached(
        self,
        /,
        *,
        ttl: Duration | None = None,
        key: str | Callable[..., str] | None = None,
        tags: Sequence[str] | Callable[[Any], Sequence[str]] = (),
        self_key: str | Callable[[Any], Any] | None = None,
        namespace: str | None = None,
        options: CacheOptions | None = None,
    ) -> Decorate: ...

    def cached(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        ttl: Duration | None = None,
        key: str | Callable[..., str] | None = None,
        tags: Sequence[str] | Callable[[Any], Sequence[str]] = (),
        self_key: str | Callable[[Any], Any] | None = None,
        namespace: str | None = None,
        options: CacheOptions | None = None,
    ) -> Any:
        """Remember the results of a function, coroutine function or method; the signature stays.

        Args:
            function: Set when used without parentheses.
            ttl: Life of a result.
            key: A template over the parameters (``"event:{event_id}"``) or a function of the arguments;
                unset means module, qualified name and bound arguments. Arguments that compare equal share an
                entry.
            tags: Templates over the parameters, or a function of the result.
            self_key: For methods without ``key``: the attribute, or function, that identifies the object.
            namespace: Overrides the manager's.
            options: Everything else; the arguments above win over it.

        Raises:
            UnstableKey: A method without ``key`` or ``self_key``; at a call, an argument without stable text.

        >>> cache = CacheManager()
        >>> @cache.cached(ttl="1m", key="square:{n}")
        ... def square(n: int) -> int:
        ...     return n * n
        >>> square(4), square.key(4)
        (16, 'square:4')
        """
        return decorate(lambda: self, function, ttl, key, tags, self_key, namespace, options)

    def alias(self, key: str, table: dict[Any, Any], at: Any, options: CacheOptions) -> None:
        """Let a cached function's fast table point at the entry of ``key``; see ``decorator``."""
        core = self._core
        if not core.is_fast or not options.use_l1 or not core.enabled or options.isolate != SHARE:
            return
        space = core.space_of(options.namespace)
        entry = core.peek(space.local(key))
        if entry is None or self._now() >= entry.soft:
            return
        core.l1.alias(entry, table, at)
        if not SWEEPER.watch(core.l1):
            table.pop(at, None)

    # -- warming -------------------------------------------------------------------------------------

    def warmer(
        self,
        name: str,
        *,
        ttl: Duration | None = None,
        after: Sequence[str] = (),
        key: str | None = None,
        tags: Sequence[str] = (),
    ) -> Callable[[Callable[[], T]], Callable[[], T]]:
        """Register a loader that :meth:`warm` runs; its result is stored under ``key`` (default: ``name``).

        Args:
            name: What ``warm`` calls it; a name of :data:`EVENT_PLATFORM` brings its TTL.
            ttl: Life of the value.
            after: Names that must be warm before.
            key: Where it is stored; a loader that returns ``{key: value}`` pairs says ``key="*"``.
            tags: Tags of the value. Pairs whose tag is invalidated while they are loaded are not used; a
                single key of theirs that is invalidated meanwhile may be stored as it was read.
        """
        return self._warmers.register(name, ttl, after, key, tags)

    def warm(self, *names: str, concurrency: int = 8, timeout: Duration | None = None) -> Any:
        """Load the registered data sets (all, or those named) in parallel; one failure stops no other.

        Of several processes that warm at the same time, one loads each data set and the others wait for it.

        Returns:
            A :class:`WarmReport`, one line per data set.
        """
        return self._warmers.warm(names, concurrency, timeout)

    async def awarm(self, *names: str, concurrency: int = 8, timeout: Duration | None = None) -> Any:
        """Load the registered data sets; see :meth:`warm`."""
        return await self._warmers.awarm(names, concurrency, timeout)

    def preset(self, *names: str) -> None:
        """Expect these data sets (default: all of :data:`EVENT_PLATFORM`) before ``is_ready``."""
        self._warmers.expect(names)

    def readiness(self) -> dict[str, Any]:
        """Return what a readiness check may answer: ``ready``, and what became of each data set.

        >>> cache = CacheManager()
        >>> cache.preset("active_events")
        >>> cache.readiness()
        {'ready': False, 'data_sets': {'active_events': 'missing_loader'}}
        """
        return self._warmers.readiness()

    @property
    def is_ready(self) -> bool:
        """Whether every registered or expected data set has been warmed: for the host's readiness check."""
        return self._warmers.is_ready

    # -- life ----------------------------------------------------------------------------------------

    def stats(self) -> CacheStats:
        """Return this process's figures."""
        return patterns.snapshot(self._core)

    def on(self, listener: Callable[[Any], object], *types: type) -> Callable[[], None]:
        """Call ``listener`` with every event (of ``types``); returns a function that ends it."""
        return self._core.hooks.subscribe(listener, *types)

    def enable(self, on: bool = True) -> None:
        """Switch the cache on or off at run time; off, every call loads and nothing is stored."""
        if not on and self._core.l1 is not None:
            self._core.told(None)
        self._core.enabled = on

    def ping(self) -> None:
        """Ask the second tier for a sign of life.

        Raises:
            StoreUnavailable: It gave none.
        """
        if self._core.store is not None:
            self._core.store.ping()

    def close(self) -> None:
        """Close what this manager opened; entries in process memory are dropped."""
        patterns.shut(self._core)
        if self._core.store is not None:
            self._core.store.close()

    async def aclose(self) -> None:
        """Close what this manager opened, the connections of this loop included."""
        patterns.shut(self._core)
        if self._core.store is not None:
            await self._core.store.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class Counter:
    """A number that many processes add to; never held in process memory when there is a second tier."""

    def __init__(self, manager: CacheManager, name: str, ttl_s: float | None) -> None:
        self._core = manager._core
        self._name = name
        self._ttl_s = float("inf") if ttl_s is None else ttl_s

    def incr(self, amount: int = 1) -> int:
        """Add ``amount`` and return the new value; atomic."""
        return run(self._core, self._incr(amount))

    async def aincr(self, amount: int = 1) -> int:
        """Add ``amount`` and return the new value; atomic."""
        return await arun(self._core, self._incr(amount))

    def value(self) -> int:
        """Return the current value."""
        return run(self._core, self._incr(0))

    async def avalue(self) -> int:
        """Return the current value."""
        return await arun(self._core, self._incr(0))

    def _incr(self, amount: int) -> Steps[int]:
        core = self._core
        if core.store is None:
            return patterns.count_here(core, self._name, amount, self._ttl_s)
        key = f"{core.space.tag_prefix[:-2]}c:{self._name}"
        return int((yield call("incr", key, amount, ttl_s=self._ttl_s)))


def decorate(
    manager_of: Callable[[], CacheManager],
    function: Callable[..., Any] | None,
    ttl: Duration | None,
    key: str | Callable[..., str] | None,
    tags: Sequence[str] | Callable[[Any], Sequence[str]],
    self_key: str | Callable[[Any], Any] | None,
    namespace: str | None,
    options: CacheOptions | None,
) -> Any:
    """Make the decorator of ``cached``; bad arguments are refused here, not at the first call."""
    life = None if ttl is None else seconds(ttl, name="ttl", forever=True)
    overrides = {"ttl": life, "namespace": namespace}

    def apply(target: Callable[..., Any]) -> Any:
        if isinstance(target, (staticmethod, classmethod)):
            kind = type(target).__name__
            raise ConfigurationError("function", kind, f"the function itself: put @{kind} above @cached")
        if not callable(target):
            raise ConfigurationError("function", target, "a function; name the options: cached(ttl=60)")
        return wrap(manager_of, target, Recipe(target, key, tags, self_key), options, overrides)

    return as_decorate(apply) if function is None else apply(function)


def open_store(url: Any) -> Any:
    """Return the second tier of a URL or the store object itself; ``None`` for process memory."""
    if url is None or (not isinstance(url, str) and hasattr(url, "get_many")):
        return url
    if not isinstance(url, str):
        raise ConfigurationError("url", url, "a URL such as redis://host:6379/0, or a store")
    scheme = parse_url(url).scheme
    return None if scheme == "memory" else BACKENDS.resolve(scheme)(url)


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise ConfigurationError("key", key, "a text")
    return key


def _tag_list(tags: Sequence[str]) -> list[str]:
    if isinstance(tags, str):
        raise ConfigurationError("tags", tags, "a list of texts, such as ['event:42']")
    return list(dict.fromkeys(_text(tag).replace("\x00", "%00").replace("\x01", "%01") for tag in tags))
