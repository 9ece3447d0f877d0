"""Bodies that kubectl sends as protobuf: ``create deployment``, ``auth can-i`` and the like. Pure.

Numbers are those of the published ``generated.proto`` files. Other kinds, and fields that are not in these
tables, are refused as a media type that the server does not read: nothing is dropped.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from eventperf.scaling.serving.wire import fields

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

Table = dict[int, tuple[str, str]]
_META = (1, "metadata", "Meta")


def _table(*rows: tuple[int, str, str]) -> Table:
    return {number: (name, kind) for number, name, kind in rows}


def _kind(spec: str) -> Table:
    return _table(_META, (2, "spec", spec), (3, "status", "none"))


_MESSAGES: dict[str, Table] = {
    # text, flag, number, port (0 is none), bytes, none (must be empty); "name*" is a list, "map:..." a map
    "Meta": _table(
        (1, "name", "text"), (2, "generateName", "text"), (3, "namespace", "text"), (4, "selfLink", "text"),
        (5, "uid", "text"), (6, "resourceVersion", "text"), (7, "generation", "none"),
        (8, "creationTimestamp", "none"), (11, "labels", "map:text"), (12, "annotations", "map:text"),
    ),
    "ConfigMap": _table(
        _META, (2, "data", "map:text"), (3, "binaryData", "map:bytes"), (4, "immutable", "flag"),
    ),
    "Secret": _table(_META, (2, "data", "map:bytes"), (3, "type", "text"), (5, "immutable", "flag")),
    "Namespace": _kind("NamespaceSpec"),
    "NamespaceSpec": _table((1, "finalizers", "text*")),
    "ServiceAccount": _table(_META, (4, "automountServiceAccountToken", "flag")),
    "Deployment": _kind("DeploymentSpec"),
    "DeploymentSpec": _table(
        (1, "replicas", "number"), (2, "selector", "Selector"), (3, "template", "PodTemplate"),
        (4, "strategy", "none"), (5, "minReadySeconds", "none"), (7, "paused", "flag"),
    ),
    "HorizontalPodAutoscaler": _kind("AutoscalerSpec"),
    "AutoscalerSpec": _table(
        (1, "scaleTargetRef", "Reference"), (2, "minReplicas", "number"), (3, "maxReplicas", "number"),
        (4, "metrics", "Metric*"), (5, "behavior", "none"),
    ),
    "Reference": _table((1, "kind", "text"), (2, "name", "text"), (3, "apiVersion", "text")),
    "Metric": _table((1, "type", "text"), (4, "resource", "ResourceMetric"), *(
        (number, "", "none") for number in (2, 3, 5, 7)
    )),
    "ResourceMetric": _table((1, "name", "text"), (2, "target", "MetricTarget")),
    "MetricTarget": _table(
        (1, "type", "text"), (2, "", "none"), (3, "", "none"), (4, "averageUtilization", "number"),
    ),
    "Selector": _table((1, "matchLabels", "map:text")),
    "PodTemplate": _table(_META, (2, "spec", "PodSpec")),
    "PodSpec": _table((2, "containers", "Container*"), *(
        (number, "", "none") for number in (3, 6, 8, 10, 11, 12, 13, 16, 17, 19, 24, 32)
    )),
    "Container": _table(
        (1, "name", "text"), (2, "image", "text"), (3, "command", "text*"), (4, "args", "text*"),
        (6, "ports", "Port*"), *((number, "", "none") for number in (5, 8, 13, 14, 16, 17, 18, 20)),
    ),
    "Port": _table(
        (1, "name", "text"), (2, "hostPort", "port"), (3, "containerPort", "port"),
        (4, "protocol", "text"), (5, "hostIP", "text"),
    ),
    "SelfSubjectAccessReview": _kind("AccessSpec"),
    "SubjectAccessReview": _kind("AccessSpec"),
    "LocalSubjectAccessReview": _kind("AccessSpec"),
    "SelfSubjectRulesReview": _kind("RulesSpec"),
    "RulesSpec": _table((1, "namespace", "text")),
    "AccessSpec": _table(
        (1, "resourceAttributes", "Attributes"), (2, "nonResourceAttributes", "PathAttributes"),
        (3, "user", "text"), (4, "groups", "text*"), (6, "uid", "text"),
    ),
    "Attributes": _table(
        (1, "namespace", "text"), (2, "verb", "text"), (3, "group", "text"), (4, "version", "text"),
        (5, "resource", "text"), (6, "subresource", "text"), (7, "name", "text"),
    ),
    "PathAttributes": _table((1, "path", "text"), (2, "verb", "text")),
}  # fmt: skip
_KINDS = {name for name, table in _MESSAGES.items() if table.get(1) == _META[1:]} - {"PodTemplate"}


class _NotRead(Exception):
    """A field that is not in the tables holds something."""


def read(body: bytes) -> dict[str, Any] | None:
    """Return the object, ``None`` for one that is not read here.

    Raises:
        ValueError: These bytes are no object.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("no protobuf of Kubernetes")
    outer = dict(fields(body[len(_MAGIC) :]))
    about = dict(fields(_bytes(outer.get(1))))
    kind = _bytes(about.get(2)).decode()
    if kind not in _KINDS:
        return None
    try:
        return {
            "apiVersion": _bytes(about.get(1)).decode(), "kind": kind, **_message(kind, _bytes(outer.get(2)))
        }  # fmt: skip
    except _NotRead:
        return None


def _message(message: str, data: bytes) -> dict[str, Any]:
    table, found = _MESSAGES[message], dict[str, Any]()
    for number, value in fields(data):
        name, kind = table.get(number, ("", "none"))
        if kind.startswith("map:"):
            parts = dict(fields(_bytes(value)))
            text = _value(kind[4:], parts.get(2, b""))
            found.setdefault(name, {})[_bytes(parts.get(1)).decode()] = text or ""
        elif kind.endswith("*"):
            found.setdefault(name, []).append(_value(kind[:-1], value))
        else:
            one = _value(kind, value)
            if one not in (None, ""):
                found[name] = one
    return found


def _value(kind: str, value: int | bytes) -> Any:
    if kind == "none":
        if not _is_empty(value):
            raise _NotRead
        return None
    if kind in ("flag", "number", "port"):
        if isinstance(value, bytes):
            raise ValueError("a message where a number should be")
        return bool(value) if kind == "flag" else (value or None if kind == "port" else value)
    raw = _bytes(value)
    if kind == "text":
        return raw.decode()
    return b64encode(raw).decode() if kind == "bytes" else _message(kind, raw)


def _is_empty(value: int | bytes) -> bool:
    """Tell whether a value says nothing: zero, no bytes, or a message of such values."""
    if isinstance(value, int):
        return value == 0
    try:
        return all(_is_empty(inner) for _, inner in fields(value))
    except ValueError:
        return False


def _bytes(value: int | bytes | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value
