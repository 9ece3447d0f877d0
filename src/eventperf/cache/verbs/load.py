"""The loading verbs of a CacheManager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from eventperf.cache.checks import check_call, check_list, check_loaded
from eventperf.cache.engine.effects import Steps, arun, run
from eventperf.cache.engine.job import Batch, Job
from eventperf.cache.engine.load_many import get_or_load_many, load_only
from eventperf.cache.engine.load_one import get_or_load
from eventperf.cache.entry import DEAD
from eventperf.cache.following import aside, used, wants_reads
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.transactions import DIRTY, inside, watch
from eventperf.cache.values.isolation import SHARE

from .base import Life, Tags, Verbs, check_options, no_text, tags_of, text_of, value_tags

T = TypeVar("T")


class LoadVerbs(Verbs):
    """``get_or_load``, ``refresh`` and ``get_or_load_many``."""

    def get_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T:
        """Return the value of ``key``, loading and storing it when there is none.

        Concurrent callers of one key, in threads, tasks and other processes, cause one load. The loader's
        error reaches everyone who waited for that load, and is not remembered. ``ttl`` may be a function of
        the result; ``None`` or 0 from it keeps nothing.

        Raises:
            LoadTimeout: ``hard_timeout`` went by.
        """
        if options is None and not (DIRTY and aside()):
            try:
                entry = self._table.get(key)
            except TypeError:  # it cannot be hashed, so it is no text
                raise no_text(key) from None
            if entry is not None and self._now() < entry.soft:
                value = entry.value
                if value is not DEAD:
                    self._core.counts.l1_hits += 1
                    if entry.hits < 3:
                        entry.hits += 1
                    return cast("T", value)
        return cast("T", run(self._load(key, loader, ttl, tags, options, False)))

    @overload
    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    @overload
    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> Any:
        """Return the value of ``key``, awaiting the loader when there is none; see :meth:`get_or_load`."""
        if options is None and not (DIRTY and aside()):
            try:
                entry = self._table.get(key)
            except TypeError:  # it cannot be hashed, so it is no text
                raise no_text(key) from None
            if entry is not None and self._now() < entry.soft:
                value = entry.value
                if value is not DEAD:
                    self._core.counts.l1_hits += 1
                    if entry.hits < 3:
                        entry.hits += 1
                    return value
        return await arun(self._load(key, loader, ttl, tags, options, False))

    def refresh(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T:
        """Load now and store, whatever is there."""
        return cast("T", run(self._load(key, loader, ttl, tags, options, True)))

    @overload
    async def arefresh(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    @overload
    async def arefresh(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> T: ...

    async def arefresh(
        self,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Life = None,
        tags: Tags = (),
        options: CacheOptions | None = None,
    ) -> Any:
        """Load now and store, whatever is there."""
        return await arun(self._load(key, loader, ttl, tags, options, True))

    def _plan_load(self, options: CacheOptions | None, ttl: Life) -> tuple[CacheOptions, float, Space]:
        if not callable(ttl):
            return self._plan(options, ttl)
        return self._plan((self.options if options is None else check_options(options)).but(ttl_of=ttl), None)

    def _load(
        self,
        key: str,
        loader: Callable[[], Any],
        ttl: Life,
        tags: Tags,
        options: CacheOptions | None,
        refresh: bool,
    ) -> Steps[Any]:
        chosen, life, space = self._plan_load(options, ttl)
        local = space.local(text_of(key))
        check_call(loader, argument="loader", allowed="a function without arguments")
        watch()
        if DIRTY and chosen.guard_transactions and inside():
            tags_of(tags)
            return (yield from load_only(self._core, loader))
        if not refresh:
            value = self._hit(local, chosen)
            if value is not DEAD:
                if DIRTY and wants_reads():
                    used(self._tags_here(space, local))
                return self._out(space, local, value, chosen)
        job = Job(space, local, loader, life, tags_of(tags), chosen, refresh)
        if not self._core.enabled:
            return (yield from load_only(self._core, loader))
        value = yield from get_or_load(self._core, job)
        if DIRTY and wants_reads():
            used(self._tags_here(space, local))
        return self._out(space, local, value, chosen)

    def _tags_here(self, space: Space, local: str) -> list[str] | None:
        """Return the tags of what process memory holds, as this manager's loads may have them too."""
        entry = self._core.peek(local)
        if entry is None or entry.key is None or space is not self._core.space:
            return None
        return list(entry.meta.tags) if entry.meta is not None else []

    def get_or_load_many(
        self,
        keys: Iterable[str],
        bulk_loader: Callable[[list[str]], Mapping[str, T]],
        *,
        ttl: Life = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> dict[str, T]:
        """Return the values of several keys, with one ``bulk_loader`` call for all that nobody has.

        The loader gets the missing keys and returns a mapping; keys it leaves out are absent from the result.
        """
        return run(self._load_many(keys, bulk_loader, ttl, tags, options))

    async def aget_or_load_many(
        self,
        keys: Iterable[str],
        bulk_loader: Callable[[list[str]], Awaitable[Mapping[str, T]] | Mapping[str, T]],
        *,
        ttl: Life = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> dict[str, T]:
        """Return the values of several keys; see :meth:`get_or_load_many`."""
        return await arun(self._load_many(keys, bulk_loader, ttl, tags, options))

    def _load_many(
        self,
        keys: Iterable[str],
        loader: Any,
        ttl: Life,
        tags: Sequence[str],
        options: CacheOptions | None,
    ) -> Steps[dict[str, Any]]:
        chosen, life, space = self._plan_load(options, ttl)
        names = [text_of(key) for key in check_list(keys, argument="keys", of="texts")]
        check_call(loader, argument="bulk_loader", allowed="a function of a list of keys")
        listed = value_tags(tags)
        watch()
        if not self._core.enabled or (DIRTY and chosen.guard_transactions and inside()):
            loaded = yield from load_only(self._core, lambda: loader(names))
            return dict(check_loaded(loaded))
        locals_ = {space.local(key): key for key in names}
        out: dict[str, Any] = {}
        missing = []
        for local in locals_:
            value = self._hit(local, chosen)
            if value is DEAD:
                missing.append(local)
            else:
                out[local] = value
        if missing:
            batch = Batch(space, locals_, loader, life, listed, chosen)
            out.update((yield from get_or_load_many(self._core, batch, missing)))
        if chosen.isolate != SHARE:
            out = {local: self._out(space, local, value, chosen) for local, value in out.items()}
        return {key: out[local] for local, key in locals_.items() if local in out}
