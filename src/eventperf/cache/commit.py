"""Invalidation that happens if and when a SQLAlchemy transaction commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require

from .transactions import mark_session, watch
from .verbs.base import tag_list, text_of

if TYPE_CHECKING:
    from .manager import CacheManager

_PENDING = "eventperf_cache_invalidations"


def invalidate_on_commit(cache: CacheManager, session: Any, /, *keys: str, tags: Sequence[str] = ()) -> None:
    """Invalidate ``keys`` and ``tags`` right after ``session`` commits; a rollback invalidates nothing.

    Inside a savepoint (``session.begin_nested()``) it waits for the commit of the whole transaction, and a
    rollback to the savepoint forgets it. Outside a transaction it is done with the next commit.

    Args:
        cache: The manager.
        session: A SQLAlchemy ``Session``, ``AsyncSession`` or scoped session (``db.session`` of
            Flask-SQLAlchemy) with the transaction of the change. Until it ends, cached functions called
            inside it load for themselves and keep nothing.
        keys: Keys to invalidate.
        tags: Tags to invalidate.

    Raises:
        ConfigurationError: Something else than a session, than texts for keys, than a list of texts for tags.
    """
    event = require("sqlalchemy.event", extra="dbopt", needed_by="invalidate_on_commit")
    plain, is_async = _plain(session)
    for key in keys:
        text_of(key)
    tags = tag_list(tags)
    watch()
    mark_session(plain)
    pending: list[Any] | None = plain.info.get(_PENDING)
    if pending is None:
        pending = plain.info[_PENDING] = []
        event.listen(plain, "after_commit", _committed)
        event.listen(plain, "after_soft_rollback", _rolled_back)
    pending.append((cache, keys, tuple(tags), is_async, _within(plain)))


def _plain(session: Any) -> tuple[Any, bool]:
    """Return the synchronous session behind what was given, and whether it was an asynchronous one."""
    if callable(getattr(type(session), "registry", None) or getattr(session, "registry", None)):
        session = session()  # scoped: the session of this thread, request or task
    is_async = hasattr(session, "sync_session")
    plain = session.sync_session if is_async else session
    if not (hasattr(plain, "get_nested_transaction") and hasattr(plain, "info")):
        raise ConfigurationError(
            "session", type(session).__name__, "a Session, an AsyncSession or a scoped session (db.session)"
        )
    return plain, is_async


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
