"""CustomResourceDefinitions: what one says becomes a resource that is served.

Of several versions the one that is stored is served: nothing converts between versions here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .resources import BUILTIN, DEFINITIONS, Resource
from .store import Change, Object, Store, now
from .structural import wrong_schema
from .syntax import Cause, dns_label, invalid, required, subdomain, unsupported


def resource_of(definition: Object) -> Resource:
    """Return the resource that a definition makes."""
    spec = definition["spec"]
    names, version = spec["names"], _stored(definition)
    parts = version.get("subresources") or {}
    scale = parts.get("scale")
    paths = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
    columns = version.get("additionalPrinterColumns") or ()
    return Resource(
        group=spec["group"], version=version["name"], plural=names["plural"], kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced", has_status=parts.get("status") is not None,
        scale=None if scale is None else tuple(scale.get(p, "").lstrip(".") for p in paths),
        short_names=tuple(names.get("shortNames") or ()), unconditional_update=False,
        columns=tuple((c["name"], c["jsonPath"]) for c in columns if _is_shown(c)),
        schema=(version.get("schema") or {}).get("openAPIV3Schema") or {},
    )  # fmt: skip


def _is_shown(column: Object) -> bool:
    return not column.get("priority") and column["name"] != "Age"


def _stored(definition: Object) -> Object:
    found: Object = next(v for v in definition["spec"]["versions"] if v.get("storage"))
    return found


def wrong_with_definition(obj: Object) -> Iterator[Cause]:
    """Find what is wrong with a definition."""
    spec = obj.get("spec") or {}
    names, group = spec.get("names") or {}, spec.get("group") or ""
    if not group:
        yield required("spec.group")
    else:
        yield from subdomain("spec.group", group)
        if any(r.group == group for r in BUILTIN):
            yield invalid("spec.group", group, "a group of the server itself")
    for part in ("plural", "kind"):
        if not names.get(part):
            yield required(f"spec.names.{part}")
        else:
            yield from dns_label(f"spec.names.{part}", names[part].lower())
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield unsupported("spec.scope", spec.get("scope") or "", ("Cluster", "Namespaced"))
    name = (obj.get("metadata") or {}).get("name")
    if names.get("plural") and group and name != f"{names['plural']}.{group}":
        yield invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    versions = spec.get("versions") or ()
    if sum(bool(v.get("storage")) for v in versions) != 1:
        yield invalid("spec.versions", [], "must have exactly one version marked as storage version")
    for at, version in enumerate(versions):
        place = f"spec.versions[{at}]"
        yield from dns_label(f"{place}.name", version.get("name") or "")
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not schema:
            yield required(f"{place}.schema.openAPIV3Schema", "schemas are required")
        else:
            yield from wrong_schema(schema, f"{place}.schema.openAPIV3Schema")
        scale: Any = (version.get("subresources") or {}).get("scale")
        for part in ("specReplicasPath", "statusReplicasPath") if scale is not None else ():
            if not (scale.get(part) or "").startswith("."):
                yield invalid(
                    f"{place}.subresources.scale.{part}",
                    scale.get(part) or "",
                    "should be a json path under .",
                )
        for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
            for part in ("name", "jsonPath"):
                if not column.get(part):
                    yield required(f"{place}.additionalPrinterColumns[{number}].{part}")


def established(obj: Object) -> Object:
    """Return a definition that the server has accepted."""
    names = obj["spec"]["names"]
    before = {c["type"]: c for c in (obj.get("status") or {}).get("conditions") or ()}
    conditions = [
        before.get(kind)
        or {"type": kind, "status": "True", "reason": why, "message": why, "lastTransitionTime": now()}
        for kind, why in (("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted"))
    ]
    kept = {"acceptedNames": names, "conditions": conditions, "storedVersions": [_stored(obj)["name"]]}
    return {**obj, "status": kept}


def follow_definitions(store: Store) -> None:
    """Serve what the definitions of a store say, from now on."""

    def follow(change: Change) -> None:
        resource = resource_of(change.new.obj)
        if change.type == "DELETED":
            store.forget(resource)
            return
        store.register(resource)
        store.shelves[resource.group, resource.plural].resource = resource

    store.shelves[DEFINITIONS.group, DEFINITIONS.plural].listeners.append(follow)
