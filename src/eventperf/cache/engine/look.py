"""Looking at the second tier: what its bytes are worth, and what of them process memory may keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import early_by, is_fresh, is_kept, l1_life
from eventperf.cache.protocols import SignsForKey
from eventperf.cache.values.envelope import LEASE, OTHER_TYPE, SETTLING, kind, open_payload, unseal

from .effects import Steps, ask
from .fences import Guard
from .plain_ways import version_in
from .state import Core
from .tier import Tier

ABSENT: Any = object()


class Found(NamedTuple):
    """A value of the second tier and what is left of its life, in seconds."""

    value: Any
    soft_s: float
    hard_s: float
    tags: dict[str, str]
    load_s: float

    @property
    def is_fresh(self) -> bool:
        """Whether it is as good as a new one."""
        return is_fresh(self.soft_s)


class Look(NamedTuple):
    """What a look at the second tier gave.

    Attributes:
        found: The value, fresh or stale; ``None`` when there is none that can be used.
        present: There are bytes under the key that a loader has to take over.
        lost: The second tier did not answer.
        odd: What it says of its times fits no clock that is right.
    """

    found: Found | None
    present: bool = False
    lost: bool = False
    odd: bool = False


def outer_of(space: Space, local: str) -> str:
    """Return the key in the second tier of a local key."""
    return space.outer + (local[len(space.inner) :] if space.inner else local)


def decode(core: Core, outer: str, blob: bytes | None, options: CacheOptions) -> Look:
    """Judge the bytes of one key; its tags are still to be compared."""
    if blob is None or kind(blob) in (LEASE, SETTLING):
        return Look(None)
    sealed = unseal(blob)
    if sealed is None:
        core.corrupt(outer, "a key of another type" if blob == OTHER_TYPE else "foreign bytes")
        return Look(None, present=True)
    now = core.wall()
    odd = core.clocks.is_odd(sealed.created, sealed.hard, now)
    if not is_kept(sealed.hard, now):
        return Look(None, present=True, odd=odd)
    serializer: Any = options.serializer or core.serializer
    try:
        loads = serializer.loads
        if isinstance(serializer, SignsForKey):
            loads = partial(_loads_for, serializer, outer)
        check = getattr(serializer, "check_objects", None)
        value = open_payload(sealed, loads, serializer.name, options.max_value_bytes, check)
    except Exception as error:  # a serializer of the host may raise anything: it is a miss, counted
        core.corrupt(outer, str(error))
        return Look(None, present=True)
    found = Found(value, sealed.soft - now, sealed.hard - now, sealed.tags, sealed.load_s)
    return Look(found, present=True, odd=odd)


def _loads_for(serializer: SignsForKey, outer: str, data: bytes) -> Any:
    return serializer.loads_for(data, outer)


def look(
    core: Core,
    tier: Tier,
    space: Space,
    keys: Sequence[str],
    options: CacheOptions,
    tags: Sequence[str] = (),
) -> Steps[dict[str, Look]]:
    """Read several local keys from the second tier, compare their tags, keep the fresh in process memory.

    ``tags`` are those that the values most likely have: versions of them that this process does not know are
    read in the same round trip.
    """
    outers = {key: outer_of(space, key) for key in keys}
    tickets = core.fences.open(keys) if core.l1 is not None and options.use_l1 else {}
    try:
        asked = [key for key in keys if not core.is_dirty(outers[key])]
        records = _records_to_read(core, space, tags) if asked else {}
        versions: dict[str, str] = {}
        blobs: Sequence[bytes | None]
        try:
            if records:
                replies = yield from ask(tier.get_many, [*(outers[key] for key in asked), *records.values()])
                blobs, read = replies[: len(asked)], replies[len(asked) :]
                texts = _versions_in(core, list(records.values()), read)
                versions = {tag: text for tag, text in zip(records, texts, strict=True) if text}
            elif len(asked) == 1:
                blobs = [(yield from ask(tier.get, outers[asked[0]]))]
            else:
                blobs = yield from ask(tier.get_many, [outers[key] for key in asked])
        except StoreUnavailable:
            return {key: Look(None, lost=True) for key in keys}
        looks = {key: Look(None, present=True) for key in keys}
        for key, blob in zip(asked, blobs, strict=True):
            looks[key] = decode(core, outers[key], blob, options)
        odd = [key for key in asked if looks[key].odd]
        if odd and (yield from core.clocks.doubt(outers[odd[0]])):
            for key, blob in zip(asked, blobs, strict=True):
                if looks[key].odd or looks[key].found:
                    looks[key] = decode(core, outers[key], blob, options)
        yield from _compare_tags(core, tier, space, looks, versions)
        for key, ticket in tickets.items():
            if (found := looks[key].found) is not None:
                keep_near(core, space, key, found, options, Guard(ticket))
        return looks
    finally:
        core.fences.shut(tickets)


def _records_to_read(core: Core, space: Space, tags: Sequence[str]) -> dict[str, str]:
    """Return the records of tags to be read with each value, where there are no coherent copies."""
    if not tags or (core.l1_open and core.coherence != "ttl"):
        return {}
    owed = core.replay
    records = {tag: space.tag_prefix + tag for tag in tags}
    return {tag: r for tag, r in records.items() if not (owed and owed.is_dirty_tag(r))}


def _compare_tags(
    core: Core, tier: Tier, space: Space, looks: dict[str, Look], versions: dict[str, str]
) -> Steps[None]:
    wanted = {tag for seen in looks.values() if seen.found for tag in seen.found.tags} - versions.keys()
    if wanted:
        try:
            versions = versions | (yield from tag_versions(core, tier, space, wanted))
        except StoreUnavailable:
            pass  # counted by the breaker; what has no version counts as invalidated
    for key, seen in looks.items():
        if seen.found and any(versions.get(tag) != v for tag, v in seen.found.tags.items()):
            looks[key] = Look(None, present=True)


def tag_versions(
    core: Core, tier: Tier, space: Space, tags: Iterable[str], *, create_for_s: float | None = None
) -> Steps[dict[str, str]]:
    """Return the current version of each tag, from the coherent copies of this process where it can.

    Args:
        core: The cache.
        tier: Its second tier.
        space: The namespace of the tags.
        tags: The tags; those whose invalidation the second tier has not taken yet have no version.
        create_for_s: Make the records that are missing, for entries that live so long.
    """
    records = {tag: space.tag_prefix + tag for tag in tags}
    coherent = core.l1_open and core.coherence != "ttl"
    known = {tag: v for tag, r in records.items() if coherent and (v := core.tag_cache.get(r)) is not None}
    owed = core.replay
    missing = [tag for tag, r in records.items() if tag not in known and not (owed and owed.is_dirty_tag(r))]
    if not missing:
        return known
    names = [records[tag] for tag in missing]
    tickets = core.fences.open(names)
    try:
        if create_for_s is None:
            replies = _versions_in(core, names, (yield from ask(tier.get_many, names)))
        else:
            replies = yield from ask(tier.tag_versions, names, core.salt(), create_for_s)
        for tag, name, reply in zip(missing, names, replies, strict=True):
            if reply:
                known[tag] = reply
                if coherent and not tickets[name].fenced:
                    core.tag_cache.keep(name, reply)
                    if tickets[name].fenced:  # look again after the deed, as with entries
                        core.tag_cache.forget([name])
        return known
    finally:
        core.fences.shut(tickets)


def _versions_in(core: Core, names: Sequence[str], records: Sequence[bytes | None]) -> list[str]:
    """Return the versions that records hold, nothing for those that hold something else."""
    texts = [version_in(record) for record in records]
    for name, record, text in zip(names, records, texts, strict=True):
        if record is not None and not text:
            core.corrupt(name, "a key of another type" if record == OTHER_TYPE else "no version of a tag")
    return texts


def keep_near(core: Core, space: Space, key: str, found: Found, options: CacheOptions, guard: Guard) -> None:
    """Keep what the second tier has in process memory too, for a while."""
    early = early_by(found.load_s, options.early_beta, core.draw()) if options.early_beta else 0.0
    soft, hard = l1_life(options, found.soft_s - early, found.hard_s, True)
    if is_fresh(soft):
        tags = [space.inner + tag for tag in found.tags]
        core.hold(key, found.value, soft, hard, tags, found.load_s, guard)


def read_many(
    core: Core, space: Space, locals_: Sequence[str], options: CacheOptions
) -> Steps[dict[str, Any]]:
    """Return the values there are of several local keys that process memory could not answer."""
    counts, tier = core.counts, core.tier
    if tier is None or not locals_:
        counts.misses += len(locals_)
        return {}
    if options.use_l1 and core.l1 is not None:
        core.ensure_channel()
    looks = yield from look(core, tier, space, locals_, options)
    out = {key: seen.found.value for key, seen in looks.items() if seen.found and seen.found.is_fresh}
    counts.l2_hits += len(out)
    counts.misses += len(locals_) - len(out)
    return out


def plain_value(core: Core, outer: str, blob: bytes | None, options: CacheOptions) -> Any:
    """Return the fresh value in ``blob`` when nothing else has to be asked, else ``ABSENT``.

    The short way of a manager without process memory: no tags to compare, nothing to promote.
    """
    seen = decode(core, outer, blob, options)
    found = seen.found
    if found is None or seen.odd or found.tags or not found.is_fresh:
        return ABSENT
    core.counts.l2_hits += 1
    return found.value
