"""The cache page over several processes of one cache, on a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from console_asks import HOSTILE, assert_harmless, everything, get
from eventperf.cache import CacheManager
from eventperf.contrib.console import Console, read_only
from faults import wait_until
from terminals import Terminal

pytestmark = pytest.mark.integration


@pytest.fixture
def caches(redis_url: str) -> Iterator[tuple[CacheManager, CacheManager]]:
    space = f"fleet-{uuid4().hex[:8]}"
    with CacheManager(redis_url, namespace=space) as here, CacheManager(redis_url, namespace=space) as there:
        yield here, there


def test_the_page_shows_each_process_and_their_sum(caches: tuple[CacheManager, CacheManager]) -> None:
    here, there = caches
    for n in range(3):
        here.get_or_load(f"h{n}", lambda: 1)
    for n in range(4):
        there.get_or_load(f"t{n}", lambda: 1)
    console = Console(cache=here, may=everything)
    wait_until(lambda: "all 2" in assert_harmless(get(console, "/cache")).text, 60)
    text = assert_harmless(get(console, "/cache")).text
    row = text[text.index("all 2") :]
    assert row.startswith("all 20.0%77"), "ratio, reads and loads of both"
    assert "hits of 2 processes; 7 loads" in assert_harmless(get(console, "/")).text


def test_notes_that_others_left_stay_text_and_open_breakers_elsewhere_are_said(
    caches: tuple[CacheManager, CacheManager],
) -> None:
    here, _ = caches
    figures = {"breaker": "open", "coherence": HOSTILE, "hits": 5}
    note = {"host": HOSTILE, "pid": 7, "began": 1.0, "version": HOSTILE, "stats": figures}
    board = f"{here.namespace}:x:fleet"
    here.store.board(board, "odd", json.dumps(note).encode(), 30.0, 500)
    console = Console(cache=here, may=everything)
    for path in ("/cache", "/"):
        assert_harmless(get(console, path))
    assert "alert(1)" in assert_harmless(get(console, "/cache")).text
    assert "is open in 1 of 2 processes" in assert_harmless(get(console, "/")).text


def test_a_second_tier_that_is_away_is_said() -> None:
    with CacheManager("redis://127.0.0.1:1", namespace="away") as away:
        page = get(Console(cache=away, may=everything), "/cache")
        assert page.status == 200
        assert "does not answer, so only this process is known" in assert_harmless(page).text


def test_big_keys_and_an_entry_s_facts_need_a_permission(caches: tuple[CacheManager, CacheManager]) -> None:
    here, _ = caches
    here.set(HOSTILE, "x" * 9_000, tags=["tag of somebody"])
    mine, reader = Console(cache=here, may=everything), Console(cache=here, may=read_only)
    ((_, size),) = here.largest()
    query = {"key": HOSTILE, "in": here.namespace}
    for console, shown in ((mine, True), (reader, False)):
        text = assert_harmless(get(console, "/cache", **query)).text
        assert f"{size:,}" in text
        assert ("tag of somebody" in text) is shown
        listed = assert_harmless(get(console, "/cache")).text
        assert ("alert(1)" in listed) is shown


def test_a_terminal_that_closes_ends_the_command_in_order(tmp_path: Path) -> None:
    terminal = Terminal("console", "--queues", f"sqlite:///{tmp_path}/jobs.db", "--port", "0", cwd=tmp_path)
    terminal.wait_for("http://127.0.0.1:")
    assert terminal.close() == 0
