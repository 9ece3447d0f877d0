"""The edges of the cache: what a second tier, a first tier and a serializer must be able to do.

A second tier is a :class:`CacheStore`. Everything else is an ability that is asked for once, when the manager
is made; a store without it is served by a plain way that is built on the methods of ``CacheStore``:

==========================  ==============================================================================
ability                     without it
==========================  ==============================================================================
:class:`AsyncCacheStore`    tasks call the plain methods in threads
:class:`SupportsLease`      one load per key and process, not among processes; fences hold in this process;
                            ``lock`` is refused
:class:`SupportsShorten`    a lease of another process is waited for as long as its store says
:class:`SupportsTags`       a tag's version is read and written, not swapped atomically
:class:`SupportsTime`       ends of entries are told in each host's own time
:class:`SupportsTouch`      an entry is read and written back with its new life
:class:`SupportsPutNew`     ``add`` has one winner in this process, not among processes
:class:`SupportsKeys`       ``keys`` is refused
:class:`SharesServer`       each cache finds out for itself that its server is away
:class:`SupportsBus`        process memory follows ``coherence="ttl"``
:class:`TellsForeign`       what it takes over from others is not counted as corrupt
==========================  ==============================================================================

Every method of a second tier raises :class:`~eventperf.cache.StoreUnavailable` and nothing else: with
``silent=True`` when there was no answer in time (that opens the circuit breaker), with ``silent=False`` when
the store answered that it will not do this, and then with ``permanent=True`` when it never will.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from .entry import Entry

Item = tuple[str, bytes, float]
"""A key, its bytes and its life in seconds, which may be infinite."""


@runtime_checkable
class Serializer(Protocol):
    """Values to bytes and back.

    ``name`` is one character kept with each value, so that bytes of another serializer are a miss.
    ``loads`` raises for bytes it did not write; the cache counts that as a miss. One that has
    ``check_objects(data, most)`` is asked before values of megabytes are read or written; it raises
    ``ValueError`` for bytes that would become more objects than ``most``.
    """

    @property
    def name(self) -> str: ...

    def dumps(self, value: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


@runtime_checkable
class SignsForKey(Protocol):
    """A serializer whose bytes are good under one key only: it is told the key, namespace and all.

    The cache calls these in place of ``dumps`` and ``loads``; bytes that were written for another key are to
    be refused as foreign ones are.
    """

    def dumps_for(self, value: Any, key: str, /) -> bytes: ...

    def loads_for(self, data: bytes, key: str, /) -> Any: ...


# -- the first tier --------------------------------------------------------------------------------------


@runtime_checkable
class LocalStore(Protocol):
    """A first tier: entries in this process. Called by many threads at once.

    ``drop_tags`` drops every entry whose ``meta.tags`` name one of the tags; ``pop`` and ``drop`` tell what
    was there.
    """

    def get(self, key: str, /) -> Entry | None: ...

    def put(self, entry: Entry, /) -> None: ...

    def pop(self, key: str, /) -> bool: ...

    def drop(self, keys: Iterable[str], /) -> int: ...

    def drop_tags(self, tags: Iterable[str], /) -> int: ...

    def keys(self) -> list[str]: ...

    def clear(self) -> None: ...

    def __len__(self) -> int: ...


@runtime_checkable
class Measured(Protocol):
    """A first tier with figures for ``stats()``."""

    bytes: int
    evictions: int
    expirations: int


@runtime_checkable
class Sweeps(Protocol):
    """A first tier that drops expired entries when it is told the time (monotonic)."""

    def next_due(self) -> float | None: ...

    def sweep(self, now: float, /) -> float | None: ...


@runtime_checkable
class FastTables(Sweeps, Protocol):
    """A first tier that lets cached functions and ``get`` look at its entries without a call.

    ``table`` holds the living entries by key; ``alias`` makes ``table[at]`` of a cached function point at
    an entry for as long as it lives and is fresh.
    """

    table: dict[str, Entry]

    def alias(self, entry: Entry, table: dict[Any, Any], at: Any, /) -> None: ...


@runtime_checkable
class ForkAware(Protocol):
    """Something with locks or threads that a forked child must not inherit."""

    def after_fork(self) -> None: ...


# -- the second tier -------------------------------------------------------------------------------------


@runtime_checkable
class CacheStore(Protocol):
    """A second tier: bytes under text keys, shared by processes. Called by many threads at once.

    ``None`` means absent. ``delete`` and ``delete_pattern`` return how many keys there were; a pattern is a
    glob with ``*``, ``?``, ``[ab]`` and the backslash. ``incr`` is atomic; ``ttl_s`` counts from the first.
    A sum of more than 64 bits (signed) is a ``CounterOverflow`` of that key, which stays.
    ``ping`` returns when the store can be used.
    """

    @property
    def url(self) -> str: ...

    def get(self, key: str, /) -> bytes | None: ...

    def get_many(self, keys: Sequence[str], /) -> Sequence[bytes | None]: ...

    def set_many(self, items: Sequence[Item], /) -> None: ...

    def delete(self, keys: Sequence[str], /) -> int: ...

    def delete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int: ...

    def incr(self, key: str, amount: int, /, *, ttl_s: float) -> int: ...

    def ping(self) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class AsyncCacheStore(Protocol):
    """The same as :class:`CacheStore` for tasks; usable from several loops at once."""

    async def aget(self, key: str, /) -> bytes | None: ...

    async def aget_many(self, keys: Sequence[str], /) -> Sequence[bytes | None]: ...

    async def aset_many(self, items: Sequence[Item], /) -> None: ...

    async def adelete(self, keys: Sequence[str], /) -> int: ...

    async def adelete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int: ...

    async def aincr(self, key: str, amount: int, /, *, ttl_s: float) -> int: ...

    async def aclose(self) -> None: ...


class Grant(NamedTuple):
    """The answer to asking for the lease of a key.

    Attributes:
        state: ``"granted"`` (load and store), ``"held"`` (someone else loads), ``"present"`` (a value
            appeared meanwhile) or ``"settling"`` (load, but nothing may be stored yet).
        wait_s: For ``"held"``: seconds until that lease ends unless it is renewed. For ``"granted"``: the
            time of the store, in seconds, that versions of tags can be compared with.
    """

    state: str
    wait_s: float = 0.0


@runtime_checkable
class SupportsLease(Protocol):
    """One loader among many processes, fenced.

    ``acquire_many`` has one winner per key among concurrent callers until its lease ends; ``force`` names
    keys whose present value the caller cannot use. ``store_many`` keeps each value only while the lease of
    ``token`` still stands, so that a key which was deleted, set or taken over meanwhile is not written, and
    tells which were kept; it is atomic per key. ``settle`` deletes keys and forbids storing loads of them
    for a while.
    """

    def acquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: Collection[str]
    ) -> list[Grant]: ...

    def store_many(self, token: str, items: Sequence[Item], /) -> list[bool]: ...

    def release_many(self, token: str, keys: Sequence[str], /) -> None: ...

    def renew_many(self, token: str, keys: Sequence[str], /, *, lease_s: float) -> None: ...

    def settle(self, keys: Sequence[str], /, *, settle_s: float) -> None: ...

    async def aacquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: Collection[str]
    ) -> list[Grant]: ...

    async def astore_many(self, token: str, items: Sequence[Item], /) -> list[bool]: ...

    async def arelease_many(self, token: str, keys: Sequence[str], /) -> None: ...

    async def asettle(self, keys: Sequence[str], /, *, settle_s: float) -> None: ...


@runtime_checkable
class SupportsShorten(Protocol):
    """Gives whoever leads a key so many seconds to renew, where its lease says more; atomic.

    The cache asks for it when a lease ends later than one of its own could: written by a host with another
    clock, or by something that is no cache.
    """

    def shorten(self, key: str, /, *, lease_s: float) -> None: ...

    async def ashorten(self, key: str, /, *, lease_s: float) -> None: ...


@runtime_checkable
class SupportsTags(Protocol):
    """Versions of tags under keys of their own.

    A version is a text of a letter, 13 digits (milliseconds of the store's clock) and ``"-"`` with ``salt``:
    ``c`` with the time when the record was created, ``i`` when the tag was invalidated, ``s`` with the time
    until which loads of the tag must not be stored. ``tag_versions`` creates missing records that live at
    least ``life_s``; ``bump_tags`` replaces records. Both are atomic per record.
    """

    def tag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]: ...

    def bump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None: ...

    async def atag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]: ...

    async def abump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None: ...


@runtime_checkable
class SupportsTime(Protocol):
    """Tells its time of day in seconds, by which hosts with different clocks agree on the ends of entries.

    ``Grant.wait_s`` of what is granted must be the same clock's. ``None`` where it is not to be had.
    """

    def server_time(self, key: str, /) -> float | None: ...

    async def aserver_time(self, key: str, /) -> float | None: ...


@runtime_checkable
class SupportsTouch(Protocol):
    """Gives an entry a new life in one step: wall-clock ends, and seconds to keep it."""

    def touch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool: ...

    async def atouch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool: ...


@runtime_checkable
class SupportsPutNew(Protocol):
    """Writes an entry unless there is one: one winner among concurrent callers in all processes.

    ``times`` are the 24 bytes at offset 34 of an entry that its caller has found of no use: one that still
    has them is replaced. Leases and marks are no entries.
    """

    def put_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool: ...

    async def aput_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool: ...


@runtime_checkable
class SupportsKeys(Protocol):
    """Lists the keys of entries (no leases, no marks) that match a glob; in no order, none twice."""

    def keys(self, pattern: str, /) -> list[str]: ...

    async def akeys(self, pattern: str, /) -> list[str]: ...


@runtime_checkable
class SupportsAdd(Protocol):
    """Adds to the whole number that an entry is, atomically, its life left alone.

    Returns state (1 added, 0 not there, 2 no such number), sum, and the rest of its life in milliseconds
    (negative for ever). An amount of ``None`` adds nothing.
    """

    def add(self, key: str, amount: int | None, /) -> tuple[int, int, int]: ...

    async def aadd(self, key: str, amount: int | None, /) -> tuple[int, int, int]: ...


@runtime_checkable
class SupportsBoard(Protocol):
    """Keeps a small note of each process for a while, where all can read them.

    ``board`` leaves the note ``name`` for ``life_s`` (not when ``most`` others live there) and returns the
    age in seconds and the bytes of each that lives, at most ``most`` and one; in one step.
    """

    def board(
        self, key: str, name: str, note: bytes, life_s: float, most: int, /
    ) -> list[tuple[float, bytes]]: ...


@runtime_checkable
class SharesServer(Protocol):
    """One of several stores that talk to one server over the same connections.

    Stores whose ``server`` is the same object (hashable, held weakly) are away together: one of them finds
    out for all, and it is told once.
    """

    @property
    def server(self) -> object: ...


@runtime_checkable
class TellsForeign(Protocol):
    """Finds under our keys what others left there, takes it over and says so."""

    def on_foreign(self, told: Callable[[str], None], /) -> None:
        """Call ``told``, a bound method that is held weakly, with each key that was taken over."""
        ...


class BusState(NamedTuple):
    """How well this process hears what others write.

    Attributes:
        connected: Nothing can be missed at the moment.
        coherence: How writes are told: ``"tracking"`` (by the server, whoever wrote), ``"bus"`` (by whoever
            writes: we have to publish too) or ``"none"`` (not at all: process memory stays off).
        label: What ``stats()`` shows.
    """

    connected: bool
    coherence: str
    label: str


class Listener(Protocol):
    """Who is told: called by the bus's own thread."""

    def on_keys(self, outers: Sequence[str] | None, /) -> None:
        """Outer keys were written or removed; ``None`` for anything at all."""
        ...

    def on_word(self, outer: str, /) -> None:
        """Another process says that it wrote this key, or that its load of it has ended."""
        ...

    def on_state(self, state: BusState, /) -> None:
        """The bus came, went or changed its way."""
        ...


class InvalidationBus(Protocol):
    """Tells this process what others wrote, and others what we wrote; made by :class:`SupportsBus`."""

    @property
    def connected(self) -> bool:
        """Whether nothing can have been missed."""
        ...

    @property
    def label(self) -> str:
        """How writes are told, for ``stats()``."""
        ...

    def follow(self, prefixes: Sequence[str], /) -> None:
        """Tell of keys that begin like these too, without a gap for those that were followed before."""
        ...

    def follows(self, prefix: str, /) -> bool:
        """Whether keys that begin like this are told of by now."""
        ...

    def start(self, listener: Listener, /) -> None:
        """Begin on first use in this process; cheap when it has begun."""
        ...

    def publish(self, message: bytes, /) -> None: ...

    async def apublish(self, message: bytes, /) -> None: ...

    def after_fork(self) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class SupportsBus(Protocol):
    """A second tier whose processes can hear of one another."""

    def bus(self, *, coherence: str, wants_l1: bool, channel: str) -> InvalidationBus: ...
