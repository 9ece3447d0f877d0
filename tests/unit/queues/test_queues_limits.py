"""The books of rates and caps, at their borders."""

from __future__ import annotations

import math

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import Limit
from eventperf.queues.limits import Ledger, check_limits

T = ("", "t", "")


def test_a_limit_applies_to_what_it_names_and_counts_where_it_does_not_tell_apart() -> None:
    assert Limit(queue="q", concurrency=1).bucket("q", "t", "k") == ("q", "", "")
    assert Limit(queue="q", concurrency=1).bucket("other", "t", "k") is None
    assert Limit(type="t", concurrency=1).bucket("q", "t", "k") == T
    assert Limit(type="t", concurrency=1).bucket("q", "other", "k") is None
    both = Limit(queue="q", type="t", per_key=True, rate=1)
    assert both.bucket("q", "t", "k") == ("q", "t", "k")
    assert both.bucket("q", "t", "") is None, "jobs without a key are free"
    assert (both.scope, Limit(per_key=True, rate=1).scope) == (("q", "t", "*"), ("", "", "*"))


def test_only_a_limit_of_a_queue_alone_holds_the_whole_queue() -> None:
    assert Limit(queue="q", rate=1).whole_queue
    for other in (
        Limit(type="t", rate=1),
        Limit(queue="q", type="t", rate=1),
        Limit(queue="q", per_key=True, rate=1),
    ):
        assert not other.whole_queue


