"""What became of advice that was applied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventperf._core.durations import show
from eventperf._core.errors import ConfigurationError
from eventperf._core.files import write
from eventperf.dbopt.errors import AdviceMismatch
from eventperf.dbopt.findings import Level
from eventperf.dbopt.output.report import Lines, table
from eventperf.dbopt.protocols import Measurement

from .verdict import Compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of one advised index.

    Attributes:
        name: Its name.
        index: What it is, for people.
        table: Its table.
        sql: The statement.
        reason: Why it was kept, skipped, reverted or failed.
        speedup: How many times faster its queries are, where measured.
        level: How well it is proved: ``verified`` where it was measured here.
        seconds: Time the statement took.
    """

    name: str
    index: str
    sql: str
    reason: str
    table: str = ""
    speedup: float | None = None
    level: Level = "estimated"
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class ApplyReport:
    """What ``apply`` did, or would do.

    Attributes:
        dry_run: Nothing was changed.
        planned: Statements in order (all that a dry run has).
        created: Indexes that exist now because of this run.
        skipped: Not created: they exist, or the table is gone, or the count limit was reached.
        reverted: Created, measured and dropped again.
        failed: Refused by the database.
        cleaned: Half-made indexes of an earlier run that were removed.
        measured: Queries measured before and with the new indexes in place, by fingerprint; where some were
            taken back, once more after that (``reverted``).
        statements: Texts of the measured queries.
        warnings: What could not be measured.
        is_complete: ``False`` when Ctrl-C ended it early; what is listed as created is there.
    """

    dry_run: bool
    planned: list[str] = field(default_factory=list)
    created: list[Applied] = field(default_factory=list)
    skipped: list[Applied] = field(default_factory=list)
    reverted: list[Applied] = field(default_factory=list)
    failed: list[Applied] = field(default_factory=list)
    cleaned: list[str] = field(default_factory=list)
    measured: dict[str, Compared] = field(default_factory=dict)
    statements: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    is_complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        names = Applied.__slots__
        out: dict[str, Any] = {
            kind: [{n: getattr(a, n) for n in names} for a in getattr(self, kind)]
            for kind in ("created", "skipped", "reverted", "failed")
        }
        out["measured"] = [
            {
                "fingerprint": c.fingerprint,
                "statement": self.statements.get(c.fingerprint, ""),
                "calls": c.calls,
                "before_s": c.before.seconds,
                "after_s": c.after.seconds,
                "before_capped": c.before.capped,
                "plan_changed": c.plan_changed,
                "plan_before": c.before.plan,
                "plan_after": c.after.plan,
                "after_revert_s": None if c.reverted is None else c.reverted.seconds,
                "plan_after_revert": None if c.reverted is None else c.reverted.plan,
            }
            for c in self.measured.values()
        ]
        out |= {
            "dry_run": self.dry_run,
            "planned": self.planned,
            "cleaned": self.cleaned,
            "warnings": self.warnings,
            "is_complete": self.is_complete,
        }
        return out

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_dict` as JSON, for a later ``revert``."""
        write(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> ApplyReport:
        """Read what :meth:`save`, or ``eventperf db apply --json``, wrote: what became of each index.

        Raises:
            ConfigurationError: No such file.
            AdviceMismatch: Not a report of this library.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError("path", str(path), f"a readable report ({error.strerror})") from error
        except ValueError as error:
            raise AdviceMismatch(f"{path} is not JSON: {error}") from error
        try:
            out = cls(dry_run=bool(data["dry_run"]), warnings=[str(w) for w in data["warnings"]])
            for kind in ("created", "skipped", "reverted", "failed"):
                getattr(out, kind).extend(Applied(**row) for row in data[kind])
            if not all(isinstance(a.name, str) and isinstance(a.table, str) for a in out.created):
                raise TypeError("names of indexes and tables are text")
        except (KeyError, TypeError) as error:
            raise AdviceMismatch(f"{path} is not a report of `eventperf db apply --json`: {error}") from error
        return out

    def __str__(self) -> str:
        return _text(self)


def _measured(compared: Sequence[Compared]) -> str:
    """Return what was measured as a table; what came after a revert stands in a column of its own."""
    is_reverted = any(c.reverted is not None for c in compared)
    heads = ["query", "calls", "before", "with the index" if is_reverted else "after", "faster"]
    rows = [
        [
            c.fingerprint,
            str(c.calls),
            _shown(c.before),
            _shown(c.after),
            f"{c.speedup:.1f}x" if c.plan_changed else "same plan",
            *([_shown(c.reverted) if c.reverted is not None else ""] if is_reverted else []),
        ]
        for c in compared
    ]
    return table([*heads, "after the revert"] if is_reverted else heads, rows)


def _shown(found: Measurement) -> str:
    return (">= " if found.capped else "") + show(found.seconds)


def _text(report: ApplyReport) -> str:
    """Return an apply report as text."""
    out = Lines()
    if report.dry_run:
        out.add(f"Dry run: {len(report.planned)} statements would run.")
        for statement in report.planned:
            out.block(f"{statement};", "  ", "  ")
        out.add(*(f"  skipped {a.index}: {a.reason}" for a in report.skipped))
        return str(out)
    out.add(
        f"{len(report.created)} created, {len(report.reverted)} reverted, {len(report.skipped)} skipped, "
        f"{len(report.failed)} failed"
    )
    for kind in ("created", "reverted", "skipped", "failed"):
        out.add(*(f"  {kind} ({a.level}): {a.index}: {a.reason}" for a in getattr(report, kind)))
    if report.measured:
        out.add("", *_measured(sorted(report.measured.values(), key=lambda c: -c.speedup)).split("\n"))
    out.add(*(f"removed half-made index {name}" for name in report.cleaned))
    out.add(*(f"Warning: {w}" for w in report.warnings))
    return str(out)
