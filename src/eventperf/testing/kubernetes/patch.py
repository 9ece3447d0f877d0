"""Merge patch (RFC 7386) and strategic merge patch, on plain JSON values."""

from __future__ import annotations

import json
from typing import Any


class PatchError(ValueError):
    """A patch that does not fit what it is applied to."""


_MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name",
    "conditions": "type", "ownerReferences": "uid", "tolerations": None, "args": None, "command": None,
    "volumeMounts": "mountPath", "ports": "containerPort", "imagePullSecrets": "name",
}  # fmt: skip


def merge(target: Any, patch: Any) -> Any:
    """Return ``target`` with ``patch`` merged in; neither is changed.

    >>> merge({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}})
    {'b': {'c': 2, 'd': 3}}

    Source: RFC 7386, section 2.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Return ``target`` with a strategic merge ``patch`` applied; neither is changed.

    Lists that have a merge key are merged by it; other lists are replaced. ``$patch: replace`` and
    ``$patch: delete`` are understood.

    >>> strategic({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]},
    ...           {"containers": [{"name": "a", "image": "2"}]})
    {'containers': [{'name': 'a', 'image': '2'}, {'name': 'b'}]}
    """
    if isinstance(patch, list):
        return _lists(target, patch, _MERGE_KEYS.get(field))
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, key)
    return result


def _lists(target: Any, patch: list[Any], key: str | None) -> list[Any]:
    if key is None or not isinstance(target, list) or not all(isinstance(p, dict) for p in patch):
        return patch
    result = list(target)
    for item in patch:
        at = next((i for i, old in enumerate(result) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(item)
        else:
            result[at] = strategic(result[at], item)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """Return ``target`` with a list of operations applied; it is not changed.

    >>> json_patch({"a": [1, 2]}, [{"op": "add", "path": "/a/-", "value": 3}])
    {'a': [1, 2, 3]}

    Raises:
        PatchError: A path is not there, or a test does not hold.

    Source: RFC 6902.
    """
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    whole = {"": json.loads(json.dumps(target))}
    for operation in operations:
        try:
            _operate(whole, operation)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise PatchError(f"{json.dumps(operation)[:200]}: {type(error).__name__}: {error}") from error
    return whole[""]


def _operate(whole: dict[str, Any], operation: dict[str, Any]) -> None:
    kind, path = operation["op"], operation["path"]
    holder, key = _place(whole, path)
    if kind == "test":
        if holder[key] != operation["value"]:
            raise PatchError("the test does not hold")
        return
    if kind in ("move", "copy"):
        source, name = _place(whole, operation["from"])
        value = json.loads(json.dumps(source[name]))
        if kind == "move":
            del source[name]
        holder, key = _place(whole, path)
    elif kind == "remove":
        del holder[key]
        return
    elif kind in ("add", "replace"):
        value = operation["value"]
        if kind == "replace":
            holder[key]
            holder[key] = value
            return
    else:
        raise PatchError(f"no operation {kind!r}")
    if isinstance(holder, list):
        holder.insert(key, value)
    else:
        holder[key] = value


def _place(whole: dict[str, Any], path: str) -> tuple[Any, Any]:
    """Return what holds the value at ``path``, and under which key."""
    if path and not path.startswith("/"):
        raise PatchError(f"no path: {path!r}")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]
    holder: Any = whole
    key: Any = steps[0]
    for step in steps[1:]:
        holder = holder[key]
        is_list = isinstance(holder, list)
        key = (len(holder) if step == "-" else int(step)) if is_list else step
    return holder, key
