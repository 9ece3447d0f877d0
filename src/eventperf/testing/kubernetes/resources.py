"""The kinds the test server knows, and where their replicas live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REVIEWS_GROUP = "authorization.k8s.io"
REVIEWS = {
    "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "subjectaccessreviews": "SubjectAccessReview",
    "localsubjectaccessreviews": "LocalSubjectAccessReview",
    "selfsubjectrulesreviews": "SelfSubjectRulesReview",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind of object.

    Attributes:
        group: API group; empty for the core group.
        scale: Dotted paths of replicas, observed replicas and selector, or None without the subresource.
        unconditional_update: Whether a PUT without resourceVersion is accepted, as the real kind says.
        has_status: Whether ``/status`` exists.
        short_names: What ``kubectl get`` may call it besides.
        columns: Heads and dotted paths of columns that ``kubectl get`` prints.
        schema: The structural schema of a custom resource: what does not fit is refused, what it does not
            name is dropped.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    scale: tuple[str, str, str] | None = None
    unconditional_update: bool = True
    has_status: bool = False
    short_names: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    schema: Mapping[str, Any] | None = None

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The plural with its group, as messages have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_SCALE = ("spec.replicas", "status.replicas", "spec.selector")


def _workload(plural: str, kind: str) -> Resource:
    return Resource(group="apps", version="v1", plural=plural, kind=kind, scale=_SCALE, has_status=True)


def _rbac(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    group = "rbac.authorization.k8s.io"
    return Resource(group=group, version="v1", plural=plural, kind=kind, namespaced=namespaced)


DEFINITIONS = Resource(
    group="apiextensions.k8s.io", version="v1", plural="customresourcedefinitions",
    kind="CustomResourceDefinition", namespaced=False, has_status=True,
)  # fmt: skip
BUILTIN = (
    _workload("deployments", "Deployment"),
    _workload("statefulsets", "StatefulSet"),
    _workload("replicasets", "ReplicaSet"),
    Resource(group="", version="v1", plural="pods", kind="Pod", has_status=True),
    Resource(group="", version="v1", plural="events", kind="Event"),
    Resource(group="", version="v1", plural="configmaps", kind="ConfigMap"),
    Resource(group="", version="v1", plural="secrets", kind="Secret"),
    Resource(group="", version="v1", plural="services", kind="Service", has_status=True),
    Resource(group="", version="v1", plural="serviceaccounts", kind="ServiceAccount"),
    _rbac("roles", "Role"),
    _rbac("rolebindings", "RoleBinding"),
    _rbac("clusterroles", "ClusterRole", namespaced=False),
    _rbac("clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource(group="", version="v1", plural="namespaces", kind="Namespace", namespaced=False),
    Resource(group="events.k8s.io", version="v1", plural="events", kind="Event"),
    Resource(
        group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", unconditional_update=False
    ),
    Resource(
        group="autoscaling", version="v2", plural="horizontalpodautoscalers",
        kind="HorizontalPodAutoscaler", has_status=True,
    ),
    *(
        Resource(group=REVIEWS_GROUP, version="v1", plural=name, kind=kind, namespaced=name[:5] == "local")
        for name, kind in REVIEWS.items()
    ),
    Resource(group="discovery.k8s.io", version="v1", plural="endpointslices", kind="EndpointSlice"),
    Resource(group="metrics.k8s.io", version="v1beta1", plural="pods", kind="PodMetrics"),
    Resource(group="metrics.k8s.io", version="v1beta1", plural="nodes", kind="NodeMetrics", namespaced=False),
    Resource(group="", version="v1", plural="nodes", kind="Node", namespaced=False, has_status=True),
    DEFINITIONS,
)  # fmt: skip
"""Kinds served from the start; ``KubernetesServer.register`` adds custom resources."""
