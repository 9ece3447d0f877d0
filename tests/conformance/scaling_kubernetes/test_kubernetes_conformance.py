"""The published suites on the Kubernetes target and on both remote metric sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from eventperf.scaling import ConfigMapState, MetricSource, StateStore
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.metrics import KubernetesMetrics
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.scaling.backends.prometheus import PrometheusMetrics
from eventperf.testing.kubernetes import KubernetesServer
from eventperf.testing.scaling import MetricSourceSuite, ReplicaTargetSuite, StateStoreSuite

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer(schemas=True) as server:
        server.create_deployment("web", replicas=2)
        yield server


class TestPolledTarget(ReplicaTargetSuite):
    @pytest.fixture
    def target(self, server: KubernetesServer) -> Iterator[KubernetesTarget]:
        with KubernetesApi.at(server.url) as api:
            yield KubernetesTarget("deployment/web", namespace="default", api=api)

    @pytest.fixture
    def change_outside(self, server: KubernetesServer) -> Callable[[int], None]:
        return lambda replicas: server.scale("deployments", "web", replicas)


class TestWatchedTarget(ReplicaTargetSuite):
    @pytest.fixture
    def target(self, server: KubernetesServer) -> Iterator[KubernetesTarget]:
        with KubernetesApi.at(server.url) as api, KubernetesState(api) as state:
            yield KubernetesTarget("deployment/web", namespace="default", state=state)

    @pytest.fixture
    def change_outside(self, server: KubernetesServer, target: KubernetesTarget) -> Callable[[int], None]:
        def change(replicas: int) -> None:
            server.scale("deployments", "web", replicas)
            end = time.monotonic() + 20
            while target.read().replicas != replicas:  # a watch tells a moment later
                assert time.monotonic() < end
                time.sleep(0.005)

        return change


class TestKubernetesMetrics(MetricSourceSuite):
    @pytest.fixture
    def source(self, server: KubernetesServer) -> Iterator[MetricSource]:
        with KubernetesApi.at(server.url) as api, KubernetesState(api) as state:
            yield KubernetesMetrics(KubernetesTarget("deployment/web", namespace="default", state=state))


class TestPrometheusMetricsWithoutServer(MetricSourceSuite):
    @pytest.fixture
    def source(self) -> Iterator[MetricSource]:
        source = PrometheusMetrics("http://127.0.0.1:1", "up", timeout=0.5)
        yield source
        source.close()


class TestConfigMapState(StateStoreSuite):
    @pytest.fixture
    def reopen(self, server: KubernetesServer) -> Callable[[], StateStore]:
        return lambda: ConfigMapState("learned", namespace="default", api=KubernetesApi.at(server.url))
