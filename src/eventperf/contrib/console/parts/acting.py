"""What is done to jobs: to one, to those that were chosen, or to all that match once that was confirmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import say
from eventperf.contrib.console.view import Done, View, field, hidden

from .part import Refused

if TYPE_CHECKING:
    from eventperf.queues import QueueManager

FILTERS: Final = ("state", "queue", "type", "tag", "text")
_STATES: Final = {
    "job.reschedule": ("waiting", "delayed"),  # first: what Enter does in the field beside it
    "job.retry": ("failed",),
    "job.cancel": ("active", "waiting", "delayed"),
    "job.delete": ("failed", "completed", "cancelled"),
}
_NEEDS: Final = {"job.retry": "dead_letter", "job.reschedule": "update", "job.delete": "delete"}
ACTIONS: Final = frozenset(_STATES)
_MOST: Final = 10_000  # jobs that one "all that match" touches
_AT_ONCE: Final = 500
_TRIED: Final = 20  # queues in which a job is looked for whose record is gone


def possible(manager: QueueManager) -> list[str]:
    """Return the actions that the manager's store can do, in the order of their buttons."""
    has = manager.backend.capabilities
    return [a for a in _STATES if a not in _NEEDS or _NEEDS[a] in has]


def verb(action: str) -> str:
    """Return the text of an action's button.

    >>> verb("job.retry")
    'Retry'
    """
    return say(f"do_{_bare(action)}")


def _bare(action: str) -> str:
    return action.partition(".")[2]


def when() -> Html:
    """Return the field that says when a job is to run."""
    return field("delay", say("run_in"), "0s", size="6")


def given(asked: dict[str, str]) -> dict[str, Any]:
    """Return the filters that say something."""
    return {k: v for k, v in asked.items() if v}


def filters(view: View, read: Callable[[str], str]) -> dict[str, str]:
    """Return what is asked for.

    Raises:
        Refused: A search in payloads by somebody who may not see them: its hits tell what they hold.
    """
    asked = {name: read(name) for name in FILTERS}
    if asked["text"] and not view.may("view.payload", None):
        raise Refused(say("no_text_search"))
    return asked


def act(view: View, action: str, manager: QueueManager) -> Done | tuple[str, Sequence[object]]:
    """Do it to the chosen jobs, or to all that match; those, and whatever is deleted, are counted first.

    Raises:
        Refused: None was chosen, none is in a state for it, or the store refuses.
    """
    request, name = view.request, view.request.sent("manager")
    if action not in possible(manager):
        raise Refused(say("not_found"))
    asked = filters(view, request.sent)
    every = bool(request.sent("all"))
    chosen = _matching(manager, action, asked) if every else dict.fromkeys(request.form.get("id", ()), "")
    if not chosen:
        raise Refused(say(f"none_{_bare(action)}" if every else "nothing_chosen"))
    if not all(view.may(action, id) for id in chosen):
        raise Refused(say("forbidden"))
    delay = request.sent("delay")
    if (every or action == "job.delete") and not request.sent("sure"):
        ids = [] if every else list(chosen)
        return say("confirm"), _question(view, name, action, asked, len(chosen), delay, ids)
    try:
        count = _do(manager, action, chosen, delay)
    except EventPerfError as error:
        raise Refused(str(error)) from error
    path, back = request.path, given(asked)
    if path.strip("/") == "queues/job":
        gone = action == "job.delete" and count
        path, back = ("/queues/jobs", {}) if gone else (path, {"id": next(iter(chosen))})
    left = len(chosen) - count
    return Done(what=_bare(action), path=path, count=count, left=left, query={"in": name, **back})


def _do(manager: QueueManager, action: str, chosen: Mapping[str, str], delay: str) -> int:
    """Act on jobs, by id and queue where that is known; return how many were in a state for it."""
    if action == "job.reschedule":
        return sum(_moved(manager, id, delay) for id in chosen)
    store: Any = manager.backend.sync()
    if action == "job.cancel":
        return sum(sum(store.cancel(some)) for some in _portions(list(chosen)))
    by_queue: dict[str, list[str]] = {}
    for id, queue in _places(store, chosen):
        by_queue.setdefault(queue, []).append(id)
    lost = by_queue.pop("", [])
    does = store.delete if action == "job.delete" else store.replay
    count = sum(
        does(q, some) for q, ids in by_queue.items() if q in manager.queues for some in _portions(ids)
    )
    if action == "job.delete" and lost:  # a store may list what it has no record of any more
        count += sum(does(q, some) for q in [*manager.queues][:_TRIED] for some in _portions(lost))
    return int(count)


def _places(store: Any, chosen: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Return each job with its queue, nothing where that is not known."""
    for some in _portions(list(chosen)):
        known = [chosen[id] for id in some]
        if not all(known):
            known = [info.queue if info else "" for info in store.fetch(some)]
        yield from zip(some, known, strict=True)


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE))


def _moved(manager: QueueManager, id: str, delay: str) -> bool:
    from eventperf.queues import JobNotFound, JobNotWaiting

    try:
        manager.update(id, delay=delay)
    except (JobNotFound, JobNotWaiting):  # a job may begin at any time
        return False
    return True


def _matching(manager: QueueManager, action: str, asked: dict[str, str]) -> dict[str, str]:
    """Return id and queue of all jobs that match in a state for ``action``, up to a bound."""
    found: dict[str, str] = {}
    for state in _STATES[action]:
        if asked["state"] not in ("", state):
            continue
        cursor: str | None = None
        while len(found) < _MOST:
            query = given(asked) | {"state": state}
            page = manager.jobs(**query, limit=_AT_ONCE, cursor=cursor)
            found.update((job.id, job.queue) for job in page.jobs[: _MOST - len(found)])
            cursor = page.cursor
            if cursor is None:
                break
    return found


def _question(
    view: View, name: str, action: str, asked: dict[str, str], count: int, delay: str, ids: Sequence[str]
) -> list[object]:
    """Ask whether to go on: with ``ids``, or without with all that match."""
    path = "/queues/job" if view.request.path.strip("/") == "queues/job" else "/queues/jobs"
    shown = ", ".join(f"{say(f'field_{k}')} {v!r}" for k, v in asked.items() if v) or say("any_job")
    text = say(f"ask_{_bare(action)}_these" if ids else f"ask_{_bare(action)}", n=f"{count:,}", filters=shown)
    bound = tag("p", say("ask_bound"), data_still="") if count >= _MOST else ""
    sent: dict[str, object] = {"manager": name, "sure": "1", "delay": delay, **asked}
    sent |= {"action": action, "subject": view.request.sent("subject") or None} if ids else {"all": action}
    chosen = [tag("input", type="hidden", name_="id", value=id) for id in ids]
    button = tag("button", say("do_them", verb=verb(action)), type="submit")
    back: dict[str, object] = {"id": ids[0]} if path == "/queues/job" else {**asked}
    return [
        tag("p", text, data_still=""),
        bound,
        view.form(path, *hidden(sent), *chosen, button),
        markup(" ", view.link(path, say("cancel"), **{"in": name}, **back)),
    ]
