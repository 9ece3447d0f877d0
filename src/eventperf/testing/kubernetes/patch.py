"""Merge patch (RFC 7386) and strategic merge patch, on plain JSON values."""

from __future__ import annotations

from typing import Any

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
