"""What may be done now of what a policy wants: windows, cooldowns, rates and limits, at their borders."""

from __future__ import annotations

from typing import Any

import pytest

from eventperf.errors import ConfigurationError
from eventperf.scaling import Behavior, Observation, RatePolicy, Rules, TargetState, Tolerance
from eventperf.scaling.behavior import HPA_DOWN, HPA_UP, PLAIN_UP
from eventperf.scaling.model import Change


def see(replicas: int, *, changes: list[tuple[float, int]] | None = None, **facts: Any) -> Observation:
    """Return what is seen at second 1000; ``changes`` by their age."""
    made = tuple(Change(at_s=1000.0 - age, delta=delta) for age, delta in changes or [])
    facts = {"min_replicas": 1, "max_replicas": 100, **facts}
    return Observation(
        at_s=1000.0, state=TargetState(replicas=replicas, ready=replicas), changes=made, **facts
    )


def bounds(up: Rules | None = None, down: Rules | None = None) -> Behavior:
    return Behavior(up=up or Rules(), down=down or Rules())


# -- cooldown ----------------------------------------------------------------------------------------------


def test_the_latest_of_several_steps_starts_the_cooldown() -> None:
    rested = bounds(up=Rules(cooldown=60), down=Rules(cooldown=60))
    assert rested.apply(9, see(4, changes=[(300, 1), (10, 1)])) == (4, (("cooldown", 4),))
    assert rested.apply(2, see(4, changes=[(300, -1), (10, -1)])) == (4, (("cooldown", 4),))


def test_a_cooldown_is_over_after_its_time_and_counts_one_direction() -> None:
    rested = bounds(up=Rules(cooldown=60), down=Rules(cooldown=90))
    assert rested.apply(9, see(4, changes=[(59.9, 1)]))[0] == 4
    assert rested.apply(9, see(4, changes=[(60, 1)]))[0] == 9
    assert rested.apply(9, see(4, changes=[(1, -1)]))[0] == 9, "a step down does not delay one up"
    assert rested.apply(2, see(4, changes=[(1, 1)]))[0] == 2
    assert rested.apply(2, see(4, changes=[(89.9, -1)]))[0] == 4
    assert rested.apply(9, see(4))[0] == 9
    assert rested.apply(4, see(4, changes=[(1, 1), (1, -1)])) == (4, ())


# -- windows -----------------------------------------------------------------------------------------------


def test_down_takes_the_largest_of_the_window_and_up_the_smallest() -> None:
    calm = bounds(up=Rules(window=60), down=Rules(window=60))
    seen = ((930.0, 50), (945.0, 7), (990.0, 6))
    assert calm.apply(3, see(9, recommendations=seen)) == (7, (("stabilisation window", 7),))
    seen = ((930.0, 1), (945.0, 12), (990.0, 14))
    assert calm.apply(20, see(9, recommendations=seen)) == (12, (("stabilisation window", 12),))


def test_a_window_ends_at_its_length() -> None:
    calm = bounds(up=Rules(window=30), down=Rules(window=60))
    assert calm.apply(3, see(9, recommendations=((940.0, 8),)))[0] == 3
    assert calm.apply(3, see(9, recommendations=((940.1, 8),)))[0] == 8
    assert calm.apply(20, see(9, recommendations=((970.0, 10),)))[0] == 20
    assert calm.apply(20, see(9, recommendations=((970.1, 10),)))[0] == 10


def test_a_window_never_turns_a_step_round() -> None:
    calm = bounds(up=Rules(window=60), down=Rules(window=60))
    assert calm.apply(20, see(9, recommendations=((990.0, 5),)))[0] == 9
    assert calm.apply(5, see(9, recommendations=((990.0, 20),)))[0] == 9


# -- rates -------------------------------------------------------------------------------------------------

PODS = RatePolicy(type="pods", value=3, period=30)
HALF = RatePolicy(type="percent", value=50, period=30)


@pytest.mark.parametrize(
    ("rules", "replicas", "top"),
    [
        (Rules(policies=(PODS,)), 4, 7),
        (Rules(policies=(HALF,)), 5, 8),  # rounded up
        (Rules(policies=(PODS, HALF)), 10, 15),
        (Rules(policies=(PODS, HALF), select="min"), 10, 13),
        (Rules(select="disabled"), 4, 4),
        (Rules(policies=(PODS,), up_to=20), 4, 20),
        (Rules(policies=(PODS,), up_to=5), 4, 7),
    ],
)
def test_a_rise_is_bound_by_its_policies(rules: Rules, replicas: int, top: int) -> None:
    assert bounds(up=rules).apply(90, see(replicas)) == (top, (("scale-up rate", top),))


