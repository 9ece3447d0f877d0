"""A Lease of ``coordination.k8s.io`` as the store of a leader election."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

from eventperf._core.clock import Clock, SystemClock
from eventperf.scaling.protocols import Lease, LeaseConflict

from .api import JSON, KubernetesApi, pod_namespace
from .errors import KubernetesApiError, KubernetesConflict, KubernetesNotFound, KubernetesUnavailable
from .names import namespaced


class KubernetesLease:
    """One Lease object; created when there is none.

    The times written into it are for people (``kubectl get lease``); no candidate compares them.

    Args:
        name: Name of the Lease; one per group of candidates.
        namespace: The pod's own by default.
        timeout_s: Longest wait per request, below the election's retry so that a stop stays prompt.
    """

    def __init__(
        self,
        name: str,
        *,
        namespace: str | None = None,
        api: KubernetesApi | None = None,
        timeout_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self._api = api or KubernetesApi()
        self._name = name
        self._namespace = namespace or pod_namespace()
        self._timeout_s = timeout_s
        self._clock = clock or SystemClock()
        self._acquired: tuple[str, str] = ("", "")

    def read(self) -> Lease | None:
        try:
            return self._lease(self._request("GET", self._name))
        except KubernetesNotFound:
            return None

    def write(self, lease: Lease, /) -> Lease:
        now = datetime.fromtimestamp(self._clock.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if self._acquired[0] != lease.holder:
            self._acquired = (lease.holder, now)
        meta: JSON = {"name": self._name, "namespace": self._namespace}
        spec: dict[str, Any] = {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": max(1, math.ceil(lease.duration_s)),
            "leaseTransitions": lease.transitions,
            "acquireTime": self._acquired[1],
            "renewTime": now,
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        try:
            if not lease.version:
                return self._lease(self._request("POST", body=body))
            meta["resourceVersion"] = lease.version
            return self._lease(self._request("PUT", self._name, body=body))
        except (KubernetesConflict, KubernetesNotFound) as error:
            raise LeaseConflict(str(error)) from error

    def _request(self, method: str, *tail: str, body: JSON | None = None) -> JSON:
        path = namespaced("coordination.k8s.io", "v1", "leases", self._namespace, *tail)
        try:
            return self._api.request(method, path, body=body, timeout_s=self._timeout_s)
        except (KubernetesUnavailable, KubernetesNotFound):
            raise
        except KubernetesApiError as error:
            if isinstance(error, KubernetesConflict) and method != "GET":
                raise
            # rights may be granted while we run: wait for them like for a server that is away
            raise KubernetesUnavailable(method, path, error.text, status=error.status) from error

    @staticmethod
    def _lease(obj: JSON) -> Lease:
        spec = obj.get("spec") or {}
        return Lease(
            holder=spec.get("holderIdentity") or "",
            duration_s=float(spec.get("leaseDurationSeconds") or 15),
            transitions=int(spec.get("leaseTransitions") or 0),
            version=obj["metadata"]["resourceVersion"],
        )
