"""Records that answer: why not another number, and how another policy would have done on the same load."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eventperf.cli.main import main
from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    AutoScaler,
    Behavior,
    CallableMetrics,
    CallableTarget,
    DecisionLog,
    Policy,
    Rules,
    ScalingDecision,
    ShadowScore,
    SimulatedTarget,
    TargetTracking,
    ThresholdPolicy,
    why_not,
)
from eventperf.scaling.behavior import HPA_UP
from eventperf.testing.clock import FakeClock

AT_ONCE = Behavior(up=Rules(), down=Rules())


def decide(load: float, *, start: int = 2, top: int = 20, behavior: Behavior = AT_ONCE) -> ScalingDecision:
    metrics = CallableMetrics(rps=lambda: load)
    scaler = AutoScaler(
        SimulatedTarget(start), metrics, TargetTracking(rps=50), max_replicas=top, behavior=behavior,
        clock=FakeClock(),
    )  # fmt: skip
    return scaler.tick()


# -- why not -----------------------------------------------------------------------------------------------


def test_the_policy_is_named_with_its_figures() -> None:
    said = why_not(decide(350), 5)
    assert said.splitlines() == [
        "why 7 and not 5: the policy wanted 7. rps: 350 in all, target 50 per replica",
        "  rps: 350 is 70 per replica on 5 and 50 on 7",
    ]


def test_the_binding_limit_is_named_with_what_had_come_out_without_it() -> None:
    assert why_not(decide(700, top=10), 14) == (
        "why 10 and not 14: max 10 took the 14 replicas that were wanted to 10"
    )


def test_the_step_that_crossed_the_number_is_named_not_the_last_one() -> None:
    rates = Behavior(up=Rules(policies=HPA_UP.policies))
    decision = decide(1000, top=8, behavior=rates)
    assert decision.limits == (("max 8", 8), ("scale-up rate", 6))
    assert "max 8 took" in why_not(decision, 9)
    assert "scale-up rate took the 8 replicas it had come to (wanted: 20) to 6" in why_not(decision, 7)
    assert "the policy wanted 20" in why_not(decision, 5)


def test_what_it_is_already_needs_no_excuse() -> None:
    assert why_not(decide(350), 7).startswith("7 it is.")


@pytest.mark.parametrize("wrong", [-1, 2.5, True, "5"])
def test_only_numbers_of_replicas_can_be_asked_about(wrong: object) -> None:
    with pytest.raises(ConfigurationError):
        why_not(decide(350), wrong)  # type: ignore[arg-type]


def test_every_number_has_an_answer_that_survives_json() -> None:
    for load in (0.0, 90.0, 350.0, 5000.0):
        decision = ScalingDecision.from_json(decide(load, top=9).to_json())
        for number in range(30):
            said = why_not(decision, number)
            assert said.startswith(f"{number} it is" if number == decision.after else f"why {decision.after}")


# -- shadow score ------------------------------------------------------------------------------------------


def run_day(
    policy: Policy,
    load: Callable[[float], float],
    *sinks: Callable[[ScalingDecision], object],
    fixed: int = 0,
) -> None:
    """Tick through two hours of ``load``; ``fixed`` replicas are never changed."""
    clock = FakeClock()
    target = SimulatedTarget(fixed or 4)
    metrics = CallableMetrics(rps=lambda: load(clock.monotonic()))
    scaler = AutoScaler(
        target, metrics, policy, max_replicas=50, behavior=AT_ONCE, clock=clock, dry_run=bool(fixed)
    )
    for sink in sinks:
        scaler.hooks.subscribe(sink, ScalingDecision)
    for _ in range(480):
        scaler.tick()
        clock.advance(15)


def wave(at: float) -> float:
    return 600 + 400 * math.sin(at / 900)


def test_the_policy_that_ran_scores_like_what_ran() -> None:
    """Replicas serve at once in the simulated target, so the shadow's course is the real one."""
    score = ShadowScore(TargetTracking(rps=50), over={"rps": 55}, behavior=AT_ONCE, startup=0)
    run_day(TargetTracking(rps=50), wave, score)
    assert score.shadow.replica_s == pytest.approx(score.ran.replica_s, rel=0.02)
    assert score.ran.late_s == score.shadow.late_s > 0
    assert score.shadow.actions == pytest.approx(score.ran.actions, abs=1)


def test_a_shadow_beside_a_static_peak_shows_its_saving_and_its_price() -> None:
    score = ShadowScore(TargetTracking(rps=50), over={"rps": 55}, behavior=AT_ONCE, startup=60)
    run_day(TargetTracking(rps=50), wave, score, fixed=20)
    assert score.ran.late_s == 0
    assert score.ran.actions == 0
    assert score.shadow.replica_s < 0.75 * score.ran.replica_s
    assert score.shadow.actions > 10


