"""State that is watched: current without being asked for, and current again after every kind of break."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.errors import (
    KubernetesForbidden,
    KubernetesNotFound,
    KubernetesUnavailable,
)
from eventperf.scaling.backends.kubernetes.names import parse_reference
from eventperf.scaling.backends.kubernetes.scale import KubernetesScale
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.testing import FakeClock
from eventperf.testing.kubernetes import KubernetesServer

pytestmark = pytest.mark.integration

WEB = parse_reference("deployment/web")


@pytest.fixture
def state(server: KubernetesServer) -> Iterator[KubernetesState]:
    with KubernetesApi.at(server.url, timeout=2) as api, KubernetesState(api) as state:
        yield state


def eventually(claim: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.005)


def _sees(state: KubernetesState, replicas: int) -> Callable[[], bool]:
    def seen() -> bool:
        found = state.scale(WEB, "default")
        return found is not None and found.replicas == replicas

    return seen


def _watches(server: KubernetesServer, count: int) -> None:
    eventually(lambda: server.counts["watch", "deployments"] >= count)


def test_reading_costs_no_request_once_it_is_watched(
    server: KubernetesServer, state: KubernetesState
) -> None:
    server.create_deployment("web", replicas=3)
    target = KubernetesScale("deployment/web", namespace="default", state=state)
    assert target.read().replicas == 3
    _watches(server, 1)
    server.calls.clear()
    for _ in range(100):
        target.read()
    assert not server.calls
    server.scale("deployments", "web", 6)
    eventually(lambda: target.read().replicas == 6)
    assert not [c for c in server.calls if c.resource == "deployments"]


def test_an_own_write_is_seen_at_once_and_not_undone_by_older_events(
    server: KubernetesServer, state: KubernetesState
) -> None:
    server.create_deployment("web", replicas=1)
    target = KubernetesScale("deployment/web", namespace="default", state=state)
    target.read()
    for replicas in range(2, 40):
        target.write(replicas)
        assert target.read().replicas == replicas
        assert target.changed_by_others is None
    assert server.replicas("deployments", "web") == 39


@pytest.mark.parametrize("trouble", ["end", "drop", "reset", "gone", "restart"])
def test_the_watch_comes_back(server: KubernetesServer, state: KubernetesState, trouble: str) -> None:
    server.create_deployment("web", replicas=1)
    eventually(_sees(state, 1))
    _watches(server, 1)
    if trouble == "end":
        server.end_watches()
    elif trouble == "gone":
        server.scale("deployments", "web", 2)
        server.compact()
        server.drop_connections()
    elif trouble == "restart":
        server.stop()
        server.start()
    else:
        server.drop_connections(reset=trouble == "reset")
    server.scale("deployments", "web", 7)
    eventually(_sees(state, 7))
    _watches(server, 2)
    server.scale("deployments", "web", 8)
    eventually(_sees(state, 8))


def test_a_scripted_410_lists_again(server: KubernetesServer, state: KubernetesState) -> None:
    server.create_deployment("web", replicas=1)
    server.script(verb="watch", path="*/deployments", status=410, times=1)
    eventually(_sees(state, 1))
    eventually(lambda: state.workloads(WEB, "default").lists == 2)


def test_deleted_objects_disappear_also_while_nobody_watched(
    server: KubernetesServer, state: KubernetesState
) -> None:
    server.create_deployment("web")
    eventually(_sees(state, 1))
    _watches(server, 1)
    server.stop()
    server.delete("deployments", "web", group="apps")
    server.compact()
    server.start()
    eventually(lambda: state.workloads(WEB, "default").get("default", "web") is None)
    with pytest.raises(KubernetesNotFound):
        KubernetesScale("deployment/web", namespace="default", state=state).read()


def test_pages_add_up() -> None:
    with KubernetesServer(pods=False) as server, KubernetesState(KubernetesApi.at(server.url)) as state:
        for number in range(1203):
            server.create_deployment(f"web-{number}", replicas=number % 7)
        assert len(state.workloads(WEB, "default")) == 1203
        assert server.counts["list", "deployments"] == 3


def test_a_list_that_is_refused_says_so(server: KubernetesServer, state: KubernetesState) -> None:
    server.enforce([])
    with pytest.raises(KubernetesForbidden):
        eventually(lambda: state.scale(WEB, "default") is not None)


def test_bookmarks_move_the_version_on() -> None:
    with KubernetesServer(bookmark_s=0.05) as server:
        server.create_deployment("web")
        with KubernetesApi.at(server.url) as api, KubernetesState(api) as state:
            eventually(_sees(state, 1))
            _watches(server, 1)
            for number in range(5):
                server.create("configmaps", {"metadata": {"name": f"c{number}"}})
            latest = server.store.version
            eventually(lambda: int(state.workloads(WEB, "default")._version) >= latest)
            server.compact()
            server.end_watches()
            _watches(server, 2)
            server.scale("deployments", "web", 4)
            eventually(_sees(state, 4))
            assert state.workloads(WEB, "default").lists == 1  # resumed: no 410, no second list


def test_a_state_that_was_not_confirmed_for_long_is_no_answer(server: KubernetesServer) -> None:
    clock = FakeClock()
    server.create_deployment("web")
    with KubernetesApi.at(server.url) as api, KubernetesState(api, clock=clock) as state:
        eventually(_sees(state, 1))
        _watches(server, 1)
        server.stop()
        clock.advance(149)
        assert _sees(state, 1)()  # known a moment ago is known
        clock.advance(2)
        with pytest.raises(KubernetesUnavailable):
            state.scale(WEB, "default")
        server.start()

        def current() -> bool:
            try:
                return _sees(state, 1)()
            except KubernetesUnavailable:
                return False

        eventually(current)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_watches_for_itself(server: KubernetesServer, state: KubernetesState) -> None:
    server.create_deployment("web", replicas=1)
    eventually(_sees(state, 1))
    child = os.fork()
    if not child:
        code = 1
        try:
            end = time.monotonic() + 20
            while time.monotonic() < end and code:
                code = 0 if _sees(state, 5)() else 1
                time.sleep(0.01)
        finally:
            os._exit(code)
    server.scale("deployments", "web", 5)
    ended = [(0, 0)]

    def over() -> bool:
        ended[0] = os.waitpid(child, os.WNOHANG)
        return ended[0][0] == child

    eventually(over, 30.0)
    assert os.waitstatus_to_exitcode(ended[0][1]) == 0


def test_without_a_way_into_a_cluster_a_reader_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    broken = tmp_path / "config"
    broken.write_text("clusters: 3")
    for given in (broken, tmp_path / "none"):
        with KubernetesApi(kubeconfig=str(given)) as api, KubernetesState(api) as state:
            with pytest.raises(KubernetesUnavailable, match="no way into a cluster"):
                state.scale(WEB, "default")
            (watched,) = state._collections.values()
            assert watched.is_running, "it tries again by itself"


def test_an_object_of_another_shape_is_told_and_does_not_end_the_watch(
    server: KubernetesServer, state: KubernetesState
) -> None:
    server.create_deployment("web", replicas=3)
    eventually(_sees(state, 3))
    server.update("deployments", "web", {"metadata": {"name": "web"}, "spec": 3}, group="apps")
    watched = state._follow("apps", "v1", "deployments", "default", None)
    eventually(lambda: watched.error is not None)
    server.delete("deployments", "web", group="apps")
    server.create_deployment("web", replicas=4)
    eventually(_sees(state, 4))
