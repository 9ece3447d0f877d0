"""What benchmarks of database advice print, and how they compare statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventperf.dbopt.protocols import Measurement

Row = dict[str, Any]


class Table:
    """Rows to print, targets to judge, and both as JSON."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[Row] = []
        self.targets: list[Row] = []
        self.notes: list[str] = []

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        print("  " + "  ".join(f"{k}={_shown(v)}" for k, v in row.items()), flush=True)

    def target(self, name: str, wanted: str, measured: float, met: bool) -> None:
        self.targets.append({"target": name, "wanted": wanted, "measured": round(measured, 3), "met": met})

    def note(self, line: str) -> None:
        self.notes.append(line)
        print(f"  {line}", flush=True)

    def show(self) -> None:
        for row in self.targets:
            verdict = "met" if row["met"] else "MISSED"
            print(f"  {row['target']:<58} {row['wanted']:<12} {row['measured']:<10} {verdict}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def regressions(none: Sequence[Measurement], found: Sequence[Measurement]) -> list[int]:
    """Return statements with another plan that are more than 1.2 times and 2 ms slower."""
    return [
        n
        for n, (a, b) in enumerate(zip(none, found, strict=True))
        if a.plan != b.plan and b.seconds > 1.2 * a.seconds and b.seconds - a.seconds > 0.002
    ]
