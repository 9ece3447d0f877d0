"""Two processes' worth of managers on Redis and on a Cluster against one plain dict.

Lives are on a fake clock that both share; the server's own are an hour and more, so that they never meddle.
A manager sees its own writes at once and those of the other a moment later, which is waited for with a bound.
``EVENTPERF_SOAK=1`` runs many more steps, at random, and breaks channels in between.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from eventperf.cache import CacheManager, CacheOptions, RedisStore
from eventperf.testing import FakeClock
from faults import wait_until

pytestmark = pytest.mark.integration

LONG = os.environ.get("EVENTPERF_SOAK", "") not in ("", "0")
ALL = [f"k:{a}:{b}" for a in "xy" for b in range(3)] + ["{odd} key\n*"]
KEYS = st.sampled_from(ALL)
TAGS = st.lists(st.sampled_from(["t1", "t2"]), max_size=2, unique=True)
VALUES = st.one_of(st.none(), st.integers(-1, 2), st.just(""), st.booleans(), st.tuples(st.integers(0, 3)))
TTLS = st.sampled_from([3600.0, 7200.0, 36_000.0])
WHO = st.integers(0, 1)


class RedisMachine(RuleBasedStateMachine):
    url = ""
    coherence = "tracking"

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.name = uuid4().hex
        self.loop = asyncio.new_event_loop()
        self.caches = [
            CacheManager(
                RedisStore(self.url, timeout=10),
                namespace=self.name,
                clock=self.clock,
                coherence=self.coherence,
                options=CacheOptions(l1_ttl=36_000),
            )
            for _ in range(2)
        ]
        self.model: dict[str, tuple[object, float, frozenset[str]]] = {}
        self.trail: list[object] = []
        for cache in self.caches:
            cache.get("warm")
            wait_until(lambda cache=cache: cache.stats().coherence == self.coherence, what="the channel")

    def teardown(self):
        self.caches[0].clear()
        for cache in self.caches:
            self.loop.run_until_complete(cache.aclose())
        self.loop.close()

    def live(self):
        now = self.clock.monotonic()
        return {k: v for k, v in self.model.items() if now < v[1]}

    def settled(self, who):
        """Wait until ``who`` sees what everyone did."""
        want = {key: value[0] for key, value in self.live().items()}
        cache = self.caches[who]
        try:
            wait_until(lambda: same(cache.get_many(ALL), want), 10)
        except AssertionError:
            got = cache.get_many(ALL)
            there = {key: cache.store.get(f"{self.name}:1:{key}") for key in ALL}
            tags = {tag: cache.store.get(f"{self.name}:t:{tag}") for tag in ("t1", "t2")}
            raise AssertionError(
                f"{who} sees {got}, should see {want}; {there=} {tags=} {self.trail[-12:]} {cache.stats()}"
            ) from None

    def said(self):
        """Wait for what is to be said again: it takes what is written meanwhile with it."""
        for cache in self.caches:
            wait_until(lambda c=cache: not c._core.replay_size(), 10, what="replay of invalidations")

    def heard(self, tags):
        """Wait until both know of it: who writes before that writes an entry that nobody reads."""
        self.said()
        for tag in tags:
            record = f"{self.name}:t:{tag}"
            now = self.caches[0].store.get(record).decode()
            for cache in self.caches:
                known = cache._core.tag_cache
                wait_until(
                    lambda k=known, r=record, n=now: k.get(r) in (None, n), 10, what=f"{tag} to be heard of"
                )

    @rule(who=WHO, key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS, as_task=st.booleans())
    def put(self, who, key, value, ttl, tags, as_task):
        self.trail.append(("put", who, key, value, ttl, tags, as_task))
        cache = self.caches[who]
        if as_task:
            self.loop.run_until_complete(cache.aset(key, value, ttl=ttl, tags=tags))
        else:
            cache.set(key, value, ttl=ttl, tags=tags)
        self.model[key] = (value, self.clock.monotonic() + ttl, frozenset(tags))

    @rule(who=WHO, key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS, as_task=st.booleans())
    def load(self, who, key, value, ttl, tags, as_task):
        self.trail.append(("load", who, key, value, ttl, tags, as_task))
        self.settled(who)
        live = self.live()
        expected = live[key][0] if key in live else value
        cache = self.caches[who]
        if as_task:
            got = self.loop.run_until_complete(cache.aget_or_load(key, lambda: value, ttl=ttl, tags=tags))
        else:
            got = cache.get_or_load(key, lambda: value, ttl=ttl, tags=tags)
        assert same(got, expected)
        if key not in live:
            self.model[key] = (value, self.clock.monotonic() + ttl, frozenset(tags))

    @rule(who=WHO, keys=st.lists(KEYS, max_size=4, unique=True), ttl=TTLS)
    def load_many(self, who, keys, ttl):
        self.trail.append(("load_many", who, keys, ttl))
        self.settled(who)
        live = self.live()
        asked = []

        def load(missing):
            asked.extend(missing)
            return {key: f"bulk {key}" for key in missing}

        got = self.caches[who].get_or_load_many(keys, load, ttl=ttl)
        assert sorted(asked) == sorted(key for key in keys if key not in live)
        for key in asked:
            self.model[key] = (f"bulk {key}", self.clock.monotonic() + ttl, frozenset())
        assert same(got, {key: self.model[key][0] for key in keys})

    @rule(who=WHO, key=KEYS, value=VALUES, by=WHO, tags=TAGS, how=st.sampled_from(["key", "tag", "set"]))
    def load_overtaken(self, who, key, value, by, tags, how):
        """What is loaded while its key or tag is invalidated, or while it is written, is not stored."""
        self.trail.append(("load_overtaken", who, key, value, by, tags, how))
        self.settled(who)
        if key in self.live():
            return
        other = self.caches[by]

        def load():
            if how == "key":
                other.invalidate(key)
            elif how == "tag" and tags:
                other.invalidate_tags(*tags)
            else:
                other.set(key, "written", ttl=3600)
            return value

        assert same(self.caches[who].get_or_load(key, load, ttl=3600, tags=tags), value)
        self.said()
        if how == "tag" and tags:
            self.heard(tags)
            self.model = {k: v for k, v in self.model.items() if not v[2].intersection(tags)}
        elif how != "key":
            self.model[key] = ("written", self.clock.monotonic() + 3600, frozenset())

    @rule(who=WHO, keys=st.lists(KEYS, min_size=1, max_size=3, unique=True), as_task=st.booleans())
    def delete(self, who, keys, as_task):
        self.trail.append(("delete", who, keys, as_task))
        cache = self.caches[who]
        if as_task:
            self.loop.run_until_complete(cache.adelete(*keys))
        else:
            cache.delete(*keys)
        self.said()
        for key in keys:
            self.model.pop(key, None)

    @rule(who=WHO, tag=st.sampled_from(["t1", "t2"]))
    def drop_tag(self, who, tag):
        self.trail.append(("drop_tag", who, tag))
        self.caches[who].invalidate_tags(tag)
        self.heard([tag])
        self.model = {k: v for k, v in self.model.items() if tag not in v[2]}

    @rule(who=WHO, pattern=st.sampled_from(["k:x:*", "*:1", "k:?:2", "none*", "*"]))
    def drop_pattern(self, who, pattern):
        self.trail.append(("drop_pattern", who, pattern))
        self.caches[who].invalidate_pattern(pattern)
        self.said()
        self.model = {k: v for k, v in self.model.items() if not fnmatch.fnmatchcase(k, pattern)}

    @rule(who=WHO, key=KEYS, ttl=TTLS)
    def touch(self, who, key, ttl):
        self.trail.append(("touch", who, key, ttl))
        live = self.live()
        if key in live:
            value, _, tags = self.model[key]
            assert self.caches[who].touch(key, ttl=ttl)
            self.model[key] = (value, self.clock.monotonic() + ttl, tags)

    @rule(seconds=st.sampled_from([1.0, 1800.0, 3599.0, 3601.0]))
    def wait(self, seconds):
        self.trail.append(("wait", seconds))
        self.clock.advance(seconds)

    @rule(who=WHO)
    def channel_breaks(self, who):
        self.trail.append(("channel_breaks", who))
        if not LONG:
            return
        cache = self.caches[who]
        for node in cache.store.links.masters():
            node.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    @rule(who=WHO, key=KEYS)
    def own_writes_are_seen_at_once(self, who, key):
        self.trail.append(("own_writes_are_seen_at_once", who, key))
        cache = self.caches[who]
        cache.set(key, "mine", ttl=3600)
        self.model[key] = ("mine", self.clock.monotonic() + 3600, frozenset())
        assert cache.get(key) == "mine"
        cache.invalidate(key)
        del self.model[key]
        assert cache.get(key, "gone") == "gone"

    @invariant()
    def agree(self):
        for who in (0, 1):
            self.settled(who)


def same(got, want):
    return repr(got) == repr(want) if not isinstance(got, dict) else sorted_repr(got) == sorted_repr(want)


def sorted_repr(values):
    return repr(sorted(values.items(), key=lambda item: item[0]))


@pytest.mark.parametrize(
    ("fixture", "coherence"),
    [("redis_url", "tracking"), ("redis_url", "bus"), ("redis_cluster_url", "tracking")],
)
@pytest.mark.timeout(3600 if LONG else 120)
def test_two_managers_agree_with_a_dict(fixture, coherence, request):
    url = request.getfixturevalue(fixture)
    machine = type("Machine", (RedisMachine,), {"url": url, "coherence": coherence})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=400 if LONG else 8,
            stateful_step_count=60 if LONG else 25,
            deadline=None,
            derandomize=not LONG,
            suppress_health_check=list(HealthCheck),
        ),
    )
