"""Entries of a cache follow Django's databases: the setting ``EVENTPERF_FOLLOW``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.conf import settings
from django.db import connections, transaction
from django.db.backends.signals import connection_created
from django.utils.module_loading import import_string

from eventperf._core.errors import ConfigurationError
from eventperf.cache import CacheManager
from eventperf.cache.following import (
    changed_nothing,
    may_commit,
    reads,
    reads_tables,
    tables_in,
    tables_written,
    wants_reads,
)
from eventperf.cache.transactions import watch, writes

from .rows import written

__all__ = ["follow"]

_PENDING: Final = "_eventperf_follow"
_caches: list[CacheManager] = []


def follow(*caches: CacheManager) -> None:
    """Invalidate, after each commit, the tags of the tables that this process wrote, by whatever means.

    Rows are told where a statement says them beyond doubt, as those of ``save``, ``create``, ``delete`` and
    ``filter(pk=...)`` do, keys being whole numbers; else all rows of the table are. The
    setting ``EVENTPERF_FOLLOW = "shop.caches.cache"`` (a path, or several) does this at the start.
    """
    for cache in caches:
        if not isinstance(cache, CacheManager):
            raise ConfigurationError(
                "EVENTPERF_FOLLOW", cache, "CacheManagers, or paths such as 'shop.caches.cache'"
            )
    _caches.extend(cache for cache in caches if cache not in _caches)
    watch()
    connection_created.connect(_connected, dispatch_uid="eventperf.contrib.django.following")
    for connection in connections.all(initialized_only=True):
        _connected(None, connection)


def follow_settings() -> None:
    """Do what the setting says."""
    paths = getattr(settings, "EVENTPERF_FOLLOW", ())
    for path in [paths] if isinstance(paths, (str, CacheManager)) else paths:
        follow(import_string(path) if isinstance(path, str) else path)


def _connected(sender: Any, connection: Any, **rest: Any) -> None:
    del sender, rest
    if _executed not in connection.execute_wrappers:
        connection.execute_wrappers.append(_executed)


def _executed(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    done = execute(sql, params, many, context)
    text = str(sql)
    if writes(text):
        if many or not changed_nothing(text, context["cursor"].rowcount):
            tags = written(tables_written(text), text, params, many, context["cursor"])
            _note(context["connection"], tags, text)
    elif wants_reads():
        reads(tables_in(text) if reads_tables(text) else ())
    return done


def _note(connection: Any, tags: tuple[str, ...], statement: str) -> None:
    """Say it when the transaction has committed: at once without one, never after a rollback."""
    if not connection.in_atomic_block or may_commit(statement):
        _say(tags)
    if connection.in_atomic_block and not _is_noted(connection, tags):
        transaction.on_commit(_Saying(tags), using=connection.alias)


class _Saying:
    """What a commit has to say."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags

    def __call__(self) -> None:
        _say(self.tags)


def _is_noted(connection: Any, tags: tuple[str, ...]) -> bool:
    """Tell whether the commit says these tags already, unless a savepoint of another statement goes back."""
    here = set(connection.savepoint_ids)
    return any(
        isinstance(entry[1], _Saying) and entry[1].tags == tags and entry[0] <= here
        for entry in connection.run_on_commit
    )


def _say(tags: Iterable[str]) -> None:
    for cache in _caches:
        cache.invalidate_tags(*tags)
