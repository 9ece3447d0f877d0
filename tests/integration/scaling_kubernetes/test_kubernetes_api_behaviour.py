"""What the API does, as claims: they hold for the test server and for a real kube-apiserver alike."""

from __future__ import annotations

import threading

import pytest

from eventperf.scaling.backends.kubernetes.api import JSON, MERGE_PATCH
from eventperf.scaling.backends.kubernetes.errors import (
    KubernetesApiError,
    KubernetesConflict,
    KubernetesGone,
    KubernetesInvalid,
    KubernetesNotFound,
)
from eventperf.scaling.backends.kubernetes.lease import KubernetesLease
from eventperf.scaling.backends.kubernetes.names import namespaced
from eventperf.scaling.protocols import Lease, LeaseConflict
from eventperf.testing.kubernetes import deployment

from .conftest import Cluster

pytestmark = pytest.mark.integration


def _deployments(cluster: Cluster, *tail: str) -> str:
    return namespaced("apps", "v1", "deployments", cluster.namespace, *tail)


def _create(cluster: Cluster, name: str = "web", **options: object) -> JSON:
    return cluster.api.request("POST", _deployments(cluster), body=deployment(name, **options))


def _patch(cluster: Cluster, body: JSON, *, kind: str = MERGE_PATCH, **query: str) -> JSON:
    path = _deployments(cluster, "web", "scale")
    return cluster.api.request("PATCH", path, body=body, content_type=kind, query=query)


def test_scale_view_shows_replicas_and_selector(cluster: Cluster) -> None:
    made = _create(cluster, replicas=3)
    scale = cluster.api.request("GET", _deployments(cluster, "web", "scale"))
    assert scale["kind"] == "Scale"
    assert scale["spec"]["replicas"] == 3
    assert scale["status"]["selector"] == "app=web"
    assert scale["metadata"]["uid"] == made["metadata"]["uid"]


def test_patch_without_a_version_never_conflicts_and_with_a_stale_one_always(cluster: Cluster) -> None:
    made = _create(cluster, replicas=1)
    _patch(cluster, {"spec": {"replicas": 2}})
    with pytest.raises(KubernetesConflict):
        version = made["metadata"]["resourceVersion"]
        _patch(cluster, {"metadata": {"resourceVersion": version}, "spec": {"replicas": 3}})
    assert _patch(cluster, {"spec": {"replicas": 4}})["spec"]["replicas"] == 4


@pytest.mark.parametrize("replicas", [2.5, -1, "three"])
def test_replicas_must_be_a_whole_number_from_zero(cluster: Cluster, replicas: object) -> None:
    _create(cluster)
    with pytest.raises(KubernetesInvalid):
        _patch(cluster, {"spec": {"replicas": replicas}})


def test_an_unknown_patch_type_is_refused(cluster: Cluster) -> None:
    _create(cluster)
    with pytest.raises(KubernetesApiError) as caught:
        _patch(cluster, {"spec": {"replicas": 2}}, kind="application/json")
    assert caught.value.status == 415


def test_dry_run_answers_but_changes_nothing(cluster: Cluster) -> None:
    _create(cluster, replicas=1)
    assert _patch(cluster, {"spec": {"replicas": 9}}, dryRun="All")["spec"]["replicas"] == 9
    assert cluster.api.request("GET", _deployments(cluster, "web"))["spec"]["replicas"] == 1


def test_strategic_patch_merges_containers_by_name(cluster: Cluster) -> None:
    _create(cluster)
    patch = {
        "spec": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.invalid/app:2"}]}}}
    }
    kind = "application/strategic-merge-patch+json"
    done = cluster.api.request("PATCH", _deployments(cluster, "web"), body=patch, content_type=kind)
    (container,) = done["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.invalid/app:2"
    assert container["resources"]["requests"]["cpu"] == "100m"


def test_lists_come_in_pages_and_by_label(cluster: Cluster) -> None:
    for number in range(5):
        labels = {"app": f"web-{number}", "parity": "odd" if number % 2 else "even"}
        _create(cluster, f"web-{number}", labels=labels)
    names, query = [], {"limit": "2"}
    while True:
        page = cluster.api.request("GET", _deployments(cluster), query=query)
        names += [d["metadata"]["name"] for d in page["items"]]
        if not page["metadata"].get("continue"):
            break
        query["continue"] = page["metadata"]["continue"]
    assert names == [f"web-{n}" for n in range(5)]
    odd = cluster.api.request(
        "GET", _deployments(cluster), query={"labelSelector": "parity in (odd),app!=web-1"}
    )
    assert [d["metadata"]["name"] for d in odd["items"]] == ["web-3"]


def test_a_watch_resumes_after_the_version_it_is_given(cluster: Cluster) -> None:
    made = _create(cluster, replicas=1)
    _patch(cluster, {"spec": {"replicas": 2}})
    query = {"watch": "1", "resourceVersion": made["metadata"]["resourceVersion"], "timeoutSeconds": "5"}
    stream = cluster.api.stream(_deployments(cluster), query=query, timeout_s=5)
    event = next(iter(stream))
    assert event["type"] == "MODIFIED"
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    stream.close()


def test_a_lease_is_put_by_version_and_one_of_many_writers_wins(cluster: Cluster) -> None:
    lease = KubernetesLease("lead", namespace=cluster.namespace, api=cluster.api, timeout_s=5)
    assert lease.read() is None
    first = lease.write(Lease(holder="a", duration_s=15))
    with pytest.raises(LeaseConflict):
        lease.write(Lease(holder="b", duration_s=15))
    won: list[str] = []

    def claim(name: str) -> None:
        own = KubernetesLease("lead", namespace=cluster.namespace, api=cluster.api, timeout_s=5)
        try:
            own.write(Lease(holder=name, duration_s=15, transitions=1, version=first.version))
        except LeaseConflict:
            return
        won.append(name)

    threads = [threading.Thread(target=claim, args=(f"c{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    after = lease.read()
    assert after is not None
    assert (after.holder, after.transitions) == (won[0], 1)


def test_a_lease_put_without_version_is_refused(cluster: Cluster) -> None:
    KubernetesLease("lead", namespace=cluster.namespace, api=cluster.api).write(
        Lease(holder="a", duration_s=15)
    )
    path = namespaced("coordination.k8s.io", "v1", "leases", cluster.namespace, "lead")
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lead"}, "spec": {}}
    with pytest.raises(KubernetesInvalid):
        cluster.api.request("PUT", path, body=body)


def test_what_is_not_there_is_not_found(cluster: Cluster) -> None:
    with pytest.raises(KubernetesNotFound):
        cluster.api.request("GET", _deployments(cluster, "absent", "scale"))
    with pytest.raises(KubernetesNotFound):
        cluster.api.request("GET", "/apis/nothing.example.com/v1/things")


def test_an_object_that_breaks_its_schema_is_refused(cluster: Cluster) -> None:
    body = deployment("web")
    body["spec"]["template"]["spec"]["containers"][0]["name"] = 7
    with pytest.raises(KubernetesInvalid):
        cluster.api.request("POST", _deployments(cluster), body=body)


def test_an_expired_page_token_is_gone(server, api) -> None:  # type: ignore[no-untyped-def]
    for number in range(3):
        server.create_deployment(f"web-{number}")
    path = namespaced("apps", "v1", "deployments", "default")
    page = api.request("GET", path, query={"limit": 1})
    server.compact()
    with pytest.raises(KubernetesGone):
        api.request("GET", path, query={"limit": 1, "continue": page["metadata"]["continue"]})
