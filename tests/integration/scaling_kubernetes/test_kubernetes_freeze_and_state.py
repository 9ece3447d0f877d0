"""Freezing by annotation, and what was learned in a ConfigMap: both hold when the leader dies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventperf.cli.main import main
from eventperf.scaling import (
    AutoScaler,
    Behavior,
    CallableMetrics,
    ConfigMapState,
    KubernetesState,
    KubernetesTarget,
    LatencyPolicy,
    LearnedState,
    Rules,
    TargetTracking,
)
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.testing import FakeClock
from eventperf.testing.kubernetes import KubernetesServer
from eventperf.testing.kubernetes.resources import Resource
from scale_processes import RULES, Group, eventually

pytestmark = pytest.mark.integration


def cli(group: Group, *words: str) -> int:
    """Run a command with an operator's rights, which are not the scaler's."""
    group.config.write_text(json.dumps(group.data))
    group.server.enforce(None)
    try:
        return main(["scale", *words, "--config", str(group.config)])
    finally:
        group.server.enforce(RULES)


def test_frozen_holds_across_failover_until_it_is_taken_back(
    group: Group, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(group, "freeze", "deployment/web") == 0
    assert capsys.readouterr().out == "default/deployment/web: frozen\n"
    group.data["alerts"] = [{"type": "log"}]
    first, second = group.start(), group.start()
    leader = eventually(group.leader)
    eventually(lambda: "frozen by people" in group.said())
    leader.kill()
    leader.wait()
    follower = second if leader is first else first
    eventually(lambda: group.leader() is follower)
    eventually(lambda: group.said().count("frozen by people") >= 2)
    assert group.patches() == 0
    assert group.server.replicas("deployments", "web") == 2

    assert cli(group, "unfreeze") == 0
    eventually(lambda: group.server.replicas("deployments", "web") == 4)
    follower.terminate()
    assert follower.wait(30) == 0


@pytest.mark.parametrize("shared", [True, False], ids=["watched", "polled"])
@pytest.mark.parametrize(
    ("value", "is_frozen"), [("true", True), ("yes", True), ("false", False), ("", False)]
)
def test_an_annotation_by_hand_freezes_up_and_down(
    server: KubernetesServer, api: KubernetesApi, shared: bool, value: str, is_frozen: bool
) -> None:
    server.create_deployment("web", replicas=4)
    state = KubernetesState(api) if shared else None
    target = KubernetesTarget("deployment/web", namespace="default", api=None if shared else api, state=state)
    load = [800.0]
    behavior = Behavior(down=Rules(window=0))
    scaler = AutoScaler(
        target, CallableMetrics(rps=lambda: load[0]), TargetTracking(rps=50), max_replicas=40,
        behavior=behavior,
    )  # fmt: skip
    annotate(api, value)
    eventually(lambda: target.read().frozen == is_frozen)
    for load[0] in (800.0, 50.0):
        assert (scaler.tick().binding == "frozen") == is_frozen
    assert (server.replicas("deployments", "web") == 4) == is_frozen
    if state is not None:
        state.close()


def annotate(api: KubernetesApi, value: str | None) -> None:
    api.request(
        "PATCH", "/apis/apps/v1/namespaces/default/deployments/web",
        body={"metadata": {"annotations": {"eventperf/frozen": value}}},
        content_type="application/merge-patch+json",
    )  # fmt: skip


def test_other_kinds_are_looked_at_themselves_since_their_scale_shows_no_annotation(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    paths = ("spec.replicas", "status.replicas", "spec.selector")
    server.register(
        Resource(group="games.example.com", version="v1", plural="arenas", kind="Arena", scale=paths)
    )
    arena: dict[str, Any] = {
        "apiVersion": "games.example.com/v1", "kind": "Arena", "metadata": {"name": "a"},
        "spec": {"replicas": 3},
    }  # fmt: skip
    server.create("arenas", arena, group="games.example.com")
    target = KubernetesTarget("arenas.v1.games.example.com/a", namespace="default", api=api)
    assert target.read().frozen is False
    target.object.freeze()
    assert target.read().frozen is True
    target.object.freeze(False)
    assert target.read().frozen is False


def test_a_freeze_that_is_refused_names_the_right(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    group.config.write_text(json.dumps(group.data))
    assert main(["scale", "freeze", "--config", str(group.config)]) != 0
    assert "grant patch on deployments in API group apps" in capsys.readouterr().err


def test_what_was_learned_is_in_the_config_map_when_the_leader_is_killed(group: Group) -> None:
    group.data["scaler"]["state"] = "configmap:eventperf-state"
    del group.data["log"]
    first = group.start()
    eventually(lambda: group.server.replicas("deployments", "web") == 4)
    eventually(lambda: group.server.list("configmaps"))
    first.kill()
    first.wait()
    group.start()
    eventually(lambda: "going on from the decision of" in group.said())
    assert not [call for call in group.server.calls if call.status == 403]


def test_capacity_and_shapes_go_on_in_the_next_leader(server: KubernetesServer, api: KubernetesApi) -> None:
    server.create_deployment("web", replicas=4)
    clock = FakeClock()

    def scaler() -> AutoScaler:
        return AutoScaler(
            KubernetesTarget("deployment/web", namespace="default", api=api),
            CallableMetrics(rps=lambda: 84.0, cpu=lambda: 0.5), LatencyPolicy(), max_replicas=40, clock=clock,
            state=LearnedState(ConfigMapState("learned", namespace="default", api=api), clock=clock),
        )  # fmt: skip

    first = scaler()
    eventually(lambda: first.target.read().ready == 4)
    for _ in range(12):
        clock.advance(15.0)
        first.tick()
    learned = first._memory["capacity"]
    assert learned == pytest.approx(42.0, rel=0.2)
    clock.advance(15.0)
    second = scaler()
    second.tick()
    assert second._memory["capacity"] == pytest.approx(learned, rel=0.01)
    assert second._memory["load"]["began"] == first._memory["load"]["began"]


def test_a_config_map_that_may_not_be_written_names_the_right_and_scaling_goes_on(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    server.create_deployment("web", replicas=2)
    server.script(verb="create", path="*/configmaps", status=403, times=None)
    told: list[Any] = []
    scaler = AutoScaler(
        KubernetesTarget("deployment/web", namespace="default", api=api),
        CallableMetrics(rps=lambda: 300.0), TargetTracking(rps=50), max_replicas=10, alerts=[told.append],
        state=LearnedState(ConfigMapState("learned", namespace="default", api=api)),
    )  # fmt: skip
    assert scaler.tick().after == 6
    assert [a.kind for a in told] == ["state_failed"]
    assert "grant get, create and patch on configmaps in namespace default" in told[0].text
