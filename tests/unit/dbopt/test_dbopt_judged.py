"""The verdict on an index at its borders: what counts, what outweighs what, and the words for it."""

from __future__ import annotations

import pytest

from eventperf.dbopt.changes.verdict import (
    OUTWEIGHS,
    Compared,
    Verdict,
    is_slower,
    judge,
    measured_faster,
    together,
)
from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Measurement

LIMITS = Limits(min_speedup=1.5, max_regression=2.0)


def seen(seconds: float, plan: str = "new", *indexes: str, spread: float = 0.0, runs: int = 1) -> Measurement:
    return Measurement(
        seconds=seconds, plan=plan, indexes=frozenset(indexes or ("ix",)), runs=runs, spread=spread
    )


def pair(name: str, before: float, after: float, *, calls: int = 1, plan: str = "new") -> Compared:
    return Compared(fingerprint=name, calls=calls, before=seen(before, "old"), after=seen(after, plan))


def test_what_was_not_measured_stays_and_what_no_plan_uses_goes() -> None:
    assert judge("ix", iter(()), LIMITS) == Verdict(
        True, "not measured: no parameters are known for the queries it serves"
    )
    unused = Compared(fingerprint="q", calls=1, before=seen(1.0), after=seen(0.1, "new", "other"))
    assert judge("ix", [unused], LIMITS) == Verdict(False, "no measured query's plan uses it")
    # a query that does not use it has no say, however it fared
    worse = Compared(fingerprint="w", calls=99, before=seen(0.1), after=seen(9.0, "new", "other"))
    assert judge("ix", [worse, pair("q", 3.0, 1.0)], LIMITS) == Verdict(
        True, "its queries are 3.0x faster", 3.0
    )


def test_a_speedup_is_weighed_by_calls_and_least_is_enough() -> None:
    assert judge("ix", [pair("q", 1.5, 1.0)], LIMITS) == Verdict(True, "its queries are 1.5x faster", 1.5)
    assert judge("ix", [pair("q", 1.4, 1.0)], LIMITS) == Verdict(
        False, "its queries are only 1.40x faster; min_speedup is 1.5", 1.4
    )
    mixed = judge("ix", [pair("q", 2.0, 1.0, calls=3), pair("r", 1.0, 1.0, calls=2)], LIMITS)
    assert mixed == Verdict(True, "its queries are 1.6x faster", 1.6)
    slower = judge("ix", [pair("q", 0.8, 1.0)], LIMITS)
    assert slower == Verdict(False, "its queries are 1.25x slower", 0.8)


def test_noise_is_told_with_the_means_of_a_call() -> None:
    def noisy(name: str, before: float, after: float, calls: int, spread: float) -> Compared:
        return Compared(
            fingerprint=name, calls=calls, before=seen(before, "old", spread=spread / 2),
            after=seen(after, "new", spread=spread),
        )  # fmt: skip

    found = judge(
        "ix", [noisy("q", 0.0004, 0.0003, 1, 0.0002), noisy("r", 0.0008, 0.0007, 3, 0.0006)], LIMITS
    )
    assert (found.keep, found.speedup) == (False, None)
    assert found.reason.startswith("too noisy to judge: 700us before, 600us after, and repeats of")
    assert found.reason.endswith("; it was not shown to help")


def test_what_takes_no_time_at_all_divides_by_nothing() -> None:
    found = judge("ix", [pair("q", 2.0, 0.0, calls=1)], LIMITS)
    assert found.keep
    assert found.speedup == pytest.approx(2e9)
    assert pair("q", 2.0, 0.0).speedup == pytest.approx(2e9)
    assert pair("q", 3.0, 2.0).speedup == 1.5


def test_a_loss_goes_through_where_what_is_won_outweighs_it() -> None:
    lost = pair("slow", 1.0, 3.0)
    least = 2.0 * OUTWEIGHS + 2.0  # its own loss counts against what is won, too
    for before, keep in ((least - 0.1 + 1.0, False), (least + 1.0, True)):
        assert judge("ix", [pair("fast", before, 1.0), lost], LIMITS).keep is keep
    found = judge("ix", [pair("fast", 5.0, 1.0), lost, pair("worse", 0.1, 0.5), pair("ok", 1.0, 1.9)], LIMITS)
    assert found.reason == "query worse became 5.0x slower"
    assert found.speedup == pytest.approx(7.1 / 6.4)


def test_the_loss_of_a_query_weighs_as_often_as_it_is_called() -> None:
    won = pair("fast", 30.0, 1.0)
    assert judge("ix", [won, pair("slow", 1.0, 3.0)], LIMITS).keep
    assert not judge("ix", [won, pair("slow", 1.0, 3.0, calls=2)], LIMITS).keep


@pytest.mark.parametrize(
    ("before", "after", "plan", "slower"),
    [
        (1.0, 2.0, "new", False),  # just as much as is allowed
        (1.0, 2.001, "new", True),
        (1.0, 9.0, "old", False),  # an unchanged plan is noise
        (0.0, 0.001, "new", False),  # and so is what is below a millisecond
        (0.0, 0.0011, "new", True),
        (0.5, 0.1, "new", False),
    ],
)
def test_slower_is_what_has_a_new_plan_and_is_beyond_the_bound(
    before: float, after: float, plan: str, slower: bool
) -> None:
    assert is_slower(pair("q", before, after, plan=plan), LIMITS) is slower


def test_what_is_left_is_what_was_measured_last() -> None:
    kept = pair("q", 4.0, 1.0)
    back = Compared(fingerprint="q", calls=1, before=kept.before, after=kept.after, reverted=seen(4.0, "old"))
    assert kept.left is kept.after
    assert back.left is back.reverted
    same, little = pair("q", 4.0, 1.0, plan="old"), pair("q", 1.4, 1.0)
    enough = pair("q", 1.5, 1.0)
    every = {"kept": kept, "back": back, "same": same, "little": little, "enough": enough}
    assert measured_faster(every, LIMITS) == 2


def test_samples_of_one_query_are_told_as_one() -> None:
    found = together(
        [
            seen(1.0, "a", "i", spread=0.2, runs=3),
            Measurement(seconds=3.0, plan="b", indexes=frozenset(), runs=2, capped=True, spread=0.4),
            seen(5.0, "a", "j", spread=0.6, runs=1),
        ]
    )
    assert found.seconds == 3.0
    assert found.plan == "a\nb"
    assert found.indexes == {"i", "j"}
    assert (found.runs, found.capped) == (6, True)
    assert found.spread == pytest.approx(0.4)
    assert not together([seen(1.0)]).capped
