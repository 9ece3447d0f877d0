"""What a process knows of a cluster, shared by all its targets: one list and watch per kind and namespace."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from typing_extensions import Self

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import seconds

from .api import JSON, KubernetesApi, no_cycles
from .errors import KubernetesNotFound, KubernetesUnavailable
from .names import Reference, namespaced, quantity
from .pods import Pod, PodIndex, Selector, amount, epoch, extract_pod, requested
from .watch import WatchedCollection

FROZEN = "eventperf/frozen"
"""An annotation of the workload: people write ``true`` into it, and nothing is changed until it is gone."""

_FRESH_S = 150.0  # bookmarks come every minute; two of them may be lost
_SYNC_S = 30.0
_DRIVERS_S = 5.0


@dataclass(frozen=True, slots=True)
class ScaleState:
    """What is kept of one object with a scale subresource.

    Attributes:
        replicas: Wanted; observed: pods that exist; ready: pods that serve, None where unknown.
        updated: Pods of the newest template; differs from ``observed`` during a rolling update.
        version: resourceVersion to be carried by a PATCH.
        cpu: Requested cores per pod of the template, memory: bytes; None where not requested.
        frozen: Whether its annotation asks that nothing is changed.
    """

    replicas: int
    observed: int
    ready: int | None
    updated: int | None
    selector: str
    version: str
    uid: str
    cpu: float | None = None
    memory: float | None = None
    frozen: bool = False


def is_frozen(meta: Mapping[str, Any]) -> bool:
    """Tell whether an object's metadata asks to leave it alone.

    >>> [is_frozen({"annotations": {FROZEN: value}}) for value in ("true", "yes", "false", "")]
    [True, True, False, False]
    """
    value = (meta.get("annotations") or {}).get(FROZEN, "")
    return str(value).strip().lower() not in ("", "false", "no", "off", "0")


def extract_workload(obj: JSON) -> ScaleState:
    """Return what is kept of a Deployment, StatefulSet or ReplicaSet."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    pod_spec = (spec.get("template") or {}).get("spec") or {}
    return ScaleState(
        spec.get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        status.get("updatedReplicas"),
        selector_text(spec.get("selector") or {}),
        meta["resourceVersion"],
        meta["uid"],
        requested(pod_spec, "cpu"),
        requested(pod_spec, "memory"),
        is_frozen(meta),
    )


def extract_scale(obj: JSON) -> ScaleState:
    """Return what is kept of a Scale view."""
    meta, status = obj["metadata"], obj.get("status") or {}
    replicas = (obj.get("spec") or {}).get("replicas", 0)
    selector = status.get("selector", "")
    return ScaleState(
        replicas, status.get("replicas", 0), None, None, selector, meta["resourceVersion"], meta["uid"]
    )


def selector_text(selector: Mapping[str, Any]) -> str:
    """Return a LabelSelector object as the text the API's query takes."""
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for rule in selector.get("matchExpressions") or ():
        key, values = rule["key"], ",".join(rule.get("values") or ())
        words = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        parts.append(words.get(rule["operator"], f"!{key}"))
    return ",".join(parts)


