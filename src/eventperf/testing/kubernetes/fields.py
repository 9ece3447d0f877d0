"""Who manages which field: the sets of server-side apply, their merge and their conflicts. Pure.

A set holds paths; a path is a tuple of steps as ``fieldsV1`` writes them: ``f:name`` for a field,
``k:{"name":"main"}`` for an item of a list with a key, ``v:"x"`` for one of a set, ``.`` for an item itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

Path = tuple[str, ...]
Fields = frozenset[Path]

_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",), "initContainers": ("name",), "ephemeralContainers": ("name",),
    "volumes": ("name",), "env": ("name",), "imagePullSecrets": ("name",), "volumeMounts": ("mountPath",),
    "conditions": ("type",), "ownerReferences": ("uid",),
}  # fmt: skip
_SETS = {"finalizers"}
_ATOMIC = {"selector", "nodeSelector"}
_NEVER = {
    ("f:apiVersion",), ("f:kind",), ("f:metadata",),
    *((("f:metadata", f"f:{name}")) for name in (
        "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields",
    )),
}  # fmt: skip


def fields_of(obj: Any) -> Fields:
    """Return the paths of every leaf of an object that somebody can manage."""
    return frozenset(path for path, _ in _leaves(obj, ()))


def changed(old: Any, new: Any) -> tuple[Fields, Fields]:
    """Return the paths that are new or have another value, and those that are gone."""
    before, after = dict(_leaves(old, ())), dict(_leaves(new, ()))
    differs = {p for p, value in after.items() if p not in before or before[p] != value}
    return frozenset(differs), frozenset(before.keys() - after.keys())


def _leaves(value: Any, path: Path, name: str = "") -> Iterator[tuple[Path, Any]]:
    if path in _NEVER and path != ("f:metadata",):
        return
    if isinstance(value, dict) and value and name not in _ATOMIC:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, f"f:{key}"), key)
        return
    if isinstance(value, list) and value:
        steps = [_step(name, item) for item in value]
        if all(steps):
            for step, item in zip(steps, value, strict=True):
                yield (*path, str(step), "."), None
                if isinstance(item, dict):
                    for key, inner in item.items():
                        yield from _leaves(inner, (*path, str(step), f"f:{key}"), key)
            return
    if path and path not in _NEVER:
        yield path, value


def _step(name: str, item: Any) -> str | None:
    """Return what an item of a list is known by, or None where the list is one value."""
    if name in _SETS and not isinstance(item, (dict, list)):
        return f"v:{json.dumps(item)}"
    if not isinstance(item, dict):
        return None
    keys = _keys(name, item)
    if not keys or any(key not in item for key in keys if key != "protocol"):
        return None
    known = {key: item.get(key, "TCP") for key in keys}
    return f"k:{json.dumps(known, separators=(',', ':'), sort_keys=True)}"


def _keys(name: str, item: dict[str, Any]) -> tuple[str, ...] | None:
    if name == "ports":
        return ("containerPort", "protocol") if "containerPort" in item else ("port", "protocol")
    return _KEYS.get(name)


def value_at(obj: Any, path: Path) -> Any:
    """Return the value at ``path``, or None."""
    name = ""
    for step in path:
        if step == ".":
            return None
        if step.startswith("f:"):
            name = step[2:]
            obj = obj.get(name) if isinstance(obj, dict) else None
        else:
            items = obj if isinstance(obj, list) else ()
            obj = next((item for item in items if _step(name, item) == step), None)
    return obj


def merged(live: Any, wanted: Any, name: str = "") -> Any:
    """Return ``live`` with what ``wanted`` says; what it does not mention stays."""
    if isinstance(live, dict) and isinstance(wanted, dict) and name not in _ATOMIC:
        return {**live, **{key: merged(live.get(key), value, key) for key, value in wanted.items()}}
    if isinstance(live, list) and isinstance(wanted, list):
        steps = [_step(name, item) for item in wanted]
        if wanted and all(steps):
            known = {_step(name, item): item for item in live}
            told = {s: merged(known.get(s), item) for s, item in zip(steps, wanted, strict=True)}
            kept = [told.pop(_step(name, item), item) for item in live]
            return [*kept, *told.values()]
    return wanted


def without(obj: Any, paths: Iterable[Path]) -> Any:
    """Return ``obj`` without the values at ``paths``; maps that are then empty go too.

    An item of a list goes as a whole, by its own path; what it is known by goes only with it.
    """
    for path in sorted(paths, key=lambda p: (p[-1] != ".", -len(p), p)):
        obj = _removed(obj, path, "")
    return obj


def _removed(obj: Any, path: Path, name: str) -> Any:
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        key = step[2:]
        if not isinstance(obj, dict) or key not in obj:
            return obj
        inner = _removed(obj[key], rest, key) if rest else None
        return {
            k: inner if k == key else v for k, v in obj.items() if k != key or inner not in (None, {}, [])
        }
    if not isinstance(obj, list):
        return obj
    found = []
    for item in obj:
        if _step(name, item) != step:
            found.append(item)
        elif rest != (".",):
            is_key = len(rest) == 1 and step.startswith("k:") and rest[0][2:] in json.loads(step[2:])
            found.append(item if is_key or not rest else _removed(item, rest, ""))
    return found


def packed(fields: Iterable[Path]) -> dict[str, Any]:
    """Return a set as ``fieldsV1``.

    >>> packed({("f:spec", "f:replicas")})
    {'f:spec': {'f:replicas': {}}}
    """
    found: dict[str, Any] = {}
    for path in sorted(fields):
        place = found
        for step in path:
            place = place.setdefault(step, {})
    return found


def unpacked(packed_fields: dict[str, Any]) -> Fields:
    """Return the set that ``fieldsV1`` says."""

    def walk(value: dict[str, Any], path: Path) -> Iterator[Path]:
        for step, inner in value.items():
            if inner:
                yield from walk(inner, (*path, step))
            else:
                yield (*path, step)

    return frozenset(walk(packed_fields, ()))


def spelled(path: Path) -> str:
    """Return a path as the server's messages have it.

    >>> spelled(("f:spec", "f:containers", 'k:{"name":"main"}', "f:image"))
    '.spec.containers[name="main"].image'
    """
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(step[2:]).items()) + "]"
        elif step.startswith("v:"):
            text += f"[={step[2:]}]"
    return text
