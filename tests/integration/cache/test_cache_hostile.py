"""What others left under our keys, and keys and values of every shape."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from uuid import uuid4

import pytest

from eventperf.cache import (
    CacheManager,
    CacheOptions,
    MemoryStore,
    PickleSerializer,
    RedisStore,
    StoreUnavailable,
    ValueTooLarge,
    escape,
)
from eventperf.cache.values.envelope import seal
from faults import wait_until

pytestmark = pytest.mark.integration

went_off: list[str] = []


def go_off(where):
    went_off.append(where)
    return where


class Bomb:
    def __reduce__(self):
        return go_off, ("somewhere",)


@dataclass
class Ticket:
    number: int


@pytest.fixture(params=["redis", "cluster"])
def url(request):
    return request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster_url")


def manager(url, **options):
    return CacheManager(
        RedisStore(url, timeout=5), namespace=options.pop("namespace", None) or uuid4().hex, **options
    )


def lives_on(cache, key="k"):
    """The entry is a miss, is replaced by a load, and the replacement stays."""
    assert cache.get(key, "miss") == "miss"
    assert cache.get_many([key]) == {}
    assert cache.get_or_load(key, lambda: "good") == "good"
    assert cache.get_or_load(key, lambda: "again") == "good"


def test_a_pickle_under_our_key_is_never_loaded(url):
    went_off.clear()
    bomb = pickle.dumps(Bomb())
    times = {"created": 0.0, "soft": 4e9, "hard": 4e9}
    with manager(url, l1=None) as cache:
        for codec in ("p", "P", "m", "x"):
            cache.store.set_many([(f"{cache.namespace}:1:k", seal(codec, bomb, **times), 60)])
            lives_on(cache)
        cache.store.set_many([(f"{cache.namespace}:1:k", bomb, 60)])
        lives_on(cache)
        assert cache.stats().corrupt >= 5
    assert went_off == []


def test_signed_pickles_are_loaded_and_others_are_not(url):
    went_off.clear()
    times = {"created": 0.0, "soft": 4e9, "hard": 4e9}
    ours = PickleSerializer(secret=b"s3cret of 16 byt")
    with manager(url, l1=None, serializer=ours) as cache:
        outer = f"{cache.namespace}:1:k"
        cache.set("k", {Ticket(1).number: Ticket(7)})
        assert cache.get("k") == {1: Ticket(7)}
        blob = cache.store.get(outer)
        bad = [
            seal("p", pickle.dumps(Bomb()), **times),
            seal("p", PickleSerializer(secret=b"another of 16 by").dumps(Bomb()), **times),
            seal("p", PickleSerializer().dumps(Bomb()), **times),
            blob[:-1] + bytes([blob[-1] ^ 1]),
            blob[:-5],
        ]
        for each in bad:
            cache.store.set_many([(outer, each, 60)])
            lives_on(cache)
    assert went_off == []


def test_a_signed_value_is_good_under_its_own_key_only(url):
    """However it was written: whoever can write to the server cannot make one key's value another's."""
    ways = {
        "set": lambda cache, key: cache.set(key, "admin"),
        "set with a tag": lambda cache, key: cache.set(key, "admin", tags=["role"]),
        "add": lambda cache, key: cache.add(key, "admin"),
        "load": lambda cache, key: cache.get_or_load(key, lambda: "admin"),
        "load with a tag": lambda cache, key: cache.get_or_load(key, lambda: "admin", tags=["role"]),
        "load many": lambda cache, key: cache.get_or_load_many([key], lambda n: dict.fromkeys(n, "admin")),
        "fill": lambda cache, key: cache.warmer("roles", key="*")(lambda: {key: "admin"}) and cache.warm(),
    }  # fmt: skip
    with manager(url, l1=None, serializer=PickleSerializer(secret=b"s3cret of 16 byt")) as cache:
        outer = f"{cache.namespace}:1:role:"
        for way, write in ways.items():
            cache.clear()
            write(cache, "role:alice")
            assert cache.get("role:alice") == "admin", way
            cache.set("role:bob", "guest")
            cache.store.set_many([(f"{outer}bob", cache.store.get(f"{outer}alice"), 60)])
            assert cache.get("role:bob", "nobody") == "nobody", way
            assert cache.get_many(["role:bob", "role:alice"]) == {"role:alice": "admin"}, way
        assert cache.get_or_load("role:bob", lambda: "guest") == "guest"


def test_what_redis_py_refuses_to_send_is_not_the_server_s_silence(url):
    with manager(url, l1=None) as cache:
        for call in (
            lambda: cache.store.set_many([("k", None, 60)]),
            lambda: cache.store.set_many([("k", None, 60), ("l", [], 60)]),
            lambda: cache.store.incr("k", None, ttl_s=60),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert not caught.value.silent


def test_a_decompression_bomb_is_a_miss(url):
    import zlib

    small = zlib.compress(b"\xc6" + (50_000_000).to_bytes(4, "big") + bytes(50_000_000), 9)
    for limit in (10_000_000, 100_000_000):
        with manager(url, l1=None, options=CacheOptions(max_value_bytes=limit)) as cache:
            blob = seal("M", small, created=0.0, soft=4e9, hard=4e9)
            cache.store.set_many([(f"{cache.namespace}:1:k", blob, 60)])
            got = cache.get("k")
            assert (got is None) == (limit < 50_000_000)
            assert bool(cache.stats().corrupt) == (got is None)
            if got is None:
                lives_on(cache)


def test_a_value_over_the_limit_is_handed_out_and_not_stored(url):
    with manager(url, l1=None, options=CacheOptions(max_value_bytes=1000, compress_over=100)) as cache:
        with pytest.raises(ValueTooLarge, match="max_value_bytes"):
            cache.set("k", "x" * 2000)
        assert cache.get_or_load("k", lambda: "x" * 2000) == "x" * 2000
        assert cache.get("k") is None
        assert cache.get_or_load_many(["a", "b"], lambda ks: {"a": "x" * 2000, "b": "y"})["a"] == "x" * 2000
        assert (cache.get("a"), cache.get("b")) == (None, "y")


def test_keys_of_other_redis_types_are_misses(redis_url, redis_client):
    """A list, a hash or a counter that another program put under our name."""
    with manager(redis_url, l1=None) as cache:
        outer = f"{cache.namespace}:1:k"
        for make in (("RPUSH", outer, "a"), ("HSET", outer, "a", "b"), ("SADD", outer, "a")):
            redis_client.delete(outer)
            redis_client.execute_command(*make)
            assert cache.get("k", "miss") == "miss"
            assert cache.get_or_load("k", lambda: "good") == "good"
            assert cache.stats().breaker == "closed"
            cache.set("k", "mine")
            assert cache.get("k") == "mine"


def test_releases_with_another_schema_do_not_read_each_others_entries(redis_url):
    name = uuid4().hex
    original = Ticket

    def annotations(kind):
        @dataclass
        class Made:
            number: kind

        Made.__module__, Made.__qualname__ = __name__, "Ticket"
        return Made

    newer = annotations(str)
    with manager(redis_url, namespace=name, l1=None) as cache:
        try:
            cache.set("k", original(1))
            globals()["Ticket"] = newer  # the new release
            assert cache.get("k", "miss") == "miss"
            assert cache.get_or_load("k", lambda: newer("A1")) == newer("A1")
            globals()["Ticket"] = original  # the old one beside it
            assert cache.get("k", "miss") == "miss"
        finally:
            globals()["Ticket"] = original


ODD = [
    "two words", " ", "two\nlines", "\r\n", "tab\there", "*", "k[a-z]?", "\\", "back\\slash*", "{tag}{", "}{",
    "smörgås", "🎫" * 10, "\x00", "\x01\x7f", "a:b::c", "'\"", "%0A", "ключ", "e\u0301", "k" * 512, "k" * 513,
    "k" * 10_000, "é" * 10_000,
]  # fmt: skip


def test_keys_of_every_shape(url):
    with manager(url) as cache, manager(url, namespace=cache.namespace) as other:
        values = {key: n for n, key in enumerate(ODD)}
        cache.set_many(values)
        wait_until(lambda: other.get_many(ODD) == values, 5, what="every key elsewhere")
        for key, n in values.items():
            assert cache.get_or_load(key, lambda: "loaded") == n
            assert other.get(key) == n
            assert cache.touch(key, ttl=60)
            # As a pattern it matches itself and nothing else.
            if len(key) <= 512:
                assert cache.invalidate_pattern(escape(key), dry_run=True) == 1
        for key in ODD:
            assert cache.delete(key) == 1
            assert cache.get(key, "gone") == "gone"
        wait_until(lambda: other.get_many(ODD) == {}, 5, what="every deletion elsewhere")
        for key in ODD:
            assert cache.get_or_load(key, lambda key=key: key, tags=[key[:500]]) == key
            assert cache.get(key) == key
            cache.invalidate_tags(key[:500])
            assert cache.get(key, "gone") == "gone"
        assert cache.get_or_load_many(ODD, lambda keys: {k: k for k in keys}) == {k: k for k in ODD}
        long = ["k" * 10_000, "k" * 10_001]
        cache.set_many({long[0]: 0, long[1]: 1})
        assert cache.get_many(long) == {long[0]: 0, long[1]: 1}


def test_fifty_megabytes_with_the_time_out_as_it_comes(url):
    """A value that takes longer than the time-out in all is still no silence of the server."""
    value = os.urandom(50_000_000)
    with CacheManager(url, namespace=uuid4().hex, l1=None) as cache:
        assert cache.get_or_load("k", lambda: value) == value
        # On a busy machine it may not have been kept; then it is loaded again, whole.
        got = cache.get("k")
        assert got is None or got == value
        assert cache.get_or_load("k", lambda: value) == value
        cache.delete("k")
    with manager(url, options=CacheOptions(compress_over=1000)) as cache:
        cache.set("k", b"\x00" * 50_000_000)
        cache.set("small", 1)
        assert cache.get("k") == b"\x00" * 50_000_000
        assert len(cache.store.get(f"{cache.namespace}:1:k")) < 1_000_000


def test_three_hundred_events_survive_one_export(redis_url):
    """Ten times its size streams through process memory in front of a Redis; what is read often stays."""
    l1 = MemoryStore(max_entries=2_000)
    with CacheManager(RedisStore(redis_url, timeout=5), namespace=uuid4().hex, l1=l1) as cache:
        events = [f"event:{n}" for n in range(300)]
        cache.set_many(dict.fromkeys(events, "event"))
        wait_until(lambda: cache.stats().coherence == "tracking", 5, what="the channel")
        for _ in range(3):
            cache.get_many(events)
        rows = 0
        for start in range(0, 20_000, 1000):
            keys = [f"row:{n}" for n in range(start, start + 1000)]
            got = cache.get_or_load_many(keys, lambda missing: dict.fromkeys(missing, "row"))
            rows += len(got)
        assert rows == 20_000
        before = cache.stats().l1_hits
        assert len(cache.get_many(events)) == 300
        assert cache.stats().l1_hits - before >= 285
        assert cache.stats().entries <= 2_000
