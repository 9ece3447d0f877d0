"""The pure decisions of the queues room, and the fallbacks that need no server."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from eventperf.errors import ConfigurationError, UnknownScheme
from eventperf.queues import Backlog, Exponential, NonRetryable, QueueManager, Retry, RetryRule
from eventperf.queues.codec import Codec, fit
from eventperf.queues.errors import PayloadError
from eventperf.queues.policy import Lane, choose, judge


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


@pytest.mark.parametrize(
    ("error", "attempt", "retried"),
    [
        (ValueError(), 1, True),
        (ValueError(), 3, False),
        (NonRetryable(), 1, False),
        (Retry(5), 1, True),
        (Retry(5), 3, False),
        (Retry(5, count=False), 3, True),
        (KeyError(), 1, False),
        (OSError(), 5, True),
    ],
)
def test_verdicts(error: BaseException, attempt: int, retried: bool) -> None:
    rules = [RetryRule(on=KeyError, attempts=1), RetryRule(on=OSError, attempts=9)]
    verdict = judge(error, attempt=attempt, attempts=3, backoff=Exponential(), rules=rules, u=0.5)
    assert verdict.retry is retried


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
