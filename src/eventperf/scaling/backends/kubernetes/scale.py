"""The scale of one object: read, changed by one PATCH, and what became of it when no clear answer came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.logs import logger
from eventperf.scaling.model import check_replicas

from .api import JSON, MERGE_PATCH, KubernetesApi, pod_namespace
from .errors import (
    KubernetesApiError,
    KubernetesConflict,
    KubernetesDisconnected,
    KubernetesForbidden,
    KubernetesNotFound,
    KubernetesThrottled,
    KubernetesUnavailable,
)
from .events import EventWriter
from .names import Reference, namespaced, parse_reference
from .state import FROZEN, KubernetesState, ScaleState, extract_scale, extract_workload, is_frozen

_log = logger("eventperf.scaling.kubernetes")

_CONFLICTS = 3
_CONTENDERS_S = 60.0
_FROZEN_S = 10.0


class KubernetesScale:
    """The scale of one object: read it, change it once, know what became of it.

    Args:
        target: ``deployment/web``, ``statefulset/db``, or ``plural.version.group/name``.
        namespace: The pod's own by default (``default`` outside a cluster).
        api: Shared connection; one of its own by default.
        state: Shared watch-fed state; without it every :meth:`read` is one GET.
        events: Whether each change writes a Kubernetes Event.
    """

    def __init__(
        self,
        target: str,
        *,
        namespace: str | None = None,
        api: KubernetesApi | None = None,
        state: KubernetesState | None = None,
        events: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.reference: Reference = parse_reference(target)
        self.namespace: str = namespace or pod_namespace()
        self.api: KubernetesApi = state.api if state is not None else api or KubernetesApi()
        self.state = state
        self._clock = clock or SystemClock()
        self._events = EventWriter(self.api, clock=self._clock) if events else None
        self.guard: Callable[[], bool] | None = None
        """Asked right before every PATCH; what it refuses is not sent (an old leader's late write)."""
        self._last: ScaleState | None = None
        self._wrote: int | None = None
        self._closed_until = float("-inf")
        self._contenders: tuple[float, tuple[str, ...]] = (float("-inf"), ())
        self._frozen: tuple[float, bool] = (float("-inf"), False)

    # -- reading --------------------------------------------------------------------------------------

    def read(self) -> ScaleState:
        """Return the state now: from the watch where there is one, else by one GET.

        Raises:
            KubernetesApiError: It could not be read.
        """
        self._last = self._watched() or self._get()
        return self._last

    def _watched(self) -> ScaleState | None:
        if self.state is None or self.reference.group != "apps":
            return None
        found = self.state.scale(self.reference, self.namespace)
        if found is None:
            raise KubernetesNotFound(
                "WATCH", self._path(), f"no {self.reference.kind} of this name", status=404
            )
        return found

    def _get(self) -> ScaleState:
        if self.reference.group == "apps":
            return extract_workload(self._request("GET", self._path()))
        return replace(self._get_scale(), frozen=self._is_frozen())

    def _is_frozen(self) -> bool:
        """Look at the object itself, whose annotations its Scale view does not show."""
        now = self._clock.monotonic()
        if now - self._frozen[0] >= _FROZEN_S:
            frozen = self._frozen[1]
            try:
                frozen = is_frozen(self.api.request("GET", self._path())["metadata"])
            except KubernetesApiError as error:
                if self._frozen[0] == float("-inf"):
                    text = "%s: whether it is frozen cannot be seen (get on %s is needed): %s"
                    _log.warning(text, self.reference.name, self.reference.plural, error)
            self._frozen = (now, frozen)
        return self._frozen[1]

    def freeze(self, on: bool = True) -> None:
        """Write the annotation ``eventperf/frozen`` (or take it away), which every scaler of it obeys.

        Needs the right to patch the object itself, which a scaler's own account has not.

        Raises:
            KubernetesApiError: Refused, or no answer.
        """
        body: JSON = {"metadata": {"annotations": {FROZEN: "true" if on else None}}}
        self._request("PATCH", self._path(), body=body, query={"fieldManager": "eventperf-freeze"})
        self._frozen = (float("-inf"), on)

    def _get_scale(self) -> ScaleState:
        return extract_scale(self._request("GET", self._path("scale")))

    @property
    def seen(self) -> ScaleState | None:
        """What was read last, None before the first look."""
        return self._last

    @property
    def changed_by_others(self) -> tuple[int, int] | None:
        """What this object wrote last and what is there now, when they differ."""
        if self._wrote is None or self._last is None or self._last.replicas == self._wrote:
            return None
        return self._wrote, self._last.replicas

    def contenders(self) -> tuple[str, ...]:
        """Return the other autoscalers that drive this object, looked up at most once a minute.

        Empty also when horizontalpodautoscalers may not be listed.
        """
        now = self._clock.monotonic()
        if now - self._contenders[0] >= _CONTENDERS_S:
            self._contenders = (now, self._find_contenders())
        return self._contenders[1]

    def _find_contenders(self) -> tuple[str, ...]:
        kind, name = self.reference.kind, self.reference.name
        if self.state is not None:
            return tuple(self.state.contenders(kind, name, self.namespace))
        path = namespaced("autoscaling", "v2", "horizontalpodautoscalers", self.namespace)
        try:
            items = self.api.request("GET", path).get("items") or ()
        except KubernetesApiError:
            return self._contenders[1]
        return tuple(
            f"HorizontalPodAutoscaler/{item['metadata']['name']}"
            for item in items
            if (item["spec"]["scaleTargetRef"]["kind"], item["spec"]["scaleTargetRef"]["name"])
            == (kind, name)
        )

    # -- writing --------------------------------------------------------------------------------------

    def write(self, replicas: int, *, reason: str = "", dry_run: bool = False) -> ScaleState:
        """Set the number of replicas by one PATCH that carries the version last read.

        Nothing is sent when that number was read last.

        A conflict that left the number of replicas alone (a status update) is repeated with the new
        version; any other is somebody else's change and is raised. After a PATCH
        without an answer the state is read back; if it shows the wanted number, nothing is repeated.

        Raises:
            KubernetesConflict: Somebody else changed the number since it was read.
            KubernetesThrottled: The server asked to wait; until then nothing is sent.
            KubernetesUnavailable: No answer, and the change is not to be seen.
            KubernetesApiError: Refused.
        """
        check_replicas(replicas)
        self._wait_over()
        before = self._last if self._last is not None else self.read()
        if before.replicas == replicas and not dry_run:
            return before
        after = self._patch(before, replicas, dry_run)
        if dry_run:
            return after
        self._wrote, self._last = replicas, self._merged(before, after)
        if self.state is not None and self.reference.group == "apps":
            self.state.workloads(self.reference, self.namespace).put(
                self.namespace, self.reference.name, self._last, self._last.version
            )
        if self._events is not None:
            self._tell(before, replicas, reason)
        return self._last

    def _patch(self, before: ScaleState, replicas: int, dry_run: bool) -> ScaleState:
        version = before.version
        for attempt in range(_CONFLICTS):
            self._check_guard()
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            query = {"fieldManager": "eventperf", **({"dryRun": "All"} if dry_run else {})}
            try:
                return extract_scale(self._request("PATCH", self._path("scale"), body=body, query=query))
            except KubernetesConflict as conflict:
                found = self._get_scale()
                if found.replicas != before.replicas:
                    if found.replicas == replicas:
                        return found  # wanted anyway, or written by a PATCH whose answer was lost
                    self._last = self._merged(before, found)
                    text = f"changed from {before.replicas} to {found.replicas} replicas by somebody else"
                    raise KubernetesConflict("PATCH", conflict.path, text, status=409) from conflict
                version = found.version
            except KubernetesThrottled as error:
                self._closed_until = self._clock.monotonic() + (error.retry_after_s or 1.0)
                raise
            except KubernetesUnavailable as error:
                seen = self._read_back()
                if seen is not None and seen.replicas == replicas and not dry_run:
                    return seen
                undone = seen is not None and seen.replicas == before.replicas
                if seen is None or not undone or not isinstance(error, KubernetesDisconnected) or attempt:
                    self._last = None
                    raise
                version = seen.version  # whichever of the two arrives last fails on it
        text = f"the object changed {_CONFLICTS} times in a row while it was written"
        raise KubernetesConflict("PATCH", self._path("scale"), text, status=409)

    def _read_back(self) -> ScaleState | None:
        try:
            return self._get_scale()
        except KubernetesApiError:
            return None

    @staticmethod
    def _merged(before: ScaleState, after: ScaleState) -> ScaleState:
        """The Scale view knows replicas and version; what else was known stays."""
        return replace(before, replicas=after.replicas, observed=after.observed, version=after.version)

    def _check_guard(self) -> None:
        if self.guard is not None and not self.guard():
            text = "this process leads no longer: nothing was written"
            raise KubernetesConflict("PATCH", self._path("scale"), text)

    def _wait_over(self) -> None:
        left = self._closed_until - self._clock.monotonic()
        if left > 0:
            text = f"the server asked to wait {left:.1f} s more"
            raise KubernetesThrottled("PATCH", self._path("scale"), text, status=429, retry_after_s=left)

    def _tell(self, before: ScaleState, replicas: int, reason: str) -> None:
        assert self._events is not None
        direction = "ScaledUp" if replicas > before.replicas else "ScaledDown"
        note = f"{before.replicas} -> {replicas} replicas{': ' if reason else ''}{reason}"
        self._events.write(self.reference, self.namespace, before.uid, direction, note)

    # -- requests -------------------------------------------------------------------------------------

    def _path(self, *tail: str) -> str:
        if not self.reference.version:
            self.reference = replace(self.reference, version=self._discover())
        ref = self.reference
        return namespaced(ref.group, ref.version, ref.plural, self.namespace, ref.name, *tail)

    def _discover(self) -> str:
        group = self.api.request("GET", f"/apis/{self.reference.group}")
        return str(group["preferredVersion"]["version"])

    def _request(self, method: str, path: str, *, body: JSON | None = None, query: Any = None) -> JSON:
        try:
            return self.api.request(method, path, body=body, query=query, content_type=MERGE_PATCH)
        except KubernetesForbidden as error:
            raise KubernetesForbidden(
                method, path, f"{error.text} ({self._remedy(method, path, error)})", status=error.status
            ) from error

    def _remedy(self, method: str, path: str, error: KubernetesForbidden) -> str:
        """Name what would help: the same status has several causes, and a right helps against one of them."""
        text = error.text.lower()
        if error.status == 401:
            return "the credentials are not accepted: a token may have expired, or belong to another cluster"
        if "admission webhook" in text or "denied the request" in text or "validatingadmissionpolicy" in text:
            return "a policy of the cluster refuses it: keep within it, or ask those who own it"
        if "exceeded quota" in text or "quota" in text:
            return "a ResourceQuota is used up: lower max_replicas, or have the quota raised"
        if "being terminated" in text:
            return "the namespace is being deleted"
        if "limitrange" in text or "minimum cpu" in text or "maximum " in text:
            return "a LimitRange refuses it: change the workload's requests"
        sub = "/scale" if path.endswith("/scale") else ""
        rule = f"{method.lower()} on {self.reference.plural}{sub} in API group {self.reference.group}"
        if " cannot " in text or not text or text in ("forbidden", "scripted"):
            return f"grant {rule} in namespace {self.namespace}"
        return (
            f"refused for the reason it gives; if it is a missing right: {rule} in namespace {self.namespace}"
        )
