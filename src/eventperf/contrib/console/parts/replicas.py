"""Replicas drawn over time: what ran, what a shadow (``dry_run=True``) would have run, and the load."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from eventperf._pages.html import Html, markup, tag
from eventperf._pages.svg import NARROW, lines
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import age, listing, moment

if TYPE_CHECKING:
    from eventperf.scaling import ScalingDecision

Course = Sequence[tuple[float, float]]
"""Times and replicas, oldest first."""

_HOURS_FROM_S: Final = 7_200.0
_AHEAD_SHARE: Final = 0.3  # of what is drawn, how far ahead openings are marked
_MARKS: Final = 12
_DRAWN: Final = 400  # points of a line
_SHADOWS: Final = 2  # colours end
_ROWS: Final = 24
_GAP_S: Final = 3_600.0  # a course says nothing of times further from its last decision


def plots(
    live: Sequence[ScalingDecision],
    shadows: Mapping[str, Sequence[ScalingDecision]],
    now: float,
    calendar: Any,
) -> Html:
    """Draw replicas, shadows beside them, load and forecasts at a scale of their own; openings are marked.

    Args:
        live: Of one target, newest first; of a target that is only looked at, the shadow's.
        shadows: Decisions of others about the same target, newest first, by name.
    """
    past = list(reversed(live))
    unit_s, unit = (
        (3600.0, "hours_from_now") if now - past[0].at > _HOURS_FROM_S else (60.0, "minutes_from_now")
    )

    def placed(course: Iterable[tuple[float, float]]) -> Course:
        return thinned([((at - now) / unit_s, value) for at, value in course if at >= past[0].at])

    seen = [(d.at, d, d.observation) for d in past]
    series = [
        (say("line_after"), placed((at, float(d.after)) for at, d, _ in seen)),
        (say("line_ready"), placed((at, float(o.state.ready)) for at, _, o in seen if o is not None)),
        (say("line_wanted"), placed((at, float(d.wanted)) for at, d, _ in seen)),
        *((say("line_shadow", name=name), placed(course(each))) for name, each in _few(shadows)),
    ]
    named = [
        (say("line_forecast"), live),
        *((say("line_forecast_of", name=name), each) for name, each in _few(shadows)),
    ]
    foreseen = [(name, points) for name, each in named if (points := placed(forecasts(each)))]
    metric = "rps" if foreseen else next((d.metric for d in live if d.metric), "rps")
    load = placed(
        (at, value) for at, _, o in seen if o is not None and (value := o.value(metric)) is not None
    )
    drawn = [(say("replicas"), series, say("fact_replicas"), 0)]
    if load:
        drawn.append((say("load"), [(metric, load), *foreseen], metric, 1))
    x = say(unit)
    marks = [((at - now) / unit_s, name) for at, name in _announced(calendar, past[0].at, now)]
    return tag(
        "div",
        *(
            tag("div", tag("h3", name), lines(shown, x=x, y=y, areas=areas, marks=marks,
                                              title=say("against", x=x, y=y), width=NARROW))
            for name, shown, y, areas in drawn
        ),
        class_="multiples",
    )  # fmt: skip


def _announced(calendar: Any, since: float, now: float) -> list[tuple[float, str]]:
    """Return the openings of the time that is drawn, and of a while ahead."""
    if calendar is None:
        return []
    until = now + (now - since) * _AHEAD_SHARE
    return sorted((e.at, e.id or e.kind) for e in calendar.around(now) if since <= e.at <= until)[:_MARKS]


def _few(shadows: Mapping[str, Sequence[ScalingDecision]]) -> list[tuple[str, Sequence[ScalingDecision]]]:
    return list(shadows.items())[:_SHADOWS]


def course(decisions: Sequence[ScalingDecision]) -> Course:
    """Return the replicas that decisions (newest first) asked for, oldest first."""
    return [(d.at, float(d.after)) for d in reversed(decisions)]


def forecasts(decisions: Sequence[ScalingDecision]) -> Course:
    """Return the load that was made ready for, at the times it was to come, oldest first."""
    return [(d.at + d.forecast[0], d.forecast[1]) for d in reversed(decisions) if d.forecast is not None]


def thinned(points: Course, most: int = _DRAWN) -> Course:
    """Return at most ``most`` points, each the highest of its neighbours: no spike gets lost.

    >>> thinned([(0, 1), (1, 9), (2, 2), (3, 3)], 2)
    [(1, 9), (3, 3)]
    """
    size = max(1, -(-len(points) // most))
    return [max(points[at : at + size], key=lambda point: point[1]) for at in range(0, len(points), size)]


def value_at(points: Course, at: float) -> float | None:
    """Return what held at a time: the last value before it, if that is not too long ago.

    >>> value_at([(0, 3), (60, 5)], 59), value_at([(0, 3)], 1e6), value_at([(9, 3)], 1)
    (3, None, None)
    """
    before = bisect_right(points, (at, float("inf")))
    if not before or at - points[before - 1][0] > _GAP_S:
        return None
    return points[before - 1][1]


def replica_s(points: Course, since: float, until: float) -> float:
    """Return the replica-seconds of a course between two times.

    >>> replica_s([(0, 2), (10, 4)], 5, 20)
    50.0
    """
    total = 0.0
    for (at, replicas), end in zip(points, [*(p[0] for p in points[1:]), until], strict=True):
        total += replicas * max(0.0, min(end, until, at + _GAP_S) - max(at, since))
    return total


def beside(live: Sequence[ScalingDecision], shadows: Mapping[str, Sequence[ScalingDecision]]) -> Html:
    """Return a table of what ran and what each shadow would have run, for whoever takes no plots."""
    ran, others = course(live), [(name, course(each)) for name, each in _few(shadows)]
    until = max(ran[-1][0], *(points[-1][0] for _, points in others))
    since = max(ran[0][0], min(points[0][0] for _, points in others))
    if until <= since:
        return markup()
    names = [say("line_shadow", name=name) for name, _ in others]
    step = (until - since) / (_ROWS - 1)
    rows: list[tuple[object, ...]] = [
        (moment(at), *(_shown(value_at(points, at)) for points in (ran, *(p for _, p in others))))
        for at in (until - n * step for n in range(_ROWS))
    ]
    hours = [replica_s(points, since, until) / 3600 for points in (ran, *(p for _, p in others))]
    total = (say("replica_hours", age=age(until - since)), *(f"{value:,.1f}" for value in hours))
    table = listing(say("beside"), [*heads("when ran"), *names], [total, *rows], range(1, 2 + len(others)))
    return tag("details", tag("summary", say("beside_table")), table)


def _shown(value: float | None) -> str:
    return say("none") if value is None else f"{value:,.0f}"
