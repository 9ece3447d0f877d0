"""What other programs left under our keys, of whatever type: a miss, told once and replaced, no error."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventperf.cache import (
    CacheManager,
    CacheOptions,
    CoherenceChanged,
    CorruptEntry,
    MemoryStore,
    RedisStore,
)
from eventperf.cache.values.envelope import settling_mark
from faults import wait_until

pytestmark = pytest.mark.integration

KINDS: dict[str, tuple[Any, ...]] = {
    "hash": ("HSET", "a", "b"), "list": ("RPUSH", "a"), "set": ("SADD", "a"), "sorted set": ("ZADD", 1, "a"),
    "stream": ("XADD", "*", "a", "b"), "log": ("PFADD", "a"), "no bytes": ("SET", ""),
    "text": ("SET", "hello"), "no text": ("SET", b"\xff\xfe\x00"), "number": ("SET", "12"),
    "magic": ("SET", "E1"), "head": ("SET", "E1V"), "entry": ("SET", b"E1V" + b"x" * 90),
    "lease": ("SET", "E1L0" + "x" * 40), "mark": ("SET", "E1T0" + "x" * 40),
    "version": ("SET", "s" + "x" * 40), "long": ("SET", b"\xd0" * 9000),
    # Well formed, and further away than anything of ours could be: loads would never be stored again.
    "far lease": ("SET", "E1L0" + "x" * 16 + "9" * 13 + "-"),
    "far lease that ends": ("SET", "E1L0" + "x" * 16 + "9" * 13 + "-", "PX", 3_600_000),
    "far lease of a value": ("SET", b"E1V0" + b"x" * 16 + b"9" * 13 + b"m" + b"\0" * 32),
    "far mark": ("SET", settling_mark()), "settles for ever": ("SET", "s" + "9" * 13 + "-x"),
    "invalid for ever": ("SET", "i" + "9" * 13 + "-x"),
}  # fmt: skip
LIKE_AN_ENTRY = ("head", "entry", "far lease of a value")  # to what looks at the head only
OTHER_TYPES = ("hash", "list", "set", "sorted set", "stream")


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    name = "redis_url" if request.param == "redis" else "redis_cluster_url"
    return str(request.getfixturevalue(name))


def manager(url: str, **options: Any) -> CacheManager:
    options = {"l1": None, "options": CacheOptions(lease=0.05), **options}
    return CacheManager(RedisStore(url, timeout=30), namespace=uuid4().hex, **options)


def plant(cache: CacheManager, outer: str, kind: str) -> None:
    word, *rest = KINDS[kind]
    client = cache.store.links.client()
    client.delete(outer)
    client.execute_command(word, outer, *rest)


def entry(cache: CacheManager, key: str = "k") -> str:
    return f"{cache.namespace}:1:{key}"


READS: dict[str, Any] = {
    "get": lambda c: c.get("k", "miss"), "get_many": lambda c: c.get_many(["k", "other"]) or "miss",
    "exists": lambda c: c.exists("k") or "miss", "ttl": lambda c: c.ttl("k") or "miss",
    "keys": lambda c: list(c.keys("*")) or "miss", "touch": lambda c: c.touch("k", ttl=60) or "miss",
}  # fmt: skip
ASYNC_READS: dict[str, Any] = {
    "aget": lambda c: c.aget("k", "miss"), "aget_many": lambda c: c.aget_many(["k", "other"]),
    "atouch": lambda c: c.atouch("k", ttl=60),
}  # fmt: skip
HEALS: dict[str, Any] = {
    "set": lambda c: c.set("k", "good"), "set_many": lambda c: c.set_many({"k": "good"}),
    "add": lambda c: c.add("k", "good"), "load": lambda c: c.get_or_load("k", lambda: "good"),
    "load tagged": lambda c: c.get_or_load("k", lambda: "good", tags=["t"]),
    "load many": lambda c: c.get_or_load_many(["k"], lambda keys: {"k": "good"}),
}  # fmt: skip
ASYNC_HEALS: dict[str, Any] = {
    "aset": lambda c: c.aset("k", "good"), "aadd": lambda c: c.aadd("k", "good"),
    "aload": lambda c: c.aget_or_load("k", good),
    "aload many": lambda c: c.aget_or_load_many(["k"], good_many),
}  # fmt: skip


async def good() -> str:
    return "good"


async def good_many(keys: Any) -> dict[str, str]:
    return dict.fromkeys(keys, "good")


def test_reads_miss_and_writes_and_loads_heal(url: str) -> None:
    for kind in KINDS:
        with manager(url) as cache:
            for what, read in READS.items():
                plant(cache, entry(cache), kind)
                got = read(cache)  # these two look at the head only, and what begins as an entry may be one
                assert got == "miss" or (what in ("keys", "touch") and kind in LIKE_AN_ENTRY), what
            for what, heal in HEALS.items():
                plant(cache, entry(cache), kind)
                heal(cache)
                assert cache.get("k") == "good", what
                assert cache.get_or_load("k", lambda: "again") == "good", what
            plant(cache, entry(cache), kind)
            assert cache.delete("k")
            assert cache.get_or_load("k", lambda: "good") == "good"
            assert cache.stats().breaker == "closed"
            assert cache.stats().store_errors == 0, "nothing of this is a refusal of the server"


@pytest.mark.parametrize("kind", [*OTHER_TYPES, "text", "entry", "lease", "far lease", "far mark"])
def test_tasks_miss_and_heal_too(url: str, kind: str) -> None:
    async def main() -> None:
        cache = manager(url)
        for what, read in ASYNC_READS.items():
            plant(cache, entry(cache), kind)
            got = await read(cache)
            assert got in ("miss", {}, False) or (what == "atouch" and kind == "entry"), what
        for what, heal in ASYNC_HEALS.items():
            plant(cache, entry(cache), kind)
            await heal(cache)
            assert (await cache.aget("k")) == "good", what
        assert cache.stats().corrupt >= (1 if kind in ("lease", "far lease", "far mark") else 2)
        assert cache.stats().store_errors == 0
        await cache.aclose()

    asyncio.run(main())


def test_a_tags_record_that_is_none_counts_as_invalidated_and_is_made_anew(url: str) -> None:
    for kind in KINDS:
        with manager(url) as cache:
            record = f"{cache.namespace}:t:t"
            cache.set("k", "old", tags=["t"])
            client = cache.store.links.client()
            assert client.exists(record) == 1, "this is where the version is"
            plant(cache, record, kind)
            assert cache.get("k", "miss") == "miss"
            assert cache.get_or_load("k", lambda: "good", tags=["t"]) == "good"
            assert cache.get("k") == "good"
            plant(cache, record, kind)
            cache.invalidate_tags("t")
            assert cache.get("k", "miss") == "miss"
            cache.set("k", "new", tags=["t"])
            plant(cache, record, kind)
            cache.invalidate_tags("t", settle=0.001)
            assert cache.get("k", "miss") == "miss"
            assert (cache.stats().corrupt >= 1, cache.stats().store_errors) == (True, 0)


def test_locks_and_counters_begin_anew(url: str) -> None:
    for kind in KINDS:
        with manager(url) as cache:
            head = f"{cache.namespace}:"
            if kind not in ("far lease that ends", "far lease of a value"):  # a lock may be held for so long
                plant(cache, f"{head}l:job", kind)
            with cache.lock("job", ttl=60) as lock:
                assert lock.renew()
                assert not cache.lock("job", ttl=60).acquire(wait=0)
            assert cache.lock("job", ttl=60).acquire(wait=0)
            counter = cache.counter("visits", ttl=60)
            counter.incr(5)
            (key,) = [k for k in cache.store.links.client().scan_iter(f"{head}*visits*")]
            plant(cache, key.decode(), kind)
            start = 12 if kind == "number" else 0
            assert counter.value() == start
            assert counter.incr(3) == start + 3
            assert cache.stats().store_errors == 0


def test_a_lease_is_trusted_no_longer_than_one_of_our_own_and_a_lock_for_as_long_as_it_says(url: str) -> None:
    with manager(url) as cache:
        plant(cache, f"{cache.namespace}:l:job", "far lease that ends")
        assert not cache.lock("job", ttl=0.01).acquire(wait=0.05)
        for n, kind in enumerate(("far lease that ends", "far lease of a value")):
            plant(cache, entry(cache, f"{n}"), kind)
            assert cache.get_or_load_many([f"{n}", f"more{n}"], lambda keys: dict.fromkeys(keys, "good")) == {
                f"{n}": "good", f"more{n}": "good"
            }  # fmt: skip
            assert cache.get_or_load(f"{n}", lambda: "again") == "good"
        assert cache.stats().store_errors == 0


def test_what_vanishes_under_a_load_is_no_error(url: str) -> None:
    for kind in OTHER_TYPES:
        with manager(url) as cache:

            def load(cache: CacheManager = cache, kind: str = kind) -> str:
                plant(cache, entry(cache), kind)  # another program writes while we load
                return "good"

            assert cache.get_or_load("k", load) == "good"
            assert cache.get_or_load("k", lambda: "again") == "again"
            assert cache.stats().store_errors == 0


def test_each_is_counted_and_an_event_and_the_log_says_it_once_with_key_and_cure(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), manager(url) as cache:
        told: list[CorruptEntry] = []
        cache.hooks.subscribe(lambda event: told.append(event) if isinstance(event, CorruptEntry) else None)
        for n in range(5):
            plant(cache, entry(cache, f"k{n}"), "hash")
            assert cache.get_or_load(f"k{n}", lambda: "good") == "good"
        assert cache.stats().corrupt == 5
        assert [event.key for event in told] == [entry(cache, f"k{n}") for n in range(5)]
        said = [r.getMessage() for r in caplog.records if "cannot read" in r.getMessage()]
        assert len(said) == 1
        assert entry(cache, "k0") in said[0]
        assert "another type" in said[0]
        assert "namespace=" in said[0]
        assert not [r for r in caplog.records if "refuses" in r.getMessage()]


def test_one_of_another_type_in_bulk_spoils_no_other(url: str) -> None:
    with manager(url) as cache:
        cache.set_many({f"k{n}": n for n in range(20)})
        plant(cache, entry(cache, "k7"), "hash")
        want = {f"k{n}": n for n in range(20) if n != 7}
        assert cache.get_many([f"k{n}" for n in range(20)]) == want
        loaded = cache.get_or_load_many([f"k{n}" for n in range(20)], lambda keys: dict.fromkeys(keys, 70))
        assert loaded == {**want, "k7": 70}
        assert cache.get("k7") == 70
        assert cache.stats().corrupt >= 1

        async def main() -> Any:
            plant(cache, entry(cache, "k7"), "list")
            return await asyncio.gather(*(cache.aget(f"k{n}") for n in range(20)))

        assert asyncio.run(main()) == [None if n == 7 else n for n in range(20)]


STEPS = st.sampled_from(
    [*(("plant", kind) for kind in KINDS), *(("tag", kind) for kind in KINDS),
     *(("read", name) for name in READS), *(("heal", name) for name in HEALS), ("drop", ""), ("untag", "")]
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=8), st.booleans())
def test_in_any_order_nothing_raises_and_a_load_ends_it(redis_url: str, steps: Any, near: bool) -> None:
    with manager(redis_url, **({} if not near else {"l1": MemoryStore(), "coherence": "ttl"})) as cache:
        for step, what in steps:
            if step == "plant":
                plant(cache, entry(cache), what)
            elif step == "tag":
                plant(cache, f"{cache.namespace}:t:t", what)
            elif step == "read":
                READS[what](cache)
            elif step == "heal":
                HEALS[what](cache)
            elif step == "drop":
                cache.delete("k")
            else:
                cache.invalidate_tags("t")
        assert cache.get_or_load("k", lambda: "good", tags=["t"]) == "good"
        assert cache.stats().store_errors == 0


@pytest.mark.parametrize("coherence", ["bus", "tracking"])
def test_what_others_say_on_our_channel_deafens_nobody_and_is_told_once(
    redis_url: str, caplog: pytest.LogCaptureFixture, coherence: str
) -> None:
    odd = [
        b"",
        b"[",
        b"[1, 2]",
        b"[[]]",
        b"[null]",
        b"{}",
        b"\xff\xfe",
        b"[" * 20_000,
        b"hello",
        b"nobody:1:k",
    ]
    with caplog.at_level(logging.WARNING), manager(redis_url, l1=MemoryStore(), coherence=coherence) as cache:
        assert cache.get_or_load("k", lambda: "old") == "old"
        changes: list[CoherenceChanged] = []
        cache.hooks.subscribe(changes.append, CoherenceChanged)
        client = cache.store.links.client()
        with CacheManager(
            RedisStore(redis_url, timeout=30), namespace=cache.namespace, l1=None, coherence=coherence
        ) as other:
            for message in odd:
                client.publish(cache.store.channel, message)
            other.set("k", "new")
            wait_until(lambda: cache.get("k") == "new" and "comes from no cache" in caplog.text, 60)
        assert changes == [], "the channel stayed up"
        assert cache.stats().coherence == coherence
        told = [r for r in caplog.records if "comes from no cache" in r.getMessage()]
        assert len(told) == 1


letters = st.text(st.sampled_from("ab-:é😀?*[]^\\"), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(letters, max_size=12, unique=True), letters)
def test_a_pattern_matches_text_in_every_tier(redis_url, keys, pattern):
    """A server compares bytes: to it the character of another alphabet is several."""
    with (
        CacheManager(redis_url, namespace="glob", timeout=5) as shared,
        CacheManager() as alone,
        CacheManager(redis_url, namespace="glob", l1=None, timeout=5) as other,
    ):
        for cache in (shared, alone):
            cache.set_many(dict.fromkeys(keys, 1))
            assert cache.invalidate_pattern(pattern) == len(keys) - len(list(cache.keys("*")))
        assert shared.get_many(keys) == other.get_many(keys) == alone.get_many(keys)
        shared.clear()
