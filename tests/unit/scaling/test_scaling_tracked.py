"""What target tracking answers, pod by pod and metric by metric, with its words.

Pods are written as ``usage/request`` in thousandths (1000 where none is written), ``?`` without a metric,
and then ``u`` unready, ``p`` pending, ``d`` on its way out.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from eventperf.errors import ConfigurationError
from eventperf.scaling import Observation, PodSample, Sample, TargetState, TargetTracking, Tolerance
from eventperf.scaling.policies.tracking import (
    average_value_replicas,
    combine,
    pods_metric_replicas,
    total_value_replicas,
    utilization_replicas,
)

TEN_PERCENT = Tolerance()


def pods(text: str) -> list[PodSample]:
    out = []
    for word in text.split():
        usage, _, request = word.partition("/")
        number = usage.rstrip("?pud")
        asked = None if request == "-" else int(request or 1000)
        out.append(
            PodSample(
                usage=int(number) if number else None, request=asked,
                ready="u" not in usage, pending="p" in usage, deleting="d" in usage,
            )
        )  # fmt: skip
    return out


@pytest.mark.parametrize(
    ("current", "found", "target", "cpu", "wanted", "measured", "caution"),
    [
        (3, "300 500 700", 30, True, 5, "50", None),
        (9, "900 900 p", 50, True, 9, "90", (0, 1)),
        (3, "900 900 p", 50, True, 4, "90", (0, 1)),
        (3, "300 500 700", 50, True, 3, "50", None),
        (2, "549 550", 50, True, 2, "54", None),
        (2, "551 551", 50, True, 2, "55", None),
        (2, "559 560", 50.5, True, 3, "55.95", None),
        (4, "719 719", 65, True, 4, "71", None),
        (4, "719 719", 65.5, True, 4, "71.9", None),
        (3, "400 400 400u", 30, True, 3, "40", (0, 1)),
        (3, "400 400 400u", 30, False, 4, "40", None),
        (3, "400 400 400u p", 30, True, 3, "40", (0, 2)),
        (3, "400 400 400u p", 30, False, 3, "40", (0, 1)),
        (3, "200 200 900u", 30, True, 2, "20", None),
        (3, "200 200 900u", 30, False, 5, "43", None),
        (3, "300 300 p", 100, True, 1, "30", None),
        (3, "600 600 p", 30, True, 4, "60", (0, 1)),
        (2, "500 ?", 100, True, 2, "50", (1, 0)),
        (2, "2000 ?", 100, True, 2, "200", (1, 0)),
        (2, "200 ?", 200, True, 2, "20", (1, 0)),
        (2, "100 ?", 150.5, True, 2, "10", (1, 0)),
        (2, "500 ?", 50, True, 2, "50", (1, 0)),
        (3, "500 ? 900u", 50, True, 3, "50", (1, 1)),
        (3, "500 ? 900u", 50, False, 3, "70", (1, 0)),
        (5, "800 ? ? 100u p", 50, True, 5, "80", (2, 2)),
        (5, "800 ? ? 100u p", 50, False, 5, "45", (2, 1)),
        (5, "100 ? ? 100u p", 50, True, 5, "10", (2, 2)),
        (5, "100 ? ? 100u p", 50, False, 5, "10", (2, 1)),
        (2, "900 900 0d", 45, True, 4, "90", None),
        (2, "900 900 ?d", 45, True, 4, "90", None),
        (2, "900d 100", 50, True, 1, "10", None),
        (2, "?d 100", 50, True, 1, "10", None),
        (2, "100u p", 50, False, 1, "10", None),
        (2, "500 500d/-", 50, True, 2, "50", None),
        (3, "400/800 p/400 100/200", 40, True, 3, "50", (0, 1)),
        (2, "450 450 450", 50, True, 2, "45", None),
        (3, "5000000000 1", 1, True, 500000000, "2.5e+08", None),
        (4, "120 ? ?", 20, True, 4, "12", (2, 0)),
        (6, "520 520 ? ? ?", 50, True, 6, "52", (3, 0)),
        (3, "560 560 560u", 50, True, 3, "56", (0, 1)),
        (3, "560 560 560u", 50, False, 4, "56", None),
        (2, "510 510 ?", 50, True, 2, "51", (1, 0)),
        (9, "300 ?/100", 50, True, 2, "30", (1, 0)),
        (9, "900 ?/9000", 50, True, 9, "90", (1, 0)),
        (9, "900 900u/9000", 50, True, 9, "90", (0, 1)),
        (9, "900 900u/9000", 50, False, 1, "18", None),
        (9, "900 ?/9000 900u", 50, True, 9, "90", (1, 1)),
        (9, "900 ?/9000 900u", 50, False, 9, "90", (1, 0)),
        (1, "100 ?", 10, True, 1, "10", (1, 0)),
        (6, "100 100 ?", 20, True, 6, "10", (1, 0)),
        (1, "300 300 ?/9000", 20, True, 1, "30", (1, 0)),
        (7, "300 300 ?/2000", 20, True, 7, "30", (1, 0)),
    ],
)
def test_a_share_of_requests(
    current: int, found: str, target: float, cpu: bool, wanted: int, measured: str,
    caution: tuple[int, int] | None,
) -> None:  # fmt: skip
    answer = utilization_replicas(current, pods(found), target, TEN_PERCENT, cpu=cpu)
    text = f"{measured} % of the request, target {target:g} %"
    if caution:
        text += "; {} pods without metrics and {} unready counted with caution".format(*caution)
    assert (answer.replicas, answer.text) == (wanted, text)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ("? ?", "no pod has a metric"),
        ("100u p", "no ready pod has a metric"),
        ("100d", "no ready pod has a metric"),
        ("500 500/-", "a container has no request for this resource"),
        ("500/0 100/0", "the containers request none of this resource"),
    ],
)
def test_a_share_of_requests_that_cannot_be_told_says_why(found: str, why: str) -> None:
    answer = utilization_replicas(2, pods(found), 50, TEN_PERCENT)
    assert (answer.replicas, answer.text) == (None, why)


@pytest.mark.parametrize(
    ("current", "found", "target", "wanted", "text"),
    [
        (2, "20000 20000u", 10000, 4, "20 per pod, target 10"),
        (3, "10000 10000 10000", 10000, 3, "10 per pod, target 10"),
        (3, "10999 10999", 10000, 3, "10.999 per pod, target 10"),
        (3, "11999 11999", 10000, 3, "11.999 per pod, target 10"),
        (3, "10999 10999", 10000.5, 3, "10.999 per pod, target 10.0005"),
        (3, "500 501", 455, 3, "0.5 per pod, target 0.455"),
        (3, "500 501", 455.0, 3, "0.5005 per pod, target 0.455"),
        (4, "20000 ?", 10000, 4, "20 per pod, target 10"),
        (4, "5000 ?", 10000, 2, "5 per pod, target 10"),
        (4, "10000 ?", 10000, 4, "10 per pod, target 10"),
        (4, "20000 p", 10000, 4, "20 per pod, target 10"),
        (4, "5000 p", 10000, 1, "5 per pod, target 10"),
        (4, "20000 ? p", 10000, 4, "20 per pod, target 10"),
        (4, "20000 20000 20000 ? ? p", 10000, 4, "20 per pod, target 10"),
        (4, "5000 5000 ? ? p p", 10000, 3, "5 per pod, target 10"),
        (2, "5000d 20000", 10000, 2, "20 per pod, target 10"),
        (2, "20000 ?d pd", 10000, 2, "20 per pod, target 10"),
        (9, "5000 ?", 10000, 2, "5 per pod, target 10"),
        (1, "3000 ? ?", 10000, 1, "3 per pod, target 10"),
        (2, "9500 ?", 10000, 2, "9.5 per pod, target 10"),
        (2, "12000 ?", 10000, 2, "12 per pod, target 10"),
        (2, "15500 p", 10000, 2, "15.5 per pod, target 10"),
        (1, "30000 30000 ?", 10000, 6, "30 per pod, target 10"),
        (6, "30000 30000 p ?", 10000, 6, "30 per pod, target 10"),
        (6, "30000", 500.5, 60, "30 per pod, target 0.5005"),
        (5, "9000 ? p", 10000, 5, "9 per pod, target 10"),
        (5, "10500", 10000, 5, "10.5 per pod, target 10"),
        (6, "300 ?", 500.5, 2, "0.3 per pod, target 0.5005"),
    ],
)
def test_an_average_of_pods(current: int, found: str, target: float, wanted: int, text: str) -> None:
    answer = pods_metric_replicas(current, pods(found), target, TEN_PERCENT)
    assert (answer.replicas, answer.text) == (wanted, text)


@pytest.mark.parametrize("found", ["? p", "20000d", "20000p", "?"])
def test_an_average_of_no_pods_says_so(found: str) -> None:
    answer = pods_metric_replicas(2, pods(found), 10_000, TEN_PERCENT)
    assert (answer.replicas, answer.text) == (None, "no pod has a metric")


def decided(
    policy: TargetTracking, *, replicas: int = 4, ready: int = 4, **samples: Sample
) -> tuple[object, ...]:
    seen = Observation(
        at_s=0.0, state=TargetState(replicas=replicas, ready=ready), min_replicas=0, max_replicas=99,
        samples=samples, max_age_s=60.0,
    )  # fmt: skip
    wish = policy.decide(seen)
    assert not wish.memory
    return wish.replicas, wish.metric, wish.reason, dict(wish.blind)


CPU, MEMORY = TargetTracking(cpu=0.5), TargetTracking(memory=0.505)
RPS, WAITING = TargetTracking(rps=50), TargetTracking(backlog=10)
BOTH = TargetTracking(cpu=0.5, rps=50)


@pytest.mark.parametrize(
    ("policy", "state", "samples", "wanted", "reason"),
    [
        (CPU, (4, 4), {"cpu": Sample(value=0.8)}, 7, "cpu: 80 % of the request, target 50 %"),
        (CPU, (4, 4), {"cpu": Sample(value=0.5599)}, 4, "cpu: 55 % of the request, target 50 %"),
        (CPU, (4, 2), {"cpu": Sample(value=0.8)}, 4, "cpu: 80 % of the request, target 50 %"),
        (CPU, (4, 4), {"cpu": Sample(value=0.29)}, 3, "cpu: 29 % of the request, target 50 %"),
        (CPU, (4, 4), {"cpu": Sample(value=0.0)}, 1, "cpu: 0 % of the request, target 50 %"),
        (CPU, (0, 0), {"cpu": Sample(value=0.0)}, 0, "cpu: 0 % of the request, target 50 %"),
        (
            MEMORY, (4, 4), {"memory": Sample(value=0.5561)}, 5,
            "memory: 55.61 % of the request, target 50.5 %",
        ),
        (MEMORY, (4, 4), {"memory": Sample(value=0.0)}, 1, "memory: 0 % of the request, target 50.5 %"),
        (
            TargetTracking(cpu=0.005), (4, 4), {"cpu": Sample(value=0.0054)}, 4,
            "cpu: 0.54 % of the request, target 0.5 %",
        ),
        (
            TargetTracking(cpu=0.01), (4, 4), {"cpu": Sample(value=0.0199)}, 4,
            "cpu: 1 % of the request, target 1 %",
        ),
        (RPS, (4, 4), {"rps": Sample(value=219.0)}, 4, "rps: 219 in all, target 50 per replica"),
        (RPS, (4, 4), {"rps": Sample(value=221.0)}, 5, "rps: 221 in all, target 50 per replica"),
        (RPS, (4, 1), {"rps": Sample(value=120.0)}, 3, "rps: 120 in all, target 50 per replica"),
        (RPS, (4, 4), {"rps": Sample(value=0.0)}, 0, "rps: 0 in all, target 50 per replica"),
        (WAITING, (4, 4), {"backlog": Sample(value=0.0)}, 0, "backlog: 0 in all, target 10 per replica"),
        (WAITING, (0, 0), {"backlog": Sample(value=11.0)}, 2, "backlog: 11 in all, target 10 per replica"),
        (
            TargetTracking(backlog=10, totals="backlog"), (4, 3), {"backlog": Sample(value=20.0)}, 6,
            "backlog: 20, target 10 in all",
        ),
        (
            TargetTracking(rps=10, backlog=10, totals=["rps"]), (4, 4), {"rps": Sample(value=10.9)}, 4,
            "rps: 10.9, target 10 in all",
        ),
        (
            BOTH, (4, 4), {"cpu": Sample(value=0.8), "rps": Sample(value=400.0)}, 8,
            "rps: 400 in all, target 50 per replica",
        ),
        (
            BOTH, (4, 4), {"cpu": Sample(value=0.8), "rps": Sample(value=100.0)}, 7,
            "cpu: 80 % of the request, target 50 %",
        ),
        (
            BOTH, (4, 4), {"cpu": Sample(value=0.0), "rps": Sample(value=0.0)}, 0,
            "cpu: 0 % of the request, target 50 %",
        ),
        (
            CPU, (2, 2), {"cpu": Sample(value=0.1, pods=tuple(pods("900 900 200u")))}, 4,
            "cpu: 90 % of the request, target 50 %; "
            "0 pods without metrics and 1 unready counted with caution",
        ),
        (
            TargetTracking(memory=0.5), (3, 3), {"memory": Sample(pods=tuple(pods("900 900 200u")))}, 4,
            "memory: 66 % of the request, target 50 %",
        ),
        (
            CPU, (3, 3), {"cpu": Sample(value=0.5, age_s=60.0, pods=tuple(pods("900 900 900")))}, 6,
            "cpu: 90 % of the request, target 50 %",
        ),
        (
            RPS, (2, 2), {"rps": Sample(pods=tuple(pods("60000 70000")))}, 3, "rps: 65 per pod, target 50",
        ),
        (
            TargetTracking(rps=0.0005), (2, 2), {"rps": Sample(pods=tuple(pods("1 2")))}, 6,
            "rps: 0.0015 per pod, target 0.0005",
        ),
        (
            TargetTracking(rps=0.001), (2, 2), {"rps": Sample(pods=tuple(pods("1 2")))}, 2,
            "rps: 0.001 per pod, target 0.001",
        ),
    ],
)  # fmt: skip
def test_what_is_wanted_and_why(
    policy: TargetTracking, state: tuple[int, int], samples: dict[str, Sample], wanted: int, reason: str
) -> None:
    replicas, ready = state
    metric = reason.partition(":")[0]
    blind = {name: "no source for this metric" for name in policy.targets if name not in samples}
    found = decided(policy, replicas=replicas, ready=ready, **samples)
    assert found == (wanted, metric, reason, blind)


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ({}, "no source for this metric"),
        ({"cpu": Sample()}, "no value"),
        ({"cpu": Sample(error="refused", pods=tuple(pods("900")))}, "refused"),
        (
            {"cpu": Sample(value=0.9, age_s=61.0, pods=tuple(pods("900")))},
            "stale: 61 s old, at most 60 s allowed",
        ),
        ({"cpu": Sample(pods=tuple(pods("?")))}, "no pod has a metric"),
    ],
)
def test_a_metric_that_cannot_be_trusted_changes_nothing_and_says_why(
    samples: dict[str, Sample], why: str
) -> None:
    assert decided(CPU, **samples) == (4, "", "no metric can be trusted", {"cpu": why})
    up = decided(BOTH, rps=Sample(value=400.0), **samples)
    assert up == (8, "rps", "rps: 400 in all, target 50 per replica", {"cpu": why})
    assert decided(BOTH, rps=Sample(value=40.0), **samples)[0] == 4


def test_of_two_equal_wishes_the_first_is_named() -> None:
    found = decided(BOTH, cpu=Sample(value=1.0), rps=Sample(value=400.0))
    assert found[:2] == (8, "cpu")


def test_totals_and_averages_at_the_edges() -> None:
    assert total_value_replicas(4, 3, 150.0, 100.0, TEN_PERCENT) == 5
    assert total_value_replicas(4, 3, 110.0, 100.0, TEN_PERCENT) == 4
    assert total_value_replicas(0, 3, 105.0, 100.0, TEN_PERCENT) == 2
    assert total_value_replicas(4, 4, 1e300, 1e-9, TEN_PERCENT) == 2**31 - 1
    assert average_value_replicas(4, 439.0, 100.0, TEN_PERCENT) == 4
    assert average_value_replicas(4, 441.0, 100.0, TEN_PERCENT) == 5
    assert average_value_replicas(1, 100.0, 100.0, TEN_PERCENT) == 1
    assert average_value_replicas(0, 1.0, 100.0, TEN_PERCENT) == 1
    assert (combine(5, [5, None]), combine(5, [4, 3]), combine(5, []), combine(5, [None])) == (5, 4, 5, 5)


@pytest.mark.parametrize(
    ("wrong", "argument", "given", "allowed"),
    [
        ({}, "targets", "none", "cpu=..., memory=..., rps=..., backlog=..."),
        ({"cpu": 0}, "cpu", 0, "a number above 0, at most 10"),
        ({"cpu": 10.001}, "cpu", 10.001, "a number above 0, at most 10"),
        ({"memory": 10.5}, "memory", 10.5, "a number above 0, at most 10"),
        ({"rps": -1}, "rps", -1, "a number above 0, at most inf"),
        ({"backlog": math.inf}, "backlog", math.inf, "a number above 0, at most inf"),
        ({"backlog": math.nan, "cpu": 1}, "backlog", math.nan, "a number above 0, at most inf"),
        ({"rps": "5", "cpu": 1}, "rps", "5", "a number above 0, at most inf"),
        ({"cpu": 0.5, "totals": ["cpu"]}, "totals", "cpu", "rps or backlog, with a target"),
        ({"cpu": 0.5, "totals": "rps"}, "totals", "rps", "rps or backlog, with a target"),
        ({"rps": 5, "totals": ["rps", "backlog"]}, "totals", "backlog", "rps or backlog, with a target"),
    ],
)
def test_a_wrong_target_is_refused_with_what_was_given_and_what_is_allowed(
    wrong: dict[str, Any], argument: str, given: object, allowed: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TargetTracking(**wrong)
    assert (caught.value.argument, repr(caught.value.given)) == (argument, repr(given))
    assert caught.value.allowed == allowed


def test_it_shows_how_it_was_made() -> None:
    assert repr(TargetTracking(cpu=10, rps=2.5)) == "TargetTracking(cpu=10, rps=2.5)"
    made = TargetTracking(memory=0.5, backlog=3, totals="backlog")
    assert repr(made) == "TargetTracking(memory=0.5, backlog=3, totals=('backlog',))"
    assert made.totals == ("backlog",)
    assert made.targets == {"memory": 0.5, "backlog": 3.0}
