"""What the cache benchmarks share: payloads, timing, and the table with target, measured, met or missed."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

VALUE = {"id": 42, "name": "event", "tags": ["a", "b", "c"], "ok": True}
PAYLOAD = {
    "id": 123456, "title": "Developer Conference", "venue": "Hall A", "capacity": 5000, "status": "open",
    "price": 99000.0, "note": "x" * 60,
    "participants": [
        {"id": 1000 + n, "name": f"participant-{n:03d}", "mail": f"p{n:03d}@example.org", "paid": bool(n % 2)}
        for n in range(11)
    ],
}  # fmt: skip
OURS = "eventperf"


class Absent(Exception):
    """A peer that cannot be measured here; the text says why."""


def peer(name: str) -> Any:
    """Return a peer's module.

    Raises:
        Absent: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent(f"{name} is not installed") from error


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the sample below which ``share`` of the others lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median_of(action: Callable[[], Any], rounds: int) -> float:
    """Return the median time of ``action`` in seconds."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def amedian_of(action: Callable[[], Awaitable[Any]], rounds: int) -> float:
    """Return the median time of awaiting ``action`` in seconds."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        await action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


@dataclass
class Report:
    """Collects figures and verdicts, and prints them.

    Attributes:
        quick: Fewer rounds, fewer keys, and no peer that takes tens of seconds.
    """

    quick: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def row(self, case: str, who: str, **figures: Any) -> None:
        """Keep one line of figures."""
        self.rows.append({"case": case, "who": who, **figures})
        print(f"  {case}  {who}: " + ", ".join(f"{k} {v}" for k, v in figures.items()), flush=True)

    def attempt(self, case: str, who: str, measure: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        """Measure a peer; one that is missing or fails is named, and stops nothing."""
        try:
            figures = measure() or {}
        except Absent as reason:
            self._missing(f"{case} {who}: {reason}")
            return {}
        except Exception as error:
            self._missing(f"{case} {who}: failed with {type(error).__name__}: {error}"[:200])
            return {}
        if figures:
            self.row(case, who, **figures)
        return figures

    def _missing(self, text: str) -> None:
        self.absent.append(text)
        print(f"  absent: {text}", flush=True)

    def judge(self, case: str, what: str, target: str, measured: str, met: bool | None) -> None:
        """Keep one verdict; ``None`` means there was nothing to compare with."""
        word = "no peer" if met is None else "met" if met else "MISSED"
        self.verdicts.append(
            {"case": case, "what": what, "target": target, "measured": measured, "verdict": word}
        )

    def print_verdicts(self) -> None:
        """Print the table of targets."""
        columns = ("case", "what", "target", "measured", "verdict")
        wide = [max(len(c), *(len(v[c]) for v in self.verdicts)) for c in columns] if self.verdicts else []
        print()
        for line in [dict(zip(columns, columns, strict=True)), *self.verdicts] if self.verdicts else []:
            print("  ".join(str(line[c]).ljust(w) for c, w in zip(columns, wide, strict=True)).rstrip())
        missed = sum(v["verdict"] == "MISSED" for v in self.verdicts)
        print(f"\n{len(self.verdicts) - missed} of {len(self.verdicts)} lines not missed, {missed} missed")
        for text in self.absent:
            print("absent:", text)
