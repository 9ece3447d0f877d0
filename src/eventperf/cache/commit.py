"""Invalidation that happens if and when a SQLAlchemy transaction commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventperf._core.extras import require

if TYPE_CHECKING:
    from .manager import CacheManager

_PENDING = "eventperf_cache_invalidations"


def invalidate_on_commit(cache: CacheManager, session: Any, /, *keys: str, tags: Sequence[str] = ()) -> None:
    """Invalidate ``keys`` and ``tags`` right after ``session`` commits; a rollback invalidates nothing.

    Args:
        cache: The manager.
        session: A SQLAlchemy ``Session`` or ``AsyncSession`` with the transaction of the change.
        keys: Keys to invalidate.
        tags: Tags to invalidate.
    """
    event = require("sqlalchemy.event", extra="dbopt", needed_by="invalidate_on_commit")
    is_async = hasattr(session, "sync_session")
    plain = session.sync_session if is_async else session
    pending: list[Any] | None = plain.info.get(_PENDING)
    if pending is None:
        pending = plain.info[_PENDING] = []
        event.listen(plain, "after_commit", _committed)
        event.listen(plain, "after_rollback", _rolled_back)
    pending.append((cache, keys, tuple(tags), is_async))


def _committed(session: Any) -> None:
    for cache, keys, tags, is_async in _take(session):
        if is_async:
            wait = require("sqlalchemy.util", extra="dbopt", needed_by="invalidate_on_commit").await_only
            wait(cache.ainvalidate(*keys))
            wait(cache.ainvalidate_tags(*tags))
        else:
            cache.invalidate(*keys)
            cache.invalidate_tags(*tags)


def _rolled_back(session: Any) -> None:
    _take(session)


def _take(session: Any) -> list[Any]:
    pending: list[Any] = session.info.get(_PENDING, [])
    out = list(pending)
    pending.clear()
    return out
