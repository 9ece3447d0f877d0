"""The pure decisions of the cache, at their borders."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf.cache import CacheOptions
from eventperf.cache.policy import (
    early_by,
    is_early,
    is_fresh,
    is_kept,
    l1_life,
    lifetime,
    longest_life,
    may_serve_stale,
    may_stand_in,
    old_is_of_use,
    result_ttl,
    same_end,
    tag_changed_since,
    tag_settles,
)

INF = math.inf


def test_an_end_is_the_first_moment_that_is_too_late() -> None:
    assert (is_fresh(5, 4.9), is_fresh(5, 5), is_kept(5, 4.9), is_kept(5, 5)) == (True, False, True, False)
    assert (is_fresh(0.5), is_fresh(0), is_kept(0.5), is_kept(0)) == (True, False, True, False)


@pytest.mark.parametrize(
    ("may", "option"), [(may_serve_stale, "stale_while_revalidate"), (may_stand_in, "grace")]
)
def test_an_old_value_serves_within_its_option_and_not_a_moment_longer(may, option) -> None:
    some, none = CacheOptions(**{option: 1}), CacheOptions(grace=0)
    assert [may(left, some) for left in (-0.999, -1, -2)] == [True, False, False]
    assert not may(5, none), "without the option not even a value that is still fresh counts as old"
    assert may(0.5, CacheOptions(**{option: 0.25}))


def test_an_old_value_is_of_use_to_those_who_do_not_wait_for_ever() -> None:
    assert not old_is_of_use(CacheOptions(grace=60))
    assert old_is_of_use(CacheOptions(soft_timeout=1))
    assert old_is_of_use(CacheOptions(stale_while_revalidate=0.5))


def test_a_refresh_comes_early_by_the_published_rule() -> None:
    u = math.exp(-2)  # -log u = 2
    assert early_by(3.0, 1.5, u) == pytest.approx(9.0)
    assert (early_by(3.0, 0, u), early_by(0, 1.5, u), early_by(3.0, 1, 1.0)) == (0.0, 0.0, 0.0)
    options = CacheOptions(early_beta=1)
    assert [is_early(left, 3.0, options, u) for left in (5.9, -3.0 * math.log(u), 6.1)] == [True, True, False]
    assert not is_early(0.0, 3.0, CacheOptions(early_beta=0), u)


def test_jitter_only_shortens_and_an_endless_life_has_none() -> None:
    options = CacheOptions(jitter_ratio=0.2, grace=7, stale_while_revalidate=3)
    assert lifetime(options, 100.0, 0.5) == pytest.approx((90.0, 97.0))
    assert lifetime(options, 100.0, 0.0) == (100.0, 107.0)
    assert lifetime(options, INF, 0.5) == (INF, INF)
    assert lifetime(CacheOptions(jitter_ratio=0, grace=1, stale_while_revalidate=5), 10.0, 0.9) == (
        10.0,
        15.0,
    )
    assert lifetime(options, INF, 0.0)[0] == INF
    assert longest_life(options, 100.0) == 110.0


def test_what_may_not_be_stored_has_no_ttl_and_none_has_its_own() -> None:
    picky = CacheOptions(cache_if=lambda value: value != "bad")
    assert (result_ttl(picky, 5.0, "bad"), result_ttl(picky, 5.0, "good")) == (None, 5.0)
    short = CacheOptions(negative_ttl=1)
    assert [result_ttl(short, 5.0, value) for value in (None, 0, "")] == [1.0, 5.0, 5.0]
    assert result_ttl(CacheOptions(), 5.0, None) == 5.0


def test_process_memory_keeps_no_longer_than_l1_ttl_once_others_can_change_the_value() -> None:
    options = CacheOptions(l1_ttl=10)
    assert l1_life(options, 60.0, 90.0, True) == (10.0, 10.0)
    assert l1_life(options, 5.0, 8.0, True) == (5.0, 8.0)
    assert l1_life(options, 60.0, 90.0, False) == (60.0, 90.0)


def test_neighbours_share_an_end_that_is_a_little_earlier_never_later() -> None:
    assert [same_end(100.0, soft, 3600) for soft in (99.99, 100.0, 100.04, 100.06)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert [same_end(100.0, soft, 10) for soft in (100.009, 100.011)] == [True, False], "a thousandth"
    assert not same_end(0.0, 0.05, 3600)


MOMENT = "1700000000000"  # milliseconds, 13 digits


@pytest.mark.parametrize(
    ("version", "server_s", "changed", "settles"),
    [
        (f"i{MOMENT}-x", 1_699_999_999.9995, True, False),
        (f"i{MOMENT}-x", 1_700_000_000.0005, True, False),  # the same millisecond: it may be missed
        (f"i{MOMENT}-x", 1_700_000_000.001, False, False),
        (f"s{MOMENT}-x", 1_699_999_999.0, True, True),
        (f"s{MOMENT}-x", 1_700_000_001.0, False, False),
        (f"c{MOMENT}-x", 1_699_999_999.0, False, False),
        ("", 0.0, False, False),
        ("inonsense", 1.0, True, False),
        ("snonsense", 1.0, True, True),
    ],
)
def test_a_load_that_may_miss_an_invalidation_is_known(version, server_s, changed, settles) -> None:
    assert tag_changed_since(version, server_s) is changed
    assert tag_settles(version, server_s) is settles


@given(st.floats(1, 1e6), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_a_life_is_never_longer_than_asked_for(ttl: float, u: float, jitter: float) -> None:
    soft, hard = lifetime(CacheOptions(jitter_ratio=jitter, grace=5), ttl, u)
    assert ttl * (1 - jitter) - 1e-6 <= soft <= ttl
    assert hard == soft + 5
