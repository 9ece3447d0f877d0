"""Backends of cachelib and Flask-Caching: what their users call does what it did."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from eventperf.cache import CacheManager
from eventperf.errors import ConfigurationError
from eventperf.testing import FakeClock

pytest.importorskip("cachelib")
from eventperf.contrib.cachelib import EventPerfCache


@pytest.fixture(params=["memory", "redis"])
def kept(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        with CacheManager(namespace="cachelib") as cache:
            yield EventPerfCache(cache)
    else:
        url = request.getfixturevalue("redis_url")
        with CacheManager(url, namespace="cachelib", serializer="pickle") as cache:
            yield EventPerfCache(cache)
            cache.clear()


def test_what_its_users_call_does_what_it_says(kept: EventPerfCache) -> None:
    assert kept.get("a") is None
    assert kept.set("a", {"n": (1, 2)})
    assert kept.get("a") == {"n": (1, 2)}
    assert kept.has("a")
    assert not kept.has("b")
    assert kept.set_many({"b": 1, "c": 2})
    assert kept.get_many("a", "b", "x") == [{"n": (1, 2)}, 1, None]
    assert kept.get_dict("b", "c") == {"b": 1, "c": 2}
    assert kept.delete("a")
    assert not kept.delete("a")
    assert "b" in kept.delete_many("b", "x")
    assert not kept.has("b")
    assert kept.inc("n", 5) == 5
    assert kept.dec("n") == 4
    assert kept.clear()
    assert kept.get("c") is None


def test_one_of_many_who_add_wins(kept: EventPerfCache) -> None:
    won: list[int] = []
    gate = threading.Barrier(8)

    def go(n: int) -> None:
        gate.wait()
        if kept.add("lock", n):
            won.append(n)

    threads = [threading.Thread(target=go, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [kept.get("lock")]


def test_time_outs_are_those_of_cachelib() -> None:
    clock = FakeClock()
    kept = EventPerfCache(CacheManager(clock=clock), default_timeout=10)
    for key, timeout in (("default", None), ("ever", 0), ("short", 3), ("gone", -1)):
        kept.set(key, 1, timeout=timeout)
    seen = []
    for step in (0, 5, 10, 1e6):
        clock.advance(step)
        seen.append([k for k in ("default", "ever", "short", "gone") if kept.has(k)])
    assert seen == [["default", "ever", "short"], ["default", "ever"], ["ever"], ["ever"]]


def test_something_else_than_a_manager_is_named() -> None:
    with pytest.raises(ConfigurationError, match="cache"):
        EventPerfCache("redis://localhost")  # type: ignore[arg-type]


# --- Flask-Caching --------------------------------------------------------------------------------


def flask_site(**config: Any) -> tuple[Any, Any]:
    flask, flask_caching = pytest.importorskip("flask"), pytest.importorskip("flask_caching")
    app = flask.Flask("shop")
    app.config.from_mapping(CACHE_TYPE="eventperf.contrib.flask_caching.EventPerfCache", **config)
    return app, flask_caching.Cache(app)


@pytest.mark.parametrize("where", ["memory", "redis"])
def test_flask_caching_runs_on_it(where: str, request: pytest.FixtureRequest) -> None:
    config = {} if where == "memory" else {"CACHE_REDIS_URL": request.getfixturevalue("redis_url")}
    app, cache = flask_site(CACHE_KEY_PREFIX=f"shop_{where}_", **config)
    calls: list[Any] = []

    @app.get("/")
    @cache.cached(timeout=60)
    def index() -> str:
        calls.append("view")
        return "hello"

    @cache.memoize(60)
    def add(a: int, b: int) -> int:
        calls.append((a, b))
        return a + b

    with app.app_context():
        cache.clear()
        assert [app.test_client().get("/").text for _ in range(2)] == ["hello", "hello"]
        assert [add(1, 2), add(1, 2), add(2, 2)] == [3, 3, 4]
        cache.delete_memoized(add, 1, 2)
        assert [add(1, 2), add(2, 2)] == [3, 4]
        cache.delete_memoized(add)
        add(2, 2)
        assert calls == ["view", (1, 2), (2, 2), (1, 2), (2, 2)]
        cache.clear()


def test_options_that_no_manager_takes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="CACHE_OPTIONS"):
        flask_site(CACHE_OPTIONS={"nonsense": 1})
