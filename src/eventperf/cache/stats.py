"""What the cache did, and what it tells to hooks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


class Counts:
    """Running totals, without a lock: a few may be lost under contention."""

    __slots__ = (
        "corrupt", "invalidations", "l1_hits", "l2_hits", "load_errors", "loads", "misses", "refused",
        "replayed", "stale", "store_errors", "stores",
    )  # fmt: skip

    def __init__(self) -> None:
        self.l1_hits: int = 0
        self.l2_hits: int = 0
        self.misses: int = 0
        self.loads: int = 0
        self.load_errors: int = 0
        self.stale: int = 0
        self.stores: int = 0
        self.refused: int = 0
        self.corrupt: int = 0
        self.invalidations: int = 0
        self.store_errors: int = 0
        self.replayed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """A snapshot of one process's cache.

    Attributes:
        hits: Reads answered by process memory or the second tier.
        l1_hits: Of these, by process memory.
        l2_hits: Of these, by the second tier.
        misses: Reads that neither could answer.
        loads: Loader calls; ``load_errors`` of them raised.
        stale: Reads answered with a value past its TTL (refresh under way, or the load failed).
        stores: Values stored; ``refused`` were not, because of an invalidation during their load.
        corrupt: Entries that were foreign, damaged or of another type: treated as misses.
        invalidations: Calls that invalidated keys, tags or patterns here.
        store_errors: Commands that the second tier did not answer or refused.
        replay_queue: Invalidations waiting for the second tier to come back.
        replayed: Invalidations made up for.
        entries: Entries in process memory; ``size_bytes`` is 0 unless it is bounded by bytes.
        evictions: Entries that had to make room; ``expirations`` had reached their end.
        coherence: How process memory follows other processes now: ``"process"`` (no second tier),
            ``"tracking"``, ``"bus"``, ``"ttl"``, or one of these with ``" (down)"``.
        breaker: ``"closed"``, ``"open"``, or ``"none"`` without a second tier.
        load_s: Seconds spent in loaders.
    """

    hits: int = 0
    l1_hits: int = 0
    l2_hits: int = 0
    misses: int = 0
    loads: int = 0
    load_errors: int = 0
    load_s: float = 0.0
    stale: int = 0
    stores: int = 0
    refused: int = 0
    corrupt: int = 0
    invalidations: int = 0
    store_errors: int = 0
    replay_queue: int = 0
    replayed: int = 0
    entries: int = 0
    size_bytes: int = 0
    evictions: int = 0
    expirations: int = 0
    coherence: str = "process"
    breaker: str = "none"

    @property
    def hit_ratio(self) -> float:
        """Share of reads that were answered without a load, 0 to 1."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name, the ratio included."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"hit_ratio": self.hit_ratio}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loader returned."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A loader raised; ``served_stale`` tells whether an old value stood in."""

    key: str
    error: BaseException
    served_stale: bool


@dataclass(frozen=True, slots=True)
class NotKept:
    """A loaded value was handed out but cannot be kept: its type, or its tags, are of no use."""

    key: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Invalidated:
    """Keys, tags or a pattern were invalidated here."""

    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class StoreTrouble:
    """The second tier failed a command."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """The circuit breaker of the second tier opened or closed."""

    state: str


@dataclass(frozen=True, slots=True)
class CoherenceChanged:
    """Process memory started or stopped, because its channel came or went."""

    mode: str
    connected: bool


@dataclass(frozen=True, slots=True)
class CorruptEntry:
    """An entry of the second tier could not be decoded and counted as a miss."""

    key: str
    reason: str
