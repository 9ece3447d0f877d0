"""Every public error of eventperf in one place; rooms' errors are loaded when they are touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core.errors import (
    BackendUnavailable,
    ConfigurationError,
    EventPerfError,
    MissingExtra,
    StoreUnavailable,
    UnknownScheme,
)

if TYPE_CHECKING:
    from .cache.errors import CacheError, LoadTimeout, SerializationError, UnstableKey
    from .dbopt.errors import (
        AdviceMismatch,
        DatabaseError,
        DatabaseUnavailable,
        OptimizerBusy,
        SourceUnavailable,
        StatementRefused,
    )
    from .queues.errors import (
        JobCancelled,
        JobFailed,
        JobNotFound,
        JobTimeout,
        LeaseLost,
        NonRetryable,
        OutboxMissing,
        PayloadError,
        PayloadTooLarge,
        QueueError,
        ResultTimeout,
        Retry,
        SchemaMissing,
        UnknownQueue,
        Unsupported,
    )
    from .scaling.errors import ScalingError, TargetConflict, TargetUnavailable

__all__ = [
    "AdviceMismatch",
    "BackendUnavailable",
    "CacheError",
    "ConfigurationError",
    "DatabaseError",
    "DatabaseUnavailable",
    "EventPerfError",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobTimeout",
    "LeaseLost",
    "LoadTimeout",
    "MissingExtra",
    "NonRetryable",
    "OptimizerBusy",
    "OutboxMissing",
    "PayloadError",
    "PayloadTooLarge",
    "QueueError",
    "ResultTimeout",
    "Retry",
    "ScalingError",
    "SchemaMissing",
    "SerializationError",
    "SourceUnavailable",
    "StatementRefused",
    "StoreUnavailable",
    "TargetConflict",
    "TargetUnavailable",
    "UnknownQueue",
    "UnknownScheme",
    "UnstableKey",
    "Unsupported",
]

_ROOMS = ("cache", "dbopt", "scaling", "queues")


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        from importlib import import_module

        for room in _ROOMS:
            module = import_module(f"eventperf.{room}.errors")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module 'eventperf.errors' has no attribute {name!r}")
