"""Whatever is sent to the stand-in, it answers as a cluster does: with a Status, never with a traceback."""

from __future__ import annotations

import copy
import http.client
import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventperf.testing.kubernetes import KubernetesServer, deployment

pytestmark = pytest.mark.integration
APPS = "/apis/apps/v1/namespaces/default/deployments"
HPAS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"


@pytest.fixture(scope="module")
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer(usage="70m", max_pods=50) as server:
        yield server


def ask(
    server: KubernetesServer, method: str, path: str, body: Any = None, kind: str = "application/json"
) -> tuple[int, Any]:
    """Send a request; every refusal must be a whole Status."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    found = json.loads(text) if text.startswith(b"{") and method != "HEAD" else text
    if answer.status >= 400 and method != "HEAD":
        assert found["kind"] == "Status"
        assert (found["apiVersion"], found["status"], found["code"]) == ("v1", "Failure", answer.status)
        assert found["reason"]
        assert found["message"]
    return answer.status, found


def with_spec(**spec: Any) -> Any:
    body = deployment("web")
    return {**body, "spec": {**body["spec"], **spec}}


def with_pod(**pod: Any) -> Any:
    body = with_spec()
    template = body["spec"]["template"]
    return with_spec(template={**template, "spec": {**template["spec"], **pod}})


def autoscaler(**spec: Any) -> Any:
    about = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return {"metadata": {"name": "web"}, "spec": {"scaleTargetRef": about, "maxReplicas": 5, **spec}}


MAIN = {"name": "main", "image": "app:1"}
UNREADABLE: list[tuple[str, Any, str]] = [
    (APPS, with_spec(replicas="three"), "DeploymentSpec.spec.replicas of type int32"),
    (APPS, with_spec(replicas=1.5), "cannot unmarshal number 1.5"),
    (APPS, with_spec(replicas=True), "cannot unmarshal bool"),
    (APPS, with_spec(replicas=2**31), "cannot unmarshal number 2147483648"),
    (APPS, with_spec(selector=[]), "cannot unmarshal array into Go struct field DeploymentSpec."),
    (APPS, with_spec(template="x"), "cannot unmarshal string"),
    (APPS, with_spec(paused="yes"), "of type bool"),
    (APPS, with_pod(containers={}), "of type []v1.Container"),
    (APPS, with_pod(containers=[{**MAIN, "resources": {"requests": {"cpu": "much"}}}]),
     "quantities must match"),
    (APPS, {**deployment("web"), "metadata": {"name": 5}}, "ObjectMeta.metadata.name of type string"),
    (APPS, {**deployment("web"), "metadata": {"name": "web", "labels": {"a": 1}}}, "of type string"),
    (APPS, {**deployment("web"), "spec": 3}, "cannot unmarshal number into Go struct field Deployment.spec"),
    (APPS, {**deployment("web"), "kind": "Pod"}, "does not match the expected"),
    (APPS, b"", "no JSON"), (APPS, b"null", "not an object"), (APPS, b"[]", "not an object"),
    (APPS, b'{"metadata": NaN}', "no JSON"), (APPS, b"\xff\xfe", "no JSON"), (APPS, b"[" * 9000, "no JSON"),
    (APPS, b'{"a":' * 300 + b"1" + b"}" * 300, "exceeded max depth"),
    (HPAS, autoscaler(maxReplicas="5"), "HorizontalPodAutoscalerSpec.spec.maxReplicas of type int32"),
    (HPAS, autoscaler(metrics={}), "of type []v1.MetricSpec"),
]  # fmt: skip
INVALID: list[tuple[str, Any, list[str]]] = [
    (APPS, {}, ["metadata.name", "spec.selector", "spec.template.spec.containers"]),
    (APPS, {**deployment("web"), "spec": None}, ["spec.selector", "spec.template.spec.containers"]),
    (APPS, with_spec(selector=None), ["spec.selector"]),
    (APPS, with_spec(selector={}), ["spec.selector"]),
    (APPS, with_spec(template=None), ["spec.template.metadata.labels", "spec.template.spec.containers"]),
    (APPS, with_spec(replicas=-1), ["spec.replicas"]),
    (APPS, with_spec(minReadySeconds=-1), ["spec.minReadySeconds"]),
    (APPS, with_spec(progressDeadlineSeconds=5, minReadySeconds=5), ["spec.progressDeadlineSeconds"]),
    (APPS, with_spec(strategy={"type": "Blue"}), ["spec.strategy.type"]),
    (APPS, with_spec(strategy={"type": "Recreate", "rollingUpdate": {}}), ["spec.strategy.rollingUpdate"]),
    (APPS, with_spec(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
     ["spec.strategy.rollingUpdate.maxUnavailable"]),
    (APPS, with_spec(strategy={"rollingUpdate": {"maxSurge": "a lot"}}),
     ["spec.strategy.rollingUpdate.maxSurge"]),
    (APPS, with_pod(containers=[]), ["spec.template.spec.containers"]),
    (APPS, with_pod(containers=[{}]), ["spec.template.spec.containers[0].name",
                                       "spec.template.spec.containers[0].image"]),
    (APPS, with_pod(containers=[MAIN, MAIN]), ["spec.template.spec.containers[1].name"]),
    (APPS, with_pod(containers=[{**MAIN, "ports": [{"containerPort": 99999}]}]),
     ["spec.template.spec.containers[0].ports[0].containerPort"]),
    (APPS, with_pod(restartPolicy="Never"), ["spec.template.spec.restartPolicy"]),
    (HPAS, autoscaler(minReplicas=9), ["spec.maxReplicas"]),
    (HPAS, autoscaler(minReplicas=0), ["spec.minReplicas"]),
    (HPAS, {"metadata": {"name": "web"}, "spec": {}},
     ["spec.maxReplicas", "spec.maxReplicas", "spec.scaleTargetRef.kind", "spec.scaleTargetRef.name"]),
    (HPAS, autoscaler(metrics=[{"type": "Resource"}]), ["spec.metrics[0].resource"]),
    (HPAS, autoscaler(behavior={"scaleUp": {"stabilizationWindowSeconds": 4000}}),
     ["spec.behavior.scaleUp.stabilizationWindowSeconds"]),
    (HPAS, autoscaler(behavior={"scaleDown": {"policies": [{"type": "Pods", "periodSeconds": 60}]}}),
     ["spec.behavior.scaleDown.policies[0].value"]),
    ("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}, "data": {"a/b": ""}},
     ["data[a/b]"]),
    ("/api/v1/namespaces/default/services", {"metadata": {"name": "1a"}}, ["metadata.name"]),
    ("/api/v1/namespaces", {"metadata": {"name": "a.b"}}, ["metadata.name"]),
    ("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", {"metadata": {"name": "a"}},
     ["roleRef.kind", "roleRef.name"]),
    *((APPS, {**deployment("web"), "metadata": {"name": name}}, ["metadata.name"])
      for name in ("Web", "-web", "web_1", "web..a", "w" * 254, "we b", "web/1", "", "\u00e4", "web\n")),
    *((APPS, {**deployment("web"), "metadata": {"name": "web", "labels": labels}}, ["metadata.labels"])
      for labels in ({"a b": "c"}, {"a": "b c"}, {"a": "b" * 64}, {"/a": ""}, {"": "a"})),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "said"), UNREADABLE)
def test_a_body_that_cannot_be_read_is_refused_with_the_field_and_its_type(
    server: KubernetesServer, path: str, body: Any, said: str
) -> None:
    status, answer = ask(server, "POST", path, body)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert said in answer["message"]


@pytest.mark.parametrize(("path", "body", "fields"), INVALID)
def test_an_invalid_body_is_refused_with_every_cause(
    server: KubernetesServer, path: str, body: Any, fields: list[str]
) -> None:
    status, answer = ask(server, "POST", path, body)
    assert (status, answer["reason"]) == (422, "Invalid")
    causes = answer["details"]["causes"]
    assert [c["field"] for c in causes] == fields
    assert all(c["reason"].startswith("FieldValue") and c["message"] in answer["message"] for c in causes)


@pytest.mark.parametrize(
    "change", ["three", {"replicas": "three"}, {"template": {"spec": {"containers": 5}}}]
)
def test_a_patch_to_what_cannot_be_read_is_422_as_the_real_one_says_it(change: Any) -> None:
    with KubernetesServer(pods=False) as server:
        before = server.create_deployment("web")
        status, answer = ask(server, "PATCH", f"{APPS}/web", {"spec": change}, MERGE)
        assert (status, answer["details"]["causes"][0]["field"]) == (422, "patch")
        assert server.get("deployments", "web", group="apps") == before


def test_null_is_a_field_that_is_not_there(server: KubernetesServer) -> None:
    body = with_spec(replicas=None, strategy=None, paused=None)
    body["metadata"] = {**body["metadata"], "name": "nulls", "annotations": None, "finalizers": None}
    status, made = ask(server, "POST", APPS, body)
    assert status == 201
    assert not {"replicas", "strategy", "paused"} & made["spec"].keys()
    assert ask(server, "GET", f"{APPS}/nulls/scale")[1]["spec"]["replicas"] == 1


def test_a_patch_that_does_not_apply_names_the_operation_as_its_cause(server: KubernetesServer) -> None:
    server.create_deployment("patched")
    for operation in ({"op": "replace", "path": "/spec/x/y", "value": 1}, {"op": "test", "path": "/spec"}):
        status, answer = ask(server, "PATCH", f"{APPS}/patched", [operation], JSON_PATCH)
        assert (status, answer["reason"]) == (422, "Invalid")
        assert operation["op"] in answer["details"]["causes"][0]["message"]


def test_replicas_beyond_all_measure_leave_the_cluster_usable() -> None:
    most = 2**31 - 1
    with KubernetesServer(max_pods=700) as server:
        assert ask(server, "POST", APPS, with_spec(replicas=most))[0] == 201
        seen = 0
        while seen < 700:  # made in bursts, and everybody else is served between them
            status, _ = ask(server, "GET", "/api/v1/namespaces/default/pods?limit=1")
            assert status == 200
            seen = len(server.list("pods"))
        conditions: list[Any] = []
        while "ReplicaFailure" not in [c["type"] for c in conditions]:
            found = ask(server, "GET", f"{APPS}/web")[1]
            conditions = found.get("status", {}).get("conditions", [])
        assert "exceeded quota" in next(c["message"] for c in conditions if c["type"] == "ReplicaFailure")
        assert found["spec"]["replicas"] == most
        assert len(server.list("pods")) == 700
        assert ask(server, "PATCH", f"{APPS}/web/scale", {"spec": {"replicas": 2}}, MERGE)[0] == 200
        while len(server.list("pods")) != 2 or "ReplicaFailure" in [c["type"] for c in conditions]:
            conditions = ask(server, "GET", f"{APPS}/web")[1]["status"]["conditions"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{APPS}?limit=many", 400), ("GET", f"{APPS}?watch=1&resourceVersion=now", 400),
        ("GET", f"{APPS}?watch=1&timeoutSeconds=long", 400), ("GET", f"{APPS}?labelSelector=a b", 400),
        ("GET", f"{APPS}?continue=x", 410), ("GET", f"{APPS}?fieldSelector=a", 400),
        ("POST", f"{APPS}?dryRun=all", 422), ("POST", f"{APPS}?fieldValidation=strict", 422),
        ("POST", f"{APPS}/web", 405), ("PUT", APPS, 405), ("PATCH", APPS, 405), ("TRACE", APPS, 405),
        ("POST", f"{APPS}/web/scale", 405), ("DELETE", f"{APPS}/web/status", 405),
        ("GET", "/apis/apps/v1/namespaces/default/deploymentz", 404), ("GET", "/nowhere", 404),
        ("HEAD", APPS, 200), ("HEAD", f"{APPS}/none", 404), ("DELETE", f"{APPS}/none", 404),
    ],
)  # fmt: skip
def test_a_request_that_no_server_understands_is_refused(
    server: KubernetesServer, method: str, path: str, status: int
) -> None:
    body = deployment("asked") if method == "POST" else None
    assert ask(server, method, path.replace(" ", "%20"), body)[0] == status


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"a" * (1 << 20) + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_bytes_that_are_no_request_get_an_answer_and_the_end(
    server: KubernetesServer, request_text: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(request_text)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert json.loads(body)["kind"] == "Status"


def test_only_the_object_that_was_meant_is_deleted(server: KubernetesServer) -> None:
    made = server.create_deployment("meant")
    for name, value in (("uid", "other"), ("resourceVersion", "1")):
        status, _ = ask(server, "DELETE", f"{APPS}/meant", {"preconditions": {name: value}})
        assert status == 409
    assert (
        ask(server, "DELETE", f"{APPS}/meant", {"preconditions": {"uid": made["metadata"]["uid"]}})[0] == 200
    )


def test_a_collection_is_deleted_by_its_selector() -> None:
    with KubernetesServer(pods=False) as server:
        for name in ("a", "b", "c"):
            server.create_deployment(name, labels={"app": name})
        assert ask(server, "DELETE", f"{APPS}?labelSelector=app!%3Db&dryRun=All")[0] == 200
        assert len(server.list("deployments", group="apps")) == 3
        assert ask(server, "DELETE", f"{APPS}?labelSelector=app!%3Db")[0] == 200
        assert [d["metadata"]["name"] for d in server.list("deployments", group="apps")] == ["b"]


# -- anything at all -----------------------------------------------------------------------------------

POD = {"metadata": {"name": "p", "ownerReferences": [
    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}]},
    "spec": {"containers": [MAIN]}}  # fmt: skip
DEFINITION = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{
            "name": "v1", "served": True, "storage": True,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "object", "required": ["size"],
                "properties": {"size": {"type": "integer", "minimum": 0}, "tags": {"type": "array"}},
            }}}},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size",
                                                     "statusReplicasPath": ".status.size"}},
        }],
    },
}  # fmt: skip
SEEDS: list[tuple[str, Any]] = [
    (APPS, deployment("web", replicas=2)),
    ("/apis/apps/v1/namespaces/default/statefulsets", deployment("web")),
    ("/apis/apps/v1/namespaces/default/replicasets", deployment("web")),
    ("/api/v1/namespaces/default/pods", POD),
    ("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}, "data": {"a": "b"}}),
    ("/api/v1/namespaces/default/events", {"metadata": {"name": "e"}, "involvedObject": {"name": "a"}}),
    ("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
     {"metadata": {"name": "r"}, "roleRef": {"kind": "Role", "name": "r"},
      "subjects": [{"kind": "User", "name": "u"}]}),
    ("/apis/coordination.k8s.io/v1/namespaces/default/leases",
     {"metadata": {"name": "l"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}),
    ("/apis/authorization.k8s.io/v1/subjectaccessreviews",
     {"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
    (HPAS, autoscaler(metrics=[
        {"type": "Pods", "pods": {"metric": {"name": "a"}, "target": {"type": "Value", "value": "1"}}}
    ])),
    ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION),
    ("/apis/example.com/v1/namespaces/default/things", {"metadata": {"name": "t"}, "spec": {"size": 1}}),
]  # fmt: skip
JUNK = st.sampled_from(
    [None, True, False, 0, -1, 1.5, 2**31, 2**70, 1e300, "", "x", "A b", "\ud800", "%", "25%", "a/b/c", [],
     [None], [[]], ["x"], {}, {"": {}}, {"x": None}, [{}], [{"name": "x"}], "x" * 300,
     {"matchExpressions": [{"key": "a"}]}]
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, inner in items for p in places(inner, (*path, key)))]


def planted(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    found = copy.copy(value)
    found[path[0]] = planted(value[path[0]], path[1:], junk)
    return found


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, Any, str]:
    path, body = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 2))):
        body = planted(body, draw(st.sampled_from(places(body))), draw(JUNK))
    name = "/" + draw(st.sampled_from([p[1].get("metadata", {}).get("name", "x") for p in SEEDS] + ["none"]))
    method = draw(
        st.sampled_from(["POST", "POST", "PUT", "PATCH", "PATCH", "GET", "DELETE", "HEAD", "OPTIONS"])
    )
    sub = draw(st.sampled_from(["", "", "", "/scale", "/status", "/nothing"]))
    kind = "application/json"
    if method == "PATCH":
        kind = draw(st.sampled_from(
            [MERGE, JSON_PATCH, "application/strategic-merge-patch+json", "application/apply-patch+yaml"]
        ))  # fmt: skip
        if kind == JSON_PATCH:
            body = [{"op": draw(st.sampled_from(["add", "replace", "remove", "copy"])), "value": draw(JUNK),
                     "from": "/spec", "path": "/" + "/".join(map(str, draw(st.sampled_from(places(body)))))}
                    for body in [body]]  # fmt: skip
    query = draw(st.sampled_from(
        ["", "", "?dryRun=All", "?fieldManager=x&force=true", "?limit=-5", "?watch=1&timeoutSeconds=0",
         "?labelSelector=a%20in%20(b", "?resourceVersion=99999999999",
         "?fieldManager=x&fieldValidation=Strict"]
    ))  # fmt: skip
    is_collection = method == "POST" or (method in ("GET", "DELETE") and draw(st.booleans()))
    if draw(st.integers(0, 9)) == 0:
        body = draw(st.sampled_from([None, b"{", b"k8s\x00\x0a\x01"]))
    return method, path + ("" if is_collection else name + sub) + query, body, kind


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(requests(), min_size=1, max_size=4))
def test_no_request_whatever_it_says_ends_in_a_traceback(
    server: KubernetesServer, caplog: pytest.LogCaptureFixture, asked: list[tuple[str, str, Any, str]]
) -> None:
    with caplog.at_level(logging.WARNING):
        for method, path, body, kind in asked:
            status, answer = ask(server, method, path, body, kind)
            assert status < 500, (method, path, body, answer)
        assert ask(server, "GET", "/readyz")[0] == 200
    assert [
        r.getMessage() for r in caplog.records if r.name in ("asyncio", "eventperf.testing.kubernetes.server")
    ] == []


THINGS = "/apis/example.com/v1/namespaces/default/things"


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({}, "spec.size", "Required value"), ({"size": "big"}, "spec.size", "must be of type integer"),
        ({"size": -1}, "spec.size", "should be greater than or equal to 0"),
        ({"size": True}, "spec.size", "must be of type integer"),
        ({"size": 1, "tags": {}}, "spec.tags", "must be of type array"),
        ("x", "spec", "must be of type object"),
    ],
)  # fmt: skip
def test_an_object_that_breaks_the_schema_of_its_definition_is_refused(
    spec: Any, field: str, said: str
) -> None:
    with KubernetesServer(pods=False) as server:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        assert ask(server, "GET", THINGS)[0] == 404
        assert ask(server, "POST", path, DEFINITION)[0] == 201
        status, answer = ask(server, "POST", THINGS, {"metadata": {"name": "a"}, "spec": spec})
        assert (status, [c["field"] for c in answer["details"]["causes"]]) == (422, [field])
        assert said in answer["message"]
        good = {"metadata": {"name": "a"}, "spec": {"size": 2, "colour": "red"}}
        status, made = ask(server, "POST", THINGS, good)
        assert (status, made["spec"]) == (201, {"size": 2}), "what the schema does not name is dropped"
        scale = {"spec": {"replicas": 5}}
        assert ask(server, "PATCH", f"{THINGS}/a/scale", scale, MERGE)[0] == 200
        assert ask(server, "GET", f"{THINGS}/a")[1]["spec"] == {"size": 5}
        assert ask(server, "PATCH", f"{THINGS}/a", scale, "application/strategic-merge-patch+json")[0] == 415


WHERE = ("spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec")
SPEC = "spec.versions[0].schema.openAPIV3Schema.properties[spec]"


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (("metadata", "name"), "other.example.com", "metadata.name"),
        (("spec", "scope"), "Planet", "spec.scope"), (("spec", "versions"), [], "spec.versions"),
        (("spec", "group"), "apps", "spec.group"), (("spec", "names", "kind"), None, "spec.names.kind"),
        (("spec", "versions", 0, "schema"), None, "spec.versions[0].schema.openAPIV3Schema"),
        ((*WHERE, "type"), ["object"], f"{SPEC}.type"),
        ((*WHERE, "properties", "size"), 5, f"{SPEC}.properties[size]"),
        ((*WHERE, "properties"), [], f"{SPEC}.properties"), ((*WHERE, "type"), None, f"{SPEC}.type"),
    ],
)  # fmt: skip
def test_a_definition_that_nothing_could_be_served_by_is_refused(
    server: KubernetesServer, place: tuple[Any, ...], value: Any, field: str
) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    status, answer = ask(server, "POST", path, planted(DEFINITION, place, value))
    assert status == 422
    assert field in [c["field"] for c in answer["details"]["causes"]]


def test_a_kind_without_namespaces_takes_the_namespace_off(server: KubernetesServer) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    body = {"metadata": {"name": "r", "namespace": "prod"}, "rules": []}
    status, made = ask(server, "POST", path, body)
    assert (status, "namespace" in made["metadata"]) == (201, False)
    body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    assert ask(server, "PUT", f"{path}/r", body)[0] == 200
    assert ask(server, "GET", f"{path}/r")[1]["metadata"].get("namespace") is None
