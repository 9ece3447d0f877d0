"""A user's HPA or ScaledObject, carried over: the same behavior and targets; what differs is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventperf.cli.main import main
from eventperf.cli.scale.config import build, read_file
from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    AutoScaler,
    Behavior,
    CallableMetrics,
    Observation,
    RatePolicy,
    Rules,
    Sample,
    SimulatedTarget,
    TargetState,
    TargetTracking,
    Tolerance,
)
from eventperf.scaling.behavior import HPA_DOWN, HPA_UP, PLAIN_UP


def hpa(metrics: list[Any] | None = None, **spec: Any) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": reference, "minReplicas": 2, "maxReplicas": 9, **spec}
    if metrics is not None:
        spec["metrics"] = metrics
    meta = {"name": "web", "namespace": "prod"}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec}


def resource(name: str, percent: int, container: str | None = None) -> dict[str, Any]:
    part = {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}
    if container:
        return {"type": "ContainerResource", "containerResource": {**part, "container": container}}
    return {"type": "Resource", "resource": part}


def external(**target: str) -> dict[str, Any]:
    return {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "x", **target}}}


TEN = [{"type": "Pods", "value": 10, "periodSeconds": 60}]


@pytest.mark.parametrize(
    ("behavior", "up", "down", "tolerance"),
    [
        (None, PLAIN_UP, HPA_DOWN, Tolerance()),
        ({}, PLAIN_UP, HPA_DOWN, Tolerance()),
        ({"scaleDown": {"stabilizationWindowSeconds": 0}}, HPA_UP,
         Rules(policies=HPA_DOWN.policies), Tolerance()),
        ({"scaleUp": {"policies": TEN}},
         Rules(policies=(RatePolicy(type="pods", value=10, period=60),)), HPA_DOWN, Tolerance()),
        ({"scaleUp": {"selectPolicy": "Disabled", "tolerance": "50m"}},
         Rules(policies=HPA_UP.policies, select="disabled"), HPA_DOWN, Tolerance(up=0.05)),
        ({"scaleDown": {"selectPolicy": "Min", "tolerance": "0.2"}}, HPA_UP,
         Rules(window=300, policies=HPA_DOWN.policies, select="min"), Tolerance(down=0.2)),
    ],
)  # fmt: skip
def test_what_a_behavior_leaves_out_has_the_defaults_of_kubernetes(
    behavior: Any, up: Rules, down: Rules, tolerance: Tolerance
) -> None:
    found = Behavior.from_hpa(hpa(behavior=behavior))
    assert (found.up, found.down, found.tolerance) == (up, down, tolerance)
    keda = {"spec": {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}}}}
    assert Behavior.from_hpa(keda) == found


def test_rules_that_a_manifest_spells_out_bind_a_policy_that_paces_itself() -> None:
    found = Behavior.from_hpa(hpa(behavior={"scaleUp": {"stabilizationWindowSeconds": 0}}))
    assert not found.up.implied


@pytest.mark.parametrize(
    ("behavior", "argument"),
    [
        ({"scaleUp": {"policies": [{"type": "Often", "value": 1}]}}, "behavior.scaleUp.policies[0].type"),
        ({"scaleDown": {"selectPolicy": "Any"}}, "behavior.scaleDown.selectPolicy"),
        ({"scaleDown": {"tolerance": "much"}}, "behavior.scaleDown.tolerance"),
        ({"scaleUp": {"policies": [{"type": "Pods"}]}}, "value"),
    ],
)
def test_a_rule_that_kubernetes_refuses_is_refused(behavior: Any, argument: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Behavior.from_hpa(hpa(behavior=behavior))
    assert caught.value.argument == argument


def imported(path: Path, obj: Any, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    path.write_text(json.dumps(obj))
    assert main(["scale", "import", str(path)]) == 0
    said = capsys.readouterr()
    config = path.with_suffix(".toml")
    config.write_text(said.out.replace("REPLACE ME", "sum(hits)"))  # as people are told to
    plan = build(read_file(str(config)))
    plan.close()
    assert not plan.unseen
    return plan.scalers[0], said.err


@pytest.mark.parametrize(
    ("metrics", "targets", "totals", "differs"),
    [
        (None, {"cpu": 0.8}, (), ""),
        ([resource("cpu", 70), resource("memory", 60)], {"cpu": 0.7, "memory": 0.6}, (), ""),
        ([resource("cpu", 70, "app")], {"cpu": 0.7}, (), ""),
        ([external(averageValue="30")], {"rps": 30.0}, (), "PromQL"),
        ([external(value="500m")], {"rps": 0.5}, ("rps",), "PromQL"),
        ([external(value="1k"), external(averageValue="2"), external(value="3")],
         {"rps": 1000.0, "backlog": 2.0}, ("rps",), "no more than two"),
    ],
)  # fmt: skip
def test_an_hpa_becomes_a_file_that_check_accepts(
    metrics: Any, targets: dict[str, float], totals: tuple[str, ...], differs: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    scaler, said = imported(tmp_path / "hpa.json", hpa(metrics), capsys)
    assert isinstance(scaler.policy, TargetTracking)
    assert (scaler.policy.targets, scaler.policy.totals) == (targets, totals)
    assert (scaler.target.name, scaler.min_replicas, scaler.max_replicas) == ("prod/deployment/web", 2, 9)
    assert (differs in said) if differs else not said


def test_its_behavior_comes_back_from_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, behavior in enumerate(
        [None, {"scaleDown": {"stabilizationWindowSeconds": 60}},
         {"scaleUp": {"policies": TEN, "tolerance": 0.2}}, {"scaleDown": {"selectPolicy": "Disabled"}}]
    ):  # fmt: skip
        obj = hpa([resource("cpu", 70)], behavior=behavior)
        scaler, _ = imported(tmp_path / f"{number}.json", obj, capsys)
        assert scaler.behavior == Behavior.from_hpa(obj)


def test_a_scaled_object_becomes_a_file_and_its_cron_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = 'sum(rate(hits{app="web"}[1m]))'
    triggers = [
        {
            "type": "prometheus",
            "metadata": {"serverAddress": "http://p:9090", "query": query, "threshold": "5"},
        },
        {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}},
        {"type": "cron", "metadata": {"start": "0 9 * * *", "end": "0 10 * * *"}},
    ]
    spec = {"scaleTargetRef": {"name": "worker"}, "maxReplicaCount": 30, "triggers": triggers}
    obj = {"kind": "ScaledObject", "metadata": {"name": "worker"}, "spec": spec}
    scaler, said = imported(tmp_path / "keda.json", obj, capsys)
    assert scaler.policy.targets == {"rps": 5.0, "cpu": 0.6}
    assert (scaler.min_replicas, scaler.max_replicas) == (0, 30)
    assert "cron 0 9 * * *" in said
    assert query in (tmp_path / "keda.toml").read_text().replace('\\"', '"')


def test_a_target_for_all_replicas_together_changes_them_by_its_ratio() -> None:
    seen = Observation(
        at_s=0.0, state=TargetState(replicas=4, ready=4), min_replicas=1, max_replicas=99,
        samples={"backlog": Sample(value=300.0)},
    )  # fmt: skip
    assert TargetTracking(backlog=100, totals=["backlog"]).decide(seen).replicas == 12
    assert TargetTracking(backlog=100).decide(seen).replicas == 3
    with pytest.raises(ConfigurationError, match="totals"):
        TargetTracking(rps=1, totals=["backlog"])


def test_a_file_that_holds_no_autoscaler_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text("kind: ConfigMap\nmetadata: {name: x}\n")
    assert main(["scale", "import", str(tmp_path / "x.yaml")]) == 2
    assert "HorizontalPodAutoscaler" in capsys.readouterr().err


def test_an_old_scaled_object_names_its_deployment_and_one_without_a_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"apiVersion": "keda.k8s.io/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "so"}}
    path = tmp_path / "so.json"
    for reference, said in (
        ({"deploymentName": "consumer"}, 'name = "deployment/consumer"'),
        ({}, "scaleTargetRef.name"),
    ):
        path.write_text(json.dumps({**old, "spec": {"scaleTargetRef": reference, "triggers": []}}))
        code = main(["scale", "import", str(path)])
        out, err = capsys.readouterr()
        assert said in out + err
        assert code == (0 if reference else 2)


def test_a_file_without_a_metric_says_what_to_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, made = tmp_path / "so.json", tmp_path / "scale.toml"
    rabbit = {"type": "rabbitmq", "metadata": {"queueName": "hello"}}
    spec = {"scaleTargetRef": {"name": "consumer"}, "triggers": [rabbit]}
    path.write_text(json.dumps({"kind": "ScaledObject", "metadata": {"name": "so"}, "spec": spec}))
    assert main(["scale", "import", str(path)]) == 0
    text, said = capsys.readouterr()
    assert "rabbitmq" in said
    made.write_text(text)
    with pytest.raises(ConfigurationError, match=r"targets\[0\]\.metrics: got 'no metric'"):
        build(read_file(str(made)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"apiVersion": "autoscaling/v1", "spec": {"targetCPUUtilizationPercentage": 60}}, "cpu = 0.6"),
        ({"spec": {"maxReplicas": None}}, "spec.maxReplicas: got 'nothing'"),
        (
            {"spec": {"metrics": [external(averageValue="lots")]}},
            "target of queue: got 'lots'; allowed: a quantity",
        ),
    ],
)
def test_what_the_manifest_says_is_read_or_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    made = hpa()
    path = tmp_path / "hpa.json"
    path.write_text(json.dumps({**made, **change, "spec": {**made["spec"], **change["spec"]}}))
    main(["scale", "import", str(path)])
    assert said in "".join(capsys.readouterr())


def scaled_object(trigger: dict[str, Any], **spec: Any) -> dict[str, Any]:
    reference = {"scaleTargetRef": {"name": "web"}, "maxReplicaCount": 9}
    return {
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"},
        "spec": {**reference, "triggers": [trigger], **spec},
    }  # fmt: skip


@pytest.mark.parametrize("left_out", ["query", "serverAddress"])
def test_what_a_prometheus_trigger_does_not_say_is_asked_for(
    left_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"serverAddress": "http://prom:9090", "query": "sum(hits)", "threshold": "30"}
    del data[left_out]
    scaler, said = imported(
        tmp_path / "so.json", scaled_object({"type": "prometheus", "metadata": data}), capsys
    )
    assert scaler.policy.targets == {"rps": 30.0}
    assert f"prometheus without {left_out}" in said


def test_a_trigger_without_its_threshold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "so.json"
    file.write_text(json.dumps(scaled_object({"type": "prometheus", "metadata": {"query": "up"}})))
    assert main(["scale", "import", str(file)]) == 2
    assert "threshold of prometheus" in capsys.readouterr().err


def test_every_field_without_a_counterpart_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {
        "serverAddress": "http://prom:9090", "query": "sum(hits)", "threshold": "30",
        "activationThreshold": "5", "ignoreNullValues": "false", "authModes": "bearer",
    }  # fmt: skip
    trigger = {"type": "prometheus", "metadata": data, "authenticationRef": {"name": "prom"}}
    scaled = scaled_object(trigger, pollingInterval=15, idleReplicaCount=0)
    _, said = imported(tmp_path / "so.json", scaled, capsys)
    for name in ("activationThreshold = 5", "ignoreNullValues", "authModes", "authenticationRef",
                 "pollingInterval = 15", "idleReplicaCount"):  # fmt: skip
        assert name in said
    assert "starts with the first load" in said
    assert "bearer_file" in said


def carried(path: Path, obj: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    path.write_text(json.dumps(obj))
    code = main(["scale", "import", str(path)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("given", ["0", "-1", "NaN", "inf", "1e400", "", None, True, [1], {"a": 1}])
def test_a_target_that_no_check_would_take_is_refused_when_it_is_carried_over(
    given: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = carried(tmp_path / "hpa.json", hpa([external(averageValue=given)]), capsys)
    assert code == 2
    assert "target of queue" in said
    trigger = {"type": "prometheus", "metadata": {"query": "up", "threshold": given}}
    code, _, said = carried(tmp_path / "so.json", scaled_object(trigger), capsys)
    assert code == 2
    assert "of prometheus" in said


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"metrics": {"a": 1}}, "spec.metrics: "),
        ({"metrics": ["cpu"]}, "spec.metrics[0]: "),
        ({"metrics": [{"type": "Pods", "pods": []}]}, "spec.metrics[0].pods: "),
        ({"metrics": [resource("cpu", "much")]}, "spec.metrics[0]: averageUtilization: "),  # type: ignore[arg-type]
        ({"maxReplicas": "many"}, "spec.maxReplicas: "),
        ({"minReplicas": 12}, "spec.maxReplicas: "),
        ({"behavior": [1]}, "behavior: "),
        ({"behavior": {"scaleUp": {"policies": ["Pods"]}}}, "behavior.scaleUp.policies[0]: "),
        ({"behavior": {"scaleUp": {"policies": {}}}}, "behavior.scaleUp.policies: "),
        (
            {"behavior": {"scaleUp": {"policies": [{"type": ["Pods"]}]}}},
            "behavior.scaleUp.policies[0].type: ",
        ),
    ],
)
def test_a_part_of_another_shape_is_named(
    change: dict[str, Any], place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = carried(tmp_path / "hpa.json", hpa(**change), capsys)
    assert (code, place in said) == (2, True), said


@pytest.mark.parametrize(
    ("obj", "target", "limits"),
    [
        (hpa([]), {"cpu": 0.8}, (2, 9)),
        (hpa(minReplicas=None), {"cpu": 0.8}, (1, 9)),
        (hpa(behavior={"scaleUp": {"tolerance": None}}), {"cpu": 0.8}, (2, 9)),
        ([hpa()], {"cpu": 0.8}, (2, 9)),
        ({"kind": "List", "items": [None, hpa()]}, {"cpu": 0.8}, (2, 9)),
        ({**hpa(), "apiVersion": "autoscaling/v1"}, {"cpu": 0.8}, (2, 9)),
        ({**hpa([{"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 60}}]),
          "apiVersion": "autoscaling/v2beta1"}, {"cpu": 0.6}, (2, 9)),
        ({**hpa([{"type": "Pods", "pods": {"metricName": "hits", "targetAverageValue": "500m"}}]),
          "apiVersion": "autoscaling/v2beta1"}, {"rps": 0.5}, (2, 9)),
    ],
)  # fmt: skip
def test_what_the_api_server_fills_in_or_converts_is_carried_over(
    obj: Any, target: dict[str, float], limits: tuple[int, int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    scaler, _ = imported(tmp_path / "hpa.json", obj, capsys)
    assert scaler.policy.targets == target
    assert (scaler.min_replicas, scaler.max_replicas) == limits


def test_a_resource_given_twice_or_as_an_amount_is_said_and_not_mixed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaler, said = imported(
        tmp_path / "hpa.json", hpa([resource("cpu", 60), resource("cpu", 90, "app")]), capsys
    )
    assert scaler.policy.targets == {"cpu": 0.6}
    assert "cpu a second time" in said
    for metric, value in (("cpu", "500m"), ("memory", "512Mi"), ("memory", "50")):
        trigger = {"type": metric, "metricType": "AverageValue", "metadata": {"value": value}}
        code, out, said = carried(tmp_path / "so.json", scaled_object(trigger), capsys)
        assert code == 0
        assert f"{metric} of {value}: only shares" in said
        assert "[targets.metrics]\n# rps" in out, "nothing is made of an amount that is no share"


def test_two_autoscalers_of_one_target_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaler, said = imported(tmp_path / "all.json", {"kind": "List", "items": [hpa(), hpa([])]}, capsys)
    assert scaler.target.name == "prod/deployment/web"
    assert "keep one of the two" in said


def test_what_keda_does_beside_its_triggers_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cron = {"timezone": "Asia/Seoul", "start": "0 18 * * 5", "end": "0 8 * * 1", "desiredReplicas": "10"}
    obj = scaled_object(
        {"type": "cron", "metadata": cron},
        advanced={"scalingModifiers": {"formula": "a + b"}, "restoreToOriginalReplicaCount": True},
    )
    obj["metadata"]["annotations"] = {"autoscaling.keda.sh/paused": "true"}
    _, _, said = carried(tmp_path / "so.json", obj, capsys)
    entry = 'cron = "0 18 * * 5", timezone = "Asia/Seoul", min_replicas = 10, duration = "223200s"'
    for text in (entry, "scalingModifiers", "restoreToOriginalReplicaCount", "scale freeze"):
        assert text in said
    kafka = {"type": "kafka", "metadata": {"bootstrapServers": "k:9092", "lagThreshold": "50"}}
    _, _, said = carried(tmp_path / "so.json", scaled_object(kafka), capsys)
    assert "kafka (lagThreshold = 50)" in said


@pytest.mark.parametrize("replicas", [2**31, 10**30, -1, 1.5, True])
def test_more_replicas_than_kubernetes_takes_are_refused(replicas: Any) -> None:
    with pytest.raises(ConfigurationError, match="2147483647"):
        AutoScaler(
            SimulatedTarget(1), CallableMetrics(rps=lambda: 1.0), TargetTracking(rps=1), max_replicas=replicas
        )


def test_the_tables_of_a_check_fit_a_hundred_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "sum(rate(http_requests_total[1m]))" * 6
    file = tmp_path / "scale.toml"
    file.write_text(
        '[[targets]]\nname = "deployment/' + "w" * 40 + '"\nmax_replicas = 2147483647\n'
        'policy = { type = "target-tracking", rps = 50, cpu = 0.7, memory = 0.8, totals = ["rps"] }\n'
        f'[targets.metrics]\nrps = {{ prometheus = "http://127.0.0.1:9", query = "{query}" }}\n'
        'cpu = "kubernetes"\nmemory = "kubernetes"\n[kubernetes]\nkubeconfig = "'
        + str(tmp_path / "none")
        + '"\n'
    )
    main(["scale", "run", "--config", str(file), "--check"])
    shown = capsys.readouterr().out
    assert "2147483647" in shown
    assert max(map(len, shown.splitlines())) <= 100, shown
