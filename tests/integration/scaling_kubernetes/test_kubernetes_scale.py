"""One change is one PATCH and one Event, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import Alert, AutoScaler, CallableMetrics, TargetTracking
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.errors import (
    KubernetesApiError,
    KubernetesConflict,
    KubernetesForbidden,
    KubernetesGone,
    KubernetesInvalid,
    KubernetesNotFound,
    KubernetesThrottled,
    KubernetesUnavailable,
)
from eventperf.scaling.backends.kubernetes.scale import KubernetesScale
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.testing import FakeClock
from eventperf.testing.kubernetes import KubernetesServer, Resource

pytestmark = pytest.mark.integration

SCALE = "*/deployments/web/scale"


@pytest.fixture
def target(server: KubernetesServer, api: KubernetesApi) -> KubernetesScale:
    server.create_deployment("web", replicas=3)
    return KubernetesScale("deployment/web", namespace="default", api=api)


@pytest.fixture
def state(server: KubernetesServer) -> Iterator[KubernetesState]:
    with KubernetesApi.at(server.url, timeout=2) as api, KubernetesState(api) as state:
        yield state


def _patches(server: KubernetesServer) -> int:
    return server.counts["patch", "deployments/scale"]


def test_a_change_is_one_patch_and_one_event(server: KubernetesServer, target: KubernetesScale) -> None:
    assert target.read().replicas == 3
    server.counts.clear()
    assert target.write(5, reason="cpu 91 % of 70 %").replicas == 5
    assert server.replicas("deployments", "web") == 5
    assert dict(server.counts) == {("patch", "deployments/scale"): 1, ("create", "events"): 1}
    (event,) = server.list("events", group="events.k8s.io")
    assert (event["reason"], event["note"]) == ("ScaledUp", "3 -> 5 replicas: cpu 91 % of 70 %")
    assert event["regarding"]["uid"] == target.read().uid


@pytest.mark.parametrize("replicas", [2.5, -1, True, "3", 2**31])
def test_a_number_the_api_would_refuse_is_never_sent(
    server: KubernetesServer, target: KubernetesScale, replicas: object
) -> None:
    with pytest.raises(ConfigurationError):
        target.write(replicas)  # type: ignore[arg-type]
    assert _patches(server) == 0


def test_a_dry_run_is_checked_by_the_server_and_changes_nothing(
    server: KubernetesServer, target: KubernetesScale
) -> None:
    assert target.write(9, dry_run=True).replicas == 9
    assert server.replicas("deployments", "web") == 3
    assert not server.list("events", group="events.k8s.io")


def test_a_status_update_in_between_is_no_conflict(server: KubernetesServer, target: KubernetesScale) -> None:
    target.read()
    deployment = server.get("deployments", "web", group="apps")
    server.update("deployments", "web", {**deployment, "status": {"replicas": 3}}, group="apps")
    assert target.write(5).replicas == 5
    assert server.replicas("deployments", "web") == 5


def test_somebody_elses_change_is_not_overwritten(server: KubernetesServer, target: KubernetesScale) -> None:
    target.read()
    server.scale("deployments", "web", 8)
    with pytest.raises(KubernetesConflict, match="from 3 to 8"):
        target.write(5)
    assert server.replicas("deployments", "web") == 8
    assert target.write(9).replicas == 9  # decided anew, on what is there now


def test_endless_conflicts_end(server: KubernetesServer, target: KubernetesScale) -> None:
    target.read()
    server.script(verb="patch", path=SCALE, status=409, times=None)
    with pytest.raises(KubernetesConflict):
        target.write(5)
    assert _patches(server) == 3


@pytest.mark.parametrize(
    "fault",
    [{"cut": "silent"}, {"cut": "reset"}, {"cut": "half"}, {"status": 500}, {"status": 504}],
    ids=["time-out", "reset", "half an answer", "500", "504"],
)
def test_a_patch_that_succeeded_without_an_answer_is_not_repeated(
    server: KubernetesServer, target: KubernetesScale, fault: dict[str, object]
) -> None:
    target.read()
    server.script(verb="patch", path=SCALE, applied=True, **fault)
    assert target.write(5).replicas == 5
    assert _patches(server) == 1
    assert server.replicas("deployments", "web") == 5
    assert len(server.list("events", group="events.k8s.io")) == 1


@pytest.mark.parametrize("fault", [{"cut": "reset"}, {"cut": "half"}])
def test_a_patch_on_a_broken_connection_is_sent_once_more_when_it_was_not_done(
    server: KubernetesServer, target: KubernetesScale, fault: dict[str, object]
) -> None:
    target.read()
    server.script(verb="patch", path=SCALE, **fault)
    assert target.write(5).replicas == 5
    assert _patches(server) == 2
    server.script(verb="patch", path=SCALE, times=None, **fault)
    with pytest.raises(KubernetesUnavailable):
        target.write(6)
    assert _patches(server) == 4
    assert server.replicas("deployments", "web") == 5


@pytest.mark.parametrize("fault", [{"cut": "silent"}, {"status": 503}])
def test_a_patch_that_was_lost_is_reported_and_left_to_the_next_decision(
    server: KubernetesServer, target: KubernetesScale, fault: dict[str, object]
) -> None:
    target.read()
    server.script(verb="patch", path=SCALE, **fault)
    with pytest.raises(KubernetesUnavailable):
        target.write(5)
    assert _patches(server) == 1
    assert server.replicas("deployments", "web") == 3
    assert target.write(5).replicas == 5


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (403, KubernetesForbidden),
        (404, KubernetesNotFound),
        (410, KubernetesGone),
        (422, KubernetesInvalid),
        (401, KubernetesForbidden),
    ],
)
@pytest.mark.parametrize("verb", ["get", "patch"])
def test_each_refusal_has_its_error(
    server: KubernetesServer,
    target: KubernetesScale,
    verb: str,
    status: int,
    raised: type[KubernetesApiError],
) -> None:
    if verb == "patch":
        target.read()
    server.script(verb=verb, status=status, times=None)
    with pytest.raises(raised) as caught:
        target.read() if verb == "get" else target.write(5)
    assert caught.value.status == status
    assert server.counts[verb, "deployments/scale" if verb == "patch" else "deployments"] == 1


def test_forbidden_names_the_missing_right(server: KubernetesServer, target: KubernetesScale) -> None:
    target.read()
    server.enforce([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}])
    with pytest.raises(KubernetesForbidden, match="grant patch on deployments/scale in API group apps"):
        target.write(5)


def test_after_429_nothing_is_sent_until_the_server_said(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    server.create_deployment("web", replicas=3)
    clock = FakeClock()
    target = KubernetesScale("deployment/web", namespace="default", api=api, clock=clock)
    target.read()
    server.script(verb="patch", path=SCALE, status=429, retry_after_s=7)
    with pytest.raises(KubernetesThrottled) as caught:
        target.write(5)
    assert caught.value.retry_after_s == 7
    clock.advance(6)
    with pytest.raises(KubernetesThrottled):
        target.write(5)
    assert _patches(server) == 1
    clock.advance(1.1)
    assert target.write(5).replicas == 5
    assert _patches(server) == 2


def test_a_lost_event_does_not_fail_the_change(server: KubernetesServer, target: KubernetesScale) -> None:
    server.script(verb="create", path="*/events", status=403, times=None)
    assert target.write(5).replicas == 5
    assert target.write(6).replicas == 6
    assert server.counts["create", "events"] == 1  # a refused right is not asked for again and again


def test_a_connection_the_server_closed_while_idle_is_replaced(
    server: KubernetesServer, target: KubernetesScale
) -> None:
    target.read()
    server.drop_connections()
    assert target.write(5).replicas == 5


def test_a_server_that_restarts_is_found_again(server: KubernetesServer, target: KubernetesScale) -> None:
    target.read()
    server.stop()
    with pytest.raises(KubernetesUnavailable):
        target.read()
    server.start()
    assert target.read().replicas == 3


def test_an_old_leader_writes_nothing(
    server: KubernetesServer, target: KubernetesScale, api: KubernetesApi
) -> None:
    late, new = target, KubernetesScale("deployment/web", namespace="default", api=api)
    late.read()
    new.read()
    new.write(4)
    with pytest.raises(KubernetesConflict):
        late.write(7)
    assert server.replicas("deployments", "web") == 4
    late.guard = lambda: False
    with pytest.raises(KubernetesConflict, match="leads no longer"):
        late.write(7)
    assert _patches(server) == 2


def test_a_change_behind_our_back_is_noticed(server: KubernetesServer, target: KubernetesScale) -> None:
    target.read()
    target.write(5)
    assert target.changed_by_others is None
    server.scale("deployments", "web", 2)
    target.read()
    assert target.changed_by_others == (5, 2)


def _hpa(name: str, target: str, **labels: str) -> dict[str, object]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"scaleTargetRef": reference, "maxReplicas": 9},
    }


def test_an_hpa_on_the_same_target_is_found(
    server: KubernetesServer, target: KubernetesScale, state: KubernetesState
) -> None:
    managed = {"app.kubernetes.io/managed-by": "keda-operator"}
    server.create("horizontalpodautoscalers", _hpa("keda-hpa-web", "web", **managed), group="autoscaling")
    server.create("horizontalpodautoscalers", _hpa("other", "api"), group="autoscaling")
    assert target.contenders() == ("HorizontalPodAutoscaler/keda-hpa-web",)
    watched = KubernetesScale("deployment/web", namespace="default", state=state)
    assert watched.contenders() == ("KEDA HorizontalPodAutoscaler/keda-hpa-web",)


def test_hpas_that_may_not_be_listed_are_no_error(server: KubernetesServer, state: KubernetesState) -> None:
    server.create_deployment("web")
    server.script(verb="list", path="*/horizontalpodautoscalers", status=403, times=None)
    assert KubernetesScale("deployment/web", namespace="default", state=state).contenders() == ()


@pytest.mark.parametrize("text", ["widgets.v1.example.com/big", "widgets.example.com/big"])
def test_any_kind_with_a_scale_subresource(server: KubernetesServer, api: KubernetesApi, text: str) -> None:
    paths = ("spec.size", "status.size", "status.selector")
    server.register(Resource(group="example.com", version="v1", plural="widgets", kind="Widget", scale=paths))
    server.create("widgets", {"metadata": {"name": "big"}, "spec": {"size": 2}}, group="example.com")
    target = KubernetesScale(text, namespace="default", api=api)
    assert target.read().replicas == 2
    target.write(4)
    assert server.get("widgets", "big", group="example.com")["spec"]["size"] == 4


def test_a_stateful_set_is_scaled(server: KubernetesServer, api: KubernetesApi) -> None:
    from eventperf.testing.kubernetes import deployment

    server.create("statefulsets", {**deployment("db", replicas=2), "kind": "StatefulSet"}, group="apps")
    target = KubernetesScale("statefulset/db", namespace="default", api=api)
    target.read()
    target.write(3)
    assert server.replicas("statefulsets", "db") == 3


@pytest.mark.parametrize("watched", [False, True])
def test_an_hpa_on_the_same_target_is_alerted_once(server: KubernetesServer, watched: bool) -> None:
    server.create_deployment("web", replicas=2)
    server.create("horizontalpodautoscalers", _hpa("web", "web"), group="autoscaling")
    alerts: list[Alert] = []
    with KubernetesApi.at(server.url) as api, KubernetesState(api) as state:
        given = {"state": state} if watched else {"api": api}
        target = KubernetesTarget("deployment/web", namespace="default", **given)  # type: ignore[arg-type]
        scaler = AutoScaler(
            target,
            CallableMetrics(rps=lambda: 200.0),
            TargetTracking(rps=100),
            max_replicas=9,
            alerts=[alerts.append],
        )
        for _ in range(3):
            scaler.tick()
    assert [(a.kind, a.text) for a in alerts] == [
        ("fought_over", "HorizontalPodAutoscaler/web scales it too")
    ]
