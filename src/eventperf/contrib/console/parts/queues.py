"""The queues: what waits, what runs, what died, and what an operator does about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from eventperf._core.clock import Clock
from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import (
    Attention,
    Done,
    View,
    age,
    card,
    cards,
    hidden,
    listing,
    section,
    select,
)

from . import acting, jobs, minutes, rules, workers
from .part import NotHere, Refused

if TYPE_CHECKING:
    from eventperf.queues import QueueManager, QueueStatus

_LATE_S = 60.0
_PURGED = ("failed", "completed", "waiting", "delayed")


class QueuesPart:
    """See :class:`~eventperf.contrib.console.parts.part.Part`."""

    path: str = "/queues"
    title: str = "queues"
    actions: frozenset[str] = frozenset({"queue.pause", "queue.resume", "queue.purge"}) | acting.ACTIONS

    def __init__(self, managers: Mapping[str, QueueManager], clock: Clock) -> None:
        self._managers, self._clock = managers, clock
        self._minutes = {
            name: minutes.Minutes(manager, clock)
            for name, manager in managers.items()
            if "metrics" in manager.backend.capabilities
        }
        self._seen: dict[str, list[QueueStatus]] = {}

    def attention(self) -> list[Attention]:
        """Name queues with dead jobs, without workers, paused or late."""
        return [a for rows in self._seen.values() for s in rows for a in _attention(s, self.path)]

    def overview(self, view: View) -> Html:
        """Show what waits in each queue."""
        self._seen = {name: manager.status() for name, manager in self._managers.items()}
        shown = cards(
            card(s.name, f"{s.waiting:,}", say("in_queue", active=f"{s.active:,}", dead=f"{s.dead:,}"))
            for rows in self._seen.values()
            for s in rows
        )
        drawn = [minutes.plots(known.of("1h")) for known in self._minutes.values()]
        return markup(shown, *drawn)

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Show all queues, the jobs that are asked for, or one of them."""
        path = view.request.path.strip("/")
        if path == "queues":
            body = [section(n, *self._room(view, n, m)) for n, m in self._managers.items()]
            return say("queues"), body
        name = view.request.asked("in", next(iter(self._managers)))
        manager = self._managers.get(name)
        if manager is None or path not in ("queues/jobs", "queues/job", "queues/rules", "queues/workers"):
            raise NotHere(say("not_found"))
        if path == "queues/jobs":
            return say("jobs"), [self._chooser(view, path, name), *jobs.page(view, name, manager)]
        if path == "queues/workers":
            return say("workers"), [self._chooser(view, path, name), workers.page(manager)]
        if path == "queues/rules":
            shown = rules.page(name, manager, self._clock.time())
            return say("rules"), [self._chooser(view, path, name), *shown]
        return say("job_named", id=view.request.asked("id")), jobs.one(view, name, manager)

    def _room(self, view: View, name: str, manager: QueueManager) -> Iterator[object]:
        yield self._status(view, name, manager)
        has = manager.backend.capabilities
        near = [
            ("/queues/jobs", "find_jobs", "search" in has),
            ("/queues/workers", "workers", "roster" in has),
        ]
        links = [
            view.link(path, say(text), **{"in": name})
            for path, text, is_there in (*near, ("/queues/rules", "rules", True))
            if is_there
        ]
        yield tag("nav", *links, class_="tabs", aria_label=say("more_of", name=name))
        if name in self._minutes:
            yield minutes.section_of(view, name, self._minutes[name])
        if view.may("queue.purge", None):
            yield tag("h3", say("purge_head"))
            yield self._purging(view, name, manager)

    def _purging(self, view: View, name: str, manager: QueueManager) -> Html:
        return view.form(
            self.path,
            *hidden({"action": "queue.purge", "manager": name}),
            select("state", say("field_state"), [(s, s) for s in _PURGED], _PURGED[0]),
            select("subject", say("field_queue"), [(q, q) for q in manager.queues], ""),
            tag("button", say("purge"), type="submit"),
            class_="filter",
        )

    def _chooser(self, view: View, path: str, current: str) -> Html:
        """Return links to the same page of the other managers."""
        if len(self._managers) < 2:
            return Html("")
        links = [
            tag(
                "a", name, href=view.request.link(f"/{path}", **{"in": name}),
                aria_current="page" if name == current else None,
            )
            for name in self._managers
        ]  # fmt: skip
        return tag("nav", *links, class_="tabs", aria_label=say("managers"))

    def _status(self, view: View, name: str, manager: QueueManager) -> Html:
        rows = []
        for s in manager.status():
            verb = "resume" if s.paused else "pause"
            button: object = ""
            if "pause" in manager.backend.capabilities:
                button = view.button(
                    self.path, say(f"do_{verb}"), action=f"queue.{verb}", subject=s.name, manager=name
                )
            state = say("paused") if s.paused else ""
            counts = [f"{n:,}" for n in (s.waiting, s.delayed, s.active)]
            dead = self._link(view, name, manager, s.name, f"{s.dead:,}", "failed")
            more = [f"{n:,}" for n in (s.completed, s.retried, s.workers)]
            rates = [age(s.oldest_wait_s), f"{s.arrival_rate:.3g}", f"{s.service_rate:.3g}"]
            rows.append(
                (self._link(view, name, manager, s.name), state, *counts, dead, *more, *rates, button)
            )
        columns = heads(
            "queue blank waiting delayed active dead completed retried workers oldest in out blank"
        )
        return listing(say("kept_in", name=manager.backend.name), columns, rows, range(2, 12))

    def _link(
        self, view: View, name: str, manager: QueueManager, queue: str, text: str = "", state: str = ""
    ) -> object:
        """Return a link to the jobs of a queue, where the store can search."""
        if "search" not in manager.backend.capabilities:
            return text or queue
        return view.link("/queues/jobs", text or queue, **{"in": name}, queue=queue, state=state)

    def act(self, view: View, action: str, subject: str | None) -> Done | tuple[str, Sequence[object]]:
        """Pause, resume or empty a queue; retry, cancel or reschedule jobs."""
        manager = self._managers.get(view.request.sent("manager"))
        if manager is None:
            raise Refused(say("not_found"))
        if action in acting.ACTIONS:
            return acting.act(view, action, manager)
        if subject is None:
            raise Refused(say("not_found"))
        if action == "queue.purge":
            return self._purge(view, manager, subject)
        verb = action.partition(".")[2]
        try:
            manager.pause(subject) if verb == "pause" else manager.resume(subject)
        except EventPerfError as error:
            raise Refused(str(error)) from error
        return Done(what=verb, path=self.path)

    def _purge(self, view: View, manager: QueueManager, queue: str) -> Done | tuple[str, Sequence[object]]:
        """Delete all jobs of a queue in one state, once that was confirmed."""
        name, state = view.request.sent("manager"), view.request.sent("state")
        if state not in _PURGED or queue not in manager.queues:
            raise Refused(say("not_found"))
        if not view.request.sent("sure"):
            counts = {
                s.name: {"waiting": s.waiting, "delayed": s.delayed, "failed": s.dead}
                for s in manager.status()
            }
            count = counts[queue].get(state)
            text = (
                say("purge_kept", state=state, queue=queue)
                if count is None
                else say("purge_these", n=f"{count:,}", state=state, queue=queue)
            )
            sent = {"manager": name, "state": state, "sure": "1"}
            return say("confirm"), [
                tag("p", text, data_still=""),
                view.button(self.path, say("purge"), action="queue.purge", subject=queue, **sent),
                markup(" ", view.link(self.path, say("cancel"))),
            ]
        try:
            return Done(what="purge", path=self.path, count=manager.purge(queue, state))
        except EventPerfError as error:
            raise Refused(str(error)) from error


def _attention(s: QueueStatus, path: str) -> list[Attention]:
    found = []
    if s.dead:
        found.append(Attention(level="bad", text=say("dead_jobs", n=f"{s.dead:,}", queue=s.name), path=path))
    if s.paused and s.waiting:
        text = say("paused_queue", queue=s.name, n=f"{s.waiting:,}")
        found.append(Attention(level="warn", text=text, path=path))
    elif s.waiting and not s.workers:
        text = say("no_workers", n=f"{s.waiting:,}", queue=s.name)
        found.append(Attention(level="bad", text=text, path=path))
    elif s.oldest_wait_s > _LATE_S:
        text = say("late_queue", queue=s.name, age=age(s.oldest_wait_s))
        found.append(Attention(level="warn", text=text, path=path))
    return found
