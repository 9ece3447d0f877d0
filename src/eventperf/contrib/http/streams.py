"""Answers that are sent while they are made: handed through at once, and kept from a bounded copy.

A load that others wait for must end soon, which a stream need not. So a path whose answer was made in pieces
is remembered: from then on its answers are made for each who asks, nobody waits, and a copy grows beside.
What an invalidation has made old meanwhile is told by a guard: an entry with the tags of the answer that
stands in the cache from before the application is asked until the copy is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Protocol

from .rules import Asked, Headers, Rules
from .stored import Marks, Record, Unstorable

if TYPE_CHECKING:
    from eventperf.cache import CacheManager, CacheOptions

_PATHS: Final = 1_000  # of which it is known that their answers come in pieces
_MOST_TAGS: Final = 100
_GUARD_S: Final = 3_600.0  # an answer that takes longer is not kept


class Home(Protocol):
    """What streams need of the HTTP cache that they belong to; its words are explained there."""

    cache: CacheManager
    rules: Rules
    tags: list[str]
    streams: Streams

    def tag(self, asked: Asked) -> str: ...
    def key(self, text: str) -> str: ...
    def keeps(self, record: Record) -> float: ...
    def place_of(self, asked: Asked, record: Record, there: Any) -> str: ...
    def life_of(self, asked: Asked, status: int, headers: Headers, said: Marks) -> float | None: ...
    def record(self, asked: Asked, status: int, headers: Headers, body: bytes, said: Marks) -> Record: ...


class Streams:
    """The paths whose answers come in pieces."""

    def __init__(self, http: Home) -> None:
        self._http = http
        self._mu = threading.Lock()
        self._paths: OrderedDict[str, list[str]] = OrderedDict()

    def knows(self, asked: Asked) -> bool:
        """Tell whether the answers of a path come in pieces."""
        return asked.path in self._paths

    def note(self, asked: Asked, tags: Iterable[str]) -> None:
        """Remember that the answer of a path came in pieces, with these tags of its view."""
        with self._mu:
            known = dict.fromkeys([*tags, *self._paths.pop(asked.path, ())])
            self._paths[asked.path] = list(known)[:_MOST_TAGS]
            if len(self._paths) > _PATHS:
                self._paths.popitem(last=False)

    def forget(self, asked: Asked) -> None:
        """It came in one piece."""
        with self._mu:
            self._paths.pop(asked.path, None)

    def begin(self, asked: Asked) -> Copy:
        """Return a copy that is empty yet; the application is asked after that."""
        copy = self._copy(asked)
        self._http.cache.set(copy.guard, True, ttl=_GUARD_S, tags=copy.tags, options=copy.shared)
        return copy

    async def abegin(self, asked: Asked) -> Copy:
        """Return a copy that is empty yet; see :meth:`begin`."""
        copy = self._copy(asked)
        await self._http.cache.aset(copy.guard, True, ttl=_GUARD_S, tags=copy.tags, options=copy.shared)
        return copy

    def _copy(self, asked: Asked) -> Copy:
        tags = [*self._http.tags, self._http.tag(asked), *self._paths.get(asked.path, ())]
        return Copy(self._http, asked, list(dict.fromkeys(tags)))


class Copy:
    """What was sent of an answer so far, as long as it may be kept.

    Attributes:
        guard: Key of the entry that an invalidation removes.
        tags: Which ones do.
        shared: Options of that entry: no copy of it in process memory is asked.
        said: What the view says.
    """

    def __init__(self, http: Home, asked: Asked, tags: list[str]) -> None:
        self._http, self._asked = http, asked
        self.guard: str = http.key(f"{token_hex(16)}|{asked.url}")
        self.tags: list[str] = tags
        self.said: Marks = Marks()
        self.shared: CacheOptions | None = (
            None if http.cache.store is None else http.cache.options.but(use_l1=False)
        )
        self._status = self._size = self._pieces = 0
        self._headers: Headers = ()
        self._parts: list[bytes] | None = None  # None: it is not kept

    def start(self, status: int, headers: Headers) -> None:
        """Look at the head of the answer; an application may say it once more while nothing was sent."""
        self._status, self._headers = status, headers
        life = self._http.life_of(self._asked, status, headers, self.said)
        self._parts = None if life is None else []

    def add(self, part: bytes) -> None:
        """Take what was sent; what grows too large is let go."""
        self._size += len(part)
        self._pieces += bool(part)
        if self._size > self._http.rules.max_body_bytes:
            self._parts = None
        if self._parts is not None:
            self._parts.append(part)

    def drop(self) -> None:
        """Keep nothing of it."""
        self._parts = None

    def end(self) -> None:
        """Keep the whole answer, unless something that it depends on was invalidated meanwhile."""
        record, cache = self._record(), self._http.cache
        if record is not None and cache.get(self.guard, options=self.shared):
            key = self._http.place_of(self._asked, record, cache.get(self._http.key(self._asked.key())))
            cache.set(key, record, ttl=self._http.keeps(record), tags=record.tags)
            if not cache.get(self.guard, options=self.shared):  # invalidated while we stored
                cache.delete(key)
        cache.delete(self.guard)

    async def aend(self) -> None:
        """Keep the whole answer; see :meth:`end`."""
        record, cache = self._record(), self._http.cache
        if record is not None and await cache.aget(self.guard, options=self.shared):
            there = await cache.aget(self._http.key(self._asked.key()))
            key = self._http.place_of(self._asked, record, there)
            await cache.aset(key, record, ttl=self._http.keeps(record), tags=record.tags)
            if not await cache.aget(self.guard, options=self.shared):
                await cache.adelete(key)
        await cache.adelete(self.guard)

    def _record(self) -> Record | None:
        if self._parts is None:
            return None
        parts, self._parts = self._parts, None
        try:
            made = self._http.record(self._asked, self._status, self._headers, b"".join(parts), self.said)
        except Unstorable:
            return None
        if not set(made.tags) <= set(self.tags):
            self._http.streams.note(self._asked, self.said.tags)  # the next guard will have them
            return None
        if self._pieces < 2:
            self._http.streams.forget(self._asked)
        return made
