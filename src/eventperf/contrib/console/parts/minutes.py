"""What queues did by the minute, drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from eventperf._core.clock import Clock
from eventperf._core.durations import seconds
from eventperf._pages.html import Html, markup, tag
from eventperf._pages.svg import NARROW, lines
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import View, age, empty, listing

if TYPE_CHECKING:
    from eventperf.queues import QueueManager
    from eventperf.queues.minutes import Interval, Metrics

Lines = list[tuple[str, list[tuple[float, float]]]]
Courses = dict[str, "dict[float, Interval]"]

_SPANS: Final = {"1h": "1m", "6h": "5m", "24h": "15m"}
_FRESH_S: Final = {"1h": 5.0, "6h": 30.0, "24h": 60.0}
_MINUTE_S: Final = 60.0
_SHORTEST_S: Final = 15.0  # of the open step, before it says how many there are a minute
_DRAWN: Final = 5  # series in one plot: as many as there are colours, and one less


class Minutes:
    """The minutes of one manager, however many pages are open; steps that are over are not read again."""

    def __init__(self, manager: QueueManager, clock: Clock) -> None:
        self._manager, self._clock = manager, clock
        self._mu = threading.Lock()
        self._read: dict[str, tuple[float, Metrics]] = {}

    def of(self, span: str) -> Metrics:
        """Return what the last hour, or another span of the switch, brought; nobody changes it."""
        with self._mu:
            now = self._clock.monotonic()
            if span not in self._read:
                self._read[span] = now, self._whole(span)
            at, known = self._read[span]
            if now - at >= _FRESH_S[span]:
                self._read[span] = now, self._renewed(span, known, now - at)
            return self._read[span][1]

    def _whole(self, span: str) -> Metrics:
        return self._manager.metrics(since=span, step=_SPANS[span])

    def _renewed(self, span: str, known: Metrics, passed_s: float) -> Metrics:
        """Read what has come since; the step before the open one too, since some count a little late."""
        full = int((known.until - known.since) // known.step_s)
        open_ = known.since + max(0, full - 1) * known.step_s
        since_s = known.until + passed_s - open_ - _MINUTE_S / 2  # whatever the clocks do, within that minute
        if since_s >= (whole_s := seconds(span, name="since")):
            return self._whole(span)
        fresh = self._manager.metrics(since=since_s, step=_SPANS[span])
        return joined(known, fresh, whole_s) if fresh.since == open_ else self._whole(span)


def joined(known: Metrics, fresh: Metrics, span_s: float) -> Metrics:
    """Return ``fresh`` after what ``known`` holds of the time before, back to ``span_s`` seconds ago."""
    late = max(0.0, fresh.until - span_s - known.since)
    since = known.since + late // known.step_s * known.step_s
    kept = [one for one in known.intervals if since <= one.at < fresh.since]
    return replace(fresh, since=since, intervals=kept + fresh.intervals)


def plots(metrics: Metrics, queue: str = "") -> Html:
    """Return jobs a minute and waits, by queue; of one ``queue`` by type."""
    found = _by_type(metrics, queue) if queue else _by_queue(metrics)
    if not found:
        return empty(say("no_minutes"))
    busiest = sorted(found, key=lambda name: -sum(_ended(i) for i in found[name].values()))[:_DRAWN]
    steps = [((at - metrics.until) / _MINUTE_S, at) for at in _steps(metrics)]
    counted = [(x, at) for x, at in steps if metrics.until - at >= _SHORTEST_S]
    done: Lines = []
    waits: dict[float, Lines] = {50.0: [], 99.0: []}
    for name in busiest:
        kept = found[name]
        done.append((name, [(x, _rate(kept.get(at), at, metrics)) for x, at in counted]))
        for percent, drawn in waits.items():
            late = ((x, _late(kept.get(at), percent)) for x, at in steps)
            drawn.append((name, [(x, seconds) for x, seconds in late if seconds is not None]))
    return tag(
        "div",
        tag("div", tag("h3", say("jobs_a_minute")), _drawn(done, say("unit_jobs"))),
        tag("div", tag("h3", say("wait_p50")), _drawn(waits[50.0], say("unit_seconds"))),
        tag("div", tag("h3", say("wait_p99")), _drawn(waits[99.0], say("unit_seconds"))),
        class_="multiples",
    )


def _by_queue(metrics: Metrics) -> Courses:
    """Return sums over types, beside what is summed: other pages show that too."""
    from eventperf.queues.minutes import Interval

    found: Courses = {}
    for one in metrics.intervals:
        kept = found.setdefault(one.queue, {})
        if one.at not in kept:
            kept[one.at] = Interval(at=one.at, queue=one.queue, type="")
        kept[one.at].merge(one)
    return found


def _by_type(metrics: Metrics, queue: str) -> Courses:
    found: Courses = {}
    for one in metrics.intervals:
        if one.queue == queue:
            found.setdefault(one.type, {})[one.at] = one
    return found


def _drawn(series: Lines, unit: str) -> Html:
    if not any(points for _, points in series):
        return empty(say("no_minutes"))
    x = say("minutes_from_now")
    return lines(series, x=x, y=unit, title=say("against", x=x, y=unit), width=NARROW)


def _steps(metrics: Metrics) -> list[float]:
    count = int((metrics.until - metrics.since) // metrics.step_s) + 1
    return [metrics.since + n * metrics.step_s for n in range(count)]


def _ended(one: Interval) -> int:
    return one.completed + one.failed


def _rate(one: Interval | None, at: float, metrics: Metrics) -> float:
    """Return jobs a minute; the open step is shorter than the others."""
    return 0.0 if one is None else _ended(one) * _MINUTE_S / min(metrics.step_s, metrics.until - at)


def _late(one: Interval | None, percent: float) -> float | None:
    return None if one is None else one.wait.percentile(percent)


def section_of(view: View, name: str, minutes: Minutes) -> Html:
    """Return plots and a table of the span that the URL asks for, of one queue where it names one."""
    span = view.request.asked("span", "1h")
    span = span if span in _SPANS else "1h"
    metrics = minutes.of(span)
    queues = sorted({one.queue for one in metrics.intervals})
    queue = view.request.asked("queue") if view.request.asked("in") == name else ""
    queue = queue if queue in queues else ""
    asked: dict[str, object] = {"in": name, "queue": queue} if queue else {}
    spans = [(s, {**asked, "span": s}, s == span) for s in _SPANS]
    choices = [("", say("all_queues")), *((q, q) for q in queues)]
    ways = [(text, {"in": name, "queue": q, "span": span}, q == queue) for q, text in choices]
    choosers = [_chooser(view, say("how_far_back"), spans)]
    choosers += [_chooser(view, say("which_queue", name=name), ways)] if queues else []
    return markup(*choosers, plots(metrics, queue), _table(metrics, span, queue))


def _chooser(view: View, name: str, ways: Iterable[tuple[str, Mapping[str, object], bool]]) -> Html:
    links = [
        tag("a", text, href=view.request.link("/queues", **query), aria_current="page" if is_it else None)
        for text, query, is_it in ways
    ]
    return tag("nav", *links, class_="tabs", aria_label=name)


def _table(metrics: Metrics, span: str, queue: str) -> Html:
    found = metrics.by("queue", "type")
    shown = (one for one in found.values() if not queue or one.queue == queue)
    rows = [
        (
            i.queue, i.type, f"{i.completed:,}", f"{i.failed:,}", f"{i.retried:,}", f"{i.crashed:,}",
            *(_time(h.percentile(p)) for h in (i.wait, i.run) for p in (50, 99)),
        )
        for i in sorted(shown, key=lambda i: -_ended(i))[:50]
    ]  # fmt: skip
    columns = heads("queue type completed failed retried crashed wait_p50 p99 run_p50 p99")
    return listing(say("by_queue_and_type", span=span), columns, rows, range(2, 10)) if rows else Html("")


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else age(seconds)
