"""Sessions in the cache for which a logout is a logout, also while the server does not answer.

``SESSION_ENGINE = "eventperf.contrib.django.sessions"``, with a cache of :class:`~.cache.EventPerfCache`.

Django's own engine takes a session that could not be read for none: it forgets its key, so that a logout
deletes nothing and the cookie is valid again once the server is back; and whoever only looks at a page is
logged out. Here such a session keeps its key: the logout is made up for as soon as the server answers,
nothing is written over what could not be read, and cookies stay. In the fraction of a second between the
server's return and that, another process may still read the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError

from .cache import EventPerfCache

if TYPE_CHECKING:  # Django ships no types

    class _SessionStore:
        _cache: Any
        _session_key: str | None

        def __init__(self, session_key: str | None = None) -> None: ...
        @property
        def cache_key(self) -> str: ...
        async def acache_key(self) -> str: ...
        def create(self) -> None: ...
        async def acreate(self) -> None: ...
        def save(self, must_create: bool = False) -> None: ...
        async def asave(self, must_create: bool = False) -> None: ...
else:
    from django.contrib.sessions.backends.cache import SessionStore as _SessionStore

__all__ = ["SessionStore"]


class SessionStore(_SessionStore):
    """Django's sessions in a cache, which know whether a session is not there or could not be read."""

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._is_unread = False
        if not isinstance(self._cache, EventPerfCache):
            kind = f"{type(self._cache).__module__}.{type(self._cache).__qualname__}"
            raise ConfigurationError(
                "SESSION_CACHE_ALIAS",
                kind,
                "a cache with the backend eventperf.contrib.django.cache.EventPerfCache",
            )

    def load(self) -> Any:
        """Return the data of the session; an empty mapping where there is none, or while nobody can tell."""
        before = self._cache.trouble()
        return self._judged(self._cache.get(self.cache_key), before)

    async def aload(self) -> Any:
        """Return the data of the session; see :meth:`load`."""
        before = self._cache.trouble()
        return self._judged(await self._cache.aget(await self.acache_key()), before)

    def _judged(self, data: Any, before: object) -> Any:
        self._is_unread = data is None and self._cache.trouble() != before
        if data is None and not self._is_unread:
            self._session_key = None
        return {} if data is None else data

    def create(self) -> None:
        """Begin another session."""
        self._is_unread = False
        super().create()

    async def acreate(self) -> None:
        """Begin another session."""
        self._is_unread = False
        await super().acreate()

    def save(self, must_create: bool = False) -> None:
        """Keep the data; not over a session that could not be read."""
        if must_create or not self._is_unread:
            super().save(must_create)

    async def asave(self, must_create: bool = False) -> None:
        """Keep the data; not over a session that could not be read."""
        if must_create or not self._is_unread:
            await super().asave(must_create)
