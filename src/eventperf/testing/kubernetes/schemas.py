"""The real schemas of Kubernetes, from the package ``kubernetes-validate``, compiled once per kind."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from eventperf._core.extras import require


class Schemas:
    """Checks whole objects against the schema of their kind.

    Args:
        version: Kubernetes minor version such as ``"1.33"``; the newest the package has by default.

    Raises:
        MissingExtra: ``kubernetes-validate`` is not installed.
    """

    def __init__(self, version: str | None = None) -> None:
        utils = require(
            "kubernetes_validate.utils", extra="testing", needed_by="KubernetesServer(schemas=True)"
        )
        self._utils = utils
        self._version = version or utils.latest_version()
        self._validator = functools.lru_cache(maxsize=None)(self._compile)

    def errors(self, obj: dict[str, Any]) -> str | None:
        """Return what is wrong with ``obj``, or None; kinds without a published schema pass."""
        validator = self._validator(str(obj.get("kind")), str(obj.get("apiVersion")))
        if validator is None:
            return None
        error = next(validator.iter_errors(obj), None)
        if error is None:
            return None
        return f"{'.'.join(str(p) for p in error.path) or 'object'}: {error.message}"

    def unknown(self, obj: dict[str, Any]) -> list[str]:
        """Return the paths of fields that the schema of the kind does not have."""
        validator = self._validator(str(obj.get("kind")), str(obj.get("apiVersion")))
        if validator is None:
            return []
        found = []
        for error in validator.iter_errors(obj):
            if error.validator == "additionalProperties":
                known = error.schema.get("properties") or {}
                at = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
                found += [f"{at}.{name}".lstrip(".") for name in error.instance if name not in known]
        return found

    @property
    def definitions(self) -> Mapping[str, Any]:
        """Return the schemas of all kinds and their parts, by their published names."""
        found: Mapping[str, Any] = self._definitions["$defs"]
        return found

    @functools.cached_property
    def _definitions(self) -> Any:
        return self._load("_definitions")

    def _load(self, name: str) -> Any:
        folder = f"kubernetes-json-schema/v{self._version}-local-strict"
        return self._utils.schema_contents(f"{folder}/{name}.json", self._version)

    def _compile(self, kind: str, api_version: str) -> Any:
        group, slash, version = api_version.rpartition("/")
        name = f"{kind.lower()}-{group.partition('.')[0]}-{version}" if slash else f"{kind.lower()}-{version}"
        try:
            schema = self._load(name)
        except FileNotFoundError:
            return None
        jsonschema = require("jsonschema", extra="testing", needed_by="KubernetesServer(schemas=True)")
        referencing = require("referencing", extra="testing", needed_by="KubernetesServer(schemas=True)")
        registry = referencing.Resource.from_contents(schema) @ referencing.Registry()
        registry = referencing.Resource.from_contents(self._definitions) @ registry
        return jsonschema.Draft202012Validator(schema, registry=registry)
