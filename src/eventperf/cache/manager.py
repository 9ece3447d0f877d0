"""CacheManager: the verbs, for threads and for tasks."""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload
from weakref import WeakMethod

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf._core.events import Hooks
from eventperf._core.urls import Registry, parse_url

from .backends.local.memory import MemoryStore
from .backends.local.sweeper import SWEEPER
from .checks import check_bool, check_call, check_life
from .decorating.cached import wrap
from .decorating.faces import CachedCoroutine, CachedFunction, Decorate, as_decorate
from .decorating.recipe import Recipe
from .engine.state import Core
from .following import followed
from .keys import Space
from .options import COHERENCE, OPTION_NAMES, CacheOptions, MoreOptions, check_serializer
from .policy import is_fresh
from .protocols import AsyncCacheStore, CacheStore, LocalStore, Serializer
from .transactions import watch
from .values import serializers
from .values.isolation import SHARE, Marks
from .verbs.base import Follows, Life
from .verbs.facts import FactVerbs
from .verbs.load import LoadVerbs
from .verbs.lock import LockVerbs
from .verbs.read import ReadVerbs
from .verbs.write import WriteVerbs
from .warming import Warmers

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import ParamSpec, Self, Unpack

    P = ParamSpec("P")

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

DEFAULT: Final[Any] = object()
BACKENDS: Final = Registry(
    "cache",
    {
        "memory": "",
        "redis": "eventperf.cache.backends.redis.store:RedisStore",
        "rediss": "eventperf.cache.backends.redis.store:RedisStore",
        "unix": "eventperf.cache.backends.redis.store:RedisStore",
        "redis+cluster": "eventperf.cache.backends.redis.store:RedisStore",
        "rediss+cluster": "eventperf.cache.backends.redis.store:RedisStore",
        "redis+sentinel": "eventperf.cache.backends.redis.store:RedisStore",
        "rediss+sentinel": "eventperf.cache.backends.redis.store:RedisStore",
    },
)


