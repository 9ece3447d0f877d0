"""What a cluster refuses to change though the new value would be well: what never changes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .resources import Resource
from .store import Object
from .syntax import Cause, forbidden, invalid

_STATEFULSET = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_POD = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")


def changed_wrongly(resource: Resource, old: Object, new: Object) -> list[Cause]:
    """Return what of a change is none that the cluster allows."""
    return list(_changes(resource, old, new))


def _changes(resource: Resource, old: Object, new: Object) -> Iterator[Cause]:
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if resource.group == "apps":
        if before.get("selector") != after.get("selector"):
            yield invalid("spec.selector", after.get("selector"), "field is immutable")
        is_set = resource.plural == "statefulsets"
        if is_set and _without(before, _STATEFULSET) != _without(after, _STATEFULSET):
            text = (
                f"updates to statefulset spec for fields other than {', '.join(_STATEFULSET)} are forbidden"
            )
            yield forbidden("spec", text)
    elif resource.plural == "pods" and not resource.group and _fixed(before) != _fixed(after):
        text = "pod updates may not change fields other than the containers' images"
        yield forbidden("spec", f"{text} and {', '.join(_POD)}")
    elif resource.plural in ("configmaps", "secrets") and old.get("immutable"):
        for name in ("data", "binaryData", "immutable"):
            if old.get(name) != new.get(name):
                yield forbidden(name, "field is immutable when `immutable` is set")
    elif resource.plural.endswith("bindings") and old.get("roleRef") != new.get("roleRef"):
        yield invalid("roleRef", new.get("roleRef"), "cannot change roleRef")


def _fixed(spec: Object) -> Object:
    """Return what of a pod never changes."""
    found = _without(spec, _POD)
    for name in ("containers", "initContainers"):
        if name in found:
            found[name] = [_without(c, ("image",)) for c in found[name] or ()]
    return found


def _without(spec: Object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in names}
