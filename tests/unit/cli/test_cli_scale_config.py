"""The file of ``scale run``: what is valid is built without I/O, what is wrong is named by its key."""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventperf.cli.main import main
from eventperf.cli.scale.config import build, read_file
from eventperf.cli.scale.reading import readings
from eventperf.errors import ConfigurationError
from eventperf.scaling import LatencyPolicy, MaxOf, TargetTracking, ThresholdPolicy

PROMETHEUS = {"prometheus": "http://127.0.0.1:9", "query": "sum(rate(hits[1m]))"}
EXAMPLE = Path(__file__).parents[3] / "examples" / "kubernetes" / "scale.toml"

pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

SMALL: dict[str, Any] = {
    "scaler": {"namespace": "prod"},
    "targets": [
        {
            "name": "deployment/web",
            "max_replicas": 9,
            "policy": {"type": "target-tracking", "cpu": 0.7},
            "metrics": {"cpu": "kubernetes"},
        }
    ],
}


MAX_OF = {"type": "max-of", "policies": ["latency", "?"]}
RATES = [{"type": "x", "value": 1}]


def load_function() -> float:
    return 7.0


def small(**target: Any) -> dict[str, Any]:
    data = copy.deepcopy(SMALL)
    data["targets"][0].update(target)
    return data


def test_the_shipped_example_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "run", "--config", str(EXAMPLE), "--check"]) == 0
    said = capsys.readouterr().out
    assert "2 targets every 15 s; lease: eventperf-scaler" in said
    plan = build(read_file(str(EXAMPLE)))
    web, checkout = plan.scalers
    assert isinstance(web.policy, TargetTracking)
    assert isinstance(checkout.policy, LatencyPolicy)
    assert (web.min_replicas, checkout.min_replicas) == (2, 4)
    assert web.behavior.down.window == 300
    query = checkout.metrics._sources["rps"].queries["rps"].query  # type: ignore[attr-defined]
    assert 'deployment="checkout"' in query
    plan.close()


def test_what_is_commented_out_in_the_example_is_valid_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slack").write_text("https://hooks.example.com/s3cret\n")
    monkeypatch.setenv("DECISIONS_URL", f"sqlite:///{tmp_path}/d.db")
    lines = EXAMPLE.read_text("utf-8").splitlines()
    keys = ("# database_env", "# [[alerts]]", "# type", "# url_file")
    text = "\n".join(line[2:] if line.startswith(keys) else line for line in lines)
    text = text.replace("/etc/eventperf-secrets", str(tmp_path))
    path = tmp_path / "scale.toml"
    path.write_text(text)
    plan = build(read_file(str(path)))
    assert repr(plan.scalers[0].log).startswith("<eventperf.scaling.records.sql.SqlDecisionLog")
    assert "s3cret" not in repr(plan.scalers[0]._episodes._sinks)
    plan.close()


def test_json_of_the_same_shape_works(tmp_path: Path) -> None:
    path = tmp_path / "scale.json"
    path.write_text(json.dumps(SMALL))
    plan = build(read_file(str(path)), dry_run=True)
    assert [s.target.name for s in plan.scalers] == ["prod/deployment/web"]
    assert plan.dry_run
    assert plan.scalers[0].dry_run
    plan.close()


def test_policies_by_name_and_composed() -> None:
    parts = ["thresholds", {"type": "latency", "wait": "400ms"}]
    plan = build(small(policy={"type": "max-of", "policies": parts}))
    policy = plan.scalers[0].policy
    assert isinstance(policy, MaxOf)
    assert [type(p) for p in policy.policies] == [ThresholdPolicy, LatencyPolicy]
    plan.close()
    plan = build(small(policy="eventperf.scaling:ThresholdPolicy"))
    assert isinstance(plan.scalers[0].policy, ThresholdPolicy)
    plan.close()