@pytest.mark.parametrize(
    ("wrong", "argument", "allowed"),
    [
        ({"rate": 1}, "limit", "a queue, a type or per_key=True"),
        ({"type": "t"}, "limit", "concurrency, rate or both"),
        ({"queue": "", "rate": 1}, "queue", "1 to "),
        ({"type": "", "rate": 1}, "type", "1 to "),
        ({"type": "t", "concurrency": 0}, "concurrency", "a whole number of at least 1"),
        ({"type": "t", "rate": 0}, "rate", "a whole number from 1 to 1000000"),
        ({"type": "t", "rate": 1_000_001}, "rate", "a whole number from 1 to 1000000"),
        ({"type": "t", "rate": 1, "per": 0.0009}, "per", "at least a millisecond"),
        ({"type": "t", "rate": 1, "per": "soon"}, "per", "a positive number of seconds"),
        ({"type": "t", "rate": 1, "per_key": "yes"}, "per_key", "True, False"),
    ],
)
def test_a_wrong_limit_is_refused_with_what_was_given_and_what_is_allowed(
    wrong: dict[str, object], argument: str, allowed: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limit(**wrong)  # type: ignore[arg-type]
    assert caught.value.argument == argument
    assert caught.value.allowed.startswith(allowed)
    if argument == "limit":
        assert isinstance(caught.value.given, Limit)
        assert wrong.items() <= {"type": caught.value.given.type, "rate": caught.value.given.rate}.items()
    else:
        assert caught.value.given == wrong[argument]


def test_the_smallest_and_largest_limits_are_good() -> None:
    assert Limit(type="t", concurrency=1, rate=1_000_000, per=0.001).per_s == 0.001
    assert Limit(type="t", rate=1).per_s == 1.0
    assert Limit(type="t", rate=1, per="1m").per_s == 60.0


def test_limits_must_not_contradict_each_other() -> None:
    good = [Limit(type="t", rate=1), Limit(type="t", per_key=True, rate=1), Limit(queue="t", rate=1)]
    assert check_limits(good) == tuple(good)
    for wrong, allowed in (
        (Limit(type="t", concurrency=1), "one limit per combination of queue, type and per_key"),
        ("t", "a list of Limit(...)"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            check_limits([Limit(type="t", rate=1), wrong])  # type: ignore[list-item]
        assert (caught.value.argument, caught.value.given) == ("limits", wrong)
        assert caught.value.allowed == allowed
    for none in (Limit(type="t", rate=1), "t", 5):
        with pytest.raises(ConfigurationError) as caught:
            check_limits(none)  # type: ignore[arg-type]
        assert (caught.value.argument, caught.value.given) == ("limits", none)
        assert caught.value.allowed == "a list of Limit(...)"


def test_the_stricter_of_cap_and_rate_counts_from_the_first_job_on() -> None:
    for limit, free in (
        (Limit(type="t", concurrency=3, rate=2), 2),
        (Limit(type="t", concurrency=2, rate=3), 2),
        (Limit(type="t", concurrency=4), 4),
        (Limit(type="t", rate=5), 5),
    ):
        ledger = Ledger([limit])
        assert ledger.free(limit, T, 0.0) == free
        ledger.start("q", "t", "", 0.0)
        assert ledger.free(limit, T, 0.0) == free - 1


def test_a_rate_lets_the_next_start_through_when_the_first_of_the_span_is_a_span_old() -> None:
    limit = Limit(type="t", rate=2, per=10)
    ledger = Ledger([limit])
    assert ledger.again_at(limit, T, 0.0) is None
    assert ledger.start("q", "t", "", 0.0) == [], "a rate holds nothing that would have to be given back"
    assert ledger.again_at(limit, T, 1.0) is None
    ledger.start("q", "t", "", 4.0)
    assert ledger.start("q", "t", "", 5.0) == T
    assert ledger.again_at(limit, T, 5.0) == 10.0
    assert ledger.again_at(limit, T, 12.0) == 12.0, "never in the past"
    assert ledger.free(limit, T, 9.999) == 0
    assert ledger.free(limit, T, 10.0) == 1
    assert ledger.again_at(limit, T, 10.0) is None
    assert ledger.free(limit, T, 14.0) == 2


def test_a_cap_alone_never_says_when() -> None:
    limit = Limit(type="t", concurrency=1)
    ledger = Ledger([limit])
    ledger.start("q", "t", "", 0.0)
    assert ledger.again_at(limit, T, 0.0) is None


def test_a_job_that_one_limit_holds_back_is_counted_under_none() -> None:
    wide, narrow = Limit(type="t", concurrency=5), Limit(queue="q", concurrency=1)
    ledger = Ledger([wide, narrow])
    held = ledger.start("q", "t", "", 0.0)
    assert held == [T, ("q", "", "")]
    assert ledger.start("q", "t", "", 0.0) == ("q", "", "")
    assert ledger.free(wide, T, 0.0) == 4, "the refused one is not among them"
    assert ledger.start("other", "u", "", 0.0) == [], "no limit is about it"
    ledger.end(held)  # type: ignore[arg-type]
    assert (ledger.free(wide, T, 0.0), ledger.free(narrow, ("q", "", ""), 0.0)) == (5, 1)


def test_keys_are_counted_each_by_itself_where_the_limit_says_so() -> None:
    ledger = Ledger([Limit(type="t", per_key=True, concurrency=1)])
    assert ledger.start("q", "t", "one", 0.0) == [("", "t", "one")]
    assert ledger.start("q", "t", "two", 0.0) == [("", "t", "two")]
    assert ledger.start("q", "t", "one", 0.0) == ("", "t", "one")
    assert ledger.start("q", "t", "", 0.0) == [], "without a key it is free"
    whole = Ledger([Limit(type="t", concurrency=1)])
    assert whole.start("q", "t", "one", 0.0) == [T], "and all together where it does not"
    assert whole.start("q", "t", "two", 0.0) == T


def test_a_limit_that_does_not_match_lets_the_next_one_be_asked() -> None:
    ledger = Ledger([Limit(type="other", concurrency=1), Limit(type="t", concurrency=1)])
    assert ledger.start("q", "t", "", 0.0) == [T]
    assert ledger.start("q", "t", "", 0.0) == T


def test_one_that_ends_frees_its_place_and_the_others_keep_theirs() -> None:
    limit = Limit(type="t", concurrency=2)
    ledger = Ledger([limit])
    first, _ = ledger.start("q", "t", "", 0.0), ledger.start("q", "t", "", 0.0)
    assert ledger.free(limit, T, 0.0) == 0
    ledger.end(first)  # type: ignore[arg-type]
    assert ledger.free(limit, T, 0.0) == 1


def test_starts_are_remembered_after_the_job_ended() -> None:
    limit = Limit(type="t", concurrency=1, rate=1, per=10)
    ledger = Ledger([limit])
    ledger.end(ledger.start("q", "t", "", 0.0))  # type: ignore[arg-type]
    assert ledger.free(limit, T, 5.0) == 0
    assert ledger.free(limit, T, 10.0) == 1


def test_books_of_keys_that_are_gone_are_closed() -> None:
    limit = Limit(type="t", per_key=True, concurrency=1)
    ledger = Ledger([limit])
    for n in range(1000):
        ledger.end(ledger.start("q", "t", f"k{n}", 0.0))  # type: ignore[arg-type]
    assert not ledger._counts


def test_a_bucket_leads_back_to_its_limit() -> None:
    keyed, whole = Limit(type="t", per_key=True, rate=1), Limit(type="t", rate=9)
    ledger = Ledger([whole, keyed])
    assert ledger.limit_of(("", "t", "k")) is keyed
    assert ledger.limit_of(T) is whole
    assert ledger.limit_of(("", "other", "")) is None
    assert ledger.free(Limit(queue="q", rate=1), ("q", "", ""), 0.0) == 1
    assert min(math.inf, ledger.free(keyed, ("", "t", "k"), 0.0)) == 1


@pytest.mark.parametrize("key", ["", "k"])
def test_limits_of_a_job_are_those_that_apply_in_their_order(key: str) -> None:
    limits = [
        Limit(queue=q, type=t, per_key=per_key, concurrency=1)
        for per_key in (True, False)
        for t in ("other", "t", None)
        for q in (None, "q", "other")
        if q or t or per_key
    ]
    wanted = [limit for limit in limits if limit.bucket("q", "t", key) is not None]
    assert Ledger(limits).matching("q", "t", key) == wanted
    assert len(wanted) == (7 if key else 3)


def test_keys_of_which_nothing_counts_any_more_are_forgotten() -> None:
    """A ledger in memory would keep one for each tenant that ever came."""
    ledger = Ledger([Limit(per_key=True, rate=5, per=1.0, concurrency=2)])
    kept = ledger.start("q", "t", "busy", 0.0)
    for n in range(20_000):
        held = ledger.start("q", "t", f"tenant {n}", n / 100)
        assert isinstance(held, list)
        ledger.end(held)
    assert len(ledger._counts) < 2_500
    assert isinstance(kept, list)
    ledger.end(kept)
