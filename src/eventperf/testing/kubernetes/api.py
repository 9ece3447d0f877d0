"""From an HTTP request to the store: routes, verbs, subresources and the checks the real API makes."""

from __future__ import annotations

import json
import re
from typing import Any

from .http import Request, Response, Stream
from .immutable import check_changed, check_new
from .mirror import mirror_events
from .patch import PatchError, json_patch, merge, strategic
from .protobuf import MEDIA_TYPE, read
from .resources import BUILTIN, Resource
from .schemas import Schemas
from .selectors import field_matcher, label_matcher, selector_text
from .store import ApiError, Item, Object, Shelf, Store, dumps
from .tables import table, wanted
from .watch import Watch

_PATH = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?/?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
JSON_PATCH = "application/json-patch+json"
_PATCHES = {
    "application/merge-patch+json": merge,
    "application/strategic-merge-patch+json": strategic,
    JSON_PATCH: json_patch,
}
_INT32 = 2**31 - 1
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class Route:
    """One request understood: which verb on which resource."""

    __slots__ = ("name", "namespace", "shelf", "sub", "verb")

    def __init__(self, verb: str, shelf: Shelf, namespace: str, name: str, sub: str) -> None:
        self.verb: str = verb
        self.shelf: Shelf = shelf
        self.namespace: str = namespace
        self.name: str = name
        self.sub: str = sub

    @property
    def resource(self) -> str:
        """The RBAC name, for example ``deployments/scale``."""
        plural = self.shelf.resource.plural
        return f"{plural}/{self.sub}" if self.sub else plural


