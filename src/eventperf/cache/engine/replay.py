"""Invalidations that the second tier did not take: remembered, bounded, and said again until it does.

Until then this process treats what they name as gone, so it never serves the value it has invalidated.
When there are too many to name, the whole namespace takes their place: nothing is ever dropped.
"""

from __future__ import annotations

import itertools
import threading
import time
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
        again: Where it is run again and again while something is owed.
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
        again: Again,
    ) -> None:
        self._store, self._bump, self._settle, self._tell = store, bump, settle, tell
        self._whole_of, self._now = whole_of, now
        self._again = again
        self._closed = False
        self.replayed: int = 0
        self.after_fork()

    def after_fork(self) -> None:
        """A child owes nothing: the parent says it."""
        self._mu = threading.RLock()
        self._serial = itertools.count()
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
        if not self._closed:
            self._again.watch(self)

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
                # Else it was owed again while we were saying it, or the other thread has said it too.
                if owed.get(name) == said[name]:
                    del owed[name]
                    self.replayed += 1

    def close(self) -> None:
        """Stop trying."""
        self._closed = True
        self._again.drop(self)


class Again:
    """Runs the replays of one server again and again, each until it owes nothing.

    This is for a store that refuses and does not sleep; when a silent one answers again, its breaker says so.
    The daemon thread runs only while something is owed.
    """

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's thread."""
        self._changed = threading.Condition()
        self._pauses: dict[Replay, tuple[float, float]] = {}  # when it is due, and the pause before
        self._running = False

    def __len__(self) -> int:
        return len(self._pauses)

    def watch(self, replay: Replay) -> None:
        """Run ``replay`` in a moment, if it is not expected yet."""
        with self._changed:
            if replay in self._pauses:
                return
            self._pauses[replay] = (time.monotonic() + _FIRST_S, _FIRST_S)
            self._changed.notify_all()
            if self._running:
                return
            try:
                threading.Thread(target=self._run, name="eventperf-cache-replay", daemon=True).start()
            except RuntimeError:
                return  # no new threads at interpreter shutdown
            self._running = True

    def drop(self, replay: Replay) -> None:
        """Expect nothing of it any more."""
        with self._changed:
            self._pauses.pop(replay, None)
            self._changed.notify_all()

    def _next(self) -> Replay | None:
        """Wait for the next replay that is due; ``None`` when there is none left, which ends the thread."""
        with self._changed:
            while self._pauses:
                replay = min(self._pauses, key=lambda one: self._pauses[one][0])
                left = self._pauses[replay][0] - time.monotonic()
                if left <= 0:
                    return replay
                self._changed.wait(left)
            self._running = False
            return None

    def _run(self) -> None:
        while (replay := self._next()) is not None:
            silent = False
            try:
                replay.run()
            except StoreUnavailable as error:
                silent = error.silent
            self._ran(replay, silent)

    def _ran(self, replay: Replay, silent: bool) -> None:
        """Drop what is done and put off the rest; with a silent server the others wait as well."""
        with self._changed:
            if replay in self._pauses and not len(replay):
                del self._pauses[replay]
            for other in list(self._pauses) if silent else [one for one in self._pauses if one is replay]:
                due, pause = self._pauses[other]
                now = time.monotonic()
                if due <= now:
                    pause = min(_LAST_S, pause * 1.6)
                    self._pauses[other] = (now + pause, pause)


def _chunks(names: Iterable[str]) -> Iterable[list[str]]:
    left = iter(names)
    while chunk := list(itertools.islice(left, _CHUNK)):
        yield chunk
