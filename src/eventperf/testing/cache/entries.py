"""Values, their lives, and their invalidation."""

from __future__ import annotations

import functools
import time
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from eventperf.cache import (
    CacheManager,
    escape,
)
from eventperf.testing.bounded import assert_bounded

from .tools import StoreTests

FALSY: list[Any] = [None, 0, "", False, 0.0, [], {}, b""]
ODD_KEYS = ["a b", "line\nbreak", "glob*[x]?\\", "ключ-키-🔑", "x" * 10_000, "{tag}", "a:b:c", "%41", ""]


@dataclass(frozen=True)
class Ticket:
    """A value with types that JSON would lose."""

    id: int
    price: Decimal
    sold: datetime
    seats: tuple[int, ...]


TYPED: list[Any] = [
    Ticket(7, Decimal("12.50"), datetime(2026, 11, 23, 9, tzinfo=timezone.utc), (1, 2)),
    datetime(2026, 1, 2, 3, 4, 5, 6),
    date(2026, 2, 28),
    timedelta(days=1, microseconds=5),
    Decimal("0.10"),
    uuid.UUID(int=5),
    b"\x00\xff",
    {1, 2},
    frozenset({"a"}),
    (1, ("2", None)),
    2**80,
    {1: "one", (2, 3): "pair"},
    [float("inf"), -1.5],
]


class EntryTests(StoreTests):
    """What is set is what is got, until it ends or goes."""

    @pytest.mark.parametrize("value", FALSY, ids=repr)
    def test_falsy_values_are_values(self, cache: CacheManager, value: Any) -> None:
        cache.set("k", value)
        assert cache.get("k", "absent") == value
        assert cache.get_or_load("k", lambda: pytest.fail("loaded although present")) == value

    @pytest.mark.parametrize("value", TYPED, ids=lambda v: type(v).__name__)
    def test_types_survive(self, cache: CacheManager, value: Any) -> None:
        cache.set("k", value)
        got = cache.get("k")
        assert got == value
        assert type(got) is type(value)

    @pytest.mark.parametrize("key", ODD_KEYS, ids=lambda k: ascii(k[:12]))
    def test_any_text_is_a_key(self, cache: CacheManager, key: str) -> None:
        cache.set_many({key: 1, key + "!": 2})
        assert cache.get_many([key, key + "!"]) == {key: 1, key + "!": 2}
        assert cache.delete(key) == 1
        assert cache.get(key, "gone") == "gone"
        assert cache.get(key + "!") == 2

    def test_absent_is_the_default(self, cache: CacheManager) -> None:
        assert cache.get("nothing") is None
        assert cache.get("nothing", 5) == 5
        assert cache.get_many(["nothing"]) == {}

    def test_an_entry_ends_with_its_ttl(self, cache: CacheManager) -> None:
        cache.set("short", 1, ttl=0.08)
        cache.set("long", 2, ttl=60)
        time.sleep(0.15)
        assert cache.get("short", "gone") == "gone"
        assert cache.get("long") == 2

    def test_touch_gives_a_new_life(self, cache: CacheManager) -> None:
        cache.set("k", 1, ttl=1.0)
        assert cache.touch("k", ttl=60)
        time.sleep(1.1)
        assert cache.get("k") == 1
        assert not cache.touch("absent")

    def test_delete_counts_what_was_there(self, cache: CacheManager) -> None:
        cache.set_many({"a": 1, "b": 2})
        assert cache.delete("a", "b", "c") == 2
        assert cache.delete("a") == 0

    def test_a_tag_drops_all_its_entries_and_no_other(self, cache: CacheManager) -> None:
        cache.set_many({f"k{n}": n for n in range(20)}, tags=["event:1"])
        cache.set("other", 1, tags=["event:2"])
        cache.get_or_load("loaded", lambda: 1, tags=["event:1"])
        cache.get_or_load("by-result", lambda: 1, tags=lambda value: [f"event:{value}"])
        assert cache.get("by-result") == 1
        cache.invalidate_tags("event:1")
        assert cache.get_many([*(f"k{n}" for n in range(20)), "loaded", "by-result"]) == {}
        assert cache.get("other") == 1

    def test_a_pattern_drops_what_matches(self, cache: CacheManager) -> None:
        cache.set_many({"ev:1:a": 1, "ev:1:b": 2, "ev:2:a": 3})
        assert cache.invalidate_pattern("ev:1:*", dry_run=True) == 2
        assert cache.invalidate_pattern("ev:1:*") == 2
        assert cache.get_many(["ev:1:a", "ev:1:b", "ev:2:a"]) == {"ev:2:a": 3}

    def test_escaped_input_matches_only_itself(self, cache: CacheManager) -> None:
        cache.set_many({"u:*": 1, "u:x": 2, "u:[x]": 3})
        assert cache.invalidate_pattern(f"u:{escape('*')}") == 1
        assert cache.get("u:x") == 2
        assert cache.invalidate_pattern(f"u:{escape('[x]')}") == 1

    def test_clear_empties_only_this_namespace(self, cache: CacheManager, store: Any) -> None:
        if hasattr(store, "drop_tags"):
            pytest.skip("a first tier serves one manager")
        with CacheManager(store, l1=None, namespace=cache.namespace + "-2") as other:
            cache.set("k", 1)
            other.set("k", 2)
            cache.clear()
            assert cache.get("k", "gone") == "gone"
            assert other.get("k") == 2
            other.clear()

    def test_a_load_begun_before_an_invalidation_is_not_stored(self, cache: CacheManager) -> None:
        def load(change: Any) -> str:
            change()
            return "old"

        changes = [
            lambda: cache.invalidate("k"),
            lambda: cache.invalidate_tags("t"),
            lambda: cache.invalidate_pattern("*"),
            lambda: cache.set("k", "new"),
        ]
        for change in changes:
            cache.delete("k")
            cache.get_or_load("k", functools.partial(load, change), tags=["t"])
            assert cache.get("k", "absent") in ("absent", "new")

    def test_result_tags_invalidated_during_the_load_refuse_it(self, cache: CacheManager) -> None:
        def load() -> int:
            cache.invalidate_tags("r")
            return 1

        assert cache.get_or_load("k", load, tags=lambda _: ["r"]) == 1
        assert cache.get("k", "absent") == "absent"

    def test_settle_keeps_loads_of_lagging_replicas_out(self, cache: CacheManager) -> None:
        cache.set("k", "old")
        cache.invalidate("k", settle=0.8)
        assert cache.get_or_load("k", lambda: "lagging") == "lagging"
        assert cache.get("k", "absent") == "absent"
        time.sleep(1.0)
        assert cache.get_or_load("k", lambda: "new") == "new"
        assert cache.get("k") == "new"

    def test_nothing_is_remembered_of_what_is_gone(self, cache: CacheManager) -> None:
        keys = [f"seen:{n}" for n in range(3_000)]
        for n in range(0, 3_000, 500):
            cache.get_or_load_many(keys[n : n + 500], lambda part: dict.fromkeys(part, 1), tags=[f"t{n}"])
        for key in keys[:200]:
            cache.get_or_load(f"one:{key}", lambda: 1, tags=[key])
            cache.touch(f"one:{key}")
            cache.invalidate_tags(key, settle=0.001)
        cache.invalidate_pattern("*")
        assert_bounded(cache, most=1_300)
