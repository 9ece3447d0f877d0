"""CPU and memory of a target's pods from ``metrics.k8s.io``, as the HPA controller would see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.errors import ConfigurationError

from .kubernetes_pods import Pod, group_pods
from .kubernetes_state import KubernetesState, PodUsage


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """One resource of one target's pods.

    Attributes:
        usage: Cores or bytes per ready pod with a sample; requests: what each of them requested.
        missing: Pods that should have a sample and have none; unready: pods that start up.
        taken_at: Time of the oldest sample in seconds since the epoch, None without any.
        reason: Why there is no ratio; empty when there is one.
    """

    usage: Mapping[str, float] = field(default_factory=dict)
    requests: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    taken_at: float | None = None
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """Usage as a share of the requests of the same pods (1.0 is 100 %), or None."""
        asked = sum(self.requests.values())
        return sum(self.usage.values()) / asked if asked and not self.reason else None


def measure(
    resource: str,
    pods: list[Pod],
    usage: Mapping[str, PodUsage],
    *,
    now: float,
    max_age_s: float,
) -> ResourceUsage:
    """Join pods with their samples: pure.

    A sample older than ``max_age_s`` counts as missing, as does a pod without one. A pod without a
    request makes a ratio impossible, and is named.
    """
    samples = {
        pod.name: (found.taken_at, found.window_s)
        for pod in pods
        if (found := usage.get(pod.name)) is not None and now - found.taken_at <= max_age_s
    }
    is_cpu = resource == "cpu"
    groups = group_pods(pods, samples, is_cpu=is_cpu, now=now)
    values: dict[str, float] = {}
    requests: dict[str, float] = {}
    without = ""
    counted = {*groups.ready, *groups.missing, *groups.unready}
    for pod in pods:
        if pod.name in counted and (pod.cpu if is_cpu else pod.memory) is None:
            without = without or pod.name
    ready = set(groups.ready)
    for pod in pods:
        asked = pod.cpu if is_cpu else pod.memory
        if pod.name in ready and asked is not None:
            found = usage[pod.name]
            values[pod.name] = found.cpu if is_cpu else found.memory
            requests[pod.name] = asked
    taken_at = min((samples[name][0] for name in groups.ready), default=None)
    reason = ""
    if without:
        reason = f"pod {without} has a container that requests no {resource}"
    elif not values:
        reason = "no ready pod has a sample" if pods else "no pods"
    return ResourceUsage(values, requests, groups.missing, groups.unready, taken_at, reason)


class KubernetesUsage:
    """Reads one resource of the pods a selector selects.

    Pods are watched and metrics listed once per namespace, shared through ``state``.

    Args:
        resource: ``"cpu"`` or ``"memory"``.
        selector: Label selector of the pods, as the Scale view shows it.
        max_age_s: Older samples count as missing.

    Raises:
        ConfigurationError: Another resource.
    """

    def __init__(
        self,
        resource: str,
        selector: str,
        *,
        namespace: str,
        state: KubernetesState,
        max_age_s: float = 120.0,
        clock: Clock | None = None,
    ) -> None:
        if resource not in ("cpu", "memory"):
            raise ConfigurationError("resource", resource, "'cpu' or 'memory'")
        self.resource, self.selector, self.namespace = resource, selector, namespace
        self._state, self._max_age_s = state, max_age_s
        self._clock = clock or SystemClock()

    def read(self) -> ResourceUsage:
        """Return the usage now.

        Raises:
            KubernetesApiError: Pods or metrics could not be read.
        """
        pods = self._state.pods(self.namespace, self.selector)
        usage = self._state.usage(self.namespace)
        return measure(self.resource, pods, usage, now=self._clock.time(), max_age_s=self._max_age_s)
