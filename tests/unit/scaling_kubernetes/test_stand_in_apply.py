"""Server-side apply, pure: who manages a field decides what becomes of it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf.testing.kubernetes.apply import applied, entries_of, updated
from eventperf.testing.kubernetes.fields import Path, fields_of, merged, packed, spelled, unpacked, without
from eventperf.testing.kubernetes.store import ApiError

KIND = "apps/v1"


def web(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web"}, "spec": spec}


def apply(live: Any, wanted: Any, manager: str = "kubectl", *, force: bool = False) -> Any:
    return applied(live, deepcopy(wanted), manager, KIND, force=force, has_status=True)


def managers(obj: Any) -> dict[tuple[str, str, str], list[str]]:
    return {e.key: sorted(map(spelled, e.fields)) for e in entries_of(obj)}


def test_what_is_no_longer_said_goes_unless_somebody_else_says_it() -> None:
    live = apply(None, web(replicas=2, paused=True, minReadySeconds=3))
    live = apply(live, web(minReadySeconds=3), "other")
    live = apply(live, web(replicas=2))
    assert live["spec"] == {"replicas": 2, "minReadySeconds": 3}
    assert managers(live) == {
        ("kubectl", "Apply", ""): [".spec.replicas"], ("other", "Apply", ""): [".spec.minReadySeconds"],
    }  # fmt: skip


def test_a_scaler_s_replicas_are_a_conflict_and_stay_when_they_are_given_up() -> None:
    live = apply(None, web(replicas=2, paused=False))
    scaled = updated(live, {**live, "spec": {**live["spec"], "replicas": 7}}, "eventperf", KIND, "scale")
    with pytest.raises(ApiError) as caught:
        apply(scaled, web(replicas=2, paused=False))
    assert caught.value.status == 409
    assert '"eventperf" with subresource "scale"' in caught.value.message
    assert caught.value.message.endswith(": .spec.replicas")
    assert caught.value.details == {
        "causes": [{
            "reason": "FieldManagerConflict",
            "message": 'conflict with "eventperf" with subresource "scale" using apps/v1',
            "field": ".spec.replicas",
        }]
    }  # fmt: skip
    assert apply(scaled, web(replicas=7, paused=False))["spec"]["replicas"] == 7, "the same is no conflict"
    assert apply(scaled, web(paused=False))["spec"] == {"replicas": 7, "paused": False}
    forced = apply(scaled, web(replicas=2, paused=False), force=True)
    assert forced["spec"]["replicas"] == 2
    assert set(managers(forced)) == {("kubectl", "Apply", "")}


def test_items_of_a_list_have_managers_of_their_own() -> None:
    app, side = {"name": "app", "image": "a:1"}, {"name": "side", "image": "s:1"}
    live = apply(None, web(containers=[app]))
    live = apply(live, web(containers=[side]), "mesh")
    assert live["spec"]["containers"] == [app, side]
    live = apply(live, web(containers=[{**app, "image": "a:2"}]))
    assert live["spec"]["containers"] == [{"name": "app", "image": "a:2"}, side]
    assert apply(live, web(), "mesh")["spec"]["containers"] == [{"name": "app", "image": "a:2"}]
    patched = updated(live, web(containers=[{"name": "app", "image": "a:3"}, side]), "ci", KIND)
    kept = apply({**patched, "metadata": {**live["metadata"], **patched["metadata"]}}, web())
    assert kept["spec"]["containers"] == [{"name": "app", "image": "a:3"}, side], "ci has a part in it"


def test_an_object_from_before_is_taken_over_with_care() -> None:
    live = web(replicas=2, paused=True)
    assert apply(live, web(replicas=2))["spec"] == {"replicas": 2, "paused": True}
    with pytest.raises(ApiError, match="before-first-apply"):
        apply(live, web(replicas=3))
    assert updated(live, web(replicas=3), "x", KIND) == web(replicas=3), "nobody managed it: nobody does"


def test_an_apply_that_says_the_same_changes_nothing() -> None:
    live = apply(None, web(replicas=2, containers=[{"name": "app", "image": "a"}]))
    assert apply(live, web(replicas=2, containers=[{"name": "app", "image": "a"}])) == live


leaves = st.one_of(st.integers(0, 3), st.text("ab", max_size=2), st.booleans())
containers = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abc")}, optional={"image": leaves}),
    unique_by=lambda c: c["name"], max_size=3,
)  # fmt: skip
specs = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3), "containers": containers, "args": st.lists(leaves, max_size=2),
        "labels": st.dictionaries(st.sampled_from("xyz"), leaves, max_size=3),
    },
)  # fmt: skip


@given(first=specs, second=specs)
def test_after_an_apply_everything_said_is_there_and_owned(first: Any, second: Any) -> None:
    live = apply(apply(None, web(**first), "one"), web(**second), "two", force=True)
    assert merged(live, web(**second)) == live
    assert frozenset(entries_of(live)[-1].fields if second_owned(second) else ()) == fields_of(web(**second))
    for entry in entries_of(live):
        for path in entry.fields:
            assert without(live, [path]) != live or path[-1] == "." or is_key(path), spelled(path)


def second_owned(spec: Any) -> bool:
    return bool(fields_of(web(**spec)))


def is_key(path: Path) -> bool:
    return len(path) > 1 and path[-2].startswith("k:") and path[-1] == "f:name"


@given(first=specs, second=specs)
def test_who_alone_manages_an_object_gets_what_he_says(first: Any, second: Any) -> None:
    live = apply(apply(None, web(**first)), web(**second))
    assert in_any_order(live.get("spec", {})) == in_any_order(second)


def in_any_order(spec: Any) -> Any:
    """Return a spec without what is empty; items of a list with a key keep the order they had."""
    found = {k: v for k, v in spec.items() if v not in ([], {})}
    return {**found, "containers": sorted(found.get("containers", ()), key=lambda c: c["name"])}


@given(spec=specs)
def test_a_set_is_read_back_as_it_was_written(spec: Any) -> None:
    found = fields_of(web(**spec))
    assert unpacked(packed(found)) == found
