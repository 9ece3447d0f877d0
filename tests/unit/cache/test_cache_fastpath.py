"""Hits of decorated functions: every way to write a call finds the same entry, and no other."""

from __future__ import annotations

import asyncio
import inspect
from contextvars import ContextVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf.cache import CacheManager
from eventperf.cache.transactions import mark


@pytest.fixture
def cache():
    with CacheManager() as cache:
        yield cache


def test_positional_keyword_and_default_arguments_share_an_entry(cache):
    loads = []

    @cache.cached(ttl=60)
    def page(event, lang="en", *, full=False):
        loads.append((event, lang, full))
        return object()

    first = page(1)
    assert page(1, "en") is page(event=1) is page(1, full=False, lang="en") is first
    assert page(1, "de") is not first
    assert page(1, full=True) is not first
    assert loads == [(1, "en", False), (1, "de", False), (1, "en", True)]
    assert cache.stats().l1_hits == 3
    assert str(inspect.signature(page)) == "(event, lang='en', *, full=False)"


def test_positional_only_variable_and_mutable_arguments(cache):
    @cache.cached(ttl=60)
    def only(a, /, b, *, c=3):
        return [a, b, c]

    @cache.cached(ttl=60)
    def many(*args, **kwargs):
        return [args, kwargs]

    assert only(1, 2) is only(1, b=2) is only(1, 2, c=3)
    with pytest.raises(TypeError):
        only(a=1, b=2)
    assert many(1, x=2) is many(1, x=2)
    assert many([1, 2]) is many([1, 2])
    assert many([1, 2]) is not many([1, 3])


def test_only_what_the_key_is_made_of_tells_calls_apart(cache):
    loads = []

    @cache.cached(ttl=60, key="event:{event_id}")
    def load(session, event_id):
        loads.append(event_id)
        return event_id

    assert [load(object(), 7), load(object(), event_id=7), load(object(), 8)] == [7, 7, 8]
    assert loads == [7, 8]
    load.invalidate(None, 7)
    load(object(), 7)
    assert loads == [7, 8, 7]


def test_methods_of_two_objects_do_not_share_unless_their_key_does(cache):
    class Shop:
        def __init__(self, number):
            self.number = number
            self.loads = 0

        @cache.cached(ttl=60, self_key="number")
        def own(self, event):
            self.loads += 1
            return (self.number, event)

        @cache.cached(ttl=60, key="shop:{self.number}:{event}")
        def named(self, event):
            self.loads += 1
            return (self.number, event)

        @cache.cached(ttl=60, self_key=lambda self: self.number)
        def computed(self, event):
            self.loads += 1
            return (self.number, event)

    one, two, twin = Shop(1), Shop(2), Shop(1)
    for name in ("own", "named", "computed"):
        for shop in (one, two, twin, one, two, twin):
            assert getattr(shop, name)(5) == (shop.number, 5)
            assert getattr(shop, name)(event=5) == (shop.number, 5)
    assert (one.loads, two.loads, twin.loads) == (3, 3, 0)
    one.number = 9  # what the key reads is read at each call
    assert one.own(5) == (9, 5)
    one.named.invalidate(5)
    assert one.own.key(5).endswith("9,5)")
    assert one.own.__name__ == "own"
    assert one.named(5) == (9, 5)


def test_an_attribute_that_is_missing_or_mutable_goes_the_long_way(cache):
    class Owner:
        tags: object

    @cache.cached(ttl=60, key="of:{owner.tags}")
    def of(owner):
        return object()

    owner = Owner()
    with pytest.raises(AttributeError):
        of(owner)
    owner.tags = (1, 2)
    first = of(owner)
    assert of(owner) is first
    owner.tags = (1, 3)
    assert of(owner) is not first


def test_coroutine_methods_keep_being_coroutine_functions(cache):
    class Shop:
        number = 1

        @cache.cached(ttl=60, self_key="number")
        async def event(self, event_id, *, full=False):
            return object()

    async def go():
        shop = Shop()
        first = await shop.event(1)
        assert await shop.event(event_id=1, full=False) is first
        await shop.event.ainvalidate(1)
        assert await shop.event(1) is not first

    asyncio.run(go())
    if hasattr(inspect, "markcoroutinefunction"):
        assert inspect.iscoroutinefunction(Shop().event)


def test_a_wrong_call_is_refused_as_by_the_function_itself(cache):
    @cache.cached(ttl=60)
    def f(a, b=1):
        return a

    for wrong in (lambda: f(), lambda: f(1, 2, 3), lambda: f(1, c=2), lambda: f(1, a=1)):
        with pytest.raises(TypeError):
            wrong()
    assert cache.stats().loads == 0


def test_equal_arguments_of_several_kinds_share_as_their_key_does(cache):
    @cache.cached(ttl=60)
    def f(a):
        return object()

    assert f(1) is f(1.0) is f(True)
    assert f("1") is not f(1)
    assert f((1, "a")) is f((1, "a"))
    assert f([1]) is f([1])


tenant: ContextVar[str] = ContextVar("tenant")
calls = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([0, False, 0.0, 1, True, "1"])), max_size=20
)


@given(calls, st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_key_function_may_look_at_more_than_the_arguments(made, by_keyword):
    """A hit never goes around it: what it says of this very call is the key."""
    with CacheManager() as cache:

        @cache.cached(ttl=60, key=lambda n: f"{tenant.get()}:{n!r}")
        def load(n):
            return tenant.get(), repr(n)

        @cache.cached(ttl=60, key=lambda self, n: f"m:{tenant.get()}:{n!r}")
        async def aload(self, n):
            return tenant.get(), repr(n)

        async def both():
            for who, n in made:
                token = tenant.set(who)
                assert (load(n=n) if by_keyword else load(n)) == (who, repr(n))
                assert await aload(None, n) == (who, repr(n))
                tenant.reset(token)

        asyncio.run(both())


def test_what_a_key_function_leaves_out_is_still_a_hit(cache):
    loads = []

    @cache.cached(ttl=60, key=lambda session, n, *, full=False: f"n:{n}")
    def load(session, n, *, full=False):
        loads.append(n)
        return object()

    assert load([], 1) is load({}, 1) is load([], n=1, full=True)
    assert load([], 2) is not load([], 1)
    assert loads == [1, 2]
    assert cache.stats().l1_hits == 3
    load.invalidate([], 1)
    load([], 1)
    assert loads == [1, 2, 1]


def test_who_goes_around_the_table_adds_nothing_to_it(cache):
    @cache.cached(ttl=60)
    def load(n):
        return n

    load(1)
    is_open = [True]
    mark(lambda: is_open[0])  # as a transaction that has written does
    for _ in range(50):
        load(1)
    is_open[0] = False
    load(1)
    (entry,) = (entry for entry in cache._table.values())
    assert len(entry.meta.aliases) == 1
