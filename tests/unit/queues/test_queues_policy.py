"""The pure decisions of the queues room, and the fallbacks that need no server."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from eventperf.errors import ConfigurationError, UnknownScheme
from eventperf.queues import (
    Backlog,
    EnqueueOptions,
    Exponential,
    JobSpec,
    NonRetryable,
    QueueManager,
    Retry,
    RetryRule,
)
from eventperf.queues.codec import Codec, fit
from eventperf.queues.errors import PayloadError
from eventperf.queues.minutes import COUNTS, KEPT_MINUTES, Interval, Minutes
from eventperf.queues.policy import Lane, Verdict, choose, job_priority, judge

INF = float("inf")


def lanes(*ranks: int) -> list[Lane]:
    return [Lane(f"q{i}", rank, rank + 1, 0) for i, rank in enumerate(ranks)]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6), st.integers(1, 20))
def test_no_class_is_passed_over_longer_than_the_bound(ranks: list[int], aging: int) -> None:
    classes = lanes(*ranks)
    waits = {lane.queue: 0 for lane in classes}
    for _ in range(300):
        best = choose(classes, "strict", aging, {})
        for lane in classes:
            waits[lane.queue] = 0 if lane is best else waits[lane.queue] + 1
        assert max(waits.values()) <= aging + len(classes)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=5))
def test_weighted_shares_are_exact_over_one_round(ranks: list[int]) -> None:
    classes, credit = lanes(*ranks), dict[str, int]()
    total = sum(lane.weight for lane in classes)
    served = [choose(classes, "weighted", None, credit).queue for _ in range(total)]
    assert {lane.queue: served.count(lane.queue) for lane in classes} == {
        lane.queue: lane.weight for lane in classes
    }


def test_strict_order_is_by_queue_then_name_then_level_and_marks_who_was_passed_over() -> None:
    low, high, higher = Lane("b", 1, 1, 5), Lane("c", 1, 1, 0), Lane("c", 1, 1, 9)
    assert choose([low, high, higher], "strict", None, {}) is higher
    assert [lane.skipped for lane in (low, high, higher)] == [1, 1, 0]
    urgent = Lane("a", 2, 1, 0, skipped=7)
    assert choose([low, high, higher, urgent], "strict", None, {}) is urgent
    assert [lane.skipped for lane in (low, high, higher, urgent)] == [2, 2, 1, 0]


def test_a_class_alone_is_served_and_has_not_been_passed_over() -> None:
    alone = Lane("a", 0, 1, 0, skipped=4)
    assert choose([alone], "strict", 3, {}) is alone
    assert alone.skipped == 0


def test_a_class_comes_first_once_it_was_passed_over_the_bound_and_not_before() -> None:
    served = [choose(classes, "strict", 3, {}).queue for classes in [lanes(9, 0)] for _ in range(9)]
    assert served == ["q0", "q0", "q0", "q1"] * 2 + ["q0"]
    assert choose([Lane("a", 9, 1, 0), Lane("b", 0, 1, 0, skipped=1)], "weighted", 1, {}).queue == "b"


@pytest.mark.parametrize(
    ("first", "others"),
    [
        (Lane("a", 5, 1, 5, skipped=4), [Lane("b", 0, 1, 0, skipped=3)]),
        (Lane("a", 0, 1, 5, skipped=3), [Lane("b", 5, 1, 0, skipped=3)]),
        (Lane("b", 1, 1, 5, skipped=3), [Lane("a", 1, 1, 0, skipped=3)]),
        (Lane("a", 1, 1, 0, skipped=3), [Lane("a", 1, 1, 5, skipped=3)]),
    ],
    ids=["passed over more often", "lower queue", "later name", "lower level"],
)
def test_of_several_starved_classes_the_one_that_waits_worst_comes_first(
    first: Lane, others: list[Lane]
) -> None:
    for order in ([first, *others], [*others, first]):
        assert choose([replace(lane) for lane in order], "strict", 3, {}) == replace(first, skipped=0)


def test_weighted_order_spreads_services_and_takes_the_highest_level_of_a_queue() -> None:
    classes = [Lane("a", 0, 5, 1), Lane("a", 0, 5, 8), Lane("b", 0, 1, 0), Lane("c", 0, 1, 0)]
    credit = dict[str, int]()
    served = [choose(classes, "weighted", None, credit) for _ in range(7)]
    assert [lane.queue for lane in served] == ["a", "a", "c", "a", "b", "a", "a"]
    assert {lane.level for lane in served if lane.queue == "a"} == {8}
    assert credit == {"a": 0, "b": 0, "c": 0}, "a round leaves nobody ahead"


@pytest.mark.parametrize(
    ("asked", "of_type", "type_", "priority"),
    [
        (7, 9, "emergency_alert", 7),
        (0, 9, "emergency_alert", 0),
        (None, 9, "emergency_alert", 9),
        (None, 0, "emergency_alert", 0),
        (None, None, "emergency_alert", 10),
        (None, None, "data_backup", 1),
        (None, None, "x", 3),
    ],
)
def test_the_nearest_word_about_priority_counts(
    asked: int | None, of_type: int | None, type_: str, priority: int
) -> None:
    assert job_priority(asked, of_type, type_) == priority


PLAIN = Exponential("1s", jitter=0)
STEADY = Exponential("7s", factor=1, jitter=0)


@pytest.mark.parametrize(
    ("error", "attempt", "verdict"),
    [
        (ValueError(), 1, Verdict(True, 1.0)),
        (ValueError(), 2, Verdict(True, 2.0)),
        (ValueError(), 3, Verdict(False, 4.0)),
        (NonRetryable(), 1, Verdict(False)),
        (Retry(5), 1, Verdict(True, 5.0)),
        (Retry(5), 3, Verdict(False, 5.0)),
        (Retry(), 2, Verdict(True, 2.0)),
        (Retry(0), 2, Verdict(True, 0.0)),
        (Retry(5, count=False), 3, Verdict(True, 5.0, False)),
        (Retry(count=False), 3, Verdict(True, 1.0, False)),
        (KeyError(), 1, Verdict(False, 1.0)),
        (ConnectionError(), 8, Verdict(True, 7.0)),
        (OSError(), 9, Verdict(False, 7.0)),
        (LookupError(), 2, Verdict(True, 7.0)),
        (IndexError(), 3, Verdict(False, 7.0)),
    ],
    ids=repr,
)
def test_verdicts(error: BaseException, attempt: int, verdict: Verdict) -> None:
    rules = [
        RetryRule(on=KeyError, attempts=1),
        RetryRule(on=OSError, attempts=9, backoff=STEADY),
        RetryRule(on=LookupError, backoff=STEADY),
        RetryRule(on=ConnectionError, attempts=1),
    ]
    assert judge(error, attempt=attempt, attempts=3, backoff=PLAIN, rules=rules, u=0.0) == verdict


class Group(Exception):
    """As of Python 3.11, and of the packages before it."""

    def __init__(self, *exceptions: BaseException) -> None:
        self.exceptions = exceptions
        super().__init__("unhandled errors in a TaskGroup")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Group(KeyError()), Verdict(False, 1.0)),
        (Group(Group(Group(Retry("1h")))), Verdict(True, 3600.0)),
        (Group(ValueError(), Group(NonRetryable())), Verdict(False)),
        (Group(KeyError(), ValueError()), Verdict(True, 1.0)),
        (Group(), Verdict(True, 1.0)),
    ],
)
def test_a_group_is_judged_by_its_only_member_or_by_what_can_never_help(
    error: BaseException, verdict: Verdict
) -> None:
    rules = [RetryRule(on=KeyError, attempts=1)]
    assert judge(error, attempt=1, attempts=3, backoff=PLAIN, rules=rules, u=0.0) == verdict


@pytest.mark.parametrize("error", [ValueError(), KeyError(), Retry(), Retry(count=False)], ids=repr)
def test_delays_are_spread_by_the_draw(error: BaseException) -> None:
    def delay_s(u: float) -> float:
        spread = Exponential("10s", factor=1, jitter=0.5)
        rules = [RetryRule(on=KeyError, backoff=spread)]
        return judge(error, attempt=1, attempts=3, backoff=spread, rules=rules, u=u).delay_s

    assert (delay_s(0.0), delay_s(0.5), delay_s(1.0)) == (5.0, 10.0, 15.0)


@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(attempt: int, u: float) -> None:
    assert 0 <= Exponential("1s", max="5m", jitter=0.2).delay_s(attempt, u) <= 300 * 1.2


def test_backlog_sizes_for_arrivals_and_backlog() -> None:
    busy = Backlog(
        depth=0, arrival_rate=100, service_rate=100, oldest_wait_s=0, workers=2, slots=20, run_s=0.5
    )
    assert busy.desired_workers(60) == 5
    idle = Backlog(depth=0, arrival_rate=0, service_rate=0, oldest_wait_s=0)
    assert idle.desired_workers(60) == 0


@dataclass
class Point:
    x: int
    y: float = 0.0


class Named(TypedDict):
    name: str


@pytest.mark.parametrize(
    ("shape", "plain", "value"),
    [
        (Point, {"x": 1}, Point(1)),
        (list[Point], [{"x": 1, "y": 2}], [Point(1, 2.0)]),
        (Named, {"name": "a"}, {"name": "a"}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (dict[str, set[int]], {"a": [1]}, {"a": {1}}),
        (int | None, None, None),
    ],
)
def test_plain_json_is_fitted_to_types(shape: Any, plain: Any, value: Any) -> None:
    assert fit(shape, plain) == value


@pytest.mark.parametrize(
    ("shape", "plain"), [(Point, {"y": 1}), (Named, {}), (int, True), (int, "1"), (Point, 3)]
)
def test_what_does_not_fit_is_refused(shape: Any, plain: Any) -> None:
    with pytest.raises(ValueError):
        fit(shape, plain)
    with pytest.raises(PayloadError):
        Codec(1000).encode(plain, shape)


def test_bad_options_of_the_manager_are_refused_by_name() -> None:
    for options, argument in (
        ({"queues": {}}, "queues"),
        ({"queues": {"a": {"priority": -1}}}, "priority"),
        ({"queues": {"a": {"speed": 1}}}, "queues"),
        ({"order": "random"}, "order"),
        ({"aging": 0}, "aging"),
        ({"max_crashes": 0}, "max_crashes"),
        ({"unknown_grace": -1}, "unknown_grace"),
        ({"namespace": "a{b}"}, "namespace"),
        ({"default_queue": "nope"}, "default_queue"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            QueueManager("memory://", **options)  # type: ignore[arg-type]
        assert caught.value.argument == argument
    with pytest.raises(UnknownScheme):
        QueueManager("ftp://host")
    with pytest.raises(ConfigurationError):
        QueueManager("memory://").job("j", colour="red")(lambda ctx, data: None)
    with pytest.raises(ConfigurationError):
        QueueManager("memory://").job("j")(lambda: None)  # type: ignore[arg-type, misc]


def test_a_producer_starts_no_thread_and_imports_no_driver() -> None:
    code = (
        "import sys, threading\n"
        "from eventperf.queues import QueueManager\n"
        "q = QueueManager('memory://'); q.enqueue('t', {'a': 1}); q.status()\n"
        "assert threading.active_count() == 1\n"
        "assert not {'redis', 'sqlalchemy', 'arq'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_slip_in_the_name_of_a_job_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "eventperf.queues"), QueueManager("memory://") as queues:
        queues.declare("send_invoice_mail")
        for _ in range(3):
            queues.enqueue("send_invocie_mail")
            queues.enqueue("made_elsewhere")
    (said,) = [record.getMessage() for record in caplog.records]
    assert "'send_invocie_mail'" in said
    assert "'send_invoice_mail'" in said


def test_what_type_checkers_know_of_enqueue_is_what_a_spec_has() -> None:
    spec = {name: kind for name, kind in JobSpec.__annotations__.items() if name not in ("type", "data")}
    assert {name: kind.__forward_arg__ for name, kind in EnqueueOptions.__annotations__.items()} == spec
    assert not EnqueueOptions.__required_keys__


def test_sums_of_minutes_leave_out_nothing_that_is_counted() -> None:
    whole = Interval(at=0.0, queue="q", type="t")
    for by, name in enumerate(COUNTS, 1):
        setattr(whole, name, by)
    whole.wait.add(3, 2)
    total = Interval(at=0.0, queue="q", type="t")
    for _ in range(2):
        total.merge(whole)
    assert [getattr(total, name) for name in COUNTS] == [2 * by for by in range(1, len(COUNTS) + 1)]
    assert (total.wait.counts, total.run.counts) == ({3: 4}, {})
    assert whole.wait.counts == {3: 2}, "what is added is left as it was"


@pytest.mark.parametrize("value", [[2**70, b"x"], {1: 2**70}, {"a": [2**64, float("nan")]}, (2**65, -INF)])
def test_what_json_would_change_without_a_word_is_refused(value: Any) -> None:
    with pytest.raises(PayloadError, match="which only msgpack keeps"):
        Codec(1000).encode(value)


@pytest.mark.parametrize("value", [2**70, {"a": [2**64, 1.5, None, "x"]}, [{}, -(2**99)]])
def test_whole_numbers_of_any_size_come_back(value: Any) -> None:
    codec = Codec(1000)
    assert codec.decode(codec.encode(value)) == value


def test_a_type_says_what_json_does_not() -> None:
    codec = Codec(1000)
    assert codec.decode(codec.encode({1: 2**70}, dict[int, int]), dict[int, int]) == {1: 2**70}


def test_minutes_are_sifted_only_when_one_of_them_is_too_old() -> None:
    minutes = Minutes()
    found = minutes.found
    for minute in range(10, 10 + KEPT_MINUTES):
        minutes.add(minute * 60.0, "q", "t", "completed", 0.1, 0.1)
    assert minutes.found is found, "a day that is read from its beginning is not copied each minute"
    minutes.add((10 + KEPT_MINUTES) * 60.0, "q", "t", "completed", 0.1, 0.1)
    assert {key[0] for key in minutes.found} == set(range(11, 11 + KEPT_MINUTES))
    minutes.add(9_999 * 60.0, "q", "t", "completed", 0.1, 0.1)
    assert {key[0] for key in minutes.found} == {9_999}