def test_a_function_of_the_program_is_a_metric() -> None:
    plan = build(small(metrics={"rps": f"{__name__}:load_function"}, policy={"type": "latency"}))
    assert plan.scalers[0].metrics.read()["rps"].value == 7.0
    plan.close()


def test_a_calendar_from_a_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_text('[{"at": "2026-11-28T19:00:00+01:00", "kind": "doors", "expected": 800}]')
    data = small(policy={"type": "calendar", "wait": "300ms"})
    plan = build({**data, "calendar": {"file": str(path), "refresh": 1}})
    calendar = plan.scalers[0].calendar
    at = 1795888800.0
    assert calendar is not None
    assert [(e.at, e.kind, e.expected) for e in calendar.around(at)] == [(at, "doors", 800)]
    path.write_text("[]")
    assert calendar.around(at + 2) == ()
    path.write_text("broken")
    assert calendar.around(at + 4) == ()
    plan.close()


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "broken", '[{"kind": "doors"}]', '[{"at": "2026-11-28T19:00", "kind": "doors"}]']
)
def test_a_calendar_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        build({**SMALL, "calendar": {"file": str(path)}})
    assert caught.value.argument == "calendar.file"


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(data: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        at: Any = data
        for name in parents:
            at = at[int(name)] if name.isdigit() else at.setdefault(name, {})
        at[last] = value

    return apply


@pytest.mark.parametrize(
    ("key", "path", "value"),
    [
        ("scaler.interval", "scaler.interval", "soon"),
        ("scaler.dry_run", "scaler.dry_run", "yes"),
        ("scaler.workers", "scaler.workers", 0),
        ("scaler.intervals", "scaler.intervals", 15),
        ("surprise", "surprise", {}),
        ("kubernetes.timeout", "kubernetes.timeout", -1),
        ("leader.renew_deadline", "leader.renew_deadline", "20s"),
        ("leader.lease", "leader.lease", 0),
        ("log.file", "log", {"file": "a", "database": "sqlite://"}),
        ("log.engine", "log.database", "no url"),
        ("log.steady", "log.steady", 1),
        ("alerts", "alerts", {"type": "log"}),
        ("alerts[0].type", "alerts", [{"type": "pigeon"}]),
        ("alerts[0].url", "alerts", [{"type": "slack"}]),
        ("alerts[0].url", "alerts", [{"type": "webhook", "url": "ftp://s3cret"}]),
        ("alerts[0].url", "alerts", [{"type": "webhook", "url": ["s3cret"]}]),
        ("alerts[0].url_env", "alerts", [{"type": "webhook", "url_env": "NOT_SET_ANYWHERE"}]),
        ("alerts[0].url_file", "alerts", [{"type": "webhook", "url_file": "/nowhere"}]),
        ("alerts[0].url_env", "alerts", [{"type": "webhook", "url": "https://s3cret", "url_env": "HOME"}]),
        ("alerts[0].function", "alerts", [{"type": "callable", "function": "json:nothing"}]),
        ("targets", "targets", []),
        ("targets[0]", "targets", ["deployment/web"]),
        ("targets[0].name", "targets.0.name", 7),
        ("targets[0].target", "targets.0.name", "web"),
        ("targets[0].max_replicas", "targets.0.max_replicas", 2.5),
        ("targets[0].max_replicas", "targets.0.min_replicas", 10),
        ("targets[0].min_replica", "targets.0.min_replica", 1),
        ("targets[0].policy.type", "targets.0.policy", "magic"),
        ("targets[0].policy.type", "targets.0.policy", {}),
        ("targets[0].policy.cpu", "targets.0.policy.cpu", -1),
        ("targets[0].policy.gpu", "targets.0.policy.gpu", 0.5),
        ("targets[0].policy.cpu", "targets.0.policy", {"type": "target-tracking", "cpu": "much"}),
        ("targets[0].policy", "targets.0.policy", "no.such.module:x"),
        ("targets[0].policy.policies[1].type", "targets.0.policy", MAX_OF),
        ("targets[0].metrics", "targets.0.metrics", {}),
        ("targets[0].metrics.gpu", "targets.0.metrics.gpu", "kubernetes"),
        ("targets[0].metrics.rps", "targets.0.metrics.rps", "kubernetes"),
        ("targets[0].metrics.rps.query", "targets.0.metrics.rps", {"prometheus": "http://p"}),
        ("targets[0].metrics.rps.url", "targets.0.metrics.rps", {"prometheus": "p", "query": "up"}),
        ("targets[0].behavior.down.window", "targets.0.behavior.down.window", "2h"),
        ("targets[0].behavior.up.select", "targets.0.behavior.up.select", "avg"),
        ("targets[0].behavior.up.policies[0].type", "targets.0.behavior.up.policies", RATES),
        ("targets[0].behavior.tolerance.up", "targets.0.behavior.tolerance", 3),
        ("targets[0].max_age", "targets.0.max_age", 0),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_key(key: str, path: str, value: Any) -> None:
    data = copy.deepcopy(SMALL)
    change(path, value)(data)
    with pytest.raises(ConfigurationError) as caught:
        build(data)
    assert caught.value.argument == key
    assert "s3cret" not in str(caught.value)


def test_a_key_that_is_missing_is_named() -> None:
    data = copy.deepcopy(SMALL)
    del data["targets"][0]["max_replicas"]
    with pytest.raises(ConfigurationError, match=r"targets\[0\]\.max_replicas: got 'nothing'"):
        build(data)


def test_one_target_twice_is_refused() -> None:
    data = copy.deepcopy(SMALL)
    data["targets"].append(data["targets"][0])
    with pytest.raises(ConfigurationError, match=r"targets\[1\]\.name"):
        build(data)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["json:loads", "--config", "x.toml"],
        ["json:loads", "--dry-run"],
        ["--config", "nowhere.toml"],
        ["--config", "bad.toml"],
        ["--config", "list.json"],
    ],
)
def test_the_command_says_what_is_wrong_in_one_sentence(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text("targets = [")
    Path("list.json").write_text("[]")
    assert main(["scale", "run", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "allowed" in said


@pytest.mark.parametrize(
    ("policy", "metrics", "missing"),
    [
        ("latency", {"cpu": "kubernetes"}, ["metrics.rps"]),
        ("latency", {"rps": PROMETHEUS}, ["metrics.cpu"]),
        ({"type": "latency", "capacity_rps": 40}, {"rps": PROMETHEUS}, []),
        ("predictive", {"memory": "kubernetes"}, ["metrics.rps", "metrics.cpu"]),
        ("calendar", {"rps": PROMETHEUS, "cpu": "kubernetes"}, ["[calendar]"]),
        ({"type": "target-tracking", "rps": 5, "backlog": 3}, {"rps": PROMETHEUS}, ["metrics.backlog"]),
        ("thresholds", {"rps": PROMETHEUS}, ["metrics.cpu"]),
        ("thresholds", {"memory": "kubernetes"}, []),
        ({"type": "max-of", "policies": ["thresholds", "latency"]}, {"cpu": "kubernetes"}, ["metrics.rps"]),
    ],
)
def test_what_can_never_work_is_found_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: Any, metrics: Any, missing: list[str]
) -> None:
    target = {"name": "deployment/web", "max_replicas": 5, "policy": policy, "metrics": metrics}
    path = tmp_path / "scale.json"
    path.write_text(json.dumps({"targets": [target]}))
    assert main(["scale", "run", "--config", str(path), "--check"]) == (1 if missing else 0)
    shown = capsys.readouterr()
    said = shown.err
    assert said.count("can never work") == len(missing)
    read = shown.out.partition("Read once, nothing changed")[2]
    assert set(metrics) < set(read.replace("│", " ").split()), "each was read, or tried"
    assert "could not be read now" in said
    for name in missing:
        assert name in said


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ('sum(up{app="$app"})', "$app"), ("sum(up{app='${app}'})", "${app}"), ("{{ .Values.app }}", None),
        ('up{a="$name_2"}', "$name_2"), ("{{app}}", "{{app}}"),
        ('label_replace(up, "a", "$1", "b", "(.*)")', ""), ('up{a="$name", b="${namespace}"}', ""),
    ],
)  # fmt: skip
def test_a_query_with_a_placeholder_that_nothing_fills_is_refused(query: str, wrong: str | None) -> None:
    metrics = {"rps": {**PROMETHEUS, "query": query}}
    target = {"name": "deployment/web", "max_replicas": 5, "metrics": metrics}
    if wrong == "":
        build({"targets": [target]}).close()
        return
    with pytest.raises(ConfigurationError) as caught:
        build({"targets": [target]})
    assert caught.value.argument == "targets[0].metrics.rps.query"
    assert wrong is None or wrong in str(caught.value)


@pytest.mark.parametrize(
    ("data", "key", "near"),
    [
        ({"max_replica": 8, "max_replicas": None}, "targets[0].max_replica", "max_replicas"),
        ({"metric": {"cpu": "kubernetes"}, "metrics": None}, "targets[0].metric", "metrics"),
        ({"metrics": {"rps": {"prometheus": "http://h", "query_": "x"}}},
         "targets[0].metrics.rps.query_", "query"),
        ({"behavior": {"up": {"policies": [{"typ": "pods", "value": 1}]}}},
         "targets[0].behavior.up.policies[0].typ", "type"),
    ],
)  # fmt: skip
def test_a_slip_is_named_and_not_the_key_it_leaves_missing(data: dict[str, Any], key: str, near: str) -> None:
    whole = small(**data)
    whole["targets"][0] = {k: v for k, v in whole["targets"][0].items() if v is not None}
    with pytest.raises(ConfigurationError, match="an unknown key") as error:
        build(whole)
    assert error.value.argument == key
    assert near in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "near"), [("target", "targets"), ("logs", "log"), ("default", "defaults"), ("alert", "alerts")]
)
def test_a_slip_in_the_name_of_a_table_is_named(wrong: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=f"is {near} meant") as error:
        build({wrong: []})
    assert error.value.argument == wrong


