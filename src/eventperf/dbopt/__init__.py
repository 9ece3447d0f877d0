"""Database advice that is proven, measured and safe: indexes, rewrites, N+1 loops, on three engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventperf._core.logs import hush

if TYPE_CHECKING:
    from .advice import Advice, DropAdvice, IndexAdvice, PartitionAdvice, RewriteAdvice, Served
    from .changes.report import Applied, ApplyReport
    from .changes.verdict import Compared
    from .errors import (
        AdviceMismatch,
        DatabaseError,
        DatabaseUnavailable,
        OptimizerBusy,
        SourceUnavailable,
        StatementRefused,
    )
    from .events import Advised, DatabaseEvent, IndexChanged
    from .health import Fault, HealthReport, TableHealth
    from .lint.schema import lint_metadata
    from .lint.statements import Finding, lint_workload
    from .manager import DatabaseOptimizer, OptimizationResult
    from .options import Limits
    from .protocols import Dialect, Measurement, Plan, Planner
    from .schema.model import IndexSpec, Key
    from .statements.fingerprint import Fingerprint, fingerprint
    from .statements.recorder import NPlusOne, QueryRecorder
    from .statements.source import Recorded, Recording, StatementSource
    from .statements.workload import Sample, SlowQuery, Statement, Workload

__all__ = [
    "Advice",
    "AdviceMismatch",
    "Advised",
    "Applied",
    "ApplyReport",
    "Compared",
    "DatabaseError",
    "DatabaseEvent",
    "DatabaseOptimizer",
    "DatabaseUnavailable",
    "Dialect",
    "DropAdvice",
    "Fault",
    "Finding",
    "Fingerprint",
    "HealthReport",
    "IndexAdvice",
    "IndexChanged",
    "IndexSpec",
    "Key",
    "Limits",
    "Measurement",
    "NPlusOne",
    "OptimizationResult",
    "OptimizerBusy",
    "PartitionAdvice",
    "Plan",
    "Planner",
    "QueryRecorder",
    "Recorded",
    "Recording",
    "RewriteAdvice",
    "Sample",
    "Served",
    "SlowQuery",
    "SourceUnavailable",
    "Statement",
    "StatementRefused",
    "StatementSource",
    "TableHealth",
    "Workload",
    "fingerprint",
    "lint_metadata",
    "lint_workload",
]

_HOMES = {
    "advice": ("Advice", "DropAdvice", "IndexAdvice", "PartitionAdvice", "RewriteAdvice", "Served"),
    "changes.report": ("Applied", "ApplyReport"),
    "errors": (
        "AdviceMismatch",
        "DatabaseError",
        "DatabaseUnavailable",
        "OptimizerBusy",
        "SourceUnavailable",
        "StatementRefused",
    ),
    "events": ("Advised", "DatabaseEvent", "IndexChanged"),
    "statements.fingerprint": ("Fingerprint", "fingerprint"),
    "health": ("Fault", "HealthReport", "TableHealth"),
    "lint.statements": ("Finding", "lint_workload"),
    "lint.schema": ("lint_metadata",),
    "manager": ("DatabaseOptimizer", "OptimizationResult"),
    "schema.model": ("IndexSpec", "Key"),
    "options": ("Limits",),
    "changes.verdict": ("Compared",),
    "protocols": ("Dialect", "Measurement", "Plan", "Planner"),
    "statements.recorder": ("NPlusOne", "QueryRecorder"),
    "statements.source": ("Recorded", "Recording", "StatementSource"),
    "statements.workload": ("Sample", "SlowQuery", "Statement", "Workload"),
}
"""Where each name lives. The door is lazy: analysis brings sqlglot, which an application that only imports
this package, to catch an error say, should neither need nor pay for."""


hush("sqlglot")  # what it cannot read it would show in the log, with its values


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            from eventperf._core.extras import require

            if module not in ("errors", "events", "options"):
                require("sqlglot", extra="dbopt", needed_by=f"eventperf.dbopt.{name}")
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
