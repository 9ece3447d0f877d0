"""Objects as rows, for a client that asks for tables: what ``kubectl get`` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from .resources import Resource
from .store import Object

Column = tuple[str, Callable[[Object], Any]]


def wanted(accept: str) -> bool:
    """Tell whether a client asks for a table first."""
    first = accept.partition(",")[0]
    return "as=Table" in first and "v=v1" in first and "v1beta1" not in first


def table(resource: Resource, objects: Iterable[Object], meta: Object) -> Object:
    """Return a ``meta.k8s.io/v1`` Table of ``objects``."""
    own = tuple((head, _of(*path.strip(".").split("."))) for head, path in resource.columns)
    return _table(own or _COLUMNS.get(resource.plural, ()), objects, meta)


def _table(columns: tuple[Column, ...], objects: Iterable[Object], meta: Object) -> Object:
    every: tuple[Column, ...] = (("Name", lambda o: o["metadata"]["name"]), *columns, ("Age", _age))
    rows = []
    for obj in objects:
        part = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        rows.append({"cells": [read(obj) for _, read in every], "object": part})
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": name,
         "priority": 0}
        for name, _ in every
    ]  # fmt: skip
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return {**head, "columnDefinitions": definitions, "rows": rows}


def scale_table(scale: Object) -> Object:
    """Return the Table of a Scale view."""
    return _table(
        (("Desired", _of("spec", "replicas")), ("Available", _of("status", "replicas"))), [scale], {}
    )


def _age(obj: Object) -> str:
    made = datetime.strptime(obj["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")
    since = int((datetime.now(timezone.utc) - made.replace(tzinfo=timezone.utc)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if since >= 2 * size:
            return f"{since // size}{unit}"
    return f"{max(0, since)}s"


def _of(*path: str, default: Any = "") -> Callable[[Object], Any]:
    def read(obj: Any) -> Any:
        for step in path:
            obj = obj.get(step) if isinstance(obj, dict) else None
        return default if obj is None else obj

    return read


def _ready(obj: Object) -> str:
    return f"{_of('status', 'readyReplicas', default=0)(obj)}/{_of('spec', 'replicas', default=1)(obj)}"


def _pod_ready(obj: Object) -> str:
    containers = len(_of("spec", "containers", default=())(obj))
    conditions = _of("status", "conditions", default=())(obj)
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return f"{containers if is_ready else 0}/{containers}"


_UPDATED: Column = ("Up-to-date", _of("status", "updatedReplicas", default=0))
_AVAILABLE: Column = ("Available", _of("status", "availableReplicas", default=0))
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "deployments": (("Ready", _ready), _UPDATED, _AVAILABLE),
    "statefulsets": (("Ready", _ready),),
    "replicasets": (
        ("Desired", _of("spec", "replicas", default=0)),
        ("Current", _of("status", "replicas", default=0)),
        ("Ready", _of("status", "readyReplicas", default=0)),
    ),
    "pods": (("Ready", _pod_ready), ("Status", _of("status", "phase")), ("Restarts", lambda o: 0)),
    "horizontalpodautoscalers": (
        ("Reference", lambda o: "/".join(_of("spec", "scaleTargetRef", p)(o) for p in ("kind", "name"))),
        ("MinPods", _of("spec", "minReplicas", default=1)),
        ("MaxPods", _of("spec", "maxReplicas")),
        ("Replicas", _of("status", "currentReplicas", default=0)),
    ),
    "configmaps": (("Data", lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ())),),
    "namespaces": (("Status", _of("status", "phase")),),
    "leases": (("Holder", _of("spec", "holderIdentity")),),
    "events": (
        ("Type", _of("type")),
        ("Reason", _of("reason")),
        ("Object", lambda o: _named(o.get("involvedObject") or o.get("regarding") or {})),
        ("Message", lambda o: o.get("message") or o.get("note") or ""),
    ),
}


def _named(about: Object) -> str:
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
