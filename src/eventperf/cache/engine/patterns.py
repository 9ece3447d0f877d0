"""Patterns, touch, counters in memory, figures, and the channel's beginning and end."""

from __future__ import annotations

from collections.abc import Callable

from eventperf.cache.entry import Entry
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.keys import FOREIGN, Space, glob
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import lifetime
from eventperf.cache.stats import CacheStats

from .effects import Steps, call
from .look import outer_of, tell
from .state import Core, Ticket


def remove(core: Core, space: Space, pattern: str, dry_run: bool) -> Steps[int]:
    """Drop what matches ``pattern`` in ``space``; return how many entries there were."""
    matches = glob(pattern)
    inner = space.inner

    def local_matches(local: str) -> bool:
        if inner:
            return local.startswith(inner) and matches(local[len(inner) :])
        return not local.startswith(FOREIGN) and matches(local)

    if dry_run and core.store is None:
        return _count_here(core, local_matches)
    outer = space.outer + pattern
    if dry_run:
        return int((yield call("delete_pattern", outer, dry_run=True)))
    core.counts.invalidations += 1
    here = core.drop_matching(local_matches)
    if core.store is None:
        return here
    try:
        count = int((yield call("delete_pattern", outer)))
        if core.coherence == "bus":
            yield from tell(core, ["*" + outer])
    except StoreUnavailable:
        core.queue_replay(patterns=[outer])
        count = here
    core.drop_matching(local_matches)
    return count


def _count_here(core: Core, matches: Callable[[str], bool]) -> int:
    if core.l1 is None:
        return 0
    now = core.now()
    names: list[str] = core.l1.keys()
    entries = [core.peek(key) for key in names if matches(key)]
    return sum(1 for entry in entries if entry is not None and now < entry.hard)


def touch(core: Core, space: Space, local: str, life_s: float, options: CacheOptions) -> Steps[bool]:
    """Give the entry of a local key a new life in both tiers."""
    soft, hard = lifetime(options, life_s, 0.0)
    if core.store is None:
        entry = core.peek(local)
        if entry is None or core.now() >= entry.hard:
            return False
        tags = entry.meta.tags if entry.meta is not None else ()
        core.hold(local, entry.value, soft, hard, tags, 0.0, Ticket())
        return True
    if core.l1 is not None:
        core.l1.pop(local)
    now = core.wall()
    try:
        there = bool((yield call("touch", outer_of(space, local), now + soft, now + hard, hard)))
        yield from tell(core, [outer_of(space, local)])
    except StoreUnavailable:
        return False
    return there


def count_here(core: Core, name: str, amount: int, ttl_s: float) -> int:
    """Add to a counter in process memory, where there is no second tier."""
    key = f"\x00counter:{name}"
    with core.mu:
        now = core.now()
        entry = core.counters.get(key)
        if entry is None or now >= entry.hard:
            entry = core.counters[key] = Entry(key, 0, now + ttl_s, now + ttl_s)
        entry.value += amount
        return int(entry.value)


def snapshot(core: Core) -> CacheStats:
    """Return the figures of this process."""
    c, l1 = core.counts, core.l1
    l1_hits = int(l1.hits()) if l1 is not None else 0
    if core.store is None:
        mode = "process"
    else:
        mode = core.coherence if core.channel is None else core.channel.mode
        if core.channel is not None and core.coherence != "ttl" and not core.channel.is_up(core):
            mode += " (down)"
    breaker = "none" if core.breaker is None else "open" if core.breaker.is_open else "closed"
    return CacheStats(
        hits=l1_hits + c.l2_hits,
        l1_hits=l1_hits,
        l2_hits=c.l2_hits,
        misses=c.misses,
        loads=c.loads,
        load_errors=c.load_errors,
        load_s=core.load_s,
        stale=c.stale,
        stores=c.stores,
        refused=c.refused,
        corrupt=c.corrupt,
        invalidations=c.invalidations,
        store_errors=c.store_errors,
        replay_queue=core.replay_size(),
        replayed=c.replayed,
        entries=len(l1) if l1 is not None else 0,
        size_bytes=getattr(l1, "bytes", 0),
        evictions=getattr(l1, "evictions", 0),
        expirations=getattr(l1, "expirations", 0),
        coherence=mode,
        breaker=breaker,
    )


def connect(core: Core) -> None:
    """Give the core its channel; nothing is opened yet."""
    if getattr(core.store, "links", None) is None:
        if core.coherence != "ttl":
            core.coherence = "ttl"  # a store of a third party that cannot tell us of writes
            core.l1_open = core.l1 is not None
        return
    from eventperf.cache.backends.redis.channel import Channel

    core.channel = Channel(core.store, core.coherence, wants_l1=core.l1 is not None)
    core.channel.add_prefix(core.space)


def shut(core: Core) -> None:
    """Stop background work and drop what process memory holds."""
    if core.breaker is not None:
        core.breaker.close()
    if core.channel is not None:
        core.channel.close()
        core.l1_open = False
    if core.l1 is not None:
        core.l1.clear()
