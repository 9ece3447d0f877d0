"""What a cached function needs of the manager that it is bound to at its first call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from eventperf._core.durations import Duration
from eventperf.cache.options import CacheOptions

Tags = Sequence[str] | Callable[[Any], Sequence[str]]


class Manager(Protocol):
    """A CacheManager, as far as decorating goes."""

    options: CacheOptions

    @property
    def store(self) -> Any: ...

    def settled(self, options: CacheOptions, /) -> CacheOptions: ...

    def get_or_load(
        self, key: str, loader: Callable[[], Any], *, tags: Tags = (), options: CacheOptions | None = None
    ) -> Any: ...

    def aget_or_load(
        self, key: str, loader: Callable[[], Any], *, tags: Tags = (), options: CacheOptions | None = None
    ) -> Awaitable[Any]: ...

    def refresh(
        self, key: str, loader: Callable[[], Any], *, tags: Tags = (), options: CacheOptions | None = None
    ) -> Any: ...

    def arefresh(
        self, key: str, loader: Callable[[], Any], *, tags: Tags = (), options: CacheOptions | None = None
    ) -> Awaitable[Any]: ...

    def delete(self, *keys: str, namespace: str | None = None) -> int: ...

    async def adelete(self, *keys: str, namespace: str | None = None) -> int: ...

    def invalidate_tags(
        self, *tags: str, settle: Duration | None = None, namespace: str | None = None
    ) -> None: ...

    async def ainvalidate_tags(
        self, *tags: str, settle: Duration | None = None, namespace: str | None = None
    ) -> None: ...

    def count(self, served: Callable[[], int], owner: object, /) -> None:
        """Add to the figures what a cached function answers from its fast table, while ``owner`` lives."""
        ...

    def uncount(self, served: Callable[[], int], /) -> None:
        """From now on it answers for another manager."""
        ...

    def alias(self, key: str, table: dict[Any, Any], at: Any, options: CacheOptions, /) -> None:
        """Let the function's fast table point at the entry of ``key``."""
        ...
