"""The structural schema of a custom resource: what fits it, what it does not name, what it fills in. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .syntax import Cause, invalid, required, unsupported

Schema = Mapping[str, Any]
_HEAD: Final = ("apiVersion", "kind", "metadata")
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "number": (int, float),
}  # fmt: skip


def wrong(schema: Schema, value: Any, path: str = "") -> Iterator[Cause]:
    """Find what does not fit.

    >>> [str(c) for c in wrong({"type": "object", "required": ["spec"]}, {})]
    ['spec: Required value']
    """
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            yield _of_type(path, value, "integer,string")
        return
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _TYPES and not _is(kind, value):
        yield _of_type(path, value, kind)
        return
    yield from _within(schema, value, path)
    if isinstance(value, dict):
        for name in _texts(schema.get("required")):
            if name not in value:
                yield required(f"{path}.{name}" if path else name)
        for name, inner in value.items():
            known = _inner(schema, name)
            if known is not None and not (not path and name in _HEAD):
                yield from wrong(known, inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for at, inner in enumerate(value):
                yield from wrong(items, inner, f"{path}[{at}]")


def wrong_schema(schema: Any, path: str) -> Iterator[Cause]:
    """Find what keeps ``schema`` from being a structural schema."""
    if not isinstance(schema, dict):
        yield invalid(path, schema, "must be a schema")
        return
    kind = schema.get("type")
    is_free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if kind is None and not is_free:
        yield required(f"{path}.type", "must not be empty for specified object fields")
    elif kind is not None and not (isinstance(kind, str) and kind in _TYPES):
        yield unsupported(f"{path}.type", kind, tuple(_TYPES))
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        yield invalid(f"{path}.properties", properties, "must be a map of schemas")
    else:
        for name, inner in properties.items():
            yield from wrong_schema(inner, f"{path}.properties[{name}]")
    for part in ("items", "additionalProperties"):
        inner = schema.get(part)
        if inner is not None and not (part == "additionalProperties" and isinstance(inner, bool)):
            yield from wrong_schema(inner, f"{path}.{part}")


def _within(schema: Schema, value: Any, path: str) -> Iterator[Cause]:
    known = schema.get("enum")
    if isinstance(known, list) and value not in known:
        yield unsupported(path, value, tuple(str(k) for k in known))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum"), schema.get("maximum")
        if isinstance(least, (int, float)) and value < least:
            yield invalid(path, value, f"{path} in body should be greater than or equal to {least}")
        if isinstance(most, (int, float)) and value > most:
            yield invalid(path, value, f"{path} in body should be less than or equal to {most}")
    if isinstance(value, str):
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not _matches(pattern, value):
            yield invalid(path, value, f"{path} in body should match '{pattern}'")
    size = len(value) if isinstance(value, (str, list)) else None
    for name, is_less in (("minLength", True), ("maxLength", False), ("minItems", True), ("maxItems", False)):
        bound = schema.get(name)
        if (
            size is None
            or not isinstance(bound, int)
            or isinstance(value, str) is not name.endswith("Length")
        ):
            continue
        if size < bound if is_less else size > bound:
            unit = "chars long" if isinstance(value, str) else "items"
            text = f"{path} in body should be at {'least' if is_less else 'most'} {bound} {unit}"
            yield invalid(path, value, text)


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:  # Go's syntax, which has forms that Python's has not
        return True


def filled(schema: Schema, value: Any, path: str = "") -> tuple[Any, list[str]]:
    """Return ``value`` with defaults and without what the schema does not name, and the paths of that."""
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        parts = [filled(schema["items"], inner, f"{path}[{at}]") for at, inner in enumerate(value)]
        return [part for part, _ in parts], [name for _, gone in parts for name in gone]
    if not isinstance(value, dict):
        return value, []
    found: dict[str, Any] = {}
    unknown: list[str] = []
    for name, inner in value.items():
        known, here = _inner(schema, name), f"{path}.{name}" if path else name
        if not path and name in _HEAD:
            found[name] = inner
        elif known is not None:
            found[name], gone = filled(known, inner, here)
            unknown += gone
        elif schema.get("x-kubernetes-preserve-unknown-fields") or not schema.get("properties"):
            found[name] = inner
        else:
            unknown.append(here)
    for name, known in _properties(schema).items():
        if name not in found and isinstance(known, dict) and "default" in known:
            found[name] = json.loads(json.dumps(known["default"]))
    return found, unknown


def _properties(schema: Schema) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _inner(schema: Schema, name: str) -> Schema | None:
    found = _properties(schema).get(name)
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, dict) else None


def _texts(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, _TYPES[kind])


def _of_type(path: str, value: Any, kind: str) -> Cause:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return invalid(
        path,
        names.get(type(value), "null"),
        f"{path} in body must be of type {kind}: {json.dumps(value)[:200]}",
    )
