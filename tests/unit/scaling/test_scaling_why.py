"""Why this number and not another: every way a decision can have come, each with its whole answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import Observation, Sample, ScalingDecision, TargetState, why_not

SEEN = Observation(
    at_s=0.0,
    state=TargetState(replicas=4, ready=2),
    min_replicas=0,
    max_replicas=90,
    samples={"rps": Sample(value=300.0), "cpu": Sample(value=0.9), "backlog": Sample(value=60.0)},
)
DECIDED = ScalingDecision(
    at=0.0, target="x", before=4, wanted=6, after=6, reason="so.", metric="rps", observation=SEEN
)
RPS_5 = "  rps: 300 is 60 per replica on 5 and 50 on 6"
BACKLOG_5 = "  backlog: 60 is 12 per replica on 5 and 10 on 6"
CPU_5 = "  cpu: 90% on the 2 that serve would be about 36% on 5 and 30% on 6"


def say(decision: ScalingDecision, number: int, *, seen: Observation | None = SEEN) -> list[str]:
    return why_not(replace(decision, observation=seen), number).splitlines()


def test_fewer_are_told_by_every_metric_and_more_by_the_one_that_asked() -> None:
    assert say(DECIDED, 5) == ["why 6 and not 5: the policy wanted 6. so.", CPU_5, RPS_5, BACKLOG_5]
    assert say(DECIDED, 7)[1:] == ["  rps: 300 is 42.86 per replica on 7 and 50 on 6"]
    assert say(replace(DECIDED, metric="backlog"), 7)[1:] == [
        "  backlog: 60 is 8.571 per replica on 7 and 10 on 6"
    ]


@pytest.mark.parametrize(
    ("decision", "number", "seen"),
    [
        (DECIDED, 0, SEEN),
        (DECIDED, 5, None),
        (replace(DECIDED, metric=""), 5, SEEN),
        (replace(DECIDED, wanted=0, after=0), 5, SEEN),
        (DECIDED, 5, replace(SEEN, samples={})),
    ],
)
def test_where_there_is_nothing_to_divide_no_loads_are_told(
    decision: ScalingDecision, number: int, seen: Observation | None
) -> None:
    assert len(say(decision, number, seen=seen)) == 1


def test_of_none_that_serve_no_share_is_told() -> None:
    none = replace(SEEN, state=TargetState(replicas=4, ready=0))
    assert say(DECIDED, 5, seen=none)[1:] == [RPS_5, BACKLOG_5]


LIMITED = replace(DECIDED, wanted=20, after=6, limits=(("max 12", 12), ("rate", 8), ("cap", 6)))
RAISED = replace(DECIDED, wanted=1, after=6, limits=(("floor", 3), ("min 6", 6)))


@pytest.mark.parametrize(
    ("decision", "number", "said"),
    [
        (LIMITED, 20, "max 12 took the 20 replicas that were wanted to 12"),
        (LIMITED, 12, "rate took the 12 replicas it had come to (wanted: 20) to 8"),
        (LIMITED, 8, "cap took the 8 replicas it had come to (wanted: 20) to 6"),
        (LIMITED, 7, "cap took the 8 replicas it had come to (wanted: 20) to 6"),
        (LIMITED, 5, "the policy wanted 20. so."),
        (RAISED, 1, "floor took the 1 replicas that were wanted to 3"),
        (RAISED, 2, "floor took the 1 replicas that were wanted to 3"),
        (RAISED, 3, "min 6 took the 3 replicas it had come to (wanted: 1) to 6"),
        (RAISED, 5, "min 6 took the 3 replicas it had come to (wanted: 1) to 6"),
        (RAISED, 7, "the policy wanted 1. so."),
        (replace(RAISED, limits=(("low", 2), ("up", 9), ("back", 6))), 5, "up took the 2 replicas it had"),
    ],
)  # fmt: skip
def test_the_step_that_crossed_the_number_is_named(decision: ScalingDecision, number: int, said: str) -> None:
    head, *loads = say(decision, number)
    assert head.startswith(f"why 6 and not {number}: {said}")
    assert bool(loads) is said.startswith("the policy"), "what a limit decided is no matter of loads"


def test_what_could_not_be_done_is_the_reason_only_where_nothing_else_was_decided() -> None:
    failed = replace(DECIDED, wanted=4, after=4, error="403")
    assert say(failed, 5) == ["why 4 and not 5: so. (403)"]
    assert say(replace(failed, wanted=3), 5)[0] == "why 4 and not 5: the policy wanted 3. so."
    assert say(replace(failed, limits=(("max 4", 4),)), 5)[0] == "why 4 and not 5: the policy wanted 4. so."
    assert say(replace(failed, error=None), 5)[0] == "why 4 and not 5: the policy wanted 4. so."
    assert why_not(failed, 4) == "4 it is. so."


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "3", None])
def test_what_is_no_number_of_replicas_is_named(wrong: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        why_not(DECIDED, wrong)  # type: ignore[arg-type]
    assert (caught.value.argument, caught.value.given) == ("replicas", wrong)
    assert caught.value.allowed == "a whole number from 0"
