"""What a cache tells of itself: figures of this process and of all, one entry, the largest values."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf.cache.engine.effects import Steps, arun, ask, run
from eventperf.cache.engine.figures import snapshot
from eventperf.cache.engine.look import outer_of
from eventperf.cache.engine.sizes import KEPT
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.policy import is_kept
from eventperf.cache.stats import CacheProcess, CacheStats, EntryFacts
from eventperf.cache.values.envelope import unseal

from .base import Verbs, text_of


@cache
def _version() -> str:
    try:
        return version_of("eventperf")
    except PackageNotFoundError:  # carried along without its metadata
        return ""


class FactVerbs(Verbs):
    """Telling, not caching; nothing here costs more the more there is in the cache."""

    def stats(self) -> CacheStats:
        """Return this process's figures."""
        return snapshot(self._core)

    def fleet(self) -> list[CacheProcess]:
        """Return the figures of all processes of this cache, this one first.

        ``CacheStats.summed`` adds them up. Processes tell theirs while somebody looks (one small write each
        in ten seconds), over the channel by which they hear of one another: the first look may see this
        process alone, one a few seconds later sees all that have used the cache. The second tier keeps 500
        of them, for 35 s. Without one, or with one that keeps none, this process is all there is.

        Raises:
            StoreUnavailable: The second tier does not answer, or refuses.
        """
        core = self._core
        fleet = core.fleet
        if fleet is None or core.tier is None:
            here = {"host": socket.gethostname()[:100], "pid": os.getpid(), "began": time.time()}
            alone = CacheProcess.told({**here, **self._figures()}, 0.0, "")
            return [alone] if alone is not None else []
        if fleet.is_due() and core.bus is not None:
            core.ensure_channel()
            core.tier.publish.plain(fleet.word.encode())
        return fleet.look()

    async def afleet(self) -> list[CacheProcess]:
        """Return the figures of all processes; see :meth:`fleet`."""
        return await asyncio.to_thread(self.fleet)

    def _figures(self) -> dict[str, Any]:
        return {"version": _version(), "stats": self.stats().to_dict()}

    def largest(self, most: int = 20) -> list[tuple[str, int]]:
        """Return keys of the largest values that this process stored in the second tier, with their bytes.

        Bounded: the fifty largest are remembered on the way, with the size they had last. Keys of other
        namespaces begin with their own.
        """
        if type(most) is not int or not 1 <= most <= KEPT:
            raise ConfigurationError("most", most, f"1 to {KEPT}")
        own = self._core.space.outer
        return [(outer.removeprefix(own), size) for outer, size in self._core.sizes.top(most)]

    def about(self, key: str, *, namespace: str | None = None) -> EntryFacts | None:
        """Return what is known of the entry of ``key`` without its value; ``None`` where there is none.

        With a second tier it is the entry there, read in one command: one whose tag was invalidated may be
        told of until its end.
        """
        return run(self._about(key, namespace))

    async def aabout(self, key: str, *, namespace: str | None = None) -> EntryFacts | None:
        """Return what is known of the entry of ``key``; see :meth:`about`."""
        return await arun(self._about(key, namespace))

    def _about(self, key: str, namespace: str | None) -> Steps[EntryFacts | None]:
        core = self._core
        _, _, space = self._plan(None, None, namespace)
        local = space.local(text_of(key))
        if core.tier is None:
            entry, now = core.peek(local), self._now()
            if entry is None or entry.key is None or not is_kept(entry.hard, now):
                return None
            tags = entry.meta.tags if entry.meta is not None else ()
            own = tuple(tag.removeprefix(space.inner) for tag in tags)
            return EntryFacts(fresh_s=entry.soft - now, kept_s=entry.hard - now, tags=own)
        try:
            blob = yield from ask(core.tier.get, outer_of(space, local))
        except StoreUnavailable:
            return None
        sealed = unseal(blob) if blob else None
        if blob is None or sealed is None:
            return None
        now = core.wall()
        return EntryFacts(
            fresh_s=sealed.soft - now,
            kept_s=sealed.hard - now,
            age_s=max(0.0, now - sealed.created),
            load_s=sealed.load_s,
            size_bytes=len(blob),
            tags=tuple(sealed.tags),
        )
