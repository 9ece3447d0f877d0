"""Pods as the autoscaler sees them: whose they are, whether they count, and what they asked for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal

from .api import JSON
from .names import quantity


@dataclass(frozen=True, slots=True)
class Pod:
    """What is kept of one pod.

    Attributes:
        started_at: ``status.startTime`` in seconds since the epoch, or None.
        ready: Whether the Ready condition is true; None when there is no such condition.
        ready_since: When that condition last changed.
        cpu: Requested cores, None when a container requests none; memory: requested bytes.
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


def extract_pod(obj: JSON) -> Pod:
    """Return what is kept of the API's pod."""
    meta, status = obj["metadata"], obj.get("status") or {}
    ready, since = None, 0.0
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            ready = condition["status"] == "True"
            since = epoch(condition.get("lastTransitionTime")) or 0.0
    started = epoch(status.get("startTime"))
    containers = (obj.get("spec") or {}).get("containers") or ()
    labels = {sys.intern(k): sys.intern(v) for k, v in (meta.get("labels") or {}).items()}
    return Pod(
        meta["name"],
        labels,
        sys.intern(status.get("phase") or "Pending"),
        "deletionTimestamp" in meta,
        started,
        ready,
        since,
        requested(containers, "cpu"),
        requested(containers, "memory"),
    )


def requested(containers: Iterable[JSON], resource: str) -> float | None:
    """Return the sum of the containers' requests, or None when one of them has none."""
    total = 0.0
    for container in containers:
        asked = ((container.get("resources") or {}).get("requests") or {}).get(resource)
        if asked is None:
            return None
        total += quantity(str(asked))
    return total


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
