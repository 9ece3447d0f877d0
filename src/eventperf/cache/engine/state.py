"""What the parts of a cache share: the tiers, the tables of loads and reads, the clocks, the counts.

No I/O happens here except through :meth:`Core.call` and :meth:`Core.acall`, which also guard the second
tier with the circuit breaker.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.events import Hooks
from eventperf._core.flights import VALUE, Flights
from eventperf.cache.backends.local.memory import MemoryStore
from eventperf.cache.entry import Entry, EntryMeta
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.stats import BreakerChanged, CoherenceChanged, Counts, StoreTrouble

from .breaker import Breaker
from .keeper import Keeper

REPLAY_MAX = 10_000
SAME_END_S = 0.05
"""Entries stored one after another may share an end that is so much, or a thousandth of their life, early."""


class Ticket:
    """A read of the second tier under way; an invalidation that arrives meanwhile fences it."""

    __slots__ = ("fenced",)

    def __init__(self) -> None:
        self.fenced: bool = False


class Core:
    """The state behind one CacheManager."""

    l1_open: bool

    def __init__(
        self,
        *,
        space: Space,
        options: CacheOptions,
        l1: Any,
        store: Any,
        serializer: Any,
        coherence: str,
        clock: Clock,
        random: Random,
    ) -> None:
        self.space = space
        self.spaces: dict[str, Space] = {space.name: space}
        self.options = options
        self.l1 = l1
        self.store = store
        self.serializer = serializer
        self.coherence = coherence
        self.clock = clock
        self.now: Callable[[], float] = clock.monotonic
        self.wall: Callable[[], float] = clock.time
        self.random = random
        self.hooks: Hooks = Hooks()
        self.counts: Counts = Counts()
        self.load_s: float = 0.0
        self.flights: Flights = Flights()
        self.wakes: Flights = Flights()
        self.pushed: set[str] = set()
        self.eager: set[str] = set()
        self.enabled = True
        self.is_fast: bool = type(clock) is SystemClock and type(l1) is MemoryStore
        self.channel: Any = None
        self.breaker: Breaker | None = (
            Breaker(self._probe, self._breaker_changed, self._replay) if store is not None else None
        )
        self.keeper: Keeper = Keeper(store)
        self._last_soft: float = 0.0
        self._last_tags: tuple[str, ...] = ()
        self.l1_open = l1 is not None and (store is None or coherence == "ttl")
        self._reset_reads()
        _cores.add(self)

    def _reset_reads(self) -> None:
        self.mu: Any = threading.Lock()
        self._reads: dict[str, list[Ticket]] = {}
        self.tag_cache: dict[str, str] = {}
        self._settling: dict[str, float] = {}
        self.counters: dict[str, Entry] = {}
        self.replay_keys: dict[str, None] = {}
        self.replay_tags: dict[str, None] = {}
        self.replay_patterns: dict[str, None] = {}

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
        guard: Any,
    ) -> None:
        """Keep a value in process memory, unless ``guard`` (a ticket or a flight) was fenced meanwhile."""
        if not self.l1_open or soft_s <= 0:
            return
        now = self.now()
        wheel = getattr(self.l1, "wheel", None)
        if wheel is not None and (due := wheel.next_due()) is not None and due <= now:
            self.l1.sweep(now)
        soft = now + soft_s
        hard = now + hard_s
        if 0.0 <= soft - self._last_soft < min(SAME_END_S, soft_s / 1000):
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
        self.l1.put(Entry(local, value, soft, hard, meta))
        # Look again after the deed: whoever fences does so before it drops the entry.
        fenced_tags = getattr(guard, "fenced_tags", None)
        if guard.fenced or not self.l1_open or (fenced_tags and not fenced_tags.isdisjoint(tags)):
            self.l1.pop(local)

    def open_ticket(self, local: str) -> Ticket:
        """Announce a read of the second tier that may end in process memory."""
        ticket = Ticket()
        with self.mu:
            self._reads.setdefault(local, []).append(ticket)
        return ticket

    def shut_ticket(self, local: str, ticket: Ticket) -> None:
        """End it."""
        with self.mu:
            tickets = self._reads.get(local)
            if tickets is not None and ticket in tickets:
                tickets.remove(ticket)
                if not tickets:
                    del self._reads[local]

    def fence_reads(self, locals_: Iterable[str] | None) -> None:
        """Reads under way of these keys (``None``: of all) must not end in process memory."""
        if not self._reads:
            return
        with self.mu:
            keys = list(self._reads) if locals_ is None else locals_
            for key in keys:
                for ticket in self._reads.get(key, ()):
                    ticket.fenced = True

    def drop_keys(self, locals_: Sequence[str]) -> None:
        """Forget keys here: loads under way, reads under way, entries."""
        self.flights.fence(*locals_)
        self.fence_reads(locals_)
        if self.l1 is not None:
            self.l1.drop(locals_)

    def drop_tags(self, tags: Sequence[str]) -> None:
        """Forget here what carries one of ``tags``."""
        self.flights.fence_tags(tuple(tags))
        self.fence_reads(None)
        if self.l1 is not None:
            self.l1.drop_tags(tags)

    def drop_matching(self, matches: Any) -> int:
        """Forget here every local key that ``matches``; return how many entries there were."""
        self.flights.fence_where(matches)
        self.fence_reads(None)
        if self.l1 is None:
            return 0
        held: list[str] = self.l1.keys()
        return int(self.l1.drop([key for key in held if matches(key)]))

    # -- settling ------------------------------------------------------------------------------------

    def settle(self, locals_: Iterable[str], settle_s: float) -> None:
        """Refuse to keep loads of these keys for a while."""
        now = self.now()
        with self.mu:
            self._settling = {k: t for k, t in self._settling.items() if t > now}
            for key in locals_:
                self._settling[key] = now + settle_s

    def is_settling(self, keys: Iterable[str]) -> bool:
        """Tell whether one of ``keys`` may not be stored yet."""
        if not self._settling:
            return False
        now = self.now()
        return any(self._settling.get(key, 0.0) > now for key in keys)

    # -- what the channel says -----------------------------------------------------------------------

    def told(self, outers: Sequence[str] | None) -> None:
        """Somebody wrote these outer keys; ``None`` for anything at all."""
        if outers is None:
            with self.mu:
                self.tag_cache.clear()
            self.fence_reads(None)
            if self.l1 is not None:
                self.l1.clear()
            for outer in self.wakes.waited_for():
                self.wake(outer)
            return
        for outer in outers:
            self._drop_outer(outer)
            if outer in self.wakes:
                # A lease was taken or a waiter made its mark, most likely: those need not wake anybody.
                if outer in self.eager:
                    self.wake(outer)
                else:
                    self.pushed.add(outer)

    def told_one(self, outer: str) -> None:
        """Another process says that it wrote a key, or that a load of it has ended."""
        if self.coherence != "tracking":  # else the server itself says what was written
            self._drop_outer(outer)
        self.wake(outer)

    def _drop_outer(self, outer: str) -> None:
        for space in list(self.spaces.values()):
            if outer.startswith(space.outer):
                local = space.inner + outer[len(space.outer) :]
                self.fence_reads((local,))
                if self.l1 is not None:
                    self.l1.pop(local)
                return
            if outer.startswith(space.tag_prefix):
                with self.mu:
                    self.tag_cache.pop(outer, None)
                self.fence_reads(None)
                if self.l1 is not None:
                    self.l1.drop_tags([space.inner + outer[len(space.tag_prefix) :]])
                return

    def wake(self, outer: str) -> None:
        """Wake whoever waits for a load of another process."""
        if len(self.wakes):
            flight, leads = self.wakes.join(outer)
            del leads
            self.wakes.land(flight, VALUE)

    def channel_state(self, connected: bool) -> None:
        """The channel came or went: process memory follows it."""
        opened = connected and self.l1 is not None
        if not connected:
            self.l1_open = False
            self.told(None)
        else:
            self.told(None)
            self.l1_open = opened
        if self.hooks.active:
            self.hooks.emit(CoherenceChanged(self.coherence, connected))

    # -- the second tier -----------------------------------------------------------------------------

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Run a verb of the second tier, unless the breaker is open."""
        breaker = self.breaker
        if breaker is not None and breaker.is_open:
            raise StoreUnavailable(self.store.url, "circuit breaker is open", True)
        try:
            return getattr(self.store, name)(*args, **kwargs)
        except StoreUnavailable as error:
            self.trouble(error)
            raise

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The same for tasks."""
        breaker = self.breaker
        if breaker is not None and breaker.is_open:
            raise StoreUnavailable(self.store.url, "circuit breaker is open", True)
        try:
            return await getattr(self.store, "a" + name)(*args, **kwargs)
        except StoreUnavailable as error:
            self.trouble(error)
            raise

    def trouble(self, error: StoreUnavailable) -> None:
        """Count a failed command; silence opens the breaker."""
        self.counts.store_errors += 1
        if error.silent and self.breaker is not None:
            self.breaker.trip()
        if self.hooks.active:
            self.hooks.emit(StoreTrouble(error))

    def _probe(self) -> None:
        self.store.ping()

    def _breaker_changed(self, state: str) -> None:
        if self.hooks.active:
            self.hooks.emit(BreakerChanged(state))

    # -- invalidations that could not be said --------------------------------------------------------

    def queue_replay(
        self, keys: Iterable[str] = (), tags: Iterable[str] = (), patterns: Iterable[str] = ()
    ) -> None:
        """Remember outer keys, tag records and patterns to invalidate once the second tier is back."""
        with self.mu:
            for queue, items in (
                (self.replay_keys, keys), (self.replay_tags, tags), (self.replay_patterns, patterns),
            ):  # fmt: skip
                for item in items:
                    if len(queue) < REPLAY_MAX:
                        queue[item] = None
        if self.breaker is not None and not self.breaker.is_open:
            self.breaker.trip()  # its probe replays before it lets readers through

    def is_dirty(self, outer: str) -> bool:
        """Tell whether the second tier may hold a value of ``outer`` that we have invalidated."""
        if outer in self.replay_keys:
            return True
        return bool(self.replay_patterns)

    def replay_size(self) -> int:
        """Return how many invalidations wait."""
        return len(self.replay_keys) + len(self.replay_tags) + len(self.replay_patterns)

    def _replay(self) -> None:
        with self.mu:
            keys, tags, patterns = list(self.replay_keys), list(self.replay_tags), list(self.replay_patterns)
        for start in range(0, len(keys), 500):
            self.store.delete(keys[start : start + 500])
        if tags:
            self.store.bump_tags(tags, self.salt())
        for pattern in patterns:
            self.store.delete_pattern(pattern)
        if self.coherence == "bus":
            self.store.publish(json.dumps([*keys, *tags, *("*" + p for p in patterns)]).encode())
        with self.mu:
            for queue, done in (
                (self.replay_keys, keys), (self.replay_tags, tags), (self.replay_patterns, patterns),
            ):  # fmt: skip
                for item in done:
                    queue.pop(item, None)
        self.counts.replayed += len(keys) + len(tags) + len(patterns)

    # -- small things --------------------------------------------------------------------------------

    @staticmethod
    def salt() -> str:
        """Return 16 hexadecimal characters that nobody else has."""
        return secrets.token_hex(8)

    def draw(self) -> float:
        """Return a uniform draw in (0, 1]."""
        return 1.0 - self.random.random()

    def space_of(self, name: str | None) -> Space:
        """Return the namespace called ``name``, or the manager's own."""
        if name is None:
            return self.space
        found = self.spaces.get(name)
        if found is None:
            found = self.spaces[name] = Space(name, home=False)
            if self.channel is not None:
                self.channel.add_prefix(found)
        return found

    def ensure_channel(self) -> None:
        """Start following other processes, on first use in this process."""
        if self.channel is not None:
            self.channel.ensure(self)

    def after_fork(self) -> None:
        """Make the child independent of the parent."""
        self._reset_reads()
        if isinstance(self.l1, MemoryStore):
            self.l1.after_fork()
        if self.breaker is not None:
            self.breaker.after_fork()
        self.keeper.after_fork()
        if self.channel is not None:
            self.channel.after_fork()
            self.l1_open = False
            if self.l1 is not None:
                self.l1.clear()


_cores: weakref.WeakSet[Core] = weakref.WeakSet()


def _after_fork() -> None:
    for core in list(_cores):
        core.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
