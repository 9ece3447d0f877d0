"""A Kubernetes API that runs inside the test: stateful, strict, scriptable, and fast."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from . import discovery
from .api import Api
from .crds import follow_definitions
from .faults import Fault
from .http import Connection, Connections, Request, Response, Stream
from .mirror import mirror_events
from .resources import Resource
from .schemas import Schemas
from .store import ApiError, Object, Store, dumps
from .watch import Watch
from .workloads import Workloads, deployment, pod_metrics

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One request the server saw, in RBAC terms."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    status: int


class KubernetesServer:
    """The Kubernetes API on a free port of this machine; no cluster needed.

    It keeps state as the real one does: resourceVersion with 409, merge and strategic merge patch, the
    Scale view, Leases by PUT, list with ``limit``/``continue`` and selectors, watch with resume,
    bookmarks and 410, ``dryRun=All``, ``metrics.k8s.io``. Pods follow replicas and take ``startup_s``
    to become ready. :meth:`script` makes requests fail; :attr:`calls` and :attr:`counts` tell what was
    asked; :meth:`enforce` refuses whatever a Role does not allow.

    Args:
        startup_s: Seconds a new pod takes to become ready.
        pods: Whether workloads get pods at all; off for tests of thousands of targets.
        schemas: Check bodies against the real schemas (needs ``kubernetes-validate``). A version such as
            ``"1.33"`` picks that version's schemas.
        bookmark_s: Seconds between bookmarks of a watch.
        usage: CPU that ``metrics.k8s.io`` reports for every container of the pods that are ready.
        token: Bearer token every request must carry; None for none.
        max_pods: Pods the cluster has room for. Further ones are refused as a ResourceQuota refuses them: the
            workload keeps its replicas and says ``ReplicaFailure``.

    >>> with KubernetesServer() as server:
    ...     made = server.create_deployment("web", replicas=3)
    ...     server.replicas("deployments", "web")
    3
    """

    def __init__(
        self,
        *,
        startup_s: float = 0.0,
        pods: bool = True,
        schemas: bool | str = False,
        bookmark_s: float = 60.0,
        history: int = 10_000,
        token: str | None = None,
        port: int = 0,
        usage: str | None = None,
        max_pods: int = 5_000,
    ) -> None:
        self.store: Store = Store(history=history)
        checked = Schemas(schemas if isinstance(schemas, str) else None) if schemas else None
        self._api = Api(self.store, schemas=checked, bookmark_s=bookmark_s)
        self._startup_s = startup_s
        self._pods = pods
        self._usage = usage
        self._max_pods = max_pods
        self._token = token
        self.port: int = port
        self._connections = Connections()
        self._faults: list[Fault] = []
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self.calls: deque[Call] = deque(maxlen=100_000)
        self.counts: Counter[tuple[str, str]] = Counter()

    # -- life -----------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen; returns when requests are served."""
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="kubernetes-server", daemon=True
        )
        self._thread.start()
        started.wait()
        return self

    def stop(self) -> None:
        """Close every connection and stop listening; the state stays readable."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None

    def restart(self) -> None:
        """Stop and listen again on the same port with the same state."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run(self, started: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()
        try:
            listen = loop.create_server(
                lambda: Connection(self._serve, self._connections), "127.0.0.1", self.port, reuse_address=True
            )
            listener = loop.run_until_complete(listen)
            self.port = listener.sockets[0].getsockname()[1]
            if self._pods:
                Workloads(
                    self.store,
                    startup_s=self._startup_s,
                    loop=loop,
                    usage=self._usage,
                    max_pods=self._max_pods,
                )
            started.set()
            loop.run_forever()
            listener.close()
            for shelf in self.store.shelves.values():
                shelf.listeners.clear()
            mirror_events(self.store)
            follow_definitions(self.store)
            for connection in list(self._connections.open):
                connection.close()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(listener.wait_closed())
        finally:
            started.set()
            loop.close()

    @property
    def url(self) -> str:
        """Address to give to a client."""
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self, path: str | Path, *, namespace: str = "default") -> Path:
        """Write a kubeconfig for this server and return its path."""
        user = {"token": self._token} if self._token else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}
            ],
        }
        path = Path(path)
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    # -- requests -------------------------------------------------------------------------------------

    def _serve(self, request: Request) -> Response | Stream:
        verb, group, resource, namespace, name, status = "get", "", request.path, "", "", 200
        answer: Response | Stream
        try:
            self._authenticate(request)
            if request.method in ("GET", "HEAD") and _is_above(request.path):
                fault = self._struck("get", request.path)
                answer = self._act(fault, lambda: discovery.respond(self.store, request.path))
            else:
                route = self._api.route(request)
                verb, group, resource = route.verb, route.shelf.resource.group, route.resource
                namespace, name = route.namespace, route.name
                self._api.authorize(route, request)
                fault = self._struck(verb, request.path)
                answer = self._act(fault, lambda: self._api.handle(route, request))
        except ApiError as error:
            retry = error.retry_after_s
            answer = Response(
                error.status, dumps(error.body()), f"Retry-After: {retry:g}\r\n" if retry else ""
            )
        except Exception as error:  # the client gets a Status whatever happens; the test's log gets the rest
            _LOG.exception("%s %s", request.method, request.path)
            failure = ApiError(500, "InternalError", f"Internal error occurred: {type(error).__name__}")
            answer = Response(500, dumps(failure.body()))
        if isinstance(answer, Response):
            status = answer.status
        self.counts[verb, resource] += 1
        self.calls.append(Call(verb, group, resource, namespace, name, status))
        return answer

    def _act(self, fault: Fault | None, handle: Callable[[], Response | Stream]) -> Response | Stream:
        if fault is None:
            return handle()
        if fault.status is not None and not fault.applied:
            reason = {
                403: "Forbidden",
                404: "NotFound",
                409: "Conflict",
                422: "Invalid",
                429: "TooManyRequests",
            }
            raise ApiError(
                fault.status,
                reason.get(fault.status, "InternalError"),
                "scripted",
                retry_after_s=fault.retry_after_s,
            )
        runs = fault.applied or fault.cut is None
        answer = handle() if runs else Response(200)
        if isinstance(answer, Response):
            answer.cut, answer.delay_s = fault.cut, fault.delay_s
            if fault.status is not None:
                answer.status, answer.body = (
                    fault.status,
                    dumps(ApiError(fault.status, "", "scripted").body()),
                )
            return answer
        return Response(200, cut=fault.cut) if fault.cut else answer

    def _struck(self, verb: str, path: str) -> Fault | None:
        return next((f for f in self._faults if f.strikes(verb, path)), None)

    def _authenticate(self, request: Request) -> None:
        if self._token is not None and request.headers.get("authorization") != f"Bearer {self._token}":
            raise ApiError(401, "Unauthorized", "Unauthorized")

    # -- the test's side ------------------------------------------------------------------------------

    def script(self, **fault: Any) -> Fault:
        """Make matching requests fail; see :class:`Fault` for the arguments. Faults are tried in order."""
        made = Fault(**fault)
        self._faults.append(made)
        return made

    def heal(self) -> None:
        """Forget all scripted faults."""
        self._faults.clear()

    def enforce(self, rules: Iterable[Mapping[str, Any]] | None) -> None:
        """Answer 403 to whatever these Role rules do not allow; None allows everything."""
        self._api.rules = None if rules is None else list(rules)

    def register(self, resource: Resource) -> None:
        """Serve a custom resource; before :meth:`start` or while nobody uses it."""
        self.store.register(resource)

    def drop_connections(self, *, reset: bool = False) -> None:
        """Cut every open connection now, as a rolling API server does."""

        def cut() -> None:
            for connection in list(self._connections.open):
                if reset:
                    connection.reset()
                else:
                    connection.close()

        self._loop.call_soon_threadsafe(cut)

    def end_watches(self) -> None:
        """Finish every running watch in order."""

        def end() -> None:
            for connection in list(self._connections.open):
                if isinstance(connection.stream, Watch):
                    connection.stream.end()

        self._loop.call_soon_threadsafe(end)

    def compact(self) -> None:
        """Forget history: a watch that resumes gets 410 Gone."""
        self.store.compact()

    @property
    def connections_accepted(self) -> int:
        """How many connections were ever opened."""
        return self._connections.accepted

    def create(self, plural: str, body: Object, *, namespace: str = "default", group: str = "") -> Object:
        """Store an object directly and return it; its namespace is made where it is not there."""
        with self.store.lock:
            if self.store.shelves[group, plural].resource.namespaced:
                self._api.ensure_namespace(namespace)
            return self.store.create(self.store.shelves[group, plural], namespace, body).obj

    def create_deployment(self, name: str, *, namespace: str = "default", **options: Any) -> Object:
        """Store a small Deployment; options as in :func:`deployment`."""
        return self.create("deployments", deployment(name, **options), namespace=namespace, group="apps")

    def get(self, plural: str, name: str, *, namespace: str = "default", group: str = "") -> Object:
        """Return a stored object (treat it as read-only)."""
        with self.store.lock:
            return self.store.get(self.store.shelves[group, plural], namespace, name).obj

    def list(self, plural: str, *, namespace: str | None = "default", group: str = "") -> list[Object]:
        """Return all objects of a namespace, or of all with None."""
        with self.store.lock:
            return [i.obj for i in self.store.select(self.store.shelves[group, plural], namespace)]

    def update(
        self, plural: str, name: str, body: Object, *, namespace: str = "default", group: str = ""
    ) -> Object:
        """Replace an object, as some other client would."""
        with self.store.lock:
            shelf = self.store.shelves[group, plural]
            return self.store.replace(shelf, self.store.get(shelf, namespace, name), body).obj

    def delete(self, plural: str, name: str, *, namespace: str = "default", group: str = "") -> None:
        """Delete an object."""
        with self.store.lock:
            shelf = self.store.shelves[group, plural]
            self.store.delete(shelf, self.store.get(shelf, namespace, name))

    def replicas(self, plural: str, name: str, *, namespace: str = "default", group: str = "apps") -> int:
        """Return ``spec.replicas`` of a workload."""
        return int(self.get(plural, name, namespace=namespace, group=group)["spec"].get("replicas", 1))

    def scale(
        self, plural: str, name: str, replicas: int, *, namespace: str = "default", group: str = "apps"
    ) -> None:
        """Change ``spec.replicas`` behind the client's back."""
        obj = self.get(plural, name, namespace=namespace, group=group)
        body = {**obj, "spec": {**obj["spec"], "replicas": replicas}}
        self.update(plural, name, body, namespace=namespace, group=group)

    def set_usage(self, pod: str, *, cpu: str, memory: str = "64Mi", namespace: str = "default") -> None:
        """Let ``metrics.k8s.io`` report this usage for every container of ``pod``."""
        with self.store.lock:
            shelf = self.store.shelves["metrics.k8s.io", "pods"]
            owner = self.store.get(self.store.shelves["", "pods"], namespace, pod).obj
            body = pod_metrics(owner, cpu, memory)
            old = shelf.items.get((namespace, pod))
            if old is None:
                self.store.create(shelf, namespace, body)
            else:
                self.store.replace(shelf, old, body)


def _is_above(path: str) -> bool:
    """Tell whether a path is about the API itself: /api, /api/v1, /apis, /apis/GROUP, /apis/GROUP/VERSION."""
    steps = path.strip("/").split("/")
    longest = {"api": 2, "apis": 3}.get(steps[0], 9)
    return len(steps) <= longest
