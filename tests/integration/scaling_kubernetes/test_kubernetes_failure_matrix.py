"""Every failure on every kind of request: no crash, no double action, bounded repeats, one alert."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from eventperf.scaling import Alert, AutoScaler, CallableMetrics, LeaderElector, TargetTracking
from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.errors import KubernetesApiError
from eventperf.scaling.backends.kubernetes.lease import KubernetesLease
from eventperf.scaling.backends.kubernetes.names import parse_reference
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.testing import FakeClock
from eventperf.testing.kubernetes import KubernetesServer

pytestmark = pytest.mark.integration

FAILURES: dict[str, dict[str, object]] = {
    "403": {"status": 403},
    "404": {"status": 404},
    "409": {"status": 409},
    "410": {"status": 410},
    "422": {"status": 422},
    "429": {"status": 429, "retry_after_s": 0.2},
    "500": {"status": 500},
    "time-out": {"cut": "silent"},
    "reset": {"cut": "reset"},
    "half": {"cut": "half"},
}
WEB = parse_reference("deployment/web")


@pytest.fixture(params=list(FAILURES))
def failure(request: pytest.FixtureRequest) -> dict[str, object]:
    return FAILURES[request.param]


@pytest.fixture
def quick(server: KubernetesServer) -> KubernetesApi:
    return KubernetesApi.at(server.url, timeout=0.5)


def eventually(claim: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.005)


def test_a_failing_patch_is_one_alert_and_in_the_end_one_change(
    server: KubernetesServer, quick: KubernetesApi, failure: dict[str, object]
) -> None:
    server.create_deployment("web", replicas=2)
    clock, alerts = FakeClock(), list[Alert]()
    scaler = AutoScaler(
        KubernetesTarget("deployment/web", namespace="default", api=quick, clock=clock),
        CallableMetrics(rps=lambda: 500.0),
        TargetTracking(rps=100),
        max_replicas=9,
        alerts=[alerts.append],
        clock=clock,
    )
    fault = server.script(verb="patch", path="*/scale", times=None, **failure)
    for _ in range(3):
        decision = scaler.tick()
        assert (decision.after, decision.applied) == (5, False)
        assert decision.error
        clock.advance(15)
    assert fault.hits <= 9  # at most three sendings per tick
    assert server.replicas("deployments", "web") == 2
    assert len([a for a in alerts if not a.recovered]) == 1
    server.heal()
    assert scaler.tick().applied
    clock.advance(15)
    assert scaler.tick().action == "none"
    assert server.replicas("deployments", "web") == 5
    assert [a.recovered for a in alerts] == [False, True]
    assert len(server.list("events", group="events.k8s.io")) == 1


def test_a_failing_read_holds_and_recovers(
    server: KubernetesServer, quick: KubernetesApi, failure: dict[str, object]
) -> None:
    server.create_deployment("web", replicas=2)
    alerts = list[Alert]()
    target = KubernetesTarget("deployment/web", namespace="default", api=quick)
    scaler = AutoScaler(
        target,
        CallableMetrics(rps=lambda: 500.0),
        TargetTracking(rps=100),
        max_replicas=9,
        alerts=[alerts.append],
    )
    server.script(verb="get", times=None, **failure)
    for _ in range(2):
        assert not scaler.tick().applied
    assert not [c for c in server.calls if c.verb == "patch"]
    server.heal()
    assert scaler.tick().applied
    assert [a.kind for a in alerts] == ["target_unreadable", "target_unreadable"]


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_failing_list_or_watch_heals_by_itself(
    server: KubernetesServer, quick: KubernetesApi, failure: dict[str, object], verb: str
) -> None:
    server.create_deployment("web", replicas=2)
    fault = server.script(verb=verb, path="*/deployments", times=2, **failure)
    with KubernetesState(quick) as state:

        def current() -> bool:
            try:
                found = state.scale(WEB, "default")
            except KubernetesApiError:
                return False
            return found is not None and found.replicas == 7

        eventually(lambda: current() or fault.hits > 0)
        server.scale("deployments", "web", 7)
        eventually(current)
        eventually(lambda: fault.hits == 2)
        server.scale("deployments", "web", 3)
        eventually(lambda: (found := state.scale(WEB, "default")) is not None and found.replicas == 3)
    assert server.counts["list", "deployments"] <= 6


def test_a_failing_lease_is_retried_never_fatal(
    server: KubernetesServer, quick: KubernetesApi, failure: dict[str, object]
) -> None:
    clock = FakeClock()
    lease = KubernetesLease("lead", namespace="default", api=quick, timeout_s=0.3)
    elector = LeaderElector(lease, identity="a", clock=clock)
    server.script(path="*/leases*", times=None, **failure)
    for _ in range(3):
        clock.advance(elector.step())
        assert not elector.is_leader
    server.heal()
    for _ in range(3):
        clock.advance(elector.step())
    assert elector.is_leader


def test_a_lease_written_without_an_answer_is_kept(server: KubernetesServer, quick: KubernetesApi) -> None:
    lease = KubernetesLease("lead", namespace="default", api=quick, timeout_s=0.3)
    elector = LeaderElector(lease, identity="a", clock=FakeClock())
    server.script(verb="create", path="*/leases", cut="silent", applied=True)
    elector.step()
    assert not elector.is_leader
    elector.step()
    assert elector.is_leader
    assert server.get("leases", "lead", group="coordination.k8s.io")["spec"]["leaseTransitions"] == 0


def test_no_server_at_the_start_is_waited_for(quick: KubernetesApi, server: KubernetesServer) -> None:
    """A refused connection ends nothing: the election goes on when the server is there."""
    server.stop()
    elector = LeaderElector(KubernetesLease("lead", namespace="default", api=quick), retry=0.05)
    with elector:
        eventually(lambda: elector.last_error is not None)
        assert not elector.is_leader
        server.start()
        eventually(lambda: elector.is_leader)


def test_a_stop_hands_over_long_before_the_lease_is_out(server: KubernetesServer) -> None:
    def candidate() -> LeaderElector:
        return LeaderElector(
            KubernetesLease("lead", namespace="default", api=KubernetesApi.at(server.url)), lease=600
        )

    first, second = candidate(), candidate()
    first.start()
    eventually(lambda: first.is_leader)
    with second:
        eventually(lambda: second.leader == first.identity)
        first.close()
        eventually(lambda: second.is_leader)
    assert not first.is_leader


def test_three_processes_worth_of_candidates_never_lead_together(server: KubernetesServer) -> None:
    """Real threads, real HTTP, a server that resets and restarts."""
    electors = [
        LeaderElector(
            KubernetesLease("lead", namespace="default", api=KubernetesApi.at(server.url), timeout_s=0.2),
            lease=1.0, retry=0.05,
        ).start()
        for _ in range(3)
    ]  # fmt: skip
    together, led, over = 0, set[str](), threading.Event()

    def watch() -> None:
        nonlocal together
        while not over.is_set():
            leading = [e.identity for e in electors if e.is_leader]
            together += len(leading) > 1
            led.update(leading)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for round_ in range(6):
            eventually(lambda: any(e.is_leader for e in electors))
            if round_ % 3 == 0:
                server.drop_connections(reset=True)
            elif round_ % 3 == 1:
                leader = next((e for e in electors if e.is_leader), electors[0])
                leader.release()
            else:
                server.stop()
                time.sleep(0.4)
                server.start()
            time.sleep(0.3)
    finally:
        over.set()
        watcher.join()
        for elector in electors:
            elector.close()
    assert together == 0
    assert led
