"""Every public error of eventperf in one place; rooms' errors are loaded when they are touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core.errors import BackendUnavailable, ConfigurationError, EventPerfError, MissingExtra, UnknownScheme

if TYPE_CHECKING:
    from .cache.errors import *  # noqa: F403
    from .dbopt.errors import *  # noqa: F403
    from .queues.errors import *  # noqa: F403
    from .scaling.errors import *  # noqa: F403

__all__ = ["BackendUnavailable", "ConfigurationError", "EventPerfError", "MissingExtra", "UnknownScheme"]

_ROOMS = ("cache", "dbopt", "scaling", "queues")


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        from importlib import import_module

        for room in _ROOMS:
            module = import_module(f"eventperf.{room}.errors")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module 'eventperf.errors' has no attribute {name!r}")
