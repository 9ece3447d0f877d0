"""The edges of the cache: what a second tier, a first tier and a serializer must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from .entry import Entry


@runtime_checkable
class Serializer(Protocol):
    """Values to bytes and back.

    ``name`` is one character kept with each value, so that bytes of another serializer are a miss.
    ``loads`` raises for bytes it did not write; the cache counts that as a miss.
    """

    @property
    def name(self) -> str: ...

    def dumps(self, value: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


class Grant(NamedTuple):
    """The answer to asking for the lease of a key.

    Attributes:
        state: ``"granted"`` (load and store), ``"held"`` (someone else loads), ``"present"`` (a value
            appeared meanwhile) or ``"settling"`` (load, but nothing may be stored yet).
        wait_s: For ``"held"``: seconds until that lease ends unless it is renewed.
    """

    state: str
    wait_s: float = 0.0


class LocalStore(Protocol):
    """A first tier: entries in this process. Called by many threads at once."""

    def get(self, key: str, /) -> Entry | None: ...

    def put(self, entry: Entry, /) -> None: ...

    def pop(self, key: str, /) -> bool: ...

    def drop(self, keys: Iterable[str], /) -> int: ...

    def drop_tags(self, tags: Iterable[str], /) -> int: ...

    def keys(self) -> list[str]: ...

    def clear(self) -> None: ...

    def __len__(self) -> int: ...


class CacheStore(Protocol):
    """A second tier: bytes under text keys, shared by processes. Called by many threads at once.

    ``None`` means absent. Every method raises ``StoreUnavailable`` when the server does not answer in
    time. ``ttl_s`` may be infinite.
    """

    @property
    def url(self) -> str: ...

    def get(self, key: str, /) -> bytes | None: ...

    def get_many(self, keys: Sequence[str], /) -> list[bytes | None]: ...

    def set_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None: ...

    def delete(self, keys: Sequence[str], /) -> int: ...

    def delete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int: ...

    def incr(self, key: str, amount: int, /, *, ttl_s: float) -> int: ...

    def close(self) -> None: ...


class AsyncCacheStore(Protocol):
    """The same as :class:`CacheStore` for tasks; usable from several loops at once."""

    async def aget(self, key: str, /) -> bytes | None: ...

    async def aget_many(self, keys: Sequence[str], /) -> list[bytes | None]: ...

    async def aset_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None: ...

    async def adelete(self, keys: Sequence[str], /) -> int: ...

    async def adelete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int: ...

    async def aincr(self, key: str, amount: int, /, *, ttl_s: float) -> int: ...

    async def aclose(self) -> None: ...


class SupportsLease(Protocol):
    """One loader among many processes, fenced.

    ``acquire`` has one winner among concurrent callers until its lease ends. ``store`` keeps the bytes
    only while the lease of ``token`` still stands, so a key that was deleted or taken over meanwhile is
    not written; it is atomic. ``settle`` forbids storing loads for a while.
    """

    def acquire(self, key: str, token: str, /, *, lease_s: float, force: bool) -> Grant: ...

    def store(self, key: str, token: str, blob: bytes, /, *, ttl_s: float) -> bool: ...

    def release(self, key: str, token: str, /) -> None: ...

    def settle(self, keys: Sequence[str], /, *, settle_s: float) -> None: ...

    async def aacquire(self, key: str, token: str, /, *, lease_s: float, force: bool) -> Grant: ...

    async def astore(self, key: str, token: str, blob: bytes, /, *, ttl_s: float) -> bool: ...

    async def arelease(self, key: str, token: str, /) -> None: ...

    async def asettle(self, keys: Sequence[str], /, *, settle_s: float) -> None: ...


class InvalidationBus(Protocol):
    """Tells this process what others wrote.

    ``connected`` is true while nothing can have been missed; ``on_keys`` gets outer keys (``None`` for
    "everything"), ``on_state`` each change of ``connected``.
    """

    @property
    def connected(self) -> bool: ...

    def start(
        self, on_keys: Callable[[Sequence[str] | None], None], on_state: Callable[[bool], None], /
    ) -> None: ...

    def close(self) -> None: ...
