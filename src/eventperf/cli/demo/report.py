"""The demo's report: one page that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .app import BOUNDED_S, PROVIDER_S
from .load import percentile
from .plots import bars, lines
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

_COLOURS = ("#c2410c", "#2563eb", "#7c3aed", "#059669", "#be185d")
_DARK = ("#fb923c", "#60a5fa", "#a78bfa", "#34d399", "#f472b6")


def _palette(colours: Sequence[str]) -> str:
    return "".join(
        f".s{n}{{stroke:{c};fill:none;stroke-width:1.8}}.b{n}{{fill:{c};background:{c}}}"
        for n, c in enumerate(colours)
    )


_STYLE = (
    ":root{--ink:#17202c;--soft:#5b6878;--line:#dde3ea;--paper:#fff}"
    "body{font:15px/1.55 system-ui,sans-serif;max-width:62rem;margin:2.5rem auto;padding:0 1.2rem;"
    "color:var(--ink);background:var(--paper)}"
    "h1{font-size:1.7rem;margin:0}h2{font-size:1.15rem;margin:2.4rem 0 .5rem}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}"
    "th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}"
    "th{color:var(--soft);font-weight:600}svg{width:100%;height:auto}"
    "svg text{font:12px system-ui;fill:var(--soft)}"
    ".grid{stroke:var(--line)}.muted,.legend em{color:var(--soft)}.legend span{margin-right:1.2rem}"
    ".legend i{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.4rem}"
    ".good{color:#059669}.bad{color:#dc2626}" + _palette(_COLOURS) + "@media(prefers-color-scheme:dark){"
    ":root{--ink:#e3e9f0;--soft:#94a3b5;--line:#2a3441;--paper:#11161d}" + _palette(_DARK) + "}"
)


def page(outcome: Outcome) -> str:
    """Return the whole page as HTML."""
    first, last = outcome.stages[0], outcome.stages[-1]
    times = last.sustained_rps / max(first.sustained_rps, 1e-9)
    sound = "good" if outcome.is_clean else "bad"
    said = "found nothing wrong" if outcome.is_clean else "found faults: see the last column"
    body = [
        "<h1>eventperf demo</h1>",
        f"<p class=muted>{escape(outcome.engine)}, {outcome.size.participants:,} participants, "
        f"{outcome.size.registrations:,} registrations; {outcome.took_s:.0f} s in all.</p>",
        f"<p><b>{times:.1f} times</b> the requests per second of the plain site. "
        f"The independent check <b class={sound}>{said}</b>.</p>",
        f"<h2>At {outcome.rate:.0f} arrivals/s, the same in every stage</h2>",
        _table(STAGE_COLUMNS, stage_rows(outcome)),
        "<h2>Latency over time (p95, logarithmic)</h2>",
        lines([(s.name, _over_time(s)) for s in outcome.rows], x="seconds", y="ms", log=True),
        "<h2>Query time per page, before and after the indexes, without cache</h2>",
        bars([(p, ba) for p, ba in outcome.endpoints.items()], ("before", "after"), "ms"),
        "<h2>Indexes</h2>",
        _table(INDEX_COLUMNS, index_rows(outcome)),
        "<h2>Side work: wait by queue</h2>",
        bars(
            [(q, [percentile(w, s) * 1000 for s in (0.5, 0.99)]) for q, w in sorted(last.waits.items())],
            ("p50", "p99"),
            "ms",
        ),
        _table(QUEUE_COLUMNS, queue_rows(outcome)),
        *_chaos(outcome),
        *_day(outcome),
        "<h2>Method</h2><ul>",
        f"<li>Arrivals are Poisson at {LOAD_SHARE:.0%} of what the plain site sustained in this run; "
        "latency counts from the moment a request was due.</li>",
        "<li>A read is stale when it shows less than had been committed before it began; two pages may "
        f"by contract be {BOUNDED_S:g} s old. Jobs are counted from the effects they had.</li>",
        f"<li>Simulated: the mail provider ({PROVIDER_S * 1000:.0f} ms a message) and the event day with its "
        "replicas. Everything else was measured in this run.</li></ul>",
        "<h2>Environment</h2>",
        _table(("", ""), [[k, v] for k, v in outcome.environment.items()]),
    ]
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>eventperf demo</title>'
    return f"{head}<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"


def _chaos(outcome: Outcome) -> list[str]:
    lines = chaos_lines(outcome)
    head = "<h2>Chaos: what was broken on purpose, on a Redis of the demo's own</h2>"
    return [head, "<ul>", *(f"<li>{escape(line)}</li>" for line in lines), "</ul>"] if lines else []


def _day(outcome: Outcome) -> list[str]:
    day = outcome.day
    if day is None:
        return []
    load = [(p[0], p[1] / day.capacity_rps) for p in day.points[::5]]
    replicas = [(p[0], float(p[3])) for p in day.points[::5]]
    rows = [[d.explain()] for d in day.decisions[:12]]
    return [
        "<h2>Replicas against load: a simulated event day</h2>",
        lines([("load, in replicas' worth", load), ("replicas", replicas)], x="hour", y="replicas"),
        _table((f"first decisions of {len(day.decisions)}",), rows),
    ]


def _over_time(stage: Stage) -> list[tuple[float, float]]:
    slots: dict[int, list[float]] = {}
    for due, _, latency, _ in stage.open_loop.samples:
        slots.setdefault(int(due * 5), []).append(latency * 1000)
    return [(slot / 5, percentile(values, 0.95)) for slot, values in sorted(slots.items())]


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
