"""A backtest as plots and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eventperf._pages.html import Html, page, table, tag
from eventperf._pages.svg import lines, peaks, standalone

if TYPE_CHECKING:
    from .backtest import BacktestReport


def replicas_plot(load: Sequence[float], replicas: Mapping[str, Sequence[float]], step_s: float) -> Html:
    """Return ``load`` (in replicas' worth) as an area and each of ``replicas`` as a line, peaks kept."""
    series = [("load, in replicas' worth", _points(load, step_s))]
    series += [(name, _points(values, step_s)) for name, values in replicas.items()]
    return lines(series, x="hours", y="replicas", areas=1)


def late_plot(name: str, late: Sequence[float], step_s: float) -> Html:
    """Return the share of requests that waited too long, over time."""
    percent = _points([100 * share for share in late], step_s)
    return lines([(name, percent)], x="hours", y="late % of a step's requests", areas=1)


def svg_file(report: BacktestReport) -> str:
    """Return replicas and load as an SVG file of its own."""
    shown = {s.name: [float(n) for n in s.replicas] for s in report.scores}
    return standalone(replicas_plot(_load(report), shown, report.trace.step_s))


def report_page(report: BacktestReport) -> str:
    """Return a page that needs nothing from outside: a table of scores, replicas, and late requests."""
    shown = [
        s for s in report.scores if s is report.score or s.name == "oracle" or s.name.startswith("HPA cpu")
    ]
    step_s = report.trace.step_s
    columns = ("policy", "late %", "replica-minutes", "x oracle", "actions", "flaps")
    rows = [
        (s.name, f"{100 * s.violations:.3f}", f"{s.replica_minutes:.0f}", f"{s.cost:.2f}", s.actions, s.flaps)
        for s in report.scores
    ]
    return page(
        "Backtest",
        tag("h1", "Backtest"),
        table(columns, rows, numbers=range(1, len(columns))),
        tag("h2", "Replicas and load"),
        replicas_plot(_load(report), {s.name: [float(n) for n in s.replicas] for s in shown}, step_s),
        tag("h2", "Requests that waited too long"),
        *(late_plot(s.name, s.late, step_s) for s in shown if any(s.late)),
    )


def _load(report: BacktestReport) -> list[float]:
    return [rate / report.pod.rps for rate in report.trace.rates]


def _points(values: Sequence[float], step_s: float) -> list[tuple[float, float]]:
    kept = peaks(values)
    hours = len(values) * step_s / 3600 / max(1, len(kept))
    return [(i * hours, value) for i, value in enumerate(kept)]
