"""From an HTTP request to the store: routes, verbs, subresources and the checks the real API makes."""

from __future__ import annotations

import json
import re
from typing import Any

from eventperf._core.errors import MissingExtra
from eventperf._core.extras import require

from .apply import applied, updated
from .http import Request, Response, Stream
from .immutable import check_changed, check_new
from .mirror import mirror_events
from .patch import PatchError, json_patch, merge, strategic
from .protobuf import MEDIA_TYPE, read
from .rbac import Rule, Wish, allows, person, review, rules_of
from .resources import BUILTIN, REVIEWS_GROUP, Resource
from .schemas import Schemas
from .selectors import field_matcher, label_matcher, selector_text
from .store import ApiError, Item, Object, Shelf, Store, dumps
from .tables import scale_table, table, wanted
from .watch import Watch

_PATH = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?/?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
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
        self.rules: list[Rule] | None = None
        """All that may be done, by who speaks for nobody else; None for everything."""
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
            if route.shelf.resource.group == REVIEWS_GROUP:
                return self._review(route, request)
            if route.verb == "watch":
                return self._watch(route, request)
            if route.verb == "list":
                return self._list(route, request)
            if route.verb == "get":
                item = self.store.get(route.shelf, route.namespace, route.name)
                if wanted(request.headers.get("accept", "")):
                    return Response(200, dumps(self._row(route, item)))
                return Response(200, self._view(route, item))
            dry_run = request.query.get("dryRun") == "All" or (
                route.verb == "delete" and _asks_dry_run(request)
            )
            if route.verb == "create":
                return self._create(route, self._body(request), request, dry_run)
            if route.verb == "patch" and _media_type(request) == APPLY_PATCH and not route.sub:
                return self._apply(route, request, dry_run)
            old = self.store.get(route.shelf, route.namespace, route.name)
            if route.verb == "delete":
                if not dry_run and route.shelf.resource.plural == "namespaces":
                    self._empty(route.name)
                self.store.delete(route.shelf, old, dry_run=dry_run)
                return Response(200, dumps({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            version = "autoscaling/v1" if route.sub == "scale" else route.shelf.resource.api_version
            new = updated(old.obj, self._changed(route, old, request), _manager(request), version, route.sub)
            return Response(
                200, self._view(route, self.store.replace(route.shelf, old, new, dry_run=dry_run))
            )

    def authorize(self, route: Route, request: Request) -> None:
        """Refuse what the rules do not allow.

        Raises:
            ApiError: 403.
        """
        who, group = person(request.headers), route.shelf.resource.group
        if group == REVIEWS_GROUP or (not who.name and self.rules is None):
            return  # everybody may ask what he may do
        with self.store.lock:
            rules = rules_of(self.store, who, route.namespace) if who.name else self.rules or ()
        if not allows(rules, Wish(route.verb, group, route.resource, route.namespace, route.name)):
            what = f'cannot {route.verb} resource "{route.resource}" in API group "{group}"'
            text = f'User "{who.name or "test"}" {what}'
            raise ApiError(
                403, "Forbidden", text + (f" in the namespace {route.namespace}" if who.name else "")
            )

    def _review(self, route: Route, request: Request) -> Response:
        if route.verb != "create":
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the resource")
        resource = route.shelf.resource
        body, who = self._body(request), person(request.headers)
        found = review(self.store, resource.plural, body, who, self.rules, route.namespace)
        head = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}}
        return Response(201, dumps({**found, **head}))

    def _empty(self, namespace: str) -> None:
        """Delete what is in a namespace that goes."""
        for shelf in self.store.shelves.values():
            for item in self.store.select(shelf, namespace) if shelf.resource.namespaced else ():
                if (namespace, item.obj["metadata"]["name"]) in shelf.items:  # an event is on two shelves
                    self.store.delete(shelf, item)

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
        kind = _media_type(request)
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
        body = self._new(route, body, request)
        meta = {k: v for k, v in (body.get("metadata") or {}).items() if k != "managedFields"}
        body = updated(None, {**body, "metadata": meta}, _manager(request), route.shelf.resource.api_version)
        return Response(201, self.store.create(route.shelf, route.namespace, body, dry_run=dry_run).raw)

    def _new(self, route: Route, body: Object, request: Request) -> Object:
        """Check what shall be created."""
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
        return body

    def _apply(self, route: Route, request: Request, dry_run: bool) -> Response:
        """Server-side apply: make it, or take over what its manager says of it."""
        resource, wanted_obj = route.shelf.resource, _yaml(request.body)
        manager = request.query.get("fieldManager", "")
        meta = wanted_obj.get("metadata") or {}
        if not manager:
            text = "fieldManager: Required value: is required for apply patch"
            raise ApiError(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: {text}')
        if meta.get("managedFields"):
            raise ApiError(400, "BadRequest", "metadata.managedFields must be nil")
        if meta.get("name", route.name) != route.name:
            text = (
                f"the name of the object ({meta['name']}) does not match the name on the URL ({route.name})"
            )
            raise ApiError(400, "BadRequest", text)
        wanted_obj = {**wanted_obj, "metadata": {**meta, "name": route.name}}
        old = route.shelf.items.get((route.namespace, route.name))
        after = applied(
            None if old is None else old.obj, wanted_obj, manager, resource.api_version,
            force=request.query.get("force") in ("1", "true", "True"), has_status=resource.has_status,
        )  # fmt: skip
        if old is None:
            body = self._new(route, after, request)
            return Response(201, self.store.create(route.shelf, route.namespace, body, dry_run=dry_run).raw)
        self._check_version(route, old, wanted_obj)
        self._check_fields(request, {**wanted_obj, "kind": resource.kind, "apiVersion": resource.api_version})
        check_changed(resource, old.obj, after)
        self._check(resource, after)
        return Response(200, self.store.replace(route.shelf, old, after, dry_run=dry_run).raw)

    def _changed(self, route: Route, old: Item, request: Request) -> Object:
        scaling = route.sub == "scale"
        before = self.scale_view(route.shelf.resource, old.obj) if scaling else old.obj
        body = self._body(request)
        if route.verb == "patch":
            kind = _media_type(request)
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
            try:
                self._strict = Schemas()
            except MissingExtra as error:
                raise ApiError(500, "InternalError", f"fieldValidation=Strict: {error}") from error
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

    def _row(self, route: Route, item: Item) -> Object:
        resource = route.shelf.resource
        if route.sub == "scale":
            return scale_table(self.scale_view(resource, item.obj))
        return table(resource, [item.obj], {})

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


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip()


def _manager(request: Request) -> str:
    """Return who writes: as it says, or as its program is called."""
    return request.query.get("fieldManager") or request.headers.get("user-agent", "").partition("/")[0]


def _yaml(body: bytes) -> Object:
    try:
        found = json.loads(body)
    except ValueError:
        loader = require("yaml", extra="kubernetes", needed_by="server-side apply of YAML")
        try:
            found = loader.safe_load(body)
        except loader.YAMLError as error:
            raise ApiError(400, "BadRequest", f"error decoding YAML: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(400, "BadRequest", "the body is not an object")
    return found


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


def _asks_dry_run(request: Request) -> bool:
    """Tell whether a DELETE's options ask for a dry run: kubectl says so in the body."""
    try:
        options = json.loads(request.body or b"{}")
    except ValueError:
        return False
    return isinstance(options, dict) and options.get("dryRun") == ["All"]
