from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf._core.durations import FOREVER, seconds, show
from eventperf.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (30, 30.0),
        (0.25, 0.25),
        (timedelta(minutes=5), 300.0),
        ("90", 90.0),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("5m", 300.0),
        (" 1H30M ", 5400.0),
        ("1h 30m", 5400.0),
        ("1.5d", 129600.0),
        ("2w", 1209600.0),
    ],
)
def test_reads_what_people_write(given_value, expected):
    assert seconds(given_value, name="ttl") == pytest.approx(expected)


@pytest.mark.parametrize(
    "refused",
    [
        "",
        "m",
        "5 minutes",
        "5x",
        "-5m",
        "1h-5m",
        "nan",
        "inf",
        -1,
        0,
        "0s",
        math.nan,
        -math.inf,
        True,
        None,
        [],
        b"5m",
    ],
)
def test_refuses_the_rest_by_name(refused):
    with pytest.raises(ConfigurationError) as caught:
        seconds(refused, name="lease")
    assert caught.value.argument == "lease"
    assert repr(refused) in str(caught.value)


def test_zero_and_forever_only_where_allowed():
    assert seconds(0, name="grace", zero=True) == 0.0
    assert seconds(FOREVER, name="ttl", forever=True) == math.inf
    with pytest.raises(ConfigurationError, match="FOREVER") as caught:
        seconds(-1, name="ttl", forever=True)
    assert caught.value.given == -1
    with pytest.raises(ConfigurationError):
        seconds(FOREVER, name="ttl")


def test_maximum_is_inclusive_and_named():
    assert seconds(60, name="delay", maximum=60) == 60.0
    with pytest.raises(ConfigurationError, match="at most 60 s"):
        seconds(61, name="delay", maximum=60)


@given(st.integers(min_value=1, max_value=10**9))
def test_whole_seconds_survive_being_shown(value):
    assert seconds(show(value), name="ttl") == value


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_shown_durations_are_within_their_rounding(value):
    assert seconds(show(value), name="ttl", zero=True) == pytest.approx(value, rel=0.02, abs=5e-7)


@pytest.mark.parametrize(
    ("value", "text"), [(math.inf, "forever"), (0, "0us"), (-90, "-1m30s"), (0.001, "1ms")]
)
def test_shows_edges(value, text):
    assert show(value) == text
