"""What the API says of itself: versions, groups, resources, and the OpenAPI that applying needs."""

from __future__ import annotations

import zlib
from typing import Any

from . import explained
from .http import Response
from .openapi import MEDIA_TYPE, document
from .resources import REVIEWS_GROUP, Resource
from .store import ApiError, Object, Store, dumps

_SHORT = {
    "deployments": ["deploy"], "replicasets": ["rs"], "statefulsets": ["sts"], "pods": ["po"],
    "configmaps": ["cm"], "namespaces": ["ns"], "serviceaccounts": ["sa"], "services": ["svc"],
    "events": ["ev"], "horizontalpodautoscalers": ["hpa"], "nodes": ["no"],
    "customresourcedefinitions": ["crd", "crds"],
}  # fmt: skip
_ALL = {"deployments", "replicasets", "statefulsets", "pods", "services", "horizontalpodautoscalers"}
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def respond(store: Store, path: str) -> Response:
    """Answer a path above the resources.

    Raises:
        ApiError: 404, there is no such thing here.
    """
    if path == "/openapi/v2":
        body = document([shelf.resource for shelf in store.shelves.values()])
        return Response(200, body, content_type=MEDIA_TYPE)
    if path.rstrip("/") in ("/healthz", "/livez", "/readyz"):
        return Response(200, b"ok", content_type="text/plain")
    return Response(200, dumps(answer(store, path)))


def answer(store: Store, path: str) -> Object:
    """Return what a path above the resources answers.

    Raises:
        ApiError: 404, there is no such thing here.
    """
    resources = [shelf.resource for shelf in store.shelves.values()]
    path = path.rstrip("/")
    if not path:
        versions = sorted({f"/{_prefix(r)}" for r in resources})
        return {"paths": ["/api", "/apis", *versions, "/healthz", "/livez", "/readyz", "/version"]}
    if path == "/version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0-eventperf"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        names = sorted({r.group for r in resources if r.group})
        groups = [_group(resources, name) for name in names]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/openapi/v3":
        versions = sorted({_prefix(r) for r in resources})
        marks = {v: _mark(resources, v) for v in versions}
        return {"paths": {v: {"serverRelativeURL": f"/openapi/v3/{v}?hash={m}"} for v, m in marks.items()}}
    if path.startswith("/openapi/v3/"):
        return _openapi(resources, path.removeprefix("/openapi/v3/"))
    served = [r for r in resources if f"/{_prefix(r)}" == path]
    if served:
        return _resources(served)
    if path.startswith("/apis/") and any(r.group == path.removeprefix("/apis/") for r in resources):
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(resources, path.removeprefix("/apis/"))}
    raise ApiError(404, "NotFound", "the server could not find the requested resource")


def _prefix(resource: Resource) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def _group(resources: list[Resource], name: str) -> Object:
    versions = sorted({r.version for r in resources if r.group == name})
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[-1]}


def _resources(served: list[Resource]) -> Object:
    rows: list[dict[str, Any]] = []
    for resource in served:
        head = {"namespaced": resource.namespaced, "kind": resource.kind}
        row: dict[str, Any] = {
            "name": resource.plural, "singularName": resource.kind.lower(), **head,
            "verbs": ["create"] if resource.group == REVIEWS_GROUP else _VERBS,
            "shortNames": list(resource.short_names) or _SHORT.get(resource.plural, []),
        }  # fmt: skip
        if resource.plural in _ALL:
            row["categories"] = ["all"]
        rows.append(row)
        part = {"singularName": "", **head, "verbs": ["get", "patch", "update"]}
        if resource.has_status:
            rows.append({"name": f"{resource.plural}/status", **part})
        if resource.scale is not None:
            scale = {"kind": "Scale", "group": "autoscaling", "version": "v1"}
            rows.append({"name": f"{resource.plural}/scale", **part, **scale})
    version = served[0].api_version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": rows}


def _openapi(resources: list[Resource], prefix: str) -> Object:
    served = [r for r in resources if _prefix(r) == prefix]
    if not served:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    return explained.document(served, prefix)


def _mark(resources: list[Resource], prefix: str) -> str:
    """Return what changes when the document of a version does: clients keep one by it."""
    text = "".join(repr(r) for r in resources if _prefix(r) == prefix)
    return f"{zlib.crc32(text.encode('utf-8', 'replace')):08X}"