def extract_hpa(obj: JSON) -> str:
    """Return what a HorizontalPodAutoscaler drives, as ``Kind/name``; KEDA's carry its label."""
    target = obj["spec"]["scaleTargetRef"]
    labels = obj["metadata"].get("labels") or {}
    keda = "KEDA " if labels.get("app.kubernetes.io/managed-by") == "keda-operator" else ""
    return f"{target['kind']}/{target['name']}\n{keda}HorizontalPodAutoscaler/{obj['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What ``metrics.k8s.io`` says of one pod: cores, bytes, time of the sample and its window.

    Attributes:
        containers: Cores and bytes of each single container.
    """

    cpu: float
    memory: float
    taken_at: float
    window_s: float
    containers: tuple[tuple[str, float, float], ...] = ()

    def used(self, resource: str, container: str | None) -> float | None:
        """Return what the pod, or one container of it, uses; None when that is not told."""
        return amount(resource, (self.cpu, self.memory), self.containers, container)


class KubernetesState:
    """Shared, watch-fed state: reading it costs no request.

    Collections are opened when a target first asks for them. Metrics cannot be watched; they are listed
    once per namespace and shared for ``metrics_age_s``.

    Args:
        cluster_wide: Watch all namespaces with one watch per kind (needs a ClusterRole); by default
            each namespace in use has its own (a Role in each is enough).
    """

    def __init__(
        self,
        api: KubernetesApi | None = None,
        *,
        cluster_wide: bool = False,
        metrics_age_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self.api: KubernetesApi = api or KubernetesApi()
        self._wide = cluster_wide
        self._metrics_age_s = metrics_age_s
        self._clock = clock or SystemClock()
        self._begin()

    def _begin(self) -> None:
        """Know nothing: at the start, and in a forked child, where no watch runs and locks may be held."""
        self._pid = os.getpid()
        self._mu = threading.Lock()
        self._listing = threading.Lock()
        self._collections: dict[tuple[str, str], WatchedCollection[Any]] = {}
        self._pods: dict[str, PodIndex] = {}
        self._drivers: dict[str, tuple[float, dict[tuple[str, str], list[str]]]] = {}
        self._usage: dict[str, tuple[float, dict[str, PodUsage]]] = {}
        self._selectors: dict[str, Selector] = {}

    # -- watched kinds --------------------------------------------------------------------------------

    def scale(self, reference: Reference, namespace: str) -> ScaleState | None:
        """Return the state of an ``apps/v1`` workload, or None when there is none.

        Raises:
            KubernetesApiError: Nothing has been heard of the server for too long, with the cause.
        """
        return self.workloads(reference, namespace).get(namespace, reference.name)

    def workloads(self, reference: Reference, namespace: str) -> WatchedCollection[ScaleState]:
        """Return the followed collection that holds ``reference``."""
        return self._ready(
            self._follow(reference.group, reference.version, reference.plural, namespace, extract_workload)
        )

    def contenders(self, kind: str, name: str, namespace: str) -> list[str]:
        """Return the autoscalers that drive ``kind/name``; empty also when they may not be listed."""
        found = self._follow("autoscaling", "v2", "horizontalpodautoscalers", namespace, extract_hpa)
        if not found.wait_synced(0.0 if found.error else _SYNC_S):
            return []
        scope, now = "" if self._wide else namespace, self._clock.monotonic()
        at, index = self._drivers.get(scope, (float("-inf"), {}))
        if now - at > _DRIVERS_S:
            # thousands of targets ask in one round: each looking through all would be quadratic
            index = {}
            for (place, _), hpa in found.snapshot().items():
                driven, _, driver = hpa.partition("\n")
                index.setdefault((place, driven), []).append(driver)
            self._drivers[scope] = (now, index)
        return index.get((namespace, f"{kind}/{name}"), [])

    def pods(self, namespace: str, selector: str) -> list[Pod]:
        """Return the pods a selector selects."""
        if self._pid != os.getpid():
            self._begin()
        scope = "" if self._wide else namespace
        with self._mu:
            index = self._pods.setdefault(scope, PodIndex())
            parsed = self._selectors.get(selector) or self._selectors.setdefault(selector, Selector(selector))
        self._ready(self._follow("", "v1", "pods", namespace, extract_pod, listener=index.change))
        return index.select(namespace, parsed)

    def _follow(
        self, group: str, version: str, plural: str, namespace: str, extract: Any, **options: Any
    ) -> WatchedCollection[Any]:
        if self._pid != os.getpid():
            self._begin()
        scope = "" if self._wide else namespace
        with self._mu:
            found = self._collections.get((f"{group}/{plural}", scope))
            if found is None:
                path = namespaced(group, version, plural, scope or None)
                found = WatchedCollection(self.api, path, extract, clock=self._clock, **options)
                self._collections[f"{group}/{plural}", scope] = found
                found.start()
        return found

    @staticmethod
    def _ready(found: WatchedCollection[Any]) -> WatchedCollection[Any]:
        if not found.is_running:
            found.start()
        if found.is_synced and found.silent_s < _FRESH_S:
            return found
        if not found.is_synced:
            found.wait_synced(_SYNC_S)
        if found.is_synced and found.silent_s < _FRESH_S:
            return found
        text = f"not confirmed for {found.silent_s:.0f} s" if found.is_synced else "no answer in time"
        raise found.error or KubernetesUnavailable("WATCH", found.path, text)

    # -- metrics --------------------------------------------------------------------------------------

    def usage(self, namespace: str) -> Mapping[str, PodUsage]:
        """Return the usage of all pods of a namespace, by name.

        Raises:
            KubernetesApiError: The metrics API refused or did not answer.
        """
        with self._listing:
            now = self._clock.monotonic()
            at, usage = self._usage.get(namespace, (float("-inf"), {}))
            if now - at >= self._metrics_age_s:
                usage = self._list_usage(namespace)
                self._usage[namespace] = (now, usage)
            return usage

    def refresh(self) -> None:
        """Let the next question for metrics list them again: called once per tick of a fleet."""
        with self._listing:
            self._usage.clear()

    def _list_usage(self, namespace: str) -> dict[str, PodUsage]:
        path = namespaced("metrics.k8s.io", "v1beta1", "pods", namespace)
        with no_cycles():
            try:
                items: Iterable[JSON] = self.api.request("GET", path, timeout_s=15.0).get("items") or ()
            except KubernetesNotFound as error:
                raise KubernetesNotFound(
                    "GET", path, "this cluster serves no metrics.k8s.io: install metrics-server", status=404
                ) from error
            try:
                return {item["metadata"]["name"]: _usage(item) for item in items}
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                text = f"an answer of another shape than metrics.k8s.io has: {type(error).__name__}"
                raise KubernetesUnavailable("GET", path, text) from error

    # -- life -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop all watches."""
        with self._mu:
            collections = list(self._collections.values())
            self._collections.clear()
        for collection in collections:
            collection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _usage(item: JSON) -> PodUsage:
    each = tuple(
        (c.get("name", ""), quantity(c["usage"]["cpu"]), quantity(c["usage"]["memory"]))
        for c in item["containers"]
    )
    cpu, memory = sum(c for _, c, _ in each), sum(m for _, _, m in each)
    return PodUsage(cpu, memory, epoch(item.get("timestamp")) or 0.0, _window(item.get("window")), each)


@lru_cache(maxsize=1024)
def _window(text: str | None) -> float:
    """Read a Go duration as ``metrics.k8s.io`` writes it (``30s``, ``1m0.5s``)."""
    return seconds(text, name="window", zero=True) if text else 0.0