def test_replicas_that_still_start_do_not_serve() -> None:
    late = {}
    for startup in (0, 60, 300):
        score = ShadowScore(TargetTracking(rps=50), over={"rps": 60}, behavior=AT_ONCE, startup=startup)
        run_day(TargetTracking(rps=50), lambda at: 1000.0, score, fixed=4)
        late[startup] = score.shadow.late_s
    assert late == {0: 0.0, 60: 45.0, 300: 285.0}  # a tick's time is judged by what serves at its end


def test_a_log_of_a_whole_day_scores_another_policy(tmp_path: Path) -> None:
    log, live = DecisionLog(tmp_path / "day.jsonl", steady=True), _score(40)
    run_day(TargetTracking(rps=50), wave, log.write, live)
    offline = _score(40)
    for decision in DecisionLog.read(tmp_path / "day.jsonl"):
        offline(decision)
    assert offline.to_dict() == live.to_dict()
    assert offline.shadow.replica_s > offline.ran.replica_s


def _score(rps: float) -> ShadowScore:
    return ShadowScore(TargetTracking(rps=rps), over={"rps": 55}, behavior=AT_ONCE, startup=0)


def test_ratios_are_put_on_the_replicas_the_shadow_has() -> None:
    """CPU is at 90 % on four; a policy that wants 45 % would have run eight, and been calm."""
    clock = FakeClock()
    target = CallableTarget(lambda: 4, lambda n: None)
    scaler = AutoScaler(
        target, CallableMetrics(cpu=lambda: 0.9), TargetTracking(cpu=0.9), max_replicas=50, clock=clock
    )
    score = ShadowScore(TargetTracking(cpu=0.45), over={"cpu": 0.8}, startup=0, behavior=AT_ONCE)
    assert score.attach(scaler) is score
    for _ in range(41):
        scaler.tick()
        clock.advance(15)
    assert (score.ran.late_s, score.shadow.late_s) == (600.0, 0.0)
    assert score.shadow.replica_s == 600 * 8


def test_time_without_figures_is_told_apart_and_gaps_are_left_out() -> None:
    clock, values = FakeClock(), iter([100.0, None, None, 100.0, 100.0])
    scaler = AutoScaler(
        SimulatedTarget(2), CallableMetrics(rps=lambda: next(values)), TargetTracking(rps=50), max_replicas=4,
        clock=clock,
    )  # fmt: skip
    score = ShadowScore(TargetTracking(rps=50), over={"rps": 55}).attach(scaler)
    assert score.summary() == "nothing to compare yet"
    for pause in (15, 15, 15, 3600, 15):
        scaler.tick()
        clock.advance(pause)
    assert (score.seconds, score.blind_s) == (45.0, 30.0)


def test_a_decision_without_an_observation_is_passed_over() -> None:
    score = _score(50)
    score(replace(decide(100), observation=None))
    assert score.seconds == 0


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("over", {"over": {}}),
        ("over", {"over": {"latency": 1}}),
        ("over.rps", {"over": {"rps": -1}}),
        ("startup", {"over": {"rps": 1}, "startup": "soon"}),
        ("policy", {"over": {"rps": 1}, "policy": "latency"}),
    ],
)
def test_bad_score_arguments_are_named(argument: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ShadowScore(**{"policy": TargetTracking(rps=1), **options})  # type: ignore[arg-type]
    assert caught.value.argument == argument


# -- the command -------------------------------------------------------------------------------------------


def test_the_command_answers_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    log = DecisionLog(path)
    log.write(decide(350))
    log.write(replace(decide(5000, top=9), target="other"))
    assert main(["scale", "explain", str(path), "--target", "simulated", "--why-not", "5"]) == 0
    assert capsys.readouterr().out.startswith("why 7 and not 5: the policy wanted 7.")
    assert main(["scale", "explain", str(path), "--target", "nobody", "--why-not", "5"]) == 2
    assert main(["scale", "explain", str(path), "--target", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["after"] == 9


def test_a_log_that_a_crash_cut_is_read_without_its_last_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    with DecisionLog(path) as log:
        log.write(decide(350))
        log.write(decide(450))
    path.write_bytes(path.read_bytes()[:-30])
    assert [d.after for d in DecisionLog.read(path)] == [7]
    assert "1 lines cannot be read" in caplog.text
    path.write_text("hello\n")
    with pytest.raises(ValueError, match="Expecting value"):
        list(DecisionLog.read(path))


def test_a_log_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with DecisionLog(path) as log:
        log.write(decide(350))
        path.rename(tmp_path / "log.1")
        log.write(decide(450))
    assert [d.after for d in DecisionLog.read(path)] == [9]


def test_a_threshold_in_percent_is_explained() -> None:
    with pytest.raises(ConfigurationError, match=r"cpu_high: got 70; allowed: a share, so that 0\.7 is 70 %"):
        ThresholdPolicy(cpu_high=70)
