"""From an HTTP request to the store: routes, verbs, subresources and the checks the real API makes."""

from __future__ import annotations

import re
from typing import Any

from .admission import Admission, named_alike
from .apply import applied, updated
from .asked import Asked
from .bodies import body_of, media_type, parsed, refuse_deep
from .crds import follow_definitions
from .http import Request, Response, Stream
from .mirror import mirror_events
from .patch import PatchError, json_patch, merge, strategic
from .rbac import Rule, Wish, allows, person, review, rules_of
from .resources import BUILTIN, REVIEWS_GROUP, Resource
from .scale import scale_view, scaled
from .schemas import Schemas
from .selectors import field_matcher, label_matcher
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
        self._admission = Admission(schemas)
        self._bookmark_s = bookmark_s
        for resource in BUILTIN:
            store.register(resource)
        mirror_events(store)
        follow_definitions(store)
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
        if verb == "delete" and not name:
            verb = "deletecollection"
        if sub and not self._has(shelf.resource, sub):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        needs_name = verb in ("update", "patch")
        known = request.method in ("GET", "HEAD", *_VERBS)
        if (
            not known
            or (verb == "create" and name)
            or (needs_name and not name)
            or (sub and verb == "delete")
        ):
            raise ApiError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        return Route(verb, shelf, found["namespace"] or "", name, sub)

    @staticmethod
    def _has(resource: Resource, sub: str) -> bool:
        return (sub == "scale" and resource.scale is not None) or (sub == "status" and resource.has_status)

    def handle(self, route: Route, request: Request) -> Response | Stream:
        """Do what the request asks."""
        with self.store.lock:
            if route.shelf.resource.group == REVIEWS_GROUP:
                return self._review(route, request)
            asked = Asked.of(request)
            if route.verb == "watch":
                return self._watch(route, request, asked)
            if route.verb == "list":
                return self._list(route, request, asked)
            if route.verb == "get":
                item = self.store.get(route.shelf, route.namespace, route.name)
                if wanted(request.headers.get("accept", "")):
                    return Response(200, dumps(self._row(route, item)))
                return Response(200, self._view(route, item))
            if route.verb == "create":
                return self._create(route, request, asked)
            if route.verb == "patch" and media_type(request) == APPLY_PATCH and not route.sub:
                return self._apply(route, request, asked)
            if route.verb == "deletecollection":
                return self._delete_all(route, request, asked)
            old = self.store.get(route.shelf, route.namespace, route.name)
            if route.verb == "delete":
                return self._delete(route, old, asked)
            version = "autoscaling/v1" if route.sub == "scale" else route.shelf.resource.api_version
            new = updated(
                old.obj, self._changed(route, old, request, asked), asked.manager, version, route.sub
            )
            after = self.store.replace(route.shelf, old, new, dry_run=asked.is_dry)
            return Response(200, self._view(route, after))

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
            raise _not_allowed()
        resource = route.shelf.resource
        body, who = self._admission.read(resource, body_of(request)), person(request.headers)
        found = review(self.store, resource.plural, body, who, self.rules, route.namespace)
        head = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}}
        return Response(201, dumps({**found, **head}))

    def _empty(self, namespace: str) -> None:
        """Delete what is in a namespace that goes."""
        for shelf in self.store.shelves.values():
            for item in self.store.select(shelf, namespace) if shelf.resource.namespaced else ():
                if (namespace, item.obj["metadata"]["name"]) in shelf.items:  # an event is on two shelves
                    self.store.delete(shelf, item)

    def _delete(self, route: Route, old: Item, asked: Asked) -> Response:
        asked.check_preconditions(route.shelf.resource, old.obj)
        if not asked.is_dry and route.shelf.resource.plural == "namespaces":
            self._empty(route.name)
        self.store.delete(route.shelf, old, dry_run=asked.is_dry)
        return Response(200, dumps({"kind": "Status", "apiVersion": "v1", "status": "Success"}))

    def _delete_all(self, route: Route, request: Request, asked: Asked) -> Response:
        """Delete what a list with the same selectors would show."""
        if route.shelf.resource.plural == "namespaces":
            raise ApiError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        for item in self.store.select(route.shelf, route.namespace or None, *self._matchers(request.query)):
            self._delete(route, item, asked)
        return Response(200, dumps({"kind": "Status", "apiVersion": "v1", "status": "Success"}))

    def _list(self, route: Route, request: Request, asked: Asked) -> Response:
        query = request.query
        if query.get("continue"):
            version, items = self.store.resume_page(query["continue"])
        else:
            version = self.store.version
            items = self.store.select(route.shelf, route.namespace or None, *self._matchers(query))
        items, token = self.store.page(items, asked.limit)
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

    def _watch(self, route: Route, request: Request, asked: Asked) -> Stream:
        query = request.query
        bookmarks = query.get("allowWatchBookmarks") in ("1", "true", "True")
        return Watch(
            self.store,
            route.shelf,
            namespace=route.namespace or None,
            matchers=tuple(m for m in self._matchers(query) if m is not None),
            since=asked.since,
            timeout_s=asked.timeout_s,
            bookmark_s=self._bookmark_s if bookmarks else None,
        )

    def _create(self, route: Route, request: Request, asked: Asked) -> Response:
        resource = route.shelf.resource
        body = self._new(route, self._admission.read(resource, body_of(request)), request, asked)
        meta = {k: v for k, v in (body.get("metadata") or {}).items() if k != "managedFields"}
        body = updated(None, {**body, "metadata": meta}, asked.manager, resource.api_version)
        return Response(201, self.store.create(route.shelf, route.namespace, body, dry_run=asked.is_dry).raw)

    def _new(self, route: Route, body: Object, request: Request, asked: Asked) -> Object:
        """Check what shall be created."""
        resource = route.shelf.resource
        if resource.namespaced and not route.namespace:
            raise _not_allowed()
        named_alike(body, "namespace", route.namespace)
        if resource.namespaced and ("", route.namespace) not in self.store.shelves["", "namespaces"].items:
            raise ApiError(404, "NotFound", f'namespaces "{route.namespace}" not found')
        return self._admission.admit(resource, None, body, asked.is_strict, request)

    def _apply(self, route: Route, request: Request, asked: Asked) -> Response:
        """Server-side apply: make it, or take over what its manager says of it."""
        resource = route.shelf.resource
        manager = request.query.get("fieldManager", "")
        if not manager:
            text = "fieldManager: Required value: is required for apply patch"
            raise ApiError(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: {text}')
        given = self._admission.read(resource, body_of(request))
        meta = given.get("metadata") or {}
        if meta.get("managedFields"):
            raise ApiError(400, "BadRequest", "metadata.managedFields must be nil")
        named_alike(given, "name", route.name)
        given = {**given, "metadata": {**meta, "name": route.name}}
        old = route.shelf.items.get((route.namespace, route.name))
        after = applied(
            None if old is None else old.obj, given, manager, resource.api_version,
            force=request.query.get("force") in ("1", "true", "True"), has_status=resource.has_status,
        )  # fmt: skip
        if old is None:
            body = self._new(route, after, request, asked)
            return Response(
                201, self.store.create(route.shelf, route.namespace, body, dry_run=asked.is_dry).raw
            )
        self._check_version(route, old, given)
        after = self._admission.admit(resource, old.obj, after, asked.is_strict, request)
        return Response(200, self.store.replace(route.shelf, old, after, dry_run=asked.is_dry).raw)

    def _changed(self, route: Route, old: Item, request: Request, asked: Asked) -> Object:
        resource, is_scale = route.shelf.resource, route.sub == "scale"
        before = scale_view(resource, old.obj) if is_scale else old.obj
        if route.verb == "patch":
            after = self._admission.read(
                resource, _patched(resource, before, request), route.sub, is_patch=True
            )
        else:
            after = self._admission.read(resource, body_of(request), route.sub)
        named_alike(after, "name", route.name)
        named_alike(after, "namespace", route.namespace)
        self._check_version(route, old, after)
        if is_scale:
            after = scaled(resource, old.obj, after)
        elif route.sub == "status":
            after = {**old.obj, "status": after.get("status")}
        return self._admission.admit(resource, old.obj, after, asked.is_strict, request)

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

    def _view(self, route: Route, item: Item) -> bytes:
        if route.sub == "scale":
            return dumps(scale_view(route.shelf.resource, item.obj))
        return item.raw

    def _row(self, route: Route, item: Item) -> Object:
        resource = route.shelf.resource
        if route.sub == "scale":
            return scale_table(scale_view(resource, item.obj))
        return table(resource, [item.obj], {})


def _not_allowed() -> ApiError:
    text = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", text)


def _patched(resource: Resource, before: Object, request: Request) -> Object:
    kind = media_type(request)
    change = _PATCHES.get(kind)
    if change is None or (change is strategic and resource not in BUILTIN):
        text = f"the body of the request was in an unknown format: {kind or 'none'}"
        raise ApiError(415, "UnsupportedMediaType", f"{text}; accepted are {', '.join(_PATCHES)}")
    try:
        after = change(before, parsed(request))
    except PatchError as error:
        text = "the server rejected our request due to an error in our request"
        causes = [{"reason": "UnexpectedServerResponse", "message": str(error)}]
        raise ApiError(422, "Invalid", text, details={"causes": causes}) from error
    if not isinstance(after, dict):
        raise ApiError(400, "BadRequest", "the patch leaves no object")
    return refuse_deep(after)  # type: ignore[no-any-return]
