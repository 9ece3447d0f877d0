"""The stand-in cluster driven by the real kubectl: what the docs tell people to type works on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventperf.scaling import AutoScaler, CallableMetrics, KubernetesTarget, TargetTracking
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.testing.kubernetes import KubernetesServer, deployment
from eventperf.testing.kubernetes.resources import Resource
from kubectl import Kubectl

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[3] / "examples" / "kubernetes"


@pytest.fixture
def cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer(schemas=True, startup_s=0.1) as server:
        yield server


@pytest.fixture
def kubectl(cluster: KubernetesServer, tmp_path: Path) -> Kubectl:
    return Kubectl(cluster, tmp_path)


def test_lists_are_tables_and_columns_are_right(cluster: KubernetesServer, kubectl: Kubectl) -> None:
    cluster.create_deployment("web", replicas=2)
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    head, row = kubectl("get", "deploy").splitlines()
    assert head.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:4] == ["web", "2/2", "2", "2"]
    pods = [line.split() for line in kubectl("get", "pods", "--no-headers").splitlines()]
    assert [p[1:3] for p in pods] == [["1/1", "Running"]] * 2
    (held,) = kubectl("get", "rs", "--no-headers").splitlines()
    assert held.split()[1:4] == ["2", "2", "2"]
    assert "web" in kubectl("get", "all")
    assert len(json.loads(kubectl("get", "pods", "-o", "json"))["items"]) == 2
    assert kubectl("get", "ns", "-o", "name").split() == [
        "namespace/default", "namespace/kube-node-lease", "namespace/kube-public", "namespace/kube-system",
    ]  # fmt: skip


def test_what_was_applied_twice_is_unchanged_and_a_third_time_configured(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    body = deployment("web", replicas=2)
    assert kubectl("apply", "-f", "-", given=body) == "deployment.apps/web created\n"
    assert kubectl("apply", "-f", "-", given=body) == "deployment.apps/web unchanged\n"
    body["spec"]["replicas"] = 3
    assert kubectl("apply", "-f", "-", given=body) == "deployment.apps/web configured\n"
    assert cluster.replicas("deployments", "web") == 3
    assert kubectl("apply", "--dry-run=server", "-f", "-", given=deployment("other")).endswith(
        "(server dry run)\n"
    )
    assert [d["metadata"]["name"] for d in cluster.list("deployments", group="apps")] == ["web"]


def test_a_misspelt_field_is_refused_as_kubectl_asks_by_default(kubectl: Kubectl) -> None:
    body = deployment("web")
    body["spec"]["replica"] = 3
    assert 'unknown field "spec.replica"' in kubectl.refused("apply", "-f", "-", given=body)


def test_every_manifest_of_the_examples_is_applied_and_the_scaler_scales_what_kubectl_made(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    cluster.register(
        Resource(group="keda.sh", version="v1alpha1", plural="scaledobjects", kind="ScaledObject")
    )
    kubectl("create", "configmap", "eventperf-scaler", f"--from-file={EXAMPLES / 'scale.toml'}")
    assert "[scaler]" in cluster.get("configmaps", "eventperf-scaler")["data"]["scale.toml"]
    kubectl("create", "namespace", "staging")
    files = sorted(EXAMPLES.rglob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        kinds = [d["kind"] for d in yaml.safe_load_all(file.read_text("utf-8"))]
        made = kubectl("apply", "-f", file)
        assert made.count("created") + made.count("configured") == len(kinds), made
        assert kubectl("apply", "-f", file).count("unchanged") == len(kinds)
    kubectl("rollout", "status", "deployment/eventperf-scaler", "--timeout=30s")

    kubectl("apply", "-f", "-", given=deployment("web", replicas=2))
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    with KubernetesApi.at(cluster.url) as api:
        target = KubernetesTarget("deployment/web", namespace="default", api=api)
        scaler = AutoScaler(
            target, CallableMetrics(rps=lambda: 300.0), TargetTracking(rps=50), max_replicas=9
        )
        assert scaler.tick().applied
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "6"
    assert "ScaledUp" in kubectl("get", "events")
    kubectl("annotate", "deployment", "web", "eventperf/frozen=true")
    with KubernetesApi.at(cluster.url) as api:
        assert KubernetesTarget("deployment/web", namespace="default", api=api).read().frozen


def test_a_rolling_update_goes_pod_by_pod_and_can_be_paused_and_undone(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    body = deployment("web", replicas=4)
    kubectl("apply", "-f", "-", given=body)
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    most = [0]
    ready = [4]

    def count(change: object) -> None:
        pods = cluster.list("pods")
        most[0] = max(most[0], len(pods))
        conditions = [c for p in pods for c in p["status"]["conditions"] if c["type"] == "Ready"]
        ready[0] = min(ready[0], sum(c["status"] == "True" for c in conditions))

    cluster.store.shelves["", "pods"].listeners.append(count)
    kubectl("set", "image", "deployment/web", "main=registry.invalid/app:2")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    images = {c["image"] for p in cluster.list("pods") for c in p["spec"]["containers"]}
    assert images == {"registry.invalid/app:2"}
    assert most[0] == 5, "one more than wanted, as maxSurge says"
    assert ready[0] >= 3, "never fewer than maxUnavailable leaves"
    assert kubectl("get", "rs", "--no-headers").count("web-") == 2

    kubectl("rollout", "pause", "deployment/web")
    kubectl("set", "image", "deployment/web", "main=registry.invalid/app:3")
    assert {c["image"] for p in cluster.list("pods") for c in p["spec"]["containers"]} == images
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert {c["image"] for p in cluster.list("pods") for c in p["spec"]["containers"]} == {
        "registry.invalid/app:3"
    }


def test_a_json_patch_and_a_scale_are_done_and_a_bad_one_changes_nothing(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    cluster.create_deployment("web", replicas=2)
    patch = (
        '[{"op":"test","path":"/spec/replicas","value":2},{"op":"replace","path":"/spec/replicas","value":3}]'
    )
    kubectl("patch", "deployment", "web", "--type=json", "-p", patch)
    assert cluster.replicas("deployments", "web") == 3
    assert "test does not hold" in kubectl.refused("patch", "deployment", "web", "--type=json", "-p", patch)
    kubectl("scale", "deployment/web", "--replicas=0")
    assert cluster.replicas("deployments", "web") == 0
    kubectl("delete", "deployment", "web", "--wait=false", "--dry-run=server")
    assert "web" in kubectl("get", "deployment", "web")
    kubectl("delete", "deployment", "web", "--wait=false")
    assert "not found" in kubectl.refused("get", "deployment", "web")


def test_an_update_is_undone_to_the_one_before_and_to_any_that_is_named(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    cluster.create_deployment("web", replicas=2)

    def image() -> str:
        (container,) = cluster.get("deployments", "web", group="apps")["spec"]["template"]["spec"][
            "containers"
        ]
        return str(container["image"])

    first = image()
    for number in (2, 3):
        kubectl("set", "image", "deployment/web", f"main=registry.invalid/app:{number}")
        assert image() == f"registry.invalid/app:{number}"
    kubectl("rollout", "undo", "deployment/web")
    assert image() == "registry.invalid/app:2"
    kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
    assert image() == first
    history = kubectl("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["3", "4", "5"]
    assert "unable to find" in kubectl.refused("rollout", "undo", "deployment/web", "--to-revision=1")


DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: scaledobjects.keda.sh}
spec:
  group: keda.sh
  scope: Namespaced
  names: {kind: ScaledObject, listKind: ScaledObjectList, plural: scaledobjects, shortNames: [so]}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    additionalPrinterColumns:
    - {jsonPath: .spec.minReplicaCount, name: Min, type: integer}
    - {jsonPath: .spec.maxReplicaCount, name: Max, type: integer}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            required: [scaleTargetRef, triggers]
            properties:
              minReplicaCount: {type: integer, format: int32}
              maxReplicaCount: {type: integer, format: int32, minimum: 1}
              pollingInterval: {type: integer, default: 30}
              scaleTargetRef:
                type: object
                required: [name]
                properties: {name: {type: string}, kind: {type: string}}
              triggers:
                type: array
                minItems: 1
                items:
                  type: object
                  required: [type, metadata]
                  properties:
                    type: {type: string}
                    metadata: {type: object, additionalProperties: {type: string}}
    subresources: {status: {}}
"""
SCALED: dict[str, Any] = {
    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"},
    "spec": {
        "scaleTargetRef": {"name": "web"}, "minReplicaCount": 2, "maxReplicaCount": 20,
        "triggers": [{"type": "cron", "metadata": {"timezone": "UTC", "desiredReplicas": "5"}}],
    },
}  # fmt: skip


