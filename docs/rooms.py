"""The directive ``room``: a picture of one room's layers, drawn from the code and its import contract."""

from __future__ import annotations

import ast
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
WIDTH, ROW, GAP, LETTER = 860, 58, 12, 6.6


def layers(room: str) -> list[list[str]]:
    """Return the parts of a room from top to bottom, as its contract in ``pyproject.toml`` has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    found = next(c for c in contracts if c.get("containers") == [f"eventperf.{room}"])
    return [[part.strip(" ()") for part in re.split(r"[|:]", layer)] for layer in found["layers"]]


def about(room: str, part: str) -> tuple[str, int]:
    """Return the first line of a part's docstring and how many files it has."""
    place = ROOT / "src/eventperf" / room / part
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.exists():
        return "", 0
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    files = len(list(place.rglob("*.py"))) - 1 if place.is_dir() else 1
    return text.partition("\n")[0], files


def picture(room: str) -> str:
    """Return the picture as SVG; colours follow the page."""
    parts, y = [], 4.0
    for row in layers(room):
        shown = [(name, *about(room, name)) for name in row]
        shown = [one for one in shown if one[2]]
        width = (WIDTH - GAP * (len(shown) - 1)) / max(1, len(shown))
        for n, (name, text, files) in enumerate(shown):
            x = n * (width + GAP)
            label = f"{name}/ ({files} files)" if files > 1 else name
            line = text if len(text) * LETTER < width - 16 else text[: int((width - 24) / LETTER)] + "…"
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - GAP}" rx="5" fill="none" '
                f'stroke="currentColor" stroke-opacity=".45"><title>{escape(text)}</title></rect>'
                f'<text x="{x + 8:.1f}" y="{y + 18}" font-weight="600">{escape(label)}</text>'
                f'<text x="{x + 8:.1f}" y="{y + 36}" fill-opacity=".75" font-size="11">{escape(line)}</text>'
            )
        y += ROW
    return (
        f'<svg viewBox="0 0 {WIDTH} {y}" role="img" aria-label="The layers of {escape(room)}" '
        'style="width:100%" font-family="sans-serif" font-size="13" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )


class Room(Directive):
    """Draw a room."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", picture(self.arguments[0]), format="html")]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("room", Room)
    return {"parallel_read_safe": True}
