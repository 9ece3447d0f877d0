"""The Scale of an object: its view, and what a change of it changes. Pure."""

from __future__ import annotations

from typing import Any

from .checks import refusal
from .resources import Resource
from .selectors import selector_text
from .store import Object
from .syntax import invalid

_KEPT = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
SCALE = Resource(group="autoscaling", version="v1", plural="scales", kind="Scale")


def scale_view(resource: Resource, obj: Object) -> Object:
    """Return the ``autoscaling/v1`` Scale of ``obj``."""
    assert resource.scale is not None
    want, seen, selector = (_dig(obj, path) for path in resource.scale)
    status: dict[str, Any] = {"replicas": seen or 0}
    if selector:
        status["selector"] = selector if isinstance(selector, str) else selector_text(selector)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: obj["metadata"][k] for k in _KEPT if k in obj["metadata"]},
        "spec": {"replicas": want if want is not None else 1},
        "status": status,
    }


def scaled(resource: Resource, obj: Object, scale: Object) -> Object:
    """Return ``obj`` with the replicas of a Scale.

    Raises:
        ApiError: 422, they are negative.
    """
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        wrong = [invalid("spec.replicas", replicas, "must be greater than or equal to 0")]
        raise refusal(SCALE, {"metadata": obj["metadata"]}, wrong)
    assert resource.scale is not None
    return _planted(obj, resource.scale[0].split("."), replicas)


def _planted(obj: Any, path: list[str], value: Any) -> Object:
    inside = obj if isinstance(obj, dict) else {}
    return {**inside, path[0]: _planted(inside.get(path[0]), path[1:], value) if path[1:] else value}


def _dig(obj: Any, path: str) -> Any:
    for step in path.split("."):
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj
