"""Objects, their versions and their history: the part of the test server that etcd plays."""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from typing import Any

from .resources import Resource
from .selectors import Matcher

Object = dict[str, Any]
_LONGEST_PREFIX = 55  # of a generated name, so that it is a label still


class ApiError(Exception):
    """A request the API refuses; becomes a ``Status`` object."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after_s: float | None = None,
        details: Object | None = None,
    ) -> None:
        self.details: Object | None = details
        self.status: int = status
        self.reason: str = reason
        self.message: str = message
        self.retry_after_s: float | None = retry_after_s
        super().__init__(message)

    def body(self) -> Object:
        body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.status,
        }  # fmt: skip
        return body if self.details is None else {**body, "details": self.details}


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Item:
    """One stored object; replaced, never changed, so readers need no copy."""

    obj: Object
    raw: bytes


@dataclass(slots=True)
class Change:
    """One line of history."""

    version: int
    type: str
    old: Item | None
    new: Item
    is_mirrored: bool = False


@dataclass(slots=True)
class Shelf:
    """All objects of one resource, with the changes a watch may resume from."""

    resource: Resource
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    history: deque[Change] = field(default_factory=deque)
    oldest: int = 0
    listeners: list[Callable[[Change], None]] = field(default_factory=list)


class Store:
    """Thread-safe object store with one global resourceVersion, as etcd gives it."""

    def __init__(self, *, history: int = 10_000) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.shelves: dict[tuple[str, str], Shelf] = {}
        self._version = count(1)
        self.version: int = next(self._version)
        self._history = history
        self._pages: dict[str, tuple[int, list[Item]]] = {}

    def register(self, resource: Resource) -> None:
        """Make room for ``resource``."""
        self.shelves.setdefault((resource.group, resource.plural), Shelf(resource, oldest=self.version))

    def forget(self, resource: Resource) -> None:
        """Drop a resource with all its objects; those who watch them hear that they go."""
        shelf = self.shelves.get((resource.group, resource.plural))
        if shelf is not None:
            for item in list(shelf.items.values()):
                self.delete(shelf, item)
            del self.shelves[resource.group, resource.plural]

    def get(self, shelf: Shelf, namespace: str, name: str) -> Item:
        """Return the object or raise 404."""
        item = shelf.items.get((namespace, name))
        if item is None:
            raise ApiError(404, "NotFound", f'{shelf.resource.qualified} "{name}" not found')
        return item

    def create(self, shelf: Shelf, namespace: str, obj: Object, *, dry_run: bool = False) -> Item:
        """Store a new object, or raise 409 ``AlreadyExists``."""
        meta = dict(obj.get("metadata") or {})
        if not meta.get("name"):
            prefix = meta.get("generateName")
            if not prefix:
                raise ApiError(422, "Invalid", "name or generateName is required")
            meta["name"] = prefix[:_LONGEST_PREFIX] + uuid.uuid4().hex[:8]
        if (namespace, meta["name"]) in shelf.items:
            raise ApiError(
                409, "AlreadyExists", f'{shelf.resource.qualified} "{meta["name"]}" already exists'
            )
        meta.pop("namespace", None)  # what belongs to no namespace says none
        if namespace:
            meta["namespace"] = namespace
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        head = {"kind": shelf.resource.kind, "apiVersion": shelf.resource.api_version, "metadata": meta}
        return self._put(shelf, "ADDED", None, {**obj, **head}, dry_run)

    def replace(self, shelf: Shelf, old: Item, obj: Object, *, dry_run: bool = False) -> Item:
        """Store a new state of ``old``; an equal state keeps its version, as the real one does."""
        meta = {**(obj.get("metadata") or {})}
        before = old.obj["metadata"]
        for kept in ("name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation"):
            if kept in before:
                meta[kept] = before[kept]
        obj = {**obj, "kind": old.obj["kind"], "apiVersion": old.obj["apiVersion"], "metadata": meta}
        if obj == old.obj:
            return old
        if obj.get("spec") != old.obj.get("spec"):
            meta["generation"] = before.get("generation", 0) + 1
        return self._put(shelf, "MODIFIED", old, obj, dry_run)

    def delete(self, shelf: Shelf, old: Item, *, dry_run: bool = False) -> Item:
        """Remove the object."""
        return self._put(shelf, "DELETED", old, old.obj, dry_run)

    def _put(self, shelf: Shelf, kind: str, old: Item | None, obj: Object, dry_run: bool) -> Item:
        if dry_run:
            return Item(obj, dumps(obj))
        self.version = version = next(self._version)
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}
        item = Item(obj, dumps(obj))
        self._record(shelf, Change(version, kind, old, item))
        return item

    def mirror(self, shelf: Shelf, change: Change, obj: Object) -> None:
        """Show a change of another shelf, with its version, on this one as ``obj``."""
        key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        item = Item(obj, dumps(obj))
        self._record(shelf, Change(change.version, change.type, shelf.items.get(key), item, is_mirrored=True))

    def _record(self, shelf: Shelf, change: Change) -> None:
        meta = change.new.obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        if change.type == "DELETED":
            shelf.items.pop(key, None)
        else:
            shelf.items[key] = change.new
        shelf.history.append(change)
        while len(shelf.history) > self._history:
            shelf.oldest = shelf.history.popleft().version
        for tell in tuple(shelf.listeners):
            tell(change)

    def select(self, shelf: Shelf, namespace: str | None, *matchers: Matcher | None) -> list[Item]:
        """Return the objects of a namespace (None for all) that every matcher accepts, by name."""
        wanted = [m for m in matchers if m is not None]
        rows = sorted((k, i) for k, i in shelf.items.items() if namespace is None or k[0] == namespace)
        return (
            [item for _, item in rows if all(m(item.obj) for m in wanted)] if wanted else [i for _, i in rows]
        )

    def page(self, items: list[Item], limit: int) -> tuple[list[Item], str]:
        """Split off the first ``limit`` items; returns them and the token for the rest."""
        if not limit or len(items) <= limit:
            return items, ""
        token = uuid.uuid4().hex
        self._pages[token] = (self.version, items[limit:])
        return items[:limit], token

    def resume_page(self, token: str) -> tuple[int, list[Item]]:
        """Return the version and the rest a token stands for, or raise 410."""
        page = self._pages.pop(token, None)
        if page is None:
            raise ApiError(410, "Expired", "The provided continue parameter is too old")
        return page

    def compact(self) -> None:
        """Forget all history: watches cannot resume from an older version, page tokens expire."""
        with self.lock:
            self._pages.clear()
            for shelf in self.shelves.values():
                shelf.history.clear()
                shelf.oldest = self.version
