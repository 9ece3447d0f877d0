"""What a pod requests, whose it is and what helps against a refusal, as the cluster counts and means it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from eventperf.scaling import (
    AutoScaler,
    CallableMetrics,
    KubernetesMetrics,
    KubernetesState,
    KubernetesTarget,
    TargetTracking,
)
from eventperf.scaling.backends.kubernetes import KubernetesApi
from eventperf.scaling.backends.kubernetes.errors import KubernetesForbidden, KubernetesUnavailable
from eventperf.scaling.backends.kubernetes.pods import requested
from eventperf.testing.kubernetes import KubernetesServer

OLD = "2020-01-01T00:00:00Z"


def asks(cpu: str | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "main", **({"resources": {"requests": {"cpu": cpu}}} if cpu else {}), **more}


@pytest.mark.parametrize(
    ("spec", "cores"),
    [
        ({"containers": [asks("100m"), asks("150m")]}, 0.25),
        ({"containers": [asks("100m"), asks()]}, None),
        ({"containers": [asks("100m")], "initContainers": [asks("2")]}, 0.1),  # gone when the pod runs
        ({"containers": [asks("100m")], "initContainers": [asks("50m", restartPolicy="Always")]}, 0.15),
        ({"containers": [asks("100m")], "initContainers": [asks(restartPolicy="Always")]}, None),
        ({"containers": [asks("100m")], "initContainers": None}, 0.1),
        ({"containers": [asks()], "resources": {"requests": {"cpu": "500m"}}}, 0.5),  # of the pod as a whole
        ({"containers": [asks("100m")], "resources": {"requests": {"memory": "1Gi"}}}, 0.1),
        ({"containers": [{"name": "a", "resources": {"limits": {"cpu": "300m"}}}]}, 0.3),
    ],
)
def test_a_pod_requests_what_the_cluster_counts(spec: dict[str, Any], cores: float | None) -> None:
    assert requested(spec, "cpu") == (None if cores is None else pytest.approx(cores))


def put(
    server: KubernetesServer, name: str, label: str, owner: dict[str, Any] | None = None, **used: str
) -> None:
    containers = [{"name": n, "resources": {"requests": {"cpu": "100m"}}} for n in used]
    meta: dict[str, Any] = {"name": name, "labels": {"app": label}}
    if owner is not None:
        meta["ownerReferences"] = [{"apiVersion": "apps/v1", "uid": "1", "controller": True, **owner}]
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": OLD}
    status = {"phase": "Running", "startTime": OLD, "conditions": [ready]}
    server.create("pods", {"metadata": meta, "spec": {"containers": containers}, "status": status})
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = [{"name": n, "usage": {"cpu": cpu, "memory": "64Mi"}} for n, cpu in used.items()]
    body = {"metadata": {"name": name}, "timestamp": now, "window": "15s", "containers": found}
    server.create("pods", body, group="metrics.k8s.io")


def test_one_container_of_each_pod_is_counted_alone_when_asked_for() -> None:
    with KubernetesServer(pods=False) as server, KubernetesState(KubernetesApi.at(server.url)) as state:
        server.create_deployment("web", replicas=2)
        put(server, "web-0", "web", app="90m", proxy="10m")
        put(server, "web-1", "web", app="70m", proxy="10m")
        target = KubernetesTarget("deployment/web", namespace="default", state=state)
        one = KubernetesMetrics(target, resources=["cpu"], container="app").read()["cpu"]
        assert one.value == pytest.approx(0.8)
        assert KubernetesMetrics(target, resources=["cpu"]).read()["cpu"].value == pytest.approx(0.45)
        none = KubernetesMetrics(target, resources=["cpu"], container="gone").read()["cpu"]
        assert "no container gone" in str(none.error)


@pytest.mark.parametrize("kind", ["ReplicaSet", "Deployment"])
def test_pods_of_another_workload_under_the_same_selector_are_left_out_and_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with KubernetesServer(pods=False) as server, KubernetesState(KubernetesApi.at(server.url)) as state:
        server.create_deployment("front", replicas=1, labels={"app": "shop"})
        tail = "-5d9" if kind == "ReplicaSet" else ""
        put(server, "front-0", "shop", {"kind": kind, "name": f"front{tail}"}, main="10m")
        put(server, "back-0", "shop", {"kind": kind, "name": f"front-back{tail}"}, main="90m")
        source = KubernetesMetrics(
            KubernetesTarget("deployment/front", namespace="default", state=state), resources=["cpu"]
        )
        assert source.read()["cpu"].value == pytest.approx(0.1)
        source.read()
        assert [r.levelname for r in caplog.records if "back-0" in r.getMessage()] == ["WARNING"]


def test_a_workload_made_anew_with_other_labels_is_measured_without_a_restart() -> None:
    api = KubernetesApi.at
    with KubernetesServer(pods=False) as server, KubernetesState(api(server.url), metrics_age_s=0.0) as state:
        target = KubernetesTarget("deployment/web", namespace="default", state=state)
        source = KubernetesMetrics(target, resources=["cpu"])
        for app, used in (("old", "20m"), ("new", "90m")):
            server.create_deployment("web", replicas=1, labels={"app": app})
            put(server, f"{app}-0", app, main=used)
            deadline, found = time.monotonic() + 20, None
            while found != pytest.approx(float(used[:-1]) / 100) and time.monotonic() < deadline:
                try:
                    target.read()
                    found = source.read()["cpu"].value
                except Exception:  # the moment in between, when there is none
                    found = None
                time.sleep(0.05)
            assert found == pytest.approx(float(used[:-1]) / 100)
            if app == "old":
                server.delete("deployments", "web", group="apps")
                server.delete("pods", "old-0")


@pytest.mark.parametrize(
    ("status", "said", "helps", "misleads"),
    [
        (
            403,
            'User "x" cannot patch resource "deployments/scale" in API group "apps"',
            "grant patch",
            "policy",
        ),
        (403, 'admission webhook "a.b" denied the request: no', "policy of the cluster", "grant"),
        (
            403,
            "forbidden: ValidatingAdmissionPolicy 'p' denied request: no",
            "policy",
            "grant",
        ),
        (403, "pods is forbidden: exceeded quota: q, requested: pods=5", "quota", "grant"),
        (401, "Unauthorized", "credentials", "grant"),
        (403, "unable to write: namespace x is being terminated", "being deleted", "grant"),
    ],
)
def test_the_remedy_beside_a_refusal_fits_its_cause(
    status: int, said: str, helps: str, misleads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KubernetesServer(pods=False) as server, KubernetesApi.at(server.url) as api:
        server.create_deployment("web", replicas=2)
        asked = api.request

        def refuse(method: str, path: str, **options: Any) -> Any:
            if method == "PATCH":
                raise KubernetesForbidden(method, path, said, status=status)
            return asked(method, path, **options)

        monkeypatch.setattr(api, "request", refuse)
        target = KubernetesTarget("deployment/web", namespace="default", api=api)
        source = CallableMetrics(rps=lambda: 480.0)
        error = AutoScaler(target, source, TargetTracking(rps=80), max_replicas=20).tick().error or ""
        assert said in error
        assert helps in error.removeprefix(said)
        assert misleads not in error.replace(said, "")


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """Start servers that answer everything in one way."""
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Location", "http://127.0.0.1:9/")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (302, b"", "redirect"),
        (307, b"<html>", "redirect"),
        (200, b"{}", "no Kubernetes"),
        (200, b'{"error": "log in first"}', "no Kubernetes"),
        (200, b'{"metadata": 7}', "no Kubernetes"),
        (200, b"[]", "no object"),
        (200, b"<html>", "no JSON"),
    ],
)
def test_an_answer_of_something_else_is_named_as_what_it_is(
    answering: Any, status: int, body: bytes, told: str
) -> None:
    api = KubernetesApi.at(answering(status, body), token="t")
    with pytest.raises(KubernetesUnavailable, match=told):
        KubernetesTarget("deployment/web", namespace="p", api=api).read()


def test_no_proxy_of_the_environment_reads_a_token_over_plain_http(
    answering: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = answering(200, json.dumps({"metadata": {"name": "of the proxy"}}).encode())
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    api = KubernetesApi.at("http://127.0.0.1:9", token="t")
    with pytest.raises(KubernetesUnavailable):
        api.request("GET", "/api/v1/namespaces/p/pods")
    assert "over plain http" in caplog.text