class CacheManager(ReadVerbs, WriteVerbs, LoadVerbs, LockVerbs, FactVerbs):
    """A cache in process memory, with a second tier shared by processes when it is given a URL.

    Threads and tasks of any loop may use one manager at once. Nothing is opened before the first use; the
    manager may be made before a fork.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+cluster://h1:7000,h2:7001``,
            ``redis+sentinel://h1:26379,h2:26379/SERVICE``, ``memory://``, or a store object;
            ``None`` keeps to process memory.
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
        timeout: How long the second tier may be silent before it counts as away: ``"auto"`` (the default)
            follows the measured round trips, between 50 ms and 1 s. With a store object it is the store's.

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
        timeout: Duration | str | None = None,
    ) -> None:
        if not isinstance(coherence, str) or coherence not in COHERENCE:
            raise ConfigurationError("coherence", coherence, [repr(c) for c in COHERENCE])
        if options is not None and not isinstance(options, CacheOptions):
            raise ConfigurationError("options", options, "a CacheOptions")
        self.options: CacheOptions = (options or CacheOptions()).but(ttl=ttl)
        if clock is not None and not all(
            callable(getattr(clock, reading, None)) for reading in ("time", "monotonic")
        ):
            raise ConfigurationError("clock", clock, "an object with time() and monotonic()")
        if random is not None and not isinstance(random, _random.Random):
            raise ConfigurationError("random", random, "a random.Random")
        space = Space(namespace)
        check_serializer(serializer)
        watch()
        store = open_store(url, timeout)
        if l1 is DEFAULT:
            l1 = MemoryStore()
        elif l1 is not None and not isinstance(l1, LocalStore):
            raise ConfigurationError("l1", l1, "a MemoryStore, a CachetoolsStore or None")
        codec = serializers.make(serializer or self.options.serializer) if store or serializer else None
        self._core = Core(
            space=space,
            options=self.options,
            l1=l1,
            store=store,
            serializer=codec,
            coherence=coherence,
            clock=clock or SystemClock(),
            random=random or _random.Random(),
        )
        if self._core.fleet is not None:
            self._core.fleet.figures = WeakMethod(self._figures)
        self.options = self.settled(self.options)
        shares = self.options.isolate == SHARE
        tables = self._core.tables
        self._table: dict[str, Any] = tables.table if tables is not None and shares else {}
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
        ttl: Life = None,
        key: str | Callable[..., str] | None = None,
        tags: Sequence[str] | Callable[[Any], Sequence[str]] = (),
        self_key: str | Callable[[Any], Any] | None = None,
        follows: Follows = (),
        namespace: str | None = None,
        options: CacheOptions | None = None,
        **more: Unpack[MoreOptions],
    ) -> Decorate: ...

    def cached(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        ttl: Life = None,
        key: str | Callable[..., str] | None = None,
        tags: Sequence[str] | Callable[[Any], Sequence[str]] = (),
        self_key: str | Callable[[Any], Any] | None = None,
        follows: Follows = (),
        namespace: str | None = None,
        options: CacheOptions | None = None,
        **more: Unpack[MoreOptions],
    ) -> Any:
        """Remember the results of a function, coroutine function or method; the signature stays.

        Args:
            function: Set when used without parentheses.
            ttl: Life of a result, or a function of the result that tells it (``None`` or 0: not kept).
            key: A template over the parameters (``"event:{event_id}"``) or a function of the arguments;
                unset means module, qualified name and bound arguments. Arguments that compare equal share an
                entry.
            tags: Templates over the parameters, or a function of the result.
            self_key: For methods without ``key``: the attribute, or function, that identifies the object.
            follows: Models or tables that the result is made of, or ``"auto"`` for those that its loader
                reads: a commit that writes to them forgets it, where the database is followed
                (:func:`eventperf.contrib.sqlalchemy.follow`, Django's ``EVENTPERF_FOLLOW``).
            namespace: Overrides the manager's.
            options: Everything else; the arguments above win over it.
            more: Any field of :class:`CacheOptions` by its name, such as ``stale_while_revalidate="30s"``; it
                wins over ``options``.

        Raises:
            UnstableKey: A method without ``key`` or ``self_key``; at a call, an argument without stable text.

        >>> cache = CacheManager()
        >>> @cache.cached(ttl="1m", key="square:{n}")
        ... def square(n: int) -> int:
        ...     return n * n
        >>> square(4), square.key(4)
        (16, 'square:4')
        """
        return decorate(lambda: self, function, ttl, key, tags, self_key, follows, namespace, options, more)

    def alias(self, key: str, table: dict[Any, Any], at: Any, options: CacheOptions) -> None:
        """Let a cached function's fast table point at the entry of ``key``; see ``decorator``."""
        core = self._core
        if not core.is_fast or not options.use_l1 or not core.enabled or options.isolate != SHARE:
            return
        space = core.space_of(options.namespace)
        entry = core.peek(space.local(key))
        if entry is None or not is_fresh(entry.soft, self._now()):
            return
        tables = core.tables
        if tables is None:
            return
        tables.alias(entry, table, at)
        if not SWEEPER.watch(tables):
            table.pop(at, None)

    def count(self, served: Callable[[], int], owner: object) -> None:
        """Add to the figures what a cached function answers from its fast table; see ``decorator``."""
        self._core.tallies.add(served, owner)

    def uncount(self, served: Callable[[], int]) -> None:
        """End that: the function answers for another manager now."""
        self._core.tallies.fold(served)

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

    @property
    def hooks(self) -> Hooks:
        """Subscriptions to events: ``hooks.subscribe(listener, BreakerChanged)`` is what :meth:`on` does."""
        return self._core.hooks

    def on(self, listener: Callable[[Any], object], *types: type) -> Callable[[], None]:
        """Call ``listener`` with every event (of ``types``); returns a function that ends it."""
        check_call(listener, argument="listener", allowed="a function of an event")
        for kind in types:
            if not isinstance(kind, type):
                raise ConfigurationError("types", kind, "classes of events, such as BreakerChanged")
        return self._core.hooks.subscribe(listener, *types)

    def enable(self, on: bool = True) -> None:
        """Switch the cache on or off at run time; off, every call loads and nothing is stored."""
        check_bool(on, argument="on")
        if not on and self._core.l1 is not None:
            self._core.forget_all()
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
        self._core.shut()
        if self._core.store is not None:
            self._core.store.close()

    async def aclose(self) -> None:
        """Close what this manager opened, the connections of this loop included."""
        self._core.shut()
        store = self._core.store
        if isinstance(store, AsyncCacheStore):
            await store.aclose()
        elif store is not None:
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def decorate(
    manager_of: Callable[[], CacheManager],
    function: Callable[..., Any] | None,
    ttl: Life,
    key: str | Callable[..., str] | None,
    tags: Sequence[str] | Callable[[Any], Sequence[str]],
    self_key: str | Callable[[Any], Any] | None,
    follows: Follows,
    namespace: str | None,
    options: CacheOptions | None,
    more: MoreOptions,
) -> Any:
    """Make the decorator of ``cached``; bad arguments are refused here, not at the first call."""
    by_result = ttl if callable(ttl) else None
    life = None if ttl is None or callable(ttl) else check_life(ttl)
    if options is not None and not isinstance(options, CacheOptions):
        raise ConfigurationError("options", options, "a CacheOptions")
    for name in more.keys() - OPTION_NAMES:
        raise ConfigurationError(name, more.get(name), f"options such as {', '.join(OPTION_NAMES)}")
    overrides = {**more, "ttl": life, "namespace": namespace}
    if by_result is not None:
        overrides["ttl_of"] = by_result
    CacheOptions().but(**overrides)
    followed(follows)

    def apply(target: Callable[..., Any]) -> Any:
        if isinstance(target, (staticmethod, classmethod)):
            kind = type(target).__name__
            raise ConfigurationError("function", kind, f"the function itself: put @{kind} above @cached")
        if not callable(target):
            raise ConfigurationError("function", target, "a function; name the options: cached(ttl=60)")
        return wrap(manager_of, target, Recipe(target, key, tags, self_key, follows), options, overrides)

    return as_decorate(apply) if function is None else apply(function)


def open_store(url: Any, timeout: Duration | str | None = None) -> Any:
    """Return the second tier of a URL or the store object itself; ``None`` for process memory."""
    if url is None or isinstance(url, CacheStore):
        if timeout is not None:
            where = "a URL, process memory has none" if url is None else "a URL, a store has its own"
            raise ConfigurationError("timeout", timeout, where)
        return url
    if not isinstance(url, str):
        raise ConfigurationError("url", url, "a URL such as redis://host:6379/0, or a store")
    scheme = parse_url(url).scheme
    if scheme == "memory":
        return None
    return BACKENDS.resolve(scheme)(url, **({} if timeout is None else {"timeout": timeout}))
