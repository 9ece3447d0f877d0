"""Curves of a backtest as one SVG text, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backtest import BacktestReport

_COLOURS = ("#1f6feb", "#d29922", "#8250df", "#8c959f", "#2da44e", "#cf222e")
_WIDTH, _HEIGHT, _LEFT, _TOP, _POINTS = 960, 360, 46, 44, 900


def svg(load: Sequence[float], lines: Mapping[str, Sequence[float]], step_s: float) -> str:
    """Return ``load`` as an area, each of ``lines`` above it, the highest point of each pixel shown."""
    top = max(1.0, *load, *(max(line) for line in lines.values()))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<path d="{_path(load, top)} L{_WIDTH - 10},{_HEIGHT - 30} L{_LEFT},{_HEIGHT - 30} Z" '
        'fill="#d0d7de"><title>load in replicas of work</title></path>',
    ]
    for i, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        parts.append(f'<path d="{_path(line, top)}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        parts.append(f'<text x="{_LEFT + 150 * i}" y="24" fill="{colour}">{escape(name)}</text>')
    for share in (0.0, 0.5, 1.0):
        y = _HEIGHT - 30 - share * (_HEIGHT - 30 - _TOP)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{top * share:.0f}</text>')
    hours = len(load) * step_s / 3600
    parts.append(f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 10}" text-anchor="end">{hours:.4g} h</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 10}">replicas; load in grey</text></svg>')
    return "".join(parts)


def page(report: BacktestReport) -> str:
    """Return a page that needs nothing from outside: a table of scores, replicas, and violations below."""
    shown = [
        s for s in report.scores if s is report.score or s.name == "oracle" or s.name.startswith("HPA cpu")
    ]
    load = [rate / report.pod.rps for rate in report.trace.rates]
    chart = svg(load, {s.name: [float(n) for n in s.replicas] for s in shown}, report.trace.step_s)
    rows = "".join(
        f"<tr><td>{escape(s.name)}</td><td>{100 * s.violations:.3f}</td><td>{s.replica_minutes:.0f}</td>"
        f"<td>{s.cost:.2f}</td><td>{s.actions}</td><td>{s.flaps}</td></tr>"
        for s in report.scores
    )
    strips = "".join(
        _strip(s.name, s.late, _COLOURS[i % len(_COLOURS)]) for i, s in enumerate(shown) if s.late
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Backtest</title><style>'
        "body{font-family:sans-serif;margin:2em auto;max-width:60em}table{border-collapse:collapse}"
        "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #d0d7de}"
        "td:first-child,th:first-child{text-align:left}</style></head><body><h1>Backtest</h1>"
        "<table><tr><th>policy</th><th>late %</th><th>replica-minutes</th><th>x oracle</th>"
        f"<th>actions</th><th>flaps</th></tr>{rows}</table><h2>Replicas and load</h2>{chart}"
        f"<h2>Requests that waited too long</h2>{strips}</body></html>"
    )


def _strip(name: str, late: Sequence[float], colour: str) -> str:
    """A strip of the share of late requests over time, its largest value at full height."""
    height, top = 60, max(late)
    size = max(1, -(-len(late) // _POINTS))
    peaks = [max(late[i : i + size]) for i in range(0, len(late), size)]
    width = (_WIDTH - 10 - _LEFT) / max(1, len(peaks))
    bars = "".join(
        f'<rect x="{_LEFT + i * width:.1f}" y="{height - 40 * share / top:.1f}" '
        f'width="{max(width, 1.5):.1f}" height="{40 * share / top:.1f}" fill="{colour}"/>'
        for i, share in enumerate(peaks)
        if share > 0
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height + 2}" '
        f'font-family="sans-serif" font-size="12"><line x1="{_LEFT}" '
        f'x2="{_WIDTH - 10}" y1="{height}" y2="{height}" stroke="#d0d7de"/>'
        f'<text x="{_LEFT}" y="14" fill="{colour}">{escape(name)}: at most {100 * top:.3g} % of a step</text>'
        f"{bars}</svg>"
    )


def _path(values: Sequence[float], top: float) -> str:
    size = max(1, -(-len(values) // _POINTS))
    peaks = [max(values[i : i + size]) for i in range(0, len(values), size)]
    width, height = _WIDTH - 10 - _LEFT, _HEIGHT - 30 - _TOP
    last = max(1, len(peaks) - 1)
    points = (
        f"{_LEFT + width * i / last:.1f},{_HEIGHT - 30 - height * v / top:.1f}" for i, v in enumerate(peaks)
    )
    return "M" + " L".join(points)
