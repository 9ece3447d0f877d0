"""The cache in process memory against a plain dict, on a fake clock."""

from __future__ import annotations

import fnmatch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from eventperf.cache import CacheManager, MemoryStore
from eventperf.testing import FakeClock

KEYS = st.sampled_from([f"k:{a}:{b}" for a in "xy" for b in range(4)])
TAGS = st.lists(st.sampled_from(["t1", "t2", "t3"]), max_size=2, unique=True)
VALUES = st.one_of(st.none(), st.integers(-1, 2), st.just(""), st.booleans())
TTLS = st.sampled_from([0.5, 3.0, 60.0])


class CacheMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.cache = CacheManager(clock=self.clock, l1=MemoryStore(max_entries=1000))
        self.model: dict[str, tuple[object, float, frozenset[str]]] = {}

    def live(self):
        now = self.clock.monotonic()
        return {k: v for k, v in self.model.items() if now < v[1]}

    @rule(key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def put(self, key, value, ttl, tags):
        self.cache.set(key, value, ttl=ttl, tags=tags)
        self.model[key] = (value, self.clock.monotonic() + ttl, frozenset(tags))

    @rule(key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def load(self, key, value, ttl, tags):
        live = self.live()
        expected = live[key][0] if key in live else value
        assert self.cache.get_or_load(key, lambda: value, ttl=ttl, tags=tags) == expected
        if key not in live:
            self.model[key] = (value, self.clock.monotonic() + ttl, frozenset(tags))

    @rule(keys=st.lists(KEYS, max_size=4, unique=True), ttl=TTLS)
    def load_many(self, keys, ttl):
        live = self.live()
        asked = []

        def load(missing):
            asked.extend(missing)
            return {key: f"bulk {key}" for key in missing}

        got = self.cache.get_or_load_many(keys, load, ttl=ttl)
        assert sorted(asked) == sorted(key for key in keys if key not in live)
        for key in asked:
            self.model[key] = (f"bulk {key}", self.clock.monotonic() + ttl, frozenset())
        assert got == {key: self.model[key][0] for key in keys}

    @rule(keys=st.lists(KEYS, min_size=1, max_size=3, unique=True))
    def delete(self, keys):
        live = self.live()
        assert self.cache.delete(*keys) == sum(key in live for key in keys)
        for key in keys:
            self.model.pop(key, None)

    @rule(tag=st.sampled_from(["t1", "t2", "t3"]))
    def drop_tag(self, tag):
        self.cache.invalidate_tags(tag)
        self.model = {k: v for k, v in self.model.items() if tag not in v[2]}

    @rule(pattern=st.sampled_from(["k:x:*", "*:1", "k:?:2", "none*", "*"]))
    def drop_pattern(self, pattern):
        self.cache.invalidate_pattern(pattern)
        self.model = {k: v for k, v in self.model.items() if not fnmatch.fnmatchcase(k, pattern)}

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key, ttl):
        live = self.live()
        assert self.cache.touch(key, ttl=ttl) == (key in live)
        if key in live:
            value, _, tags = self.model[key]
            self.model[key] = (value, self.clock.monotonic() + ttl, tags)

    @rule(seconds=st.sampled_from([0.1, 0.49, 1.0, 10.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @invariant()
    def agree(self):
        live = self.live()
        keys = [f"k:{a}:{b}" for a in "xy" for b in range(4)]
        assert self.cache.get_many(keys) == {key: live[key][0] for key in keys if key in live}


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
