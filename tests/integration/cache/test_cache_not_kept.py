"""What cannot be kept is handed out and said; a refresh in the background shares nothing with its caller."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextvars import ContextVar

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.cache import CacheManager, CacheOptions, NotKept, RedisStore, SerializationError, depends


class Raises:
    """A serializer of a host, which raises what it likes."""

    name = "r"

    def dumps(self, value, /):
        raise ZeroDivisionError("mine")

    def loads(self, data, /):
        return data


@pytest.mark.parametrize("serializer", ["msgpack", "pickle", Raises()])
def test_a_loaded_value_that_cannot_be_stored_is_not_lost(redis_url, serializer, caplog):
    store = RedisStore(redis_url, timeout=5)
    options = CacheOptions(lease=60)
    with CacheManager(store, namespace="not-kept", ttl=60, serializer=serializer, options=options) as cache:
        cache.clear()
        heard: list[NotKept] = []
        cache.on(heard.append, NotKept)
        made = [threading.Lock() for _ in range(6)]
        with caplog.at_level(logging.WARNING, "eventperf.cache"):
            assert [cache.get_or_load("lock", lambda n=n: made[n]) for n in (0, 1)] == made[:2]
            assert asyncio.run(cache.aget_or_load("lock", lambda: made[2])) is made[2]
            began = time.monotonic()
            for n in (3, 4):
                found = cache.get_or_load_many(["a", "b"], lambda keys, n=n: {"a": made[n], "b": 1})
                assert found == {"a": made[n], "b": 1}
            assert time.monotonic() - began < 20, "the lease was given back"
        assert [event.key for event in heard[:4]] == ["lock", "lock", "lock", "a"]
        said = [r.message.partition("never kept")[2] for r in caplog.records]
        assert len(set(said)) == len(said)
        with pytest.raises(SerializationError):
            cache.set("lock", made[5])


MANY = [f"row:{n}" for n in range(10_001)]


def test_more_tags_than_a_value_may_carry_cost_the_entry_where_the_loader_says_them(redis_url):
    def load():
        depends(*MANY)
        return "value"

    for store in (None, RedisStore(redis_url, timeout=30)):
        with CacheManager(store, namespace="many-tags", ttl=60) as cache:
            cache.clear()
            heard = []
            cache.on(heard.append, NotKept)
            for _ in range(2):
                assert cache.get_or_load("k", load) == "value"
                assert cache.get("k") is None
            assert ["at most 10,000" in str(event.error) for event in heard] == [True, True]
            assert cache.stats().breaker in ("closed", "none")
            cache.set("few", 1, tags=MANY[:3])
            cache.invalidate_tags(*MANY)  # of these there may be any number
            assert cache.get("few") is None


@pytest.mark.parametrize(
    "tags", [lambda v: 7, lambda v: [7], lambda v: v["id"], lambda v: [None], lambda v: MANY]
)
def test_tags_that_are_none_cost_the_entry_and_not_the_value(redis_url, tags):
    for store in (None, RedisStore(redis_url, timeout=5)):
        with CacheManager(store, namespace="odd-tags", ttl=60) as cache:
            cache.clear()
            heard: list[NotKept] = []
            cache.on(heard.append, NotKept)
            assert [cache.get_or_load("k", lambda n=n: None, tags=tags) for n in (1, 2)] == [None, None]
            assert len(heard) == 2
            assert "tags" in str(heard[0].error)


def test_one_text_from_a_function_is_one_tag_and_none_is_none():
    with CacheManager() as cache:
        assert cache.get_or_load("k", lambda: 1, tags=lambda v: "event:1") == 1
        cache.invalidate_tags("e")
        assert cache.get("k") == 1
        cache.invalidate_tags("event:1")
        assert cache.get("k") is None
        assert cache.get_or_load("k", lambda: None, tags=lambda v: v and ["a"]) is None


@pytest.mark.parametrize("wrong", ["t", b"t", 7, [7], None])
def test_tags_given_plainly_are_a_list_of_texts_wherever_they_come_in(wrong):
    with CacheManager() as cache:
        uses = (
            lambda: cache.set("k", 1, tags=wrong),
            lambda: cache.set_many({"k": 1}, tags=wrong),
            lambda: cache.get_or_load("k", lambda: 1, tags=wrong),
            lambda: cache.get_or_load_many(["k"], lambda keys: {"k": 1}, tags=wrong),
            lambda: cache.warmer("k", tags=wrong)(lambda: 1),
            lambda: cache.cached(ttl=60, tags=wrong)(lambda n: n),
        )
        for use in uses:
            with pytest.raises(ConfigurationError, match="tags"):
                use()
        assert cache.get("k") is None


def test_a_refresh_in_a_thread_or_task_sees_no_context_variable_of_its_caller():
    session: ContextVar[object] = ContextVar("session", default="none of its own")
    options = CacheOptions(ttl=0.02, stale_while_revalidate=60)

    def ask(cache, seen):
        def load():
            seen.append(session.get())
            return len(seen)

        return cache.get_or_load("k", load)

    with CacheManager(options=options) as cache:
        session.set(mine := object())
        threads: list[object] = []
        while len(threads) < 3:
            ask(cache, threads)
            time.sleep(0.03)
        assert threads[0] is mine
        assert set(threads[1:]) == {"none of its own"}
        cache.clear()

        async def main() -> list[object]:
            tasks: list[object] = []

            async def load() -> int:
                tasks.append(session.get())
                return 1

            while len(tasks) < 3:
                await cache.aget_or_load("k", load)
                await asyncio.sleep(0.03)
            return tasks

        tasks = asyncio.run(main())
        assert tasks[0] is mine
        assert set(tasks[1:]) == {"none of its own"}


def test_a_refresh_has_a_flask_context_of_its_own():
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    ended = []
    app.teardown_appcontext(lambda error: ended.append(threading.get_ident()))
    seen: list[tuple[int, object]] = []
    with CacheManager(options=CacheOptions(ttl=0.02, stale_while_revalidate=60)) as cache:

        @cache.cached(key="k")
        def load():
            seen.append((threading.get_ident(), flask.g._get_current_object()))
            return flask.current_app.name

        with app.app_context():
            mine = flask.g._get_current_object()
            while len(seen) < 4:
                assert load() == app.name
                time.sleep(0.03)
    assert seen[0] == (threading.get_ident(), mine)
    assert all(there is not mine for _, there in seen[1:])
    assert len(ended) >= 3
