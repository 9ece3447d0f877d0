"""Curves of a backtest as one SVG text, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

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


def _path(values: Sequence[float], top: float) -> str:
    size = max(1, -(-len(values) // _POINTS))
    peaks = [max(values[i : i + size]) for i in range(0, len(values), size)]
    width, height = _WIDTH - 10 - _LEFT, _HEIGHT - 30 - _TOP
    last = max(1, len(peaks) - 1)
    points = (
        f"{_LEFT + width * i / last:.1f},{_HEIGHT - 30 - height * v / top:.1f}" for i, v in enumerate(peaks)
    )
    return "M" + " L".join(points)
