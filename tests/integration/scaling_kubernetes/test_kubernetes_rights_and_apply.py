"""Server-side apply and access reviews of the stand-in, driven by the real kubectl."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventperf.scaling import AutoScaler, CallableMetrics, KubernetesTarget, TargetTracking
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.testing.kubernetes import KubernetesServer, deployment
from kubectl import Kubectl

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[3] / "examples" / "kubernetes"
SCALER = "--as=system:serviceaccount:default:eventperf-scaler"


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer(schemas=True) as server:
        yield server


@pytest.fixture(scope="module")
def kubectl(cluster: KubernetesServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(cluster, tmp_path_factory.mktemp("kubectl"))


def eventually(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_the_scaler_changed_is_a_conflict_until_it_is_forced_or_given_up(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    def apply(*options: str, refused: bool = False, **spec: object) -> str:
        body = deployment("web", replicas=2)
        body["spec"] |= spec
        if spec.get("replicas", 0) is None:
            del body["spec"]["replicas"]
        run = kubectl.refused if refused else kubectl
        return run("apply", "--server-side", *options, "-f", "-", given=body)

    assert apply() == "deployment.apps/web serverside-applied\n"
    before = cluster.get("deployments", "web", group="apps")
    apply()
    assert cluster.get("deployments", "web", group="apps")["spec"] == before["spec"]
    with KubernetesApi.at(cluster.url) as api:
        target = KubernetesTarget("deployment/web", namespace="default", api=api)
        load = CallableMetrics(rps=lambda: 300.0)
        assert AutoScaler(target, load, TargetTracking(rps=50), max_replicas=9).tick().applied
    said = apply(refused=True)
    assert 'conflict with "eventperf" with subresource "scale"' in said
    assert ".spec.replicas" in said
    assert cluster.replicas("deployments", "web") == 6
    apply("--force-conflicts")
    assert cluster.replicas("deployments", "web") == 2
    cluster.scale("deployments", "web", 5)
    apply(replicas=None, refused=False)
    shown = kubectl("get", "deploy", "web", "-o", "yaml", "--show-managed-fields")
    assert "manager: kubectl\n" in shown
    assert "f:replicas: {}" not in shown.partition("status:")[0]


def test_kubectl_is_told_what_the_scaler_s_account_may_do(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    kubectl("apply", "-f", EXAMPLES / "rbac.yaml")
    assert kubectl("auth", "can-i", "delete", "nodes") == "yes\n"
    may = kubectl("auth", "can-i", "patch", "deployments", "--subresource=scale", SCALER)
    assert may == "yes\n"
    assert kubectl.run("auth", "can-i", "delete", "pods", SCALER).stdout == "no\n"
    assert kubectl.run("auth", "can-i", "list", "pods", SCALER, "-n", "kube-system").stdout == "no\n"
    assert "deployments.apps/scale" in kubectl("auth", "can-i", "--list", SCALER)
    kubectl("get", "pods", SCALER)
    assert "cannot list resource" in kubectl.refused("get", "secrets", SCALER)
    cluster.enforce([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    try:
        assert kubectl("auth", "can-i", "get", "pods") == "yes\n"
        assert kubectl.run("auth", "can-i", "get", "secrets").stdout == "no\n"
    finally:
        cluster.enforce(None)


def test_a_namespace_takes_what_is_in_it_along_and_a_replica_set_has_pods_of_its_own(
    cluster: KubernetesServer, kubectl: Kubectl
) -> None:
    kubectl("create", "namespace", "short")
    kubectl("create", "deployment", "app", "--image=registry.invalid/app:1", "--port=80", "-n", "short")
    assert cluster.get("deployments", "app", namespace="short", group="apps")["spec"]["template"]["spec"] == {
        "containers": [{"name": "app", "image": "registry.invalid/app:1", "ports": [{"containerPort": 80}]}]
    }
    body = deployment("alone", replicas=2)
    kubectl("apply", "-n", "short", "-f", "-", given={**body, "kind": "ReplicaSet"})
    eventually(lambda: len(cluster.list("pods", namespace="short")) == 3)
    kubectl("scale", "rs/alone", "--replicas=3", "-n", "short")
    eventually(lambda: len(cluster.list("pods", namespace="short")) == 4)
    assert kubectl("get", "rs", "alone", "-n", "short", "--no-headers").split()[1:3] == ["3", "3"]
    head, row = kubectl("get", "deploy", "app", "-n", "short", "--subresource=scale").splitlines()
    assert head.split()[:2] == ["NAME", "DESIRED"]
    assert row.split()[:2] == ["app", "1"]
    kubectl("delete", "namespace", "short", "--wait=false")
    eventually(lambda: not cluster.list("pods", namespace="short"))
    assert "not found" in kubectl.refused("create", "configmap", "late", "-n", "short")
    assert kubectl("get", "--raw", "/readyz") == "ok"
