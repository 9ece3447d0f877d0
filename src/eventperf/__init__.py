"""eventperf: stay fast on your busiest day.

Four independent modules: :mod:`eventperf.cache`, :mod:`eventperf.dbopt`, :mod:`eventperf.scaling`
and :mod:`eventperf.queues`. This door is lazy (PEP 562): nothing heavy is imported until touched.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cache import CacheManager, cached
    from .dbopt import DatabaseOptimizer
    from .queues import QueueManager
    from .scaling import AutoScaler

__version__ = "0.2.0"

__all__ = ["AutoScaler", "CacheManager", "DatabaseOptimizer", "QueueManager", "__version__", "cached"]

_HOMES = {
    "cached": "cache",
    "CacheManager": "cache",
    "DatabaseOptimizer": "dbopt",
    "AutoScaler": "scaling",
    "QueueManager": "queues",
}
_ROOMS = ("cache", "contrib", "dbopt", "errors", "queues", "scaling", "testing")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'eventperf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
