"""Addresses behind a Service as a watch tells them, and pods that go first because they cost least."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling.backends.kubernetes.api import JSON, KubernetesApi
from eventperf.scaling.backends.kubernetes.endpoints import KubernetesEndpoints
from eventperf.scaling.backends.kubernetes.errors import KubernetesForbidden
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.testing.kubernetes import KubernetesServer

pytestmark = pytest.mark.integration


def eventually(claim: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.005)


def _slice(name: str, *addresses: str, service: str = "web", **more: object) -> JSON:
    endpoints = [
        {"addresses": [a.rstrip("!")], "conditions": {"ready": not a.endswith("!")}} for a in addresses
    ]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "metrics", "port": 9100}, {"name": "http", "port": 8080}],
        "endpoints": endpoints,
        **more,
    }


def test_ready_addresses_follow_the_slices(server: KubernetesServer, api: KubernetesApi) -> None:
    group = "discovery.k8s.io"
    server.create("endpointslices", _slice("web-1", "10.0.0.1", "10.0.0.2!"), group=group)
    server.create("endpointslices", _slice("api-1", "10.0.0.9", service="api"), group=group)
    endpoints = KubernetesEndpoints("web", port="http", namespace="default", api=api)
    assert endpoints() == ["10.0.0.1:8080"]
    server.update("endpointslices", "web-1", _slice("web-1", "10.0.0.1", "10.0.0.2"), group=group)
    eventually(lambda: endpoints() == ["10.0.0.1:8080", "10.0.0.2:8080"])
    server.create("endpointslices", _slice("web-2", "10.0.0.2", "10.0.0.3"), group=group)
    eventually(lambda: len(endpoints()) == 3)
    server.delete("endpointslices", "web-1", group=group)
    eventually(lambda: endpoints() == ["10.0.0.2:8080", "10.0.0.3:8080"])
    server.stop()
    assert endpoints() == ["10.0.0.2:8080", "10.0.0.3:8080"]  # known addresses outlive the API server
    endpoints.close()


@pytest.mark.parametrize(("port", "expected"), [(None, ["[::1]:9100"]), (8080, ["[::1]:8080"]), ("none", [])])
def test_ports_and_ipv6(
    server: KubernetesServer, api: KubernetesApi, port: str | int | None, expected: list[str]
) -> None:
    server.create("endpointslices", _slice("web-1", "::1", addressType="IPv6"), group="discovery.k8s.io")
    endpoints = KubernetesEndpoints("web", port=port, namespace="default", api=api)
    assert endpoints() == expected
    endpoints.close()


def test_addresses_that_may_not_be_listed_are_an_error(server: KubernetesServer, api: KubernetesApi) -> None:
    server.enforce([])
    endpoints = KubernetesEndpoints("web", namespace="default", api=api)
    with pytest.raises(KubernetesForbidden):
        endpoints()
    endpoints.close()


def _pods(server: KubernetesServer) -> set[str]:
    return {p["metadata"]["name"] for p in server.list("pods")}


def test_the_cheapest_pods_go_first(server: KubernetesServer, api: KubernetesApi) -> None:
    server.create_deployment("web", replicas=6)
    eventually(lambda: sum(p["status"]["phase"] == "Running" for p in server.list("pods")) == 6)
    busy = sorted(_pods(server))[-3:]
    jobs = dict.fromkeys(busy, 4)
    with KubernetesState(api) as state:
        target = KubernetesTarget(
            "deployment/web", namespace="default", state=state, deletion_cost=lambda name: jobs.get(name, 0)
        )
        target.read()
        eventually(lambda: len(state.pods("default", "app=web")) == 6)
        target.scale(8)
        assert server.counts["patch", "pods"] == 0  # only a scale-down asks for costs
        target.scale(3)
        eventually(lambda: len(_pods(server)) == 3)
    assert _pods(server) == set(busy)
    assert server.counts["patch", "pods"] == 3


def test_costs_that_may_not_be_written_do_not_stop_a_scale_down(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    server.create_deployment("web", replicas=4)
    server.script(verb="patch", path="*/pods/*", status=403, times=None)
    with KubernetesState(api) as state:
        target = KubernetesTarget(
            "deployment/web", namespace="default", state=state, deletion_cost=lambda _: 1
        )
        target.read()
        eventually(lambda: len(state.pods("default", "app=web")) == 4)
        target.scale(2)
    assert server.replicas("deployments", "web") == 2
    assert server.counts["patch", "pods"] == 1


def test_costs_need_a_shared_state(api: KubernetesApi) -> None:
    with pytest.raises(ConfigurationError):
        KubernetesTarget("deployment/web", namespace="default", api=api, deletion_cost=lambda _: 1)
