"""Merge patch (RFC 7386), strategic merge patch and JSON patch (RFC 6902), on plain JSON values. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_MOST_OPERATIONS: Final = 10_000
_MOST_COPIED: Final = 3 << 20
_INDEX: Final = re.compile("0|[1-9][0-9]{0,9}")


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
    ``$patch: delete``, ``$retainKeys`` and ``$deleteFromPrimitiveList`` are understood.

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
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$"):
            _primitives(result, key, value)
            continue
        if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, key)
    return result


def _primitives(result: dict[str, Any], directive: str, gone: Any) -> None:
    """Take values out of a list of plain values, as ``$deleteFromPrimitiveList/finalizers`` asks."""
    kind, _, name = directive.partition("/")
    held = result.get(name)
    if kind == "$deleteFromPrimitiveList" and isinstance(held, list) and isinstance(gone, list):
        result[name] = [value for value in held if value not in gone]


def _lists(target: Any, patch: list[Any], key: str | None) -> list[Any]:
    if key is None or not isinstance(target, list) or not all(isinstance(p, dict) for p in patch):
        return patch
    result = list(target)
    for item in patch:
        same = (i for i, old in enumerate(result) if isinstance(old, dict) and old.get(key) == item.get(key))
        at = next(same, None)
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
        PatchError: This is no patch, a path is not there, or a test does not hold; nothing is done then.

    Source: RFC 6902 and, for paths, RFC 6901.
    """
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    if len(operations) > _MOST_OPERATIONS:
        raise PatchError(f"at most {_MOST_OPERATIONS} operations in a JSON patch, got {len(operations)}")
    whole, copied = {"": _copy(target)}, 0
    for operation in operations:
        try:
            copied += _operate(whole, operation)
        except RecursionError:
            raise PatchError("the patch nests values too deeply") from None
        if copied > _MOST_COPIED:
            raise PatchError(
                f"the accumulated size increase of copy is {copied}, exceeding the limit {_MOST_COPIED}"
            )
    return whole[""]


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _operate(whole: dict[str, Any], operation: Any) -> int:
    """Do one operation; returns how many bytes it has copied."""
    kind = _text(operation, "op")
    if kind not in ("add", "remove", "replace", "move", "copy", "test"):
        raise PatchError(f"Unexpected kind: {kind!r}")
    path = _steps(_text(operation, "path"))
    if kind in ("add", "replace", "test") and "value" not in operation:
        raise PatchError(f"{kind} operation for path {operation['path']!r}: missing value")
    try:
        if kind == "remove":
            _take(whole, path)
        elif kind == "test":
            if not _same(_at(whole, path), operation["value"]):
                raise PatchError(f"testing path {operation['path']} failed: the test does not hold")
        elif kind == "replace":
            _at(whole, path)
            _put(whole, path, _copy(operation["value"]), over=True)
        elif kind == "add":
            _put(whole, path, _copy(operation["value"]))
        else:
            source = _steps(_text(operation, "from"))
            if kind == "move" and path[: len(source)] == source and path != source:
                raise _Absent(f"{operation['from']!r} cannot be moved into itself")
            value = _copy(_at(whole, source))
            if kind == "move":
                _take(whole, source)
            _put(whole, path, value)
            return len(json.dumps(value)) if kind == "copy" else 0
    except _Absent as error:
        raise PatchError(
            f"{kind} operation does not apply: doc is missing path: {operation['path']}: {error}"
        ) from None
    return 0


class _Absent(ValueError):
    """A path that leads nowhere."""


def _text(operation: Any, name: str) -> str:
    value = operation.get(name) if isinstance(operation, dict) else None
    if not isinstance(value, str):
        raise PatchError(f"an operation of a JSON patch needs {name!r} as a text")
    return value


def _steps(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise PatchError(f"no JSON pointer: {path[:200]!r} does not begin with '/'")
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]


def _holder(whole: dict[str, Any], path: list[str]) -> Any:
    found: Any = whole
    for step in path[:-1]:
        found = _inside(found, step)
    return found


def _at(whole: dict[str, Any], path: list[str]) -> Any:
    return _inside(_holder(whole, path), path[-1])


def _inside(holder: Any, step: str) -> Any:
    if isinstance(holder, dict) and step in holder:
        return holder[step]
    if isinstance(holder, list):
        return holder[_index(step, len(holder) - 1)]
    raise _Absent(f"no {step[:200]!r} there")


def _index(step: str, most: int) -> int:
    """Return an index as RFC 6901 writes one: digits without a zero before them."""
    if not _INDEX.fullmatch(step) or int(step) > most:
        raise _Absent(f"no item {step[:200]!r} there")
    return int(step)


def _put(whole: dict[str, Any], path: list[str], value: Any, *, over: bool = False) -> None:
    holder, step = _holder(whole, path), path[-1]
    if isinstance(holder, dict):
        holder[step] = value
    elif not isinstance(holder, list):
        raise _Absent(f"nothing that could hold {step[:200]!r}")
    elif over:
        holder[_index(step, len(holder) - 1)] = value
    else:
        holder.insert(len(holder) if step == "-" else _index(step, len(holder)), value)


def _take(whole: dict[str, Any], path: list[str]) -> None:
    holder, step = _holder(whole, path), path[-1]
    _inside(holder, step)
    if len(path) == 1:
        raise _Absent("the whole object cannot be removed")
    del holder[int(step) if isinstance(holder, list) else step]


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same JSON: ``true`` is no 1, and 1 is 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
