"""Small SVG plots; colours come from the page's style, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .html import Html, tag
from .style import PLOTS

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 860, 270, 64, 34, 8, 16  # of the axes; a legend comes on top
NARROW = 440  # one of several beside one another: letters keep their size
_LABEL, _BAR = 330, 400  # widths of the names and of the longest bar
_ROW, _LETTER = 20, 7.2  # height of a line of the legend, width of a letter


def nice(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, at most ``most`` and one more.

    >>> nice(0, 23.9, 8)
    [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    rough = (high - low) / most or 1.0
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * n for n in (1, 2, 5, 10) if size * n >= rough)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a figure for an axis.

    >>> number(12000), number(0.25)
    ('12,000', '0.25')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def peaks(values: Sequence[float], most: int = WIDTH) -> list[float]:
    """Thin ``values`` out to ``most`` of them, each the highest of its neighbours: no spike gets lost.

    >>> peaks([1, 9, 2, 3], 2)
    [9, 3]
    """
    size = max(1, -(-len(values) // most))
    return [max(values[i : i + size]) for i in range(0, len(values), size)]


def lines(
    series: Sequence[tuple[str, Points]],
    *,
    x: str,
    y: str,
    log: bool = False,
    areas: int = 0,
    marks: Sequence[tuple[float, str]] = (),
    title: str = "",
    width: int = WIDTH,
) -> Html:
    """Return a line plot with a legend.

    Args:
        series: A name and its points each; the first ``areas`` are filled down to the axis.
        x: What the horizontal axis shows, with its unit; ``y`` the same of the vertical one.
        log: Whether the vertical axis is logarithmic; what is not above 0 is left out then.
        marks: Places on the horizontal axis that mean something, each with its name.
        title: What the plot shows; its axes by default.
        width: Of the picture; letters are as large as 12 of it.
    """
    shown = [(name, [p for p in points if p[1] > 0 or not log]) for name, points in series]
    points = [point for _, each in shown for point in each]
    if not points:
        return tag("p", "Nothing was measured.", class_="muted")
    frame = _Frame(points, log, [at for at, _ in marks], width)
    parts = [*frame.axes(), *(frame.mark(at, name) for at, name in marks)]
    for n, (_, each) in enumerate(shown):
        path = [frame.place(*p) for p in each]
        if n < areas and path:
            path = [(path[0][0], HEIGHT - BOTTOM), *path, (path[-1][0], HEIGHT - BOTTOM)]
        text = " ".join(f"{a:.1f},{b:.1f}" for a, b in path)
        parts.append(tag("polyline", class_=f"{'a' if n < areas else 's'}{n}", points=text))
    return _picture(HEIGHT, [name for name, _ in series], title or f"{y} against {x}", parts, width)


def _magnitude(value: float) -> float:
    return math.log10(max(value, 1e-300))  # powers of ten below have no float of their own


class _Frame:
    """From values to places on the picture."""

    def __init__(self, points: Points, log: bool, marks: Sequence[float], width: int) -> None:
        self._log, self._width = log, width
        across = [*(p[0] for p in points), *marks]
        self._left, self._right = min(across), max(across)
        values = [p[1] for p in points]
        self._low = math.floor(_magnitude(min(values))) if log else 0.0
        high = math.ceil(_magnitude(max(values)) + 1e-9) if log else (max(values) * 1.08 or 1.0)
        self._high = high if high > self._low else self._low + 1

    def place(self, x: float, y: float) -> tuple[float, float]:
        level = _magnitude(y) if self._log else y
        across = (x - self._left) / ((self._right - self._left) or 1) * (self._width - LEFT - RIGHT)
        return LEFT + across, TOP + (self._high - level) / (self._high - self._low) * (HEIGHT - TOP - BOTTOM)

    def mark(self, x: float, name: str) -> Html:
        """Return a line from top to bottom that says its name."""
        at = f"{self.place(x, 10.0**self._low if self._log else self._low)[0]:.1f}"
        line = tag("line", class_="mark", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM)
        return tag("g", tag("title", name), line, tag("text", name[:24], x=at, y=TOP + 10, dx=4))

    def axes(self) -> list[Html]:
        levels = range(int(self._low), int(self._high) + 1)
        ticks = [10.0**n for n in levels] if self._log else nice(0.0, self._high, 5)
        parts = []
        for tick in ticks:
            at = self.place(self._left, tick)[1]
            parts.append(
                tag("line", class_="grid", x1=LEFT, x2=self._width - RIGHT, y1=f"{at:.1f}", y2=f"{at:.1f}")
            )
            parts.append(tag("text", number(tick), x=LEFT - 8, y=f"{at + 4:.1f}", text_anchor="end"))
        for value in nice(self._left, self._right, 8):
            at = self.place(value, 10**self._low if self._log else self._low)[0]
            parts.append(tag("text", number(value), x=f"{at:.1f}", y=HEIGHT - 12, text_anchor="middle"))
        return parts


def bars(
    rows: Sequence[tuple[str, Sequence[float]]],
    names: Sequence[str] = ("",),
    *,
    title: str,
    show: Callable[[float], str] = number,
    log: bool = False,
) -> Html:
    """Return horizontal bars, one group per row, one bar per name; ``title`` says what they measure."""
    values = [v for _, group in rows for v in group]
    length = _logarithmic(values) if log else _linear(values)
    parts: list[Html] = []
    at = 4
    for label, group in rows:
        middle = at + 8 + 8 * len(group)
        parts.append(tag("text", tag("title", label), label[:52], x=_LABEL, y=middle, text_anchor="end"))
        for n, value in enumerate(group):
            width = max(1.5, _BAR * length(value))
            parts.append(
                tag("rect", class_=f"b{n}", x=_LABEL + 12, y=at, width=f"{width:.1f}", height=14, rx=2)
            )
            parts.append(tag("text", show(value), x=f"{_LABEL + 18 + width:.1f}", y=at + 12))
            at += 17
        at += 10
    scale = f"{title}, logarithmic" if log else title
    return _picture(at, [name for name in names if name], scale, parts)


def _linear(values: Sequence[float]) -> Callable[[float], float]:
    top = max(values, default=0.0) or 1.0
    return lambda value: value / top


def _logarithmic(values: Sequence[float]) -> Callable[[float], float]:
    above = [v for v in values if v > 0]
    low = math.log10(min(above, default=1.0)) - 0.3
    span = math.log10(max(above, default=10.0)) - low
    return lambda value: (math.log10(value) - low) / span if value > 0 else 0.0


def _legend(names: Sequence[str], title: str, width: int) -> tuple[list[Html], float]:
    """Return the names of the series in their colours, then what is shown, and the height they take."""
    parts, left, row = [], 0.0, 0
    for n, name in enumerate([*names, title]):
        long = 24 + len(name) * _LETTER
        if left and left + long > width:
            left, row = 0.0, row + 1
        if n < len(names):
            parts.append(
                tag("rect", class_=f"b{n}", x=f"{left:.0f}", y=row * _ROW + 3, width=11, height=11, rx=2)
            )
        parts.append(tag("text", name, x=f"{left + (16 if n < len(names) else 4):.0f}", y=row * _ROW + 13))
        left += long
    return parts, (row + 1) * _ROW + 4


def _picture(
    height: float, names: Sequence[str], title: str, parts: Sequence[Html], width: int = WIDTH
) -> Html:
    marks, above = _legend(names, title, width)
    body = tag("g", *parts, transform=f"translate(0 {above:g})")
    return tag("svg", *marks, body, viewBox=f"0 0 {width} {height + above:g}", role="img", aria_label=title)


def standalone(plot: Html) -> str:
    """Return ``plot`` as an SVG file of its own, with its colours and a ground inside."""
    start, rest = plot[: len("<svg ")], plot[len("<svg ") :]
    opening, _, body = rest.partition(">")
    ground = '<rect width="100%" height="100%" style="fill:var(--paper)"/>'
    return f'{start}xmlns="http://www.w3.org/2000/svg" {opening}><style>{PLOTS}</style>{ground}{body}'
