"""A stateful Kubernetes API server for tests, in the standard library alone.

    with KubernetesServer(startup_s=0.5) as server:
        server.create_deployment("web", replicas=3)
        target = KubernetesTarget("deployment/web", api=KubernetesApi.at(server.url))

``python -m eventperf.testing.kubernetes`` serves it from a process of its own.
"""

from .faults import Fault
from .resources import Resource
from .server import Call, KubernetesServer
from .workloads import deployment

__all__ = ["Call", "Fault", "KubernetesServer", "Resource", "deployment"]
