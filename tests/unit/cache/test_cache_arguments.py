"""Every argument of every public call is refused where it is wrong: by its name, with nothing done.

The table says what is wrong for each argument; a parameter that is in no table fails the last test here, so
that a new one cannot be forgotten.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest

from arguments import Twins, refused
from eventperf.cache import CacheManager, CacheOptions, MemoryStore, RedisStore, UnstableKey
from eventperf.errors import ConfigurationError

NAN, INF = math.nan, math.inf
NO_TEXT: tuple[Any, ...] = (5, b"a", [], {}, NAN, object())
NO_NAME: tuple[Any, ...] = (None, *NO_TEXT)
NO_SPACE: tuple[Any, ...] = ("", *NO_TEXT)
NO_SPAN: tuple[Any, ...] = (
    *(-1, 0, "soon", "", "-5m", "1e400s", True, NAN, 10**400, 1e308, 1e18, [], b"5s", Decimal("NaN")),
)
NO_LIFE: tuple[Any, ...] = NO_SPAN
NO_PAUSE: tuple[Any, ...] = (*NO_SPAN, INF)
NO_WAIT: tuple[Any, ...] = tuple(v for v in NO_PAUSE if v is True or v != 0)
TOO_MANY = [f"t{n}" for n in range(10_001)]  # on one value
NO_LIST: tuple[Any, ...] = (5, "abc", b"abc", {"a": 1}, object())
NO_FLAG: tuple[Any, ...] = (None, 0, 1, "false", "no", [])
NO_CALL: tuple[Any, ...] = (None, 5, "fn", [])
NO_OPTIONS: tuple[Any, ...] = (5, {}, "ttl", {"ttl": 5}, CacheOptions)
NO_AMOUNT: tuple[Any, ...] = (True, [], {}, "1", 1.5, NAN, Decimal(1), 2**63, -(2**63) - 1)


def load(keys: list[str]) -> dict[str, int]:
    return dict.fromkeys(keys, 1)


CALLS: Mapping[tuple[str, str], tuple[tuple[Any, ...], Callable[[CacheManager, Any], Any]]] = {
    ("get", "key"): (NO_NAME, lambda c, v: c.get(v)),
    ("get", "options"): (NO_OPTIONS, lambda c, v: c.get("k", options=v)),
    ("get_many", "keys"): ((None, *NO_LIST), lambda c, v: c.get_many(v)),
    ("get_many", "options"): (NO_OPTIONS, lambda c, v: c.get_many(["k"], options=v)),
    ("exists", "key"): (NO_NAME, lambda c, v: c.exists(v)),
    ("exists", "namespace"): (NO_SPACE, lambda c, v: c.exists("k", namespace=v)),
    ("ttl", "key"): (NO_NAME, lambda c, v: c.ttl(v)),
    ("ttl", "namespace"): (NO_SPACE, lambda c, v: c.ttl("k", namespace=v)),
    ("about", "key"): (NO_NAME, lambda c, v: c.about(v)),
    ("about", "namespace"): (NO_SPACE, lambda c, v: c.about("k", namespace=v)),
    ("largest", "most"): ((0, 51, "5", None, True, NAN, []), lambda c, v: c.largest(v)),
    ("keys", "pattern"): (NO_NAME, lambda c, v: c.keys(v)),
    ("keys", "namespace"): (NO_SPACE, lambda c, v: c.keys(namespace=v)),
    ("set", "key"): ((None, 5, b"a", NAN, object()), lambda c, v: c.set(v, 1)),
    ("set", "ttl"): (NO_LIFE, lambda c, v: c.set("k", 1, ttl=v)),
    ("set", "tags"): ((None, *NO_LIST, TOO_MANY, [5], [None]), lambda c, v: c.set("k", 1, tags=v)),
    ("set", "options"): (NO_OPTIONS, lambda c, v: c.set("k", 1, options=v)),
    ("set_many", "items"): (
        (None, 5, "ab", [], [("k", 1)], object()), lambda c, v: c.set_many(v)
    ),
    ("set_many", "ttl"): (NO_LIFE, lambda c, v: c.set_many({"k": 1}, ttl=v)),
    ("set_many", "tags"): ((None, *NO_LIST, TOO_MANY, [5]), lambda c, v: c.set_many({"k": 1}, tags=v)),
    ("set_many", "options"): (NO_OPTIONS, lambda c, v: c.set_many({"k": 1}, options=v)),
    ("add", "key"): (NO_NAME, lambda c, v: c.add(v, 1)),
    ("add", "ttl"): (NO_LIFE, lambda c, v: c.add("k", 1, ttl=v)),
    ("add", "tags"): ((None, *NO_LIST, TOO_MANY, [5]), lambda c, v: c.add("k", 1, tags=v)),
    ("add", "options"): (NO_OPTIONS, lambda c, v: c.add("k", 1, options=v)),
    ("touch", "key"): (NO_NAME, lambda c, v: c.touch(v)),
    ("touch", "ttl"): (NO_LIFE, lambda c, v: c.touch("k", ttl=v)),
    ("touch", "namespace"): (NO_SPACE, lambda c, v: c.touch("k", namespace=v)),
    ("delete", "keys"): (NO_NAME, lambda c, v: c.delete(v)),
    ("delete", "namespace"): (NO_SPACE, lambda c, v: c.delete("k", namespace=v)),
    ("invalidate", "keys"): (NO_NAME, lambda c, v: c.invalidate(v)),
    ("invalidate", "settle"): (NO_PAUSE, lambda c, v: c.invalidate("k", settle=v)),
    ("invalidate", "namespace"): (NO_SPACE, lambda c, v: c.invalidate("k", namespace=v)),
    ("invalidate_tags", "tags"): (NO_NAME, lambda c, v: c.invalidate_tags(v)),
    ("invalidate_tags", "settle"): (NO_PAUSE, lambda c, v: c.invalidate_tags("t", settle=v)),
    ("invalidate_tags", "namespace"): (NO_SPACE, lambda c, v: c.invalidate_tags("t", namespace=v)),
    ("invalidate_pattern", "pattern"): (NO_NAME, lambda c, v: c.invalidate_pattern(v)),
    ("invalidate_pattern", "dry_run"): (NO_FLAG, lambda c, v: c.invalidate_pattern("*", dry_run=v)),
    ("invalidate_pattern", "namespace"): (NO_SPACE, lambda c, v: c.invalidate_pattern("*", namespace=v)),
    ("clear", "namespace"): (NO_SPACE, lambda c, v: c.clear(namespace=v)),
    ("add_to", "key"): (NO_NAME, lambda c, v: c.add_to(v, 1)),
    ("add_to", "amount"): (NO_AMOUNT, lambda c, v: c.add_to("k", v)),
    ("counter", "name"): (NO_NAME, lambda c, v: c.counter(v)),
    ("counter", "ttl"): (NO_LIFE, lambda c, v: c.counter("n", ttl=v)),
    ("get_or_load", "key"): (NO_NAME, lambda c, v: c.get_or_load(v, int)),
    ("get_or_load", "loader"): (NO_CALL, lambda c, v: c.get_or_load("k", v)),
    ("get_or_load", "ttl"): (NO_LIFE, lambda c, v: c.get_or_load("k", int, ttl=v)),
    ("get_or_load", "tags"): ((None, *NO_LIST, TOO_MANY, [5]), lambda c, v: c.get_or_load("k", int, tags=v)),
    ("get_or_load", "options"): (NO_OPTIONS, lambda c, v: c.get_or_load("k", int, options=v)),
    ("refresh", "key"): (NO_NAME, lambda c, v: c.refresh(v, int)),
    ("refresh", "loader"): (NO_CALL, lambda c, v: c.refresh("k", v)),
    ("refresh", "ttl"): (NO_LIFE, lambda c, v: c.refresh("k", int, ttl=v)),
    ("refresh", "tags"): ((None, *NO_LIST, TOO_MANY, [5]), lambda c, v: c.refresh("k", int, tags=v)),
    ("refresh", "options"): (NO_OPTIONS, lambda c, v: c.refresh("k", int, options=v)),
    ("get_or_load_many", "keys"): ((None, *NO_LIST), lambda c, v: c.get_or_load_many(v, load)),
    ("get_or_load_many", "bulk_loader"): (NO_CALL, lambda c, v: c.get_or_load_many(["k"], v)),
    ("get_or_load_many", "ttl"): (NO_LIFE, lambda c, v: c.get_or_load_many(["k"], load, ttl=v)),
    ("get_or_load_many", "tags"): (
        (None, *NO_LIST, TOO_MANY, [5]), lambda c, v: c.get_or_load_many(["k"], load, tags=v)
    ),
    ("get_or_load_many", "options"): (NO_OPTIONS, lambda c, v: c.get_or_load_many(["k"], load, options=v)),
    ("lock", "name"): (NO_NAME, lambda c, v: c.lock(v, ttl=5)),
    ("lock", "ttl"): ((None, 1e15, *NO_PAUSE), lambda c, v: c.lock("l", ttl=v)),
    ("lock", "wait"): (NO_WAIT, lambda c, v: c.lock("l", ttl=5, wait=v)),
    ("lock", "namespace"): (NO_SPACE, lambda c, v: c.lock("l", ttl=5, namespace=v)),
    ("warmer", "name"): ((*NO_NAME, ""), lambda c, v: c.warmer(v)),
    ("warmer", "ttl"): (NO_LIFE, lambda c, v: c.warmer("w", ttl=v)),
    ("warmer", "after"): ((None, 3, *NO_LIST, [5], [None]), lambda c, v: c.warmer("w", after=v)),
    ("warmer", "key"): (NO_SPACE, lambda c, v: c.warmer("w", key=v)),
    ("warmer", "tags"): ((None, *NO_LIST, TOO_MANY, [5]), lambda c, v: c.warmer("w", tags=v)),
    ("warmer", "loader"): (NO_CALL, lambda c, v: c.warmer("w")(v)),
    ("warm", "names"): ((*NO_NAME, "never"), lambda c, v: c.warm(v)),
    ("warm", "concurrency"): (
        (None, 0, -1, 1.5, "3", True, NAN, 10**30, []), lambda c, v: c.warm(concurrency=v)
    ),
    ("warm", "timeout"): (NO_PAUSE, lambda c, v: c.warm(timeout=v)),
    ("preset", "names"): ((*NO_NAME, ""), lambda c, v: c.preset(v)),
    ("on", "listener"): (NO_CALL, lambda c, v: c.on(v)),
    ("on", "types"): ((5, "BreakerChanged", None, []), lambda c, v: c.on(print, v)),
    ("enable", "on"): (NO_FLAG, lambda c, v: c.enable(v)),
}  # fmt: skip
NAMED_OTHERWISE = {
    ("delete", "keys"): "key", ("invalidate", "keys"): "key", ("warm", "names"): "name",
}  # fmt: skip
FREE = {"default": "anything", "value": "anything"}
INNER = {
    "alias": "of cached functions", "count": "of cached functions", "uncount": "of cached functions",
    "settled": "of cached functions", "cached": "test_cache_functions.py", "hooks": "a property",
    "close": "takes nothing", "aclose": "takes nothing", "ping": "takes nothing", "stats": "takes nothing",
    "fleet": "takes nothing",
    "readiness": "takes nothing", "alock": "the twin of lock",
}  # fmt: skip

SHARE: tuple[Any, ...] = (-0.1, 1.5, "1", True, NAN, None, [])
SIZE: tuple[Any, ...] = (0, -1, 1.5, "5", True, NAN, [])
OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "ttl": (None, *NO_LIFE),
    "l1_ttl": (None, *NO_LIFE),
    "use_l1": NO_FLAG,
    "namespace": NO_SPACE,
    "jitter_ratio": SHARE,
    "grace": NO_WAIT,
    "stale_while_revalidate": NO_WAIT,
    "early_beta": (-1, 101, "1", True, NAN, None),
    "soft_timeout": NO_PAUSE,
    "hard_timeout": NO_PAUSE,
    "negative_ttl": NO_PAUSE,
    "ttl_of": (5, "fn", []),
    "cache_if": (5, "fn", []),
    "compress_over": SIZE,
    "max_value_bytes": (None, *SIZE),
    "serializer": (5, "json", object(), [], MemoryStore, type("Half", (), {"dumps": 1, "loads": 2})()),
    "isolate": (None, 5, "never", []),
    "lease": (None, *NO_PAUSE, 3601),
    "guard_transactions": NO_FLAG,
}
MADE: Mapping[tuple[Any, str], tuple[Any, ...]] = {
    (CacheManager, "url"): (5, "", "never://", [], b"redis://h", "REDIS://"),
    (CacheManager, "namespace"): (None, *NO_SPACE),
    (CacheManager, "ttl"): NO_LIFE,
    (CacheManager, "l1"): (5, "memory", []),
    (CacheManager, "coherence"): (None, 5, "never", []),
    (CacheManager, "options"): NO_OPTIONS,
    (CacheManager, "clock"): (5, "now", object()),
    (CacheManager, "random"): (5, 0.5, object()),
    (CacheManager, "serializer"): OPTIONS["serializer"],
    (CacheManager, "timeout"): (5, "soon", NAN),  # process memory has none
    (MemoryStore, "max_entries"): (None, *SIZE),
    (MemoryStore, "max_bytes"): SIZE,
    (MemoryStore, "size_of"): (5, "len", []),
    (MemoryStore, "group_ratio"): (0, Decimal("NaN"), Decimal(1), *SHARE),
    **{(CacheOptions, name): wrongs for name, wrongs in OPTIONS.items()},
}


@pytest.fixture
def cache() -> Iterator[CacheManager]:
    with CacheManager(namespace="arguments") as made:
        yield made
        assert made.keys() == [], "nothing was done"
        assert made.stats().stores == made.stats().loads == made.stats().invalidations == 0


@pytest.mark.parametrize(("name", "argument"), CALLS)
def test_a_call_refuses_what_an_argument_cannot_be(cache: CacheManager, name: str, argument: str) -> None:
    wrongs, call = CALLS[name, argument]
    known = NAMED_OTHERWISE.get((name, argument), argument)
    assert refused(known, wrongs, lambda wrong: call(cache, wrong)) == []
    twins: Any = Twins(cache, "lock")
    assert refused(known, wrongs, lambda wrong: call(twins, wrong)) == []


@pytest.mark.parametrize(("kind", "argument"), MADE, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_made_is_checked(kind: Any, argument: str) -> None:
    assert refused(argument, MADE[kind, argument], lambda wrong: kind(**{argument: wrong})) == []


@pytest.mark.parametrize("wrong", [0, -1, 10**30, "5", NAN, 1.5, True, None, []])
def test_a_number_of_connections_that_nobody_could_wait_for_is_refused(wrong: Any) -> None:
    def make(wrong: Any) -> None:
        RedisStore("redis://localhost", max_connections=wrong)

    assert refused("max_connections", (wrong,), make) == []
    if wrong != "5":  # in a URL it is a number

        def from_url(wrong: Any) -> None:
            CacheManager(f"redis://localhost?max_connections={wrong}")

        assert refused("max_connections in the URL", (wrong,), from_url) == []


@pytest.mark.parametrize("wrong", [None, [], [("k", 1)], "k", 5])
def test_a_bulk_loader_that_makes_no_mapping_is_named(wrong: Any) -> None:
    with CacheManager() as cache:
        with pytest.raises(ConfigurationError, match="bulk_loader"):
            cache.get_or_load_many(["k", "l"], lambda keys: wrong)

        async def loader(keys: list[str]) -> Any:
            return wrong

        with pytest.raises(ConfigurationError, match="bulk_loader"):
            asyncio.run(cache.aget_or_load_many(["k", "l"], loader))
        cache.enable(False)
        with pytest.raises(ConfigurationError, match="bulk_loader"):
            cache.get_or_load_many(["k", "l"], lambda keys: wrong)


@pytest.mark.parametrize("wrong", [None, 5, b"a", [], {}])
def test_a_key_among_many_that_is_no_text_is_refused(cache: CacheManager, wrong: Any) -> None:
    assert refused("key", (wrong,), lambda wrong: cache.get_many(["k", wrong])) == []
    assert refused("key", (wrong,), lambda wrong: cache.get_or_load_many(["k", wrong], load)) == []


def test_a_loader_s_stop_iteration_is_its_own() -> None:
    with CacheManager() as cache, pytest.raises(StopIteration, match="the end"):
        cache.get_or_load("k", _stop)


def _stop() -> int:
    raise StopIteration("the end")


def test_a_template_names_the_argument_that_has_no_stable_text() -> None:
    with CacheManager() as cache:

        @cache.cached(key="report:{day}:{viewer}")
        def report(day: int, viewer: Any) -> int:
            return day

        loop: list[Any] = []
        loop.append(loop)
        for wrong in (object(), loop):
            with pytest.raises(UnstableKey) as caught:
                report(1, wrong)
            assert caught.value.argument == "viewer"


# -- nothing is forgotten -------------------------------------------------------------------------------


def test_every_parameter_of_a_public_call_is_in_the_table() -> None:
    missing = []
    for name, call in inspect.getmembers(CacheManager, callable):
        if name.startswith("_") or name in INNER:
            continue
        plain = name[1:] if name.startswith("a") and hasattr(CacheManager, name[1:]) else name
        named = list(inspect.signature(call).parameters)[1:]
        missing += [f"{name}({p}=)" for p in named if p not in FREE and (plain, p) not in CALLS]
    assert missing == []
    for kind in (CacheManager, MemoryStore, CacheOptions):
        known = {argument for other, argument in MADE if other is kind}
        assert set(inspect.signature(kind).parameters) == known, kind.__name__
