"""Forks after use, and interpreters that end while threads are alive."""

from __future__ import annotations

from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, RedisStore
from faults import Worker, wait_until

pytestmark = pytest.mark.integration

PRELOAD = """
import asyncio, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from eventperf.cache import CacheManager, RedisStore
url, name = sys.argv[1:]
cache = CacheManager(RedisStore(url, timeout=5), namespace=name)

@cache.cached(key="sync:{n}")
def f(n): return ("f", n)

@cache.cached(key="async:{n}")
async def g(n): return ("g", n)

def until(done):
    stop = time.monotonic() + 20
    while not done():
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.005)

# As gunicorn --preload: the master uses everything, then forks while other threads are in the middle of it.
f(1); asyncio.run(g(1))
until(lambda: cache.stats().coherence == "tracking")
stop = threading.Event()
def busy():
    n = 0
    while not stop.is_set():
        n += 1
        cache.get_or_load(f"busy:{n % 50}", lambda: n); cache.set(f"busy:{n % 50}", n)
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads: thread.start()
time.sleep(0.1)
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            cache.set(f"child:{number}", os.getpid())
            assert cache.get(f"child:{number}") == os.getpid()
            assert f(1) == ("f", 1) and f(number + 10) == ("f", number + 10)
            assert asyncio.run(g(1)) == ("g", 1)
            assert cache.get_or_load(f"load:{number}", lambda: number) == number
            until(lambda: cache.stats().coherence == "tracking")
            cache.set("watched", "old"); cache.get("watched")
            os.write(1, f"watching {number}\\n".encode())  # in one piece: three processes write here
            until(lambda: cache.get("watched") == "new")  # written by the parent's parent
            code = 0
        except BaseException as error:
            import traceback; traceback.print_exc()
        finally:
            os._exit(code)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
stop.set()
for thread in threads: thread.join()
assert f(1) == ("f", 1)
cache.close()
print("codes", *codes, flush=True)
"""

ENDS = """
import asyncio, sys, threading, time
from eventperf.cache import CacheManager, CacheOptions, RedisStore
url, name, how = sys.argv[1:]
options = CacheOptions(ttl=0.05, stale_while_revalidate=60, lease=0.3)
cache = CacheManager(RedisStore(url, timeout=1) if url != "memory" else None, namespace=name, options=options)
cache.get_or_load("k", lambda: 1)
time.sleep(0.1)
def slow():
    time.sleep(30)
if how == "refresh":            # a refresh behind, a channel, a lease keeper: all are alive at the end
    assert cache.get_or_load("k", slow) == 1
elif how == "threads":          # daemon threads use the cache until the very end
    def use():
        n = 0
        while True:
            n += 1
            cache.get_or_load(f"k{n}", lambda: n)
    for _ in range(4):
        threading.Thread(target=use, daemon=True).start()
    time.sleep(0.2)
elif how == "atexit":           # used after threads can no longer be started
    import atexit
    atexit.register(lambda: print("late", cache.get_or_load("late", lambda: 2), flush=True))
elif how == "loop":             # a loop ends with reads and loads under way
    async def main():
        async def aslow():
            await asyncio.sleep(30)
        for n in range(5):
            asyncio.create_task(cache.aget_or_load(f"a{n}", aslow))
        await cache.aget_or_load("k", aslow)
        await asyncio.sleep(0.05)
    asyncio.run(main())
elif how == "finalizer":        # used while modules are being torn down
    class Late:
        def __del__(self):
            cache.set("late", 1); cache.get("late")
    late = Late()
print("end", flush=True)
"""


@pytest.mark.parametrize("fixture", ["redis_url", "redis_cluster_url"])
def test_workers_forked_from_a_busy_process_work(fixture, request):
    url, name = request.getfixturevalue(fixture), uuid4().hex
    with (
        Worker(PRELOAD, url, name) as parent,
        CacheManager(RedisStore(url, timeout=5), namespace=name) as cache,
    ):
        for number in range(3):
            parent.wait_for(f"watching {number}", 60)
        cache.set("watched", "new")
        assert parent.wait_for("codes", 60) == "codes 0 0 0", parent.output
        assert parent.wait() == 0
        assert "Traceback" not in parent.output


@pytest.mark.parametrize("how", ["refresh", "threads", "atexit", "loop", "finalizer"])
@pytest.mark.parametrize("place", ["memory", "redis"])
def test_an_interpreter_ends_in_silence(place, how, request):
    url = "memory" if place == "memory" else request.getfixturevalue("redis_url")
    with Worker(ENDS, url, uuid4().hex, how) as worker:
        worker.wait_for("end", 60)
        wait_until(lambda: not worker.running, 20, what="the interpreter's end")
        assert worker.wait() == 0
        assert [line for line in worker.lines if not line.startswith(("end", "late 2"))] == []
