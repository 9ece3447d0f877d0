"""metrics.k8s.io as the HPA sees it: shares of requests, missing and starting pods told apart."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import Alert, AutoScaler, CallableMetrics, TargetTracking
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.errors import KubernetesNotFound
from eventperf.scaling.backends.kubernetes.metrics import KubernetesMetrics, sample
from eventperf.scaling.backends.kubernetes.pods import Pod
from eventperf.scaling.backends.kubernetes.state import KubernetesState, PodUsage
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.scaling.model import Sample
from eventperf.testing import FakeClock
from eventperf.testing.kubernetes import KubernetesServer, deployment
from eventperf.testing.kubernetes.workloads import ready_pod

pytestmark = pytest.mark.integration

NOW = 10_000.0


@pytest.fixture
def state(server: KubernetesServer) -> Iterator[KubernetesState]:
    with KubernetesApi.at(server.url) as api, KubernetesState(api, metrics_age_s=60) as state:
        yield state


def _settled(server: KubernetesServer, pods: int) -> list[str]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = server.list("pods")
        if len(found) == pods and all(p["status"]["phase"] == "Running" for p in found):
            return [p["metadata"]["name"] for p in found]
        time.sleep(0.01)
    raise AssertionError("the pods did not come up")


def _read(state: KubernetesState, name: str, want: int) -> Mapping[str, Sample]:
    """Read when the pod watch has seen ``want`` pods."""
    end = time.monotonic() + 20
    while sum(p.phase == "Running" for p in state.pods("default", f"app={name}")) != want:
        assert time.monotonic() < end
        time.sleep(0.01)
    return KubernetesMetrics(KubernetesTarget(f"deployment/{name}", namespace="default", state=state)).read()


def test_usage_is_a_share_of_the_requests(server: KubernetesServer, state: KubernetesState) -> None:
    server.create_deployment("web", replicas=4, cpu="200m", memory="100Mi")
    server.create_deployment("api", replicas=1)
    for number, pod in enumerate(p for p in _settled(server, 5) if p.startswith("web")):
        server.set_usage(pod, cpu=f"{100 + 20 * number}m", memory="75Mi")
    web = _read(state, "web", 4)
    # pods started this second: their CPU does not count yet, their memory does
    assert web["cpu"].value is None
    assert web["cpu"].pods is not None
    assert [p.ready for p in web["cpu"].pods] == [False] * 4
    assert sorted(p.usage or 0 for p in web["cpu"].pods) == [100, 120, 140, 160]
    assert web["memory"].value == pytest.approx(0.75)
    assert web["memory"].age_s < 10
    api = _read(state, "api", 1)
    assert api["memory"].error == (
        "no ready pod has a sample of memory (of 1: 1 have none in metrics.k8s.io)"
    )
    assert (
        web["cpu"].error == "no ready pod has a sample of cpu (of 4: 4 are not ready or too young to count)"
    )
    assert server.counts["list", "pods"] == 2  # once the pods, once the metrics of the whole namespace


def test_a_source_of_its_own_needs_no_shared_state(server: KubernetesServer, api: KubernetesApi) -> None:
    server.create_deployment("web", replicas=1)
    (pod,) = _settled(server, 1)
    server.set_usage(pod, cpu="50m", memory="64Mi")
    metrics = KubernetesMetrics(
        KubernetesTarget("deployment/web", namespace="default", api=api), resources=["memory"]
    )
    assert metrics.read()["memory"].value == pytest.approx(0.5)
    metrics.close()


def test_a_metrics_api_that_fails_is_an_error_of_each_sample(
    server: KubernetesServer, state: KubernetesState
) -> None:
    server.create_deployment("web", replicas=1)
    server.script(verb="list", path="/apis/metrics.k8s.io/*", status=503, times=None)
    samples = KubernetesMetrics(KubernetesTarget("deployment/web", namespace="default", state=state)).read()
    assert all(s.error is not None and "503" in s.error for s in samples.values())


def test_an_unknown_resource_is_refused(state: KubernetesState) -> None:
    target = KubernetesTarget("deployment/web", namespace="default", state=state)
    with pytest.raises(ConfigurationError):
        KubernetesMetrics(target, resources=["gpu"])


def test_a_cluster_without_metrics_server_is_told_so(
    server: KubernetesServer, state: KubernetesState
) -> None:
    server.script(verb="list", path="/apis/metrics.k8s.io/*", status=404, times=None)
    with pytest.raises(KubernetesNotFound, match="metrics-server"):
        state.usage("default")


def _pod(name: str, **facts: object) -> Pod:
    given: dict[str, object] = {
        "phase": "Running", "is_leaving": False, "started_at": NOW - 3600, "ready": True,
        "ready_since": NOW - 3500, "cpu": 0.5, "memory": 100.0,
    }  # fmt: skip
    given.update(facts)
    return Pod(name, {}, **given)  # type: ignore[arg-type]


def _measure(*pods: Pod, resource: str = "cpu", absent: tuple[str, ...] = (), age_s: float = 20.0) -> Sample:
    usage = {p.name: PodUsage(0.35, 80.0, NOW - age_s, 15.0) for p in pods if p.name not in absent}
    return sample(resource, list(pods), usage, now=NOW, max_age_s=120)


@pytest.mark.parametrize(
    ("facts", "group"),
    [
        ({}, "counts"),
        ({"phase": "Pending"}, "pending"),
        ({"phase": "Failed"}, "left out"),
        ({"is_leaving": True}, "left out"),
        ({"started_at": None}, "unready"),
        ({"ready": None}, "unready"),
        # within five minutes of its start: unready, or not one whole window measured since it was ready
        ({"started_at": NOW - 200, "ready": False, "ready_since": NOW - 200}, "unready"),
        ({"started_at": NOW - 200, "ready_since": NOW - 30}, "unready"),
        ({"started_at": NOW - 200, "ready_since": NOW - 40}, "counts"),
        # later only a pod that was never ready
        ({"ready": False, "ready_since": NOW - 3590}, "unready"),
        ({"ready": False, "ready_since": NOW - 100}, "counts"),
    ],
)
def test_pods_are_grouped_as_the_hpa_groups_them(facts: dict[str, object], group: str) -> None:
    result = _measure(_pod("a", **facts), _pod("b", cpu=0.7))
    assert result.pods is not None
    pod = result.pods[0]
    where = "left out" if pod.deleting else "pending" if pod.pending else "counts" if pod.ready else "unready"
    assert where == group
    assert result.value == pytest.approx(0.70 / 1.20 if group == "counts" else 0.5)


def test_memory_of_a_starting_pod_counts() -> None:
    starting = _pod("a", started_at=NOW - 5, ready=False, ready_since=NOW - 5)
    assert _measure(starting, resource="memory").value == pytest.approx(0.8)
    assert _measure(starting).value is None


def test_absent_and_old_samples_are_missing() -> None:
    absent = _measure(_pod("a"), _pod("b"), absent=("b",))
    assert absent.pods is not None
    assert [p.usage for p in absent.pods] == [350, None]
    assert absent.value == pytest.approx(0.7)
    old = _measure(_pod("a"), age_s=121.0)
    assert old.value is None
    assert old.error is not None
    assert old.pods is not None
    assert old.pods[0].usage is None


def test_a_pod_without_request_is_named() -> None:
    result = _measure(_pod("a"), _pod("b", cpu=None))
    assert result.value is None
    assert "pod b" in (result.error or "")


def test_no_pods_is_no_value() -> None:
    assert _measure().error == "no pods"


def test_the_ratio_is_of_sums_not_of_ratios() -> None:
    assert _measure(_pod("a", cpu=1.0), _pod("b", cpu=0.4)).value == pytest.approx(0.5)


def test_the_age_is_that_of_the_oldest_sample() -> None:
    pods = [_pod("a"), _pod("b")]
    usage = {"a": PodUsage(0.1, 1.0, NOW - 5, 15.0), "b": PodUsage(0.1, 1.0, NOW - 50, 15.0)}
    assert sample("cpu", pods, usage, now=NOW, max_age_s=120).age_s == 50.0


def test_replicas_that_stay_pending_are_one_alert_that_says_what_the_cluster_says() -> None:
    full = "0/3 nodes are available: 3 Insufficient cpu."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": full}
    image = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    clock, told = FakeClock(), list[Alert]()
    with KubernetesServer(pods=False) as server:
        server.create_deployment("web", replicas=5)
        for number in range(4):
            pod = ready_pod(f"web-{number}", deployment("web"))
            if number:
                pod["status"] = {"phase": "Pending", "conditions": [scheduled]}
            server.create("pods", pod)
        pulling = ready_pod("web-4", deployment("web"))
        pulling["status"] = {"phase": "Pending", "conditions": [], "containerStatuses": [image]}
        server.create("pods", pulling)
        with KubernetesApi.at(server.url) as own, KubernetesState(own) as state:
            scaler = AutoScaler(
                KubernetesTarget("deployment/web", namespace="default", state=state),
                CallableMetrics(rps=lambda: 250.0), TargetTracking(rps=50), max_replicas=9, clock=clock,
                alerts=[told.append],
            )  # fmt: skip
            for _ in range(45):
                clock.advance(15.0)
                scaler.tick()
    (alert,) = told
    assert alert.kind == "not_ready"
    assert f"They say: 3 x Unschedulable: {full}; 1 x ImagePullBackOff: no such image" in alert.text
