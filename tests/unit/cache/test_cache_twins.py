"""Each verb for tasks does what its twin for threads does, one after another on one cache."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from eventperf.cache import CacheManager
from eventperf.testing import FakeClock

LIFE: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("set", ("a", 1), {"ttl": 60, "tags": ["t"]}, None),
    ("set_many", ({"b": 2, "c": 3},), {"ttl": 60}, None),
    ("get", ("a",), {}, 1),
    ("get", ("none", "else"), {}, "else"),
    ("get_many", (["a", "c", "none"],), {}, {"a": 1, "c": 3}),
    ("exists", ("a",), {}, True),
    ("exists", ("none",), {}, False),
    ("ttl", ("none",), {}, None),
    ("keys", ("*",), {}, ["a", "b", "c"]),
    ("add", ("a", 9), {"ttl": 60}, False),
    ("add", ("d", 4), {"ttl": 60, "tags": ["t"]}, True),
    ("touch", ("none",), {}, False),
    ("touch", ("a",), {"ttl": 90}, True),
    ("get_or_load", ("a", lambda: "not asked"), {}, 1),
    ("get_or_load", ("e", lambda: 5), {"ttl": 60, "tags": ["u"]}, 5),
    ("refresh", ("e", lambda: 6), {"ttl": 60}, 6),
    ("get", ("e",), {}, 6),
    ("get_or_load_many", (["e", "f"], lambda keys: dict.fromkeys(keys, 7)), {"ttl": 60}, {"e": 6, "f": 7}),
    ("delete", ("f", "none"), {}, 1),
    ("invalidate", ("e", "none"), {}, 1),
    ("get", ("e", "gone"), {}, "gone"),
    ("invalidate_tags", ("t",), {}, None),
    ("get_many", (["a", "b", "d"],), {}, {"b": 2}),
    ("invalidate_pattern", ("b*",), {"dry_run": True}, 1),
    ("invalidate_pattern", ("b*",), {}, 1),
    ("keys", (), {}, ["c"]),
    ("clear", (), {}, 1),
    ("get", ("c",), {}, None),
    ("close", (), {}, None),
]  # fmt: skip
ELSEWHERE = {"about", "add_to", "fleet", "lock", "warm"}  # these have suites of their own


def in_threads(cache: CacheManager, verb: str) -> Callable[..., Any]:
    return getattr(cache, verb)


def in_tasks(cache: CacheManager, verb: str) -> Callable[..., Any]:
    call = getattr(cache, f"a{verb}")
    return lambda *args, **options: loop.run_until_complete(call(*args, **options))


@pytest.fixture(autouse=True)
def one_loop() -> Any:
    global loop
    loop = asyncio.new_event_loop()
    yield
    loop.close()


@pytest.mark.parametrize("ways", [(in_threads,), (in_tasks,), (in_threads, in_tasks), (in_tasks, in_threads)])
def test_verbs_answer_alike_in_threads_and_tasks(ways: tuple[Any, ...]) -> None:
    cache = CacheManager("memory://", clock=FakeClock())
    for number, (verb, args, options, answer) in enumerate(LIFE):
        found = ways[number % len(ways)](cache, verb)(*args, **options)
        found = sorted(found) if verb == "keys" else found
        assert found == answer, (number, verb, args)


def test_every_verb_with_a_twin_is_among_them() -> None:
    twins = {
        name
        for name, call in inspect.getmembers(CacheManager, callable)
        if not name.startswith("_") and inspect.iscoroutinefunction(getattr(CacheManager, f"a{name}", None))
    }
    assert twins - ELSEWHERE == {verb for verb, *_ in LIFE}
