"""``add`` and ``lock`` among processes, some of which are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from uuid import uuid4

import pytest

from cache_children import add_all, count_up, hold_lock
from eventperf.cache import CacheManager, LockTimeout, StoreUnavailable
from faults import wait_until

pytestmark = pytest.mark.integration

SPAWN = multiprocessing.get_context("spawn")


def test_of_many_processes_that_add_one_wins_each_key(redis_url):
    namespace = uuid4().hex
    start = time.time() + 4
    children = [
        SPAWN.Process(target=add_all, args=(redis_url, namespace, me, start, "won")) for me in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    with CacheManager(redis_url, namespace=namespace, timeout=5) as cache:
        won = [cache.get(f"won:{me}") for me in range(3)]
        assert sorted(n for part in won for n in part) == list(range(200))
        cache.clear()


def test_a_lock_keeps_processes_apart(redis_url):
    namespace = uuid4().hex
    children = [SPAWN.Process(target=count_up, args=(redis_url, namespace, 30)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    with CacheManager(redis_url, namespace=namespace, timeout=5) as cache:
        assert cache.get("number") == 90
        cache.clear()


def test_the_lock_of_a_killed_process_is_free_when_its_time_is_over(redis_url):
    namespace = uuid4().hex
    child = SPAWN.Process(target=hold_lock, args=(redis_url, namespace))
    child.start()
    with CacheManager(redis_url, namespace=namespace, timeout=5) as cache:
        wait_until(lambda: cache.exists("holds"), 30, what="the holder")
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(LockTimeout), cache.lock("held", ttl=1, wait=0):
            pytest.fail("two holders")
        with cache.lock("held", ttl=1, wait=10):
            assert not cache.lock("held", ttl=1).acquire(wait=0)
        child.join(10)
        cache.clear()


def test_who_has_won_is_not_guessed_while_nobody_answers():
    with CacheManager("redis://127.0.0.1:1", timeout=0.2) as cache:
        with pytest.raises(StoreUnavailable):
            cache.add("k", 1)
        with pytest.raises(StoreUnavailable):
            cache.lock("l", ttl=1).acquire(wait=0)
        assert not cache.exists("k")
        assert cache.ttl("k") is None
