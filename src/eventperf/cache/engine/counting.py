"""Counts each call of a loader, and tells who listens."""

from __future__ import annotations

import time
from collections.abc import Callable

from eventperf.cache.stats import Loaded, LoadFailed

from .state import Core


class Counted:
    """Counts a load of ``name`` (``with``); ``stands_in``: whether an old value makes up for its failure."""

    __slots__ = ("_core", "_name", "_stands_in", "_started")

    def __init__(self, core: Core, name: str, stands_in: Callable[[], bool]) -> None:
        self._core, self._name, self._stands_in = core, name, stands_in

    def __enter__(self) -> None:
        self._core.counts.loads += 1
        self._started = time.perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        core = self._core
        if error is None:
            taken = time.perf_counter() - self._started
            core.load_s += taken
            if core.hooks.active:
                core.hooks.emit(Loaded(self._name, taken))
        elif isinstance(error, Exception):
            core.counts.load_errors += 1
            if core.hooks.active:
                core.hooks.emit(LoadFailed(self._name, error, self._stands_in()))
