"""Deployments, StatefulSets and everything else with a scale subresource, as targets of a scaler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from eventperf._core.clock import Clock
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.model import TargetState

from .api import KubernetesApi
from .deletion import DeletionCosts
from .scale import KubernetesScale
from .state import KubernetesState

_STUCK_MOST = 3


class KubernetesTarget:
    """A Deployment, StatefulSet or anything else with a scale subresource, as a ``ReplicaTarget``.

    Give it a ``state`` shared by all targets of the process and reading costs no request; without one
    each :meth:`read` is one GET. Arguments are those of :class:`KubernetesScale`. Needs the right to get
    the object and to patch its ``scale``; see the manifest in the documentation.

    Args:
        deletion_cost: From a pod's name to what its deletion would cost (running jobs, sessions); written
            to the pods before a scale-down, so that the cheapest go first. Needs a shared ``state`` and the
            right to patch pods.

    As with an HPA, one that somebody scaled to 0 is left alone until somebody scales it up.

    >>> KubernetesTarget("deployment/web", namespace="prod").name
    'prod/deployment/web'
    """

    def __init__(
        self,
        target: str,
        *,
        namespace: str | None = None,
        api: KubernetesApi | None = None,
        state: KubernetesState | None = None,
        events: bool = True,
        deletion_cost: Callable[[str], int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.zero_pauses: bool = True
        self.carries_freeze: bool = True  # by its annotation
        self.object: KubernetesScale = KubernetesScale(
            target, namespace=namespace, api=api, state=state, events=events, clock=clock
        )
        if deletion_cost is not None and state is None:
            raise ConfigurationError("deletion_cost", deletion_cost, "only together with a shared state")
        self._costs = DeletionCosts(deletion_cost) if deletion_cost is not None else None
        self.state = state
        self._owns_api = api is None and state is None
        self._name = f"{self.object.namespace}/{target}"

    @property
    def name(self) -> str:
        return self._name

    @property
    def guard(self) -> Callable[[], bool] | None:
        """Asked right before every PATCH, for example a leader's ``is_leader``; False stops the write."""
        return self.object.guard

    @guard.setter
    def guard(self, ask: Callable[[], bool] | None) -> None:
        self.object.guard = ask

    def read(self) -> TargetState:
        """Return the state now.

        Raises:
            ScalingError: It could not be read; the leaves of ``kubernetes_errors`` tell why.
        """
        state = self.object.read()
        ready = state.observed if state.ready is None else state.ready
        starting = max(0, state.replicas - ready)
        return TargetState(replicas=state.replicas, ready=ready, starting=starting, frozen=state.frozen)

    def scale(self, replicas: int, /, *, reason: str = "") -> None:
        """Ask for ``replicas`` by one PATCH and tell it in one Event; see :meth:`KubernetesScale.write`.

        Raises:
            TargetConflict: Somebody else changed it since it was read.
            ScalingError: Refused, or it is not known whether it was done.
        """
        if self._costs is not None and self.state is not None:
            self._mark(self._costs, self.state, replicas)
        self.object.write(replicas, reason=reason)

    def _mark(self, costs: DeletionCosts, state: KubernetesState, replicas: int) -> None:
        now = self.object.read()
        if replicas < now.replicas:
            pods = state.pods(self.object.namespace, now.selector)
            costs.write(self.object.api, self.object.namespace, [p.name for p in pods if not p.is_leaving])

    def contenders(self) -> tuple[str, ...]:
        """Return the other autoscalers (HPA, KEDA) that drive this target; asked at most once a minute."""
        return self.object.contenders()

    def stuck(self) -> str:
        """Say what the cluster says of pods that do not get ready, the most frequent first.

        Empty without a shared state, which knows the pods.
        """
        if self.state is None:
            return ""
        pods = self.state.pods(self.object.namespace, self.object.read().selector)
        said = Counter(pod.stuck for pod in pods if pod.stuck and not pod.is_leaving)
        return "; ".join(f"{number} x {text}" for text, number in said.most_common(_STUCK_MOST))

    def close(self) -> None:
        """Close the connection if it is this target's own."""
        if self._owns_api:
            self.object.api.close()