@pytest.mark.parametrize(
    ("rules", "replicas", "floor"),
    [
        (Rules(policies=(PODS,)), 9, 6),
        (Rules(policies=(HALF,)), 9, 4),
        (Rules(policies=(PODS, HALF)), 20, 10),
        (Rules(policies=(PODS, HALF), select="min"), 20, 17),
        (Rules(select="disabled"), 9, 9),
    ],
)
def test_a_fall_is_bound_by_its_policies(rules: Rules, replicas: int, floor: int) -> None:
    assert bounds(down=rules).apply(1, see(replicas)) == (floor, (("scale-down rate", floor),))


def test_changes_of_the_period_count_against_the_rate_and_older_ones_do_not() -> None:
    up, down = bounds(up=Rules(policies=(PODS,))), bounds(down=Rules(policies=(PODS,)))
    assert up.apply(90, see(9, changes=[(29.9, 2)]))[0] == 10
    assert up.apply(90, see(9, changes=[(30, 2)]))[0] == 12
    assert up.apply(90, see(9, changes=[(10, 2), (5, -1)]))[0] == 11, "opposite changes cancel out"
    assert up.apply(90, see(9, changes=[(10, 8)]))[0] == 9, "what was outrun is not taken back"
    assert down.apply(1, see(9, changes=[(29.9, -2)]))[0] == 8
    assert down.apply(1, see(9, changes=[(30, -2)]))[0] == 6
    assert down.apply(1, see(9, changes=[(10, -8)]))[0] == 9


def test_without_policies_nothing_bounds_a_step() -> None:
    assert bounds().apply(100, see(1)) == (100, ())
    assert bounds().apply(1, see(100)) == (1, ())
    huge = see(1, max_replicas=10**9)
    assert bounds().apply(10**9, huge)[0] == 10**9


def test_the_plain_default_doubles_or_adds_four_and_reaches_near_goals_at_once() -> None:
    plain = Behavior()
    assert plain.apply(50, see(10))[0] == 20
    assert plain.apply(50, see(1))[0] == 4
    assert plain.apply(6, see(2)) == (6, ()), "a goal that four more reach is reached in one step"
    assert plain.apply(7, see(2)) == (4, (("scale-up rate", 4),))
    assert plain.apply(50, see(10, changes=[(9.9, 5)]))[0] == 10
    assert plain.apply(50, see(10, changes=[(10, 5)]))[0] == 20


# -- limits ------------------------------------------------------------------------------------------------


def test_minimum_and_maximum_bind_and_are_named() -> None:
    assert bounds().apply(200, see(4)) == (100, (("max 100", 100),))
    assert bounds().apply(0, see(4, min_replicas=2)) == (2, (("min 2", 2),))
    assert bounds().apply(50, see(120)) == (100, (("max 100", 100),)), "back at once from above the maximum"
    assert bounds().apply(100, see(100)) == (100, ())


def test_a_target_below_its_minimum_is_lifted_to_it_and_no_higher_than_the_rate_lets() -> None:
    slow = bounds(up=Rules(policies=(RatePolicy(type="pods", value=1),)))
    assert slow.apply(3, see(2, min_replicas=6)) == (6, (("min 6", 6),))
    assert slow.apply(50, see(2, min_replicas=6)) == (6, (("scale-up rate", 6),))
    forbidden = bounds(up=Rules(select="disabled"))
    assert forbidden.apply(3, see(2, min_replicas=6))[0] == 6


# -- a policy that paces itself ----------------------------------------------------------------------------


def test_a_policy_that_paces_itself_is_bound_by_rules_somebody_set() -> None:
    assert Behavior().apply(50, see(2), paced=True) == (50, ())
    assert Behavior().apply(50, see(2))[0] == 4
    assert Behavior().apply(1, see(9, recommendations=((990.0, 9),)), paced=True) == (1, ())
    assert Behavior().apply(1, see(9, recommendations=((990.0, 9),)))[0] == 9
    chosen = bounds(up=Rules(policies=(PODS,)), down=Rules(policies=(PODS,)))
    assert chosen.apply(50, see(2), paced=True)[0] == 5
    assert chosen.apply(1, see(9), paced=True)[0] == 6


# -- what is asked of whom ---------------------------------------------------------------------------------


def test_memory_reaches_as_far_back_as_any_rule() -> None:
    assert Behavior().memory_s == 300.0
    assert bounds().memory_s == 0.0
    assert bounds(up=Rules(window=7)).memory_s == 7.0
    assert bounds(up=Rules(cooldown=8)).memory_s == 8.0
    assert bounds(down=Rules(window=9)).memory_s == 9.0
    assert bounds(down=Rules(cooldown=10)).memory_s == 10.0
    assert bounds(up=Rules(policies=(PODS,))).memory_s == 30.0
    assert bounds(down=Rules(policies=(PODS,))).memory_s == 30.0


