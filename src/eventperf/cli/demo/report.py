"""The demo's report: one page that loads nothing from anywhere."""

from __future__ import annotations

from eventperf._pages.html import Html, listed, page, table, tag
from eventperf._pages.svg import bars, lines

from .app import BOUNDED_S, PROVIDER_S
from .load import percentile
from .stages import LOAD_SHARE, Outcome, Stage
from .tables import (
    INDEX_COLUMNS,
    QUEUE_COLUMNS,
    STAGE_COLUMNS,
    chaos_lines,
    index_rows,
    queue_rows,
    stage_rows,
)


def report_page(outcome: Outcome) -> str:
    """Return the whole page as HTML."""
    last = outcome.stages[-1]
    return page(
        "eventperf demo",
        *_summary(outcome),
        tag("h2", f"At {outcome.rate:.0f} arrivals/s, the same in every stage"),
        table(STAGE_COLUMNS, stage_rows(outcome)),
        tag("h2", "Latency over time (p95, logarithmic)"),
        lines([(s.name, _over_time(s)) for s in outcome.rows], x="seconds", y="ms", log=True),
        tag("h2", "Query time per page, before and after the indexes, without cache"),
        bars(list(outcome.endpoints.items()), ("before", "after"), title="ms"),
        tag("h2", "Indexes"),
        table(INDEX_COLUMNS, index_rows(outcome)),
        tag("h2", "Side work: wait by queue"),
        bars(
            [(q, [percentile(w, s) * 1000 for s in (0.5, 0.99)]) for q, w in sorted(last.waits.items())],
            ("p50", "p99"),
            title="ms",
        ),
        table(QUEUE_COLUMNS, queue_rows(outcome)),
        *_chaos(outcome),
        *_day(outcome),
        *_method(),
        tag("h2", "Environment"),
        table(("", ""), [[k, v] for k, v in outcome.environment.items()]),
    )


def _summary(outcome: Outcome) -> list[Html]:
    first, last = outcome.stages[0], outcome.stages[-1]
    times = last.sustained_rps / max(first.sustained_rps, 1e-9)
    sound = "good" if outcome.is_clean else "bad"
    said = "found nothing wrong" if outcome.is_clean else "found faults: see the last column"
    what = (
        f"{outcome.engine}, {outcome.size.participants:,} participants, "
        f"{outcome.size.registrations:,} registrations; {outcome.took_s:.0f} s in all."
    )
    return [
        tag("h1", "eventperf demo"),
        tag("p", what, class_="muted"),
        tag(
            "p",
            tag("b", f"{times:.1f} times"),
            " the requests per second of the plain site. The independent check ",
            tag("b", said, class_=sound),
            ".",
        ),
    ]


def _method() -> list[Html]:
    said = (
        f"Arrivals are Poisson at {LOAD_SHARE:.0%} of what the plain site sustained in this run; latency "
        "counts from the moment a request was due.",
        "A read is stale when it shows less than had been committed before it began; two pages may by "
        f"contract be {BOUNDED_S:g} s old. Jobs are counted from the effects they had.",
        f"Simulated: the mail provider ({PROVIDER_S * 1000:.0f} ms a message) and the event day with its "
        "replicas. Everything else was measured in this run.",
    )
    return [tag("h2", "Method"), listed(said)]


def _chaos(outcome: Outcome) -> list[Html]:
    if not (said := chaos_lines(outcome)):
        return []
    return [tag("h2", "Chaos: what was broken on purpose, on a Redis of the demo's own"), listed(said)]


def _day(outcome: Outcome) -> list[Html]:
    day = outcome.day
    if day is None:
        return []
    load = [(p[0], p[1] / day.capacity_rps) for p in day.points[::5]]
    replicas = [(p[0], float(p[3])) for p in day.points[::5]]
    rows = [[d.explain()] for d in day.decisions[:12]]
    return [
        tag("h2", "Replicas against load: a simulated event day"),
        lines([("load, in replicas' worth", load), ("replicas", replicas)], x="hour", y="replicas", areas=1),
        table((f"first decisions of {len(day.decisions)}",), rows),
    ]


def _over_time(stage: Stage) -> list[tuple[float, float]]:
    slots: dict[int, list[float]] = {}
    for due, _, latency, _ in stage.open_loop.samples:
        slots.setdefault(int(due * 5), []).append(latency * 1000)
    return [(slot / 5, percentile(values, 0.95)) for slot, values in sorted(slots.items())]
