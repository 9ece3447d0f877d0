"""Kubernetes Events for what a scaler does: ``kubectl describe deployment web`` shows them."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import datetime, timezone

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.logs import logger

from .api import JSON, KubernetesApi
from .errors import KubernetesApiError, KubernetesForbidden
from .names import Reference, namespaced

_log = logger("eventperf.scaling.kubernetes")

_NOTE_BYTES = 1024
_REFUSED_S = 600.0


class EventWriter:
    """Writes one Event per action; an Event that fails never fails the action.

    Refused ones (403) are not tried again for ten minutes.
    """

    def __init__(self, api: KubernetesApi, *, clock: Clock | None = None) -> None:
        self._api = api
        self._clock = clock or SystemClock()
        self._silent_until = float("-inf")
        self.failures: int = 0

    def write(
        self, about: Reference, namespace: str, uid: str, reason: str, note: str, *, warning: bool = False
    ) -> None:
        """Post one Event about an object."""
        if self._clock.monotonic() < self._silent_until:
            return
        path = namespaced("events.k8s.io", "v1", "events", namespace)
        try:
            self._api.request("POST", path, body=self._body(about, namespace, uid, reason, note, warning))
        except KubernetesForbidden as error:
            self.failures += 1
            self._silent_until = self._clock.monotonic() + _REFUSED_S
            _log.warning(
                "no Kubernetes Events for %s: grant create on events.k8s.io/events (%s)", namespace, error
            )
        except KubernetesApiError as error:
            self.failures += 1
            _log.info("an Event was lost: %s", error)

    def _body(
        self, about: Reference, namespace: str, uid: str, reason: str, note: str, warning: bool
    ) -> JSON:
        now = datetime.fromtimestamp(self._clock.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{about.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "eventTime": now,
            "reportingController": "eventperf.io/autoscaler",
            "reportingInstance": f"{socket.gethostname()[:100]}-{os.getpid()}",
            "action": "Scale",
            "reason": reason,
            "type": "Warning" if warning else "Normal",
            "note": note.encode()[:_NOTE_BYTES].decode(errors="ignore"),
            "regarding": {
                "apiVersion": about.api_version,
                "kind": about.kind,
                "name": about.name,
                "namespace": namespace,
                "uid": uid,
            },
        }
