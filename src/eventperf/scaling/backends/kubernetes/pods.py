"""Pods as the autoscaler sees them: whose they are, whether they count, and what they asked for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal

from .api import JSON
from .names import quantity

_WHY_MAX = 200


@dataclass(frozen=True, slots=True)
class Pod:
    """What is kept of one pod.

    Attributes:
        started_at: ``status.startTime`` in seconds since the epoch, or None.
        ready: Whether the Ready condition is true; None when there is no such condition.
        ready_since: When that condition last changed.
        cpu: Requested cores, None when a container requests none; memory: requested bytes.
        owner: The workload that controls it as ``Kind/name`` (not its ReplicaSet); empty without one.
        containers: Requested cores and bytes of each single container.
        stuck: Why it does not get on, as the cluster says it; empty while it does.
    """

    name: str
    labels: Mapping[str, str]
    phase: str
    is_leaving: bool
    started_at: float | None
    ready: bool | None
    ready_since: float
    cpu: float | None
    memory: float | None
    owner: str = ""
    containers: tuple[tuple[str, float | None, float | None], ...] = ()
    stuck: str = ""

    def request(self, resource: str, container: str | None) -> float | None:
        """Return what the pod, or one container of it, requests."""
        return amount(resource, (self.cpu, self.memory), self.containers, container)


def amount(
    resource: str,
    whole: tuple[float | None, float | None],
    containers: Sequence[tuple[str, float | None, float | None]],
    container: str | None,
) -> float | None:
    """Return the CPU or memory of a pod, or of one container of it; ``None`` when that is not told."""
    found = whole if container is None else next((c[1:] for c in containers if c[0] == container), None)
    return None if found is None else found[0 if resource == "cpu" else 1]


def extract_pod(obj: JSON) -> Pod:
    """Return what is kept of the API's pod."""
    meta, status = obj["metadata"], obj.get("status") or {}
    ready, since = None, 0.0
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            ready = condition["status"] == "True"
            since = epoch(condition.get("lastTransitionTime")) or 0.0
    started = epoch(status.get("startTime"))
    spec = obj.get("spec") or {}
    owners = meta.get("ownerReferences") or ()
    labels = {sys.intern(k): sys.intern(v) for k, v in (meta.get("labels") or {}).items()}
    return Pod(
        meta["name"],
        labels,
        sys.intern(status.get("phase") or "Pending"),
        "deletionTimestamp" in meta,
        started,
        ready,
        since,
        requested(spec, "cpu"),
        requested(spec, "memory"),
        next((_workload(o) for o in owners if o.get("controller")), ""),
        tuple((c["name"], _request(c, "cpu"), _request(c, "memory")) for c in running_containers(spec)),
        "" if ready else _stuck(status),
    )


def _stuck(status: JSON) -> str:
    """Return why a pod that is not ready waits: no node takes it, an image, a crash."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"[:_WHY_MAX].strip(": ")
    for part in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (part.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}"[:_WHY_MAX].strip(": ")
    return ""


def _workload(owner: JSON) -> str:
    """Return the workload behind a controller: a ReplicaSet is named after its Deployment, and a hash."""
    kind, name = owner.get("kind", ""), owner.get("name", "")
    return sys.intern(f"Deployment/{name.rpartition('-')[0]}" if kind == "ReplicaSet" else f"{kind}/{name}")


def running_containers(spec: JSON) -> list[JSON]:
    """Return the containers that run as long as the pod does: native sidecars are among them.

    A native sidecar is an init container with ``restartPolicy: Always`` (Kubernetes 1.29 and later).
    """
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return [*(spec.get("containers") or ()), *sidecars]


def requested(spec: JSON, resource: str) -> float | None:
    """Return what a pod of this spec requests, None when a container that runs on requests none.

    Requests of the pod as a whole (``spec.resources``, Kubernetes 1.34 and later) stand for those of its
    containers; ``limits`` stand for requests that are not given, as the API server fills them in.
    """
    whole = _request(spec, resource)
    if whole is not None:
        return whole
    total = 0.0
    for container in running_containers(spec):
        asked = _request(container, resource)
        if asked is None:
            return None
        total += asked
    return total


def _request(holder: JSON, resource: str) -> float | None:
    resources = holder.get("resources") or {}
    asked = (resources.get("requests") or {}).get(resource, (resources.get("limits") or {}).get(resource))
    return None if asked is None else quantity(str(asked))


@lru_cache(maxsize=4096)
def epoch(text: str | None) -> float | None:
    """Return an RFC 3339 time in seconds since the epoch.

    >>> epoch("1970-01-01T00:01:00Z")
    60.0
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None


