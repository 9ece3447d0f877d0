"""A backtest as plots and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventperf._pages.html import Html, page, table, tag
from eventperf._pages.svg import lines, peaks, standalone

from .score import Score


def replicas_plot(load: Sequence[float], replicas: Mapping[str, Sequence[float]], step_s: float) -> Html:
    """Return ``load`` (in replicas' worth) as an area and each of ``replicas`` as a line, peaks kept."""
    series = [("load, in replicas' worth", _points(load, step_s))]
    series += [(name, _points(values, step_s)) for name, values in replicas.items()]
    return lines(series, x="hours", y="replicas", areas=1)


def late_plot(name: str, late: Sequence[float], step_s: float) -> Html:
    """Return the share of requests that waited too long, over time."""
    percent = _points([100 * share for share in late], step_s)
    return lines([(name, percent)], x="hours", y="late % of a step's requests", areas=1)


def scores_file(load: Sequence[float], step_s: float, scores: Sequence[Score]) -> str:
    """Return replicas of each policy over the load as an SVG file of its own."""
    return standalone(replicas_plot(load, {s.name: [float(n) for n in s.replicas] for s in scores}, step_s))


def scores_page(load: Sequence[float], step_s: float, scores: Sequence[Score]) -> str:
    """Return a page that needs nothing from outside; the first of ``scores`` is the policy in question."""
    shown = [s for s in scores if s is scores[0] or s.name == "oracle" or s.name.startswith("HPA cpu")]
    columns = ("policy", "late %", "replica-minutes", "x oracle", "actions", "flaps")
    rows = [
        (s.name, f"{100 * s.violations:.3f}", f"{s.replica_minutes:.0f}", f"{s.cost:.2f}", s.actions, s.flaps)
        for s in scores
    ]
    return page(
        "Backtest",
        tag("h1", "Backtest"),
        table(columns, rows, numbers=range(1, len(columns))),
        tag("h2", "Replicas and load"),
        replicas_plot(load, {s.name: [float(n) for n in s.replicas] for s in shown}, step_s),
        tag("h2", "Requests that waited too long"),
        *(late_plot(s.name, s.late, step_s) for s in shown if any(s.late)),
    )


def _points(values: Sequence[float], step_s: float) -> list[tuple[float, float]]:
    kept = peaks(values)
    hours = len(values) * step_s / 3600 / max(1, len(kept))
    return [(i * hours, value) for i, value in enumerate(kept)]
