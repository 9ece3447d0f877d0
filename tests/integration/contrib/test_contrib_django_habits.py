"""What users of django-redis call, over memory, Redis and a cluster; test_moving_in.py compares answers."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("django")
from django.conf import settings

if not settings.configured:
    settings.configure()
from eventperf._core.errors import ConfigurationError
from eventperf.cache import LockTimeout
from eventperf.contrib.django.cache import EventPerfCache


@pytest.fixture(params=["memory", "redis", "cluster"])
def make(request) -> Any:
    where = {"memory": "", "redis": "redis_url", "cluster": "redis_cluster_url"}[request.param]
    options = {"timeout": 5, "namespace": f"habits-{time.monotonic_ns()}"} if where else {}
    location = request.getfixturevalue(where) if where else f"habits-{time.monotonic_ns()}"
    return lambda **params: EventPerfCache(location, {"OPTIONS": options, **params})


def test_how_long_a_key_lives_is_told_and_changed(make):
    cache = make()
    cache.set("a", 1, 100)
    assert (cache.ttl("a"), cache.ttl("none"), cache.pttl("none")) == (100, 0, 0)
    assert cache.expire("a", timedelta(minutes=5))
    assert 299_000 < cache.pttl("a") <= 300_000
    assert cache.pexpire("a", 50_000)
    assert 40 < cache.ttl("a") <= 50
    assert cache.pexpire_at("a", 1000 * (time.time() + 70))
    assert 60 < cache.ttl("a") <= 70
    assert cache.persist("a")
    assert cache.ttl("a") is None
    assert cache.pttl("a") is None
    assert not cache.persist("a")
    assert cache.expire_at("a", time.time() - 1)
    assert cache.get("a") is None
    assert not cache.expire("a", 10)


def test_patterns_see_their_own_prefix_and_version_and_nothing_else(make):
    mine, other = make(KEY_PREFIX="shop[1]*"), make(KEY_PREFIX="shop1")
    for cache in (mine, other):
        cache.set_many({"user:1": 1, "user:2": 2, "page": 3})
        cache.set("user:9", 9, version=2)
    assert sorted(mine.keys("user:*")) == ["user:1", "user:2"]
    assert sorted(mine.iter_keys("*", itersize=1)) == ["page", "user:1", "user:2"]
    assert mine.keys("user:*", version=2) == ["user:9"]
    assert mine.delete_pattern("user:*") == 2
    assert mine.get_many(["user:1", "user:2", "page"]) == {"page": 3}
    assert mine.get("user:9", version=2) == 9
    assert len(other.get_many(["user:1", "user:2", "page"])) == 3
    assert mine.delete_pattern("user:?", prefix="shop1") == 2
    assert other.get("user:1") is None


def test_patterns_over_keys_that_are_digests_are_refused(make):
    cache = make(KEY_FUNCTION=lambda key, prefix, version: f"{hash((key, prefix, version))}")
    with pytest.raises(ConfigurationError, match="KEY_FUNCTION"):
        cache.keys("*")
    with pytest.raises(ConfigurationError, match="KEY_FUNCTION"):
        cache.delete_pattern("*")


def test_a_lock_has_one_holder_and_is_lost_by_none_who_extends_it(make):
    cache = make()
    lock = cache.lock("import", timeout=30)
    with lock:
        assert not cache.lock("import", timeout=30).acquire(blocking=False)
        assert not cache.lock("import", timeout=30, blocking=False).acquire()
        assert not cache.lock("import", timeout=30).acquire(blocking_timeout=0.01)
        with pytest.raises(LockTimeout), cache.lock("import", timeout=30, blocking_timeout=0.01):
            pass
        assert lock.extend(1)  # 31 s from now, not one
        assert lock._until - time.monotonic() > 25
        assert lock.reacquire()
        assert cache.add("import", 1)  # a value of the name is no lock
    assert cache.lock("import").acquire(blocking=False)
    assert not lock.extend(1)


def test_who_waits_for_a_lock_gets_it_when_it_is_given_back(make):
    cache, got = make(), threading.Event()
    held = cache.lock("import", timeout=60)
    assert held.acquire()

    def wait() -> None:
        with cache.lock("import", timeout=60):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.is_set()
    held.release()
    assert got.wait(30)
    thread.join(30)


def test_the_servers_client_is_for_what_is_no_cache(make, request):
    cache = make()
    if "memory" in request.node.name:
        with pytest.raises(ConfigurationError, match="LOCATION"):
            cache.get_client()
        return
    name = f"list-{time.monotonic_ns()}"
    client = cache.client.get_client(write=True)
    assert client is cache.get_client()
    assert client.rpush(name, "a", "b") == 2
    assert client.blpop(name, timeout=5) == (name.encode(), b"a")
    cache.clear()
    assert client.llen(name) == 1, "emptying the cache takes nothing else along"
    client.delete(name)
