"""Reading and writing: what the second tier's bytes are worth, and the plain verbs, as steps."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eventperf.cache.errors import SerializationError, StoreUnavailable
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import early_by, l1_life, lifetime
from eventperf.cache.stats import CorruptEntry, NotKept
from eventperf.cache.values.envelope import Sealed, kind, open_payload, seal, unseal

from .effects import Steps, call
from .state import Core, Ticket

ABSENT: Any = object()


class Found(NamedTuple):
    """A value of the second tier and what is left of its life, in seconds."""

    value: Any
    soft_s: float
    hard_s: float
    tags: dict[str, str]
    load_s: float


class Look(NamedTuple):
    """What a look at the second tier gave.

    Attributes:
        found: The value, fresh or stale; ``None`` when there is none that can be used.
        present: There are bytes under the key that a loader has to take over.
        lost: The second tier did not answer.
    """

    found: Found | None
    present: bool = False
    lost: bool = False


def decode(core: Core, outer: str, blob: bytes | None, options: CacheOptions) -> Look:
    """Judge the bytes of one key; its tags are still to be compared."""
    if blob is None:
        return Look(None)
    what = kind(blob)
    if what in (b"L", b"T"):
        return Look(None)
    sealed = unseal(blob)
    if sealed is None:
        _corrupt(core, outer, "foreign bytes")
        return Look(None, present=True)
    now = core.wall()
    if now >= sealed.hard:
        return Look(None, present=True)
    serializer: Any = options.serializer or core.serializer
    try:
        value = open_payload(sealed, serializer.loads, serializer.name)
    except Exception as error:  # a serializer of the host may raise anything: it is a miss, counted
        _corrupt(core, outer, str(error))
        return Look(None, present=True)
    return Look(Found(value, sealed.soft - now, sealed.hard - now, sealed.tags, sealed.load_s), present=True)


def _corrupt(core: Core, outer: str, reason: str) -> None:
    core.counts.corrupt += 1
    if core.hooks.active:
        core.hooks.emit(CorruptEntry(outer, reason))


def look(core: Core, space: Space, keys: Sequence[str], options: CacheOptions) -> Steps[dict[str, Look]]:
    """Read several local keys from the second tier, compare their tags, keep the fresh in process memory."""
    outers = {key: outer_of(space, key) for key in keys}
    tickets = {key: core.open_ticket(key) for key in keys} if core.l1 is not None and options.use_l1 else {}
    try:
        asked = [key for key in keys if not core.is_dirty(outers[key])]
        try:
            if len(asked) == 1:
                blobs = [(yield call("get", outers[asked[0]]))]
            else:
                blobs = yield call("get_many", [outers[key] for key in asked])
        except StoreUnavailable:
            return {key: Look(None, lost=True) for key in keys}
        looks = {key: Look(None, present=True) for key in keys}
        for key, blob in zip(asked, blobs, strict=True):
            looks[key] = decode(core, outers[key], blob, options)
        yield from _compare_tags(core, space, looks)
        for key, ticket in tickets.items():
            if (found := looks[key].found) is not None:
                _promote(core, space, key, found, options, ticket)
        return looks
    finally:
        for key, ticket in tickets.items():
            core.shut_ticket(key, ticket)


def _compare_tags(core: Core, space: Space, looks: dict[str, Look]) -> Steps[None]:
    wanted = {tag for seen in looks.values() if seen.found for tag in seen.found.tags}
    if not wanted:
        return
    try:
        versions = yield from tag_versions(core, space, wanted, create=False)
    except StoreUnavailable:
        versions = {}
    for key, seen in looks.items():
        if seen.found and any(versions.get(tag) != v for tag, v in seen.found.tags.items()):
            looks[key] = Look(None, present=True)


def tag_versions(
    core: Core, space: Space, tags: Iterable[str], *, create: bool, life_s: float = 0.0
) -> Steps[dict[str, str]]:
    """Return the current version of each tag, from the coherent copies of this process where it can."""
    tags = list(tags)
    records = {tag: space.tag_prefix + tag for tag in tags}
    coherent = core.l1_open and core.coherence != "ttl"
    known = {tag: core.tag_cache[r] for tag, r in records.items() if coherent and r in core.tag_cache}
    missing = [tag for tag in tags if tag not in known and records[tag] not in core.replay_tags]
    if not missing:
        return known
    names = [records[tag] for tag in missing]
    tickets = [core.open_ticket(name) for name in names]
    try:
        if create:
            replies = yield call("tag_versions", names, core.salt(), life_s)
        else:
            replies = [r.decode() if r else "" for r in (yield call("get_many", names))]
        for tag, name, reply, ticket in zip(missing, names, replies, tickets, strict=True):
            if reply:
                known[tag] = reply
                with core.mu:
                    if coherent and not ticket.fenced and len(core.tag_cache) < 100_000:
                        core.tag_cache[name] = reply
        return known
    finally:
        for name, ticket in zip(names, tickets, strict=True):
            core.shut_ticket(name, ticket)


def _promote(core: Core, space: Space, key: str, found: Found, options: CacheOptions, ticket: Ticket) -> None:
    early = early_by(found.load_s, options.early_beta, core.draw()) if options.early_beta else 0.0
    soft, hard = l1_life(options, found.soft_s - early, found.hard_s, True)
    if soft > 0:
        tags = [space.inner + tag for tag in found.tags]
        core.hold(key, found.value, soft, hard, tags, found.load_s, ticket)


def outer_of(space: Space, local: str) -> str:
    """Return the key in the second tier of a local key."""
    return space.outer + (local[len(space.inner) :] if space.inner else local)


# -- reads ---------------------------------------------------------------------------------------------


def read_many(
    core: Core, space: Space, locals_: Sequence[str], options: CacheOptions
) -> Steps[dict[str, Any]]:
    """Return the values there are of several local keys that process memory could not answer."""
    counts = core.counts
    if core.store is None or not locals_:
        counts.misses += len(locals_)
        return {}
    if options.use_l1 and core.l1 is not None:
        core.ensure_channel()
    looks = yield from look(core, space, locals_, options)
    out = {}
    for key, seen in looks.items():
        if seen.found is not None and seen.found.soft_s > 0:
            out[key] = seen.found.value
    counts.l2_hits += len(out)
    counts.misses += len(locals_) - len(out)
    return out


def plain_value(core: Core, outer: str, blob: bytes | None, options: CacheOptions) -> Any:
    """Return the fresh value in ``blob`` when nothing else has to be asked, else ``ABSENT``.

    The short way of a manager without process memory: no tags to compare, nothing to promote.
    """
    found = decode(core, outer, blob, options).found
    if found is None or found.tags or found.soft_s <= 0:
        return ABSENT
    core.counts.l2_hits += 1
    return found.value


# -- writes --------------------------------------------------------------------------------------------


def pack(core: Core, value: Any, soft_s: float, hard_s: float, options: CacheOptions, **more: Any) -> bytes:
    """Return the envelope of a value."""
    serializer: Any = options.serializer or core.serializer
    try:
        payload = serializer.dumps(value)
    except SerializationError:
        raise
    except Exception as error:  # a serializer of the host may raise anything
        raise SerializationError(f"{type(value).__qualname__} ({type(error).__name__}: {error})") from error
    now = core.wall()
    return seal(
        serializer.name,
        payload,
        created=now,
        soft=now + soft_s,
        hard=now + hard_s,
        compress_over=options.compress_over,
        **more,
    )


def not_kept(core: Core, key: str, error: Exception) -> None:
    """Say that a loaded value cannot be kept: each cause once."""
    core.counts.refused += 1
    if core.hooks.active:
        core.hooks.emit(NotKept(key, error))
    if len(_said) < _SAID_MAX and str(error) not in _said:
        _said.add(str(error))
        _log.warning("%r is loaded at each call and never kept: %s", key, error)


_said: set[str] = set()
_SAID_MAX = 100
_log = logging.getLogger("eventperf.cache")


def write_many(
    core: Core,
    space: Space,
    items: Mapping[str, Any],
    ttl_s: float,
    tags: Sequence[str],
    options: CacheOptions,
) -> Steps[None]:
    """Store values under local keys, in both tiers."""
    keys = list(items)
    soft, hard = lifetime(options, ttl_s, core.random.random() if options.jitter_ratio else 0.0)
    core.counts.stores += len(keys)
    if core.store is None:
        core.flights.fence(*keys)
        guard = Ticket()
        inner = [space.inner + tag for tag in tags]
        if options.use_l1:
            for key in keys:
                core.hold(key, items[key], soft, hard, inner, 0.0, guard)
        return
    blobs = {key: pack(core, items[key], soft, hard, options) for key in keys}  # refuses before any change
    core.drop_keys(keys)
    tickets = {key: core.open_ticket(key) for key in keys} if core.l1 is not None and options.use_l1 else {}
    outers = {key: outer_of(space, key) for key in keys}
    try:
        versions: dict[str, str] = {}
        if tags:
            versions = yield from tag_versions(core, space, tags, create=True, life_s=hard)
            blobs = {key: pack(core, items[key], soft, hard, options, tags=versions) for key in keys}
        yield call("set_many", [(outers[key], blobs[key], hard) for key in keys])
        yield from tell(core, list(outers.values()))
        with core.mu:
            for outer in outers.values():
                core.replay_keys.pop(outer, None)
        for key, ticket in tickets.items():
            _promote(core, space, key, Found(items[key], soft, hard, versions, 0.0), options, ticket)
    except StoreUnavailable:
        core.queue_replay(keys=outers.values())  # an older value may be there: it must not come back
    finally:
        for key, ticket in tickets.items():
            core.shut_ticket(key, ticket)


def tell(core: Core, outers: Sequence[str], tags: Sequence[str] = ()) -> Steps[None]:
    """On the bus: say what was written. Tracking needs no word from us."""
    if core.l1 is not None:
        core.ensure_channel()  # it finds out whether this server has tracking
    if core.coherence == "bus" and (outers or tags):
        yield call("publish", json.dumps([*outers, *tags]).encode())  # keys may hold anything, line ends too


def remove_many(core: Core, space: Space, keys: Sequence[str], settle_s: float = 0.0) -> Steps[int]:
    """Invalidate local keys in both tiers; return how many entries there were."""
    core.counts.invalidations += 1
    here = [key for key in keys if (entry := core.peek(key)) is not None and core.now() < entry.hard]
    if settle_s:
        core.settle(keys, settle_s)
    core.drop_keys(keys)
    if core.store is None:
        return len(here)
    outers = [outer_of(space, key) for key in keys]
    try:
        count: int = yield call("delete", outers)
        if settle_s:
            yield call("settle", outers, settle_s=settle_s)
        yield from tell(core, outers)
        with core.mu:
            for outer in outers:
                core.replay_keys.pop(outer, None)
    except StoreUnavailable:
        core.queue_replay(keys=outers)
        count = len(here)
    core.fence_reads(keys)  # reads that were answered before the deletion
    if core.l1 is not None:
        core.l1.drop(keys)
    return count


def remove_tags(core: Core, space: Space, tags: Sequence[str], settle_s: float = 0.0) -> Steps[None]:
    """Invalidate everything that carries one of ``tags``."""
    core.counts.invalidations += 1
    inner = [space.inner + tag for tag in tags]
    if settle_s:
        core.settle([f"\x00tag:{tag}" for tag in inner], settle_s)
    core.drop_tags(inner)
    if core.store is None:
        return
    records = [space.tag_prefix + tag for tag in tags]
    with core.mu:
        for record in records:
            core.tag_cache.pop(record, None)
    try:
        yield call("bump_tags", records, core.salt())
        yield from tell(core, (), records)
    except StoreUnavailable:
        core.queue_replay(tags=records)
    with core.mu:
        for record in records:
            core.tag_cache.pop(record, None)
    core.drop_tags(inner)


def opened(sealed: Sealed) -> dict[str, Any]:
    """Return the facts of an envelope, for the CLI."""
    return {"codec": sealed.codec, "tags": sealed.tags, "load_s": sealed.load_s, "bytes": len(sealed.payload)}
