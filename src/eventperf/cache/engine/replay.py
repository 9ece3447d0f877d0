"""Invalidations that the second tier did not take: remembered, bounded, and said again until it does.

Until then this process treats what they name as gone, so it never serves the value it has invalidated.
When there are too many to name, the whole namespace takes their place: nothing is ever dropped.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from eventperf._core.logs import logger
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.keys import glob
from eventperf.cache.protocols import CacheStore

V = TypeVar("V", bound=tuple[int, Any])

_log = logger("eventperf.cache")

MOST: Final = 10_000
_CHUNK: Final = 500
_FIRST_S, _LAST_S = 0.2, 5.0


class Replay:
    """What is still to be said to one second tier.

    Args:
        store: Where it is to be said, past the breaker.
        bump: Invalidates tag records there, for so many seconds to settle.
        settle: Forbids storing loads of keys there.
        tell: Tells other processes what was said.
        whole_of: The pattern of the whole namespace of an outer key or tag record.
        now: Monotonic time.
    """

    def __init__(
        self,
        store: CacheStore,
        *,
        bump: Callable[[Sequence[str], float], None],
        settle: Callable[[Sequence[str], float], None],
        tell: Callable[[list[str]], None],
        whole_of: Callable[[str], str],
        now: Callable[[], float],
    ) -> None:
        self._store, self._bump, self._settle, self._tell = store, bump, settle, tell
        self._whole_of, self._now = whole_of, now
        self.replayed: int = 0
        self.after_fork()

    def after_fork(self) -> None:
        """A child owes nothing: the parent says it."""
        self._mu = threading.Lock()
        self._serial = itertools.count()
        self._stop = threading.Event()
        self._running = False
        self._keys: dict[str, tuple[int, float]] = {}  # value: serial, and until when it settles
        self._tags: dict[str, tuple[int, float]] = {}
        self._patterns: dict[str, tuple[int, Callable[[str], bool]]] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._tags) + len(self._patterns)

    # -- what is owed --------------------------------------------------------------------------------

    def owe(
        self,
        keys: Iterable[str] = (),
        tags: Iterable[str] = (),
        patterns: Iterable[str] = (),
        settle_s: float = 0.0,
    ) -> None:
        """Remember outer keys, tag records and patterns."""
        until = self._now() + settle_s if settle_s else 0.0
        with self._mu:
            for pattern in patterns:
                self._add_pattern(pattern)
            for owed, names in ((self._keys, keys), (self._tags, tags)):
                for name in names:
                    if len(self) >= MOST and name not in owed:
                        whole = self._whole_of(name)
                        if whole not in self._patterns:
                            self._give_up_names(whole)
                        continue
                    owed[name] = (next(self._serial), max(until, owed.get(name, (0, 0.0))[1]))
        self._start()

    def _add_pattern(self, pattern: str) -> None:
        if len(self._patterns) >= MOST // 10 and pattern not in self._patterns:
            pattern = self._whole_of(pattern)
        self._patterns[pattern] = (next(self._serial), glob(pattern))

    def _give_up_names(self, whole: str) -> None:
        _log.warning(
            "cache at %s: over %d invalidations wait; the whole of %r will be dropped in their place",
            self._store.url, MOST, whole,
        )  # fmt: skip
        self._add_pattern(whole)
        for owed in (self._keys, self._tags):
            for name in [name for name in owed if self._whole_of(name) == whole]:
                del owed[name]

    def paid(self, keys: Iterable[str]) -> None:
        """These keys have been written or removed meanwhile."""
        if self._keys:
            with self._mu:
                for key in keys:
                    self._keys.pop(key, None)

    def is_dirty(self, outer: str) -> bool:
        """Tell whether the second tier may hold a value of ``outer`` that we have invalidated."""
        if outer in self._keys:
            return True
        return bool(self._patterns) and any(matches(outer) for _, matches in list(self._patterns.values()))

    def is_dirty_tag(self, record: str) -> bool:
        """Tell whether the record of a tag is older than our invalidation of it."""
        return record in self._tags

    # -- saying it -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Say everything now.

        Raises:
            StoreUnavailable: Not everything could be said; the rest is still owed.
        """
        with self._mu:
            keys, tags, patterns = dict(self._keys), dict(self._tags), dict(self._patterns)
        refused: StoreUnavailable | None = None
        says: tuple[Callable[[], None], ...] = (
            lambda: self._say_keys(keys),
            lambda: self._say_tags(tags),
            lambda: self._say_patterns(patterns),
        )
        for say in says:
            try:
                say()
            except StoreUnavailable as error:
                refused = error
                if error.silent:
                    break
        if refused is not None:
            raise refused

    def _say_keys(self, owed: dict[str, tuple[int, float]]) -> None:
        for chunk in _chunks(owed):
            self._store.delete(chunk)
            if settling := {key: left for key in chunk if (left := owed[key][1] - self._now()) > 0}:
                self._settle(list(settling), max(settling.values()))
            self._done(self._keys, owed, chunk, chunk)

    def _say_tags(self, owed: dict[str, tuple[int, float]]) -> None:
        for chunk in _chunks(owed):
            self._bump(chunk, max(0.0, *(owed[tag][1] - self._now() for tag in chunk)))
            self._done(self._tags, owed, chunk, chunk)

    def _say_patterns(self, owed: dict[str, tuple[int, Callable[[str], bool]]]) -> None:
        for pattern in owed:
            self._store.delete_pattern(pattern)
            self._done(self._patterns, owed, [pattern], ["*" + pattern])

    def _done(self, owed: dict[str, V], said: dict[str, V], names: list[str], words: list[str]) -> None:
        self._tell(words)
        with self._mu:
            for name in names:
                if owed.get(name) == said[name]:  # else it was owed again while we were saying it
                    del owed[name]
        self.replayed += len(names)

    def _start(self) -> None:
        """Try again now and then, also when the breaker never opened (the store refuses, not sleeps)."""
        with self._mu:
            if self._running or self._stop.is_set():
                return
            self._running = True
        try:
            threading.Thread(target=self._again, name="eventperf-cache-replay", daemon=True).start()
        except RuntimeError:
            self._running = False  # no new threads at interpreter shutdown

    def _again(self) -> None:
        pause = _FIRST_S
        while not self._stop.wait(pause):
            try:
                self.run()
            except StoreUnavailable:
                pause = min(_LAST_S, pause * 1.6)
                continue
            with self._mu:
                if not len(self):
                    self._running = False
                    return

    def close(self) -> None:
        """Stop trying."""
        self._stop.set()


def _chunks(names: Iterable[str]) -> Iterable[list[str]]:
    left = iter(names)
    while chunk := list(itertools.islice(left, _CHUNK)):
        yield chunk
