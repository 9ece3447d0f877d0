"""What the parts of a cache share: the tiers, what is under way, the clocks, the counts.

Nothing is read, written or loaded here; that is what the steps beside this file do with it.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.events import Hooks
from eventperf._core.flights import Flights
from eventperf._core.logs import logger
from eventperf.cache.entry import Entry, EntryMeta
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import same_end
from eventperf.cache.protocols import (
    BusState,
    CacheStore,
    FastTables,
    ForkAware,
    InvalidationBus,
    LocalStore,
    Serializer,
    SupportsBoard,
    SupportsBus,
    SupportsLease,
    SupportsTags,
    Sweeps,
    TellsForeign,
)
from eventperf.cache.stats import CoherenceChanged, CorruptEntry, Counts

from . import common
from .background import Background
from .breaker import Breaker
from .common import Common, common_of
from .fences import Fences, Guard, Ticket
from .fleet import Fleet
from .gate import Gate
from .keeper import Keeper
from .locks import Locks
from .plain_ways import InThreads, PlainWays
from .replay import Replay
from .server_clock import Clocks
from .sizes import Sizes
from .tag_copies import TagCopies
from .tallies import Tallies
from .tier import Tier
from .wakes import Wakes

SPACES_MOST = 10_000
_log = logger("eventperf.cache")


class Core:
    """The state behind one CacheManager."""

    l1_open: bool

    def __init__(
        self,
        *,
        space: Space,
        options: CacheOptions,
        l1: LocalStore | None,
        store: CacheStore | None,
        serializer: Serializer | None,
        coherence: str,
        clock: Clock,
        random: Random,
    ) -> None:
        self.space = space
        self.spaces: dict[str, Space] = {space.name: space}
        self.options = options
        self.l1 = l1
        self.sweeps: Sweeps | None = l1 if isinstance(l1, Sweeps) else None
        self.tables: FastTables | None = l1 if isinstance(l1, FastTables) else None
        self.serializer = serializer
        self.clock = clock
        self.now: Callable[[], float] = clock.monotonic
        self.clocks: Clocks = Clocks(clock.time, None, None)
        self.random: Random = random
        self.hooks: Hooks = Hooks()
        self.counts: Counts = Counts()
        self.tallies: Tallies = Tallies()
        self.sizes: Sizes = Sizes()
        self.load_s: float = 0.0
        self.fences: Fences = Fences(clock.monotonic)
        self.flights: Flights = self.fences.flights
        self.wakes: Wakes = Wakes()
        self.tag_cache: TagCopies = TagCopies.beside(l1)
        self.background: Background = Background(self.flights)
        self.counters: OrderedDict[str, Entry] = OrderedDict()
        self.counters_mu: Any = threading.RLock()
        self.writing: Any = threading.RLock()
        self.locks: Locks = Locks(clock.monotonic)
        self._unfollowed: dict[str, str] = {}
        self.enabled = True
        self.is_fast: bool = type(clock) is SystemClock and self.tables is not None
        self.tier: Tier | None = None
        self.bus: InvalidationBus | None = None
        self.asked: str = coherence
        self.coherence: str = coherence
        self.l1_open = l1 is not None and (store is None or coherence == "ttl")
        self._last_soft: float = 0.0
        self._last_tags: tuple[str, ...] = ()
        self.wall: Callable[[], float] = clock.time
        self._link(store, coherence)
        _cores.add(self)

    def _link(self, store: CacheStore | None, coherence: str) -> None:
        """Build what a second tier needs; nothing is opened yet."""
        self.store = store
        self.common: Common | None = None
        self.replay: Replay | None = None
        self.breaker: Breaker | None = None
        self.keeper: Keeper | None = None
        self.gate: Gate | None = None
        self.fleet: Fleet | None = None
        if store is None:
            return
        shared = self.common = common_of(store)
        self.replay = self._replay_on(store, shared)
        self.breaker, self.keeper = shared.breaker, shared.keeper
        self.gate = Gate(store, self.breaker, self.replay.run, self.counts, self.hooks)
        self.breaker.join(self.gate)
        self.tier = Tier(store, self.gate)
        if self.tier.time is not None and isinstance(self.clock, SystemClock):  # a host's own is right
            self.clocks = Clocks(self.clock.time, shared.clock, self.tier.time)
        self.wall = self.clocks.now
        if isinstance(store, SupportsBoard):
            board = self.gate.verb("figures of processes", store.board, InThreads.of(store.board))
            self.fleet = Fleet(f"{self.space.tag_prefix[:-2]}x:", board, self.now)
        if isinstance(store, TellsForeign):
            store.on_foreign(self.corrupt_here)
        if isinstance(store, SupportsBus):
            channel = f"{self.space.tag_prefix[:-2]}x:bus"  # outside every prefix that is followed
            self.bus = store.bus(coherence=coherence, wants_l1=self.l1 is not None, channel=channel)
            self.bus.follow([self.space.outer, self.space.tag_prefix])
            self.tier.say_with(self.gate.verb("messages", self.bus.publish, self.bus.apublish))
        elif coherence != "ttl":
            self.coherence = "ttl"  # a store that cannot tell us of writes
            self.l1_open = self.l1 is not None

    def _replay_on(self, store: CacheStore, shared: Common) -> Replay:
        """What is made up for when the store is back."""
        plain = PlainWays(store)
        tags = store if isinstance(store, SupportsTags) else plain
        leases = store if isinstance(store, SupportsLease) else plain

        def bump(records: Sequence[str], settle_s: float) -> None:
            try:
                tags.bump_tags(records, self.salt(), settle_s=settle_s)
            except StoreUnavailable as error:
                if not error.permanent or tags is plain:
                    raise
                plain.bump_tags(records, self.salt(), settle_s=settle_s)

        return Replay(
            store,
            bump=bump,
            settle=lambda keys, settle_s: leases.settle(keys, settle_s=settle_s),
            tell=self._tell_replayed,
            whole_of=self.space.whole_of,
            now=self.now,
            again=shared.again,
        )

    # -- process memory ------------------------------------------------------------------------------

    def peek(self, local: str) -> Entry | None:
        """Return the entry of process memory, whatever its age."""
        return self.l1.get(local) if self.l1 is not None else None

    def hold(
        self,
        local: str,
        value: Any,
        soft_s: float,
        hard_s: float,
        tags: Sequence[str],
        load_s: float,
        guard: Guard,
    ) -> bool:
        """Keep a value in process memory, unless ``guard`` was fenced meanwhile; tell whether it stays."""
        l1 = self.l1
        if l1 is None or not self.l1_open or soft_s <= 0:
            return False
        if self._unfollowed and not self._is_followed(local):
            return False
        now = self.now()
        if self.sweeps is not None and (due := self.sweeps.next_due()) is not None and due <= now:
            self.sweeps.sweep(now)
        soft, hard = now + soft_s, now + hard_s
        if same_end(self._last_soft, soft, soft_s):
            hard += self._last_soft - soft
            soft = self._last_soft  # one object for many entries, 24 bytes saved in each
        else:
            self._last_soft = soft
        meta = None
        if tags or load_s >= 0.0005:
            tags = tuple(tags)
            if tags == self._last_tags:
                tags = self._last_tags
            self._last_tags = tags
            meta = EntryMeta(tags, load_s)
        if hard_s == soft_s:
            hard = soft
        l1.put(Entry(local, value, soft, hard, meta))
        # Look again after the deed: whoever fences does so before it drops the entry.
        if guard.holds(tags) and self.l1_open:
            return True
        l1.pop(local)
        return False

    def drop_keys(self, locals_: Sequence[str], *, but: Collection[Ticket] = ()) -> None:
        """Forget keys here: loads under way, reads under way (``but`` one's own), entries."""
        self.fences.fence(locals_, but=but)
        if self.l1 is not None:
            self.l1.drop(locals_)

    def drop_tags(self, space: Space, tags: Sequence[str]) -> None:
        """Forget here what carries one of ``tags``, and the copies of their versions."""
        inner = [space.inner + tag for tag in tags]
        self.fences.fence_tags(inner)
        self.tag_cache.forget([space.tag_prefix + tag for tag in tags])
        if self.l1 is not None:
            self.l1.drop_tags(inner)

    def drop_matching(self, matches: Callable[[Any], bool]) -> int:
        """Forget here every local key that ``matches``; return how many entries there were."""
        self.fences.fence_where(matches)
        if self.l1 is None:
            return 0
        held = self.l1.keys()
        return int(self.l1.drop([key for key in held if matches(key)]))

    def forget_all(self) -> None:
        """Anything may have been written: start from nothing."""
        self.tag_cache.clear()
        self.fences.fence_reads(None)
        if self.l1 is not None:
            self.l1.clear()
        self.wakes.wake_all()

    # -- what the bus says (Listener) ----------------------------------------------------------------

    def on_keys(self, outers: Sequence[str] | None, /) -> None:
        """Somebody wrote these outer keys; ``None`` for anything at all."""
        if outers is None:
            self.forget_all()
            return
        for outer in outers:
            self._drop_outer(outer)
        self.wakes.told(outers)

    def on_word(self, outer: str, /) -> None:
        """Another process says that it wrote a key, that a load of it has ended, or asks for our figures."""
        if self.fleet is not None and self.fleet.heard(outer):
            return
        if self.coherence != "tracking":  # else the server itself says what was written
            self._drop_outer(outer)
        self.wakes.wake(outer)

    def on_state(self, state: BusState, /) -> None:
        """The bus came, went or changed its way: process memory follows it."""
        if self.bus is None or self.asked == "ttl":
            return
        if state.coherence in ("tracking", "bus"):
            self.coherence = state.coherence
        opened = state.connected and state.coherence != "none"
        if not opened:
            self.l1_open = False
        self.forget_all()
        if opened:
            self.l1_open = self.l1 is not None
        if self.hooks.active:
            self.hooks.emit(CoherenceChanged(self.coherence, state.connected))

    def _drop_outer(self, outer: str) -> None:
        found = self.space.local_of(outer)
        if found is None:
            return
        local, is_tag = found
        if is_tag:
            self.tag_cache.forget([outer])
            self.fences.fence_reads(None)
            if self.l1 is not None:
                self.l1.drop_tags([local])
        else:
            self.fences.fence_reads((local,))
            if self.l1 is not None:
                self.l1.pop(local)

    # -- namespaces ----------------------------------------------------------------------------------

    def space_of(self, name: str | None) -> Space:
        """Return the namespace called ``name``, or the manager's own."""
        if name is None:
            return self.space
        found = self.spaces.get(name)
        if found is None:
            if len(self.spaces) >= SPACES_MOST:
                self.spaces = {self.space.name: self.space}  # made again at once; nothing is lost with them
            found = self.spaces[name] = Space(name, home=False)
            if self.bus is not None and self.asked != "ttl":
                self.bus.follow([found.outer, found.tag_prefix])
                if not self.bus.follows(found.outer):
                    self._unfollowed[found.inner] = found.outer
        return found

    def _is_followed(self, local: str) -> bool:
        """Tell whether we hear of writes in the namespace of a local key."""
        for inner, outer in list(self._unfollowed.items()):
            if local.startswith(inner):
                if self.bus is not None and not self.bus.follows(outer):
                    return False
                self._unfollowed.pop(inner, None)
        return True

    # -- small things --------------------------------------------------------------------------------

    @staticmethod
    def salt() -> str:
        """Return 16 hexadecimal characters that nobody else has."""
        return secrets.token_hex(8)

    def draw(self) -> float:
        """Return a uniform draw in (0, 1]."""
        return 1.0 - self.random.random()

    def corrupt(self, outer: str, reason: str) -> None:
        """What the second tier has under a key of ours is not ours: counted, and said once."""
        self.counts.corrupt += 1
        if self.breaker is not None and self.breaker.is_news("corrupt", reason):
            _log.warning(
                "cache: %r holds something that this cache cannot read (%s): a miss, replaced by the next "
                "load or set; keep other programs and releases apart by namespace= or another database",
                outer, reason,
            )  # fmt: skip
        if self.hooks.active:
            self.hooks.emit(CorruptEntry(outer, reason))

    def corrupt_here(self, outer: str) -> None:
        """The store has taken over what was no key of ours."""
        self.corrupt(outer, "a key of another type or content, taken over")

    def is_dirty(self, outer: str) -> bool:
        """Tell whether the second tier may hold a value that this process has invalidated."""
        return self.replay is not None and bool(len(self.replay)) and self.replay.is_dirty(outer)

    def replay_size(self) -> int:
        """Return how many invalidations wait."""
        return len(self.replay) if self.replay is not None else 0

    def _tell_replayed(self, words: list[str]) -> None:
        if self.coherence == "bus" and self.bus is not None:
            self.bus.publish(json.dumps(words).encode())

    def ensure_channel(self) -> None:
        """Start following other processes, on first use in this process."""
        if self.bus is not None:
            self.bus.start(self)

    def after_fork(self) -> None:
        """Make the child independent of the parent."""
        self.fences.after_fork()
        self.wakes.after_fork()
        self.tag_cache = TagCopies.beside(self.l1)
        self.background.after_fork()
        self.tallies.after_fork()
        self.sizes.after_fork()
        self.counters_mu = threading.RLock()
        self.writing = threading.RLock()
        self.locks.after_fork()
        if isinstance(self.l1, ForkAware):
            self.l1.after_fork()
        for part in (self.replay, self.common, self.fleet):
            if part is not None:
                part.after_fork()
        if self.bus is not None:
            self.bus.after_fork()
            self.l1_open = False
            if self.l1 is not None:
                self.l1.clear()

    def shut(self) -> None:
        """Stop background work and drop what process memory holds."""
        if self.breaker is not None and self.gate is not None:
            self.breaker.leave(self.gate)
        if self.replay is not None:
            self.replay.close()
        if self.bus is not None:
            self.bus.close()
            self.l1_open = False
        if self.l1 is not None:
            self.l1.clear()


_cores: weakref.WeakSet[Core] = weakref.WeakSet()


def _after_fork() -> None:
    common.after_fork()
    for core in list(_cores):
        core.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
