"""metrics.k8s.io as the HPA sees it: shares of requests, missing and starting pods told apart."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from eventperf.scaling.backends.kubernetes_api import KubernetesApi
from eventperf.scaling.backends.kubernetes_errors import KubernetesNotFound
from eventperf.scaling.backends.kubernetes_metrics import KubernetesUsage, ResourceUsage, measure
from eventperf.scaling.backends.kubernetes_pods import Pod
from eventperf.scaling.backends.kubernetes_state import KubernetesState, PodUsage
from eventperf.testing.kubernetes import KubernetesServer

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


def _read(state: KubernetesState, resource: str, selector: str, want: int) -> ResourceUsage:
    """Read until the pod watch has seen ``want`` pods."""
    source = KubernetesUsage(resource, selector, namespace="default", state=state)
    end = time.monotonic() + 20
    while len(state.pods("default", selector)) != want:
        assert time.monotonic() < end
        time.sleep(0.01)
    return source.read()


def test_usage_is_a_share_of_the_requests(server: KubernetesServer, state: KubernetesState) -> None:
    server.create_deployment("web", replicas=4, cpu="200m", memory="100Mi")
    server.create_deployment("api", replicas=1)
    for number, pod in enumerate(p for p in _settled(server, 5) if p.startswith("web")):
        server.set_usage(pod, cpu=f"{100 + 20 * number}m", memory="75Mi")
    cpu = _read(state, "cpu", "app=web", 4)
    # pods started this second: their CPU does not count yet, their memory does
    assert len(cpu.unready) == 4
    assert cpu.ratio is None
    memory = _read(state, "memory", "app=web", 4)
    assert memory.ratio == pytest.approx(0.75)
    assert _read(state, "memory", "app=api", 1).missing
    assert server.counts["list", "pods"] == 2  # once the pods, once the metrics of the whole namespace


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


def _measure(
    *pods: Pod, resource: str = "cpu", absent: tuple[str, ...] = (), age_s: float = 20.0
) -> ResourceUsage:
    usage = {p.name: PodUsage(0.35, 80.0, NOW - age_s, 15.0) for p in pods if p.name not in absent}
    return measure(resource, list(pods), usage, now=NOW, max_age_s=120)


@pytest.mark.parametrize(
    ("facts", "group"),
    [
        ({}, "ready"),
        ({"phase": "Pending"}, "unready"),
        ({"phase": "Failed"}, "ignored"),
        ({"is_leaving": True}, "ignored"),
        ({"started_at": None}, "unready"),
        ({"ready": None}, "unready"),
        # within five minutes of its start: unready, or not one whole window measured since it was ready
        ({"started_at": NOW - 200, "ready": False, "ready_since": NOW - 200}, "unready"),
        ({"started_at": NOW - 200, "ready_since": NOW - 30}, "unready"),
        ({"started_at": NOW - 200, "ready_since": NOW - 40}, "ready"),
        # later only a pod that was never ready
        ({"ready": False, "ready_since": NOW - 3590}, "unready"),
        ({"ready": False, "ready_since": NOW - 100}, "ready"),
    ],
)
def test_pods_are_grouped_as_the_hpa_groups_them(facts: dict[str, object], group: str) -> None:
    result = _measure(_pod("a", **facts), _pod("b"))
    where = "ready" if "a" in result.usage else "unready" if "a" in result.unready else "ignored"
    assert where == group
    assert "a" not in result.missing


def test_memory_of_a_starting_pod_counts() -> None:
    starting = _pod("a", started_at=NOW - 5, ready=False, ready_since=NOW - 5)
    assert "a" in _measure(starting, resource="memory").usage


def test_absent_and_old_samples_are_missing() -> None:
    assert _measure(_pod("a"), _pod("b"), absent=("b",)).missing == ("b",)
    old = _measure(_pod("a"), age_s=121.0)
    assert (old.missing, old.ratio) == (("a",), None)


def test_a_pod_without_request_is_named() -> None:
    result = _measure(_pod("a"), _pod("b", cpu=None))
    assert result.ratio is None
    assert "pod b" in result.reason


def test_the_ratio_is_of_sums_not_of_ratios() -> None:
    assert _measure(_pod("a", cpu=1.0), _pod("b", cpu=0.4)).ratio == pytest.approx(0.5)
