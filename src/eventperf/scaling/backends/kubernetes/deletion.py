"""Which pods go first when a Deployment gets smaller: those that would lose the least."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from eventperf._core.logs import logger

from .api import MERGE_PATCH, KubernetesApi
from .errors import KubernetesApiError, KubernetesNotFound
from .names import namespaced

_log = logger("eventperf.scaling.kubernetes")

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
_COST_MAX = 2**31 - 1


class DeletionCosts:
    """Writes each pod's cost of deletion before a scale-down.

    Best effort, and no more: the ReplicaSet controller takes pods that are not ready first whatever they
    cost, and StatefulSets ignore it. Only costs that changed are written, at most ``most`` per
    scale-down; a failure is logged and the scale-down goes on.

    Args:
        cost: From a pod's name to what its deletion would cost, for example its running jobs.

    Source: Kubernetes documentation, "ReplicaSet", pod deletion cost.
    """

    def __init__(self, cost: Callable[[str], int], *, most: int = 100) -> None:
        self._cost, self._most = cost, most
        self._written: dict[str, int] = {}

    def write(self, api: KubernetesApi, namespace: str, pods: Iterable[str]) -> int:
        """Annotate ``pods`` and return how many were written."""
        names = list(pods)
        costs = {name: max(-_COST_MAX, min(_COST_MAX, int(self._cost(name)))) for name in names}
        self._written = {name: cost for name, cost in self._written.items() if name in costs}
        # pods count as 0 until they are told: writing that is a request for nothing
        changed = [n for n in names if costs[n] != self._written.get(n, 0)]
        written = 0
        for name in sorted(changed, key=lambda n: -costs[n])[: self._most]:
            path = namespaced("", "v1", "pods", namespace, name)
            body = {"metadata": {"annotations": {ANNOTATION: str(costs[name])}}}
            try:
                api.request("PATCH", path, body=body, content_type=MERGE_PATCH)
            except KubernetesNotFound:
                continue
            except KubernetesApiError as error:
                _log.warning("pod deletion costs in %s were not written: %s", namespace, error)
                break
            self._written[name] = costs[name]
            written += 1
        return written
