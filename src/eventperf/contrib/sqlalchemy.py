"""SQLAlchemy: entries of a cache follow the database.

``follow(cache, engine)`` once at the start; then a function with ``@cached(follows=[Event])``, or one that
says ``depends(*row(Event, 42))``, is forgotten right after each commit of this process that wrote to it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.cache.following import (
    all_tags,
    any_link,
    begins,
    changed_nothing,
    linked,
    links_of,
    may_commit,
    reads,
    reads_tables,
    row,
    table_tags,
    tables_in,
    tables_written,
    wants_reads,
)
from eventperf.cache.transactions import watch, writes

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

__all__ = ["follow"]

_PENDING: Final = "eventperf_follow"
_BEGUN: Final = "eventperf_begun"
"""A transaction was begun by a statement, on a connection that otherwise commits by itself."""
_caches: weakref.WeakKeyDictionary[Any, list[CacheManager]] = weakref.WeakKeyDictionary()
"""By dialect: an engine shares it with its copies that have other execution options."""
_heard: weakref.WeakSet[Any] = weakref.WeakSet()
_flushed: ContextVar[Any] = ContextVar("eventperf_flushed", default=None)
_listening: list[bool] = []


def follow(cache: CacheManager, session_or_engine: Any) -> Callable[[], None]:
    """Invalidate, after each commit on an engine, the tags of the tables and rows that it wrote.

    Whatever wrote counts: the unit of work (its rows too), bulk statements, Core, SQL texts (by the tables
    named in them). A rollback invalidates nothing. What others write, a driver's own cursor, triggers and
    cascades of the database are not seen: for those there are TTLs, ``settle=`` and the change journal. A
    process that dies between commit and invalidation leaves the entries to their TTL.

    Args:
        cache: The manager, or one per namespace: call it for each.
        session_or_engine: An ``Engine``, ``AsyncEngine``, a session of either kind, its ``sessionmaker`` or
            a scoped session: their engine is followed, whoever uses it.

    Returns:
        A function that ends it.

    Raises:
        ConfigurationError: There is no engine behind what was given.
    """
    event = require("sqlalchemy.event", extra="dbopt", needed_by="follow")
    engine = _engine_of(session_or_engine)
    known = _caches.get(engine.dialect)
    if known is None:
        known = _caches[engine.dialect] = []
        _wrap(engine.dialect)
    if engine not in _heard:
        _heard.add(engine)
        event.listen(engine, "after_cursor_execute", _executed)
    if not _listening:
        _listening.append(True)
        _listen_to_flushes(event)
    watch()
    known.append(cache)

    def stop() -> None:
        if cache in known:
            known.remove(cache)

    return stop


def _engine_of(given: Any) -> Any:
    if callable(getattr(given, "registry", None)):
        given = given()  # a scoped session
    for name in ("sync_session", "sync_engine"):
        given = getattr(given, name, None) or given
    bind = given
    if hasattr(given, "kw"):  # a sessionmaker
        bind = given.kw.get("bind")
    elif hasattr(given, "get_bind"):
        bind = given.get_bind()
    bind = getattr(bind, "sync_engine", bind)
    engine = getattr(bind, "engine", None)
    if engine is None or not hasattr(engine, "dialect"):
        raise ConfigurationError(
            "session_or_engine", type(given).__name__, "an engine, a session with one, or their sessionmaker"
        )
    return engine


# -- what is written -------------------------------------------------------------------------------------


def _executed(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    del parameters, context
    if not writes(statement):
        if wants_reads():
            reads(tables_in(statement) if reads_tables(statement) else ())
        _told_in_words(connection, statement)
        return
    if not executemany and changed_nothing(statement, cursor.rowcount):
        return
    tables = tables_written(statement)
    _note(
        connection, table_tags(tables) if _is_flush() else all_tags(tables)
    )  # there the mapper tells the rows
    if may_commit(statement) and (pending := dict(connection.info.get(_PENDING, ()))):
        _say(connection.dialect, connection.info)
        connection.info[_PENDING] = pending  # again at the end, where a definition does not commit


def _told_in_words(connection: Any, statement: str) -> None:
    """A transaction that a statement begins or ends: no method of the dialect is called for it."""
    if begins(statement):
        connection.info[_BEGUN] = True
    elif may_commit(statement):
        connection.info.pop(_BEGUN, None)
        if connection.info.get(_PENDING):
            _say(connection.dialect, connection.info)


def _note(connection: Any, tags: Iterable[str]) -> None:
    pending = connection.info.setdefault(_PENDING, {})
    pending.update(dict.fromkeys(tags))
    if _commits_by_itself(connection) and _BEGUN not in connection.info:
        _say(connection.dialect, connection.info)


def _commits_by_itself(connection: Any) -> bool:
    level = connection.get_execution_options().get("isolation_level") or connection.default_isolation_level
    return str(level).upper() == "AUTOCOMMIT" or getattr(connection, "_is_autocommit_isolation", bool)()


def _listen_to_flushes(event: Any) -> None:
    orm = require("sqlalchemy.orm", extra="dbopt", needed_by="follow")
    event.listen(orm.Session, "before_flush", lambda session, *_: _flushed.set(weakref.ref(session)))
    for what in ("after_flush", "after_soft_rollback"):
        event.listen(orm.Session, what, lambda *_: _flushed.set(None))
    event.listen(orm.Mapper, "after_insert", _inserted)
    for what in ("after_update", "after_delete"):
        event.listen(orm.Mapper, what, _mapped)


def _is_flush() -> bool:
    """Tell whether a flush is under way here; one without work has no end, bulk writes no beginning."""
    session = _flushed.get()
    return session is not None and getattr(session(), "_flushing", False) is True


def _mapped(mapper: Any, connection: Any, target: Any) -> None:
    """The unit of work has written a row: it knows which, also by the key that it had before."""
    if connection.dialect not in _caches:
        return
    _note(connection, _row_tags(mapper, target))
    _note(connection, [any_link(table.name) for table in mapper.tables])


def _inserted(mapper: Any, connection: Any, target: Any) -> None:
    """The unit of work has inserted a row: nobody linked to anything by it before."""
    if connection.dialect not in _caches:
        return
    _note(connection, _row_tags(mapper, target))
    for table in mapper.tables:
        for column in links_of(table).values():
            _note(connection, [_link_tag(mapper, table, column, target)])


def _row_tags(mapper: Any, target: Any) -> list[str]:
    inspect = require("sqlalchemy", extra="dbopt", needed_by="follow").inspect
    keys = {tuple(mapper.primary_key_from_instance(target)), inspect(target).identity}
    return [row(table.name, *key)[0] for table in mapper.tables for key in keys if key]


def _link_tag(mapper: Any, table: Any, column: str, target: Any) -> str:
    """Return the tag of one link; of all where the value is the database's own: a default, an expression."""
    orm = require("sqlalchemy.orm", extra="dbopt", needed_by="follow")
    try:
        value = target.__dict__.get(mapper.get_property_by_column(table.columns[column]).key, target)
    except orm.exc.UnmappedColumnError:
        value = target
    if value is None:
        return table_tags([table.name])[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return linked(table.name, column, value)
    return any_link(table.name)


# -- when it is committed --------------------------------------------------------------------------------


def _wrap(dialect: Any) -> None:
    """Look over the dialect's shoulder: the events of a connection come before the commit, not after it."""
    held = weakref.ref(dialect)

    def after(name: str, says: bool) -> None:
        plain = getattr(type(dialect), name)

        def wrapped(connection: Any, *rest: Any, **more: Any) -> Any:
            at = held()
            try:
                return plain(at, connection, *rest, **more)
            finally:  # a commit that failed may have reached the server
                info = _info_of(connection)
                if at is not None and info.get(_PENDING):
                    if says:
                        _say(at, info)
                    else:
                        info.pop(_PENDING, None)

        setattr(dialect, name, wrapped)

    for name, says in (
        ("do_commit", True),
        ("do_commit_twophase", True),
        ("do_rollback", False),
        ("do_rollback_twophase", False),
    ):
        after(name, says)


def _info_of(connection: Any) -> Any:
    try:
        return connection.info
    except (AttributeError, NotImplementedError):
        return {}  # none of the pool's: how a dialect looks around at the first connect


def _say(dialect: Any, info: Any) -> None:
    tags = tuple(info.pop(_PENDING, ()))
    for cache in list(_caches.get(dialect, ())):
        if dialect.is_async:
            wait = require("sqlalchemy.util", extra="dbopt", needed_by="follow").await_only
            wait(cache.ainvalidate_tags(*tags))
        else:
            cache.invalidate_tags(*tags)
