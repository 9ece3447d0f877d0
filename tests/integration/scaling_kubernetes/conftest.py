"""A test server per test, and for tests of plain API behaviour also a real kube-apiserver if there is one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.testing.kubernetes import KubernetesServer, deployment
from eventperf.testing.kubernetes.apiserver import RealApiServer
from eventperf.testing.kubernetes.workloads import ready_pod
from scale_processes import RULES, Group, use


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer(schemas=True) as server:
        yield server


@pytest.fixture
def api(server: KubernetesServer) -> Iterator[KubernetesApi]:
    with KubernetesApi.at(server.url, timeout=2) as api:
        yield api


@dataclass(frozen=True)
class Cluster:
    """What a test of plain API behaviour gets: an API and a namespace of its own."""

    api: KubernetesApi
    namespace: str


@pytest.fixture(scope="session")
def real_api() -> Iterator[KubernetesApi]:
    from kubernetes import client

    with RealApiServer() as real:
        configuration = client.Configuration()
        configuration.host, configuration.verify_ssl = real.url, False
        configuration.api_key = {"authorization": f"Bearer {real.token}"}
        with KubernetesApi(configuration) as api:
            yield api


# named in the summary of every run, so that nobody takes the test server for the real one
_REAL = pytest.mark.skipif(
    not os.environ.get("KUBEBUILDER_ASSETS"),
    reason="NOT RUN against a real kube-apiserver: KUBEBUILDER_ASSETS names no folder with its programs",
)
SERVERS = ["test-server", pytest.param("kube-apiserver", marks=_REAL)]


@pytest.fixture(params=SERVERS)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The same test against the test server and, when KUBEBUILDER_ASSETS is set, the real one."""
    api = request.getfixturevalue("api" if request.param == "test-server" else "real_api")
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    api.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    return Cluster(api, namespace)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """Processes that scale ``web``, two pods of which use twice what they should."""
    with KubernetesServer(schemas=True, pods=False) as server:
        server.create_deployment("web", replicas=2)
        for number in range(2):
            server.create("pods", ready_pod(f"web-{number}", deployment("web")))
        use(server, "140m")
        server.enforce(RULES)
        found = Group(server, tmp_path)
        yield found
        found.end()
