"""Keeping what was loaded, in both tiers, if nothing that it depends on was invalidated meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from eventperf._core.flights import Flight
from eventperf._core.logs import logger
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import early_by, lifetime, result_ttl, tag_changed_since, tag_settles
from eventperf.cache.stats import NotKept

from .effects import Steps, ask
from .fences import Guard
from .job import Job
from .look import Found, keep_near, tag_versions
from .state import Core
from .tier import Tier
from .write import pack, tell

_log = logger("eventperf.cache")
_said: set[str] = set()
_SAID_MOST = 100


def not_kept(core: Core, key: str, error: Exception) -> None:
    """Say that a loaded value cannot be kept: each cause once."""
    core.counts.refused += 1
    if core.hooks.active:
        core.hooks.emit(NotKept(key, error))
    if len(_said) < _SAID_MOST and str(error) not in _said:
        _said.add(str(error))
        _log.warning("%r is loaded at each call and never kept: %s", key, error)


def life_of(core: Core, options: CacheOptions, ttl_s: float, value: Any) -> tuple[float, float] | None:
    """Return how long a loaded value is fresh and kept; ``None`` when it must not be stored."""
    ttl = result_ttl(options, ttl_s, value)
    if ttl is None:
        return None
    return lifetime(options, ttl, core.random.random() if options.jitter_ratio else 0.0)


def keep_here(
    core: Core,
    job: Job,
    flight: Flight,
    value: Any,
    life: tuple[float, float],
    load_s: float,
    *,
    counts: bool = True,
) -> None:
    """Keep a loaded value in process memory alone."""
    tags = job.inner(job.tags_for(value))
    if core.fences.is_settling(job.local, tags):
        return
    soft, hard = life
    early = early_by(load_s, job.options.early_beta, core.draw()) if job.options.early_beta else 0.0
    core.counts.stores += counts
    core.hold(job.local, value, soft - early, hard, tags, load_s, Guard(flight=flight))
    core.counts.refused += counts and flight.fenced


def keep_loaded(
    core: Core,
    tier: Tier,
    job: Job,
    flight: Flight,
    token: str,
    value: Any,
    versions: dict[str, str],
    load_s: float,
    server_s: float,
) -> Steps[bool]:
    """Keep a loaded value in both tiers; tell whether the lease has been dealt with."""
    life = life_of(core, job.options, job.ttl_s, value)
    tags = job.tags_for(value)
    if life is None:
        return False
    soft, hard = life
    if may_not_keep(core, flight, job.local, job.inner(tags), versions, server_s):
        return _refused(core, flight)
    tickets = core.fences.open([job.local])
    try:
        missing = [tag for tag in tags if tag not in versions]
        if missing:
            if not callable(job.tags) and not job.said.tags.keys() >= set(missing):
                return False
            late = yield from tag_versions(core, tier, job.space, missing, create_for_s=hard)
            if len(late) < len(missing) or any(tag_changed_since(v, server_s) for v in late.values()):
                return _refused(core, flight)
            versions = {**versions, **late}
        mine = {t: versions[t] for t in tags}
        blob = pack(core, job.outer, value, soft, hard, job.options, load_s=load_s, tags=mine)
        if flight.fenced:
            return _refused(core, flight)
        kept = (yield from ask(tier.store_many, token, [(job.outer, blob, hard)]))[0]
        yield from settle_up(core, tier, [(job.outer, kept)])
        if kept:
            yield from take_back_fenced(core, tier, [job.outer] if flight.fenced else [])
            found = Found(value, soft, hard, mine, load_s)
            guard = Guard(tickets[job.local], flight)
            yield from near(core, tier, job.space, {job.local: (found, guard)}, job.options)
        else:
            flight.is_outdated = True
        return True
    except StoreUnavailable:
        return True
    finally:
        core.fences.shut(tickets)


def may_not_keep(
    core: Core,
    flight: Flight,
    local: str,
    inner_tags: Iterable[str],
    versions: dict[str, str],
    server_s: float,
) -> bool:
    """Tell whether what was loaded may be older than an invalidation, here or in another process."""
    inner_tags = list(inner_tags)
    return (
        flight.fenced
        or not flight.fenced_tags.isdisjoint(inner_tags)
        or core.fences.is_settling(local, inner_tags)
        or any(tag_settles(version, server_s) for version in versions.values())
    )


def _refused(core: Core, flight: Flight) -> bool:
    flight.is_outdated = True
    core.counts.refused += 1
    return False


def settle_up(core: Core, tier: Tier, outcomes: list[tuple[str, bool]]) -> Steps[None]:
    """Count what was kept, and wake whoever waits for it, here and elsewhere."""
    lost = []
    for outer, kept in outcomes:
        core.counts.stores += kept
        core.counts.refused += not kept
        core.wakes.wake(outer)
        if not kept:
            lost.append(outer)
    if lost and core.bus is not None:
        # The leases are no longer ours: nothing to give back, but whoever waits for us must know.
        yield from ask(tier.publish, json.dumps(lost).encode())
    yield from tell(core, tier, [outer for outer, kept in outcomes if kept])


def take_back_fenced(core: Core, tier: Tier, outers: list[str]) -> Steps[None]:
    """Delete what was invalidated here while it was being stored, on a store without leases to refuse it."""
    if outers and not tier.has_leases:
        yield from ask(tier.delete, outers)
        yield from tell(core, tier, outers)


def near(
    core: Core, tier: Tier, space: Space, values: dict[str, tuple[Found, Guard]], options: CacheOptions
) -> Steps[None]:
    """Keep what was stored in process memory too, while the versions of its tags still are what they were.

    Other processes' invalidations during the load are seen there alone, which whoever waits has to know.
    """
    has_memory = options.use_l1 and core.l1 is not None and core.l1_open
    if not has_memory and not any(found.tags and guard.is_awaited for found, guard in values.values()):
        return
    tags = {tag for found, _ in values.values() for tag in found.tags}
    current: dict[str, str] = {}
    if tags and core.coherence != "ttl":
        current = yield from tag_versions(core, tier, space, tags)
    for local, (found, guard) in values.items():
        if core.coherence != "ttl" and any(current.get(tag) != v for tag, v in found.tags.items()):
            guard.outdate()
        elif has_memory:
            keep_near(core, space, local, found, options, guard)