class Api:
    """The resource handlers, without any network."""

    def __init__(self, store: Store, *, schemas: Schemas | None, bookmark_s: float) -> None:
        self.store = store
        self._schemas = schemas
        self._bookmark_s = bookmark_s
        for resource in BUILTIN:
            store.register(resource)
        self._strict: Schemas | None = schemas
        mirror_events(store)
        for name in NAMESPACES:
            self.ensure_namespace(name)

    def ensure_namespace(self, name: str) -> None:
        """Make a namespace that is not there yet."""
        shelf = self.store.shelves["", "namespaces"]
        if name and ("", name) not in shelf.items:
            body = {"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}}
            self.store.create(shelf, "", {**body, "status": {"phase": "Active"}})

    def route(self, request: Request) -> Route:
        """Read the path, or raise 404."""
        found = _PATH.match(request.path)
        shelf = self.store.shelves.get((found["group"] or "", found["plural"])) if found else None
        if found is None or shelf is None or (found["version"] or "v1") != shelf.resource.version:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        name, sub = found["name"] or "", found["sub"] or ""
        verb = _VERBS.get(request.method, "get")
        if verb == "get" and not name:
            verb = "watch" if request.query.get("watch") in ("1", "true", "True") else "list"
        if sub and not self._has(shelf.resource, sub):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return Route(verb, shelf, found["namespace"] or "", name, sub)

    @staticmethod
    def _has(resource: Resource, sub: str) -> bool:
        return (sub == "scale" and resource.scale is not None) or (sub == "status" and resource.has_status)

    def handle(self, route: Route, request: Request) -> Response | Stream:
        """Do what the request asks."""
        with self.store.lock:
            if route.verb == "watch":
                return self._watch(route, request)
            if route.verb == "list":
                return self._list(route, request)
            if route.verb == "get":
                item = self.store.get(route.shelf, route.namespace, route.name)
                if wanted(request.headers.get("accept", "")) and not route.sub:
                    return Response(200, dumps(table(route.shelf.resource, [item.obj], {})))
                return Response(200, self._view(route, item))
            dry_run = request.query.get("dryRun") == "All"
            if route.verb == "create":
                return self._create(route, self._body(request), request, dry_run)
            old = self.store.get(route.shelf, route.namespace, route.name)
            if route.verb == "delete":
                self.store.delete(route.shelf, old, dry_run=dry_run)
                return Response(200, dumps({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            new = self._changed(route, old, request)
            return Response(
                200, self._view(route, self.store.replace(route.shelf, old, new, dry_run=dry_run))
            )

    def _list(self, route: Route, request: Request) -> Response:
        query, limit = request.query, int(request.query.get("limit") or 0)
        if query.get("continue"):
            version, items = self.store.resume_page(query["continue"])
        else:
            version = self.store.version
            items = self.store.select(route.shelf, route.namespace or None, *self._matchers(query))
        items, token = self.store.page(items, limit)
        meta: dict[str, Any] = {"resourceVersion": str(version)}
        if token:
            meta["continue"] = token
        resource = route.shelf.resource
        if wanted(request.headers.get("accept", "")):
            return Response(200, dumps(table(resource, [i.obj for i in items], meta)))
        head = dumps({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta})
        return Response(200, head[:-1] + b',"items":[' + b",".join(i.raw for i in items) + b"]}")

    @staticmethod
    def _matchers(query: dict[str, str]) -> tuple[Any, ...]:
        try:
            return label_matcher(query.get("labelSelector", "")), field_matcher(
                query.get("fieldSelector", "")
            )
        except ValueError as error:
            raise ApiError(400, "BadRequest", str(error)) from error

    def _watch(self, route: Route, request: Request) -> Stream:
        query = request.query
        bookmarks = query.get("allowWatchBookmarks") in ("1", "true", "True")
        return Watch(
            self.store,
            route.shelf,
            namespace=route.namespace or None,
            matchers=tuple(m for m in self._matchers(query) if m is not None),
            since=query.get("resourceVersion", ""),
            timeout_s=float(query.get("timeoutSeconds") or 1800),
            bookmark_s=self._bookmark_s if bookmarks else None,
        )

    @staticmethod
    def _body(request: Request) -> Object:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind == MEDIA_TYPE:
            try:
                found = read(request.body)
            except ValueError as error:
                raise ApiError(400, "BadRequest", f"the body cannot be read: {error}") from error
            if found is not None:
                return found
        if kind.startswith("application/vnd.kubernetes") or kind == "application/cbor":
            text = f"the body of the request was in an unknown format: {kind}; this server reads JSON"
            raise ApiError(415, "UnsupportedMediaType", text)
        try:
            body: Object = json.loads(request.body)
        except ValueError as error:
            raise ApiError(400, "BadRequest", f"invalid character in body: {error}") from error
        if not isinstance(body, dict) and kind != JSON_PATCH:
            raise ApiError(400, "BadRequest", "the body is not an object")
        return body

    def _create(self, route: Route, body: Object, request: Request, dry_run: bool) -> Response:
        resource = route.shelf.resource
        if resource.namespaced and not route.namespace:
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the resource")
        if (body.get("metadata") or {}).get("namespace", route.namespace) != route.namespace:
            raise ApiError(400, "BadRequest", "the namespace of the object does not match the request")
        if resource.namespaced and ("", route.namespace) not in self.store.shelves["", "namespaces"].items:
            raise ApiError(404, "NotFound", f'namespaces "{route.namespace}" not found')
        typed = {"kind": resource.kind, "apiVersion": resource.api_version, **body}
        if typed["kind"] != resource.kind or typed["apiVersion"] != resource.api_version:
            text = f"{typed['apiVersion']}, Kind={typed['kind']} does not match the expected one"
            raise ApiError(400, "BadRequest", f"the object provided is unrecognized: {text}")
        self._check_fields(request, typed)
        check_new(resource, body)
        self._check(resource, typed)
        return Response(201, self.store.create(route.shelf, route.namespace, body, dry_run=dry_run).raw)

    def _changed(self, route: Route, old: Item, request: Request) -> Object:
        scaling = route.sub == "scale"
        before = self.scale_view(route.shelf.resource, old.obj) if scaling else old.obj
        body = self._body(request)
        if route.verb == "patch":
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            apply = _PATCHES.get(kind)
            if apply is None:
                raise ApiError(
                    415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {kind}"
                )
            try:
                after: Object = apply(before, body)
            except PatchError as error:
                raise ApiError(422, "Invalid", f"the server rejected our request: {error}") from error
        else:
            after = body
        self._check_version(route, old, after)
        resource = route.shelf.resource
        named = (after.get("metadata") or {}).get("name", route.name)
        if named != route.name:
            text = f"the name of the object ({named}) does not match the name on the URL ({route.name})"
            raise ApiError(400, "BadRequest", text)
        if not scaling:
            self._check_fields(request, {**after, "kind": resource.kind, "apiVersion": resource.api_version})
        if scaling:
            return self._scaled(resource, old.obj, after)
        if route.sub == "status":
            after = {**old.obj, "status": after.get("status")}
        check_changed(resource, old.obj, after)
        self._check(resource, after)
        return after

    def _check_version(self, route: Route, old: Item, after: Object) -> None:
        asked = (after.get("metadata") or {}).get("resourceVersion")
        name, resource = route.name, route.shelf.resource
        if not asked:
            if route.verb == "update" and not resource.unconditional_update:
                text = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
                raise ApiError(422, "Invalid", f'{resource.kind} "{name}" is invalid: {text}')
        elif asked != old.obj["metadata"]["resourceVersion"]:
            text = (
                "the object has been modified; please apply your changes to the latest version and try again"
            )
            raise ApiError(
                409, "Conflict", f'Operation cannot be fulfilled on {resource.plural} "{name}": {text}'
            )

    def _scaled(self, resource: Resource, obj: Object, scale: Object) -> Object:
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if isinstance(replicas, bool) or not isinstance(replicas, int) or abs(replicas) > _INT32:
            text = f"json: cannot unmarshal {replicas!r} into ScaleSpec.spec.replicas of type int32"
            raise ApiError(400, "BadRequest", text)
        if replicas < 0:
            name = obj["metadata"]["name"]
            text = f"spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0"
            raise ApiError(422, "Invalid", f'Scale "{name}" is invalid: {text}')
        self._check(resource, {"kind": "Scale", "apiVersion": "autoscaling/v1", **scale})
        assert resource.scale is not None
        first, _, last = resource.scale[0].partition(".")
        return {**obj, first: {**(obj.get(first) or {}), last: replicas}}

    def _check_fields(self, request: Request, obj: Object) -> None:
        """Refuse unknown and doubled fields where the client asks for it, as kubectl does by default."""
        if request.query.get("fieldValidation") != "Strict":
            return
        wrong = [f'unknown field "{name}"' for name in self._fields().unknown(obj)]
        wrong += [f'duplicate field "{name}"' for name in _doubled(request.body)]
        if wrong:
            raise ApiError(400, "BadRequest", f"strict decoding error: {', '.join(wrong)}")

    def _fields(self) -> Schemas:
        if self._strict is None:
            self._strict = Schemas()
        return self._strict

    def _check(self, resource: Resource, obj: Object) -> None:
        if resource.group == "events.k8s.io":
            _check_event(obj)
        wrong = self._schemas.errors(obj) if self._schemas is not None else None
        if wrong is not None:
            raise ApiError(422, "Invalid", f"{obj.get('kind')} is invalid: {wrong}")

    def _view(self, route: Route, item: Item) -> bytes:
        if route.sub == "scale":
            return dumps(self.scale_view(route.shelf.resource, item.obj))
        return item.raw

    @staticmethod
    def scale_view(resource: Resource, obj: Object) -> Object:
        """Return the ``autoscaling/v1`` Scale of ``obj``."""
        assert resource.scale is not None
        want, seen, selector = (_dig(obj, path) for path in resource.scale)
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        status: dict[str, Any] = {"replicas": seen or 0}
        if selector:
            status["selector"] = selector if isinstance(selector, str) else selector_text(selector)
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {k: obj["metadata"][k] for k in kept if k in obj["metadata"]},
            "spec": {"replicas": want if want is not None else 1},
            "status": status,
        }


def _doubled(body: bytes) -> list[str]:
    found: list[str] = []

    def pairs(given: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in given]
        found.extend(n for at, n in enumerate(names) if n in names[:at])
        return dict(given)

    if body.startswith(b"{"):
        json.loads(body, object_pairs_hook=pairs)
    return found


def _dig(obj: Any, path: str) -> Any:
    for step in path.split("."):
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj


def _check_event(obj: Object) -> None:
    """The checks the API makes on a new event beyond its schema."""
    wrong = ""
    for name, longest in (
        ("action", 128),
        ("reason", 128),
        ("reportingInstance", 128),
        ("reportingController", 253),
    ):
        if not 0 < len(obj.get(name) or "") <= longest:
            wrong = f"{name}: must have between 1 and {longest} characters"
    if len(obj.get("note") or "") > 1024:
        wrong = "note: can have at most 1024 characters"
    if obj.get("type") not in ("Normal", "Warning"):
        wrong = "type: must be Normal or Warning"
    if not obj.get("eventTime"):
        wrong = "eventTime: must be specified"
    about = (obj.get("regarding") or {}).get("namespace") or "default"
    if about != (obj.get("metadata") or {}).get("namespace", about):
        wrong = "regarding.namespace: does not match event.namespace"
    if wrong:
        raise ApiError(422, "Invalid", f"Event is invalid: {wrong}")
