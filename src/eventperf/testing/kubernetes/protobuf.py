"""Bodies that kubectl sends as protobuf: ``create configmap``, ``create namespace`` and the like. Pure.

Numbers are those of the published ``generated.proto`` files. Other kinds are refused as a media type that the
server does not read.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from eventperf.scaling.serving.wire import fields

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_KINDS = ("ConfigMap", "Namespace", "Secret", "ServiceAccount")
_META = {1: "name", 2: "generateName", 3: "namespace"}


def read(body: bytes) -> dict[str, Any] | None:
    """Return the object, ``None`` for a kind that is not read here.

    Raises:
        ValueError: These bytes are no object.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("no protobuf of Kubernetes")
    outer = dict(fields(body[len(_MAGIC) :]))
    about = dict(fields(_bytes(outer.get(1))))
    kind, raw = _bytes(about.get(2)).decode(), _bytes(outer.get(2))
    if kind not in _KINDS:
        return None
    found: dict[str, Any] = {"apiVersion": _bytes(about.get(1)).decode(), "kind": kind}
    for number, value in fields(raw):
        if number == 1:
            found["metadata"] = _metadata(_bytes(value))
        elif number in (2, 3) and kind in ("ConfigMap", "Secret") and isinstance(value, bytes):
            if kind == "Secret" and number == 3:
                found["type"] = value.decode()
                continue
            name, data = _pair(value)
            is_text = kind == "ConfigMap" and number == 2
            place = "data" if is_text or kind == "Secret" else "binaryData"
            found.setdefault(place, {})[name] = data.decode() if is_text else b64encode(data).decode()
        elif number == 4 and kind == "ConfigMap":
            found["immutable"] = bool(value)
    return found


def _metadata(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in fields(data):
        if number in _META and value:
            found[_META[number]] = _bytes(value).decode()
        elif number in (11, 12):
            name, text = _pair(_bytes(value))
            found.setdefault("labels" if number == 11 else "annotations", {})[name] = text.decode()
    return found


def _pair(data: bytes) -> tuple[str, bytes]:
    parts = dict(fields(data))
    return _bytes(parts.get(1)).decode(), _bytes(parts.get(2))


def _bytes(value: int | bytes | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value
