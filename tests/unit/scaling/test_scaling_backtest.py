"""Backtest and its command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.cli.main import main
from eventperf.scaling import (
    AutoScaler,
    CallableMetrics,
    DecisionLog,
    LatencyPolicy,
    PodModel,
    SimulatedTarget,
    TargetTracking,
    Trace,
    backtest,
)
from eventperf.testing import FakeClock

DAY = tuple(800.0 + 600.0 * math.sin(i / 1440 * 2 * math.pi) for i in range(1440))


def test_the_oracle_keeps_the_goal_at_the_lowest_cost_of_those_that_do() -> None:
    report = backtest(TargetTracking(rps=28), DAY)
    assert report["oracle"].cost == 1.0
    assert report["oracle"].violations <= 0.001
    for score in report.scores:
        assert score.cost >= 1.0 or score.violations > 0.001, score


def test_too_few_replicas_show_as_violations() -> None:
    starved = backtest(TargetTracking(rps=60), [1000.0] * 120, compare=False)
    assert starved.score.violations > 0.9


def test_equal_seeds_give_equal_reports() -> None:
    one, two = (backtest(LatencyPolicy(), DAY[:300], seed=3) for _ in range(2))
    assert one == two


def test_a_step_costs_violations_only_while_replicas_start() -> None:
    pod = PodModel(startup=(60.0, 60.0), lag=0.0)
    score = backtest(TargetTracking(rps=30), [300.0] * 30 + [600.0] * 90, pod=pod, compare=False).score
    assert 0.0 < score.violations < 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Trace(()),
        lambda: Trace((1.0, math.nan)),
        lambda: PodModel(rps=0),
        lambda: PodModel(startup=(9.0, 3.0)),
        lambda: backtest(TargetTracking(rps=1), [1.0], min_replicas=5, max_replicas=2),
        lambda: backtest("latency", [1.0]),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused(make: object) -> None:
    with pytest.raises(ConfigurationError):
        make()  # type: ignore[operator]


def test_the_command_prints_scores_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, plot = tmp_path / "load.csv", tmp_path / "load.svg"
    trace.write_text("minute,rps\n" + "".join(f"{i},{rate}\n" for i, rate in enumerate(DAY[:200])))
    assert main(["scale", "backtest", str(trace), "--policy", "hpa-rps", "--plot", str(plot), "--json"]) == 0
    scores = {s["name"]: s for s in json.loads(capsys.readouterr().out)["scores"]}
    assert set(scores) == {"policy", "HPA cpu 70 %", "HPA rps 70 %", "thresholds", "static peak", "oracle"}
    assert scores["static peak"]["actions"] == 0
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    "arguments",
    [["load.csv"], ["bad.csv"], ["good.csv", "--policy", "magic"], ["good.csv", "--policy", "no:pe"]],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_text("1\n2\nthree\n")
    (tmp_path / "good.csv").write_text("1\n2\n")
    assert main(["scale", "backtest", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "allowed" in said


def test_explain_reads_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = DecisionLog(tmp_path / "decisions.jsonl")
    metrics = CallableMetrics(rps=lambda: 300.0)
    AutoScaler(
        SimulatedTarget(2), metrics, TargetTracking(rps=50), max_replicas=4, log=log, clock=FakeClock()
    ).tick()
    assert main(["scale", "explain", str(tmp_path / "decisions.jsonl")]) == 0
    assert "max 4: 6 -> 4" in capsys.readouterr().out


def test_the_page_holds_every_score_and_needs_nothing_from_outside() -> None:
    spike = [300.0] * 60 + [3000.0] * 10 + [300.0] * 60
    page = backtest(LatencyPolicy(), spike).to_html()
    assert page.count("<svg") == page.count("</svg>") >= 2
    assert "://" not in page
    for name in ("policy", "HPA cpu 70 %", "HPA rps 70 %", "static peak", "oracle"):
        assert f"<td>{name}</td>" in page
    assert """aria-label="late % of a step&#x27;s requests against hours\"""" in page


def test_progress_runs_from_nothing_to_all_for_each_policy() -> None:
    told: list[tuple[str, float]] = []
    backtest(LatencyPolicy(), DAY[:200], progress=lambda name, share: told.append((name, share)))
    for name in ("policy", "HPA cpu 70 %", "thresholds"):
        shares = [share for who, share in told if who == name]
        assert shares[0] == 0.0
        assert shares[-1] == 1.0
        assert shares == sorted(shares)


def test_a_calendar_helps_where_its_events_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    starts = [120 + 240 * i for i in range(6)]
    load = [
        400.0 + sum(1500.0 * math.exp(-(m - s) / 8.0) for s in starts if 0 <= m - s < 90) for m in range(1500)
    ]
    entries = [{"at": s * 60.0, "kind": "opening", "expected": 1000, "id": str(s)} for s in starts]
    (tmp_path / "load.csv").write_text("\n".join(map(str, load)))
    (tmp_path / "dates.json").write_text(json.dumps(entries))
    late = {}
    for policy in ("latency", "calendar"):
        arguments = ["--policy", policy, "--calendar", str(tmp_path / "dates.json"), "--json"]
        page = tmp_path / f"{policy}.html"
        assert main(["scale", "backtest", str(tmp_path / "load.csv"), *arguments, "--html", str(page)]) == 0
        scores = {s["name"]: s for s in json.loads(capsys.readouterr().out)["scores"]}
        late[policy] = scores["policy"]["violations"]
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert late["calendar"] < 0.5 * late["latency"]


@pytest.mark.parametrize("text", ["no json", "{}", "[1]", '[{"kind": "x"}]', None])
def test_a_bad_calendar_is_one_sentence(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "load.csv").write_text("1\n2\n")
    if text is not None:
        (tmp_path / "dates.json").write_text(text)
    arguments = [str(tmp_path / "load.csv"), "--calendar", str(tmp_path / "dates.json")]
    assert main(["scale", "backtest", *arguments]) == 2
    assert "allowed" in capsys.readouterr().err
