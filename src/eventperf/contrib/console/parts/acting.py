"""What is done to jobs: to one, to those that were chosen, or to all that match once that was confirmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import say
from eventperf.contrib.console.view import Done, View, field, hidden

from .part import Refused

if TYPE_CHECKING:
    from eventperf.queues import QueueManager

ACTIONS: Final = frozenset({"job.retry", "job.cancel", "job.reschedule"})
FILTERS: Final = ("state", "queue", "type", "tag", "text")
_MOST: Final = 10_000  # jobs that one "all that match" touches
_AT_ONCE: Final = 500


def possible(manager: QueueManager) -> list[str]:
    """Return the actions that the manager's store can do."""
    return sorted(a for a in ACTIONS if a != "job.reschedule" or "update" in manager.backend.capabilities)


def verb(action: str) -> str:
    """Return the text of an action's button.

    >>> verb("job.retry")
    'Retry'
    """
    return action.partition(".")[2].capitalize()


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
    """Retry, cancel or reschedule the chosen jobs, or all that match once that was confirmed.

    Raises:
        Refused: None was chosen, or the store refuses.
    """
    request, name = view.request, view.request.sent("manager")
    asked = filters(view, request.sent)
    every = bool(request.sent("all"))
    chosen = _matching(manager, asked) if every else dict.fromkeys(request.form.get("id", ()), "")
    if not chosen:
        raise Refused(say("nothing_chosen"))
    if not all(view.may(action, id) for id in chosen):
        raise Refused(say("forbidden"))
    delay = request.sent("delay")
    if every and not request.sent("sure"):
        return say("confirm"), _question(view, name, action, asked, len(chosen), delay)
    try:
        count = _do(manager, action, chosen, delay)
    except EventPerfError as error:
        raise Refused(str(error)) from error
    back = {"id": next(iter(chosen))} if request.path.strip("/") == "queues/job" else given(asked)
    return Done(what=action.partition(".")[2], path=request.path, count=count, query={"in": name, **back})


def _do(manager: QueueManager, action: str, chosen: Mapping[str, str], delay: str) -> int:
    """Act on jobs, by id and queue where that is known; return how many were in a state for it."""
    if action == "job.reschedule":
        return sum(_moved(manager, id, delay) for id in chosen)
    store, ids = manager.backend.sync(), list(chosen)
    if action == "job.cancel":
        return sum(sum(store.cancel(ids[at : at + _AT_ONCE])) for at in range(0, len(ids), _AT_ONCE))
    by_queue: dict[str, list[str]] = {}
    for at in range(0, len(ids), _AT_ONCE):
        some = ids[at : at + _AT_ONCE]
        known = [chosen[id] for id in some]
        if not all(known):
            known = [info.queue if info else "" for info in store.fetch(some)]
        for id, queue in zip(some, known, strict=True):
            if queue in manager.queues:
                by_queue.setdefault(queue, []).append(id)
    return sum(
        store.replay(queue, named[at : at + _AT_ONCE])
        for queue, named in by_queue.items()
        for at in range(0, len(named), _AT_ONCE)
    )


def _moved(manager: QueueManager, id: str, delay: str) -> bool:
    from eventperf.queues import JobNotFound, JobNotWaiting

    try:
        manager.update(id, delay=delay)
    except (JobNotFound, JobNotWaiting):  # a job may begin at any time
        return False
    return True


def _matching(manager: QueueManager, asked: dict[str, str]) -> dict[str, str]:
    """Return id and queue of all jobs that match, up to a bound that the question names."""
    found: dict[str, str] = {}
    cursor: str | None = None
    while len(found) < _MOST:
        page = manager.jobs(**given(asked), limit=_AT_ONCE, cursor=cursor)
        found.update((job.id, job.queue) for job in page.jobs[: _MOST - len(found)])
        cursor = page.cursor
        if cursor is None:
            break
    return found


def _question(
    view: View, name: str, action: str, asked: dict[str, str], count: int, delay: str
) -> list[object]:
    shown = ", ".join(f"{k} {v!r}" for k, v in asked.items() if v) or "any job"
    bound = f" (the first {_MOST:,}; ask again for the rest)" if count >= _MOST else ""
    sent = {"manager": name, "all": action, "sure": "1", "delay": delay, **asked}
    return [
        tag("p", f"{count:,} jobs match {shown}{bound}.", data_still=""),
        view.form("/queues/jobs", *hidden(sent), tag("button", f"{verb(action)} them", type="submit")),
        markup(" ", view.link("/queues/jobs", say("cancel"), **{"in": name}, **asked)),
    ]
