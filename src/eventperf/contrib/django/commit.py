"""Invalidate and enqueue when the transaction has committed; a rollback does neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import transaction

from eventperf.cache.transactions import mark_django, watch
from eventperf.cache.verbs.base import tag_list, text_of

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on

    from eventperf.cache import CacheManager
    from eventperf.queues import EnqueueOptions, QueueManager

__all__ = ["enqueue_on_commit", "invalidate_on_commit"]


def invalidate_on_commit(
    cache: CacheManager, *keys: str, tags: Sequence[str] = (), using: str | None = None
) -> None:
    """Invalidate ``keys`` and ``tags`` after the current transaction of ``using`` has committed.

    Outside a transaction it happens at once; inside one, cached functions called until its end load for
    themselves and keep nothing. A process that dies between the commit and the invalidation leaves the
    entries to their TTL.

    Raises:
        ConfigurationError: A key that is no text, or tags that are no list of texts.
    """
    for key in keys:
        text_of(key)
    tags = tag_list(tags)
    watch()
    mark_django(transaction.get_connection(using))

    def act() -> None:
        if keys:
            cache.invalidate(*keys)
        if tags:
            cache.invalidate_tags(*tags)

    transaction.on_commit(act, using=using)


def enqueue_on_commit(
    queues: QueueManager,
    type: str,
    data: Any = None,
    *,
    using: str | None = None,
    **options: Unpack[EnqueueOptions],
) -> None:
    """Enqueue after the current transaction of ``using`` has committed.

    A process that dies between the commit and the enqueue loses the job: where that matters, use an
    outbox or a queue in the same database.
    """
    transaction.on_commit(lambda: queues.enqueue(type, data, **options), using=using)
