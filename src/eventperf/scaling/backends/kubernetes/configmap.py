"""What was learned, kept in a ConfigMap: nothing but the cluster is needed."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NoBase64

from .api import JSON, MERGE_PATCH, KubernetesApi, pod_namespace
from .errors import KubernetesApiError, KubernetesConflict, KubernetesNotFound, KubernetesUnavailable
from .names import namespaced

_MOST_BYTES = 900_000  # of 1 MiB that a ConfigMap may hold, and a request


class ConfigMapState:
    """A :class:`~eventperf.scaling.protocols.StateStore`: an entry of one ConfigMap for each target.

    The ConfigMap is made at the first write. Each write is one patch of its own entry, so that scalers of
    several targets do not meet. It holds 50 targets with a learning policy, or 500 without; for more, use
    Redis or a database. Needs the rights to get, create and patch it.

    Args:
        name: Of the ConfigMap.
        namespace: The pod's own by default.
    """

    def __init__(
        self,
        name: str,
        *,
        namespace: str | None = None,
        api: KubernetesApi | None = None,
        timeout_s: float = 3.0,
    ) -> None:
        self._owns_api = api is None
        self._api = api or KubernetesApi()
        self._name = name
        self._namespace = namespace or pod_namespace()
        self._timeout_s = timeout_s

    def load(self, name: str, /) -> bytes | None:
        try:
            found = self._request("GET", self._name)
        except KubernetesNotFound:
            return None
        try:
            text = (found.get("binaryData") or {}).get(name)
            return None if text is None else b64decode(text)
        except (NoBase64, AttributeError, TypeError, ValueError):
            return b""  # somebody wrote something else: said by who reads it

    def save(self, name: str, data: bytes, /) -> None:
        if len(data) > _MOST_BYTES:
            text = f"{len(data)} bytes are too many for a ConfigMap"
            raise KubernetesUnavailable("PATCH", self._name, text)
        entry: JSON = {"binaryData": {name: b64encode(data).decode()}}
        try:
            self._request("PATCH", self._name, body=entry)
        except KubernetesNotFound:
            meta = {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/managed-by": "eventperf"},
            }
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, **entry}
            try:
                self._request("POST", body=made)
            except KubernetesConflict:  # another target's first write has made it
                self._request("PATCH", self._name, body=entry)

    def _request(self, method: str, *tail: str, body: JSON | None = None) -> JSON:
        path = namespaced("", "v1", "configmaps", self._namespace, *tail)
        try:
            kind = MERGE_PATCH if method == "PATCH" else "application/json"
            return self._api.request(method, path, body=body, content_type=kind, timeout_s=self._timeout_s)
        except (KubernetesNotFound, KubernetesConflict):
            raise
        except KubernetesApiError as error:
            text = error.text
            if error.status == 403:
                text += f" (grant get, create and patch on configmaps in namespace {self._namespace})"
            elif error.status in (413, 422) and "long" in text.lower():
                text += " (more targets than one ConfigMap holds: keep the state in redis:// or a database)"
            raise KubernetesUnavailable(method, path, text, status=error.status) from error

    def close(self) -> None:
        """Close the connection if it is this store's own."""
        if self._owns_api:
            self._api.close()
