"""What is enqueued by itself, and what holds jobs back: schedules with their next times, limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from eventperf._pages.html import Html
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import age, empty, listing, moment, section

if TYPE_CHECKING:
    from eventperf.queues import Limit, QueueManager, QueueStatus
    from eventperf.queues.schedules import Schedule

_NEXT: Final = 3
_MOST: Final = 500


def page(name: str, manager: QueueManager, now: float) -> Sequence[object]:
    """Return the schedules and limits of a manager."""
    return [
        section(
            say("rules_of", name=name, what=say("schedules")), schedules(manager.schedules.values(), now)
        ),
        section(
            say("rules_of", name=name, what=say("limits")), limits(manager.options.limits, manager.status())
        ),
    ]


def schedules(known: Iterable[Schedule], now: float) -> Html:
    """Return what comes next, soonest first.

    Args:
        known: As declared with ``cron`` in this process; the store only remembers their last slots.
        now: Seconds since the epoch.
    """
    planned = []
    for schedule in known:
        job = schedule.make().record
        times = slots(schedule, now)
        planned.append((times[0] if times else float("inf"), schedule, job, times))
    if not planned:
        return empty(say("no_schedules"))
    planned.sort(key=lambda one: (one[0], one[1].name))
    rows = [
        (schedule.name, when(schedule), job.type, job.queue, *map(moment, [*times, *[None] * _NEXT][:_NEXT]))
        for _, schedule, job, times in planned[:_MOST]
    ]
    return listing(say("schedules"), heads("schedule when job queue next then then"), rows)


def slots(schedule: Schedule, now: float) -> list[float]:
    """Return the next times of a schedule."""
    found: list[float] = []
    while len(found) < _NEXT and (slot := schedule.when.after(found[-1] if found else now)) is not None:
        found.append(slot)
    return found


def when(schedule: Schedule) -> str:
    """Return how often, as it was written."""
    step = getattr(schedule.when, "step_s", None)
    return say("every", age=age(step)) if step is not None else f"{schedule.when.text} ({schedule.when.zone})"  # type: ignore[union-attr]


def limits(declared: Sequence[Limit], status: Sequence[QueueStatus]) -> Html:
    """Return each limit beside what waits and runs in its queue, where it is of one queue alone."""
    if not declared:
        return empty(say("no_limits"))
    counts = {s.name: (f"{s.active:,}", f"{s.waiting:,}") for s in status}
    rows = [
        (
            limit.queue or say("every_queue"),
            limit.type or say("every_type"),
            say("per_key" if limit.per_key else "together"),
            "" if limit.concurrency is None else say("at_once", n=f"{limit.concurrency:,}"),
            "" if limit.rate is None else say("in_a_time", n=f"{limit.rate:,}", age=age(float(limit.per))),  # type: ignore[arg-type]
            *(counts.get(limit.queue or "", ("", ""))),
        )
        for limit in declared[:_MOST]
    ]
    columns = heads("queue type counted at_once starts active waiting")
    return listing(say("limits"), columns, rows, (5, 6))
