"""CPU and memory of a target's pods from ``metrics.k8s.io``, as the HPA controller would see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.scaling.model import PodSample, Sample

from .errors import KubernetesApiError
from .pods import Group, Pod, group_pods
from .state import KubernetesState, PodUsage
from .target import KubernetesTarget

_log = logger("eventperf.scaling.kubernetes")


class KubernetesMetrics:
    """CPU and memory of a target's pods from ``metrics.k8s.io``, as shares of their requests.

    Pods come with the sample, so that a policy can treat missing and starting ones as the HPA does.

    Args:
        target: Whose pods; its ``state`` is used, or one is opened on its connection.
        resources: Which of ``"cpu"`` and ``"memory"``.
        max_age: Older samples count as missing.
        container: Count this container of each pod alone, as an HPA's ``ContainerResource`` metric.
    """

    def __init__(
        self,
        target: KubernetesTarget,
        *,
        resources: Sequence[str] = ("cpu", "memory"),
        container: str | None = None,
        max_age: Duration = 120.0,
        clock: Clock | None = None,
    ) -> None:
        for resource in resources:
            if resource not in ("cpu", "memory"):
                raise ConfigurationError("resources", resource, ("'cpu'", "'memory'"))
        self._target, self._resources = target, tuple(resources)
        self._owns_state = target.state is None
        self._state = target.state or KubernetesState(target.object.api, clock=clock)
        self._max_age_s = seconds(max_age, name="max_age")
        self._clock = clock or SystemClock()
        self._container = container
        self._known: tuple[str, str] | None = None  # uid and selector of the object, which may be replaced
        self._foreign = ""

    def read(self) -> Mapping[str, Sample]:
        """Return a sample per resource; what cannot be measured says why."""
        now = self._clock.time()
        try:
            namespace = self._target.object.namespace
            pods = self._own(self._state.pods(namespace, self._selector()))
            usage = self._state.usage(namespace)
        except KubernetesApiError as error:
            return {resource: Sample(error=str(error)) for resource in self._resources}
        return {
            r: sample(r, pods, usage, now=now, max_age_s=self._max_age_s, container=self._container)
            for r in self._resources
        }

    def _selector(self) -> str:
        """Return the selector of the object that has the name now; one made anew may have other labels."""
        seen = self._target.object.seen
        if seen is None or (self._known is None and not seen.selector):
            seen = self._target.object.read()
        if self._known is None or self._known[0] != seen.uid:
            self._known = (seen.uid, seen.selector)
        return self._known[1]

    def _own(self, pods: list[Pod]) -> list[Pod]:
        """Leave out pods that another workload controls, though the selector finds them; say so once."""
        reference = self._target.object.reference
        mine = f"{reference.kind}/{reference.name}"
        foreign = [pod for pod in pods if pod.owner and pod.owner != mine]
        if not foreign or reference.kind not in ("Deployment", "StatefulSet") or len(foreign) == len(pods):
            self._foreign = ""
            return pods
        if foreign[0].owner != self._foreign:
            self._foreign = foreign[0].owner
            _log.warning(
                "%s: its selector also finds %d pods of other workloads, such as %s of %s: not counted "
                "(an HPA counts them); give the workloads labels of their own",
                self._target.name, len(foreign), foreign[0].name, foreign[0].owner,
            )  # fmt: skip
        return [pod for pod in pods if not pod.owner or pod.owner == mine]

    def close(self) -> None:
        """Stop the watch if it is this source's own."""
        if self._owns_state:
            self._state.close()


def sample(
    resource: str,
    pods: Sequence[Pod],
    usage: Mapping[str, PodUsage],
    *,
    now: float,
    max_age_s: float,
    container: str | None = None,
) -> Sample:
    """Join pods with their usage: pure.

    The value is the sum of the usage over the sum of the requests of the pods that count. A sample older
    than ``max_age_s`` is missing, as is one that was never there. A pod without a request makes a ratio
    impossible, and is named.

    Args:
        resource: ``"cpu"`` or ``"memory"``.
        now: Seconds since the epoch, as the samples' times.
        container: Count this container of each pod alone, as an HPA's ``ContainerResource`` does.
    """
    is_cpu = resource == "cpu"
    fresh = {
        pod.name: (found.taken_at, found.window_s)
        for pod in pods
        if (found := usage.get(pod.name)) is not None
        and now - found.taken_at <= max_age_s
        and found.used(resource, container) is not None
    }
    groups = group_pods(pods, fresh, is_cpu=is_cpu, now=now)
    seen: list[PodSample] = []
    used = asked = 0.0
    without, oldest = "", now
    for pod, group in zip(pods, groups, strict=True):
        name, request, amount = pod.name, pod.request(resource, container), None
        if name in fresh:
            amount = usage[name].used(resource, container)
        if request is None:
            without = without or ("" if group == "ignored" else name)
        elif group == "ready" and amount is not None:
            used += amount
            asked += request
            oldest = min(oldest, fresh[name][0])
        seen.append(
            PodSample(
                usage=_whole(amount, is_cpu),
                request=_whole(request, is_cpu),
                ready=group != "unready",
                pending=pod.phase == "Pending",
                deleting=group == "ignored",
            )
        )
    if without:
        which = "a container that" if container is None else f"no container {container} that"
        text = f"pod {without} has {which} requests {'no ' if container is None else ''}{resource}"
        return Sample(pods=tuple(seen), error=text)
    if not asked:
        return Sample(pods=tuple(seen), error=_nothing(groups, resource))
    return Sample(value=used / asked, age_s=now - oldest, pods=tuple(seen))


def _nothing(groups: Sequence[Group], resource: str) -> str:
    """Say why no pod counts."""
    if not groups:
        return "no pods"
    starting, missing = groups.count("unready"), groups.count("missing")
    why = [f"{starting} are not ready or too young to count"] if starting else []
    why += [f"{missing} have none in metrics.k8s.io"] if missing else []
    return f"no ready pod has a sample of {resource} (of {len(groups)}: {', '.join(why) or 'all leave'})"


def _whole(amount: float | None, is_cpu: bool) -> int | None:
    """Round up to whole millicores or bytes, as Kubernetes' quantities do."""
    return None if amount is None else math.ceil(round(amount * 1000 if is_cpu else amount, 6))
