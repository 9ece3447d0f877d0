"""A cache that was used before gunicorn forked its workers (``--preload``)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from faults import wait_until
from processes import free_port

pytestmark = pytest.mark.integration

APP = """
import json, os
from urllib.parse import parse_qs
from eventperf.cache import CacheManager

cache = CacheManager(os.environ["CACHE_URL"], namespace=os.environ["NAMESPACE"])
loads = cache.counter("loads")
PARENT = os.getpid()
cache.set("k", "before the fork")
assert cache.get("k") == "before the fork" and cache.stats().coherence.startswith("tracking")

@cache.cached(ttl="5m", key="slow:{name}")
def slow(name):
    loads.incr(1)
    return f"value of {name}"

def app(environ, start_response):
    if value := parse_qs(environ["QUERY_STRING"]).get("set"):
        cache.set("k", value[0])
    stats = cache.stats()
    body = {"pid": os.getpid(), "parent": PARENT, "k": cache.get("k"), "slow": slow(environ["PATH_INFO"]),
            "coherence": stats.coherence, "l1_hits": stats.l1_hits, "loads": loads.value()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
"""


def test_workers_forked_from_a_process_that_used_the_cache(redis_server, tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    port = free_port()
    environment = {**os.environ, "CACHE_URL": redis_server.url, "NAMESPACE": f"gunicorn{port}"}
    command = [
        sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--threads", "2",
        "--bind", f"127.0.0.1:{port}", "--chdir", str(tmp_path), "shop:app",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def ask(path: str = "/a") -> dict[str, object]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return dict(json.load(answer))

    def up() -> bool:
        assert server.poll() is None, (tmp_path / "log").read_text()
        try:
            return bool(ask())
        except OSError:
            return False

    try:
        wait_until(up, 20, what="gunicorn")
        with ThreadPoolExecutor(12) as pool:
            seen = list(pool.map(lambda n: ask(f"/{n % 20}"), range(300)))
        assert len({s["pid"] for s in seen}) >= 2
        assert all(s["pid"] != s["parent"] for s in seen)
        assert all(s["k"] == "before the fork" for s in seen)
        assert ask()["loads"] == 21  # twenty names and the first question: one load each, in all workers
        for n in range(5):
            assert ask(f"/a?set={n}")["k"] == str(n)
            time.sleep(0.05)
            with ThreadPoolExecutor(12) as pool:
                assert {s["k"] for s in pool.map(lambda _: ask(), range(60))} == {str(n)}
        with ThreadPoolExecutor(12) as pool:
            last = list(pool.map(lambda _: ask(), range(100)))
        assert {s["coherence"] for s in last} == {"tracking"}
        assert all(int(str(s["l1_hits"])) > 0 for s in last)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
