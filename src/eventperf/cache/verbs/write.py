"""The writing and invalidating verbs of a CacheManager, and its counters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eventperf._core.durations import Duration
from eventperf.cache.checks import check_amount, check_bool, check_life, check_mapping, check_span
from eventperf.cache.engine.effects import Steps, arun, ask, run
from eventperf.cache.engine.figures import count_here
from eventperf.cache.engine.state import Core
from eventperf.cache.engine.write import (
    add,
    add_number,
    remove_many,
    remove_matching,
    remove_tags,
    touch,
    write_many,
)
from eventperf.cache.errors import CounterOverflow
from eventperf.cache.keys import fit
from eventperf.cache.options import CacheOptions
from eventperf.cache.values.isolation import COPY, SHARE, private
from eventperf.cache.values.single_use import refuse_single_use

from .base import Verbs, tag_list, text_of, value_tags


class WriteVerbs(Verbs):
    """``set``, ``touch``, ``delete``, ``invalidate`` and what belongs to them."""

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
        run(self._set_many(items, ttl, tags, options))

    async def aset_many(
        self,
        items: Mapping[str, Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> None:
        """Store several values; one round trip per node."""
        await arun(self._set_many(items, ttl, tags, options))

    def _set_many(
        self,
        items: Mapping[str, Any],
        ttl: Duration | None,
        tags: Sequence[str],
        options: CacheOptions | None,
    ) -> Steps[None]:
        chosen, life, space = self._plan(options, ttl)
        items = check_mapping(items, argument="items", of="keys and values")
        tags = value_tags(tags)
        for key in items:
            text_of(key)
        if items and self._core.enabled:
            for key, value in items.items():
                refuse_single_use(text_of(key), value)
            locals_ = {space.local(key): value for key, value in items.items()}
            if chosen.isolate == COPY:
                locals_ = {local: private(value) for local, value in locals_.items()}
            yield from write_many(self._core, space, locals_, life, tags, chosen)
            if chosen.isolate != SHARE:
                for local, value in locals_.items():
                    self._out(space, local, value, chosen)

    def add(
        self,
        key: str,
        value: Any,
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> bool:
        """Store ``value`` unless the key has one; tell whether it was stored. One winner among all processes.

        Switched off, the cache stores nothing and everybody wins.

        Raises:
            StoreUnavailable: The second tier did not answer: nobody knows who has won.
        """
        return run(self._add(key, value, ttl, tags, options))

    async def aadd(
        self,
        key: str,
        value: Any,
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        options: CacheOptions | None = None,
    ) -> bool:
        """Store ``value`` unless the key has one; see :meth:`add`."""
        return await arun(self._add(key, value, ttl, tags, options))

    def _add(
        self, key: str, value: Any, ttl: Duration | None, tags: Sequence[str], options: CacheOptions | None
    ) -> Steps[bool]:
        chosen, life, space = self._plan(options, ttl)
        tags = value_tags(tags)
        refuse_single_use(text_of(key), value)
        if not self._core.enabled:
            return True
        local = space.local(key)
        kept = private(value) if chosen.isolate == COPY else value
        return (yield from add(self._core, space, local, kept, life, tags, chosen))

    def touch(self, key: str, *, ttl: Duration | None = None, namespace: str | None = None) -> bool:
        """Give an entry a new life; tell whether it was there."""
        return run(self._touch(key, ttl, namespace))

    async def atouch(self, key: str, *, ttl: Duration | None = None, namespace: str | None = None) -> bool:
        """Give an entry a new life; tell whether it was there."""
        return await arun(self._touch(key, ttl, namespace))

    def _touch(self, key: str, ttl: Duration | None, namespace: str | None) -> Steps[bool]:
        chosen, life, space = self._plan(None, ttl, namespace)
        local = space.local(text_of(key))
        return (yield from touch(self._core, space, local, life, chosen))

    def delete(self, *keys: str, namespace: str | None = None) -> int:
        """Delete keys in both tiers and in every process; return how many there were."""
        return run(self._remove(keys, None, namespace))

    async def adelete(self, *keys: str, namespace: str | None = None) -> int:
        """Delete keys in both tiers and in every process; return how many there were."""
        return await arun(self._remove(keys, None, namespace))

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
        return run(self._remove(keys, settle, namespace))

    async def ainvalidate(
        self, *keys: str, settle: Duration | None = None, namespace: str | None = None
    ) -> int:
        """Drop keys everywhere; see :meth:`invalidate`."""
        return await arun(self._remove(keys, settle, namespace))

    def _remove(self, keys: Sequence[str], settle: Duration | None, namespace: str | None) -> Steps[int]:
        _, _, space = self._plan(None, None, namespace)
        pause = 0.0 if settle is None else check_span(settle, argument="settle")
        if not keys:
            return 0
        locals_ = [space.local(text_of(key)) for key in keys]
        return (yield from remove_many(self._core, space, locals_, pause))

    def invalidate_tags(
        self, *tags: str, settle: Duration | None = None, namespace: str | None = None
    ) -> None:
        """Drop every entry that carries one of ``tags``: one write per tag, however many entries."""
        run(self._remove_tags(tags, settle, namespace))

    async def ainvalidate_tags(
        self, *tags: str, settle: Duration | None = None, namespace: str | None = None
    ) -> None:
        """Drop every entry that carries one of ``tags``."""
        await arun(self._remove_tags(tags, settle, namespace))

    def _remove_tags(
        self, tags: Sequence[str], settle: Duration | None, namespace: str | None
    ) -> Steps[None]:
        _, _, space = self._plan(None, None, namespace)
        pause = 0.0 if settle is None else check_span(settle, argument="settle")
        listed = tag_list(tags)
        if listed:
            yield from remove_tags(self._core, space, listed, pause)

    def invalidate_pattern(self, pattern: str, *, dry_run: bool = False, namespace: str | None = None) -> int:
        """Drop every key that matches a glob (``*``, ``?``, ``[ab]``); quote user input with ``escape``.

        Cost is linear in the keys of the server; prefer tags. Keys stored while the scan runs may survive.

        Returns:
            How many entries there were.
        """
        return run(self._remove_pattern(pattern, dry_run, namespace))

    async def ainvalidate_pattern(
        self, pattern: str, *, dry_run: bool = False, namespace: str | None = None
    ) -> int:
        """Drop every key that matches a glob; see :meth:`invalidate_pattern`."""
        return await arun(self._remove_pattern(pattern, dry_run, namespace))

    def _remove_pattern(self, pattern: str, dry_run: bool, namespace: str | None) -> Steps[int]:
        _, _, space = self._plan(None, None, namespace)
        check_bool(dry_run, argument="dry_run")
        return (yield from remove_matching(self._core, space, text_of(pattern, "pattern"), dry_run))

    def clear(self, *, namespace: str | None = None) -> int:
        """Empty this namespace, and only this; return how many entries there were."""
        return self.invalidate_pattern("*", namespace=namespace)

    async def aclear(self, *, namespace: str | None = None) -> int:
        """Empty this namespace, and only this."""
        return await self.ainvalidate_pattern("*", namespace=namespace)

    def add_to(self, key: str, amount: int | None) -> Added:
        """Add to a stored whole number in the second tier, atomically; its life stays.

        For plug-ins whose serializer writes whole numbers as ``i`` and digits. An amount of ``None`` adds
        nothing and tells what is left of the entry's life.
        """
        return run(self._add_to(key, amount))

    async def aadd_to(self, key: str, amount: int | None) -> Added:
        """Add to a stored whole number; see :meth:`add_to`."""
        return await arun(self._add_to(key, amount))

    def _add_to(self, key: str, amount: int | None) -> Steps[Added]:
        _, _, space = self._plan(None, None)
        local = space.local(text_of(key))
        if amount is not None:
            amount = check_amount(amount)
        state, total, left_ms = yield from add_number(self._core, space, local, amount)
        return Added(state == 1, state == 0, total, left_ms / 1000 if left_ms >= 0 else math.inf)

    def counter(self, name: str, *, ttl: Duration | None = None) -> Counter:
        """Return a counter: atomic in the second tier, never held in process memory."""
        return Counter(self._core, text_of(name, "name"), None if ttl is None else check_life(ttl))


class Added(NamedTuple):
    """What became of an addition.

    Attributes:
        is_done: It was made.
        is_absent: There is no such entry.
        total: The sum.
        left_s: The rest of the entry's life in seconds.
    """

    is_done: bool
    is_absent: bool
    total: int
    left_s: float


class Counter:
    """A number that many processes add to; never held in process memory when there is a second tier."""

    def __init__(self, core: Core, name: str, ttl_s: float | None) -> None:
        self._core = core
        self._name = fit(name)
        self._ttl_s = float("inf") if ttl_s is None else ttl_s

    def incr(self, amount: int = 1) -> int:
        """Add ``amount`` and return the new value; atomic, exact for whole numbers of 64 bits.

        Raises:
            CounterOverflow: The sum has more than 64 bits; the counter stays as it was.
        """
        return run(self._incr(amount))

    async def aincr(self, amount: int = 1) -> int:
        """Add ``amount`` and return the new value; see :meth:`incr`."""
        return await arun(self._incr(amount))

    def value(self) -> int:
        """Return the current value."""
        return run(self._incr(0))

    async def avalue(self) -> int:
        """Return the current value."""
        return await arun(self._incr(0))

    def _incr(self, amount: int) -> Steps[int]:
        core, amount = self._core, check_amount(amount)
        if core.tier is None:
            return count_here(core, self._name, amount, self._ttl_s)
        key = f"{core.space.tag_prefix[:-2]}c:{self._name}"
        try:
            return (yield from ask(core.tier.incr, key, amount, ttl_s=self._ttl_s))
        except CounterOverflow as error:
            raise CounterOverflow(self._name, amount) from error  # by the name that the caller knows
