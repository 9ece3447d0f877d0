"""The shipped manifests: valid, enough to work with, and nothing in them that is not needed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventperf.scaling import (
    AutoScaler,
    ConfigMapState,
    Fleet,
    LeaderElector,
    LearnedState,
    Rules,
    TargetTracking,
)
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.lease import KubernetesLease
from eventperf.scaling.backends.kubernetes.metrics import KubernetesMetrics
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.scaling.behavior import Behavior
from eventperf.scaling.errors import ScalingError
from eventperf.testing.kubernetes import KubernetesServer, deployment
from eventperf.testing.kubernetes.schemas import Schemas
from eventperf.testing.kubernetes.workloads import ready_pod

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[3] / "examples" / "kubernetes"


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


def _kind(kind: str, name: str) -> dict[str, Any]:
    return next(d for d in _documents(name) if d["kind"] == kind)


def _rules() -> list[Mapping[str, Any]]:
    return list(_kind("Role", "rbac.yaml")["rules"])


def _granted(rules: list[Mapping[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (v, g, r)
        for rule in rules
        for g in rule["apiGroups"]
        for r in rule["resources"]
        for v in rule["verbs"]
    }


def _operate(server: KubernetesServer, *, patience_s: float = 20.0) -> None:
    """Everything a scaler does: lead, read, watch, measure, meet a conflict, scale, tell."""
    server.create_deployment("web", replicas=2)
    for number in range(2):
        server.create("pods", ready_pod(f"web-{number}", deployment("web")))
        server.set_usage(f"web-{number}", cpu="140m")
    api = KubernetesApi.at(server.url, timeout=5)
    with KubernetesState(api) as state:
        elector = LeaderElector(KubernetesLease("eventperf-scaler", namespace="default", api=api))
        elector.step()
        elector.step()
        target = KubernetesTarget("deployment/web", namespace="default", state=state)
        scaler = AutoScaler(
            target, KubernetesMetrics(target, resources=["cpu"]), TargetTracking(cpu=0.7), max_replicas=9,
            behavior=Behavior(down=Rules()),
            state=LearnedState(ConfigMapState("eventperf-state", namespace="default", api=api)),
        )  # fmt: skip
        with Fleet([scaler], leader=elector, workers=1) as fleet:
            (decision,) = fleet.tick().decisions
        assert (decision.after, decision.applied, decision.error) == (4, True, None)
        assert target.contenders() == ()
        alone = KubernetesTarget("deployment/web", namespace="default", api=api)
        alone.read()
        web = server.get("deployments", "web", group="apps")
        server.update("deployments", "web", {**web, "status": {"replicas": 4}}, group="apps")
        alone.scale(5)
        elector.release()
        end = time.monotonic() + patience_s
        while not {("watch", "deployments"), ("watch", "pods"), ("watch", "horizontalpodautoscalers")} <= set(
            server.counts
        ):
            assert time.monotonic() < end
            time.sleep(0.01)
    api.close()


def test_the_role_is_enough_and_nothing_in_it_is_idle() -> None:
    with KubernetesServer(pods=False, schemas=True) as server:
        server.enforce(_rules())
        _operate(server)
        used = {(c.verb, c.group, c.resource) for c in server.calls}
        refused = [c for c in server.calls if c.status == 403]
    assert not refused
    assert used == _granted(_rules())


@pytest.mark.parametrize("number", range(len(_rules())))
def test_without_any_one_rule_something_is_refused(number: int) -> None:
    """The role is minimal; and the server that judges it does refuse."""
    rules = _rules()
    del rules[number]
    with KubernetesServer(pods=False) as server:
        server.enforce(rules)
        with contextlib.suppress(AssertionError, ValueError, ScalingError):
            _operate(server, patience_s=0.3)
        assert any(c.status == 403 for c in server.calls)


def test_the_binding_binds_the_role_to_the_account_the_deployment_runs_as() -> None:
    account, binding = _kind("ServiceAccount", "rbac.yaml"), _kind("RoleBinding", "rbac.yaml")
    (subject,) = binding["subjects"]
    assert binding["roleRef"]["name"] == _kind("Role", "rbac.yaml")["metadata"]["name"]
    assert subject["name"] == account["metadata"]["name"]
    template = _kind("Deployment", "deployment.yaml")["spec"]["template"]["spec"]
    assert template["serviceAccountName"] == account["metadata"]["name"]


def test_no_role_goes_beyond_its_namespace_or_uses_wildcards() -> None:
    assert {d["kind"] for d in _documents("rbac.yaml")} == {"ServiceAccount", "Role", "RoleBinding"}
    assert not any("*" in value for rule in _rules() for part in rule.values() for value in part)


@pytest.mark.parametrize("name", sorted(p.name for p in FOLDER.glob("*.yaml")))
def test_manifests_follow_the_real_schemas(name: str) -> None:
    schemas = Schemas()
    for document in _documents(name):
        assert schemas.errors(document) is None
        assert schemas.errors({**document, "unknown": 1}) is not None
