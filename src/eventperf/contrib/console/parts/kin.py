"""Whose child a job is, and what comes after it: links both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import TEXTS, heads, say
from eventperf.contrib.console.view import View, listing, moment, section

if TYPE_CHECKING:
    from eventperf.queues import JobInfo, QueueManager

_SHOWN: Final = 50


def sections(view: View, name: str, manager: QueueManager, job: JobInfo) -> Iterator[Html]:
    """Return the jobs that this one comes after, and those that come after it, where there are any."""
    if job.after:
        ids = list(job.after[:_SHOWN])
        found = manager.backend.sync().fetch(ids)
        told = f"after_{job.after_when}"
        table = _table(view, name, say(told if told in TEXTS else "after_ended"), ids, found)
        yield section(say("parents"), table, _bound(len(ids), len(job.after)))
    if "children" in manager.backend.capabilities:
        children = manager.children(job.id, limit=_SHOWN + 1)
        if children:
            shown = children[:_SHOWN]
            more = tag("p", say("first_and_more", n=_SHOWN), class_="muted") if children[_SHOWN:] else ""
            table = _table(view, name, say("children_told"), [child.id for child in shown], shown)
            yield section(say("children"), table, more)


def _bound(shown: int, whole: int) -> object:
    if whole <= shown:
        return ""
    return tag("p", say("first_of", n=f"{shown:,}", all=f"{whole:,}"), class_="muted")


def _table(view: View, name: str, caption: str, ids: Sequence[str], found: Sequence[JobInfo | None]) -> Html:
    rows = [_row(view, name, id, info) for id, info in zip(ids, found, strict=True)]
    return listing(caption, heads("job type queue state since"), rows)


def _row(view: View, name: str, id: str, info: JobInfo | None) -> tuple[object, ...]:
    if info is None:
        return markup(id), say("none"), say("none"), say("gone"), say("none")
    at = info.finished_at or info.started_at or info.due_at or info.created_at
    link = view.link("/queues/job", info.id, **{"in": name}, id=info.id)
    return link, info.type, info.queue, info.state.value, moment(at)
