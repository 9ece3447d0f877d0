"""Whose object a hit is: the stored one, a private copy, or the stored one under watch."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from eventperf.cache import CacheManager, CacheOptions, ValueMutated
from eventperf.cache.values.isolation import private
from eventperf.errors import ConfigurationError


@dataclass
class Event:
    name: str
    seats: list[int] = field(default_factory=list)


@pytest.fixture(params=["plain", "tagged"])
def tags(request):
    return [] if request.param == "plain" else ["t"]


def test_copies_share_nothing_with_what_is_held(tags):
    with CacheManager(options=CacheOptions(isolate="copy")) as cache:
        original = {"event": Event("a", [1]), "plain": [1, 2]}
        cache.set("k", original, tags=tags)
        original["event"].seats.append(2)
        for taken in (cache.get("k"), cache.get_many(["k"])["k"], cache.get_or_load("k", dict)):
            assert taken == {"event": Event("a", [1]), "plain": [1, 2]}
            taken["event"].seats.append(9)
            taken["plain"].clear()
        assert cache.get("k")["plain"] == [1, 2]

        @cache.cached(ttl=60)
        def load(n):
            return [n, [n]]

        first = load(1)
        first[1].append("mine")
        assert load(1) == [1, [1]]
        assert load(1) is not load(1)

        async def go():
            (await cache.aget("k"))["plain"].clear()
            return await cache.aget_or_load("k", dict)

        assert asyncio.run(go())["plain"] == [1, 2]
        many = cache.get_or_load_many(["x"], lambda keys: {key: [key] for key in keys})
        many["x"].append("mine")
        assert cache.get("x") == ["x"]


def test_everyone_who_waited_for_a_load_gets_a_copy_of_his_own():
    gate = threading.Event()
    with CacheManager(options=CacheOptions(isolate="copy")) as cache, ThreadPoolExecutor(4) as pool:

        def load():
            gate.wait(5)
            return [[1]]

        calls = [pool.submit(cache.get_or_load, "k", load) for _ in range(4)]
        gate.set()
        got = [call.result(5) for call in calls]
    assert got == [[[1]]] * 4
    assert len({id(value) for value in got}) == len({id(value[0]) for value in got}) == 4


def test_a_changed_object_is_noticed_and_the_place_is_named():
    with CacheManager(options=CacheOptions(isolate="check")) as cache:

        @cache.cached(ttl=60)
        def load(n):
            return {"n": n}

        taken = load(1)  # taken here
        assert load(1) is taken
        taken["n"] = "changed"
        with pytest.raises(ValueMutated) as caught:
            load(1)
        first = test_a_changed_object_is_noticed_and_the_place_is_named.__code__.co_firstlineno
        here = f"{__file__}:{first + 7}"
        assert here in caught.value.taken_at
        assert caught.value.noticed_at.startswith(__file__)
        assert caught.value.key.endswith("load(1)")
        assert load(1) == {"n": 1}, "dropped, and loaded anew"
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.key, again.taken_at) == (caught.value.key, caught.value.taken_at)


def test_what_was_set_is_watched_too_and_replacing_it_is_no_change():
    with CacheManager(options=CacheOptions(isolate="check")) as cache:
        seats = [1]
        cache.set("k", seats)
        assert cache.get("k") == [1]
        cache.set("k", [2])
        assert cache.get("k") == [2]
        cache.set("k", seats)
        seats.append(2)
        with pytest.raises(ValueMutated, match="'k' was changed"):
            cache.get("k")
        assert cache.get("k") is None
        cache.set("lock", threading.Lock())  # cannot be looked into: not watched
        assert cache.get("lock") is cache.get("lock")


def test_shared_is_the_default_and_a_wrong_choice_is_refused():
    with CacheManager() as cache:
        cache.set("k", [1])
        assert cache.get("k") is cache.get("k")
        copying = CacheOptions(isolate="copy")
        assert cache.get("k", options=copying) is not cache.get("k", options=copying)
    with pytest.raises(ConfigurationError, match="isolate"):
        CacheOptions(isolate="yes")


@pytest.mark.parametrize("value", [None, 1, "a", [1, 2], {"a": 1}, [[1]], {"a": {"b": []}}, (1, [2]), {1, 2}])
def test_private_copies_are_equal_and_not_shared(value):
    copy = private(value)
    assert copy == value
    assert type(copy) is type(value)
    knot = [1]
    knot.append(knot)
    again = private(knot)
    assert again[1] is again
