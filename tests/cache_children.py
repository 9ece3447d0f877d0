"""What the child processes of the cache tests do."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from eventperf.cache import CacheManager, CacheOptions, RedisStore


def loads_in_child(url, path, ready, go, out):
    def load():
        with open(path, "a") as log:
            log.write("load\n")
        time.sleep(0.1)
        return 42

    with CacheManager(RedisStore(url, timeout=2), namespace="procs") as cache:
        cache.get("warm")
        ready.put(1)
        go.wait()
        with ThreadPoolExecutor(20) as pool:
            out.put(list(pool.map(lambda _: cache.get_or_load("k", load), range(20))))


def dies_while_loading(url, started):
    def load():
        started.set()
        time.sleep(60)

    with CacheManager(RedisStore(url, timeout=2), namespace="dies", options=CacheOptions(lease=0.6)) as cache:
        cache.get_or_load("k", load)


def in_fork(cache, out):
    loaded = cache.get_or_load("child", lambda: "loaded here")
    cache.set("from-child", 1)
    out.put((cache.get("k"), loaded, cache.get("from-child")))
    cache.close()


def add_all(url: str, namespace: str, me: int, start: float, out: str) -> None:
    with CacheManager(url, namespace=namespace, timeout=5) as cache:
        cache.get("warm")
        time.sleep(max(0.0, start - time.time()))
        won = [n for n in range(200) if cache.add(f"k:{n}", me, ttl=60)]
        assert all(cache.get(f"k:{n}") == me for n in won)
        cache.set(f"{out}:{me}", won)


def count_up(url: str, namespace: str, rounds: int) -> None:
    with CacheManager(url, namespace=namespace, timeout=5) as cache:
        for _ in range(rounds):
            with cache.lock("number", ttl=10):
                cache.set("number", (cache.get("number") or 0) + 1)


def hold_lock(url: str, namespace: str) -> None:
    with CacheManager(url, namespace=namespace, timeout=5) as cache:
        cache.lock("held", ttl=1.5).acquire()
        cache.set("holds", os.getpid())
        time.sleep(60)
