"""What a round costs the API server: one list of metrics per namespace, and one PATCH per change."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from eventperf.scaling import AutoScaler, Fleet, LeaderElector, ScalingDecision, TargetTracking
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.lease import KubernetesLease
from eventperf.scaling.backends.kubernetes.metrics import KubernetesMetrics
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.testing.kubernetes import KubernetesServer, deployment
from eventperf.testing.kubernetes.workloads import ready_pod

pytestmark = pytest.mark.integration

NAMESPACES, EACH = ("red", "blue", "green"), 20


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer(pods=False, schemas=True) as server:
        for namespace in NAMESPACES:
            for number in range(EACH):
                name = f"web-{number}"
                server.create_deployment(name, namespace=namespace, replicas=2)
                for pod in (f"{name}-a", f"{name}-b"):
                    server.create("pods", ready_pod(pod, deployment(name)), namespace=namespace)
                    server.set_usage(pod, cpu="70m", namespace=namespace)
        yield server


def _scalers(state: KubernetesState) -> list[AutoScaler]:
    made = []
    for namespace in NAMESPACES:
        for number in range(EACH):
            target = KubernetesTarget(f"deployment/web-{number}", namespace=namespace, state=state)
            metrics = KubernetesMetrics(target)
            made.append(AutoScaler(target, metrics, TargetTracking(cpu=0.7), max_replicas=9))
    return made


@pytest.mark.parametrize("cluster_wide", [False, True])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_steady_round_reads_no_state(server: KubernetesServer, workers: int, cluster_wide: bool) -> None:
    with KubernetesApi.at(server.url) as api, KubernetesState(api, cluster_wide=cluster_wide) as state:
        with Fleet(_scalers(state), workers=workers) as fleet:
            first = fleet.tick()
            assert not first.errors
            _watching(server, 1 if cluster_wide else len(NAMESPACES))
            server.counts.clear()
            server.calls.clear()
            report = fleet.tick()
        assert [d.action for d in report.decisions] == ["none"] * len(NAMESPACES) * EACH
        assert not any(d.error or d.blind for d in report.decisions)
        assert dict(server.counts) == {("list", "pods"): len(NAMESPACES)}
        assert {c.group for c in server.calls} == {"metrics.k8s.io"}


def _watching(server: KubernetesServer, count: int) -> None:
    end = time.monotonic() + 20
    while server.counts["watch", "deployments"] < count or server.counts["watch", "pods"] < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_change_costs_one_patch_and_one_event(server: KubernetesServer) -> None:
    with KubernetesApi.at(server.url) as api, KubernetesState(api) as state:
        with Fleet(_scalers(state), workers=4) as fleet:
            fleet.tick()
            _watching(server, len(NAMESPACES))
            for number in range(7):
                for pod in "ab":
                    server.set_usage(f"web-{number}-{pod}", cpu="140m", namespace="blue")
            server.counts.clear()
            decisions: list[ScalingDecision] = [d for d in fleet.tick().decisions if d.applied]
        assert {d.target for d in decisions} == {f"blue/deployment/web-{n}" for n in range(7)}
        assert dict(server.counts) == {
            ("list", "pods"): len(NAMESPACES),
            ("patch", "deployments/scale"): 7,
            ("create", "events"): 7,
        }
        assert all(server.replicas("deployments", f"web-{n}", namespace="blue") == 4 for n in range(7))


def test_only_the_leader_of_two_fleets_acts(server: KubernetesServer) -> None:
    fleets, states = [], []
    for identity in ("first", "second"):
        api = KubernetesApi.at(server.url)
        state = KubernetesState(api)
        elector = LeaderElector(KubernetesLease("fleet", namespace="red", api=api), identity=identity)
        elector.step()
        fleets.append(Fleet(_scalers(state), leader=elector, workers=1))
        states.append(state)
    for pod in "ab":
        server.set_usage(f"web-0-{pod}", cpu="140m", namespace="red")
    reports = [fleet.tick() for fleet in fleets]
    assert [r.skipped for r in reports] == [0, len(NAMESPACES) * EACH]
    assert server.counts["patch", "deployments/scale"] == 1
    for state in states:
        state.close()
