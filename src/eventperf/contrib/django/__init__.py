"""Django: a cache backend, a worker command, a query recorder, and writes that wait for the commit.

``INSTALLED_APPS = [..., "eventperf.contrib.django"]`` brings the command and the autodiscovery of ``jobs``
modules. The cache backend works without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .advice import migration_options
    from .commit import enqueue_on_commit, invalidate_on_commit
    from .engine import database_engine
    from .following import follow
    from .ready import ready_view
    from .recorder import DjangoRecorder

__all__ = [
    "DjangoRecorder",
    "database_engine",
    "enqueue_on_commit",
    "follow",
    "invalidate_on_commit",
    "migration_options",
    "ready_view",
]

_HOMES = {
    "invalidate_on_commit": "commit",
    "enqueue_on_commit": "commit",
    "DjangoRecorder": "recorder",
    "migration_options": "advice",
    "database_engine": "engine",
    "ready_view": "ready",
    "follow": "following",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # late: Django imports this package before its settings are ready
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
