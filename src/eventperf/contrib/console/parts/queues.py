"""The queues: what waits, what runs, what died, and what an operator does about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eventperf._core.clock import Clock
from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html
from eventperf.contrib.console.texts import say
from eventperf.contrib.console.view import Attention, Done, View, age, card, cards, listing, section

from .part import NotHere, Refused

if TYPE_CHECKING:
    from eventperf.queues import QueueManager, QueueStatus

_LATE_S = 60.0


class QueuesPart:
    """See :class:`~eventperf.contrib.console.parts.part.Part`."""

    path: str = "/queues"
    title: str = "queues"
    actions: frozenset[str] = frozenset({"queue.pause", "queue.resume", "job.retry", "job.cancel"})

    def __init__(self, managers: Mapping[str, QueueManager], clock: Clock) -> None:
        self._managers, self._clock = managers, clock
        self._seen: dict[str, list[QueueStatus]] = {}

    def attention(self) -> list[Attention]:
        """Name queues with dead jobs, without workers, paused or late."""
        return [a for rows in self._seen.values() for s in rows for a in _attention(s, self.path)]

    def overview(self, view: View) -> Html:
        """Show what waits in each queue."""
        self._seen = {name: manager.status() for name, manager in self._managers.items()}
        return cards(
            card(s.name, f"{s.waiting:,}", f"waiting; {s.active:,} active, {s.dead:,} dead")
            for rows in self._seen.values()
            for s in rows
        )

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Show all queues."""
        if view.request.path.strip("/") != "queues":
            raise NotHere(say("not_found"))
        return say("queues"), [section(n, self._status(view, n, m)) for n, m in self._managers.items()]

    def _status(self, view: View, name: str, manager: QueueManager) -> Html:
        rows = []
        for s in manager.status():
            verb = "resume" if s.paused else "pause"
            button: object = ""
            if "pause" in manager.backend.capabilities:
                button = view.button(
                    self.path, verb.capitalize(), action=f"queue.{verb}", subject=s.name, manager=name
                )
            rows.append(
                (
                    s.name, "paused" if s.paused else "", f"{s.waiting:,}", f"{s.delayed:,}", f"{s.active:,}",
                    f"{s.dead:,}", f"{s.completed:,}", f"{s.retried:,}", f"{s.workers:,}",
                    age(s.oldest_wait_s), f"{s.arrival_rate:.3g}", f"{s.service_rate:.3g}", button,
                )
            )  # fmt: skip
        columns = (
            "queue", "", "waiting", "delayed", "active", "dead", "completed", "retried", "workers", "oldest",
            "in /s", "out /s", "",
        )  # fmt: skip
        return listing(f"Kept in {manager.backend.name}", columns, rows, range(2, 12))

    def act(self, view: View, action: str, subject: str | None) -> Done | tuple[str, Sequence[object]]:
        """Pause or resume a queue."""
        manager = self._managers.get(view.request.sent("manager"))
        if manager is None or subject is None:
            raise Refused(say("not_found"))
        verb = action.partition(".")[2]
        try:
            manager.pause(subject) if verb == "pause" else manager.resume(subject)
        except EventPerfError as error:
            raise Refused(str(error)) from error
        return Done(what=verb, path=self.path)


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
