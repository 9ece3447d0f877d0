"""OpenAPI 3 of the kinds that are served: what ``kubectl explain`` prints and how ``apply`` merges lists.

The fields are those of the published schemas (``kubernetes-validate``); without that package, kinds are named
and their fields are not. A custom resource has the schema of its definition.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from eventperf._core.errors import MissingExtra

from .openapi import PARAMETERS
from .resources import Resource
from .schemas import Schemas
from .store import Object

_OWN: Final = "com.github.eventperf"
_LEAVES: Final = {  # published as a choice of types, which the document of the real server words like this
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
}


def document(served: Iterable[Resource], prefix: str) -> Object:
    """Return the document of one version of one group."""
    paths: Object = {}
    schemas: Object = {}
    query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in PARAMETERS]
    for resource in served:
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        name = _published().get((resource.group, resource.version, resource.kind))
        if name is None:
            name = f"{_OWN}.{resource.group or 'core'}.{resource.version}.{resource.kind}"
            schemas[name] = _named(resource, kind)
        else:
            schemas.update(_with_parts(name))
        body = {"schema": {"$ref": f"#/components/schemas/{name}"}}
        done = {"200": {"description": "OK", "content": {"application/json": body}}}
        space = "/namespaces/{namespace}" if resource.namespaced else ""
        paths[f"/{prefix}{space}/{resource.plural}/{{name}}"] = {
            "get": {"x-kubernetes-group-version-kind": kind, "responses": done},
            "patch": {"parameters": query, "x-kubernetes-group-version-kind": kind, "responses": done},
        }
    info = {"title": "Kubernetes", "version": "v1.33.0-eventperf"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _named(resource: Resource, kind: Object) -> Object:
    head = {"x-kubernetes-group-version-kind": [kind]}
    if resource.schema is not None:
        return {"type": "object", **resource.schema, **head}
    return {"type": "object", **head, "x-kubernetes-preserve-unknown-fields": True}


@functools.cache
def _definitions() -> Mapping[str, Any]:
    try:
        return Schemas().definitions
    except MissingExtra:
        return {}


@functools.cache
def _published() -> dict[tuple[str, str, str], str]:
    """Return the names of the published kinds."""
    return {
        (kind["group"], kind["version"], kind["kind"]): name
        for name, schema in _definitions().items()
        for kind in schema.get("x-kubernetes-group-version-kind") or ()
    }


@functools.cache
def _with_parts(name: str) -> dict[str, Any]:
    """Return a kind and everything it consists of."""
    found: dict[str, Any] = {}
    left = [name]
    while left:
        each = left.pop()
        if each not in found:
            found[each] = _LEAVES.get(each) or _spelled(_definitions()[each])
            left += _parts(_definitions()[each])
    return found


def _parts(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference.rpartition("/")[2]
        for inner in schema.values():
            yield from _parts(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _parts(inner)


def _spelled(schema: Any) -> Any:
    """Return a schema as the real server has it: one type each, references that may be described."""
    if isinstance(schema, list):
        return [_spelled(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, inner in schema.items():
        if key == "type" and isinstance(inner, list):
            found[key] = next(each for each in inner if each != "null")
        elif key == "$ref" and isinstance(inner, str):
            found["allOf"] = [{"$ref": f"#/components/schemas/{inner.rpartition('/')[2]}"}]
        elif inner is not False and not (key == "enum" and isinstance(inner, list)):
            found[key] = _spelled(inner)
    return found
