"""Kubernetes: workloads as targets, pods as metrics, one watch for all, a Lease, Events, deletion costs."""

from __future__ import annotations

from .api import KubernetesApi
from .configmap import ConfigMapState
from .endpoints import KubernetesEndpoints
from .lease import KubernetesLease
from .metrics import KubernetesMetrics
from .scale import KubernetesScale
from .state import KubernetesState
from .target import KubernetesTarget

__all__ = [
    "ConfigMapState",
    "KubernetesApi",
    "KubernetesEndpoints",
    "KubernetesLease",
    "KubernetesMetrics",
    "KubernetesScale",
    "KubernetesState",
    "KubernetesTarget",
]
