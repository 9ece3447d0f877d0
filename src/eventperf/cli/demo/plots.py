"""Small inline SVG plots; colours come from the page, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 860, 280, 64, 34, 12, 16


def nice(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, at most ``most`` and one more.

    >>> nice(0, 23.9, 8)
    [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    rough = (high - low) / most or 1.0
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * n for n in (1, 2, 5, 10) if size * n >= rough)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def lines(series: Sequence[tuple[str, Points]], *, x: str, y: str, log: bool = False) -> str:
    """Return a line plot with a legend; ``log`` makes the vertical axis logarithmic."""
    points = [point for _, each in series for point in each if point[1] > 0 or not log]
    if not points:
        return "<p class=muted>Nothing was measured.</p>"
    left, right = min(p[0] for p in points), max(p[0] for p in points)
    values = [p[1] for p in points]
    low = math.floor(math.log10(min(values))) if log else 0.0
    high = math.ceil(math.log10(max(values)) + 1e-9) if log else (max(values) * 1.08 or 1.0)
    high = high if high > low else low + 1

    def place(px: float, py: float) -> tuple[float, float]:
        level = math.log10(py) if log else py
        across = (px - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, TOP + (high - level) / (high - low) * (HEIGHT - TOP - BOTTOM)

    ticks = [10.0**n for n in range(int(low), int(high) + 1)] if log else nice(0.0, high, 5)
    parts = []
    for tick in ticks:
        at = place(left, tick)[1]
        parts.append(f'<line class=grid x1={LEFT} x2={WIDTH - RIGHT} y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x={LEFT - 8} y="{at + 4:.1f}" text-anchor=end>{_number(tick)}</text>')
    for value in nice(left, right, 8):
        at = LEFT + (value - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)
        parts.append(f'<text x="{at:.1f}" y={HEIGHT - 12} text-anchor=middle>{_number(value)}</text>')
    for n, (_, each) in enumerate(series):
        path = " ".join("{:.1f},{:.1f}".format(*place(*p)) for p in each if p[1] > 0 or not log)
        parts.append(f'<polyline class="s{n}" points="{path}"/>')
    legend = "".join(f'<span><i class="b{n}"></i>{escape(name)}</span>' for n, (name, _) in enumerate(series))
    return (
        f"<p class=legend>{legend}<em>{escape(y)} against {escape(x)}</em></p>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(y)} against {escape(x)}">'
        f"{''.join(parts)}</svg>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def bars(rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], unit: str) -> str:
    """Return groups of horizontal bars, one group per row, one bar per name."""
    top = max((v for _, values in rows for v in values), default=0.0) or 1.0
    parts, at = [], 4
    for label, values in rows:
        parts.append(f"<text x=150 y={at + 8 + 8 * len(values)} text-anchor=end>{escape(label)}</text>")
        for n, value in enumerate(values):
            width = max(1.5, 580 * value / top)
            parts.append(f'<rect class="b{n}" x=162 y={at} width="{width:.1f}" height=14 rx=2 />')
            parts.append(f'<text x="{168 + width:.1f}" y={at + 12}>{value:,.3g} {escape(unit)}</text>')
            at += 17
        at += 10
    legend = "".join(f'<span><i class="b{n}"></i>{escape(name)}</span>' for n, name in enumerate(names))
    svg = f'<svg viewBox="0 0 {WIDTH} {at}" role=img aria-label="{escape(unit)}">{"".join(parts)}</svg>'
    return f"<p class=legend>{legend}</p>{svg}"
