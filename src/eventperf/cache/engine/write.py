"""Writing and invalidating, in both tiers: fence, drop, do it there, fence and drop again.

The first fence is for loads and reads that began before, the second for those that began while the command
was on its way and were answered before it. After a verb here has returned, nobody in this process is handed
what was read before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.objects import allowed
from eventperf.cache.errors import SerializationError, StoreUnavailable, ValueTooLarge
from eventperf.cache.keys import FOREIGN, Space, glob
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import is_fresh, is_kept, lifetime
from eventperf.cache.protocols import SignsForKey
from eventperf.cache.values.envelope import seal, times_of

from .effects import Steps, ask
from .fences import FREE, Guard, settling_tag
from .look import Found, keep_near, look, outer_of, tag_versions
from .state import Core
from .tier import Tier


def pack(
    core: Core, outer: str, value: Any, soft_s: float, hard_s: float, options: CacheOptions, **more: Any
) -> bytes:
    """Return the envelope of the value of an outer key."""
    serializer: Any = options.serializer or core.serializer
    try:
        payload = (
            serializer.dumps_for(value, outer)
            if isinstance(serializer, SignsForKey)
            else serializer.dumps(value)
        )
    except SerializationError:
        raise
    except Exception as error:  # a serializer of the host may raise anything
        raise SerializationError(f"{type(value).__qualname__} ({type(error).__name__}: {error})") from error
    if len(payload) > options.max_value_bytes:
        raise ValueTooLarge(type(value).__qualname__, len(payload), options.max_value_bytes)
    check = getattr(serializer, "check_objects", None)
    if check is not None and len(payload) > (most := allowed(options.max_value_bytes)):
        try:
            check(payload, most)
        except ValueError as error:
            raise ValueTooLarge(
                type(value).__qualname__, len(payload), options.max_value_bytes, most
            ) from error
    now = core.wall()
    blob = seal(
        serializer.name,
        payload,
        created=now,
        soft=now + soft_s,
        hard=now + hard_s,
        compress_over=options.compress_over,
        **more,
    )
    core.sizes.note(outer, len(blob))
    return blob


def tell(core: Core, tier: Tier, words: Sequence[str]) -> Steps[None]:
    """On the bus: say what was written. Tracking needs no word from us."""
    if core.l1 is not None:
        core.ensure_channel()  # it finds out whether this server has tracking
    if core.coherence == "bus" and words:
        try:
            yield from ask(tier.publish, json.dumps(words).encode())  # keys may hold anything, line ends too
        except StoreUnavailable as error:
            if error.silent:
                raise  # a refusal was said: others follow by their time to live


# -- writes ----------------------------------------------------------------------------------------------


def write_many(
    core: Core,
    space: Space,
    items: Mapping[str, Any],
    ttl_s: float,
    tags: Sequence[str],
    options: CacheOptions,
) -> Steps[None]:
    """Store values under local keys, in both tiers."""
    soft, hard = lifetime(options, ttl_s, core.random.random() if options.jitter_ratio else 0.0)
    core.counts.stores += len(items)
    if core.tier is None:
        core.flights.fence(*items)
        inner = [space.inner + tag for tag in tags]
        if options.use_l1:
            with core.writing:  # between the look of an ``add`` and its deed
                for key, value in items.items():
                    core.hold(key, value, soft, hard, inner, 0.0, FREE)
        return
    yield from _write_far(core, core.tier, space, items, (soft, hard), tags, options)


def _write_far(
    core: Core,
    tier: Tier,
    space: Space,
    items: Mapping[str, Any],
    life: tuple[float, float],
    tags: Sequence[str],
    options: CacheOptions,
) -> Steps[None]:
    soft, hard = life
    keys = list(items)
    outers = {key: outer_of(space, key) for key in keys}
    yield from core.clocks.learn(outers[keys[0]])
    # Refuses before any change.
    blobs = {key: pack(core, outers[key], items[key], soft, hard, options) for key in keys}
    core.drop_keys(keys)
    tickets = core.fences.open(keys) if core.l1 is not None and options.use_l1 else {}
    ours = set(tickets.values())
    try:
        versions: dict[str, str] = {}
        if tags:
            versions = yield from tag_versions(core, tier, space, tags, create_for_s=hard)
            if len(versions) < len(tags):
                raise StoreUnavailable(tier.url, "an invalidation of a tag of this value waits")
            blobs = {
                key: pack(core, outers[key], items[key], soft, hard, options, tags=versions) for key in keys
            }
        yield from ask(tier.set_many, [(outers[key], blobs[key], hard) for key in keys])
        if core.replay is not None:
            core.replay.paid(outers.values())
        yield from tell(core, tier, list(outers.values()))
        core.drop_keys(keys, but=ours)
        for key, ticket in tickets.items():
            keep_near(core, space, key, Found(items[key], soft, hard, versions, 0.0), options, Guard(ticket))
    except StoreUnavailable:
        owe(core, keys=list(outers.values()))  # an older value may be there: it must not come back
        core.drop_keys(keys, but=ours)
    finally:
        core.fences.shut(tickets)


def touch(core: Core, space: Space, local: str, life_s: float, options: CacheOptions) -> Steps[bool]:
    """Give the entry of a local key a new life in both tiers."""
    soft, hard = lifetime(options, life_s, 0.0)
    if core.tier is None:
        entry = core.peek(local)
        if entry is None or not is_kept(entry.hard, core.now()):
            return False
        tags = entry.meta.tags if entry.meta is not None else ()
        core.hold(local, entry.value, soft, hard, tags, 0.0, FREE)
        return True
    outer = outer_of(space, local)
    yield from core.clocks.learn(outer)
    if core.l1 is not None:
        core.l1.pop(local)
    now = core.wall()
    try:
        there = yield from ask(core.tier.touch, outer, now + soft, now + hard, hard)
        yield from tell(core, core.tier, [outer])
    except StoreUnavailable:
        return False
    core.fences.fence_reads((local,))  # they may have read the end of the old life
    if core.l1 is not None:
        core.l1.pop(local)
    return bool(there)


def add_number(core: Core, space: Space, local: str, amount: int | None) -> Steps[tuple[int, int, int]]:
    """Add to a stored whole number in the second tier; return state, sum and rest of its life in ms.

    Raises:
        ConfigurationError: There is no second tier that can.
    """
    tier = core.tier
    if tier is None or tier.add is None:
        raise ConfigurationError("store", core.store, "a second tier with SupportsAdd, such as RedisStore")
    outer = outer_of(space, local)
    answer = yield from ask(tier.add, outer, amount)
    if answer[0] == 1:
        core.drop_keys([local])
        yield from tell(core, tier, [outer])
    return answer


def add(
    core: Core,
    space: Space,
    local: str,
    value: Any,
    ttl_s: float,
    tags: Sequence[str],
    options: CacheOptions,
) -> Steps[bool]:
    """Store a value unless there is one; tell whether it was stored. One winner among all processes.

    Raises:
        StoreUnavailable: The second tier did not answer: nobody knows who has won.
    """
    soft, hard = lifetime(options, ttl_s, core.random.random() if options.jitter_ratio else 0.0)
    tier = core.tier
    if tier is None:
        with core.writing:
            entry = core.peek(local)
            if entry is not None and entry.key is not None and is_fresh(entry.soft, core.now()):
                return False
            core.flights.fence(local)
            core.counts.stores += 1
            core.hold(local, value, soft, hard, [space.inner + tag for tag in tags], 0.0, FREE)
        return True
    outer = outer_of(space, local)
    seen = (yield from look(core, tier, space, [local], options))[local]
    if seen.lost or core.is_dirty(outer):
        raise StoreUnavailable(tier.url, "it does not answer, or an invalidation of this key waits", True)
    if seen.found is not None and seen.found.is_fresh:
        return False
    times = b""
    if seen.present:  # nobody gets it any more (its tags, its end): it may be replaced, a newer one not
        times = times_of((yield from ask(tier.get, outer)) or b"")
    yield from core.clocks.learn(outer)
    versions: dict[str, str] = {}
    if tags:
        versions = yield from tag_versions(core, tier, space, tags, create_for_s=hard)
    blob = pack(core, outer, value, soft, hard, options, tags=versions)
    core.drop_keys([local])
    is_ours = yield from ask(tier.put_new, outer, blob, hard, times)
    if is_ours:
        core.counts.stores += 1
        yield from tell(core, tier, [outer])
        core.drop_keys([local])
    return bool(is_ours)


# -- invalidations ---------------------------------------------------------------------------------------


def owe(
    core: Core,
    keys: Sequence[str] = (),
    tags: Sequence[str] = (),
    patterns: Sequence[str] = (),
    settle_s: float = 0.0,
) -> None:
    """Remember what the second tier has not taken."""
    if core.replay is not None:
        core.replay.owe(keys, tags, patterns, settle_s)


def remove_many(core: Core, space: Space, keys: Sequence[str], settle_s: float = 0.0) -> Steps[int]:
    """Invalidate local keys in both tiers; return how many entries there were."""
    core.counts.invalidations += 1
    now = core.now()
    here = sum(1 for key in keys if (entry := core.peek(key)) is not None and is_kept(entry.hard, now))
    settle_s = max(settle_s, core.fences.settles_for(keys))  # an earlier one is not ended by this
    if settle_s:
        core.fences.settle(keys, settle_s)
    core.drop_keys(keys)
    tier = core.tier
    if tier is None:
        return here
    outers = [outer_of(space, key) for key in keys]
    try:
        count = yield from ask(tier.delete, outers)
        if settle_s:
            yield from ask(tier.settle, outers, settle_s=settle_s)
        if core.replay is not None:
            core.replay.paid(outers)
        yield from tell(core, tier, outers)
    except StoreUnavailable:
        owe(core, keys=outers, settle_s=settle_s)
        count = here
    core.drop_keys(keys)
    return count


def remove_tags(core: Core, space: Space, tags: Sequence[str], settle_s: float = 0.0) -> Steps[None]:
    """Invalidate everything that carries one of ``tags``."""
    core.counts.invalidations += 1
    if settle_s:
        core.fences.settle([settling_tag(space.inner + tag) for tag in tags], settle_s)
    core.drop_tags(space, tags)
    tier = core.tier
    if tier is None:
        return
    records = [space.tag_prefix + tag for tag in tags]
    try:
        yield from ask(tier.bump_tags, records, core.salt(), settle_s=settle_s)
        yield from tell(core, tier, records)
    except StoreUnavailable as error:
        owe(core, tags=records, settle_s=settle_s)
        if not error.silent:
            yield from _delete_records(core, tier, records)
    core.drop_tags(space, tags)


def _delete_records(core: Core, tier: Tier, records: Sequence[str]) -> Steps[None]:
    """A full server takes no new version; a record that is gone counts as invalidated too."""
    try:
        yield from ask(tier.delete, records)
        yield from tell(core, tier, records)
    except StoreUnavailable:
        return  # owed, and treated as invalidated here until it is said


def remove_matching(core: Core, space: Space, pattern: str, dry_run: bool) -> Steps[int]:
    """Drop what matches ``pattern`` in ``space``; return how many entries there were.

    Raises:
        StoreUnavailable: The server never lists its keys (a right that the user lacks, a proxy): what it
            holds cannot be found.
    """
    matches = local_matcher(space, pattern)
    tier = core.tier
    outer = space.outer + pattern
    if dry_run:
        return (yield from ask(tier.delete_pattern, outer, dry_run=True)) if tier else _count(core, matches)
    core.counts.invalidations += 1
    here = core.drop_matching(matches)
    if tier is None:
        return here
    try:
        count = yield from ask(tier.delete_pattern, outer)
        yield from tell(core, tier, ["*" + outer])
    except StoreUnavailable as error:
        if error.permanent:
            raise
        owe(core, patterns=[outer])
        count = here
    core.drop_matching(matches)
    return count


def local_matcher(space: Space, pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a local key is in ``space`` and matches ``pattern`` there."""
    matches, inner = glob(pattern), space.inner

    def local_matches(local: str) -> bool:
        if inner:
            return local.startswith(inner) and matches(local[len(inner) :])
        return not local.startswith(FOREIGN) and matches(local)

    return local_matches


def _count(core: Core, matches: Callable[[str], bool]) -> int:
    if core.l1 is None:
        return 0
    now = core.now()
    held = core.l1.keys()
    entries = [core.peek(key) for key in held if matches(key)]
    return sum(1 for entry in entries if entry is not None and is_kept(entry.hard, now))