def test_what_an_import_left_open_is_an_error_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hpa = {
        "kind": "HorizontalPodAutoscaler",
        "apiVersion": "autoscaling/v2",
        "metadata": {"name": "web", "namespace": "prod"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "maxReplicas": 8,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": "hits"},
                        "target": {"type": "AverageValue", "averageValue": "50"},
                    },
                }
            ],
        },
    }
    (tmp_path / "hpa.json").write_text(json.dumps(hpa))
    assert main(["scale", "import", str(tmp_path / "hpa.json")]) == 0
    (tmp_path / "scale.toml").write_text(capsys.readouterr().out)
    assert main(["scale", "run", "--config", str(tmp_path / "scale.toml"), "--check"]) != 0
    said = capsys.readouterr()
    assert "targets[0].metrics.rps.query" in said.err
    assert "Valid" not in said.out + said.err


def test_readings_end_at_their_limit_and_name_what_was_not_read() -> None:
    go = threading.Event()
    asked = []

    class Slow:
        metrics = None

        def __init__(self, number: int) -> None:
            self.target = self
            self.name = f"t{number}"

        def read(self) -> None:
            asked.append(self.name)
            go.wait(20)

    many: Any = tuple(Slow(n) for n in range(2000))
    try:
        found = list(readings(many, limit_s=0.05))
    finally:
        go.set()
    assert [r.target for r in found] == [s.name for s in many]
    assert not any(r.is_read for r in found)
    assert "not read within 0.05 s" in found[-1].error
    assert len(asked) <= 8
