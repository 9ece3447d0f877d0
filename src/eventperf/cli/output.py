"""What commands print: tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from eventperf._core.texts import one_line, plain


def emit_json(data: Any) -> None:
    """Print ``data`` as JSON; what JSON does not know is shown as text."""
    print(json.dumps(data, indent=2, default=str))


def say(text: object, *, error: bool = False) -> None:
    """Print text for people; control codes in what came from outside are written out."""
    print(plain(str(text)), file=sys.stderr if error else sys.stdout, flush=True)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", width: int | None = None
) -> None:
    """Print a table: with rich where it is installed, plain otherwise; numbers stand right.

    With a ``width`` no line is longer than that: long texts go on in the line below.
    """
    title = one_line(title)
    texts = [["" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    numeric = [
        bool(texts) and all(t[i][:1] in "0123456789-+." or not t[i] for t in texts)
        for i in range(len(columns))
    ]
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(plain_table(columns, folded(columns, texts, width), numeric, title), flush=True)
        return
    console = Console(width=width or (None if sys.stdout.isatty() else 200))
    shown = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name, right in zip(columns, numeric, strict=True):
        shown.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in texts:
        shown.add_row(*[cell.replace("[", "\\[") for cell in row])
    console.print(shown)


def folded(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[list[str]]:
    """Return rows whose widest column goes on in rows of its own, so that a table is no wider than ``width``.

    >>> folded(["a", "b"], [["x", "one two"]], 6)
    [['x', 'one'], ['', 'two']]
    """
    sizes = [max(len(name), *(len(row[i]) for row in rows), 0) for i, name in enumerate(columns)]
    widest = max(range(len(sizes)), key=sizes.__getitem__, default=0)
    over = sum(sizes) + 2 * (len(sizes) - 1) - (width or 0) if sizes else 0
    if width is None or over <= 0:
        return [list(row) for row in rows]
    room, out = max(sizes[widest] - over, len(columns[widest]), 1), list[list[str]]()
    for row in rows:
        for n, part in enumerate(textwrap.wrap(row[widest], room) or [""]):
            out.append([part if i == widest else ("" if n else cell) for i, cell in enumerate(row)])
    return out


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], title: str = ""
) -> str:
    """Return a table in plain text.

    >>> print(plain_table(["queue", "waiting"], [["low", "12"], ["critical", "3"]], [False, True]))
    queue     waiting
    --------  -------
    low            12
    critical        3
    """
    widths = [max(len(name), *(len(r[i]) for r in rows), 0) for i, name in enumerate(columns)]

    def line(cells: Sequence[str]) -> str:
        parts = zip(cells, widths, numeric, strict=True)
        return "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in parts).rstrip()

    lines = [title] if title else []
    lines += [line(columns), "  ".join("-" * w for w in widths), *map(line, rows)]
    return "\n".join(lines)


def facts(title: str, values: Mapping[str, object]) -> None:
    """Print names and values under a title."""
    width = max(map(len, values), default=0)
    print(one_line(title))
    for name, value in values.items():
        print(f"  {name.ljust(width)}  {one_line(str(value))}")


class Progress:
    """Lines about long work on standard error, one per step, with the time each step took."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line with the seconds since the beginning."""
        if not self._quiet:
            print(f"[{time.monotonic() - self._began:5.1f}s] {one_line(text)}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say ``text``, and how long the work inside took."""
        began = time.monotonic()
        self.say(f"{text} ...")
        yield
        self.say(f"{text}: {time.monotonic() - began:.1f} s")
