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

    Inside a savepoint (``session.begin_nested()``) it waits for the commit of the whole transaction, and a
    rollback to the savepoint forgets it. Outside a transaction it is done with the next commit.

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
        event.listen(plain, "after_soft_rollback", _rolled_back)
    pending.append((cache, keys, tuple(tags), is_async, _within(plain)))


def _within(session: Any) -> list[Any]:
    """Return the savepoints and the transaction that ``session`` is in, innermost first."""
    at, out = session.get_nested_transaction() or session.get_transaction(), []
    while at is not None:
        out.append(at)
        at = at.parent
    return out


def _committed(session: Any) -> None:
    if session.get_nested_transaction() is not None:
        return  # a savepoint was released: others do not see the change yet
    pending: list[Any] = session.info.get(_PENDING, [])
    done, pending[:] = list(pending), []
    for cache, keys, tags, is_async, _ in done:
        if is_async:
            wait = require("sqlalchemy.util", extra="dbopt", needed_by="invalidate_on_commit").await_only
            wait(cache.ainvalidate(*keys))
            wait(cache.ainvalidate_tags(*tags))
        else:
            cache.invalidate(*keys)
            cache.invalidate_tags(*tags)


def _rolled_back(session: Any, transaction: Any) -> None:
    """Forget what was registered inside ``transaction``, which may be a savepoint."""
    pending: list[Any] = session.info.get(_PENDING, [])
    pending[:] = [item for item in pending if transaction not in item[4]]