class Selector:
    """A label selector in its text form, as the Scale view gives it."""

    __slots__ = ("equals", "others", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.equals: list[tuple[str, str]] = []
        self.others: list[tuple[str, str, frozenset[str]]] = []
        for part in _parts(text):
            self._add(part.strip())

    def _add(self, part: str) -> None:
        for operator in (" notin ", " in "):
            key, found, values = part.partition(operator)
            if found:
                chosen = frozenset(v.strip() for v in values.strip().strip("()").split(","))
                self.others.append((operator.strip(), key.strip(), chosen))
                return
        if "!=" in part:
            key, _, value = part.partition("!=")
            self.others.append(("notin", key.strip(), frozenset({value.strip()})))
        elif "=" in part:
            key, _, value = part.replace("==", "=").partition("=")
            self.equals.append((key.strip(), value.strip()))
        elif part:
            self.others.append(
                ("absent" if part[0] == "!" else "present", part.lstrip("!").strip(), frozenset())
            )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a pod with these labels is selected.

        >>> Selector("app=web,tier in (a, b)").matches({"app": "web", "tier": "b"})
        True
        """
        for key, value in self.equals:
            if labels.get(key) != value:
                return False
        for operator, key, values in self.others:
            here = key in labels
            if operator == "in" and labels.get(key) not in values:
                return False
            if operator == "notin" and labels.get(key) in values:
                return False
            if (operator == "present" and not here) or (operator == "absent" and here):
                return False
        return True


def _parts(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [p for p in parts if p]


class PodIndex:
    """Pods by namespace and label, so that one target's pods are found without looking at all.

    A watch feeds it (:meth:`change`); any thread may ask.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._by_label: dict[tuple[str, str, str], dict[str, Pod]] = {}
        self._all: dict[str, dict[str, Pod]] = {}

    def change(self, namespace: str, old: Pod | None, new: Pod | None) -> None:
        """Enter ``new`` (None: it is gone) in place of ``old``."""
        with self._mu:
            if old is not None:
                self._all.get(namespace, {}).pop(old.name, None)
                for label in old.labels.items():
                    self._drop((namespace, *label), old.name)
            if new is not None:
                self._all.setdefault(namespace, {})[new.name] = new
                for key, value in new.labels.items():
                    self._by_label.setdefault((namespace, key, value), {})[new.name] = new

    def _drop(self, key: tuple[str, str, str], name: str) -> None:
        pods = self._by_label.get(key)
        if pods is not None:
            pods.pop(name, None)
            if not pods:
                del self._by_label[key]

    def select(self, namespace: str, selector: Selector) -> list[Pod]:
        """Return the selected pods of a namespace."""
        with self._mu:
            if selector.equals:
                # the rarest label first: what is left to test is then few
                buckets = [self._by_label.get((namespace, *label), {}) for label in selector.equals]
                found = list(min(buckets, key=len).values())
            else:
                found = list(self._all.get(namespace, {}).values())
        if len(selector.equals) == 1 and not selector.others:
            return found
        return [pod for pod in found if selector.matches(pod.labels)]


Group = Literal["ready", "missing", "unready", "ignored"]
"""How a pod counts: it has a usable sample; it should have one and has none; it starts up or is pending;
it failed or is leaving."""


def group_pods(
    pods: Iterable[Pod],
    samples: Mapping[str, tuple[float, float]],
    *,
    is_cpu: bool,
    now: float,
    initialization_s: float = 300.0,
    initial_readiness_s: float = 30.0,
) -> list[Group]:
    """Tell for each pod how it counts, as the HPA controller does.

    Args:
        samples: Per pod name the sample's time and window in seconds.
        is_cpu: CPU samples of starting pods do not count; memory samples do.
        now: Seconds since the epoch.
        initialization_s: How long after its start a pod's CPU may mislead.
        initial_readiness_s: A pod whose readiness has not changed since this long after its start has
            never been ready.

    Source: ``groupPods`` of the HPA controller's replica calculator, from its published behaviour.
    """
    groups: list[Group] = []
    for pod in pods:
        if pod.is_leaving or pod.phase == "Failed":
            groups.append("ignored")
        elif pod.phase == "Pending":
            groups.append("unready")
        elif pod.name not in samples:
            groups.append("missing")
        elif is_cpu and _starting(pod, samples[pod.name], now, initialization_s, initial_readiness_s):
            groups.append("unready")
        else:
            groups.append("ready")
    return groups


def _starting(
    pod: Pod, sample: tuple[float, float], now: float, initialization_s: float, initial_readiness_s: float
) -> bool:
    if pod.ready is None or pod.started_at is None:
        return True
    if pod.started_at + initialization_s > now:
        taken_at, window_s = sample
        return not pod.ready or taken_at < pod.ready_since + window_s
    return not pod.ready and pod.started_at + initial_readiness_s > pod.ready_since
