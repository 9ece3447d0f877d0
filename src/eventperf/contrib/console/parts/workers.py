"""The live workers: what they serve and run, where, and which version of the code they are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import empty, listing, moment

from .part import NotHere

if TYPE_CHECKING:
    from eventperf.queues import QueueManager, WorkerInfo

_MOST: Final = 500


def page(manager: QueueManager) -> Html:
    """Return the workers of a manager.

    Raises:
        NotHere: Its store does not list them.
    """
    if "roster" not in manager.backend.capabilities:
        raise NotHere(say("not_found"))
    found = manager.workers()
    if not found:
        return empty(say("no_live_workers"))
    told = []
    versions = Counter(one.version for one in found if one.version)
    if len(versions) > 1:
        each = ", ".join(f"{version} ({n:,})" for version, n in versions.most_common(10))
        told.append(tag("p", say("many_versions", versions=each), class_="warn"))
    if len(found) > _MOST:
        told.append(tag("p", say("some_workers", n=f"{_MOST:,}", all=f"{len(found):,}"), class_="muted"))
    columns = heads("worker queues running slots load host pid version eventperf since")
    rows = [_row(one) for one in found[:_MOST]]
    return markup(*told, listing(say("workers"), columns, rows, (2, 3, 4, 6)))


def _row(one: WorkerInfo) -> tuple[object, ...]:
    told = [one.host, one.pid, one.version, one.eventperf_version]
    load = f"{one.running / one.slots:.0%}" if one.slots else None
    queues, counts = ", ".join(one.queues), (f"{one.running:,}", f"{one.slots:,}")
    return (one.id, queues, *counts, *(fact or say("none") for fact in (load, *told)), moment(one.started_at))
