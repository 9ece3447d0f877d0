"""JSON patch as RFC 6902 has it: its examples, and that nothing but a PatchError comes of a bad one."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf.testing.kubernetes.patch import PatchError, json_patch, merge, strategic

# RFC 6902, appendix A
EXAMPLES: list[tuple[Any, list[Any], Any]] = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}],
     {"foo": ["bar", "qux", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
    ({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
     [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
     {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
    ({"foo": ["all", "grass", "cows", "eat"]}, [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
     {"foo": ["all", "cows", "eat", "grass"]}),
    ({"baz": "qux", "foo": ["a", 2, "c"]},
     [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
     {"baz": "qux", "foo": ["a", 2, "c"]}),
    ({"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
     {"foo": "bar", "child": {"grandchild": {}}}),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
     {"foo": "bar", "baz": "qux"}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
     {"foo": ["bar", ["abc", "def"]]}),
    ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ({"a": [1.0]}, [{"op": "test", "path": "/a", "value": [1]}], {"a": [1.0]}),
]  # fmt: skip

REFUSED: list[tuple[Any, Any]] = [
    ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}]),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}]),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}]),
    ({"a": 1}, [{"op": "test", "path": "/a", "value": True}]),
    ({"a": 1}, [{"op": "replace", "path": "/b", "value": 1}]),
    ({"a": 1}, [{"op": "remove", "path": "/b"}]),
    ({"a": 1}, [{"op": "remove", "path": ""}]),
    ({"a": 1}, [{"op": "add", "path": "/b"}]),
    ({"a": 1}, [{"op": "add", "path": "b", "value": 1}]),
    ({"a": 1}, [{"op": "added", "path": "/b", "value": 1}]),
    ({"a": 1}, [{"path": "/b", "value": 1}]),
    ({"a": 1}, [{"op": "add", "path": 3, "value": 1}]),
    ({"a": 1}, [{"op": "move", "path": "/b"}]),
    ({"a": 1}, [{"op": "copy", "from": "/b", "path": "/c"}]),
    ({"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a/b/c"}]),
    ({"a": [1, 2]}, [{"op": "add", "path": "/a/3", "value": 1}]),
    ({"a": [1, 2]}, [{"op": "add", "path": "/a/01", "value": 1}]),
    ({"a": [1, 2]}, [{"op": "add", "path": "/a/-1", "value": 1}]),
    ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-"}]),
    ({"a": [1, 2]}, [{"op": "remove", "path": "/a/2"}]),
    ({"a": [1, 2]}, [{"op": "replace", "path": "/a/x", "value": 1}]),
    ({"a": 1}, {"op": "add", "path": "/b", "value": 1}),
    ({"a": 1}, ["add"]),
    ({"a": 1}, [None]),
    ({"a": 1}, None),
    ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}] * 10_001),
    ({"a": ["x" * 100]}, [{"op": "copy", "from": "/a", "path": "/a/-"}] * 60),
    ({"a": []}, [{"op": "add", "path": "/a/0", "value": reduce(lambda inner, _: [inner], range(3000), [])}]),
]


@pytest.mark.parametrize(("target", "patch", "after"), EXAMPLES)
def test_the_examples_of_the_standard_hold(target: Any, patch: Any, after: Any) -> None:
    before = json.dumps(target)
    assert json_patch(target, patch) == after
    assert json.dumps(target) == before


@pytest.mark.parametrize(("target", "patch"), REFUSED)
def test_what_the_standard_has_not_is_refused_and_changes_nothing(target: Any, patch: Any) -> None:
    before = json.dumps(target)
    with pytest.raises(PatchError):
        json_patch(target, patch)
    assert json.dumps(target) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", "$patch", "env", "-"]), inner),
    max_leaves=6,
)  # fmt: skip
PATHS = st.lists(st.sampled_from(["a", "b", "env", "0", "1", "-", "01", "~0", "~2", ""]), max_size=4).map(
    lambda steps: "".join(f"/{step}" for step in steps)
)
OPERATIONS = st.fixed_dictionaries(
    {}, optional={
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "eat"]) | JSON,
        "path": PATHS | JSON, "from": PATHS | JSON, "value": JSON,
    },
)  # fmt: skip


@given(JSON, st.lists(OPERATIONS | JSON, max_size=4) | JSON)
def test_whatever_the_patch_is_it_is_done_or_refused_and_never_changes_what_it_was_given(
    target: Any, patch: Any
) -> None:
    before = json.dumps([target, patch])
    try:
        json_patch(target, patch)
    except PatchError:
        pass
    assert json.dumps([target, patch]) == before


@given(JSON, JSON)
def test_merges_of_anything_into_anything_end_well(target: Any, patch: Any) -> None:
    before = json.dumps([target, patch])
    strategic({"spec": target}, {"spec": patch})
    merged = merge(target, patch)
    assert merge(merged, patch) == merged, "a merge patch said twice changes nothing more"
    assert json.dumps([target, patch]) == before


def test_plain_lists_lose_values_and_maps_keep_what_is_retained() -> None:
    before = {
        "metadata": {"finalizers": ["a", "b"]},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {}},
    }
    patch = {
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]},
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
    }
    after = {"metadata": {"finalizers": ["b"]}, "strategy": {"type": "Recreate"}}
    assert strategic(before, patch) == after
