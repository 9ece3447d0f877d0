"""Warm-up among processes: one loads, the others wait and read; readiness for hosts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from uuid import uuid4

import pytest

from eventperf.cache import EVENT_PLATFORM, CacheManager, CacheOptions, RedisStore
from faults import Worker, wait_until

pytestmark = pytest.mark.integration

HOST = """
import asyncio, json, os, sys, threading, time
from eventperf.cache import CacheManager, CacheOptions, RedisStore
url, name, path, kind = sys.argv[1:]
cache = CacheManager(RedisStore(url, timeout=5), namespace=name, options=CacheOptions(lease=1))
cache.preset()
running, most, mu = 0, 0, threading.Lock()

def note(data_set):
    global running, most
    with mu:
        running += 1; most = max(most, running)
    with open(path, "a") as log: log.write(f"{data_set} {os.getpid()}\\n")
    time.sleep(30 if kind == "dies" and data_set == "active_events" else 0.15)
    with mu: running -= 1

@cache.warmer("system_configuration")
def configuration(): note("system_configuration"); return {"tz": "UTC"}
@cache.warmer("active_events", after=("system_configuration",))
def events():
    assert cache.get("system_configuration") == {"tz": "UTC"}
    note("active_events"); return [1, 2, 3]
@cache.warmer("popular_event_types", after=("active_events",))
def types(): note("popular_event_types"); return ["talk"]
@cache.warmer("user_permissions", tags=["permissions"])
def permissions(): note("user_permissions"); return {f"user_permissions:{n}": [n] for n in range(1200)}

