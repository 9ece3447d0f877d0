"""What the cache did, and what it tells to hooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
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

    @classmethod
    def told(cls, figures: object) -> CacheStats:
        """Return figures that another process told, as far as they are what they should be.

        >>> CacheStats.told({"hits": 7, "misses": "many", "breaker": "open"}).hits
        7
        """
        known = figures if isinstance(figures, Mapping) else {}
        found: dict[str, Any] = {}
        for field in fields(cls):
            value: Any = known.get(field.name)
            kind: Any = type(field.default)
            if isinstance(field.default, str):
                if isinstance(value, str):
                    found[field.name] = value[:40]
            elif type(value) in (int, float) and isfinite(value) and 0 <= value < 2**63:
                found[field.name] = kind(value)
        return cls(**found)

    @classmethod
    def summed(cls, all_: Iterable[CacheStats]) -> CacheStats:
        """Return the sum of several processes: ``"open"`` if a breaker is, and every way of coherence.

        >>> CacheStats.summed([CacheStats(hits=2), CacheStats(hits=1, misses=3)]).hit_ratio
        0.5
        """
        several = list(all_)
        total: dict[str, Any] = {
            f.name: sum(getattr(one, f.name) for one in several)
            for f in fields(cls)
            if not isinstance(f.default, str)
        }
        breakers = {one.breaker for one in several}
        total["breaker"] = "open" if "open" in breakers else ", ".join(sorted(breakers))
        total["coherence"] = ", ".join(sorted({one.coherence for one in several}))
        return cls(**total)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheProcess:
    """One process of a cache, as it told others.

    Attributes:
        host, pid, version: Where it runs, and the version of this package there.
        started_at: Since when its figures count, seconds since the epoch by its own clock.
        age_s: How long ago it told them, by the store's clock.
        is_here: Whether it is the one that asks.
    """

    host: str
    pid: int
    version: str
    started_at: float
    age_s: float
    stats: CacheStats
    is_here: bool = False

    @classmethod
    def told(cls, note: Mapping[str, Any], age_s: float, own_name: str) -> CacheProcess | None:
        """Return what a note says; ``None`` for one that is none."""
        host, pid, began = note.get("host"), note.get("pid"), note.get("began")
        if not isinstance(host, str) or type(pid) is not int or type(began) is not float:
            return None
        return cls(
            host=host[:100],
            pid=pid,
            version=str(note.get("version", ""))[:40],
            started_at=began if isfinite(began) else 0.0,
            age_s=age_s,
            stats=CacheStats.told(note.get("stats")),
            is_here=note.get("name", "") == own_name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFacts:
    """What is known of an entry beside its value.

    Attributes:
        fresh_s: Seconds for which it is fresh yet, negative for a stale one.
        kept_s: Seconds for which it is kept.
        age_s: Seconds since its load began; ``None`` in process memory, which does not know.
        load_s: How long that took, as far as it is known.
        size_bytes: Of the entry in the second tier, as it lies there; ``None`` in process memory.
        tags: Whose invalidation drops it.
    """

    fresh_s: float
    kept_s: float
    age_s: float | None = None
    load_s: float = 0.0
    size_bytes: int | None = None
    tags: tuple[str, ...] = ()


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
