"""How leases, tags and a new life are done on a store that can only get, set and delete.

Good enough for a store of one process or a server that refuses scripts: within this process every promise
holds; among processes a load may happen once each, and the later of two writes of a tag's record wins.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar

from typing_extensions import ParamSpec

from eventperf.cache.protocols import AsyncCacheStore, CacheStore, Grant, Item
from eventperf.cache.values.envelope import SETTLING, VALUE, kind, renewed, settling_mark, times_of

P = ParamSpec("P")
T = TypeVar("T")

TAG_LIFE_S = 7 * 86400.0
_VERSION: Final = re.compile(rb"[cis]\d{13}-[\w-]{0,49}")


def version(letter: str, at_s: float, salt: str) -> str:
    """Return the text of a tag's record."""
    return f"{letter}{int(at_s * 1000):013d}-{salt}"


def version_in(record: bytes | None) -> str:
    """Return the text of a tag's record, nothing for what is none.

    >>> version_in(b"c1700000000000-ab"), version_in(b"hello")
    ('c1700000000000-ab', '')
    """
    if record is None or not _VERSION.fullmatch(record):
        return ""
    return record.decode()


class InThreads:
    """A store without a form for tasks, for tasks: each call takes a thread of the loop's own."""

    @staticmethod
    def of(plain: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        """Return one method for tasks."""

        async def task(*args: P.args, **options: P.kwargs) -> T:
            return await asyncio.to_thread(plain, *args, **options)

        return task

    def __init__(self, store: CacheStore) -> None:
        self._store = store

    async def aget(self, key: str, /) -> bytes | None:
        return await asyncio.to_thread(self._store.get, key)

    async def aget_many(self, keys: Sequence[str], /) -> Sequence[bytes | None]:
        return await asyncio.to_thread(self._store.get_many, keys)

    async def aset_many(self, items: Sequence[Item], /) -> None:
        await asyncio.to_thread(self._store.set_many, items)

    async def adelete(self, keys: Sequence[str], /) -> int:
        return await asyncio.to_thread(self._store.delete, keys)

    async def adelete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int:
        return await asyncio.to_thread(self._store.delete_pattern, pattern, dry_run=dry_run)

    async def aincr(self, key: str, amount: int, /, *, ttl_s: float) -> int:
        return await asyncio.to_thread(self._store.incr, key, amount, ttl_s=ttl_s)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._store.close)


class PlainWays:
    """Abilities made of ``get_many``, ``set_many`` and ``delete``, by threads."""

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self._one_at_a_time = threading.RLock()

    def acquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: Collection[str]
    ) -> list[Grant]:
        return _grants(keys, self._store.get_many(keys), force)

    def store_many(self, token: str, items: Sequence[Item], /) -> list[bool]:
        self._store.set_many(items)
        return [True] * len(items)

    def release_many(self, token: str, keys: Sequence[str], /) -> None:
        return None

    def renew_many(self, token: str, keys: Sequence[str], /, *, lease_s: float) -> None:
        return None

    def settle(self, keys: Sequence[str], /, *, settle_s: float) -> None:
        self._store.set_many([(key, settling_mark(), settle_s) for key in keys])

    def tag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]:
        known = self._store.get_many(keys)
        made, out = _versions(keys, known, salt, life_s)
        if made:
            self._store.set_many(made)
        return out

    def bump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None:
        self._store.set_many(_bumps(keys, salt, settle_s))

    def put_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool:
        with self._one_at_a_time:
            if not _is_free(self._store.get(key), times):
                return False
            self._store.set_many([(key, blob, ttl_s)])
            return True

    def touch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool:
        blob = self._store.get(key)
        new = renewed(blob, soft, hard) if blob is not None else None
        if new is None:
            return False
        self._store.set_many([(key, new, ttl_s)])
        return True


class AsyncPlainWays:
    """The same by tasks."""

    def __init__(self, store: AsyncCacheStore, plain: PlainWays) -> None:
        self._store = store
        self._plain = plain

    async def acquire_many(
        self, keys: Sequence[str], token: str, /, *, lease_s: float, force: Collection[str]
    ) -> list[Grant]:
        return _grants(keys, await self._store.aget_many(keys), force)

    async def store_many(self, token: str, items: Sequence[Item], /) -> list[bool]:
        await self._store.aset_many(items)
        return [True] * len(items)

    async def release_many(self, token: str, keys: Sequence[str], /) -> None:
        return None

    async def settle(self, keys: Sequence[str], /, *, settle_s: float) -> None:
        await self._store.aset_many([(key, settling_mark(), settle_s) for key in keys])

    async def tag_versions(self, keys: Sequence[str], salt: str, life_s: float, /) -> list[str]:
        known = await self._store.aget_many(keys)
        made, out = _versions(keys, known, salt, life_s)
        if made:
            await self._store.aset_many(made)
        return out

    async def bump_tags(self, keys: Sequence[str], salt: str, /, *, settle_s: float = 0.0) -> None:
        await self._store.aset_many(_bumps(keys, salt, settle_s))

    async def put_new(self, key: str, blob: bytes, ttl_s: float, times: bytes, /) -> bool:
        return await asyncio.to_thread(self._plain.put_new, key, blob, ttl_s, times)  # a lock for all

    async def touch(self, key: str, soft: float, hard: float, ttl_s: float, /) -> bool:
        blob = await self._store.aget(key)
        new = renewed(blob, soft, hard) if blob is not None else None
        if new is None:
            return False
        await self._store.aset_many([(key, new, ttl_s)])
        return True


def _is_free(blob: bytes | None, times: bytes) -> bool:
    if blob is None or kind(blob) != VALUE:
        return True
    return bool(times) and times_of(blob) == times


def _grants(keys: Sequence[str], blobs: Sequence[bytes | None], force: Collection[str]) -> list[Grant]:
    now = time.time()
    return [_grant(blob, key in force, now) for key, blob in zip(keys, blobs, strict=True)]


def _grant(blob: bytes | None, forced: bool, now: float) -> Grant:
    what = kind(blob) if blob is not None else b""
    if what == SETTLING:
        return Grant("settling")
    if what == VALUE and not forced:
        return Grant("present")
    return Grant("granted", now)


def _versions(
    keys: Sequence[str], known: Sequence[bytes | None], salt: str, life_s: float
) -> tuple[list[Item], list[str]]:
    new = version("c", time.time(), salt)
    texts = [version_in(reply) for reply in known]
    life = max(TAG_LIFE_S, 2 * life_s)
    made = [(key, new.encode(), life) for key, text in zip(keys, texts, strict=True) if not text]
    return made, [text or new for text in texts]


def _bumps(keys: Sequence[str], salt: str, settle_s: float) -> list[Item]:
    new = version("s" if settle_s else "i", time.time() + settle_s, salt).encode()
    return [(key, new, TAG_LIFE_S) for key in keys]