def test_a_definition_brings_a_kind_whose_objects_are_checked_filled_in_and_gone_with_it(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    assert "no matches for kind" in kubectl.refused("apply", "-f", "-", given=SCALED)
    kubectl("apply", "-f", "-", given=DEFINITION)
    kubectl("wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=30s")
    assert kubectl("apply", "-f", "-", given=SCALED) == "scaledobject.keda.sh/web created\n"
    assert kubectl("apply", "-f", "-", given=SCALED) == "scaledobject.keda.sh/web unchanged\n"
    assert kubectl("get", "so").split()[:7] == ["NAME", "MIN", "MAX", "AGE", "web", "2", "20"]
    assert kubectl("get", "so", "web", "-o", "jsonpath={.spec.pollingInterval}") == "30"

    wrong = {**SCALED, "spec": {**SCALED["spec"], "maxReplicas": 3}}
    assert 'unknown field "spec.maxReplicas"' in kubectl.refused("apply", "-f", "-", given=wrong)
    wrong = {**SCALED, "spec": {**SCALED["spec"], "maxReplicaCount": 0, "scaleTargetRef": {}}}
    refused = kubectl.refused("apply", "-f", "-", given=wrong)
    assert "should be greater than or equal to 1" in refused
    assert "spec.scaleTargetRef.name: Required value" in refused
    kubectl("delete", "crd", "scaledobjects.keda.sh")
    assert ("keda.sh", "scaledobjects") not in cluster.store.shelves
    assert "NotFound" in kubectl.refused("apply", "-f", "-", given=SCALED)


def test_a_cluster_without_nodes_says_so_to_top_and_get(cluster: KubernetesServer, kubectl: Kubectl) -> None:
    assert "metrics not available yet" in kubectl.refused("top", "nodes")
    kubectl("get", "nodes")
    assert "No resources found" in kubectl.said


def test_kinds_and_their_fields_are_explained_those_of_a_definition_too(kubectl: Kubectl) -> None:
    said = kubectl("explain", "deployment.spec.replicas")
    assert "FIELD: replicas <integer>" in said
    assert "Number of desired pods" in said
    assert "scaleTargetRef" in kubectl("explain", "hpa.spec")
    assert "requests" in kubectl("explain", "pods.spec.containers.resources", "--recursive")
    assert "does not exist" in kubectl.refused("explain", "deployment.spec.replica")
    kubectl("explain", "crd.spec.versions")
    kubectl("apply", "-f", "-", given=DEFINITION)
    assert "maxReplicaCount" in kubectl("explain", "scaledobjects.spec")


def test_an_autoscaler_is_made_by_kubectl_and_shown(cluster: KubernetesServer, kubectl: Kubectl) -> None:
    cluster.create_deployment("web", replicas=2)
    kubectl("autoscale", "deployment", "web", "--min=1", "--max=5", "--cpu-percent=80")
    (made,) = cluster.list("horizontalpodautoscalers", group="autoscaling")
    spec = made["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 5)
    (metric,) = spec["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
    assert kubectl("get", "hpa").splitlines()[1].split()[:4] == ["web", "Deployment/web", "1", "5"]
    refused = kubectl.refused("autoscale", "deployment", "web", "--name=other", "--min=6", "--max=5")
    assert "max" in refused.lower()
