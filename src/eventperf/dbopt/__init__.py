"""Database advice that is proven, measured and safe: indexes, rewrites, N+1 loops, on three engines."""

from __future__ import annotations

from .advice import Advice, DropAdvice, IndexAdvice, PartitionAdvice, RewriteAdvice, Served
from .apply import Applied, ApplyReport
from .errors import (
    AdviceMismatch,
    DatabaseError,
    DatabaseUnavailable,
    OptimizerBusy,
    SourceUnavailable,
    StatementRefused,
)
from .fingerprint import Fingerprint, fingerprint
from .manager import DatabaseOptimizer, OptimizationResult
from .model import IndexSpec, Key
from .options import Limits
from .policy import Compared
from .protocols import Dialect, Measurement, Plan, Planner
from .recorder import NPlusOne, QueryRecorder
from .workload import Sample, SlowQuery, Statement, Workload

__all__ = [
    "Advice",
    "AdviceMismatch",
    "Applied",
    "ApplyReport",
    "Compared",
    "DatabaseError",
    "DatabaseOptimizer",
    "DatabaseUnavailable",
    "Dialect",
    "DropAdvice",
    "Fingerprint",
    "IndexAdvice",
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
    "RewriteAdvice",
    "Sample",
    "Served",
    "SlowQuery",
    "SourceUnavailable",
    "Statement",
    "StatementRefused",
    "Workload",
    "fingerprint",
]