print("loaded", flush=True)
sys.stdin.close()
while not cache.get("go", options=CacheOptions(use_l1=False)): time.sleep(0.005)
assert not cache.is_ready
report = asyncio.run(cache.awarm(concurrency=2)) if kind == "async" else cache.warm(concurrency=2)
found = {
    "pid": os.getpid(), "ok": report.ok, "most": most, "ready": cache.readiness(),
    "status": {r.name: r.status for r in report.results}, "entries": report["user_permissions"].entries,
    "values": [cache.get("active_events"), cache.get("popular_event_types"),
               len(cache.get_many([f"user_permissions:{n}" for n in range(1200)]))],
}
print("report", json.dumps(found), flush=True)
cache.close()
"""


@pytest.mark.parametrize("fixture", ["redis_url", "redis_cluster_url"])
def test_one_process_loads_each_data_set_and_the_others_read(fixture, request, tmp_path):
    url, name, path = request.getfixturevalue(fixture), uuid4().hex, tmp_path / "loads"
    with (
        CacheManager(RedisStore(url, timeout=5), namespace=name, l1=None) as cache,
        Worker(HOST, url, name, path, "sync") as one,
        Worker(HOST, url, name, path, "sync") as two,
        Worker(HOST, url, name, path, "async") as three,
    ):
        workers = (one, two, three)
        for worker in workers:
            worker.wait_for("loaded")
        cache.set("go", 1)
        found = [json.loads(w.wait_for("report", 60).removeprefix("report ")) for w in workers]
    loads = [line.split()[0] for line in path.read_text().splitlines()]
    assert sorted(loads) == sorted(EVENT_PLATFORM)
    order = ("system_configuration", "active_events", "popular_event_types")
    assert [load for load in loads if load in order] == list(order)
    for each in found:
        assert each["ok"], each
        assert each["most"] <= 2
        assert each["entries"] == 1200
        assert each["values"] == [[1, 2, 3], ["talk"], 1200]
        assert each["ready"]["ready"]
        assert set(each["ready"]["data_sets"]) == set(EVENT_PLATFORM)
    for data_set in EVENT_PLATFORM:
        statuses = sorted(each["status"][data_set] for each in found)
        assert statuses == ["loaded", "shared", "shared"]


def test_a_process_killed_while_it_warms_is_replaced(redis_url, tmp_path):
    name, path = uuid4().hex, tmp_path / "loads"
    with (
        CacheManager(RedisStore(redis_url, timeout=5), namespace=name, l1=None) as cache,
        Worker(HOST, redis_url, name, path, "dies") as dies,
    ):
        dies.wait_for("loaded")
        cache.set("go", 1)
        wait_until(lambda: path.exists() and "active_events" in path.read_text(), 30, what="its load")
        with Worker(HOST, redis_url, name, path, "sync") as lives:
            lives.wait_for("loaded")
            time.sleep(0.1)
            dies.kill9()
            found = json.loads(lives.wait_for("report", 60).removeprefix("report "))
    assert found["ok"]
    assert found["status"]["active_events"] == "loaded"
    assert found["status"]["system_configuration"] == "shared"


@pytest.mark.parametrize("place", ["memory", "redis"])
def test_pairs_whose_tag_is_invalidated_meanwhile_are_not_used(place, request):
    url = request.getfixturevalue("redis_url") if place == "redis" else None
    with CacheManager(RedisStore(url, timeout=5) if url else None, namespace=uuid4().hex) as cache:
        database = {"user:1": "may", "user:2": "may"}
        began, go_on = threading.Event(), threading.Event()

        @cache.warmer("user_permissions", tags=["permissions"])
        def permissions():
            seen = dict(database)
            began.set()
            assert go_on.wait(20)
            return seen

        reports = []
        thread = threading.Thread(target=lambda: reports.append(cache.warm()))
        thread.start()
        assert began.wait(20)
        database["user:1"] = "may not"
        cache.invalidate_tags("permissions")
        go_on.set()
        thread.join(20)
        assert cache.get_many(["user:1", "user:2"]) == {}
        cache.warm()  # nothing is remembered of the first, so it loads again
        assert cache.get_many(["user:1", "user:2"]) == database


def test_failures_and_time_outs_are_told_per_data_set(redis_url):
    with CacheManager(RedisStore(redis_url, timeout=5), namespace=uuid4().hex) as cache:
        release = threading.Event()
        cache.preset("active_events", "popular_event_types", "system_configuration")

        @cache.warmer("system_configuration")
        def fails():
            raise OSError("database away")

        @cache.warmer("active_events", after=("system_configuration",))
        def events():
            return [1]

        @cache.warmer("slow")
        def slow():
            release.wait(20)

        report = cache.warm(timeout=2)
        release.set()
        assert {r.name: r.status for r in report.results} == {
            "system_configuration": "failed", "active_events": "skipped", "slow": "failed",
            "popular_event_types": "missing_loader",
        }  # fmt: skip
        assert cache.readiness() == {
            "ready": False,
            "data_sets": {
                "system_configuration": "failed", "active_events": "skipped", "slow": "failed",
                "popular_event_types": "missing_loader",
            },
        }  # fmt: skip


BEFORE = (503, {"ready": False, "data_sets": {"active_events": "not_warmed"}})
AFTER = (200, {"ready": True, "data_sets": {"active_events": "loaded"}})


def test_hosts_answer_readiness_checks():
    cache = CacheManager()

    @cache.warmer("active_events")
    def events():
        return [1]

    answers = [ask(cache) for ask in (_flask, _fastapi)]
    cache.warm()
    answers += [ask(cache) for ask in (_flask, _fastapi)]
    assert answers == [BEFORE] * 2 + [AFTER] * 2


def _flask(cache):
    flask = pytest.importorskip("flask")
    from eventperf.contrib.flask import EventPerf

    app = flask.Flask("ready")
    app.add_url_rule("/ready", view_func=EventPerf(app, cache=cache).ready)
    answer = app.test_client().get("/ready")
    return answer.status_code, answer.get_json()


def _fastapi(cache):
    fastapi = pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    from eventperf.contrib.fastapi import lifespan, ready

    app = fastapi.FastAPI(lifespan=lifespan())
    app.add_route("/ready", ready)

    async def ask():
        async with app.router.lifespan_context(app):
            app.state.eventperf = type(app.state.eventperf)(cache=cache)  # stays open for the others
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answer = await client.get("/ready")
                return answer.status_code, answer.json()

    return asyncio.run(ask())


DJANGO = """
import json
from django.conf import settings
settings.configure()
from django.http import HttpRequest
from eventperf.cache import CacheManager
from eventperf.contrib.django import ready_view
cache = CacheManager()
cache.warmer("active_events")(lambda: [1])
for _ in range(2):
    answer = ready_view(cache)(HttpRequest())
    print("answer", answer.status_code, json.dumps(json.loads(answer.content)), flush=True)
    cache.warm()
"""


def test_django_answers_readiness_checks():
    pytest.importorskip("django")
    with Worker(DJANGO) as worker:
        assert worker.wait() == 0, worker.output
        answers = [line.split(" ", 2)[1:] for line in worker.lines if line.startswith("answer")]
    assert [(int(status), json.loads(body)) for status, body in answers] == [BEFORE, AFTER]


def test_a_grown_data_set_is_loaded_again_after_its_life(redis_url):
    options = CacheOptions(ttl=0.3)
    with CacheManager(RedisStore(redis_url, timeout=5), namespace=uuid4().hex, options=options) as cache:
        users = ["ada"]

        @cache.warmer("users", key="*")
        def load():
            return {f"user:{name}": 1 for name in users}

        assert cache.warm()["users"].entries == 1
        users.append("bob")
        wait_until(lambda: cache.warm()["users"].entries == 2, 10, what="the next warm-up")
        assert cache.warm()["users"].status in ("loaded", "shared")
