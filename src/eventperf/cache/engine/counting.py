"""Counts each call of a loader, and tells who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eventperf.cache.stats import Loaded, LoadFailed

from .state import Core


@contextmanager
def counted(core: Core, name: str, stands_in: Callable[[], bool]) -> Iterator[None]:
    """Count a load of ``name``; ``stands_in`` tells whether an old value makes up for its failure."""
    core.counts.loads += 1
    started = time.perf_counter()
    try:
        yield
    except Exception as error:
        core.counts.load_errors += 1
        if core.hooks.active:
            core.hooks.emit(LoadFailed(name, error, stands_in()))
        raise
    taken = time.perf_counter() - started
    core.load_s += taken
    if core.hooks.active:
        core.hooks.emit(Loaded(name, taken))
