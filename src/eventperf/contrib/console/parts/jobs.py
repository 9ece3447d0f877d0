"""Jobs: found by what they are, and looked at one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pprint import pformat
from typing import TYPE_CHECKING, Final

from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import COLUMNS, heads, say
from eventperf.contrib.console.view import (
    View,
    age,
    card,
    cards,
    concealed,
    empty,
    field,
    hidden,
    listing,
    moment,
    section,
    select,
)

from . import kin
from .acting import FILTERS, filters, given, possible, verb, when
from .part import NotHere, Refused

if TYPE_CHECKING:
    from eventperf.queues import JobInfo, QueueManager

_PAGE: Final = 50
_SHOWN: Final = 20_000
_STATES: Final = ("active", "waiting", "delayed", "failed", "completed", "cancelled")


def page(view: View, name: str, manager: QueueManager) -> list[object]:
    """Return the jobs that the URL asks for, with what may be done to them."""
    asked = {f: view.request.asked(f) for f in FILTERS}
    body: list[object] = [_filter(view, name, manager, asked)]
    cursor = view.request.asked("cursor")
    try:
        filters(view, view.request.asked)
        found = manager.jobs(**given(asked), limit=_PAGE, cursor=cursor or None)
    except (EventPerfError, Refused) as error:
        return [*body, tag("p", str(error), class_="note refused")]
    if not found.jobs:
        body.append(empty(say("no_jobs")))
    else:
        body.append(_form(view, name, manager, asked, found.jobs))
    here = {"in": name, **asked}
    links = [view.link("/queues/jobs", say("first_page"), **here)] if cursor else []
    if found.cursor:
        links.append(view.link("/queues/jobs", say("next_page"), **here, cursor=found.cursor))
    return [*body, tag("nav", *links, class_="pages", aria_label=say("pages"))]


def _filter(view: View, name: str, manager: QueueManager, asked: dict[str, str]) -> Html:
    sees = view.may("view.payload", None)  # a search in payloads tells what is in them
    queues = [("", say("all")), *((q, q) for q in manager.queues)]
    states = [("", say("all")), *((s, s) for s in _STATES)]
    return tag(
        "form",
        *hidden({"in": name}),
        select("state", say("field_state"), states, asked["state"]),
        select("queue", say("field_queue"), queues, asked["queue"]),
        *(
            field(f, say(f"field_{f}"), asked[f], size="14")
            for f in ("type", "tag", "text")
            if f != "text" or sees
        ),
        tag("button", say("find"), type="submit"),
        method="get", action=view.request.link("/queues/jobs"), class_="filter",
    )  # fmt: skip


def _form(
    view: View, name: str, manager: QueueManager, asked: dict[str, str], jobs: Sequence[JobInfo]
) -> Html:
    may = [a for a in possible(manager) if view.may(a, None)]
    every: object = ""
    if may:
        every = tag("input", type="checkbox", data_all="", hidden="", aria_label=say("choose_all"))
    table = listing(
        say("n_jobs", n=len(jobs)), [every, *heads("job type queue state tries since error")],
        [_row(view, name, job, bool(may)) for job in jobs], [5], [7],
    )  # fmt: skip
    if not may:
        return table
    chosen, all_ = (
        [tag("button", verb(a), type="submit", name_=what, value=a) for a in may]
        for what in ("action", "all")
    )
    later = when() if "job.reschedule" in may else ""
    rows = [_deeds(say("with_chosen"), later, *chosen), _deeds(say("with_all"), *all_)]
    return view.form("/queues/jobs", *hidden({"manager": name, **asked}), table, *rows, class_="deeds")


def _deeds(name: str, *fields: object) -> Html:
    return tag("p", tag("span", name), *fields, role="group", aria_label=name)


def _row(view: View, name: str, job: JobInfo, may: bool) -> tuple[object, ...]:
    box: object = ""
    if may:
        box = tag("input", type="checkbox", name_="id", value=job.id, aria_label=say("choose", id=job.id))
    link = view.link("/queues/job", job.id, **{"in": name}, id=job.id)
    at = job.finished_at or job.started_at or job.due_at or job.created_at
    error = _said(view, job.id, job.error or "")[:160]
    return box, link, job.type, job.queue, job.state.value, job.attempt, moment(at), error


# --- one job --------------------------------------------------------------------------------------


def one(view: View, name: str, manager: QueueManager) -> list[object]:
    """Return everything about one job."""
    id = view.request.asked("id")
    try:
        job = manager.job_info(id)
    except EventPerfError as error:
        raise NotHere(str(error)) from error
    facts = [
        card(say("field_state"), job.state.value, level="bad" if job.state.value == "failed" else None),
        card(say("field_type"), job.type),
        card(say("field_queue"), job.queue),
        card(say("tries"), job.attempt, say("crashes", n=job.crashes)),
        card(COLUMNS["worker"], job.worker or say("none")),
    ]
    if job.progress is not None:
        facts.append(card(say("progress"), f"{job.progress:.0%}"))
    body: list[object] = [cards(facts), *_buttons(view, name, manager, job)]
    body += [section(say("times"), _timeline(job)), section(say("tries"), *_attempts(view, job))]
    body += kin.sections(view, name, manager, job)
    if job.tags:
        links = (markup(view.link("/queues/jobs", t, **{"in": name}, tag=t), " ") for t in job.tags)
        body.append(section(say("tags"), *links))
    if job.error:
        body.append(section(say("error"), tag("pre", _said(view, job.id, job.error)[:_SHOWN])))
    body.append(section(say("payload"), _payload(view, manager, job)))
    if job.headers and view.may("view.payload", job.id):
        body.append(
            section(say("headers"), listing(say("headers"), heads("name value"), job.headers.items()))
        )
    return body


def _timeline(job: JobInfo) -> Html:
    times = (
        (say("created"), job.created_at),
        (say("due"), job.due_at),
        (say("started"), job.started_at),
        (say("ended"), job.finished_at),
    )
    known = sorted(((at, name) for name, at in times if at), key=lambda pair: pair[0])
    rows, before = [], None
    for at, name in known:
        rows.append((name, moment(at), "" if before is None else f"+{age(at - before)}"))
        before = at
    return listing(say("times_told"), heads("blank when after"), rows, [2])


def _said(view: View, id: str, error: str) -> str:
    """Return an error; its kind alone to those who may not see payloads, which handlers put into texts."""
    return error if view.may("view.payload", id) else error.partition("\n")[0].partition(": ")[0]


def _attempts(view: View, job: JobInfo) -> Iterator[Html]:
    if not job.attempts:
        yield empty(say("no_tries"))
        return
    rows = [
        (
            a.number,
            a.outcome,
            moment(a.started_at),
            say("at_most", age=age(a.seconds)) if a.outcome == "crashed" else age(a.seconds),
            a.worker,
            _said(view, job.id, a.error or ""),
        )
        for a in job.attempts
    ]
    yield listing(say("oldest_first"), heads("try outcome began took worker error"), rows, [0, 3], [5])
    if not view.may("view.payload", job.id):
        yield concealed(say("what_tracebacks"))
        return
    for a in job.attempts:
        for what, text in (("try_traceback", a.traceback), ("try_log_tail", a.log_tail)):
            if text:
                yield tag("details", tag("summary", say(what, n=a.number)), tag("pre", text[-_SHOWN:]))


def _payload(view: View, manager: QueueManager, job: JobInfo) -> Html:
    if not view.may("view.payload", job.id):
        return concealed(say("what_payloads"))
    if job.payload is None:
        return empty(say("payload_gone"))
    try:
        text = pformat(manager.codec.decode(job.payload), width=100)
    except Exception as error:  # bytes of another program, or of another version of this one
        text = f"{type(error).__name__}: {error}\n{job.payload[:2000]!r}"
    return tag("pre", text[:_SHOWN])


def _buttons(view: View, name: str, manager: QueueManager, job: JobInfo) -> Iterator[Html]:
    wished = "job.retry" if job.state.value in ("failed", "cancelled") else "job.cancel"
    sent = {"manager": name, "id": job.id}
    if job.state.value != "completed":
        yield view.button("/queues/job", verb(wished), action=wished, subject=job.id, **sent)
    if job.is_finished and "job.delete" in possible(manager):
        yield view.button("/queues/job", verb("job.delete"), action="job.delete", subject=job.id, **sent)
    later = "job.reschedule"
    waits = job.state.value in ("waiting", "delayed")
    if waits and later in possible(manager) and view.may(later, job.id):
        fields = hidden({"action": later, "subject": job.id, **sent})
        yield view.form("/queues/job", *fields, when(), tag("button", verb(later), type="submit"))
