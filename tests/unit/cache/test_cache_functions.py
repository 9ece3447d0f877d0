"""Cached functions: no two share an entry, each looks as the plain one would, anything callable is taken."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import subprocess
import sys
import threading
import types
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError, EventPerfError
from eventperf.cache import CacheManager, UnstableKey
from eventperf.cache.keys import Identity, Unstable
from eventperf.cache.options import OPTION_NAMES, MoreOptions
from eventperf.testing import FakeClock

shared = CacheManager()


def reader(table):
    def read(n):
        return f"{table}:{n}"

    return read


def unwrapped(function):
    def wrapper(*args):
        return function(*args)

    return wrapper


def wrapped(tag):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return tag, function(*args)

        return wrapper

    return decorate


def card(n):
    return f"card {n}"


def user(n):
    return f"user {n}"


def counting():
    seen = 0

    def count(n):
        nonlocal seen
        seen += 1
        return seen

    return count


def collecting(calls):
    def collect(n):
        calls.append(n)
        return len(calls)

    return collect


def pricing(currency=None, *, rate=1):
    def price(n, currency=currency):
        return n, currency, rate

    return price


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, n):
        return self.factor * n

    def times(self, n):
        return self.factor * n


class Table:
    name = "table"

    def __init__(self, key=1):
        self.key = key


def table_of(title):
    class Made(Table):
        name = title

    return Made


def plugin(base):
    module = types.ModuleType("plugin")
    module.BASE = base
    exec("def load(n): return BASE, n\nshort = lambda n: (BASE, n)", vars(module))
    return module


PAIRS: list[tuple[Any, Any]] = [
    (reader("orders"), reader("invoices")),
    (reader(Table()), reader(Table())),
    (reader(table_of("a")), reader(table_of("b"))),
    (unwrapped(card), unwrapped(user)),
    (unwrapped(reader("a")), unwrapped(reader("b"))),
    (wrapped("a")(card), wrapped("b")(card)),
    (wrapped(object())(card), wrapped(object())(card)),
    (wrapped("a")(card), card),
    (lambda n: n, lambda n: -n),
    (counting(), counting()),
    (collecting([]), collecting([])),
    (pricing(rate=1), pricing(rate=2)),
    (functools.partial(math.pow, 2), functools.partial(math.pow, 3)),
    (functools.partial(card, n=1), functools.partial(card, n=2)),
    (functools.partial(reader("a"), 1), functools.partial(reader("b"), 1)),
    (functools.lru_cache(reader("a")), functools.lru_cache(reader("b"))),
    (Scale(2), Scale(3)),
    (Scale(2).times, Scale(3).times),
    ("a".center, "b".center),
    ({1: 2}.get, {1: 3}.get),
    (Scale, Table),
    (plugin("a").load, plugin("b").load),
    (plugin("a").short, plugin("b").short),
]


def answers(function, *args):
    try:
        return function(*args)
    except UnstableKey as error:
        return error


@pytest.mark.parametrize("n", range(len(PAIRS)))
def test_two_functions_never_share_an_entry(n):
    with CacheManager() as cache:
        for function, other in (PAIRS[n], PAIRS[n][::-1]):
            one, two = (cache.cached(ttl=60)(f) for f in (function, other))
            args = (1,) if "partial" not in repr(function) or "pow" in repr(function) else ()
            first = [answers(one, *args), answers(two, *args)]
            assert one.key(*args) != two.key(*args)
            assert [answers(one, *args), answers(two, *args)] == first


@pytest.mark.parametrize("n", range(len(PAIRS)))
def test_for_other_processes_two_functions_have_two_names_or_none(n):
    names, alive = [], []
    for function in PAIRS[n]:
        identity = Identity(function)
        try:
            names.append(identity.prefix(is_shared=True))
        except Unstable:
            names.append(f"refused {len(names)}")
        alive.append(identity)  # as in a program
    assert names[0] != names[1], names
    assert not any("#" in name for name in names)


def test_namesakes_in_one_module_are_told_apart():
    space: dict[str, Any] = {"__name__": "namesakes"}
    exec("def _(n): return 1\none = _\ndef _(n): return 2", space)
    with CacheManager() as cache:
        one, two = cache.cached(ttl=60)(space["one"]), cache.cached(ttl=60)(space["_"])
        assert (one(1), two(1), one(1), two(1)) == (1, 2, 1, 2)


def test_a_plain_function_has_a_plain_name():
    with CacheManager() as cache:
        assert cache.cached(ttl=60)(card).key(1) == f"{__name__}:card(1)"
        assert cache.cached(ttl=60)(cache.cached(ttl=60)(card)).key(1) == f"{__name__}:card(1)"


PROGRAM = """
import functools, sys
sys.path.insert(0, {folder!r})
from {module} import *
from {module} import PAIRS
from eventperf.cache.keys import Identity, Unstable
for pair in PAIRS:
    for function in pair[:2]:
        try:
            print(Identity(function).prefix(is_shared=True))
        except Unstable:
            print("refused")
