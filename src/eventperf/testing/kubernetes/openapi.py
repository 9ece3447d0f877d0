"""OpenAPI 2 of the kinds that are served, in the binary form that kubectl asks for. Pure.

Of the document only what a client looks up before it applies: each kind's PATCH and its query parameters. The
numbers are those of the published ``OpenAPIv2.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable

from .resources import Resource

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
PARAMETERS = ("fieldValidation", "dryRun", "fieldManager", "force")

_SWAGGER, _INFO, _PATHS = 1, 2, 8
_NAME, _VALUE, _YAML = 1, 2, 2
_PATH, _PATCH = 2, 8
_PARAMETER_LIST, _EXTENSION = 8, 13
_PARAMETER, _NOT_IN_BODY, _IN_QUERY = 1, 2, 3


def document(resources: Iterable[Resource]) -> bytes:
    """Return the document as bytes."""
    paths = b"".join(_field(_PATH, _path(resource)) for resource in resources)
    info = _field(1, b"Kubernetes") + _field(2, b"v1.33.0-eventperf")
    return _field(_SWAGGER, b"2.0") + _field(_INFO, info) + _field(_PATHS, paths)


def _path(resource: Resource) -> bytes:
    prefix = f"apis/{resource.group}" if resource.group else "api"
    space = "/namespaces/{namespace}" if resource.namespaced else ""
    name = f"/{prefix}/{resource.version}{space}/{resource.plural}/{{name}}"
    kind = f"group: '{resource.group}'\nversion: {resource.version}\nkind: {resource.kind}\n"
    extension = _field(_NAME, b"x-kubernetes-group-version-kind")
    extension += _field(_VALUE, _field(_YAML, kind.encode()))
    operation = b"".join(_field(_PARAMETER_LIST, _parameter(p)) for p in PARAMETERS)
    operation += _field(_EXTENSION, extension)
    return _field(_NAME, name.encode()) + _field(_VALUE, _field(_PATCH, operation))


def _parameter(name: str) -> bytes:
    query = _field(2, b"query") + _field(4, name.encode()) + _field(6, b"string")
    return _field(_PARAMETER, _field(_NOT_IN_BODY, _field(_IN_QUERY, query)))


def _field(number: int, data: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(data)) + data


def _number(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])
