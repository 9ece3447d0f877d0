"""What a cluster refuses though its schema allows it: wrong selectors, changes of what never changes."""

from __future__ import annotations

from typing import Any

from .resources import Resource
from .selectors import label_matcher, selector_text
from .store import ApiError, Object

_STATEFULSET = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_POD = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")


def check_new(resource: Resource, obj: Object) -> None:
    """Refuse a workload whose selector does not select its own pods.

    Raises:
        ApiError: 422 with the field.
    """
    if resource.group != "apps":
        return
    spec = obj.get("spec") or {}
    selector = spec.get("selector")
    if not selector:
        raise _invalid(resource, obj, "spec.selector: Required value")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    matches = label_matcher(selector_text(selector))
    if matches is not None and not matches({"metadata": {"labels": labels}}):
        text = f"spec.template.metadata.labels: Invalid value: {labels}: selector does not match"
        raise _invalid(resource, obj, text)


def check_changed(resource: Resource, old: Object, new: Object) -> None:
    """Refuse a change of what never changes.

    Raises:
        ApiError: 422 with the field.
    """
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if resource.group == "apps":
        if before.get("selector") != after.get("selector"):
            text = f"spec.selector: Invalid value: {after.get('selector')}: field is immutable"
            raise _invalid(resource, new, text)
        check_new(resource, new)
        is_set = resource.plural == "statefulsets"
        if is_set and _without(before, _STATEFULSET) != _without(after, _STATEFULSET):
            text = f"updates to statefulset spec for fields other than {', '.join(_STATEFULSET)}"
            raise _invalid(resource, new, f"spec: Forbidden: {text} are forbidden")
    elif resource.plural == "pods" and not resource.group and _fixed(before) != _fixed(after):
        text = "spec: Forbidden: pod updates may not change fields other than the containers' images"
        raise _invalid(resource, new, f"{text} and {', '.join(_POD)}")
    elif resource.plural in ("configmaps", "secrets") and old.get("immutable"):
        for name in ("data", "binaryData", "immutable"):
            if old.get(name) != new.get(name):
                raise _invalid(resource, new, f"{name}: Forbidden: field is immutable")


def _fixed(spec: Object) -> Object:
    """Return what of a pod never changes."""
    found = _without(spec, _POD)
    for name in ("containers", "initContainers"):
        if name in found:
            found[name] = [_without(c, ("image",)) for c in found[name] or ()]
    return found


def _without(spec: Object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in names}


def _invalid(resource: Resource, obj: Object, text: str) -> ApiError:
    name = (obj.get("metadata") or {}).get("name", "")
    group = f".{resource.group}" if resource.group else ""
    return ApiError(422, "Invalid", f'{resource.kind}{group} "{name}" is invalid: {text}')
