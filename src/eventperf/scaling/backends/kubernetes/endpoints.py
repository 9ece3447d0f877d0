"""The addresses behind a Service, kept current by a watch: endpoints for a balancer."""

from __future__ import annotations

from eventperf._core.clock import Clock
from eventperf._core.errors import ConfigurationError

from .api import JSON, KubernetesApi, pod_namespace
from .errors import KubernetesUnavailable
from .names import namespaced
from .watch import WatchedCollection

_SYNC_S = 30.0


class KubernetesEndpoints:
    """A callable that returns ``host:port`` of every ready endpoint of a Service.

    The first call opens a watch of the Service's EndpointSlices; later ones cost no request. While the
    API server is away the last known addresses stand: pods go on serving without it. Needs ``list`` and
    ``watch`` on ``endpointslices.discovery.k8s.io``.

    Args:
        service: Name of the Service.
        port: Name or number of its port; may be left out when it has only one.

    Raises:
        KubernetesApiError: On the first call only, when the addresses cannot be listed.
    """

    def __init__(
        self,
        service: str,
        *,
        port: str | int | None = None,
        namespace: str | None = None,
        api: KubernetesApi | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not service or "/" in service:
            raise ConfigurationError("service", service, "the name of a Service")
        self.service: str = service
        self.namespace: str = namespace or pod_namespace()
        self._port = port
        self._slices = WatchedCollection(
            api or KubernetesApi(),
            namespaced("discovery.k8s.io", "v1", "endpointslices", self.namespace),
            self._addresses,
            selector=f"kubernetes.io/service-name={service}",
            clock=clock,
        )

    def __call__(self) -> list[str]:
        """Return the addresses now, sorted; a pod in two slices is there once."""
        if not self._slices.is_synced and not self._slices.wait_synced(_SYNC_S):
            error = self._slices.error
            raise error or KubernetesUnavailable("LIST", "endpointslices", "no answer in time")
        return sorted({address for found in self._slices.snapshot().values() for address in found})

    def _addresses(self, obj: JSON) -> tuple[str, ...]:
        port = self._number(obj.get("ports") or ())
        if port is None:
            return ()
        found: list[str] = []
        for endpoint in obj.get("endpoints") or ():
            # absent means ready: "unknown" is to be read as true (EndpointSlice API)
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                found += [
                    _join(address, port, obj.get("addressType", "IPv4")) for address in endpoint["addresses"]
                ]
        return tuple(found)

    def _number(self, ports: list[JSON] | tuple[JSON, ...]) -> int | None:
        for port in ports:
            wanted = self._port is None or self._port in (port.get("name"), port.get("port"))
            if wanted and port.get("port") is not None:
                return int(port["port"])
        return None

    def close(self) -> None:
        """Stop the watch."""
        self._slices.close()


def _join(address: str, port: int, kind: str) -> str:
    return f"[{address}]:{port}" if kind == "IPv6" else f"{address}:{port}"
