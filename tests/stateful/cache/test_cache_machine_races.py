"""Reads and loads that cross a change on its way, against a plain dict.

The second tier is a dict with two gates: a change stops before it is done there, and a read that has its
answer stops before it hands it on. Between them every read of the old value happens exactly where it does
most harm, so that a fence forgotten on any path (plain reads, single and bulk loads; keys, tags and
patterns) is found in a few steps.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventperf.cache import CacheManager, MemoryStore
from eventperf.testing import FakeClock

ALL = [f"k:{n}" for n in range(4)]
KEYS = st.sampled_from(ALL)
TAGS = st.sampled_from([("t",), ("u",), ("t", "u")])


class GatedStore:
    """A second tier in a dict, written from ``cache.protocols``."""

    url = "gated:"

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.numbers: dict[str, int] = {}
        self.before_change: Callable[[], None] | None = None
        self.before_answer: Callable[[], None] | None = None

    def _change(self) -> None:
        hook, self.before_change = self.before_change, None
        if hook is not None:
            hook()

    def get(self, key: str, /) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        out = [self.blobs.get(key) for key in keys]
        hook, self.before_answer = self.before_answer, None
        if hook is not None:
            hook()
        return out

    def set_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None:
        self._change()
        self.blobs.update((key, blob) for key, blob, _ in items)

    def delete(self, keys: Sequence[str], /) -> int:
        self._change()
        return sum(self.blobs.pop(key, None) is not None for key in keys)

    def delete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int:
        self._change()
        found = [key for key in self.blobs if fnmatch.fnmatchcase(key, pattern)]
        return len(found) if dry_run else sum(self.blobs.pop(key, None) is not None for key in found)

    def incr(self, key: str, amount: int, /, *, ttl_s: float) -> int:
        self.numbers[key] = self.numbers.get(key, 0) + amount
        return self.numbers[key]

    def ping(self) -> None:
        return None

    def close(self) -> None:
        return None


class RaceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = GatedStore()
        self.cache = CacheManager(self.store, l1=MemoryStore(), clock=self.clock, ttl=3600)
        self.pool = ThreadPoolExecutor(4)
        self.truth = dict.fromkeys(ALL, 0)
        self.tags: dict[str, tuple[str, ...]] = {}

    def teardown(self) -> None:
        self.pool.shutdown()
        self.cache.close()

    def read(self, key: str, how: str) -> object:
        """Read a key the way of ``how``: what is not there is loaded from the truth as it is now."""
        tags = self.tags.get(key, ())
        if how == "get":
            found = self.cache.get(key, "nothing")
            return self.truth[key] if found == "nothing" else found
        if how == "single":
            return self.cache.get_or_load(key, lambda: self.truth[key], tags=tags)
        return self.cache.get_or_load_many([key], lambda keys: {k: self.truth[k] for k in keys}, tags=tags)[
            key
        ]

    def change(self, key: str, how: str) -> None:
        if how == "set":
            self.cache.set(key, self.truth[key], tags=self.tags.get(key, ()))
        elif how == "key":
            self.cache.invalidate(key)
        elif how == "tag":
            self.cache.invalidate_tags(self.tags[key][0])
        else:
            self.cache.invalidate_pattern(key[:-1] + "*")

    @rule(key=KEYS, tags=TAGS)
    def fill(self, key: str, tags: tuple[str, ...]) -> None:
        self.tags[key] = tags
        self.cache.set(key, self.truth[key], tags=tags)

    @precondition(lambda self: self.tags)
    @rule(
        data=st.data(),
        change=st.sampled_from(["set", "key", "tag", "pattern"]),
        reader=st.sampled_from(["get", "single", "bulk"]),
        after=st.sampled_from(["get", "single", "bulk"]),
        in_memory=st.booleans(),
    )
    def change_while_it_is_read(self, data, change, reader, after, in_memory) -> None:
        key = data.draw(st.sampled_from(sorted(self.tags)))
        if not in_memory:
            self.cache._core.l1.pop(key)
        answered, go_on = threading.Event(), threading.Event()
        readers = []

        def hold_back() -> None:
            answered.set()
            go_on.wait(10)

        def on_its_way() -> None:
            self.store.before_answer = hold_back
            readers.append(self.pool.submit(self.read, key, reader))
            answered.wait(0.2)  # process memory may have answered it

        self.truth[key] += 1
        self.store.before_change = on_its_way
        self.change(key, change)
        self.store.before_change = self.store.before_answer = None
        late = self.pool.submit(self.read, key, after)  # asked after the change has returned
        try:
            assert late.result(5) == self.truth[key], (change, reader, after)
        finally:
            go_on.set()
            for one in readers:
                one.result(10)
        assert self.read(key, after) == self.truth[key], (change, reader, after)

    @precondition(lambda self: self.tags)
    @rule(
        data=st.data(),
        loader=st.sampled_from(["single", "bulk"]),
        change=st.sampled_from(["key", "tag", "pattern"]),
    )
    def change_while_it_is_loaded(self, data, loader, change) -> None:
        key = data.draw(st.sampled_from(sorted(self.tags)))
        tags = self.tags[key]
        self.cache.invalidate(key)

        def load() -> int:
            old = self.truth[key]
            self.truth[key] += 1
            self.change(key, change)
            return old

        if loader == "single":
            self.cache.get_or_load(key, load, tags=tags)
        else:
            self.cache.get_or_load_many([key], lambda keys: {key: load()}, tags=tags)
        assert self.cache.get(key, self.truth[key]) == self.truth[key], (loader, change)

    @precondition(lambda self: self.tags)
    @rule(data=st.data(), loader=st.sampled_from(["single", "bulk"]), what=st.sampled_from(["key", "tag"]))
    def load_while_it_settles(self, data, loader, what) -> None:
        key = data.draw(st.sampled_from(sorted(self.tags)))
        old = self.truth[key]
        self.truth[key] += 1
        if what == "key":
            self.cache.invalidate(key, settle=5)
        else:
            self.cache.invalidate_tags(self.tags[key][0], settle=5)
        lagging = {key: old}
        if loader == "single":
            self.cache.get_or_load(key, lambda: old, tags=self.tags[key])
        else:
            self.cache.get_or_load_many([key], lambda keys: lagging, tags=self.tags[key])
        assert self.cache.get(key, "nothing") == "nothing"
        self.clock.advance(6)
        self.store.blobs.clear()  # its lives are on another clock

    @invariant()
    def nothing_old_is_served(self) -> None:
        for key in ALL:
            assert self.cache.get(key, self.truth[key]) == self.truth[key]


TestRaceMachine = RaceMachine.TestCase
TestRaceMachine.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
