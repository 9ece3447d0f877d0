"""The reading verbs of a CacheManager."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

from eventperf._core.errors import ConfigurationError
from eventperf.cache.checks import check_list
from eventperf.cache.engine.effects import Steps, arun, ask, run
from eventperf.cache.engine.look import ABSENT, look, plain_value, read_many
from eventperf.cache.engine.write import local_matcher
from eventperf.cache.entry import DEAD
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.keys import escape, is_odd
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import is_fresh
from eventperf.cache.values.isolation import SHARE

from .base import Verbs, no_text, text_of


class ReadVerbs(Verbs):
    """``get`` and ``get_many``, for threads and for tasks."""

    @overload
    def get(self, key: str, /) -> Any: ...

    @overload
    def get(self, key: str, default: Any = None, *, options: CacheOptions | None = None) -> Any: ...

    def get(self, key: str, default: Any = None, *, options: CacheOptions | None = None) -> Any:
        """Return the value of ``key``, or ``default``; ``None`` may be a value."""
        if options is None:
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
            if self._is_plain and self._core.enabled and not self._core.replay_size():
                value = self._get_plain(text_of(key))
                if value is not ABSENT:
                    return value
        return run(self._get(key, default, options))

    def _get_plain(self, key: str) -> Any:
        if is_odd(key):
            return ABSENT
        tier, outer = self._core.tier, self._core.space.outer + key
        assert tier is not None
        try:
            return plain_value(self._core, outer, tier.get.plain(outer), self.options)
        except StoreUnavailable:
            return ABSENT  # counted; the long way knows what to answer

    async def aget(self, key: str, default: Any = None, *, options: CacheOptions | None = None) -> Any:
        """Return the value of ``key``, or ``default``; ``None`` may be a value."""
        if options is None:
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
            if self._is_plain and self._core.enabled and not self._core.replay_size():
                value = await self._aget_plain(text_of(key))
                if value is not ABSENT:
                    return value
        return await arun(self._get(key, default, options))

    async def _aget_plain(self, key: str) -> Any:
        if is_odd(key):
            return ABSENT
        tier, outer = self._core.tier, self._core.space.outer + key
        assert tier is not None
        try:
            return plain_value(self._core, outer, await tier.get.task(outer), self.options)
        except StoreUnavailable:
            return ABSENT  # counted; the long way knows what to answer

    def _get(self, key: str, default: Any, options: CacheOptions | None) -> Steps[Any]:
        chosen, _, space = self._plan(options, None)
        local = space.local(text_of(key))
        value = self._hit(local, chosen)
        if value is not DEAD:
            return self._out(space, local, value, chosen)
        if not self._core.enabled:
            return default
        found = yield from read_many(self._core, space, [local], chosen)
        return self._out(space, local, found[local], chosen) if local in found else default

    def get_many(self, keys: Iterable[str], *, options: CacheOptions | None = None) -> dict[str, Any]:
        """Return the values there are, by key; one round trip per node."""
        keys = check_list(keys, argument="keys", of="texts")
        if options is None and (found := self._near(keys)) is not None:
            return found
        return run(self._get_many(keys, options))

    async def aget_many(self, keys: Iterable[str], *, options: CacheOptions | None = None) -> dict[str, Any]:
        """Return the values there are, by key; one round trip per node."""
        keys = check_list(keys, argument="keys", of="texts")
        if options is None and (found := self._near(keys)) is not None:
            return found
        return await arun(self._get_many(keys, options))

    def exists(self, key: str, *, namespace: str | None = None) -> bool:
        """Tell whether ``key`` has a value that :meth:`get` would return."""
        return run(self._left(key, namespace, True)) is not None

    async def aexists(self, key: str, *, namespace: str | None = None) -> bool:
        """Tell whether ``key`` has a value; see :meth:`exists`."""
        return await arun(self._left(key, namespace, True)) is not None

    def ttl(self, key: str, *, namespace: str | None = None) -> float | None:
        """Return for how many seconds the value of ``key`` is fresh: ``inf`` for ever, ``None`` without one.

        With a second tier it is the end there that counts, not the one of the copy in process memory.
        """
        return run(self._left(key, namespace, False))

    async def attl(self, key: str, *, namespace: str | None = None) -> float | None:
        """Return for how many seconds the value of ``key`` is fresh; see :meth:`ttl`."""
        return await arun(self._left(key, namespace, False))

    def _left(self, key: str, namespace: str | None, any_will_do: bool) -> Steps[float | None]:
        core = self._core
        chosen, _, space = self._plan(None, None, namespace)
        local = space.local(text_of(key))
        if not core.enabled:
            return None
        entry = core.peek(local) if any_will_do or core.tier is None else None
        if entry is not None and entry.key is not None and is_fresh(entry.soft, self._now()):
            return entry.soft - self._now()
        if core.tier is None:
            return None
        found = (yield from look(core, core.tier, space, [local], chosen))[local].found
        return found.soft_s if found is not None and found.is_fresh else None

    def keys(self, pattern: str = "*", *, namespace: str | None = None) -> list[str]:
        """Return the keys that match a glob, in no order; quote user input with ``escape``.

        Cost is linear in the keys of the server: for tools and tests. Entries whose tag was invalidated may
        be named until their end, keys written meanwhile may be missing, and of a key over 512 characters it
        is what is kept: its beginning and a digest.

        Raises:
            ConfigurationError: The second tier cannot list its keys.
            StoreUnavailable: It did not answer.
        """
        return run(self._keys(pattern, namespace))

    async def akeys(self, pattern: str = "*", *, namespace: str | None = None) -> list[str]:
        """Return the keys that match a glob; see :meth:`keys`."""
        return await arun(self._keys(pattern, namespace))

    def _keys(self, pattern: str, namespace: str | None) -> Steps[list[str]]:
        core, space = self._core, self._plan(None, None, namespace)[2]
        text_of(pattern, "pattern")
        if not core.enabled:
            return []
        tier = core.tier
        if tier is None:
            matches, now = local_matcher(space, pattern), self._now()
            held = core.l1.keys() if core.l1 is not None else []
            found = [(key, core.peek(key)) for key in held if matches(key)]
            return [key[len(space.inner) :] for key, at in found if at is not None and is_fresh(at.soft, now)]
        if tier.keys is None:
            raise ConfigurationError("store", core.store, "one with SupportsKeys, such as RedisStore")
        outers = yield from ask(tier.keys, escape(space.outer) + pattern)
        return [outer[len(space.outer) :] for outer in outers if not core.is_dirty(outer)]

    def _near(self, keys: list[str]) -> dict[str, Any] | None:
        """Return the values of all ``keys`` when process memory has every one of them."""
        if not self._table:
            return None
        try:
            entries = list(map(self._table.get, keys))
        except TypeError:  # one of them is no text: the long way names it
            return None
        now = self._now()
        out = {}
        for key, entry in zip(keys, entries, strict=True):
            if entry is None or now >= entry.soft or (value := entry.value) is DEAD:
                return None
            out[key] = value
        self._core.counts.l1_hits += len(keys)
        for entry in filter(None, entries):
            if entry.hits < 3:
                entry.hits += 1
        return out

    def _get_many(self, keys: list[str], options: CacheOptions | None) -> Steps[dict[str, Any]]:
        chosen, _, space = self._plan(options, None)
        if not self._core.enabled:
            return {}
        out: dict[str, Any] = {}
        missing: dict[str, str] = {}
        for key in keys:
            local = space.local(text_of(key))
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