"""


def test_every_process_finds_the_same_names():
    folder, _, module = __file__.removesuffix(".py").rpartition("/")
    text = PROGRAM.format(folder=folder, module=module)
    runs = [
        subprocess.run(
            [sys.executable, "-c", text],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0].count("refused") < len(PAIRS)


class Repo(Table):
    cached_load: Any
    cached_make: Any

    def __init__(self, key=1):
        super().__init__(key)
        self.loads = 0

    def load(self, n):
        self.loads += 1
        return self.name, n

    @classmethod
    def make(cls, n):
        return cls.name, n


class Users(Repo):
    name = "users"


def test_methods_of_subclasses_and_of_classes_of_a_factory_do_not_share():
    with CacheManager() as cache:
        Repo.cached_load = cache.cached(ttl=60, self_key="key")(Repo.load)
        Repo.cached_make = classmethod(cache.cached(ttl=60)(Repo.make.__func__))
        kinds: list[Any] = [Repo, Users, *(type("Made", (Repo,), {"name": name}) for name in "ab")]
        for _ in range(2):
            assert [kind().cached_load(5)[0] for kind in kinds] == ["table", "users", "a", "b"]
            assert [kind.cached_make(5)[0] for kind in kinds] == ["table", "users", "a", "b"]
        owner = Repo()
        owner.cached_load(5)
        assert owner.loads == 0
        assert owner.cached_load.key(5).startswith(f"{__name__}:Repo.load(1,")


class Kinds:
    @classmethod
    @shared.cached(ttl=60)
    def load(cls, n=0):
        return cls, n


class Kind(Kinds):
    pass


def test_the_verbs_of_a_class_method_never_take_an_argument_for_the_class():
    """Python 3.13 hands its class to the method alone."""
    assert Kinds.load(1) == (Kinds, 1)
    assert Kind.load(1) == (Kind, 1)
    adds = sys.version_info < (3, 13)
    keys = {kind.load.key(*(() if adds else (kind,)), 1) for kind in (Kinds, Kind)}
    assert len(keys) == 2
    if not adds:
        with pytest.raises(ConfigurationError, match="the class"):
            Kinds.load.invalidate(1)


def test_calls_of_anything_callable_and_odd_things_are_refused_in_words():
    with CacheManager() as cache:
        assert cache.cached(ttl=60)(functools.partial(math.pow, 2))(3) == 8
        assert cache.cached(ttl=60)(Scale(2))(3) == 6
        assert cache.cached(ttl=60)(Scale(2).times)(3) == 6
        assert cache.cached(ttl=60)(math.sqrt)(9) == 3
        assert cache.cached(ttl=60)(Scale)(7).factor == 7
        for odd in (3, property(card), functools.partialmethod(card), classmethod(card)):
            with pytest.raises(ConfigurationError, match="function"):
                cache.cached(ttl=60)(odd)


def test_a_function_that_hands_out_a_coroutine_without_being_one_is_refused_with_the_cure():
    async def load(n):
        return n

    with CacheManager() as cache, pytest.raises(EventPerfError, match="async def"):
        cache.cached(ttl=60)(unwrapped(load))(1)


def test_an_object_with_an_asynchronous_call_is_a_coroutine_function():
    class Load:
        async def __call__(self, n: int) -> int:
            await asyncio.sleep(0)
            return n

    with CacheManager() as cache:
        load = cache.cached(ttl=60)(Load())
        assert asyncio.run(load(3)) == asyncio.run(load(3)) == 3
        assert inspect.iscoroutinefunction(load)
        assert load.__name__ == "Load"
        assert str(inspect.signature(load)) == "(n: 'int') -> 'int'"


def test_a_key_function_returns_text():
    with CacheManager() as cache:
        for wrong in (None, 7, ("a",), b"a"):
            with pytest.raises(ConfigurationError, match=r"key of .*card.*returns text"):
                cache.cached(ttl=60, key=lambda n, wrong=wrong: wrong)(card)(1)


def test_arguments_without_text_are_refused_by_name():
    with CacheManager() as cache:
        load = cache.cached(ttl=60)(lambda request, n=1: n)
        knot: list[Any] = []
        knot.append(knot)
        for odd in (object(), threading.Lock(), knot):
            with pytest.raises(UnstableKey, match=r"argument 'request' is a .*key="):
                load(odd)


class Shop:
    """A shop."""

    def __init__(self) -> None:
        self.number = 1


def decorated(cache):
    class Shop:
        number = 1

        @cache.cached(ttl=60, key="s:{self.number}:{n}")
        def sync(self, n: int = 1, *, full: bool = False) -> int:
            """Count."""
            return n

        @cache.cached(ttl=60, key=lambda self, *a, **k: f"a:{self.number}:{a}:{k}")
        async def task(self, n: int = 1, *, full: bool = False) -> int:
            """Count."""
            return n

    return Shop


@pytest.mark.parametrize("name", ["sync", "task"])
def test_a_method_looks_as_the_plain_one_would(name):
    with CacheManager() as cache:
        kind = decorated(cache)
        shop = kind()
        bound, free = getattr(shop, name), getattr(kind, name)
        assert str(inspect.signature(bound)) == "(n: 'int' = 1, *, full: 'bool' = False) -> 'int'"
        assert str(inspect.signature(free)) == "(self, n: 'int' = 1, *, full: 'bool' = False) -> 'int'"
        is_task = name == "task"
        assert [inspect.iscoroutinefunction(f) for f in (bound, free)] == [is_task] * 2
        assert [inspect.iscoroutinefunction(f.__call__) for f in (bound,)] == [is_task]
        assert inspect.get_annotations(bound.__func__, eval_str=True) == {
            "n": int,
            "full": bool,
            "return": int,
        }
        assert (bound.__name__, bound.__doc__, free.__doc__) == (name, "Count.", "Count.")
        assert bound.__self__ is shop
        assert bound.__globals__ is globals()
        result = bound(5, full=True)
        assert (asyncio.run(result) if is_task else result) == 5
        assert bound.key(5, full=True) == free.key(shop, 5, full=True)


@pytest.mark.parametrize("general", [False, True])
def test_annotations_that_are_texts_are_found(general):
    with CacheManager() as cache:
        load: Any
        if general:

            @cache.cached(ttl=60)
            def load(*shops: Shop) -> int:
                return len(shops)
        else:

            @cache.cached(ttl=60, key="{shop.number}")
            def load(shop: Shop) -> int:
                return shop.number

        assert load.__globals__ is globals()
        assert inspect.get_annotations(load, eval_str=True)["return"] is int
        assert inspect.signature(load, eval_str=True).return_annotation is int


def test_every_option_can_be_said_directly_and_is_checked_when_it_is():
    assert set(MoreOptions.__annotations__) == set(OPTION_NAMES)
    clock = FakeClock()
    with CacheManager(clock=clock) as cache:
        fails: list[int] = []

        @cache.cached(ttl=1, grace="1m")
        def load(n):
            if fails:
                raise OSError
            return n

        assert load(1) == 1
        fails.append(1)
        clock.advance(30)
        assert load(1) == 1
        only: Any = cache.cached(ttl=60, cache_if=lambda value: value is not None)
        seen: list[int] = []
        collect = only(lambda n: seen.append(n))
        collect(1)
        collect(1)
        assert seen == [1, 1]
        options: Any
        for options in ({"grace": -1}, {"jitter_ratio": 2}, {"graze": 1}, {"isolate": "no"}, {"options": {}}):
            with pytest.raises(ConfigurationError, match=next(iter(options))):
                cache.cached(**options)(card)
