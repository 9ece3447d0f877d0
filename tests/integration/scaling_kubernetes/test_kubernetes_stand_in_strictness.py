"""What a cluster refuses, the stand-in refuses; two APIs of one collection show the same."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from eventperf.testing.kubernetes import KubernetesServer, deployment

pytestmark = pytest.mark.integration
APPS = "/apis/apps/v1/namespaces/{}/{}"


def ask(server: KubernetesServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def stateful(name: str) -> Any:
    body = deployment(name)
    return {**body, "kind": "StatefulSet", "spec": {**body["spec"], "serviceName": name}}


CHANGES = [
    ("deployments", {"spec": {"selector": {"matchLabels": {"app": "other"}}}}, 422, "immutable"),
    ("deployments", {"spec": {"template": {"metadata": {"labels": {"app": "other"}}}}}, 422, "selector"),
    ("deployments", {"spec": {"replicas": 7}}, 200, ""),
    ("deployments", {"metadata": {"name": "other"}}, 400, "does not match"),
    ("statefulsets", {"spec": {"serviceName": "other"}}, 422, "Forbidden"),
    ("statefulsets", {"spec": {"replicas": 7}}, 200, ""),
]


@pytest.mark.parametrize(("plural", "patch", "status", "said"), CHANGES)
@pytest.mark.parametrize("dry_run", ["", "?dryRun=All"])
def test_what_never_changes_is_refused_and_nothing_is_changed(
    plural: str, patch: Any, status: int, said: str, dry_run: str
) -> None:
    with KubernetesServer(pods=False) as server:
        body = deployment("web") if plural == "deployments" else stateful("web")
        assert ask(server, "POST", APPS.format("default", plural), body)[0] == 201
        before = server.get(plural, "web", group="apps")
        found, answer = ask(server, "PATCH", APPS.format("default", plural) + "/web" + dry_run, patch)
        assert found == status
        assert said in answer.get("message", "")
        if status != 200:
            assert server.get(plural, "web", group="apps") == before


def test_a_workload_that_would_not_select_its_own_pods_is_refused() -> None:
    body = deployment("web")
    body["spec"]["template"]["metadata"] = {"labels": {"app": "other"}}
    with KubernetesServer(pods=False) as server:
        status, answer = ask(server, "POST", APPS.format("default", "deployments"), body)
        assert (status, server.list("deployments", group="apps")) == (422, [])
        assert "spec.template.metadata.labels" in answer["message"]


@pytest.mark.parametrize("plural", ["deployments", "statefulsets"])
def test_a_namespace_that_is_not_there_is_said(plural: str) -> None:
    body = deployment("web") if plural == "deployments" else stateful("web")
    with KubernetesServer(pods=False) as server:
        status, answer = ask(server, "POST", APPS.format("prdo", plural), body)
        assert (status, answer["message"]) == (404, 'namespaces "prdo" not found')
        made, _ = ask(server, "POST", "/api/v1/namespaces", {"metadata": {"name": "prdo"}})
        assert made == 201
        assert ask(server, "POST", APPS.format("prdo", plural), body)[0] == 201
        names = [n["metadata"]["name"] for n in ask(server, "GET", "/api/v1/namespaces")[1]["items"]]
        assert {"default", "prdo"} <= set(names)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"replica": 3}, 'unknown field "spec.replica"'),
        ({"template": {"spec": {"containerz": []}}}, 'unknown field "spec.template.spec.containerz"'),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_unknown_field_is_refused_by_name_where_the_client_is_strict(
    method: str, change: Any, field: str
) -> None:
    path, body = APPS.format("default", "deployments"), deployment("web")
    spec = body["spec"] = {**body["spec"]}
    for key, value in change.items():
        if isinstance(value, dict):
            spec[key] = {**spec[key], "spec": {**spec[key]["spec"], **value["spec"]}}
        else:
            spec[key] = value
    with KubernetesServer(pods=False) as server:
        if method != "POST":
            assert ask(server, "POST", path, deployment("web"))[0] == 201
            path += "/web"
        status, answer = ask(server, method, f"{path}?fieldValidation=Strict", body)
        assert status == 400
        assert field in answer["message"]
        assert ask(server, method, path, body)[0] in (200, 201)  # not strict: as it always was


def test_a_doubled_field_is_refused_where_the_client_is_strict() -> None:
    body = json.dumps(deployment("web")).replace('"replicas": 1', '"replicas": 1, "replicas": 2').encode()
    with KubernetesServer(pods=False) as server:
        path = APPS.format("default", "deployments") + "?fieldValidation=Strict"
        status, answer = ask(server, "POST", path, body)
        assert (status, 'duplicate field "replicas"' in answer["message"]) == (400, True)


def test_events_are_the_same_through_both_apis_and_gone_from_both() -> None:
    core, new = "/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events"
    now = "2026-01-01T00:00:00.000000Z"
    about = {"kind": "Pod", "namespace": "default", "name": "web-0"}
    with KubernetesServer(pods=False) as server:
        one = {
            "metadata": {"name": "one"}, "eventTime": now, "regarding": about, "reason": "Seen", "note": "a",
            "type": "Normal", "action": "Look", "reportingController": "x", "reportingInstance": "y",
        }  # fmt: skip
        other = {"metadata": {"name": "other"}, "involvedObject": about, "reason": "Old", "message": "b"}
        assert ask(server, "POST", new, one)[0] == 201
        assert ask(server, "POST", core, {**other, "type": "Normal"})[0] == 201
        for path, text, subject in ((core, "message", "involvedObject"), (new, "note", "regarding")):
            items = {e["metadata"]["name"]: e for e in ask(server, "GET", path)[1]["items"]}
            assert {n: e[text] for n, e in items.items()} == {"one": "a", "other": "b"}
            assert all(e[subject] == about for e in items.values())
        versions = [ask(server, "GET", f"{path}/one")[1]["metadata"] for path in (core, new)]
        assert versions[0] == versions[1]
        assert ask(server, "DELETE", f"{core}/one")[0] == 200
        assert [e["metadata"]["name"] for e in ask(server, "GET", new)[1]["items"]] == ["other"]


def test_pods_that_follow_have_a_usage_that_follows_them() -> None:
    with KubernetesServer(usage="70m") as server:
        server.create_deployment("web", replicas=3)

        def names(group: str) -> set[str]:
            return {p["metadata"]["name"] for p in server.list("pods", group=group)}

        for wanted in (3, 5, 1, 0):
            server.scale("deployments", "web", wanted)
            deadline = time.monotonic() + 20
            while (
                time.monotonic() < deadline and not len(names("")) == len(names("metrics.k8s.io")) == wanted
            ):
                time.sleep(0.02)
            assert names("") == names("metrics.k8s.io")
            assert len(names("")) == wanted
