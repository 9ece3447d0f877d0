"""CPU and memory of a target's pods from ``metrics.k8s.io``, as the HPA controller would see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eventperf.scaling.model import PodSample, Sample

from .pods import Group, Pod, group_pods
from .state import PodUsage


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
