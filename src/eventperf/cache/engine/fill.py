"""Filling many keys from one loader that says itself which: the pairs of a warm-up."""

from __future__ import annotations

from typing import Any, Final

from eventperf._core.flights import VALUE
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.policy import lifetime, tag_settles

from .effects import Steps, ask, load
from .fences import Guard
from .job import Batch
from .look import outer_of, tag_versions
from .state import Core
from .tier import Tier
from .write import owe, pack, tell

CHUNK: Final = 500


def fill(core: Core, batch: Batch, name: str) -> Steps[int]:
    """Load pairs and keep them with the versions that their tags had before the load; return how many.

    Args:
        core: The cache.
        batch: The loader (its argument is an empty list), life, tags and options.
        name: What stands for the load among those under way.
    """
    u = core.random.random() if batch.options.jitter_ratio else 0.0
    life = lifetime(batch.options, batch.ttl_s, u)
    inner = batch.inner_tags
    flight, _ = core.flights.join(name, inner)
    try:
        versions: dict[str, str] = {}
        since = core.wall()
        if core.tier is not None and batch.tags:
            since = yield from core.clocks.server_s(batch.space.outer)
            versions = yield from tag_versions(core, core.tier, batch.space, batch.tags, create_for_s=life[1])
        pairs = dict((yield from load(core.flights, lambda: batch.loader([]), (flight,))))
        items = {batch.space.local(key): value for key, value in pairs.items()}
        settles = core.fences.is_settling(name, inner) or any(
            tag_settles(version, since) for version in versions.values()
        )
        if settles or len(versions) < (len(batch.tags) if core.tier is not None else 0):
            core.counts.refused += len(items)
        elif core.tier is None:
            core.flights.fence(*items)
            for local, value in items.items():
                core.hold(local, value, *life, inner, 0.0, Guard(flight=flight))
            core.counts.stores += len(items)
        else:
            yield from _store(core, core.tier, batch, items, life, versions)
            core.counts.stores += len(items)
        return len(items)
    finally:
        core.flights.land(flight, VALUE)


def _store(
    core: Core,
    tier: Tier,
    batch: Batch,
    items: dict[str, Any],
    life: tuple[float, float],
    versions: dict[str, str],
) -> Steps[None]:
    soft, hard = life
    yield from core.clocks.learn(batch.space.outer)
    named = [(outer_of(batch.space, local), value) for local, value in items.items()]
    blobs = [
        (outer, pack(core, outer, value, soft, hard, batch.options, tags=versions), hard)
        for outer, value in named
    ]
    core.drop_keys(list(items))
    for start in range(0, len(blobs), CHUNK):
        part = blobs[start : start + CHUNK]
        outers = [outer for outer, _, _ in part]
        try:
            yield from ask(tier.set_many, part)
            yield from tell(core, tier, outers)
        except StoreUnavailable:
            owe(core, keys=outers)  # an older value may be there
            raise
    core.drop_keys(list(items))
