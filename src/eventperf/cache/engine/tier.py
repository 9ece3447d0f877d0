"""The second tier as the engine sees it: every verb in both forms, guarded, whatever the store can do.

The abilities of the store are asked for once, here. What it has not is done the plain way; what it turns out
to refuse for good (scripts that its user may not run) falls back to the plain way too, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventperf.cache.protocols import (
    AsyncCacheStore,
    CacheStore,
    Grant,
    SupportsAdd,
    SupportsKeys,
    SupportsLease,
    SupportsPutNew,
    SupportsShorten,
    SupportsTags,
    SupportsTime,
    SupportsTouch,
)

from .effects import Verb
from .gate import Gate
from .keeper import Renew
from .plain_ways import AsyncPlainWays, InThreads, PlainWays

Stored = tuple[str, bytes, float]
"""A key, its bytes, and how long they live."""

_NO_LEASE = "each process loads for itself"
_NO_TAGS = "tags are written without a script, the later of two writes wins"
_NO_TOUCH = "touch reads and writes the entry back"


class Tier:
    """The verbs of one second tier."""

    get: Verb[[str], bytes | None]
    get_many: Verb[[Sequence[str]], Sequence[bytes | None]]
    set_many: Verb[[Sequence[Stored]], None]
    delete: Verb[[Sequence[str]], int]
    delete_pattern: Verb[..., int]
    incr: Verb[..., int]
    acquire_many: Verb[..., list[Grant]]
    store_many: Verb[[str, Sequence[Stored]], list[bool]]
    release_many: Verb[[str, Sequence[str]], None]
    settle: Verb[..., None]
    tag_versions: Verb[[Sequence[str], str, float], list[str]]
    bump_tags: Verb[..., None]
    touch: Verb[[str, float, float, float], bool]

    def __init__(self, store: CacheStore, gate: Gate) -> None:
        self.store: CacheStore = store
        self.gate: Gate = gate
        self.url: str = store.url
        a: AsyncCacheStore = store if isinstance(store, AsyncCacheStore) else InThreads(store)
        verb = gate.verb
        self.get = verb("GET", store.get, a.aget)
        self.get_many = verb("reads of many keys", store.get_many, a.aget_many)
        self.set_many = verb("writes", store.set_many, a.aset_many)
        self.delete = verb("deletions", store.delete, a.adelete)
        self.delete_pattern = verb("scans", store.delete_pattern, a.adelete_pattern)
        self.incr = verb("counters", store.incr, a.aincr)
        plain = PlainWays(store)
        aplain = AsyncPlainWays(a, plain)
        self._leases(store, plain, aplain)
        self._tags(store, plain, aplain)
        self._touch(store, plain, aplain)
        self.add: Verb[[str, int | None], tuple[int, int, int]] | None = None
        self.keys: Verb[[str], list[str]] | None = None
        if isinstance(store, SupportsKeys):
            self.keys = verb("scans", store.keys, store.akeys)
        self.put_new: Verb[[str, bytes, float, bytes], bool] = verb("add", plain.put_new, aplain.put_new)
        if isinstance(store, SupportsPutNew):
            self.put_new = verb("add", store.put_new, store.aput_new)  # refused is better than shared
        self.time: Verb[[str], float | None] | None = None
        if isinstance(store, SupportsTime):
            self.time = verb("its time", store.server_time, store.aserver_time)
        if isinstance(store, SupportsAdd):
            self.add = verb("numbers", store.add, store.aadd)

    def _leases(self, store: object, plain: PlainWays, aplain: AsyncPlainWays) -> None:
        verb, choose = self.gate.verb, self.gate.ability
        self.acquire_many = verb("leases", plain.acquire_many, aplain.acquire_many)
        self.store_many = verb("leases", plain.store_many, aplain.store_many)
        self.release_many = verb("leases", plain.release_many, aplain.release_many)
        self.settle = verb("settling", plain.settle, aplain.settle)
        self.renew_many: Renew = plain.renew_many
        self.has_leases: bool = False
        self.take: Verb[..., list[Grant]] | None = None  # as ``acquire_many``, but never a plain way
        self.renew: Verb[..., None] | None = None
        self.give_back: Verb[..., None] | None = None
        self.shorten: Verb[..., None] | None = None
        if isinstance(store, SupportsShorten):
            self.shorten = verb("leases", store.shorten, store.ashorten)
        if not isinstance(store, SupportsLease):
            return
        self.has_leases = True
        self.take = verb("locks", store.acquire_many, store.aacquire_many)
        self.renew = verb("locks", store.renew_many, InThreads.of(store.renew_many))
        self.give_back = verb("locks", store.release_many, store.arelease_many)
        what = "leases"
        self.renew_many = store.renew_many
        self.acquire_many = choose(
            what, verb(what, store.acquire_many, store.aacquire_many), self.acquire_many, _NO_LEASE
        )
        self.store_many = choose(
            what, verb(what, store.store_many, store.astore_many), self.store_many, _NO_LEASE
        )
        self.release_many = choose(
            what, verb(what, store.release_many, store.arelease_many), self.release_many, _NO_LEASE
        )
        self.settle = verb("settling", store.settle, store.asettle)

    def _tags(self, store: object, plain: PlainWays, aplain: AsyncPlainWays) -> None:
        what, verb, choose = "tags", self.gate.verb, self.gate.ability
        self.tag_versions = verb(what, plain.tag_versions, aplain.tag_versions)
        self.bump_tags = verb(what, plain.bump_tags, aplain.bump_tags)
        if isinstance(store, SupportsTags):
            own = verb(what, store.tag_versions, store.atag_versions)
            self.tag_versions = choose(what, own, self.tag_versions, _NO_TAGS)
            bump = verb(what, store.bump_tags, store.abump_tags)
            self.bump_tags = choose(what, bump, self.bump_tags, _NO_TAGS)

    def _touch(self, store: object, plain: PlainWays, aplain: AsyncPlainWays) -> None:
        what, verb = "touch", self.gate.verb
        self.touch = verb(what, plain.touch, aplain.touch)
        if isinstance(store, SupportsTouch):
            own = verb(what, store.touch, store.atouch)
            self.touch = self.gate.ability(what, own, self.touch, _NO_TOUCH)

    def say_with(self, publish: Verb[[bytes], None]) -> None:
        """Tell other processes by ``publish``."""
        self.publish = publish