def test_one_direction_set_gives_the_other_the_defaults_of_kubernetes() -> None:
    assert Behavior().up is PLAIN_UP
    assert Behavior(down=Rules(window=1)).up is HPA_UP
    assert Behavior(tolerance=Tolerance(up=0.2)).up is HPA_UP
    assert Behavior(up=Rules(window=1)).down is HPA_DOWN


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: RatePolicy(type="share", value=1), "type"),  # type: ignore[arg-type]
        (lambda: RatePolicy(type="pods", value=0), "value"),
        (lambda: RatePolicy(type="pods", value=True), "value"),
        (lambda: RatePolicy(type="pods", value=1.5), "value"),  # type: ignore[arg-type]
        (lambda: RatePolicy(type="pods", value=1, period=1801), "period"),
        (lambda: RatePolicy(type="pods", value=1, period=0), "period"),
        (lambda: Rules(window=3601), "window"),
        (lambda: Rules(cooldown=-1), "cooldown"),
        (lambda: Rules(up_to=-1), "up_to"),
        (lambda: Rules(up_to=True), "up_to"),
        (lambda: Rules(select="most"), "select"),  # type: ignore[arg-type]
        (lambda: Rules(policies=("fast",)), "policies"),  # type: ignore[arg-type]
        (lambda: Behavior(up="fast"), "up"),  # type: ignore[arg-type]
        (lambda: Behavior(down="slow"), "down"),  # type: ignore[arg-type]
        (lambda: Behavior(tolerance=Tolerance(up=1)), "tolerance.up"),
        (lambda: Behavior(tolerance=Tolerance(down=-0.1)), "tolerance.down"),
    ],
)
def test_wrong_rules_are_refused_by_the_argument(make: Any, argument: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.argument == argument


def test_the_longest_and_smallest_rules_are_good() -> None:
    assert RatePolicy(type="percent", value=1, period=1800).period == 1800.0
    assert (Rules(window=3600).window, Rules(window=0, up_to=0, cooldown=0).cooldown) == (3600.0, 0.0)
    assert Rules(policies=[PODS]).policies == (PODS,)  # type: ignore[arg-type]
    assert Behavior(tolerance=Tolerance(up=0, down=0.999)).tolerance.up == 0


# -- manifests ---------------------------------------------------------------------------------------------


def hpa(up: dict[str, Any] | None = None, down: dict[str, Any] | None = None) -> Behavior:
    given = {name: part for name, part in (("scaleUp", up), ("scaleDown", down)) if part is not None}
    return Behavior.from_hpa({"spec": {"behavior": given}})


def test_a_manifest_is_carried_over_as_it_is() -> None:
    found = hpa(
        up={"policies": [{"type": "Pods", "value": 2}, {"type": "Percent", "value": 10, "periodSeconds": 60}],
            "selectPolicy": "Min", "stabilizationWindowSeconds": 0, "tolerance": "50m"},
        down={"selectPolicy": "Disabled", "tolerance": 0.25},
    )  # fmt: skip
    pods, percent = RatePolicy(type="pods", value=2), RatePolicy(type="percent", value=10, period=60)
    assert found.up == Rules(policies=(pods, percent), select="min")
    assert found.down == Rules(window=300, policies=HPA_DOWN.policies, select="disabled")
    assert (found.tolerance.up, found.tolerance.down) == (0.05, 0.25)
    assert not found.up.implied


def test_parts_that_are_missing_have_the_defaults_and_are_somebodys_choice() -> None:
    found = hpa(down={"stabilizationWindowSeconds": 60})
    assert found.down.window == 60.0
    assert found.up == HPA_UP
    assert not found.up.implied, "a manifest that says behavior means it"
    assert (found.tolerance.up, found.tolerance.down) == (0.1, 0.1)
    assert hpa(up={"policies": []}, down={}).up.policies == ()
    assert hpa(up={"selectPolicy": "Max"}).up.select == "max"
    assert Behavior.from_hpa({}) == Behavior.from_hpa({"spec": {"advanced": {}}}) == Behavior()


def test_keda_keeps_its_rules_elsewhere() -> None:
    rules = {"scaleDown": {"stabilizationWindowSeconds": 30}}
    manifest = {"spec": {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": rules}}}}
    assert Behavior.from_hpa(manifest).down.window == 30.0


@pytest.mark.parametrize(
    ("up", "path", "allowed"),
    [
        ({"policies": [{"type": "Pods", "value": 1}, {"type": "pods", "value": 1}]},
         "behavior.scaleUp.policies[1].type", "Percent"),
        ({"selectPolicy": "max"}, "behavior.scaleUp.selectPolicy", "Disabled"),
        ({"tolerance": "much"}, "behavior.scaleUp.tolerance", "0.05 or 50m"),
    ],
)  # fmt: skip
def test_what_kubernetes_would_refuse_is_refused_by_its_path(
    up: dict[str, Any], path: str, allowed: str
) -> None:
    with pytest.raises(ConfigurationError, match=allowed) as caught:
        hpa(up=up)
    assert caught.value.argument == path
    with pytest.raises(ConfigurationError) as caught:
        hpa(down=up)
    assert caught.value.argument == path.replace("Up", "Down")
