"""Events that are older than what this process wrote itself do not turn the state back."""

from __future__ import annotations

from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.watch import WatchedCollection


def _event(kind: str, version: str, replicas: int) -> dict[str, object]:
    meta = {"namespace": "default", "name": "web", "resourceVersion": version}
    return {"type": kind, "object": {"metadata": meta, "replicas": replicas}}


def _collection() -> WatchedCollection[int]:
    found = WatchedCollection(KubernetesApi(), "/apis/apps/v1/deployments", lambda obj: int(obj["replicas"]))
    found._take(_event("ADDED", "5", 3))
    return found


def test_an_older_event_is_passed_over_and_a_newer_one_counts() -> None:
    found = _collection()
    found.put("default", "web", 8, "9")
    found._take(_event("MODIFIED", "7", 3))
    assert found.get("default", "web") == 8
    found._take(_event("MODIFIED", "9", 8))
    found._take(_event("MODIFIED", "10", 4))
    assert found.get("default", "web") == 4


def test_versions_that_are_no_numbers_are_taken_as_they_come() -> None:
    found = _collection()
    found.put("default", "web", 8, "opaque")
    found._take(_event("MODIFIED", "other", 5))
    assert found.get("default", "web") == 5


def test_a_deletion_counts_whatever_was_written() -> None:
    found = _collection()
    found.put("default", "web", 8, "9")
    found._take(_event("DELETED", "7", 3))
    assert found.get("default", "web") is None


def test_what_was_deleted_is_not_written_back() -> None:
    found = _collection()
    found._take(_event("DELETED", "7", 3))
    found.put("default", "web", 8, "6")
    assert found.get("default", "web") is None
