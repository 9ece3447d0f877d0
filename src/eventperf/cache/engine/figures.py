"""Figures of one process, and counters without a second tier."""

from __future__ import annotations

from eventperf.cache.checks import INT64
from eventperf.cache.entry import Entry
from eventperf.cache.errors import CounterOverflow
from eventperf.cache.policy import is_kept
from eventperf.cache.protocols import Measured
from eventperf.cache.stats import CacheStats

from .state import Core

COUNTERS_MOST = 100_000


def count_here(core: Core, name: str, amount: int, ttl_s: float) -> int:
    """Add to a counter in process memory, where there is no second tier."""
    with core.counters_mu:
        now = core.now()
        entry = core.counters.get(name)
        if entry is None or not is_kept(entry.hard, now):
            core.counters.pop(name, None)
            for _ in range(2):  # two go for one that comes: those that have ended never pile up
                oldest = next(iter(core.counters.values()), None)
                if oldest is not None and not is_kept(oldest.hard, now):
                    core.counters.popitem(last=False)
            if len(core.counters) >= COUNTERS_MOST:
                core.counters.popitem(last=False)  # the oldest has to make room
            entry = core.counters[name] = Entry(name, 0, now + ttl_s, now + ttl_s)
        if entry.value + amount not in INT64:
            raise CounterOverflow(name, amount)
        entry.value += amount
        return int(entry.value)


def snapshot(core: Core) -> CacheStats:
    """Return the figures of this process."""
    c, l1 = core.counts, core.l1
    l1_hits = c.l1_hits + core.tallies.total()
    measured = l1 if isinstance(l1, Measured) else None
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
        replayed=core.replay.replayed if core.replay is not None else 0,
        entries=len(l1) if l1 is not None else 0,
        size_bytes=measured.bytes if measured else 0,
        evictions=measured.evictions if measured else 0,
        expirations=measured.expirations if measured else 0,
        coherence=_coherence(core),
        breaker="none" if core.breaker is None else "open" if core.breaker.is_open else "closed",
    )


def _coherence(core: Core) -> str:
    if core.store is None:
        return "process"
    if core.bus is None or core.asked == "ttl":
        return core.coherence
    return core.bus.label if core.bus.connected else f"{core.bus.label} (down)"
