"""The machines and generators are worth their time: each finds a fault that is planted again."""

from __future__ import annotations

import sys
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from eventperf.cache import CacheManager
from eventperf.cache.engine import load_many
from eventperf.cache.engine.fences import Fences, Guard
from eventperf.cache.engine.state import Core
from eventperf.cache.keys.identity import Identity
from eventperf.testing.cache import CacheStoreSuite

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "unit" / "cache")]

import test_cache_functions as functions  # noqa: E402
from test_cache_machine_races import GatedStore, RaceMachine  # noqa: E402

ONCE = settings(
    max_examples=200, stateful_step_count=15, deadline=None, database=None, phases=[Phase.generate]
)


def found_by_the_races() -> bool:
    try:
        run_state_machine_as_test(RaceMachine, settings=ONCE)
    except (AssertionError, FutureTimeout):  # served what is old, or made to wait for who reads it
        return True
    return False


def test_it_finds_a_fence_that_goes_up_before_the_deed_only(monkeypatch):
    plain = Core.drop_keys
    calls = []

    def only_before(self, locals_, *, but=()):
        calls.append(1)
        if len(calls) % 2:
            plain(self, locals_, but=but)

    monkeypatch.setattr(Core, "drop_keys", only_before)
    assert found_by_the_races()


def test_it_finds_a_bulk_load_that_looks_at_no_tags(monkeypatch):
    class NoTags(Guard):
        __slots__ = ()

        def holds(self, inner_tags=()):
            return super().holds(())

    monkeypatch.setattr(load_many, "Guard", NoTags)
    assert found_by_the_races()


def test_it_finds_tags_that_settle_nowhere(monkeypatch):
    plain = Fences.is_settling
    monkeypatch.setattr(Fences, "is_settling", lambda self, local, inner_tags=(): plain(self, local, ()))
    monkeypatch.setattr(load_many, "tag_settles", lambda version, server_s: False)
    assert found_by_the_races()


def test_it_finds_functions_named_by_module_and_name_alone(monkeypatch):
    monkeypatch.setattr(Identity, "prefix", lambda self, *, is_shared: self.label)
    found = 0
    for n in range(len(functions.PAIRS)):
        try:
            functions.test_two_functions_never_share_an_entry(n)
        except AssertionError:
            found += 1
    assert found > 5


def test_the_suite_finds_a_text_kept_for_each_key(monkeypatch):
    plain = Fences.open

    def remembers(self, names):
        self.__dict__.setdefault("pushed", set()).update(names)
        return plain(self, names)

    monkeypatch.setattr(Fences, "open", remembers)
    with CacheManager(GatedStore()) as cache, pytest.raises(AssertionError, match=r"_core\.fences\.pushed"):
        CacheStoreSuite().test_nothing_is_remembered_of_what_is_gone(cache)


def test_without_a_fault_nothing_is_found():
    with CacheManager(GatedStore()) as cache:
        CacheStoreSuite().test_nothing_is_remembered_of_what_is_gone(cache)
